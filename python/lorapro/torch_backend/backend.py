"""`TorchBackend`: registers, checks, steps all or nothing, and keeps state."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .._lorapro import NonFiniteError, resolve_config
from .batch import Batch, Member, batches, by_device
from .methods import Hyper, State
from .precision import DTYPES, read_dtype
from .slot import Shapes, Slot, first_non_finite


class TorchBackend:
    """Steps adapters and unpaired parameters wherever their tensors are.

    The interface is that of `lorapro._lorapro.CompiledBackend`. State is kept on the device where
    its owner was stepped last. Torch's current stream and number of threads are the caller's.

    A step waits for a device twice: for the sums of squares of all gradients and values, and for
    whether all results are finite; `torch.linalg.eigh` waits once for each batch (twice in factored mode).
    """

    def __init__(self) -> None:
        self.adapters: list[Slot] = []
        self.params: list[Slot] = []
        self.groups: dict[str, Hyper] = {}

    def manifest(self) -> dict[str, Any]:
        """What the backend is and can do, by the names of core's `Manifest`."""
        return {
            "name": "torch",
            "version": torch.__version__,
            "device": "any",
            "dtypes": list(DTYPES),
            "state_dtypes": ["f64", "f32", "bf16"],
            "roundings": ["nearest", "master"],
            "accumulator_dtype": "f64",
            "code_path": "torch operations",
            "threads": torch.get_num_threads(),
        }

    def configure(self, config: str) -> None:
        """The configuration of the coming steps, as JSON; see `resolve_config`."""
        fields = json.loads(resolve_config(config))
        if fields["schedule"] != "constant":
            raise NotImplementedError("the optimizer: the torch backend does not support schedule")
        groups = {name: Hyper.read(group) for name, group in fields["groups"].items()}
        slots = self.adapters + self.params
        hypers = [slot.hyper_of(groups) for slot in slots]
        for slot, hyper in zip(slots, hypers, strict=True):
            if slot.hyper.method != hyper.method or slot.layout(slot.hyper) != slot.layout(hyper):
                expected = "such that method and state tensors stay: make a new optimizer instead"
                raise ValueError(f"{slot.subject}: the hyper-parameters must be {expected}")
        for slot, hyper in zip(slots, hypers, strict=True):
            slot.hyper = hyper
        self.groups, self.config = groups, fields

    def add_adapter(self, name: str, m: int, n: int, r: int, scale: float, dtype: str, group: str) -> int:
        """Registers an adapter (A is r x n, B is m x r) and gives its number. One that is registered alike and was
        never stepped is found: an interrupt (Ctrl-C) may have come before the caller could note its number."""
        shapes: Shapes = {"A": (r, n), "B": (m, r), "W": (m, n), "row means": (m, 1), "col means": (1, n)}
        slot = Slot(f"adapter `{name}`", shapes, read_dtype(dtype), group)
        if not 1 <= r <= min(m, n):
            expected = f"at least 1 and at most min(m, n) = {min(m, n)}"
            raise ValueError(f"{slot.subject}: r is {r}, but it must be {expected}")
        slot.set_scale(scale)
        return self._add(slot, self.adapters)

    def add_param(self, name: str, numel: int, dtype: str, group: str) -> int:
        """Registers an unpaired parameter and gives its number; finds one as `add_adapter` does."""
        slot = Slot(f"parameter `{name}`", {"value": (numel,), "grad": (numel,)}, read_dtype(dtype), group)
        if numel < 1:
            raise ValueError(f"{slot.subject}: numel is {numel}, but it must be at least 1")
        return self._add(slot, self.params)

    def _add(self, slot: Slot, slots: list[Slot]) -> int:
        for index, other in enumerate(slots):
            if other.subject == slot.subject:
                if other.steps == 0 and other.registered_as(slot):
                    return index
                raise ValueError(f"{slot.subject} is registered twice")
        slot.hyper = slot.hyper_of(self.groups)
        layout = slot.layout(slot.hyper)
        slot.state = {name: torch.zeros(shape, dtype=dtype, device="cpu") for name, (shape, dtype) in layout.items()}
        slots.append(slot)
        return len(slots) - 1

    def set_scale(self, adapter: int, scale: float) -> None:
        """The scale of an adapter in the coming steps."""
        self._adapter(adapter).set_scale(scale)

    @torch.no_grad()
    def step(
        self,
        adapters: Iterable[tuple[int, Tensor, Tensor, Tensor, Tensor]],
        params: Iterable[tuple[int, Tensor, Tensor]],
        threads: int,
        stream: int,
        grad_scale: float,
    ) -> dict[str, Any]:
        """Steps adapters, `(number, A, B, grad A, grad B)`, and parameters, `(number, value, grad)`.

        On an error nothing has changed: everything is computed before anything is written, so that old and
        new state are in memory together. All gradients are multiplied by `grad_scale` first.

        Raises:
            ValueError: a tensor is not what was registered, or a sum of squares overflows.
            NonFiniteError: a gradient, a value or a result is not finite.
        """
        if not 0 < grad_scale < math.inf:
            raise ValueError(f"the optimizer: grad_scale is {grad_scale}, but it must be positive and finite")
        names = ("A", "B", "grad A", "grad B")
        members = [(self._adapter(k), dict(zip(names, tensors, strict=True))) for k, *tensors in adapters]
        members += [(self._param(k), {"value": value, "grad": grad}) for k, value, grad in params]
        check_members(members)
        return self._step(members, grad_scale)

    def _step(self, members: list[Member], grad_scale: float) -> dict[str, Any]:
        found = batches(members)
        report: dict[str, Any] = {"lr_factor": 1.0, "grad_norm": math.nan, "grad_clip": 1.0, "skipped": None}
        of_grads, of_values = sums_of_squares(found)
        of_grads *= grad_scale**2
        if not math.isfinite(of_grads + of_values):
            report["skipped"] = self._reject(members)
            return report
        limit, report["grad_norm"] = self.config["max_grad_norm"], math.sqrt(of_grads)
        if limit is not None and report["grad_norm"] > limit:
            report["grad_clip"] = limit / report["grad_norm"]
        for batch in found:
            with torch.autocast(batch.device.type, enabled=False):
                batch.compute(grad_scale, report["grad_clip"])
        if not all(bool(torch.stack(flags).all()) for flags in by_device(batch.finite() for batch in found)):
            for batch in found:
                batch.reject()
        for batch in found:
            batch.commit()
        return report

    def _reject(self, members: list[Member]) -> dict[str, str]:
        """What is not finite: an error, or the reason why the step is skipped."""
        named = [(slot, name, x) for slot, tensors in members for name, x in tensors.items()]
        gradient = first_non_finite(x for x in named if "grad" in x[1])
        if gradient and self.config["on_non_finite"] == "skip":
            return {"subject": gradient[0].subject, "reason": gradient[1]}
        found = gradient or first_non_finite(x for x in named if "grad" not in x[1])
        if found:
            raise NonFiniteError(found[1])
        raise ValueError(f"{members[0][0].subject} or another one: a sum of squares overflows")

    def adapter_state(self, adapter: int) -> tuple[int, State]:
        """An adapter's step counter, and copies of its state tensors by name."""
        return self._adapter(adapter).copied_state()

    def param_state(self, param: int) -> tuple[int, State]:
        """An unpaired parameter's step counter, and copies of its state tensors by name, as vectors."""
        return self._param(param).copied_state()

    def set_adapter_state(self, adapter: int, steps: int, state: State) -> None:
        """Replaces an adapter's step counter and all of its state tensors."""
        self._adapter(adapter).set_state(steps, state)

    def set_param_state(self, param: int, steps: int, state: State) -> None:
        """Replaces an unpaired parameter's step counter and all of its state tensors."""
        self._param(param).set_state(steps, state)

    def adapter_report(self, adapter: int) -> dict[str, Any]:
        """What the last step did to an adapter, by the names of core's `AdapterReport`."""
        step, numbers = self._adapter(adapter).report or (0, torch.zeros(8))
        grad_a, grad_b, moved_a, moved_b, relative_a, relative_b, of_e, clip = numbers.tolist()
        return {
            "step": step,
            "grad_norm": [grad_a, grad_b],
            "update_norm": [moved_a, moved_b],
            "relative_update": [relative_a, relative_b],
            "equivalent_norm": of_e,
            "clip": clip,
        }

    def _adapter(self, index: int) -> Slot:
        return lookup(self.adapters, index, "adapter")

    def _param(self, index: int) -> Slot:
        return lookup(self.params, index, "parameter")


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
        device = next(iter(tensors.values())).device
        for name, x in tensors.items():
            slot.check(name, x, device)


def sums_of_squares(found: list[Batch]) -> list[float]:
    """Of all gradients, and of all values."""
    of_devices = [torch.stack(sums).sum(0).tolist() for sums in by_device(batch.squares() for batch in found)]
    return [sum(of_device) for of_device in zip(*of_devices, strict=True)]
