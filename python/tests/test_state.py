"""Saving and loading: to the last bit, whatever the container, and refused by name where it does not fit."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft_models import MODELS, backward, make
from safetensors.torch import load_file, save_file

from lorapro import LoraPro, create_lorapro_optimizer

MODES = ["factored", "full", "efficient", "sgd", "lora"]


def snapshot(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def through_torch_save(state, folder):
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt")


def through_safetensors(state, folder):
    flat = {f"{i}.{k}": v for i, s in state["state"].items() for k, v in s.items()}
    save_file(flat, folder / "state.safetensors")
    loaded: dict = {}
    for key, value in load_file(folder / "state.safetensors").items():
        number, name = key.split(".", 1)
        loaded.setdefault(int(number), {})[name] = value
    return {**state, "state": loaded}


@pytest.mark.parametrize("container", [through_torch_save, through_safetensors])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["linear", "modules_to_save", "conv2d", "conv_groups", "experts", "embedding"])
def test_a_run_continues_to_the_last_bit(name, mode, container, tmp_path):
    model, batch = make(name)
    optimizer = create_lorapro_optimizer(model, lr=1e-2, mode=mode)
    for _ in range(3):
        backward(model, batch)
        optimizer.step()
    state, weights = container(optimizer.state_dict(), tmp_path), copy.deepcopy(model.state_dict())
    for _ in range(3):
        backward(model, batch)
        optimizer.step()

    again, _ = make(name, seed=1)
    again.load_state_dict(weights)
    resumed = create_lorapro_optimizer(again, lr=1e-3, mode=mode)  # lr comes from the state
    resumed.load_state_dict(state)
    for _ in range(3):
        backward(again, batch)
        resumed.step()
    for (n, p), q in zip(snapshot(model).items(), snapshot(again).values(), strict=True):
        assert torch.equal(p, q), n


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "master"])
@pytest.mark.parametrize("mode", ["factored", "full", "efficient"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moments_of_16_bit_factors_keep_f32(dtype, mode, rounding):
    runs = []
    for resume in (False, True):
        model, batch = make("linear")
        model.to(dtype)
        optimizer = create_lorapro_optimizer(model, lr=1e-2, mode=mode, rounding=rounding)
        for step in range(5):
            if resume and step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = create_lorapro_optimizer(model, lr=1e-2, mode=mode, rounding=rounding)
                optimizer.load_state_dict(state)
                tensors = [v for s in optimizer.state_dict()["state"].values() for v in s.values()]
                assert all(t.dtype == torch.float32 for t in tensors)
            backward(model, batch)
            optimizer.step()
        runs.append(snapshot(model))
    assert all(torch.equal(p, runs[1][n]) for n, p in runs[0].items())


@pytest.mark.parametrize("moment_dtype", ["f32", "bf16", "8bit"])
def test_moments_in_other_types_continue_to_the_last_bit(moment_dtype):
    runs = []
    for resume in (False, True):
        model, batch = make("linear")
        optimizer = create_lorapro_optimizer(model, lr=1e-2, mode="full", moment_dtype=moment_dtype)
        for step in range(4):
            if resume and step == 2:
                state = optimizer.state_dict()
                optimizer = create_lorapro_optimizer(model, lr=1e-2, mode="full", moment_dtype=moment_dtype)
                optimizer.load_state_dict(state)
            backward(model, batch)
            optimizer.step()
        runs.append(snapshot(model))
    assert all(torch.equal(p, runs[1][n]) for n, p in runs[0].items())


def test_state_is_read_and_written_under_the_parameters():
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    assert not optimizer.state
    backward(model, batch)
    optimizer.step()
    (a, b), names = optimizer.pairs()[0], dict(model.named_parameters())
    of_a, of_b = optimizer.state[names[a]], optimizer.state[names[b]]
    assert set(of_a) == {"step", "exp_avg_y", "col_sq"} and set(of_b) == {"step", "exp_avg_z", "row_sq"}
    assert of_a["exp_avg_y"].shape == names[a].shape and of_b["exp_avg_z"].shape == names[b].shape
    of_a["exp_avg_y"] = torch.full_like(names[a], 0.5)
    assert (optimizer.state[names[a]]["exp_avg_y"] == 0.5).all()
    of_a["step"] = torch.tensor(7.0)
    assert int(optimizer.state[names[b]]["step"]) == 7
    with pytest.raises(ValueError, match="adapter .*exp_avg_y"):
        of_a["exp_avg_y"] = torch.zeros(1, 1)
    with pytest.raises(AttributeError, match="load_state_dict"):
        optimizer.state = {0: {"step": 1}}


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_the_step_counter_does_not_depend_on_torchs_defaults(backend):
    _, _, optimizer = stepped(backend=backend)
    for view in optimizer.state.values():
        view["step"] = torch.tensor(4099.0)  # bf16 has 8 bits
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            state = copy.deepcopy(optimizer).state_dict()["state"]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(entry["step"], torch.tensor(4099.0)) for entry in state.values())


def stepped(name="linear", **options):
    model, batch = make(name)
    optimizer = create_lorapro_optimizer(model, lr=1e-2, **options)
    for _ in range(2):
        backward(model, batch)
        optimizer.step()
    return model, batch, optimizer


def without(state, number, key):
    del state["state"][number][key]


def retyped(state, number, key):
    state["state"][number][key] = state["state"][number][key].double()


def renamed(state):
    names = state["param_groups"][0]["param_names"]
    names[0], names[2] = names[2], names[0]


DAMAGED = {
    "another mode": (lambda s: s["param_groups"][0].update(mode="full"), "mode is 'factored', but.*'full'"),
    "another optimizer": (lambda s: s["param_groups"][0].pop("mode"), "not LoRA-Pro's"),
    "another model": (renamed, "another model's"),
    "another rank": (lambda s: s["state"][0].update(exp_avg_y=torch.zeros(2, 12)), r"first.default.*exp_avg_y.*2, 12"),
    "a missing tensor": (lambda s: without(s, 1, "row_sq"), "first.default.*`row_sq` is missing"),
    "another dtype": (lambda s: retyped(s, 0, "exp_avg_y"), "exp_avg_y.*(f64|float64)"),
    "a tensor too many": (lambda s: s["state"][0].update(extra=torch.zeros(3)), "extra"),
    "no step": (lambda s: without(s, 0, "step"), "no `step`"),
    "a negative step": (lambda s: s["state"][0].update(step=torch.tensor(-1.0)), "step is -1"),
    "steps that differ": (lambda s: s["state"][0].update(step=torch.tensor(9.0)), "different steps"),
    "one factor": (lambda s: s["state"].pop(0), "none for"),
    "an unknown parameter": (lambda s: s["state"].update({99: {}}), "99"),
    "an infinite step": (lambda s: s["state"][0].update(step=float("inf")), "first.default`: its saved step is inf"),
    "a step of two": (lambda s: s["state"][0].update(step=torch.ones(2)), "first.default`: its saved step is"),
    "a NaN": (lambda s: s["state"][0]["exp_avg_y"].view(-1)[3:4].fill_(float("nan")), "`exp_avg_y` holds a NaN"),
    "an infinity": (lambda s: s["state"][1]["row_sq"].view(-1)[:1].fill_(float("inf")), "`row_sq` holds a NaN"),
    "a negative square": (lambda s: s["state"][1]["row_sq"].mul_(-1), "first.default.*`row_sq`.* is negative"),
    "a list": (lambda s: s["state"][0].update(exp_avg_y=[1.0]), r"first.default.*`exp_avg_y` is \[1.0\]"),
    "no memory": (lambda s: s["state"][0].update(exp_avg_y=torch.empty(3, 12, device="meta")), "`exp_avg_y` is .*meta"),
    "no entry": (lambda s: s["state"].update({0: None}), "first.default.* no `step`"),
    "a learning rate of NaN": (lambda s: s["param_groups"][0].update(lr=float("nan")), "group `0`: lr is nan"),
    "an option out of range": (lambda s: s["param_groups"][0].update(eps=-1.0), "group `0`: eps is -1"),
    "an option too few": (lambda s: s["param_groups"][0].pop("betas"), "group 0 has no `betas`"),
    "a group too many": (lambda s: s["param_groups"].append(s["param_groups"][0]), "parameter groups"),
}


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(damage, backend):
    model, batch, optimizer = stepped(backend=backend)
    twin_model, _, twin = stepped(backend=backend)
    state = copy.deepcopy(optimizer.state_dict())
    change, words = DAMAGED[damage]
    change(state)
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(state)
    for owner, stepper in ((model, optimizer), (twin_model, twin)):
        backward(owner, batch)
        stepper.step()
    assert all(torch.equal(p, snapshot(twin_model)[n]) for n, p in snapshot(model).items())


def test_the_state_of_another_rank_is_refused_by_name():
    _, _, optimizer = stepped("linear")
    model, _ = make("rank_pattern")
    with pytest.raises(ValueError, match="first.default"):
        create_lorapro_optimizer(model, lr=1e-2).load_state_dict(optimizer.state_dict())


def test_a_torch_adamw_state_is_refused():
    model, batch = make("linear")
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained)
    backward(model, batch)
    adamw.step()
    with pytest.raises(ValueError, match="not LoRA-Pro's"):
        LoraPro(model, lr=1e-3).load_state_dict(adamw.state_dict())


def test_torch_distributed_checkpoint_keeps_the_state(tmp_path):
    """Its own way of saving: it may take a step of zero gradients first, and maps state by names."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model, batch, optimizer = stepped("modules_to_save")
    checkpoint.save({"o": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=tmp_path, no_dist=True)
    again = copy.deepcopy(model)
    fresh = create_lorapro_optimizer(again, lr=1e-2)
    state = {"o": get_optimizer_state_dict(again, fresh)}
    checkpoint.load(state, checkpoint_id=tmp_path, no_dist=True)
    set_optimizer_state_dict(again, fresh, state["o"])
    for owner, stepper in ((model, optimizer), (again, fresh)):
        for _ in range(2):
            backward(owner, batch)
            stepper.step()
    assert all(torch.equal(p, snapshot(again)[n]) for n, p in snapshot(model).items())


TRAIN = """
import os, sys, torch
sys.path.insert(0, {tests!r})
from peft_models import backward, make
from lorapro import create_lorapro_optimizer
path, steps = sys.argv[1], int(sys.argv[2])
model, batch = make("modules_to_save")
optimizer, start = create_lorapro_optimizer(model, lr=1e-2), 0
if os.path.exists(path):
    saved = torch.load(path)
    model.load_state_dict(saved["model"]); optimizer.load_state_dict(saved["optimizer"]); start = saved["step"]
for step in range(start, steps):
    backward(model, batch); optimizer.step()
    saved = {{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}}
    torch.save(saved, path + ".new"); os.replace(path + ".new", path)
    print(step + 1, flush=True)
"""


def test_a_killed_run_continues_to_the_last_bit(tmp_path):
    code = TRAIN.format(tests=str(Path(__file__).parent))
    finals = []
    for kill in (False, True):
        path = str(tmp_path / f"{kill}.pt")
        command = [sys.executable, "-c", code, path, "200"]
        if kill:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                while int(process.stdout.readline()) < 40:
                    pass
                time.sleep(0.01)
                os.kill(process.pid, signal.SIGKILL)
            assert 40 <= torch.load(path)["step"] < 200
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        finals.append(torch.load(path))
    for key in ("model", "optimizer"):
        flat = [f[key] if key == "model" else {f"{i}{k}": v for i, s in f[key]["state"].items() for k, v in s.items()} for f in finals]
        assert all(torch.equal(v, flat[1][k]) for k, v in flat[0].items())


def test_the_table_of_models_is_whole():
    assert len(MODELS) >= 17
