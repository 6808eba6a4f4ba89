"""The plain-torch backend: every method of LoRA-Pro by torch operations alone, on any device.

Adapters of one shape, dtype, device and set of hyper-parameters are stacked and stepped together.
Thin matrices (m x r, r x n) are computed in f64 whatever their storage type, since Gram matrices
square the condition number; the full mode's m x n matrices are computed in the type of their
moments, at least f32. On a device without f64 (MPS) everything is f32, and the
r x r eigenproblems, too small to gain from a device, are solved in f64 on the CPU.

In the formulas ' is the transpose, g the gradient of W, SB = B'B, SA = A A', and S^+ = R R' a
damped inverse. Theorems and algorithms are those of arXiv 2407.18242, laws the project's.
"""

import json
import math
from collections import namedtuple
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._lorapro import NonFiniteError, resolve_config

DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

# Eigenvalues count as zero up to this many of their rounding errors, as on every backend.
NULL_EIGENVALUE = 100.0

# Entries of the full mode's m x n matrices that are stacked at once: enough to keep a device busy;
# on the CPU, no more than its caches hold.
WEIGHT_ENTRIES = 2**25
WEIGHT_ENTRIES_CPU = 2**20

# Name of each state tensor, and the tensor whose shape it has.
OF_FACTORS = {"exp_avg_a": "A", "exp_avg_sq_a": "A", "exp_avg_b": "B", "exp_avg_sq_b": "B"}
STATE = {
    "lora": OF_FACTORS,
    "efficient": OF_FACTORS,
    "sgd": {"momentum_a": "A", "momentum_b": "B"},
    "factored": {"exp_avg_y": "A", "exp_avg_z": "B", "row_sq": "row means", "col_sq": "col means"},
    "full": {"exp_avg": "W", "exp_avg_sq": "W"},
    "parameter": {"exp_avg": "value", "exp_avg_sq": "value"},
}
State = dict[str, Tensor]
MASTERS = {"A": "master_a", "B": "master_b", "value": "master"}

# The fields of core's `Hyper`; damping is a pair of kind and number.
Hyper = namedtuple(
    "Hyper",
    "method x damping lr lr_ratio beta1 beta2 eps weight_decay decay_base momentum amsgrad maximize "
    "update_clip moment_dtype rounding",
)


def read_hyper(fields: dict[str, Any]) -> Hyper:
    damping = fields["damping"]
    pair = (damping, 0.0) if isinstance(damping, str) else next(iter(damping.items()))
    return Hyper(**{name: fields[name] for name in Hyper._fields} | {"damping": pair})


def read_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"`{name}` is not a dtype: use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def at_least_f32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def work_dtype(device: torch.device) -> torch.dtype:
    """The type of thin and r x r matrices: the widest that the device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def round_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x rounded to the nearest number of a type.

    From f64 to 16 bits torch rounds twice, through f32. An f32 number that is rounded to odd
    (toward zero, the last bit set where anything was cut off) on the way keeps x's side of a tie.
    """
    if x.dtype != torch.float64 or dtype.itemsize != 2:
        return x.to(dtype)
    near = x.float()
    beyond = near.double().abs() > x.abs()
    odd = ((near.view(torch.int32) - beyond.int()) | 1).view(torch.float32)
    return torch.where(near.double() == x, near, odd).to(dtype)


def norm(x: Tensor) -> Tensor:
    """The Frobenius norm of each matrix or vector of a batch."""
    dims = tuple(range(1, x.ndim))
    norms: Tensor = torch.linalg.vector_norm(x, dim=dims, dtype=work_dtype(x.device))
    return norms


def ratio_or_zero(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x == 0, 0, x / y)


def mix(beta: float, mean: Tensor, x: Tensor) -> Tensor:
    """An exponential moving average: beta M + (1 - beta) X."""
    return beta * mean.to(x) + (1 - beta) * x


# ---- The closed form. The first dimension of every tensor counts adapters.


class Gram(NamedTuple):
    """S = Q diag(values) Q', r x r, and the root R of its damped inverse R R'.

    Multiplying by R twice loses the condition number of the factor in accuracy; by R R' once, it
    would be its square.
    """

    values: Tensor
    vectors: Tensor
    root: Tensor

    @classmethod
    def of(cls, s: Tensor, damping: tuple[str, float], k: int) -> "Gram":
        """Of S, whose entries are sums of k products.

        none: 1 / l, and 0 for l <= 100 k eps l_max. cutoff c: 1 / l, and 0 for l <= c l_max.
        absolute d: 1 / (l + d). relative c: 1 / (l + c l_max). The inverse of 0 is 0 (law 11).
        """
        device = "cpu" if s.device.type == "mps" else s.device
        values, vectors = (x.to(s) for x in torch.linalg.eigh(s.to(device, torch.float64)))
        largest = values.amax(-1, keepdim=True).clamp_min(0)
        kind, number = damping
        if kind in ("none", "cutoff"):
            share = NULL_EIGENVALUE * k * torch.finfo(s.dtype).eps if kind == "none" else number
            inverted, keep = values, values > share * largest
        else:
            inverted = values + number * (largest if kind == "relative" else 1)
            keep = inverted > 0
        scales = torch.where(keep, inverted, math.inf).rsqrt()
        return cls(values, vectors, vectors * scales.unsqueeze(-2))


class Tangent(NamedTuple):
    """The tangent space {B Y + Z A} at the factors.

    `left` = B RB (m x r) and `right` = RA' A (r x n) have orthonormal columns and rows, zero ones
    and damping aside: PB = left left', PA = right' right. A matrix G to be projected is given by
    p = left' G and q = G right'.
    """

    a: Tensor
    b: Tensor
    gram_a: Gram
    gram_b: Gram
    left: Tensor
    right: Tensor

    @classmethod
    def at(cls, a: Tensor, b: Tensor, damping: tuple[str, float]) -> "Tangent":
        gram_a = Gram.of(a @ a.mT, damping, a.shape[-1])
        gram_b = Gram.of(b.mT @ b, damping, b.shape[-2])
        return cls(a, b, gram_a, gram_b, b @ gram_b.root, gram_a.root.mT @ a)

    def outside(self, y: Tensor) -> Tensor:
        """(I - PB) y."""
        return y - self.left @ (self.left.mT @ y)

    def coordinates(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Y = SB^+ B'G and Z = (I - PB) G A' SA^+. Of G = g these are s U and s V."""
        return self.gram_b.root @ p, self.outside(q @ self.gram_a.root.mT)

    def projection(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """L (m x 2r) and R (2r x n), no larger than G, with L R = B Y + Z A. Of G = g it is E."""
        left = torch.cat([self.left, self.outside(q)], -1)
        return left, torch.cat([p, self.right], -2)

    def of_product(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """p and q of G = left right."""
        return (self.left.mT @ left) @ right, left @ (right @ self.right.mT)


def sylvester(gram_b: Gram, gram_a: Gram, c: Tensor) -> Tensor:
    """The X of least norm with SB X + X SA = C, by both eigen-decompositions (theorem 2.3)."""
    sums = gram_b.values.unsqueeze(-1) + gram_a.values.unsqueeze(-2)
    largest = sums.amax((-2, -1), keepdim=True)
    null = sums <= NULL_EIGENVALUE * c.shape[-1] * torch.finfo(c.dtype).eps * largest
    rotated = gram_b.vectors.mT @ c @ gram_a.vectors
    return gram_b.vectors @ (rotated / torch.where(null, math.inf, sums)) @ gram_a.vectors.mT


def closed_form(hyper: Hyper, s: Tensor, tangent: Tangent, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """dA = U + X A and dB = V - B X (theorem 2.1)."""
    u, v = (x / s for x in tangent.coordinates(p, q))
    gram_a, gram_b = tangent.gram_a, tangent.gram_b
    if hyper.x == "zero":
        return u, v
    if hyper.x == "symmetric":  # X = -(1 / 2 s^2) SB^+ B'gB SA^+
        x = -0.5 / s * (gram_b.root @ (tangent.left.mT @ q) @ gram_a.root.mT)
    else:
        x = sylvester(gram_b, gram_a, -u @ tangent.a.mT)
    return u + x @ tangent.a, v - tangent.b @ x


# ---- The methods: along what the factors are stepped.


@dataclass(frozen=True)
class Problem:
    """What a step starts from, gradients scaled and clipped."""

    hyper: Hyper
    a: Tensor
    b: Tensor
    s: Tensor
    grad_a: Tensor
    grad_b: Tensor
    old: dict[str, Tensor]
    c1: Tensor  # 1 - beta1^t
    c2: Tensor  # 1 - beta2^t
    dtype: torch.dtype  # of the stored factors

    def tangent(self) -> tuple[Tangent, Tensor, Tensor]:
        """The tangent space, and p and q of g: from gA = s B'g and gB = s g A'."""
        tangent = Tangent.at(self.a, self.b, self.hyper.damping)
        p = tangent.gram_b.root.mT @ self.grad_a / self.s
        return tangent, p, self.grad_b @ tangent.gram_a.root / self.s

    def adam(self, da: Tensor, db: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Adam on both factors, each by itself."""
        a, state_a = adam(self.hyper, self.old, "_a", da, self.c1, self.c2)
        b, state_b = adam(self.hyper, self.old, "_b", db, self.c1, self.c2)
        return a, b, state_a | state_b


class Direction(NamedTuple):
    """Along what A and B are stepped, the new state, and two matrices whose product is E."""

    a: Tensor
    b: Tensor
    state: dict[str, Tensor]
    equivalent: tuple[Tensor, Tensor]


def adam(
    hyper: Hyper, old: State, suffix: str, x: Tensor, c1: Tensor, c2: Tensor
) -> tuple[Tensor, State]:
    """N = (M / c1) / (sqrt(V2 / c2) + eps) of X, and the new moments (1412.6980, law 12)."""
    first, second, largest = f"exp_avg{suffix}", f"exp_avg_sq{suffix}", f"max_exp_avg_sq{suffix}"
    new = {first: mix(hyper.beta1, old[first], x), second: mix(hyper.beta2, old[second], x * x)}
    if hyper.amsgrad:
        new[largest] = torch.maximum(old[largest], new[second])
    root = (new.get(largest, new[second]) / c2.to(x)).sqrt()
    return new[first] / c1.to(x) / (root + hyper.eps), new


def lora(problem: Problem) -> Direction:
    """AdamW on the raw gradients; E = s (B gA + gB A)."""
    a, b, ga, gb = problem.a, problem.b, problem.grad_a, problem.grad_b
    equivalent = problem.s * torch.cat([b, gb], -1), torch.cat([ga, a], -2)
    return Direction(*problem.adam(ga, gb), equivalent)


def sgd(problem: Problem) -> Direction:
    """D = momentum D + (dA, dB)."""
    tangent, p, q = problem.tangent()
    da, db = closed_form(problem.hyper, problem.s, tangent, p, q)
    state, mu = {}, problem.hyper.momentum
    if mu != 0:
        da = mu * problem.old["momentum_a"].to(da) + da
        db = mu * problem.old["momentum_b"].to(db) + db
        state = {"momentum_a": da, "momentum_b": db}
    return Direction(da, db, state, tangent.projection(p, q))


def efficient(problem: Problem) -> Direction:
    """AdamW on dA and dB (algorithm 2)."""
    tangent, p, q = problem.tangent()
    da, db = closed_form(problem.hyper, problem.s, tangent, p, q)
    return Direction(*problem.adam(da, db), tangent.projection(p, q))


def full(problem: Problem) -> Direction:
    """Adam on E in the m x n space; its N takes the place of g (algorithm 1)."""
    tangent, p, q = problem.tangent()
    left, right = tangent.projection(p, q)
    wide = at_least_f32(torch.promote_types(problem.old["exp_avg"].dtype, problem.dtype))
    e = left.to(wide) @ right.to(wide)
    n, state = adam(problem.hyper, problem.old, "", e, problem.c1, problem.c2)
    p, q = (tangent.left.to(wide).mT @ n).to(p), (n @ tangent.right.to(wide).mT).to(q)
    direction = closed_form(problem.hyper, problem.s, tangent, p, q)
    return Direction(*direction, state, (left, right))


def factored(problem: Problem) -> Direction:
    """The full mode with M = B Y + Z A and the row and column means of E.E (1804.04235).

    N = Da (M / c1) Db, a_i = 1 / (sqrt(row_i / c2) + eps),
    b_j = sqrt(mean(row) / c2) / (sqrt(col_j / c2) + eps); all by factors of rank 2r.
    """
    hyper, old, c2 = problem.hyper, problem.old, problem.c2
    tangent, p, q = problem.tangent()
    equivalent = tangent.projection(p, q)
    new = (*tangent.coordinates(p, q), *mean_squares(*equivalent))
    betas = (hyper.beta1, hyper.beta1, hyper.beta2, hyper.beta2)
    names = STATE["factored"]
    state = {name: mix(beta, old[name], x) for name, beta, x in zip(names, betas, new)}
    row, col = state["row_sq"], state["col_sq"]
    if hyper.amsgrad:
        row, col = torch.maximum(old["max_row_sq"], row), torch.maximum(old["max_col_sq"], col)
        state |= {"max_row_sq": row, "max_col_sq": col}
    da = 1 / ((row / c2).sqrt() + hyper.eps)
    db = (row.mean(-2, keepdim=True) / c2).sqrt() / ((col / c2).sqrt() + hyper.eps)
    left, right = first_moment(problem, state)
    p, q = tangent.of_product(da * left, right / problem.c1 * db)
    return Direction(*closed_form(hyper, problem.s, tangent, p, q), state, equivalent)


def mean_squares(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Row means (m x 1) and column means (1 x n) of E.E, E = left right."""
    row = (left @ (right @ right.mT) * left).sum(-1, keepdim=True) / right.shape[-1]
    col = ((left.mT @ left) @ right * right).sum(-2, keepdim=True) / left.shape[-2]
    return row.clamp_min(0), col.clamp_min(0)


def first_moment(problem: Problem, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """M = B Y + Z A = [B Z] [Y; A] by its two factors."""
    left = torch.cat([problem.b, state["exp_avg_z"]], -1)
    return left, torch.cat([state["exp_avg_y"], problem.a], -2)


def transport(problem: Problem, state: State, a: Tensor, b: Tensor) -> State:
    """Y and Z of the projection of M on the tangent space of the new factors."""
    tangent = Tangent.at(a, b, problem.hyper.damping)
    y, z = tangent.coordinates(*tangent.of_product(*first_moment(problem, state)))
    return {"exp_avg_y": y, "exp_avg_z": z}


METHODS = {"lora": lora, "sgd": sgd, "efficient": efficient, "full": full, "factored": factored}


def decays(hyper: Hyper) -> tuple[float, float]:
    """What A and B are multiplied by: in full and factored mode so that B A decays by 1 - lr w."""
    decay = 1 - hyper.lr * hyper.weight_decay
    if hyper.method in ("full", "factored"):
        return math.sqrt(decay), math.sqrt(decay)
    return decay, 1 - hyper.lr * hyper.lr_ratio * hyper.weight_decay


def trust_region(limit: float | None, change: list[Tensor], norms: list[Tensor]) -> Tensor:
    """The number that scales both changes, so that the larger factor moves by at most `limit` of it."""
    if limit is None:
        return torch.ones_like(norms[0])
    of_a, of_b = (ratio_or_zero(norm(x), size) for x, size in zip(change, norms))
    moved = torch.where(norms[0] >= norms[1], of_a, of_b)
    return torch.where(moved > limit, limit / moved, 1.0)


def step_adapters(problem: Problem) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """New factors, new state, and per adapter: two lengths of the changes, absolute and relative,
    |E|, and what the update clip multiplied by.

    A = decay_A A - lr DA, B = decay_B B - lr lr_ratio DB.
    """
    hyper, factors = problem.hyper, (problem.a, problem.b)
    direction = METHODS[hyper.method](problem)
    change = [hyper.lr * direction.a, hyper.lr * hyper.lr_ratio * direction.b]
    norms = [norm(factor) for factor in factors]
    clip = trust_region(hyper.update_clip, change, norms)
    change = [clip[:, None, None] * x for x in change]
    new = [decay * x - dx for decay, x, dx in zip(decays(hyper), factors, change)]
    state = direction.state
    if hyper.method == "factored":
        state = state | transport(problem, state, *new)
    moved = [norm(x) for x in change]
    left, right = direction.equivalent
    of_e = ((left.mT @ left) * (right @ right.mT)).sum((-2, -1)).clamp_min(0).sqrt()
    report = [*moved, *map(ratio_or_zero, moved, norms), of_e, clip]
    return dict(zip("AB", new)), state, torch.stack(report, -1)


def step_params(
    hyper: Hyper, value: Tensor, grad: Tensor, old: State, c1: Tensor, c2: Tensor
) -> tuple[State, State]:
    """AdamW on unpaired parameters: their new values and state."""
    n, state = adam(hyper, old, "", grad, c1, c2)
    return {"value": (1 - hyper.lr * hyper.weight_decay) * value - hyper.lr * n}, state


# ---- Slots and batches: from the caller's tensors to stacked ones, and back.


Shapes = dict[str, tuple[int, ...]]


@dataclass
class Slot:
    """An adapter or an unpaired parameter: what it is, how it is stepped, what it remembers."""

    kind: str
    name: str
    shapes: Shapes
    dtype: torch.dtype
    group: str | None
    scale: float = 1.0
    hyper: Hyper = field(init=False)
    steps: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    report: tuple[int, Tensor] | None = None

    @property
    def subject(self) -> str:
        return f"{self.kind} `{self.name}`"

    @property
    def targets(self) -> list[str]:
        """The tensors that a step changes."""
        return [name for name in MASTERS if name in self.shapes]

    def set_scale(self, scale: float) -> None:
        if not 0 < scale < math.inf:
            raise ValueError(f"{self.subject}: scale is {scale}, but it must be positive and finite")
        self.scale = scale

    def layout(self, hyper: Hyper) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each state tensor under these hyper-parameters."""
        forms = STATE[hyper.method if self.kind == "adapter" else "parameter"]
        if forms is STATE["sgd"] and hyper.momentum == 0:
            forms = {}
        if hyper.amsgrad:
            forms = forms | {f"max_{k}": form for k, form in forms.items() if "_sq" in k}
        if hyper.rounding == "master" and self.dtype.itemsize == 2:
            forms = forms | {MASTERS[name]: name for name in self.targets}
        narrow = at_least_f32(self.dtype)
        wide = DTYPES.get(hyper.moment_dtype, narrow)
        return {k: (self.shapes[f], wide if f == "W" else narrow) for k, f in forms.items()}

    def hyper_of(self, groups: dict[str | None, Hyper]) -> Hyper:
        """Its group's hyper-parameters, if this backend has their options."""
        if self.group not in groups:
            known = ", ".join(name for name in groups if name)
            expected = f"one of the configured groups [{known}]"
            raise ValueError(f"{self.subject}: group is `{self.group}`, but it must be {expected}")
        hyper, adapter = groups[self.group], self.kind == "adapter"
        for option, wanted in {
            "rounding stochastic": hyper.rounding == "stochastic",
            "moment_dtype 8bit": adapter and (hyper.method, hyper.moment_dtype) == ("full", "8bit"),
            "decay_base": adapter and hyper.decay_base,
        }.items():
            if wanted:
                text = f"{self.subject}: the torch backend does not support {option}"
                raise NotImplementedError(text)
        return hyper

    def check(self, name: str, x: Tensor, device: torch.device) -> None:
        """Rejects a tensor that is not as registered, or that cannot be written after a step."""
        what = f"{self.subject}: {name}"
        if type(x) not in (Tensor, torch.nn.Parameter) or x.layout != torch.strided:
            raise ValueError(f"{what} is a {type(x).__name__}, but it must be a dense torch.Tensor")
        shape = self.shapes[name.removeprefix("grad ")]
        seen, expected = (tuple(x.shape), x.dtype, x.device), (shape, self.dtype, device)
        if seen != expected:
            raise ValueError(f"{what} is {seen}, but it must be {expected}")
        expanded = any(size > 1 and stride == 0 for size, stride in zip(shape, x.stride()))
        if expanded and name in self.targets:
            raise ValueError(f"{what} is expanded: its entries share memory and cannot be stepped")

    def set_state(self, steps: int, state: dict[str, Tensor]) -> None:
        """Replaces the state by copies, if names, shapes and dtypes fit."""
        layout = self.layout(self.hyper)
        for name in sorted(layout.keys() ^ state.keys()):
            problem = "missing" if name in layout else "not one that the method remembers"
            raise ValueError(f"{self.subject}: state tensor `{name}` is {problem}")
        for name, expected in layout.items():
            seen = (tuple(state[name].shape), state[name].dtype)
            if seen != expected:
                raise ValueError(f"{self.subject}: {name} is {seen}, but it must be {expected}")
        self.steps, self.state = steps, {name: copied(state[name]) for name in layout}

    def copied_state(self) -> tuple[int, dict[str, Tensor]]:
        return self.steps, {name: copied(x) for name, x in self.state.items()}


Member = tuple[Slot, dict[str, Tensor]]


def copied(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.contiguous_format)


def first_non_finite(named: Iterable[tuple[Slot, str, Tensor]]) -> tuple[Slot, str] | None:
    """The owner and the description of the first entry that is not finite."""
    for slot, name, x in named:
        for at in (~x.isfinite()).nonzero().tolist()[:1]:
            value = float(x[tuple(at)])
            text = f"{slot.subject}: {name}{at} is {value}, but every entry must be finite"
            return slot, text
    return None


class Batch:
    """Slots that are stepped as one. `compute` writes nothing, and `commit` cannot fail."""

    def __init__(self, members: list[Member]):
        self.members, self.slots = members, [slot for slot, _ in members]
        slot, tensors = members[0]
        self.device = next(iter(tensors.values())).device
        thin = slot.kind == "adapter"
        self.work = work_dtype(self.device) if thin else at_least_f32(slot.dtype)
        stacked = {k: self.stack([tensors[k] for _, tensors in members]) for k in tensors}
        self.inputs = {k: x.to(self.work) for k, x in stacked.items()}
        self.norms = {k: norm(x) for k, x in self.inputs.items()}

    def stack(self, tensors: list[Tensor]) -> Tensor:
        return torch.stack([x.detach().to(self.device) for x in tensors])

    def numbers(self, values: Iterable[float]) -> Tensor:
        """One number per slot, to be broadcast over its tensors."""
        dims = [1] * len(self.slots[0].shapes[self.slots[0].targets[0]])
        column = torch.tensor(list(values), dtype=self.work, device=self.device)
        return column.reshape(-1, *dims)

    def square(self, gradients: bool) -> float:
        """The sum of the squares of all gradients, or of all targets."""
        chosen = [x for k, x in self.norms.items() if ("grad" in k) == gradients]
        return sum(float(x.square().sum()) for x in chosen)

    def compute(self, grad_scale: float, grad_clip: float) -> None:
        """New values and new state in their storage types, and reports."""
        slot, hyper = self.slots[0], self.slots[0].hyper
        layout = slot.layout(hyper)
        old = {k: self.stack([slot.state[k] for slot in self.slots]) for k in layout}
        values = [self.through_master(name, old) for name in slot.targets]
        gamma = grad_scale * grad_clip * (-1 if hyper.maximize else 1)
        grads = [gamma * x for k, x in self.inputs.items() if "grad" in k]
        c1, c2 = (
            self.numbers(1 - beta ** (slot.steps + 1) for slot in self.slots)
            for beta in (hyper.beta1, hyper.beta2)
        )
        if slot.kind == "parameter":
            (value,), (grad,) = values, grads
            new, state = step_params(hyper, value, grad, old, c1, c2)
        else:
            s = self.numbers(slot.scale for slot in self.slots)
            (a, b), (grad_a, grad_b) = values, grads
            new, state, report = step_adapters(Problem(hyper, a, b, s, grad_a, grad_b, old, c1, c2, slot.dtype))
            norms = [grad_scale * self.norms[k] for k in ("grad A", "grad B")]
            self.reports = torch.cat([torch.stack(norms, -1), report], -1)
        state = state | {MASTERS[name]: x for name, x in new.items()}
        state = {k: round_to(state[k], dtype) for k, (_, dtype) in layout.items()}
        stored = {name: state.get(MASTERS[name], x) for name, x in new.items()}
        self.values = {name: round_to(x, slot.dtype) for name, x in stored.items()}
        self.check({f"{name} after the step": x for name, x in self.values.items()} | state)
        self.state = {k: [x.clone() for x in stacked] for k, stacked in state.items()}

    def through_master(self, name: str, old: dict[str, Tensor]) -> Tensor:
        """A target's values: its master copy's where they are that copy's rounding."""
        value, master = self.inputs[name], old.get(MASTERS[name])
        if master is None:
            return value
        return torch.where(round_to(master, self.slots[0].dtype) == value, master, value)

    def check(self, results: dict[str, Tensor]) -> None:
        """Rejects results that are not finite in their storage types."""
        for name, stacked in results.items():
            named = ((slot, name, x) for slot, x in zip(self.slots, stacked))
            if not stacked.isfinite().all() and (found := first_non_finite(named)):
                raise NonFiniteError(found[1])

    def commit(self) -> None:
        for k, (slot, tensors) in enumerate(self.members):
            for name, new in self.values.items():
                tensors[name].copy_(new[k])
            slot.steps, slot.state = slot.steps + 1, {name: x[k] for name, x in self.state.items()}
            if slot.kind == "adapter":
                slot.report = (slot.steps, self.reports[k])


def batches(members: list[Member]) -> list[Batch]:
    """The members, as many as can be stepped as one together."""
    groups: dict[tuple[Any, ...], list[Member]] = {}
    for slot, tensors in members:
        device = next(iter(tensors.values())).device
        key = (slot.kind, tuple(slot.shapes.values()), slot.dtype, device, slot.hyper)
        groups.setdefault(key, []).append((slot, tensors))
    found = []
    for group in groups.values():
        slot, count = group[0][0], len(group)
        if slot.kind == "adapter" and slot.hyper.method == "full":
            device = next(iter(group[0][1].values())).device
            entries = WEIGHT_ENTRIES_CPU if device.type == "cpu" else WEIGHT_ENTRIES
            count = max(1, entries // math.prod(slot.shapes["W"]))
        found += [Batch(group[k : k + count]) for k in range(0, len(group), count)]
    return found


class TorchBackend:
    """Steps adapters and unpaired parameters wherever their tensors are.

    The interface is that of `lorapro._lorapro.CompiledBackend`. State is kept on the device where
    its owner was stepped last. Torch's current stream and number of threads are the caller's.
    """

    def __init__(self) -> None:
        self.adapters: list[Slot] = []
        self.params: list[Slot] = []
        self.groups: dict[str | None, Hyper] = {}

    def manifest(self) -> dict[str, Any]:
        return {
            "name": "torch",
            "version": torch.__version__,
            "device": "any",
            "location": "any",
            "dtypes": list(DTYPES),
            "state_dtypes": ["f64", "f32", "bf16"],
            "roundings": ["nearest", "master"],
            "accumulator_dtype": "f64",
            "code_path": "torch operations",
            "threads": torch.get_num_threads(),
            "determinism": "rounding",
            "selection": "asked for",
        }

    def configure(self, config: str) -> None:
        fields = json.loads(resolve_config(config))
        if fields.get("schedule", "constant") != "constant":
            raise NotImplementedError("the optimizer: the torch backend does not support schedule")
        groups = {name: read_hyper(group) for name, group in fields["groups"].items()}
        groups[None] = read_hyper(fields)
        slots = self.adapters + self.params
        hypers = [slot.hyper_of(groups) for slot in slots]
        for slot, hyper in zip(slots, hypers):
            same = slot.kind == "parameter" or slot.hyper.method == hyper.method
            if not same or slot.layout(slot.hyper) != slot.layout(hyper):
                expected = "such that method and state tensors stay: make a new optimizer instead"
                raise ValueError(f"{slot.subject}: the hyper-parameters must be {expected}")
        for slot, hyper in zip(slots, hypers):
            slot.hyper = hyper
        self.groups, self.config = groups, fields

    def add_adapter(self, name: str, m: int, n: int, r: int, scale: float, dtype: str, group: str) -> int:
        shapes: Shapes = {"A": (r, n), "B": (m, r), "W": (m, n), "row means": (m, 1), "col means": (1, n)}
        slot = Slot("adapter", name, shapes, read_dtype(dtype), group)
        if not 1 <= r <= min(m, n):
            expected = f"at least 1 and at most min(m, n) = {min(m, n)}"
            raise ValueError(f"{slot.subject}: r is {r}, but it must be {expected}")
        slot.set_scale(scale)
        return self._add(slot, self.adapters)

    def add_param(self, name: str, numel: int, dtype: str, group: str) -> int:
        shapes: Shapes = {"value": (numel,), "grad": (numel,)}
        slot = Slot("parameter", name, shapes, read_dtype(dtype), group)
        if numel < 1:
            raise ValueError(f"{slot.subject}: numel is {numel}, but it must be at least 1")
        return self._add(slot, self.params)

    def _add(self, slot: Slot, slots: list[Slot]) -> int:
        if any(other.name == slot.name for other in self.adapters + self.params):
            raise ValueError(f"{slot.subject} is registered twice")
        slot.hyper = slot.hyper_of(self.groups)
        for k, (shape, dtype) in slot.layout(slot.hyper).items():
            slot.state[k] = torch.zeros(shape, dtype=dtype, device="cpu")
        slots.append(slot)
        return len(slots) - 1

    def set_scale(self, adapter: int, scale: float) -> None:
        self._adapter(adapter).set_scale(scale)

    def step(
        self,
        adapters: Iterable[tuple[int, Tensor, Tensor, Tensor, Tensor]],
        params: Iterable[tuple[int, Tensor, Tensor]],
        threads: int,
        stream: int,
        grad_scale: float,
    ) -> dict[str, Any]:
        if not 0 < grad_scale < math.inf:
            expected = "positive and finite"
            raise ValueError(f"the optimizer: grad_scale is {grad_scale}, but it must be {expected}")
        names = ("A", "B", "grad A", "grad B")
        members: list[Member] = [(self._adapter(k), dict(zip(names, tensors))) for k, *tensors in adapters]
        members += [(self._param(k), {"value": x, "grad": grad}) for k, x, grad in params]
        check_members(members)
        with torch.no_grad():
            return self._step(members, grad_scale)

    def _step(self, members: list[Member], grad_scale: float) -> dict[str, Any]:
        """Checks everything, computes everything, and only then writes."""
        found = batches(members)
        report: dict[str, Any] = {"lr_factor": 1.0, "grad_norm": math.nan, "grad_clip": 1.0, "skipped": None}
        square = grad_scale**2 * sum(batch.square(gradients=True) for batch in found)
        if not math.isfinite(square + sum(batch.square(gradients=False) for batch in found)):
            report["skipped"] = self._reject(members)
            return report
        limit, report["grad_norm"] = self.config["max_grad_norm"], math.sqrt(square)
        if limit is not None and report["grad_norm"] > limit:
            report["grad_clip"] = limit / report["grad_norm"]
        for batch in found:
            with torch.autocast(batch.device.type, enabled=False):
                batch.compute(grad_scale, report["grad_clip"])
        for batch in found:
            batch.commit()
        return report

    def _reject(self, members: list[Member]) -> dict[str, Any]:
        """What is not finite: an error, or the reason why the step is skipped."""
        named = [(slot, name, x) for slot, tensors in members for name, x in tensors.items()]
        gradient = first_non_finite(x for x in named if "grad" in x[1])
        if gradient and self.config["on_non_finite"] == "skip":
            return {"subject": gradient[0].subject, "reason": gradient[1]}
        found = gradient or first_non_finite(x for x in named if "grad" not in x[1])
        if found:
            raise NonFiniteError(found[1])
        raise ValueError(f"{members[0][0].subject} or another one: a sum of squares overflows")

    def adapter_state(self, index: int) -> tuple[int, dict[str, Tensor]]:
        return self._adapter(index).copied_state()

    def param_state(self, index: int) -> tuple[int, dict[str, Tensor]]:
        return self._param(index).copied_state()

    def set_adapter_state(self, index: int, steps: int, state: dict[str, Tensor]) -> None:
        self._adapter(index).set_state(steps, state)

    def set_param_state(self, index: int, steps: int, state: dict[str, Tensor]) -> None:
        self._param(index).set_state(steps, state)

    def _adapter(self, index: int) -> Slot:
        return lookup(self.adapters, index, "adapter")

    def _param(self, index: int) -> Slot:
        return lookup(self.params, index, "parameter")

    def adapter_report(self, index: int) -> dict[str, Any]:
        step, row = self._adapter(index).report or (0, torch.zeros(8, device="cpu"))
        numbers = row.tolist()
        pairs = ("grad_norm", "update_norm", "relative_update")
        report: dict[str, Any] = {name: numbers[2 * k : 2 * k + 2] for k, name in enumerate(pairs)}
        return {"step": step} | report | {"equivalent_norm": numbers[6], "clip": numbers[7]}


def lookup(slots: list[Slot], index: int, kind: str) -> Slot:
    if not 0 <= index < len(slots):
        raise ValueError(f"{kind} number {index} is unknown: {len(slots)} are registered")
    return slots[index]


def check_members(members: list[Member]) -> None:
    """Rejects an empty list, a slot that is listed twice, and tensors that are not as registered."""
    if not members:
        raise ValueError("the step: list is empty, but it must be at least one adapter or parameter")
    seen = set()
    for slot, tensors in members:
        if slot.subject in seen:
            raise ValueError(f"{slot.subject} is listed twice in one step")
        seen.add(slot.subject)
        for name, x in tensors.items():
            slot.check(name, x, next(iter(tensors.values())).device)
