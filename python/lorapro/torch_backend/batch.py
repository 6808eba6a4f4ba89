"""Slots that are stepped as one: from the caller's tensors to stacked ones, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .._lorapro import NonFiniteError
from .methods import Problem, step_adapters, step_params
from .precision import at_least_f32, norm, round_to, to_f64
from .slot import MASTERS, Slot, first_non_finite

# A slot, and its tensors by name: A, B, grad A, grad B; or value, grad.
Member = tuple[Slot, dict[str, Tensor]]

# Entries of A and B, or of the full mode's W, that are stacked at once: enough to keep a device busy,
# and on the CPU no more than its caches hold.
ENTRIES = 2**23
ENTRIES_CPU = 2**18


class Batch:
    """Slots of one shape, dtype, device, scale, step counter and set of hyper-parameters.

    Adapters are computed in f64 (see `f64_device`), but for the full mode's m x n matrices. These and unpaired
    parameters are computed in the wider of their state's and their values' types, at least f32. `compute`
    writes nothing, and `commit` cannot fail.
    """

    def __init__(self, members: list[Member]) -> None:
        self.slots, self.tensors = zip(*members, strict=True)
        self.slot = self.slots[0]
        self.device = next(iter(self.tensors[0].values())).device
        self.inputs = {name: self.stacked([each[name] for each in self.tensors]) for name in self.tensors[0]}
        self.grad_norms = [norm(x) for name, x in self.inputs.items() if "grad" in name]

    def stacked(self, tensors: list[Tensor], thin: bool = True) -> Tensor:
        """One tensor of all slots', where and in the type in which it is computed."""
        tensors = [x.detach().to(self.device) for x in tensors]
        x = torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
        wide = torch.promote_types(x.dtype, at_least_f32(self.slot.dtype))
        return to_f64(x) if thin and self.slot.is_adapter else x.to(wide)

    def old_state(self, name: str) -> Tensor:
        moments = self.slot.hyper.method == "full" and name not in MASTERS.values()
        return self.stacked([slot.state[name] for slot in self.slots], thin=not moments)

    def squares(self) -> Tensor:
        """The sums of the squares of all gradients, and of all values."""
        both = self.grad_norms, [norm(self.inputs[name]) for name in self.slot.targets]
        return torch.stack([torch.cat(norms).square().sum() for norms in both])

    def compute(self, grad_scale: float, grad_clip: float) -> None:
        """New values and new state in their storage types, and reports."""
        slot, hyper, t = self.slot, self.slot.hyper, self.slot.steps + 1
        layout = slot.layout(hyper)
        old = {name: self.old_state(name) for name in layout}
        values = {name: self.through_master(name, old) for name in slot.targets}
        factor = grad_scale * grad_clip * (-1 if hyper.maximize else 1)
        grads = {name: factor * x for name, x in self.inputs.items() if "grad" in name}
        if slot.is_adapter:
            a, b, grad_a, grad_b = values["A"], values["B"], grads["grad A"], grads["grad B"]
            new = step_adapters(Problem(hyper, slot.scale, t, a, b, grad_a, grad_b, old))
        else:
            new = step_params(hyper, t, values["value"], grads["grad"], old)
        norms = [grad_scale * x for x in self.grad_norms]
        self.reports = torch.stack([*norms, *new.report], -1)
        state = new.state | {MASTERS[name]: x for name, x in new.values.items()}
        self.state = {name: round_to(state[name], dtype) for name, (_, dtype) in layout.items()}
        kept = {name: self.state.get(MASTERS[name], x) for name, x in new.values.items()}
        self.values = {name: round_to(x, slot.dtype).to(self.device) for name, x in kept.items()}

    def through_master(self, name: str, old: dict[str, Tensor]) -> Tensor:
        """A target's values: its master copy's where they are that copy's rounding."""
        value, master = self.inputs[name], old.get(MASTERS[name])
        if master is None:
            return value
        return torch.where(round_to(master, self.slot.dtype) == value, master, value)

    def results(self) -> Iterator[tuple[str, Tensor]]:
        for name, x in self.values.items():
            yield f"{name} after the step", x
        yield from self.state.items()

    def finite(self) -> Tensor:
        """Whether all results are finite in their storage types: the largest of each decides."""
        largest = [torch.linalg.vector_norm(x, math.inf) for _, x in self.results()]
        return torch.stack([x.isfinite().to(self.device) for x in largest]).all()

    def reject(self) -> None:
        """Raises an error that names the first result that is not finite, if there is one."""
        named = ((slot, name, x) for name, of_all in self.results() for slot, x in zip(self.slots, of_all, strict=True))
        if found := first_non_finite(named):
            raise NonFiniteError(found[1])

    def commit(self) -> None:
        for name, new in self.values.items():
            torch._foreach_copy_([tensors[name] for tensors in self.tensors], list(new.unbind()))
        for k, slot in enumerate(self.slots):
            slot.steps, slot.state = slot.steps + 1, {name: x[k] for name, x in self.state.items()}
            slot.report = slot.steps, self.reports[k]


def batches(members: list[Member]) -> list[Batch]:
    """The members, as many as can be stepped as one together."""
    groups: dict[tuple[Any, ...], list[Member]] = {}
    for slot, tensors in members:
        device = next(iter(tensors.values())).device
        key = (tuple(slot.shapes.items()), slot.dtype, device, slot.scale, slot.steps, slot.hyper)
        groups.setdefault(key, []).append((slot, tensors))
    return [Batch(part) for group in groups.values() for part in parts(group)]


def parts(group: list[Member]) -> Iterator[list[Member]]:
    """Members of one kind, cut so that no more than `ENTRIES` are stacked."""
    slot, tensors = group[0]
    names = ["W"] if slot.hyper.method == "full" else slot.targets
    entries = sum(math.prod(slot.shapes[name]) for name in names)
    on_cpu = next(iter(tensors.values())).device.type == "cpu"
    count = max(1, (ENTRIES_CPU if on_cpu else ENTRIES) // entries)
    for start in range(0, len(group), count):
        yield group[start : start + count]


def by_device(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors that can be combined, and then read at once."""
    found: dict[torch.device, list[Tensor]] = {}
    for x in tensors:
        found.setdefault(x.device, []).append(x)
    return list(found.values())
