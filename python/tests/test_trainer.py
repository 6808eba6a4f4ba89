"""transformers' Trainer, accelerate, mixed precision, checkpointing and compilation change nothing about a step."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from peft_models import backward, loss_of, make
from tiny_model import adapted_llama, text
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, default_collate
from transformers import PrinterCallback, Trainer, TrainingArguments

from lorapro import LoraPro, LoraProFactory, create_lorapro_optimizer

WAYS = {
    "optimizers": lambda model, options: {"optimizers": (create_lorapro_optimizer(model, **options), None)},
    "class": lambda model, options: {"optimizer_cls_and_kwargs": (LoraPro, {"model": model, **options})},
    "factory": lambda model, options: {"optimizer_cls_and_kwargs": (LoraProFactory, options)},
}


def trainer(folder, way="factory", options={}, **arguments):
    """A Trainer of the tiny Llama, in six steps with a checkpoint after each third."""
    model = adapted_llama(layers=1)
    args = dict(max_steps=6, save_steps=3, logging_steps=1, per_device_train_batch_size=4, learning_rate=7.0)
    args |= dict(report_to="none", disable_tqdm=True, dataloader_pin_memory=False, use_cpu=True)
    args = TrainingArguments(output_dir=str(folder), **args | arguments)
    made = Trainer(model, args, train_dataset=text(), **WAYS[way](model, {"lr": 3e-3, **options}))
    made.remove_callback(PrinterCallback)
    return made


def own(trainer) -> LoraPro:
    """The optimizer inside accelerate's."""
    assert type(trainer.optimizer.optimizer) is LoraPro
    return trainer.optimizer.optimizer


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_same(left, right):
    """The same tensors to the last bit."""
    assert left.keys() == right.keys() and left
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of the Trainer with each way to pass the optimizer."""
    made = {}

    def of(way):
        if way not in made:
            made[way] = trainer(tmp_path_factory.mktemp(way), way)
            made[way].train()
        return made[way]

    return of


@pytest.mark.parametrize("way", WAYS)
def test_each_way_gives_the_same_bits_and_resumes_to_them(way, uninterrupted, tmp_path):
    whole = uninterrupted(way)
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert_same(trained(whole.model), trained(uninterrupted("optimizers").model))
    resumed = trainer(tmp_path, way, {"lr": 1.0})  # lr comes from the checkpoint
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    assert_same(trained(whole.model), trained(resumed.model))
    for number, state in own(whole).state_dict()["state"].items():
        assert state["step"] == 6
        assert_same(state, own(resumed).state_dict()["state"][number])


def test_the_trainers_scheduler_moves_the_rate_of_the_optimizer(uninterrupted):
    rates = [entry["learning_rate"] for entry in uninterrupted("class").state.log_history if "loss" in entry]
    assert rates == pytest.approx([3e-3 * (1 - k / 6) for k in range(6)])  # not of TrainingArguments' 7


def test_without_a_model_the_class_says_what_it_needs(tmp_path):
    made = trainer(tmp_path)
    made.optimizer_cls_and_kwargs = (LoraPro, {"lr": 1e-3})
    with pytest.raises(ValueError, match="no LoRA pair.*pass the model"):
        made.train()


def test_a_trainer_without_factories_is_told_what_to_take():
    with pytest.raises(TypeError, match='LoraPro, {"model": model'):
        LoraProFactory([], lr=1e-3)


@pytest.mark.parametrize("limit", [0.05, 0.0])
def test_the_trainer_clips_before_the_step(limit, tmp_path):
    made = trainer(tmp_path, options={"mode": "sgd", "lr": 1.0}, max_grad_norm=limit, max_steps=1)
    made.train()
    logged = next(entry["grad_norm"] for entry in made.state.log_history if "loss" in entry)
    seen = own(made).last_step["grad_norm"]
    if limit:
        assert logged > 2 * limit and seen == pytest.approx(limit, rel=1e-4)
    else:
        assert seen > 0.1


def test_the_trainer_in_bf16_and_with_checkpointing_steps_f32_adapters(tmp_path):
    made = trainer(tmp_path, bf16=True, gradient_checkpointing=True, gradient_accumulation_steps=2, save_steps=100)
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in trained(made.model).values())
    assert {report["step"] for report in own(made).reports().values()} == {6}


def test_accelerate_accumulates_to_the_step_of_the_joined_batch():
    model, batch = make("modules_to_save")
    optimizer = create_lorapro_optimizer(model.double(), lr=1e-2)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    wrapped, wrapped_optimizer, parts = accelerator.prepare(model, optimizer, DataLoader(batch, batch_size=2))
    for _ in range(4):
        for part in parts:
            with accelerator.accumulate(wrapped):
                accelerator.backward(loss_of_f64(wrapped, part))
                wrapped_optimizer.step()
                wrapped_optimizer.zero_grad()
    assert {report["step"] for report in optimizer.reports().values()} == {4}
    joined, _ = make("modules_to_save")
    plain = create_lorapro_optimizer(joined.double(), lr=1e-2)
    for _ in range(4):
        plain.zero_grad()
        loss_of_f64(joined, batch).backward()
        plain.step()
    for name, p in trained(joined).items():
        torch.testing.assert_close(trained(model)[name], p, rtol=1e-9, atol=1e-11)


def loss_of_f64(model, batch):
    return (model(batch) - 1).square().mean()


def test_the_scale_of_a_gradscaler_is_taken_out_before_the_step():
    """Scales are powers of two: in f32 nothing is rounded."""
    finals = []
    for enabled in (False, True):
        model, batch = make("modules_to_save")
        optimizer = create_lorapro_optimizer(model, lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, batch)).backward()
            scaler.step(optimizer)
            scaler.update()
        finals.append(trained(model))
    assert_same(*finals)


def test_a_step_that_a_gradscaler_skips_changes_nothing_and_is_not_counted():
    model, batch = make("modules_to_save")
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    # Gradients of fp16 overflow at the scales 2^40 and 2^30.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-10, growth_interval=100)
    losses, taken, before = [], 0, trained(model)
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model, batch)
        losses.append(loss.item())
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        taken += scaler.get_scale() == scale
        if not taken:
            assert_same(before, trained(model))
            assert not optimizer.state
    assert 1 <= 8 - taken <= 4 and losses[-1] < losses[0]
    assert {int(state["step"]) for state in optimizer.state.values()} == {taken}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_f32_factors(dtype):
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            assert model(batch).dtype == dtype
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()  # inside, too
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {v.dtype for state in optimizer.state.values() for v in state.values()} == {torch.float32}


def llama_steps(model, forward, optimizer, count=3):
    batch = default_collate(text())
    for _ in range(count):
        forward(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return trained(model)


def test_gradient_checkpointing_gives_the_same_bits():
    finals = []
    for checkpointing in (False, True):
        model = adapted_llama(layers=1)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        finals.append(llama_steps(model, model, create_lorapro_optimizer(model, lr=3e-3)))
    assert_same(*finals)


def test_a_compiled_model_gives_the_same_bits_and_its_state_is_the_models():
    """The optimizer may be made of the model or of what torch.compile returns; their states fit each other."""
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    compiled, _ = make("linear")
    forward = torch.compile(compiled, backend="eager")
    of_compiled = create_lorapro_optimizer(forward, lr=1e-2)
    assert of_compiled.pairs() == optimizer.pairs()
    for _ in range(3):
        backward(model, batch)
        optimizer.step()
        backward(forward, batch)
        of_compiled.step()
    assert_same(trained(model), trained(compiled))
    optimizer.load_state_dict(of_compiled.state_dict())
    for number, state in of_compiled.state_dict()["state"].items():
        assert_same(state, optimizer.state_dict()["state"][number])


def test_names_are_those_of_the_model_inside_ddp(tmp_path):
    model, _ = make("linear")
    expected = create_lorapro_optimizer(model, lr=1e-2).pairs()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        assert create_lorapro_optimizer(wrapped, lr=1e-2).pairs() == expected
        assert LoraPro(wrapped.parameters(), lr=1e-2, model=wrapped).pairs() == expected
    finally:
        dist.destroy_process_group()
