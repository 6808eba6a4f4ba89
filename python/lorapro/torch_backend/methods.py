"""The methods of LoRA-Pro for a batch: along what factors are stepped, and how far.

Algorithms are those of arXiv 2407.18242, laws those of the book.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .closed_form import Damping, Tangent
from .precision import like, norm

State = dict[str, Tensor]


class Hyper(NamedTuple):
    """Core's hyper-parameters of a group. An unpaired parameter has the method "parameter"."""

    method: str
    x: str
    damping: Damping
    lr: float
    lr_ratio: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decay_base: bool
    momentum: float
    amsgrad: bool
    maximize: bool
    update_clip: float | None
    moment_dtype: str
    rounding: str

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Hyper:
        """From the JSON of `resolve_config`."""
        damping = fields["damping"]
        pair = (damping, 0.0) if isinstance(damping, str) else next(iter(damping.items()))
        return cls(**{name: fields[name] for name in cls._fields} | {"damping": pair})

    def decays(self) -> tuple[float, float]:
        """What A and B are multiplied by: in full and factored mode so that B A decays by 1 - lr w."""
        decay = 1 - self.lr * self.weight_decay
        if self.method in ("full", "factored"):
            return math.sqrt(decay), math.sqrt(decay)
        return decay, 1 - self.lr * self.lr_ratio * self.weight_decay


@dataclass(frozen=True)
class Problem:
    """What the step of number t starts from, gradients scaled and clipped."""

    hyper: Hyper
    s: float
    t: int
    a: Tensor
    b: Tensor
    grad_a: Tensor
    grad_b: Tensor
    old: State

    def tangent(self) -> tuple[Tangent, Tensor, Tensor]:
        """The tangent space at the factors, and p and q of g."""
        tangent = Tangent.at(self.a, self.b, self.hyper.damping)
        return tangent, *tangent.of_factor_gradients(self.grad_a, self.grad_b, self.s)

    def closed_form(self, tangent: Tangent, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return tangent.closed_form(self.hyper.x, self.s, p, q)

    def adam(self, da: Tensor, db: Tensor) -> tuple[Tensor, Tensor, State]:
        """Adam on both factors, each by itself."""
        a, state_a = adam(self.hyper, self.t, da, self.old, "_a")
        b, state_b = adam(self.hyper, self.t, db, self.old, "_b")
        return a, b, state_a | state_b


class Direction(NamedTuple):
    """Along what A and B are stepped, the new state, and two matrices whose product is E."""

    a: Tensor
    b: Tensor
    state: State
    equivalent: tuple[Tensor, Tensor]


def mix(beta: float, mean: Tensor, x: Tensor) -> Tensor:
    """An exponential moving average: beta M + (1 - beta) X."""
    return beta * mean + (1 - beta) * x


def adam(hyper: Hyper, t: int, x: Tensor, old: State, suffix: str = "") -> tuple[Tensor, State]:
    """N = (M / c1) / (sqrt(V2 / c2) + eps) of X, and the new moments (1412.6980, law 12)."""
    first, second, largest = f"exp_avg{suffix}", f"exp_avg_sq{suffix}", f"max_exp_avg_sq{suffix}"
    new = {first: mix(hyper.beta1, old[first], x), second: mix(hyper.beta2, old[second], x * x)}
    if hyper.amsgrad:
        new[largest] = torch.maximum(old[largest], new[second])
    c1, c2 = 1 - hyper.beta1**t, 1 - hyper.beta2**t
    return new[first] / c1 / ((new.get(largest, new[second]) / c2).sqrt() + hyper.eps), new


def lora(problem: Problem) -> Direction:
    """AdamW on the raw gradients; E = s (B gA + gB A)."""
    a, b, ga, gb = problem.a, problem.b, problem.grad_a, problem.grad_b
    equivalent = problem.s * torch.cat([b, gb], -1), torch.cat([ga, a], -2)
    return Direction(*problem.adam(ga, gb), equivalent)


def sgd(problem: Problem) -> Direction:
    """D = momentum D + (dA, dB)."""
    tangent, p, q = problem.tangent()
    da, db = problem.closed_form(tangent, p, q)
    state, mu = {}, problem.hyper.momentum
    if mu != 0:
        da = mu * problem.old["momentum_a"] + da
        db = mu * problem.old["momentum_b"] + db
        state = {"momentum_a": da, "momentum_b": db}
    return Direction(da, db, state, tangent.projection(p, q))


def efficient(problem: Problem) -> Direction:
    """AdamW on dA and dB (algorithm 2)."""
    tangent, p, q = problem.tangent()
    return Direction(*problem.adam(*problem.closed_form(tangent, p, q)), tangent.projection(p, q))


def full(problem: Problem) -> Direction:
    """Adam on E in the m x n space; its N takes the place of g (algorithm 1).

    What is m x n stays on the device of the moments, in their type.
    """
    tangent, p, q = problem.tangent()
    left, right = tangent.projection(p, q)
    moment = problem.old["exp_avg"]
    n, state = adam(problem.hyper, problem.t, like(left, moment) @ like(right, moment), problem.old)
    p, q = like(like(tangent.left, n).mT @ n, p), like(n @ like(tangent.right, n).mT, q)
    return Direction(*problem.closed_form(tangent, p, q), state, (left, right))


def factored(problem: Problem) -> Direction:
    """The full mode with M = B Y + Z A and the row and column means of E.E (1804.04235).

    N = Da (M / c1) Db, a_i = 1 / (sqrt(row_i / c2) + eps),
    b_j = sqrt(mean(row) / c2) / (sqrt(col_j / c2) + eps); all by factors of rank 2r.
    """
    hyper, old = problem.hyper, problem.old
    c1, c2 = 1 - hyper.beta1**problem.t, 1 - hyper.beta2**problem.t
    tangent, p, q = problem.tangent()
    equivalent = tangent.projection(p, q)
    y, z = tangent.coordinates(p, q)
    row, col = mean_squares(*equivalent)
    state = {
        "exp_avg_y": mix(hyper.beta1, old["exp_avg_y"], y),
        "exp_avg_z": mix(hyper.beta1, old["exp_avg_z"], z),
        "row_sq": (row := mix(hyper.beta2, old["row_sq"], row)),
        "col_sq": (col := mix(hyper.beta2, old["col_sq"], col)),
    }
    if hyper.amsgrad:
        row, col = torch.maximum(old["max_row_sq"], row), torch.maximum(old["max_col_sq"], col)
        state |= {"max_row_sq": row, "max_col_sq": col}
    da = 1 / ((row / c2).sqrt() + hyper.eps)
    db = (row.mean(-2, keepdim=True) / c2).sqrt() / ((col / c2).sqrt() + hyper.eps)
    left, right = first_moment(problem, state)
    p, q = tangent.of_product(da * left, right / c1 * db)
    return Direction(*problem.closed_form(tangent, p, q), state, equivalent)


def mean_squares(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Row means (m x 1) and column means (1 x n) of E.E, E = left right."""
    row = (left @ (right @ right.mT) * left).sum(-1, keepdim=True) / right.shape[-1]
    col = ((left.mT @ left) @ right * right).sum(-2, keepdim=True) / left.shape[-2]
    return row.clamp_min(0), col.clamp_min(0)


def first_moment(problem: Problem, state: State) -> tuple[Tensor, Tensor]:
    """M = B Y + Z A = [B Z] [Y; A] by its two factors."""
    left = torch.cat([problem.b, state["exp_avg_z"]], -1)
    return left, torch.cat([state["exp_avg_y"], problem.a], -2)


def transported(problem: Problem, state: State, a: Tensor, b: Tensor) -> State:
    """Y and Z of the projection of M on the tangent space of the new factors."""
    tangent = Tangent.at(a, b, problem.hyper.damping)
    y, z = tangent.coordinates(*tangent.of_product(*first_moment(problem, state)))
    return state | {"exp_avg_y": y, "exp_avg_z": z}


METHODS = {"lora": lora, "sgd": sgd, "efficient": efficient, "full": full, "factored": factored}


class Outcome(NamedTuple):
    """New values and new state by name, and for each adapter six numbers: |change| of A and of B,
    the same relative to |A| and |B|, |E|, and what the update clip multiplied by."""

    values: dict[str, Tensor]
    state: State
    report: tuple[Tensor, ...] = ()


def step_adapters(problem: Problem) -> Outcome:
    """A = decay_A A - lr DA, B = decay_B B - lr lr_ratio DB, both changes clipped."""
    hyper, factors = problem.hyper, (problem.a, problem.b)
    direction = METHODS[hyper.method](problem)
    change = [hyper.lr * direction.a, hyper.lr * hyper.lr_ratio * direction.b]
    sizes, moved = ([norm(x) for x in pair] for pair in (factors, change))
    relative = [torch.where(x == 0, 0, x / size) for x, size in zip(moved, sizes, strict=True)]
    clip = torch.ones_like(sizes[0])
    if hyper.update_clip is not None:
        of_larger = torch.where(sizes[0] >= sizes[1], relative[0], relative[1])
        clip = torch.where(of_larger > hyper.update_clip, hyper.update_clip / of_larger, clip)
    a, b = (
        decay * x - clip[:, None, None] * dx
        for decay, x, dx in zip(hyper.decays(), factors, change, strict=True)
    )
    state = direction.state
    if hyper.method == "factored":
        state = transported(problem, state, a, b)
    left, right = direction.equivalent
    of_e = ((left.mT @ left) * (right @ right.mT)).sum((-2, -1)).clamp_min(0).sqrt()
    return Outcome({"A": a, "B": b}, state, (*(clip * x for x in (*moved, *relative)), of_e, clip))


def step_params(hyper: Hyper, t: int, value: Tensor, grad: Tensor, old: State) -> Outcome:
    """AdamW."""
    n, state = adam(hyper, t, grad, old)
    return Outcome({"value": hyper.decays()[0] * value - hyper.lr * n}, state)
