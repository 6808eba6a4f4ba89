"""The plain-torch backend against the recorded vectors and against the compiled reference."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from lorapro import _lorapro as compiled
from lorapro.torch_backend import DTYPES, TorchBackend, batch
from lorapro.torch_backend.batch import Batch
from lorapro.torch_backend.precision import f64_device, round_to
from safetensors import safe_open
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors"
METHODS = ["lora", "sgd", "efficient", "factored", "full"]
ADJUSTED = METHODS[1:]

# Unit round-off: half the distance from 1 to the next number.
ROUNDOFF = {name: torch.finfo(dtype).eps / 2 for name, dtype in DTYPES.items()}

# LAPACK's testers pass an error of up to this many units of rounding times condition number.
PASS = 30


# ---- The recorded vectors.


def read_vector(path):
    """Metadata and f64 tensors of a recording."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}


def read_index(result):
    vectors = json.loads((VECTORS / "index.json").read_text())["vectors"]
    return [vector for vector in vectors if vector["result"] == result]


def hyper_of(meta):
    """The configuration of a vector's adapter."""
    kind, _, number = meta["damping"].partition(" ")
    if kind == "none" and number:  # the first recordings cut at 1e-12
        damping = {"cutoff": 1e-12}
    else:
        damping = {kind: float(number)} if number else kind
    hyper = {"method": meta["method"], "x": meta["x"], "damping": damping}
    for key in ("lr", "beta1", "beta2", "eps", "weight_decay", "lr_ratio", "momentum", "update_clip"):
        if key in meta:
            hyper[key] = float(meta[key])
    for key in ("amsgrad", "maximize"):
        hyper[key] = meta.get(key) == "true"
    if meta["method"] == "sgd":  # the recordings name one that SGD does not apply
        hyper["weight_decay"] = 0.0
    return hyper


def relative_distance(x, reference):
    return float((x - reference).norm() / (reference.norm() or 1))


def start(meta, tensors):
    """A backend with the vector's adapter, and copies of A and B."""
    backend = TorchBackend()
    backend.configure(config(hyper_of(meta)))
    m, n, r = (int(meta[key]) for key in "mnr")
    backend.add_adapter("case", m, n, r, float(meta["scale"]), "f64", "g")
    return backend, tensors["A.0"].clone(), tensors["B.0"].clone()


def step_along(backend, a, b, g, s):
    return backend.step([(0, a, b, s * b.mT @ g, s * g @ a.mT)], [], 1, 0, 1.0)


@pytest.mark.parametrize("vector", read_index("valid"), ids=lambda vector: vector["file"][:-12])
def test_follows_vector(vector):
    meta, tensors = read_vector(VECTORS / vector["file"])
    backend, a, b = start(meta, tensors)
    # The generated ones move by up to 1e-12 when their inputs move by one unit in the last place.
    tolerance = 1e-11 if vector["source"].startswith("generated") else vector["tolerance"]
    # From its second step on, the public code rounds E to bf16 before it is squared.
    steps = 1 if "quirk" in meta else int(meta["steps"])
    for t in range(1, steps + 1):
        step_along(backend, a, b, tensors[f"g.{t}"], float(meta["scale"]))
        assert relative_distance(a, tensors[f"A.{t}"]) < tolerance
        assert relative_distance(b, tensors[f"B.{t}"]) < tolerance


@pytest.mark.parametrize(
    "vector",
    [vector for vector in read_index("refused") if vector["by"] == "step"],
    ids=lambda vector: vector["file"][8:-12],
)
def test_refuses_vector(vector):
    meta, tensors = read_vector(VECTORS / vector["file"])
    backend, a, b = start(meta, tensors)
    with pytest.raises((ValueError, RuntimeError), match="adapter `case`"):
        for t in range(1, int(meta["steps"]) + 1):
            before = a.clone(), b.clone(), backend.adapter_state(0)
            step_along(backend, a, b, tensors[f"g.{t}"], float(meta["scale"]))
    assert_same((a, b, backend.adapter_state(0)), before)


# ---- One step at a time against the reference, from the same factors and state.


def config(hyper, **whole):
    return json.dumps({"groups": {"g": hyper}} | whole)


def assert_same(x, y):
    """The same values and dtypes, in whatever nesting."""
    torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def strided(x, kind):
    """A copy of x with strides of another kind."""
    rows, cols = x.shape
    if kind == "transposed":
        copy = torch.empty(cols, rows, dtype=x.dtype).mT
    elif kind == "padded":
        copy = torch.empty(2 * rows, cols + 3, dtype=x.dtype)[::2, 1 : cols + 1]
    else:
        copy = torch.empty(rows, cols, dtype=x.dtype)
    return copy.copy_(x)


# m, n, r and what is peculiar about the factors.
SHAPES = {
    "tall": (13, 7, 3, ""),
    "wide": (6, 17, 4, ""),
    "rank-1": (9, 8, 1, ""),
    "full-rank": (7, 5, 5, ""),
    "b-zero": (12, 10, 4, "b-zero"),
    "a-deficient": (11, 14, 4, "a-deficient"),
    "square-b": (5, 9, 5, "m = r"),
    "single": (1, 1, 1, "m = r"),
}


def random_factors(shape, dtype, generator):
    m, n, r, kind = SHAPES[shape]
    a = torch.randn(r, n, dtype=torch.float64, generator=generator)
    b = torch.randn(m, r, dtype=torch.float64, generator=generator)
    if kind == "b-zero":
        b.zero_()
    if kind == "a-deficient":
        a[-1] = a[0]
    return a.to(DTYPES[dtype]), b.to(DTYPES[dtype])


def condition(x, damping):
    """The condition number of a factor's Gram matrix as it is inverted, by singular values."""
    values = torch.linalg.svdvals(x.double()) ** 2
    kind, number = (damping, 0) if isinstance(damping, str) else next(iter(damping.items()))
    if kind in ("none", "cutoff"):
        values = values[values > (number or 200 * max(x.shape) * ROUNDOFF["f64"]) * values[0]]
    else:
        values = values + number * (values[0] if kind == "relative" else 1)
    return float(values[0] / values[-1]) if len(values) else 1.0


class Bounds:
    """How far the results of one step may be from the reference's, and why.

    Both compute in f64 from the same numbers. Eigenvalues of Gram matrices are known to within
    rounding of the largest, so what is divided by the smallest loses kappa^2, the condition number
    of the Gram matrix as it is inverted (before the step, and after it, where the factored mode
    projects its moment). Sums of m + n terms stray like the root of their number (specification,
    section 6). In f32 and 16 bits that is far below one rounding; it can only turn a number over
    that lies at the border of two roundings, which happens to one entry in millions. The full
    mode's m x n matrices are computed in the type of its moments, at least f32, and E has no
    condition number; its share of an update has one.
    """

    def __init__(self, hyper, dtype, factors):
        condition_number = max(condition(x, hyper["damping"]) for x in factors)
        dimension = factors[0].shape[1] + factors[1].shape[0]
        self.wide = PASS * ROUNDOFF["f64"] * condition_number * math.sqrt(dimension)
        self.full = hyper["method"] == "full"
        moments = hyper.get("moment_dtype", "auto")
        if self.full and "f64" not in (moments, dtype if moments == "auto" else ""):
            self.wide += PASS * ROUNDOFF["f32"] * math.sqrt(condition_number)

    def check(self, name, x, reference):
        assert x.dtype == reference.dtype and x.shape == reference.shape, name
        size = float(reference.double().norm()) or 1.0
        error = float((x.double() - reference.double()).norm()) / size
        step = 0.0 if x.dtype == torch.float64 else torch.finfo(x.dtype).eps
        assert error <= self.wide + step, (name, error, self.wide)
        if step and not self.full:
            assert int((x != reference).sum()) <= 1 + x.numel() * self.wide / step, name

    def check_report(self, report, reference):
        assert report["step"] == reference["step"]
        for name in ("grad_norm", "update_norm", "relative_update", "equivalent_norm", "clip"):
            x, ref = (torch.tensor(r[name], dtype=torch.float64) for r in (report, reference))
            torch.testing.assert_close(x, ref, rtol=self.wide, atol=0)


def compare(hyper, shape, dtype, steps=3, edit=None, **whole):
    """Steps both backends from the reference's factors and state, and compares after each step."""
    generator = torch.Generator().manual_seed(7)
    m, n, r, _ = SHAPES[shape]
    a, b = random_factors(shape, dtype, generator)
    reference, backend = compiled.CompiledBackend("reference"), TorchBackend()
    for each in (reference, backend):
        each.configure(config(hyper, **whole))
        each.add_adapter("x", m, n, r, 2.0, dtype, "g")
    for t, strides in zip(range(steps), ("transposed", "padded", "plain")):
        g = torch.randn(m, n, dtype=torch.float64, generator=generator)
        grads = 2 * b.double().mT @ g, 2 * g @ a.double().mT
        ga, gb = (x.to(DTYPES[dtype]) for x in grads)
        before = a.clone(), b.clone()
        mine = strided(a, strides), strided(b, strides)
        my_grads = strided(ga, strides), strided(gb, strides)
        whole_report = reference.step([(0, a, b, ga, gb)], [], 1, 0, 0.5)
        my_whole_report = backend.step([(0, *mine, *my_grads)], [], 1, 0, 0.5)
        assert my_whole_report.pop("skipped") is None is whole_report.pop("skipped")
        assert my_whole_report == pytest.approx(whole_report, rel=PASS * ROUNDOFF["f64"])
        assert_same(my_grads, (ga, gb))
        (steps_taken, state), (my_steps, my_state) = (x.adapter_state(0) for x in (reference, backend))
        assert steps_taken == my_steps == t + 1
        assert list(state) == list(my_state)
        bounds = Bounds(hyper, dtype, [*before, a, b])
        bounds.check("A", mine[0], a)
        bounds.check("B", mine[1], b)
        for name in state:
            bounds.check(name, my_state[name], state[name])
        bounds.check_report(backend.adapter_report(0), reference.adapter_report(0))
        if edit:
            edit(a)
        backend.set_adapter_state(0, steps_taken, state)


BASE = {"damping": "none", "lr": 0.05, "weight_decay": 0.01}
OPTIONS = {
    "plain": {},
    "symmetric": {"x": "symmetric"},
    "zero": {"x": "zero"},
    "absolute": {"damping": {"absolute": 0.03}},
    "relative": {"damping": {"relative": 0.05}},
    "cutoff": {"damping": {"cutoff": 0.08}},
    "no-memory": {"beta1": 0.0, "beta2": 0.0},
    "short-memory": {"beta1": 0.5, "beta2": 0.6},
    "eps": {"eps": 0.5},
    "decay": {"weight_decay": 3.0},
    "lr-ratio": {"lr_ratio": 4.0},
    "amsgrad": {"amsgrad": True, "beta2": 0.5},
    "maximize": {"maximize": True},
    "update-clip": {"update_clip": 0.02},
    "momentum": {"momentum": 0.9},
    "moments-f64": {"moment_dtype": "f64"},
    "moments-f32": {"moment_dtype": "f32"},
    "moments-bf16": {"moment_dtype": "bf16"},
    "master": {"rounding": "master"},
    "combined": {"damping": {"relative": 1e-3}, "lr_ratio": 2.0, "maximize": True, "update_clip": 0.1},
}
ONLY = {"momentum": ["sgd"], "amsgrad": ["lora", "efficient", "factored", "full"]}


def hyper_for(method, option):
    hyper = BASE | {"method": method} | OPTIONS[option]
    if method == "sgd":
        hyper["weight_decay"] = 0.0
    return hyper


# Options change formulas, which f64 sees best; the narrower types are rounded to in the same way after all of them.
NARROW = ["plain", "moments-f64", "moments-f32", "moments-bf16", "master", "combined"]
CASES = [
    (method, option, dtype)
    for method, option, dtype in itertools.product(METHODS, OPTIONS, DTYPES)
    if method in ONLY.get(option, METHODS) and (dtype == "f64" or option in NARROW)
]


@pytest.mark.parametrize("method, option, dtype", CASES)
def test_agrees_with_reference(method, option, dtype):
    for shape, (*_, kind) in SHAPES.items():
        # Where B's columns span everything, V is nothing but rounding, unless damping leaves some.
        if kind != "m = r" or method == "lora" or option == "relative":
            compare(hyper_for(method, option), shape, dtype)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("method", METHODS)
def test_an_edited_factor_wins_over_its_master_copy(method, dtype):
    def edit(a):
        a[0, 0] += 1

    compare(hyper_for(method, "master"), "tall", dtype, edit=edit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounds_once_from_f64(dtype):
    """Beside the middle of two numbers, nearer to it than f32 can tell."""
    low = torch.tensor([1.0, 1.5, 3.0, -1.0, -2.5, torch.finfo(dtype).smallest_normal], dtype=torch.float64)
    high = low + low.sign() * torch.finfo(dtype).eps * low.abs().log2().floor().exp2()
    middle, away = (low + high) / 2, (high - low) * 2**-30
    for x, nearest in ((low, low), (middle - away, low), (middle + away, high), (high, high)):
        assert_same(round_to(x, dtype), nearest.to(dtype))
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e300, -1e-300], dtype=torch.float64)
    assert_same(round_to(special, dtype), special.to(dtype))


class NoF64(TorchDispatchMode):
    """Lets "cuda" play a device without f64, as Apple's MPS: fake tensors have shapes and devices, no numbers."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        seen = [x for x in (result, *args) if isinstance(x, torch.Tensor)]
        if any(x.dtype == torch.float64 and x.device.type == "cuda" for x in seen):
            raise TypeError(f"{function}: f64 on a device that has none")
        if function == torch.ops.aten._to_copy.default and {"dtype", "device"} <= kwargs.keys():
            assert torch.float64 not in (kwargs["dtype"], args[0].dtype), "converted on which of the two?"
        return result


@pytest.mark.parametrize("moments", ["f32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_device_without_f64_computes_thin_matrices_on_the_cpu(method, moments):
    f64_device.cache_clear()
    try:
        with FakeTensorMode(), NoF64():
            backend = TorchBackend()
            backend.configure(config(hyper_for(method, "plain") | {"moment_dtype": moments, "rounding": "master"}))
            backend.add_adapter("x", 13, 7, 3, 2.0, "bf16", "g")
            backend.add_param("y", 5, "f32", "g")
            slots = backend.adapters + backend.params
            shapes = {"A": (3, 7), "B": (13, 3), "grad A": (3, 7), "grad B": (13, 3)}, {"value": (5,), "grad": (5,)}
            for _ in range(2):
                for slot, of_slot in zip(slots, shapes):
                    tensors = {name: torch.zeros(s, dtype=slot.dtype, device="cuda") for name, s in of_slot.items()}
                    stacked = Batch([(slot, tensors)])
                    stacked.squares()
                    stacked.compute(1.0, 1.0)
                    assert all(x.device == stacked.device for x in (stacked.finite(), *stacked.values.values()))
                    stacked.commit()
                    for name, x in slot.state.items():
                        on_cpu = slot.is_adapter and (method != "full" or "master" in name)
                        assert x.device.type == ("cpu" if on_cpu else "cuda")
    finally:
        f64_device.cache_clear()


# ---- Whole models: several adapters and parameters at once.

# The first and the last are stepped as one.
LAYERS = [("tall", "f32"), ("tall", "f32"), ("wide", "f32"), ("tall", "bf16"), ("tall", "f32")]


class Model:
    """Adapters of several shapes, dtypes and scales, and two unpaired parameters, on a backend."""

    def __init__(self, backend, method="factored", layers=LAYERS, **options):
        self.backend = backend
        generator = torch.Generator().manual_seed(11)
        backend.configure(self.config(method, **options))
        self.adapters, self.params = [], []
        for k, (shape, dtype) in enumerate(layers):
            m, n, r, _ = SHAPES[shape]
            index = backend.add_adapter(f"layer {k}", m, n, r, 3.0 if k == 1 else 0.5, dtype, "g")
            factors = random_factors(shape, dtype, generator)
            grads = (torch.randn(x.shape, generator=generator).to(x.dtype) for x in factors)
            self.adapters.append((index, *factors, *grads))
        for k, dtype in enumerate(("f32", "f32", "f64")):
            index = backend.add_param(f"bias {k}", 6, dtype, "head")
            value = torch.randn(2, 6, generator=generator).to(DTYPES[dtype])
            self.params.append((index, value[0], value[1]))

    @staticmethod
    def config(method, groups=None, **options):
        hyper = hyper_for(method, "plain")
        head = {"method": "lora", "lr": 0.03, "weight_decay": 0.2, "amsgrad": True}
        return json.dumps({"groups": {"g": hyper | (groups or {}), "head": head}} | options)

    def step(self, grad_scale=1.0):
        return self.backend.step(self.adapters, self.params, 1, 0, grad_scale)

    def contents(self):
        """Everything that a step may change."""
        tensors = [[x.clone() for x in entry[1:]] for entry in self.adapters + self.params]
        states = [self.backend.adapter_state(entry[0]) for entry in self.adapters]
        states += [self.backend.param_state(entry[0]) for entry in self.params]
        return tensors, states, [self.backend.adapter_report(entry[0]) for entry in self.adapters]


@pytest.mark.parametrize("method", METHODS)
def test_a_model_agrees_with_the_reference(method):
    """A trajectory without resetting: f32 state and factors are the reference's roundings."""
    mine = Model(TorchBackend(), method, max_grad_norm=3.0)
    reference = Model(compiled.CompiledBackend("reference"), method, max_grad_norm=3.0)
    for _ in range(3):
        report, expected = mine.step(0.25), reference.step(0.25)
        assert report.pop("skipped") is None is expected.pop("skipped")
        assert report == pytest.approx(expected, rel=PASS * ROUNDOFF["f64"])
        assert expected["grad_clip"] < 1
    for (x, *_), (y, *_) in zip(mine.contents()[0], reference.contents()[0]):
        # Unpaired parameters are computed in f32, the full mode's moments too.
        assert relative_distance(x.double(), y.double()) < PASS * torch.finfo(x.dtype).eps


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_steps_as_each_of_it_alone(method):
    """To the last bit where torch's batched products and eigen-solvers work matrix by matrix, as
    on the CPU."""
    together, apart = Model(TorchBackend(), method), Model(TorchBackend(), method)
    for _ in range(3):
        together.step()
        for entry in reversed(apart.adapters):
            apart.backend.step([entry], [], 1, 0, 1.0)
        for entry in apart.params:
            apart.backend.step([], [entry], 1, 0, 1.0)
        assert_same(together.contents(), apart.contents())


def test_adapters_of_one_kind_may_be_at_different_steps():
    together, apart = Model(TorchBackend()), Model(TorchBackend())
    for model in (together, apart):
        model.backend.step(model.adapters[:2], [], 1, 0, 1.0)
    together.step()
    for entry in apart.adapters:
        apart.backend.step([entry], [], 1, 0, 1.0)
    apart.backend.step([], apart.params, 1, 0, 1.0)
    assert_same(together.contents(), apart.contents())
    assert [state[0] for state in together.contents()[1]] == [2, 2, 1, 1, 1, 1, 1, 1]


def test_large_batches_are_cut(monkeypatch):
    sizes = []
    commit = Batch.commit
    monkeypatch.setattr(Batch, "commit", lambda self: (sizes.append(len(self.slots)), commit(self)))
    whole, cut = Model(TorchBackend(), "full"), Model(TorchBackend(), "full")
    for _ in range(2):
        whole.step()
        with monkeypatch.context() as patch:
            patch.setattr(batch, "ENTRIES_CPU", 2 * 13 * 7 - 1)
            cut.step()
    assert_same(whole.contents(), cut.contents())
    assert sorted(sizes) == sorted(2 * [2, 1, 1, 1, 2, 1] + 2 * [1, 1, 1, 1, 1, 2, 1])


@pytest.mark.parametrize("method", METHODS)
def test_state_moves_from_the_reference_and_back(method):
    reference, mine = Model(compiled.CompiledBackend("reference"), method), Model(TorchBackend(), method)
    reference.step()
    for kind in ("adapter", "param"):
        for entry in getattr(reference, f"{kind}s"):
            state = getattr(reference.backend, f"{kind}_state")(entry[0])
            getattr(mine.backend, f"set_{kind}_state")(entry[0], *state)
            assert_same(getattr(mine.backend, f"{kind}_state")(entry[0]), state)
            getattr(reference.backend, f"set_{kind}_state")(entry[0], *state)


def test_state_is_copied_in_and_out():
    model = Model(TorchBackend())
    model.step()
    steps, state = model.backend.adapter_state(0)
    model.backend.set_adapter_state(0, steps, state)
    before = model.contents()
    for tensor in state.values():
        tensor.fill_(7)
    for tensor in model.backend.adapter_state(0)[1].values():
        tensor.fill_(7)
    assert_same(model.contents(), before)


def test_the_learning_rate_and_the_scale_can_change():
    mine, reference = Model(TorchBackend()), Model(compiled.CompiledBackend("reference"))
    for model in (mine, reference):
        model.step()
        model.backend.configure(model.config("factored", groups={"lr": 0.2, "eps": 1e-3}))
        model.backend.set_scale(0, 3.0)
        model.step()
    for x, y in zip(mine.contents()[0][0], reference.contents()[0][0]):
        assert relative_distance(x, y) < PASS * ROUNDOFF["f32"]


def test_autocast_and_grad_mode_do_not_matter():
    plain, casting = Model(TorchBackend(), "full"), Model(TorchBackend(), "full")
    for model in (plain, casting):
        for entry in model.adapters:
            entry[1].requires_grad_()
    plain.step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        casting.step()
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert_same(plain.contents(), casting.contents())


# ---- All or nothing, and what is rejected.


def spoil_gradient(model):
    model.adapters[-1][4][2, 1] = math.nan


def spoil_param_gradient(model):
    model.params[-1][2][3] = math.inf


def spoil_factor(model):
    model.adapters[-1][1][1, 0] = -math.inf


def spoil_value(model):
    model.params[0][1][0] = math.nan


def spoil_range(model):
    """The f64 parameter's second moment overflows."""
    model.params[-1][2].fill_(1e154).mul_(10)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (spoil_gradient, r"adapter `layer 4`: grad B\[2, 1\] is nan"),
        (spoil_param_gradient, r"parameter `bias 2`: grad\[3\] is inf"),
        (spoil_factor, r"adapter `layer 4`: A\[1, 0\] is -inf"),
        (spoil_value, r"parameter `bias 0`: value\[0\] is nan"),
        (spoil_range, "overflow"),
    ],
)
def test_a_rejected_step_changes_nothing(spoil, words):
    model = Model(TorchBackend())
    model.step()
    spoil(model)
    before = model.contents()
    with pytest.raises((compiled.NonFiniteError, ValueError), match=words):
        model.step()
    assert_same(model.contents(), before)


@pytest.mark.parametrize("dtype, lr", [("f64", 1e308), ("f16", 1e6)])
def test_results_that_overflow_change_nothing(dtype, lr):
    model = Model(TorchBackend(), "sgd", [("tall", "f32"), ("wide", dtype)])
    model.step()
    model.backend.configure(model.config("sgd", groups={"lr": lr}))
    before = model.contents()
    with pytest.raises(compiled.NonFiniteError, match=r"adapter `layer \d`: [AB] after the step\["):
        model.step()
    assert_same(model.contents(), before)


def test_a_step_can_be_skipped():
    model = Model(TorchBackend(), on_non_finite="skip")
    spoil_gradient(model)
    before = model.contents()
    report = model.step()
    assert report["skipped"]["subject"] == "adapter `layer 4`"
    assert "grad B[2, 1] is nan" in report["skipped"]["reason"]
    assert_same(model.contents(), before)
    spoil_factor(model)
    model.adapters[-1][4][2, 1] = 0.0
    with pytest.raises(compiled.NonFiniteError):  # only a gradient's fault is skipped
        model.step()


UNSUPPORTED = [
    ("full", {"moment_dtype": "8bit"}, "moment_dtype 8bit"),
    ("lora", {"rounding": "stochastic"}, "rounding stochastic"),
    ("factored", {"decay_base": True}, "decay_base"),
]


@pytest.mark.parametrize("method, options, words", UNSUPPORTED)
def test_what_is_not_done_is_rejected(method, options, words):
    backend = TorchBackend()
    backend.configure(config(hyper_for(method, "plain") | options))
    with pytest.raises(NotImplementedError, match=f"adapter `x`.*{words}"):
        backend.add_adapter("x", 3, 3, 1, 1.0, "f32", "g")
    if words != "moment_dtype 8bit":  # another state would be a ValueError
        backend.configure(config(hyper_for(method, "plain")))
        backend.add_adapter("x", 3, 3, 1, 1.0, "f32", "g")
        with pytest.raises(NotImplementedError, match=f"adapter `x`.*{words}"):
            backend.configure(config(hyper_for(method, "plain") | options))


def test_the_state_of_an_adapter_cannot_become_another():
    model = Model(TorchBackend(), layers=[("tall", "bf16")])
    for groups in ({"method": "full"}, {"amsgrad": True}, {"rounding": "master"}):
        with pytest.raises(ValueError, match="adapter `layer 0`"):
            model.backend.configure(model.config("factored", groups=groups))
    before = model.contents()
    with pytest.raises(ValueError, match="lrr"):
        model.backend.configure(config({"lrr": 1.0}))
    model.step()
    again = Model(TorchBackend(), layers=[("tall", "bf16")])
    assert_same(again.contents(), before)
    again.step()
    assert_same(again.contents(), model.contents())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("y", 3, 3, 0, 1.0, "f32", "g"), "adapter `y`: r is 0"),
        (("y", 3, 2, 3, 1.0, "f32", "g"), "adapter `y`: r is 3"),
        (("y", 3, 3, 1, 0.0, "f32", "g"), "adapter `y`: scale is 0"),
        (("y", 3, 3, 1, math.nan, "f32", "g"), "adapter `y`: scale is nan"),
        (("y", 3, 3, 1, 1.0, "i8", "g"), "i8"),
        (("y", 3, 3, 1, 1.0, "f32", "h"), "adapter `y`: group is `h`"),
        (("x", 3, 4, 1, 1.0, "f32", "g"), "adapter `x` is registered twice"),
    ],
)
def test_wrong_registrations_are_rejected(arguments, words):
    backend = TorchBackend()
    backend.configure(config(BASE | {"method": "lora"}))
    assert backend.add_adapter("x", 3, 3, 1, 1.0, "f32", "g") == 0
    with pytest.raises(ValueError, match=words):
        backend.add_adapter(*arguments)
    assert backend.add_adapter("z", 3, 3, 1, 1.0, "f32", "g") == 1


def wrong_lists():
    a, b = torch.ones(2, 5), torch.ones(4, 2)
    good = (0, a, b, a, b)
    yield [], "empty"
    yield [good, good], "adapter `x` is listed twice"
    yield [(0, a.mT, b, a, b)], "adapter `x`: A is"
    yield [(0, a, b, a, b[:3])], "adapter `x`: grad B is"
    yield [(0, a, b, a.double(), b)], "adapter `x`: grad A is"
    yield [(0, a, b.to("meta"), a, b)], "adapter `x`: B is"
    yield [(0, a[:, :1].expand(2, 5), b, a, b)], "adapter `x`: A is expanded"
    yield [(0, a, b, a, b.to_sparse())], "adapter `x`: grad B"
    yield [(1, a, b, a, b)], "adapter number 1 is unknown"


@pytest.mark.parametrize("adapters, words", list(wrong_lists()))
def test_wrong_tensors_are_rejected(adapters, words):
    backend = TorchBackend()
    backend.configure(config(BASE | {"method": "lora"}))
    backend.add_adapter("x", 4, 5, 2, 1.0, "f32", "g")
    with pytest.raises(ValueError, match=words):
        backend.step(adapters, [], 1, 0, 1.0)
    assert backend.adapter_state(0)[0] == 0


def test_an_expanded_gradient_is_fine():
    """The gradient of a sum is a single number, expanded."""
    results = []
    for ga in (torch.full((2, 5), 0.5), torch.tensor(0.5).expand(2, 5)):
        backend, a, b = TorchBackend(), torch.ones(2, 5), torch.ones(4, 2)
        backend.configure(config(BASE | {"method": "efficient"}))
        backend.add_adapter("x", 4, 5, 2, 1.0, "f32", "g")
        backend.step([(0, a, b, ga, torch.ones(4, 2))], [], 1, 0, 1.0)
        results.append((a, b))
    assert_same(*results)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_wrong_gradient_scale_is_rejected(scale):
    model = Model(TorchBackend())
    with pytest.raises(ValueError, match="grad_scale"):
        model.step(scale)


def test_wrong_state_is_rejected():
    backend = Model(TorchBackend()).backend
    steps, state = backend.adapter_state(0)
    wrong = [
        {name: x for name, x in state.items() if name != "row_sq"},
        state | {"exp_avg": torch.zeros(13, 7)},
        state | {"row_sq": torch.zeros(1, 13)},
        state | {"row_sq": torch.zeros(13, 1, dtype=torch.float64)},
    ]
    for each, name in zip(wrong, ("row_sq", "exp_avg", "row_sq", "row_sq")):
        with pytest.raises(ValueError, match=f"adapter `layer 0`.*{name}"):
            backend.set_adapter_state(0, 5, each)
    assert_same(backend.adapter_state(0), (steps, state))
