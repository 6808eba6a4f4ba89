"""The plain-torch backend against the recorded vectors and against the compiled reference."""

import json
import math
import struct
from pathlib import Path

import pytest
import torch

compiled = pytest.importorskip("lorapro._lorapro")
torch_backend = pytest.importorskip("lorapro.torch_backend")

from lorapro.torch_backend import DTYPES, TorchBackend  # noqa: E402

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors"
METHODS = ["lora", "sgd", "efficient", "factored", "full"]
ADJUSTED = METHODS[1:]

# Unit round-off: half the distance from 1 to the next number.
ROUNDOFF = {name: torch.finfo(dtype).eps / 2 for name, dtype in DTYPES.items()}

# LAPACK's testers pass an error of up to this many units of rounding times condition number.
PASS = 30


# ---- The recorded vectors.


def read_vector(path):
    """Metadata and f64 tensors of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = torch.frombuffer(bytearray(data[8 + length :]), dtype=torch.float64)
    meta = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, end = (offset // 8 for offset in entry["data_offsets"])
        tensors[name] = body[start:end].reshape(entry["shape"])
    return meta, tensors


def read_index(result):
    path = VECTORS / "index.json"
    vectors = json.loads(path.read_text())["vectors"] if path.exists() else []
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
    """The same bits, in whatever nesting."""
    if isinstance(x, torch.Tensor):
        assert x.dtype == y.dtype and x.shape == y.shape
        x, y = (z.detach().reshape(-1).clone().view(torch.uint8) for z in (x, y))
        assert torch.equal(x, y)
    elif isinstance(x, dict):
        assert x.keys() == y.keys()
        for key in x:
            assert_same(x[key], y[key])
    elif isinstance(x, (tuple, list)):
        assert len(x) == len(y)
        for left, right in zip(x, y):
            assert_same(left, right)
    else:
        assert x == y or (x != x and y != y)


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
    "square-b": (5, 9, 5, ""),
    "single": (1, 1, 1, ""),
    "b-zero": (12, 10, 4, "b-zero"),
    "a-deficient": (11, 14, 4, "a-deficient"),
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


def condition(x):
    """The largest singular value over the smallest that does not count as zero."""
    squares = torch.linalg.svdvals(x.double()) ** 2
    kept = squares[squares > 100 * max(x.shape) * 2 * ROUNDOFF["f64"] * squares[0]]
    return math.sqrt(kept[0] / kept[-1]) if len(kept) else 1.0


class Bounds:
    """How far the results of one step may be from the reference's, and why.

    Both compute in f64 from the same numbers. Eigenvalues of Gram matrices are known to within
    rounding of the largest, so what is divided by the smallest loses kappa^2, the condition number
    of the Gram matrix. Sums of m + n terms stray like the root of their number (specification,
    section 6). In f32 and 16 bits that is far below one rounding; it can only turn a number over
    that lies at the border of two roundings, which happens to one entry in millions. The full
    mode's m x n matrices are computed in the type of its moments, at least f32, and E has no
    condition number; its share of an update has one.
    """

    def __init__(self, hyper, dtype, a, b):
        self.kappa = max(condition(a), condition(b))
        self.wide = self.of_f64 = PASS * ROUNDOFF["f64"] * self.kappa**2 * math.sqrt(len(b) + a.shape[1])
        self.full = hyper["method"] == "full"
        moments = hyper.get("moment_dtype", "auto")
        if self.full and "f64" not in (moments, dtype if moments == "auto" else ""):
            self.wide += PASS * ROUNDOFF["f32"] * self.kappa

    def check(self, name, x, reference, size=0.0):
        assert x.dtype == reference.dtype and x.shape == reference.shape, name
        size = max(size, float(reference.double().norm())) or 1.0
        error = float((x.double() - reference.double()).norm()) / size
        if x.dtype == torch.float64:
            assert error <= self.wide, (name, error, self.wide)
        elif self.full:
            assert error <= self.wide + torch.finfo(x.dtype).eps, (name, error)
        else:
            assert error <= torch.finfo(x.dtype).eps, (name, error)
            assert int((x != reference).sum()) <= 1, name

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
        bounds = Bounds(hyper, dtype, a, b)
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
        bounds.check("A", mine[0], a)
        bounds.check("B", mine[1], b)
        for name in state:
            size = 0.0
            if name == "exp_avg_z":  # nothing but rounding where B's columns span everything
                first = b.double() @ state["exp_avg_y"].double()
                size = float(first.norm() / torch.linalg.svdvals(a.double())[-1])
            bounds.check(name, my_state[name], state[name], size)
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_reference(method, option, dtype):
    if method not in ONLY.get(option, METHODS):
        pytest.skip("not an option of this method")
    for shape in SHAPES:
        compare(hyper_for(method, option), shape, dtype)


