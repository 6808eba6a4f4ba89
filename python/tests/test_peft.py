"""Every kind of PEFT model: which pairs are found, that they are stepped as the products that they are."""

from __future__ import annotations

import peft
import peft_models
import pytest
import torch
from peft_models import MODELS, backward, make

import lorapro
from lorapro import LoraPro, create_lorapro_optimizer

MODES = ["factored", "full", "efficient", "sgd", "lora"]


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def delta(model):
    """The weight that each adapter adds, by PEFT's own function."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and hasattr(module, "get_delta_weight"):
            found[name] = module.get_delta_weight("default").detach().clone()
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_exactly_the_trained_parameters_move_and_the_loss_falls(name, mode):
    model, batch = make(name)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = create_lorapro_optimizer(model, lr=1e-2, mode=mode)
    listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert listed == {id(p) for p in trained(model).values()}
    losses = []
    for _ in range(6):
        losses.append(backward(model, batch).item())
        optimizer.step()
    assert losses[-1] < losses[0]
    for n, p in model.named_parameters():
        if name == "attention" and not p.requires_grad:  # PEFT merges and unmerges it in each forward
            torch.testing.assert_close(p, before[n])
        else:
            assert torch.equal(p, before[n]) != p.requires_grad, n
    assert len(optimizer.reports()) == MODELS[name][3]


KINDS = ["linear", "embedding", "conv1d", "conv2d", "conv3d", "experts", "attention"]


@pytest.mark.parametrize("name", [*KINDS, "rslora", "rank_pattern", "eva"])
def test_the_equivalent_gradient_is_the_change_of_the_weight(name):
    """A step of SGD changes the weight that PEFT adds by -lr E + O(lr^2), and ||E|| is reported. That
    sees a wrong scale, a wrong flattening of a convolution, and experts that are mixed up."""
    model, batch = make(name)
    for p in trained(model).values():
        torch.nn.init.normal_(p, std=0.5)
    model.double()
    batch = batch.double() if batch.is_floating_point() else batch
    lr = 1e-6
    optimizer = create_lorapro_optimizer(model, lr=lr, mode="sgd", damping="none")
    backward(model, batch)
    before = delta(model)
    optimizer.step()
    change = {n: (d - before[n]) / lr for n, d in delta(model).items()}
    total = sum(c.square().sum() for c in change.values()).sqrt().item()
    reported = sum(r["equivalent_norm"] ** 2 for r in optimizer.reports().values()) ** 0.5
    assert reported == pytest.approx(total, rel=1e-4)  # the term of order lr


def test_groups_of_a_convolution_are_blocks_of_a_product():
    """B is block-diagonal and A is whole: E, and what PEFT's forward adds, are those of s B A."""
    model, batch = make("conv_groups")
    for p in trained(model).values():
        torch.nn.init.normal_(p, std=0.5)
    layer, batch = model.double().base_model.model.conv, batch.double()
    a, b = (factor["default"].weight for factor in (layer.lora_A, layer.lora_B))

    def product():
        blocks = torch.block_diag(*b.detach().flatten(1).chunk(2))
        return layer.scaling["default"] * blocks @ a.detach().flatten(1)

    added = layer(batch) - layer.get_base_layer()(batch)
    weight = product().view(8, 4, 3, 3)
    torch.testing.assert_close(added, torch.nn.functional.conv2d(batch, weight, padding=1))
    lr, before = 1e-6, product()
    optimizer = create_lorapro_optimizer(model, lr=lr, mode="sgd", damping="none")
    backward(model, batch)
    optimizer.step()
    rows = ((product() - before) / lr).chunk(2)
    reported = [report["equivalent_norm"] for report in optimizer.reports().values()]
    assert reported == pytest.approx([row.norm().item() for row in rows], rel=1e-4)


@pytest.mark.parametrize("name", ["pissa", "olora", "orthogonal", "lora_ga"])
def test_a_start_with_both_factors_needs_no_first_step_of_its_own(name):
    """B is not zero, so that A moves in the first step too."""
    model, batch = make(name)
    assert all(p.any() for p in trained(model).values())
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    backward(model, batch)
    optimizer.step()
    assert all(min(report["update_norm"]) > 0 for report in optimizer.reports().values())


def test_full_gradient_in_the_tangent_space_is_followed():
    """At r = min(m, n) the step of SGD is full fine-tuning's: E = dL/dW, seen through PEFT's scale."""
    torch.manual_seed(1)
    base = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=False)).double()
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], r=4, lora_alpha=12))
    torch.nn.init.normal_(model.base_model.model[0].lora_B["default"].weight)
    x, y = torch.randn(9, 6).double(), torch.randn(9, 4).double()
    w = (base[0].weight + delta(model)["base_model.model.0"]).detach().requires_grad_()
    (x @ w.T - y).square().mean().backward()
    (model(x) - y).square().mean().backward()
    before, lr = delta(model)["base_model.model.0"], 1e-7
    create_lorapro_optimizer(model, lr=lr, mode="sgd", damping="none").step()
    change = (delta(model)["base_model.model.0"] - before) / -lr
    torch.testing.assert_close(change, w.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "rslora", "experts"])
def test_the_scale_is_read_at_each_step(name):
    """After `set_scale` the step is that of a model whose scale was so from the start."""
    steps = []
    for early in (True, False):
        model, batch = make(name)
        for p in trained(model).values():
            torch.nn.init.normal_(p, std=0.3)
        if early:
            for module in model.modules():
                if hasattr(module, "set_scale"):
                    module.set_scale("default", 3.0)
        optimizer = create_lorapro_optimizer(model, lr=1e-2, mode="sgd")
        if not early:
            optimizer._replan()
            for module in model.modules():
                if hasattr(module, "set_scale"):
                    module.set_scale("default", 3.0)
        backward(model, batch)
        optimizer.step()
        steps.append({n: p.detach().clone() for n, p in trained(model).items()})
    for n, p in steps[0].items():
        assert torch.equal(p, steps[1][n]), n


def test_a_scale_that_changes_between_steps_is_seen():
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2, mode="sgd")
    norms = []
    for scale in (1.0, 1.0, 4.0):
        for module in model.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", scale)
        backward(model, batch)
        optimizer.step()
        norms.append(next(iter(optimizer._backends.slots.values())).scale)
    assert norms == [2.0, 2.0, 8.0]


def test_several_adapters_are_pairs_of_their_own():
    model, batch = make("linear")
    model.add_adapter("other", peft.LoraConfig(target_modules=["first"], r=2, lora_alpha=2))
    model.base_model.set_adapter(["default", "other"])
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    names = [a for a, _ in optimizer.pairs()]
    assert sorted(name.split(".")[-2] for name in names) == ["default", "default", "other"]
    before = {n: p.detach().clone() for n, p in trained(model).items()}
    for _ in range(2):
        backward(model, batch)
        optimizer.step()
    assert all(not torch.equal(p, before[n]) for n, p in trained(model).items())
    model.set_adapter("other")  # only one is active: the others are no longer trained and keep still
    kept = {n: p.detach().clone() for n, p in model.named_parameters() if ".default." in n}
    backward(model, batch)
    optimizer.step()
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters() if ".default." in n)


@pytest.mark.parametrize("frozen", ["lora_A", "lora_B"])
def test_with_a_frozen_factor_the_other_is_stepped_by_adamw(frozen):
    model, batch = make("linear")
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
        if frozen in name and "first" in name:
            p.requires_grad_(False)
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    assert len(optimizer.pairs()) == 1
    (single,) = [n for n in trained(model) if "first" in n]
    expected = trained(model)[single].detach().clone().requires_grad_()
    adamw = torch.optim.AdamW([expected], lr=1e-2, weight_decay=0)
    for _ in range(3):
        backward(model, batch)
        expected.grad = trained(model)[single].grad.clone()
        adamw.step()
        optimizer.step()
    torch.testing.assert_close(trained(model)[single], expected, rtol=1e-6, atol=1e-7)


REFUSED = {
    "adalora": (lambda: peft.AdaLoraConfig(target_modules=["first"], init_r=4, total_step=10), "AdaLoRA"),
    "loha": (lambda: peft.LoHaConfig(target_modules=["first"], r=4), "PEFT's loha"),
    "lokr": (lambda: peft.LoKrConfig(target_modules=["first"], r=4), "PEFT's lokr"),
    "vera": (lambda: peft.VeraConfig(target_modules=["first"], r=4), "PEFT's vera"),
    "ia3": (lambda: peft.IA3Config(target_modules=["first"], feedforward_modules=[]), "PEFT's ia3"),
    "oft": (lambda: peft.OFTConfig(target_modules=["first"], oft_block_size=4), "PEFT's oft"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_b_a_is_refused_by_name(name):
    config, words = REFUSED[name]
    model = peft.get_peft_model(peft_models.Block(), config())
    with pytest.raises(ValueError) as error:
        create_lorapro_optimizer(model, lr=1e-3)
    message = str(error.value)
    assert words in message and "base_model.model.first" in message and 'on_unsupported="adamw"' in message


def test_what_is_not_b_a_is_stepped_by_adamw_where_that_is_asked_for():
    torch.manual_seed(0)
    base = peft_models.Block()
    mixed = peft.PeftMixedModel(base, peft.LoraConfig(target_modules=["second"], r=4), adapter_name="lora")
    mixed.add_adapter("loha", peft.LoHaConfig(target_modules=["first"], r=4))
    mixed.set_adapter(["lora", "loha"])
    with pytest.raises(ValueError, match="loha"):
        create_lorapro_optimizer(mixed, lr=1e-3)
    optimizer = create_lorapro_optimizer(mixed, lr=1e-3, on_unsupported="adamw")
    assert len(optimizer.pairs()) == 1
    before = {n: p.detach().clone() for n, p in trained(mixed).items()}
    for _ in range(3):
        backward(mixed, peft_models.tokens())
        optimizer.step()
    assert all(not torch.equal(p, before[n]) for n, p in trained(mixed).items())


def test_a_rank_above_the_layer_is_refused_by_name():
    model = peft.get_peft_model(peft_models.Block(), peft.LoraConfig(target_modules=["head"], r=8))
    with pytest.raises(ValueError, match=r"model.head.default`: its rank is 8.*min\(m, n\) = 5"):
        create_lorapro_optimizer(model, lr=1e-3)


def test_no_pair_is_an_error():
    with pytest.raises(ValueError, match="no LoRA pair"):
        create_lorapro_optimizer(peft_models.Block(), lr=1e-3)
    with pytest.raises(ValueError, match="pass the model"):
        LoraPro(list(peft_models.Block().parameters()), lr=1e-3)
    with pytest.raises(TypeError, match="torch.nn.Module"):
        create_lorapro_optimizer([torch.zeros(2)], lr=1e-3)


def test_tied_factors_are_refused_by_name():
    model, _ = make("linear")
    layers = model.base_model.model
    layers.second.lora_A["default"].weight = torch.nn.Parameter(torch.randn(4, 20))
    shared = torch.nn.Parameter(torch.randn(4, 12))
    layers.first.lora_A["default"].weight = shared
    layers.second.lora_B["default"].weight = torch.nn.Parameter(torch.zeros(12, 4))
    layers.second.lora_A["default"].weight = shared
    with pytest.raises(ValueError, match="shares the parameter"):
        create_lorapro_optimizer(model, lr=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_16_bit_factors_stay_finite_and_keep_their_dtype(mode, dtype):
    model, batch = make("linear")
    model.to(dtype)
    optimizer = create_lorapro_optimizer(model, lr=1e-3, mode=mode)
    for _ in range(5):
        backward(model, batch)
        optimizer.step()
    for p in trained(model).values():
        assert p.dtype == dtype and torch.isfinite(p).all()


def test_channels_last_convolutions_step_as_others():
    finals = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model, batch = make("conv2d")
        model.to(memory_format=memory_format)
        optimizer = create_lorapro_optimizer(model, lr=1e-2)
        for _ in range(3):
            backward(model, batch)
            for p in trained(model).values():  # the same gradient for both, in the parameter's format
                p.grad = p.grad.to(memory_format=memory_format) if p.ndim == 4 else p.grad
            optimizer.step()
        finals.append({n: p.detach().clone() for n, p in trained(model).items()})
    for n, p in finals[0].items():
        torch.testing.assert_close(p, finals[1][n], rtol=1e-4, atol=1e-5)  # torch's convolutions differ by rounding


def test_plain_modules_and_triples_step_as_peft():
    model, batch = make("linear")

    class Plain(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.base, self.scaling = layer.get_base_layer(), layer.scaling["default"]
            self.lora_A = torch.nn.Parameter(layer.lora_A["default"].weight.detach().clone())
            self.lora_B = torch.nn.Parameter(layer.lora_B["default"].weight.detach().clone())

        def forward(self, x):
            return self.base(x) + self.scaling * (x @ self.lora_A.T) @ self.lora_B.T

    def plain():
        copy, _ = make("linear")
        block = copy.base_model.model
        block.first, block.second = Plain(block.first), Plain(block.second)
        return block

    by_module, by_triples, by_names = plain(), plain(), plain()
    optimizers = [
        (model, create_lorapro_optimizer(model, lr=1e-2)),
        (by_module, LoraPro(by_module, lr=1e-2)),
        (by_triples, LoraPro([(m.lora_A, m.lora_B, m.scaling) for m in (by_triples.first, by_triples.second)], lr=1e-2)),
        (by_names, LoraPro([(n, p) for n, p in by_names.named_parameters() if p.requires_grad], lr=1e-2, scale=2.0)),
    ]
    for _ in range(4):
        for owner, optimizer in optimizers:
            backward(owner, batch)
            optimizer.step()
    expected = [p for n, p in trained(model).items()]
    for owner, _ in optimizers[1:]:
        lora = [p for n, p in owner.named_parameters() if "lora" in n]
        assert all(torch.equal(p, q) for p, q in zip(expected, lora, strict=True))


def test_a_scale_that_nothing_tells_is_an_error():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A, self.lora_B = (torch.nn.Parameter(torch.randn(*s)) for s in ((2, 5), (4, 2)))

    with pytest.raises(ValueError, match="no attribute `scaling`.*pass scale=s"):
        LoraPro(Plain(), lr=1e-3)
    with pytest.raises(ValueError, match="scale s is unknown"):
        LoraPro(Plain().named_parameters(), lr=1e-3)
    assert LoraPro(Plain(), lr=1e-3, scale=2.0).pairs() == [("lora_A", "lora_B")]


def test_lorapro_exports():
    assert set(lorapro.__all__) <= set(dir(lorapro))
