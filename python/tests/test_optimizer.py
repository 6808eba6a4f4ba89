"""LoraPro as a torch optimizer: what the base class promises, options, errors that change nothing."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest
import torch
from peft_models import backward, make

import lorapro
from lorapro import LoraPro, create_lorapro_optimizer

MODES = ["factored", "full", "efficient", "sgd", "lora"]


def adapter(m=7, n=9, r=3, dtype=torch.float32, seed=0, zero=False):
    """Factors with gradients."""
    generator = torch.Generator().manual_seed(seed)
    new = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)
    a, b = torch.nn.Parameter(new(r, n)), torch.nn.Parameter(new(m, r) * (0 if zero else 1))
    a.grad, b.grad = new(r, n), new(m, r)
    return a, b


def values(*params):
    return [p.detach().clone() for p in params]


def equal(left, right):
    return all(torch.equal(p, q) for p, q in zip(left, right, strict=True))


def test_signatures_are_torchs():
    for name in ("step", "zero_grad", "state_dict", "load_state_dict", "add_param_group"):
        own, base = (inspect.signature(getattr(c, name)).parameters for c in (LoraPro, torch.optim.AdamW))
        assert list(own) == list(base), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_mode_lora_and_unpaired_parameters_are_torchs_adamw(dtype, amsgrad):
    """The formula is the same and its operations are rounded in another order: each step differs by at
    most two roundings of the new value or of the update, whichever is larger."""
    torch.manual_seed(0)
    a, b = adapter(40, 60, 8, dtype)
    head = torch.nn.Parameter(torch.randn(3, 5, 7, dtype=dtype))
    copies = [torch.nn.Parameter(p.detach().clone()) for p in (a, b, head)]
    options = dict(lr=1e-2, betas=(0.8, 0.95), eps=1e-7, weight_decay=0.1, amsgrad=amsgrad)
    own = LoraPro([{"params": [(a, b, 2.0)]}, {"params": [("head", head)]}], mode="lora", **options)
    torchs = torch.optim.AdamW(copies, foreach=False, **options)
    for step in range(1, 11):
        for p, q in zip((a, b, head), copies, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        own.step()
        torchs.step()
        for p, q in zip((a, b, head), copies, strict=True):
            unit = torch.finfo(dtype).eps * torch.clamp(q.abs(), min=1e-2)
            assert ((p - q).abs() / unit).max() <= 2 * step
    saved = own.state[head]
    torch.testing.assert_close(saved["exp_avg"], torchs.state[copies[2]]["exp_avg"], rtol=1e-5, atol=1e-7)
    assert saved["exp_avg"].shape == head.shape and saved["step"] == 10


def test_unpaired_parameters_of_any_layout_are_stepped_alike():
    torch.manual_seed(0)
    dense = torch.randn(6, 4, 3, 3)
    gradient = torch.randn_like(dense)
    finals = []
    for p in (dense.clone(), dense.clone().to(memory_format=torch.channels_last), dense.transpose(0, 1).contiguous().transpose(0, 1)):
        p = torch.nn.Parameter(p)
        p.grad = gradient.clone().to(memory_format=torch.channels_last)
        LoraPro([{"params": [(*adapter(), 1.0)]}, {"params": [("p", p)]}], lr=1e-2).step()
        finals.append(p.detach().contiguous())
    assert equal(finals[:1] * 2, finals[1:])


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_left_as_they_were(mode):
    a, b = adapter()
    before = values(a.grad, b.grad)
    LoraPro([(a, b, 2.0)], lr=1e-2, mode=mode, max_grad_norm=0.1).step()
    assert equal(before, [a.grad, b.grad])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_strides_make_no_difference(mode, dtype):
    a, b = adapter(dtype=dtype)
    odd_a = torch.nn.Parameter(torch.zeros(9, 6, dtype=dtype)[:, ::2].T)
    odd_b = torch.nn.Parameter(torch.zeros(3, 14, dtype=dtype).T[::2])
    for p, q in ((a, odd_a), (b, odd_b)):
        q.data.copy_(p.data)
        q.grad = torch.empty_like(p.grad.T).T.copy_(p.grad)
    plain, odd = (LoraPro([(p, q, 2.0)], lr=1e-2, mode=mode) for p, q in ((a, b), (odd_a, odd_b)))
    for _ in range(3):
        plain.step()
        odd.step()
    assert not odd_a.is_contiguous() and equal([a, b], [odd_a, odd_b])


def test_values_of_groups_may_change_between_steps():
    a, b = adapter()
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
    optimizer.step()
    before = values(a, b)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert equal(before, [a, b])
    optimizer.param_groups[0]["lr"] = torch.tensor(1e-2)
    optimizer.param_groups[0]["betas"] = (0.5, 0.9)
    optimizer.step()
    assert not torch.equal(before[0], a)
    optimizer.param_groups[0]["eps"] = -1.0
    before = values(a, b)
    with pytest.raises(ValueError, match=r"group `0`: eps is -1"):
        optimizer.step()
    optimizer.param_groups[0]["eps"], optimizer.param_groups[0]["mode"] = 1e-8, "full"
    with pytest.raises(ValueError, match="adapter0.*another state"):
        optimizer.step()
    assert equal(before, [a, b])


def test_schedulers_and_closures():
    a, b = adapter(zero=True)
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    x, y = torch.randn(32, 9), torch.randn(32, 7)

    def closure():
        optimizer.zero_grad()
        loss = (x @ (2 * b @ a).T - y).square().mean()
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = []
        for _ in range(3):
            losses.append(optimizer.step(closure).item())
            scheduler.step()
    assert losses[-1] < losses[0] and optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 4)


def test_hooks_run_around_a_step_and_around_state():
    a, b = adapter()
    optimizer, seen = LoraPro([(a, b, 2.0)], lr=1e-2), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(len(state["state"])))
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(type(state["state"][0]["step"])))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["pre", "post", 2, torch.Tensor]


def test_a_gradient_that_is_none_is_not_stepped_and_not_counted():
    (a, b), (c, d) = adapter(), adapter(seed=1)
    optimizer = LoraPro([(a, b, 2.0), (c, d, 2.0)], lr=1e-2)
    optimizer.step()
    c.grad = d.grad = None
    before = values(c, d)
    optimizer.step()
    assert equal(before, [c, d])
    assert [int(optimizer.state[p]["step"]) for p in (a, b, c, d)] == [2, 2, 1, 1]
    optimizer.zero_grad()
    assert optimizer.step() is None  # nothing to do
    d.grad = torch.ones_like(d)
    with pytest.raises(ValueError, match="adapter1`: `adapter1.lora_A` has no gradient"):
        optimizer.step()


@pytest.mark.parametrize("mode", MODES)
def test_a_step_with_zero_gradients_changes_nothing(mode):
    """torch.distributed.checkpoint takes such a step to have state made. B = 0 as at the start."""
    a, b = adapter(zero=True)
    a.grad.zero_()
    b.grad.zero_()
    before = values(a, b)
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2, mode=mode)
    optimizer.step()
    assert equal(before, [a, b])
    tensors = [v for p in (a, b) for k, v in optimizer.state[p].items() if k != "step"]
    assert all(not v.any() for v in tensors)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["a", "grad_a", "grad_b", "head"])
def test_what_is_not_finite_is_an_error_by_name_and_changes_nothing(where, bad):
    (a, b), (c, d) = adapter(), adapter(seed=1)
    head = torch.nn.Parameter(torch.ones(4))
    head.grad = torch.ones(4)
    optimizer = LoraPro([{"params": [(a, b, 2.0), (c, d, 2.0)]}, {"params": [("head", head)]}], lr=1e-2)
    optimizer.step()
    {"a": c.data, "grad_a": c.grad, "grad_b": d.grad, "head": head.grad}[where].view(-1)[1] = bad
    before, state = values(a, b, c, d, head), copy.deepcopy(optimizer.state_dict()["state"])
    with pytest.raises(lorapro.NonFiniteError, match="head" if where == "head" else "adapter1"):
        optimizer.step()
    after = optimizer.state_dict()["state"]
    torch.testing.assert_close(values(a, b, c, d, head), before, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(state[i][k], after[i][k]) for i in state for k in state[i])


def test_a_step_can_be_skipped_where_a_gradient_is_not_finite():
    a, b = adapter()
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2, on_non_finite="skip")
    a.grad[0, 0] = float("inf")
    before = values(a, b)
    optimizer.step()
    assert equal(before, [a, b]) and "adapter0" in optimizer.last_step["skipped"]["subject"]
    a.grad[0, 0] = 0.0
    optimizer.step()
    assert int(optimizer.state[a]["step"]) == 1 and optimizer.last_step["skipped"] is None


def test_the_global_norm_is_clipped_before_the_adjustment():
    pairs = [adapter(seed=1), adapter(seed=1)]
    norm = torch.nn.utils.get_total_norm([p.grad for p in pairs[0]])
    for p in pairs[0]:
        p.grad *= 0.5 / norm
    for (a, b), options in zip(pairs, ({}, {"max_grad_norm": 0.5}), strict=True):
        optimizer = LoraPro([(a, b, 2.0)], lr=1e-2, mode="sgd", **options)
        optimizer.step()
    assert optimizer.last_step["grad_norm"] == pytest.approx(float(norm), rel=1e-6)
    for p, q in zip(*pairs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)  # the clip is one rounding


def test_groups_with_other_learning_rates_for_a_and_b_are_lora_plus():
    (a, b), (c, d) = adapter(), adapter()
    by_ratio = LoraPro([(a, b, 2.0)], lr=1e-3, lr_ratio=16.0)
    model = torch.nn.Module()
    model.lora_A, model.lora_B, model.scaling = c, d, 2.0
    by_group = LoraPro([{"params": [c]}, {"params": [d], "lr": 16e-3}], lr=1e-3, model=model)
    for _ in range(3):
        by_ratio.step()
        by_group.step()
    torch.testing.assert_close([a.data, b.data], [c.data, d.data], rtol=1e-6, atol=1e-7)
    by_group.param_groups[1]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match="weight_decay is 0.0 in the group of A and 0.1 in that of B"):
        by_group.step()


def test_bad_options_are_refused_at_construction():
    for options, words in {
        "lr": (dict(lr=-1.0), "lr is -1"),
        "mode": (dict(mode="fast"), "fast"),
        "x": (dict(x="any"), "any"),
        "damping": (dict(damping="relative:x"), "relative:1e-4"),
        "betas": (dict(betas=(1.0, 0.9)), "beta1 is 1"),
        "clip": (dict(max_grad_norm=-1.0), "max_grad_norm is -1"),
        "preset": (dict(preset="other"), "other"),
        "backend": (dict(backend="tpu"), "backend is 'tpu'"),
        "unsupported": (dict(on_unsupported="maybe"), "on_unsupported"),
        "shard": (dict(shard=True), "init_process_group"),
    }.values():
        with pytest.raises(ValueError, match=words):
            LoraPro([(*adapter(), 2.0)], **{"lr": 1e-3, **options})
    with pytest.raises(ValueError, match="scale is 0"):
        LoraPro([(*adapter(), 0.0)], lr=1e-3).step()
    with pytest.raises(TypeError):
        LoraPro([(*adapter(), 2.0)], lr=1e-3, learning_rate=1e-3)


@pytest.mark.parametrize("value", [float("nan"), 10**400, "x", b"x", 1j, [0.5], torch.ones(2), object()], ids=repr)
def test_values_of_wrong_types_are_refused_by_the_option_s_name(value):
    numbers = ("lr", "eps", "weight_decay", "lr_ratio", "momentum", "update_clip", "max_grad_norm", "scale")
    others = ("mode", "x", "damping", "amsgrad", "maximize", "moment_dtype", "rounding", "on_non_finite", "preset")
    for option in numbers + others:
        if value == "x" and option not in numbers:
            continue  # a word; what core says to unknown ones is asked elsewhere
        with pytest.raises(ValueError, match=rf"(the optimizer|group `0`): {option} is .* must be"):
            LoraPro([(*adapter(), 2.0)], **{"lr": 1e-3, option: value})
    with pytest.raises(ValueError, match="group `0`: beta"):
        LoraPro([(*adapter(), 2.0)], lr=1e-3, betas=(0.9, value))
    with pytest.raises(ValueError, match="adapter `adapter0`: scale is .* must be a finite number"):
        LoraPro([(*adapter(), value)], lr=1e-3).step()
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        LoraPro([(*adapter(), 2.0)], lr=1e-3, model=value)


def test_numbers_of_any_type_are_taken():
    params = [adapter() for _ in range(3)]
    for (a, b), kind in zip(params, (float, torch.tensor, np.float32), strict=True):
        options = dict(lr=0.5, eps=0.25, weight_decay=0.125, lr_ratio=2.0, update_clip=0.5, max_grad_norm=1.0)
        LoraPro([(a, b, kind(2.0))], **{key: kind(value) for key, value in options.items()}).step()
    assert all(equal(params[0], other) for other in params[1:])


def test_tensors_that_cannot_be_stepped_are_refused_by_name():
    a, b = adapter()

    class Wrapped(torch.Tensor):
        pass

    def refused(words, **changes):
        optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
        saved = a.grad, b.grad
        for name, value in changes.items():
            setattr({"a": a, "b": b}[name], "grad", value)
        with pytest.raises(ValueError, match=words):
            optimizer.step()
        a.grad, b.grad = saved

    refused("adapter0`: grad A is a Wrapped", a=torch.ones(3, 9).as_subclass(Wrapped))
    refused("adapter0`: grad B is sparse", b=torch.ones(7, 3).to_sparse())
    expanded = torch.nn.Parameter(torch.ones(3, 1).expand(3, 9))
    expanded.grad = torch.ones(3, 9)
    with pytest.raises(ValueError, match="A reaches an element of its memory twice"):
        LoraPro([(expanded, b, 2.0)], lr=1e-2).step()
    integer = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    integer.grad = torch.ones_like(integer)
    with pytest.raises(ValueError, match="`p` is torch.complex64"):
        LoraPro([{"params": [(a, b, 2.0)]}, {"params": [("p", integer)]}], lr=1e-2).step()


SHARED = {
    "the same tensor": lambda x: (x, x),
    "one memory": lambda x: (x, torch.nn.Parameter(x.data)),
    "a transpose": lambda x: (x, torch.nn.Parameter(x.data.mT)),
    "an overlap": lambda x: (torch.nn.Parameter(x.data[:2]), torch.nn.Parameter(x.data.view(-1)[4:12].view(4, 2))),
}


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.parametrize("shared", SHARED)
def test_factors_in_the_same_memory_are_refused(shared):
    a, b = SHARED[shared](torch.nn.Parameter(torch.ones(4, 4)))
    with pytest.raises(ValueError, match="adapter0.lora_.` and `adapter0.lora_.` share memory"):
        LoraPro([(a, b, 1.0)], lr=1e-2)


def test_factors_side_by_side_in_one_memory_are_stepped():
    flat, rows = torch.zeros(14), torch.zeros(10, 2)
    for a, b in ((flat[:6].view(2, 3), flat[6:].view(4, 2)), (rows[::2].mT, rows[1::2])):
        a, b = torch.nn.Parameter(a), torch.nn.Parameter(b)
        a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
        LoraPro([(a, b, 1.0)], lr=1e-2, mode="lora").step()
        assert torch.allclose(a, torch.tensor(-1e-2)) and torch.allclose(b, torch.tensor(-1e-2))


@pytest.mark.parametrize(
    "shape_a, shape_b, words",
    [
        ((0, 5), (6, 0), "rank is 0"),
        ((2, 0), (6, 2), "rank is 2"),
        ((8, 5), (6, 8), "rank is 8"),
        ((2, 5), (6, 3), "2 rows and B has 3"),
        ((5,), (6,), "must be matrices"),
        ((), (), "must be matrices"),
    ],
)
def test_triples_that_are_no_product_are_refused(shape_a, shape_b, words):
    a, b = (torch.nn.Parameter(torch.ones(shape)) for shape in (shape_a, shape_b))
    with pytest.raises(ValueError, match=f"adapter `adapter0`: .*{words}"):
        LoraPro([(a, b, 1.0)], lr=1e-2)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_tensors_without_memory_are_refused_by_name(backend):
    for on_meta in ("A", "B", "AB"):
        factors = [p.to("meta") if name in on_meta else p for name, p in zip("AB", adapter(), strict=True)]
        a, b = (torch.nn.Parameter(p.detach()) for p in factors)
        a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
        with pytest.raises(ValueError, match=f"`adapter0.lora_{on_meta[0]}` is on the device meta"):
            LoraPro([(a, b, 1.0)], lr=1e-2, backend=backend).step()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_changed_or_expanded_parameter_is_refused_before_anything_is_stepped(backend):
    a, b = adapter()
    head = torch.nn.Parameter(torch.ones(3, 5))
    head.grad = torch.ones(3, 5)
    optimizer = LoraPro([{"params": [(a, b, 2.0)]}, {"params": [("head", head)]}], lr=1e-2, backend=backend)
    optimizer.step()
    before, state = values(a, b, head), optimizer.state_dict()
    value, gradient = head.data, head.grad
    for changed, words in {
        "other": (torch.ones(5, 3), r"shapes are \[\(5, 3\)\], but they were \[\(3, 5\)\]"),
        "expanded": (torch.ones(1, 5).expand(3, 5), "is expanded"),
        "overlapping": (torch.ones(20).as_strided((3, 5), (1, 2)), "is expanded"),
    }.values():
        head.data = changed
        with pytest.raises(ValueError, match=f"`head`.* {words}"):
            optimizer.step()
    head.data, head.grad = value, gradient
    assert equal(before, (a, b, head))
    now = optimizer.state_dict()
    assert all(equal(now["state"][key].values(), entry.values()) for key, entry in state["state"].items())
    optimizer.step()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_an_interrupt_between_registration_and_step_leaves_an_optimizer_that_works(backend, monkeypatch):
    """As where Ctrl-C comes when the backend knows the adapter and the optimizer does not yet."""
    (a, b), (twin_a, twin_b) = adapter(), adapter()
    optimizer, twin = (LoraPro([(*pair, 2.0)], lr=1e-2, backend=backend) for pair in ((a, b), (twin_a, twin_b)))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lorapro.backends.Slot", interrupt)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    optimizer.step()
    twin.step()
    assert equal((a, b), (twin_a, twin_b)) and int(optimizer.state[a]["step"]) == 1


def test_replaced_parameters_are_stepped():
    """accelerate's FSDP2 replaces tensors in param_groups: what is there at the step counts."""
    a, b = adapter()
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
    optimizer.step()
    c, d = adapter(seed=3)
    optimizer.param_groups[0]["params"] = [c, d]
    before = values(c, d)
    optimizer.step()
    assert not torch.equal(before[0], c) and int(optimizer.state[c]["step"]) == 2
    flat = torch.nn.Parameter(torch.zeros(48))
    flat.grad = torch.zeros(48)
    optimizer.param_groups[0]["params"] = [flat]
    with pytest.raises(ValueError, match="replaced or flattened"):
        optimizer.step()


def test_groups_can_be_added():
    model, batch = make("linear")
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = LoraPro([named[0], named[1]], lr=1e-2, model=model)
    backward(model, batch)
    optimizer.step()
    optimizer.add_param_group({"params": [p for _, p in named[2:]], "lr": 1e-3})
    assert len(optimizer.pairs()) == 2
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for _, p in named] == [2, 2, 1, 1]
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [named[0][1]]})


def test_a_group_that_is_refused_is_not_added():
    a, b = adapter()
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
    optimizer.step()
    new = lambda *shape: torch.nn.Parameter(torch.ones(shape))
    for group, error in [
        ({"params": [new(3)], "eps": -1.0}, ValueError),
        ({"params": [new(3)], "lr": None}, ValueError),
        ({"params": [("p", new(3)), ("p", new(3))]}, ValueError),
        ({"params": [(new(2, 5), new(6, 3), 1.0)]}, ValueError),
        ({"params": [(1, 2, 3.0)]}, TypeError),
        ({"params": [("p",)]}, TypeError),
    ]:
        with pytest.raises(error):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1 and len(optimizer.pairs()) == 1
        optimizer.step()
    optimizer.add_param_group({"params": [adapter(seed=1) + (1.0,)]})
    assert optimizer.pairs()[1] == ("adapter1.lora_A", "adapter1.lora_B")
    optimizer.step()


def test_copies_and_pickles_continue_as_the_original():
    for duplicate in (copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))):
        a, b = adapter()
        optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
        optimizer.step()
        twin = duplicate(optimizer)
        c, d = twin.param_groups[0]["params"]
        assert c is not a and twin.defaults.items() >= optimizer.defaults.items()
        c.grad, d.grad = a.grad.clone(), b.grad.clone()
        optimizer.step()
        twin.step()
        assert equal([a, b], [c, d])


def test_a_copy_of_model_and_optimizer_reads_scales_again_after_attach():
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    backward(model, batch)
    optimizer.step()
    twin_model, twin = copy.deepcopy((model, optimizer))
    twin.attach(twin_model)
    for owner, stepper in ((model, optimizer), (twin_model, twin)):
        for module in owner.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", 5.0)
        backward(owner, batch)
        stepper.step()
    assert equal(model.parameters(), twin_model.parameters())


def test_grad_scaler_skips_a_step_that_overflowed():
    a, b = adapter()
    optimizer, scaler = LoraPro([(a, b, 2.0)], lr=1e-2), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for overflow in (True, False):
        optimizer.zero_grad()
        loss = (b @ a).square().sum() * (float("inf") if overflow else 1.0)
        scaler.scale(loss).backward()
        before = values(a, b)
        scaler.step(optimizer)
        scaler.update()
        assert equal(before, [a, b]) == overflow
    assert int(optimizer.state[a]["step"]) == 1


def test_reports_tell_what_a_step_did():
    a, b = adapter(zero=True)
    optimizer = LoraPro([(a, b, 2.0)], lr=1e-2)
    before = values(a, b)
    optimizer.step()
    report = optimizer.reports()["adapter0"]
    assert report["step"] == 1 and report["update_norm"][0] == 0.0
    assert report["update_norm"][1] == pytest.approx(float((b.detach() - before[1]).norm()), rel=1e-5)
    assert report["grad_norm"][1] == pytest.approx(float(b.grad.norm()), rel=1e-6)


def test_a_compiled_model_trains():
    model, batch = make("linear")
    eager, _ = make("linear")
    compiled = torch.compile(model, backend="eager")
    for owner, call in ((model, compiled), (eager, eager)):
        optimizer = create_lorapro_optimizer(owner, lr=1e-2)
        for _ in range(3):
            backward(call, batch)
            optimizer.step()
    assert equal(model.parameters(), eager.parameters())

    @torch.compile(backend="eager")
    def whole(x):
        backward(model, x)
        optimizer.step()

    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    whole(batch)  # the step is opaque to the compiler
