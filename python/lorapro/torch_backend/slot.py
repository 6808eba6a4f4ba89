"""An adapter or an unpaired parameter: what it is, how it is stepped, what it remembers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .methods import Hyper, State
from .precision import DTYPES, at_least_f32

# Name of each state tensor by method, and the tensor whose shape it has.
OF_FACTORS = {"exp_avg_a": "A", "exp_avg_sq_a": "A", "exp_avg_b": "B", "exp_avg_sq_b": "B"}
STATE = {
    "lora": OF_FACTORS,
    "efficient": OF_FACTORS,
    "sgd": {"momentum_a": "A", "momentum_b": "B"},
    "factored": {"exp_avg_y": "A", "exp_avg_z": "B", "row_sq": "row means", "col_sq": "col means"},
    "full": {"exp_avg": "W", "exp_avg_sq": "W"},
    "parameter": {"exp_avg": "value", "exp_avg_sq": "value"},
}
MASTERS = {"A": "master_a", "B": "master_b", "value": "master"}


Shapes = dict[str, tuple[int, ...]]


@dataclass
class Slot:
    """`subject` is what messages call it, `shapes` has those of its tensors and of what is computed."""

    subject: str
    shapes: Shapes
    dtype: torch.dtype
    group: str
    scale: float = 1.0
    hyper: Hyper = field(init=False)
    steps: int = 0
    state: State = field(default_factory=dict)
    report: tuple[int, Tensor] | None = None

    @property
    def is_adapter(self) -> bool:
        return "A" in self.shapes

    @property
    def targets(self) -> list[str]:
        """The tensors that a step changes."""
        return [name for name in MASTERS if name in self.shapes]

    def registered_as(self, other: Slot) -> bool:
        """Whether both were registered by the same call."""
        return all(getattr(self, key) == getattr(other, key) for key in ("subject", "shapes", "dtype", "group", "scale"))

    def set_scale(self, scale: float) -> None:
        if not 0 < scale < math.inf:
            raise ValueError(f"{self.subject}: scale is {scale}, but it must be positive and finite")
        self.scale = scale

    def layout(self, hyper: Hyper) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each state tensor under these hyper-parameters."""
        forms = STATE[hyper.method]
        if hyper.method == "sgd" and hyper.momentum == 0:
            forms = {}
        if hyper.amsgrad:
            forms = forms | {f"max_{k}": form for k, form in forms.items() if "_sq" in k}
        if hyper.rounding == "master" and self.dtype.itemsize == 2:
            forms = forms | {MASTERS[name]: name for name in self.targets}
        narrow = at_least_f32(self.dtype)
        wide = DTYPES.get(hyper.moment_dtype, narrow)
        return {k: (self.shapes[form], wide if form == "W" else narrow) for k, form in forms.items()}

    def hyper_of(self, groups: dict[str, Hyper]) -> Hyper:
        """Its group's hyper-parameters, if this backend has their options."""
        if self.group not in groups:
            expected = f"one of the configured groups [{', '.join(groups)}]"
            raise ValueError(f"{self.subject}: group is `{self.group}`, but it must be {expected}")
        hyper = groups[self.group]
        if not self.is_adapter:
            hyper = hyper._replace(method="parameter", decay_base=False)
        unsupported = {
            "rounding stochastic": hyper.rounding == "stochastic",
            "moment_dtype 8bit": hyper.method == "full" and hyper.moment_dtype == "8bit",
            "decay_base": hyper.decay_base,
        }
        for option, asked in unsupported.items():
            if asked:
                raise NotImplementedError(f"{self.subject}: the torch backend does not support {option}")
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
        if name in self.targets:
            check_distinct(what, x)

    def set_state(self, steps: int, state: State) -> None:
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

    def copied_state(self) -> tuple[int, State]:
        return self.steps, {name: copied(x) for name, x in self.state.items()}


def check_distinct(what: str, x: Tensor) -> None:
    """Rejects a tensor that reaches an element twice, as an expanded one does."""
    span = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride <= span:
            raise ValueError(f"{what} is expanded: its entries share memory and cannot be stepped")
        span += stride * (size - 1)


def copied(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.contiguous_format)


def first_non_finite(named: Iterable[tuple[Slot, str, Tensor]]) -> tuple[Slot, str] | None:
    """The owner and the description of the first entry that is not finite."""
    for slot, name, x in named:
        for at in (~x.isfinite()).nonzero().tolist()[:1]:
            return slot, f"{slot.subject}: {name}{at} is {float(x[tuple(at)])}, but every entry must be finite"
    return None
