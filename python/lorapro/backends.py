"""The backends of one optimizer: one for each device, made when the first parameter of it is stepped."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import _lorapro
from .options import number
from .pairs import Pair
from .torch_backend import DTYPES, TorchBackend

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHOICES = ("auto", *_lorapro.backends(), "torch")
STATE_FACTORS = _lorapro.state_factors()


@dataclass
class Work:
    """What one backend steps: `(index, A, B, grad A, grad B)` and `(index, value, grad)`."""

    adapters: list[tuple[int, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    params: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)


@dataclass
class Slot:
    """A registered adapter or unpaired parameter: its backend and its numbers there, one a block."""

    device: torch.device
    indices: list[int]
    shapes: tuple[torch.Size, ...]
    scale: float | None = None

    def check(self, subject: str, *tensors: Tensor) -> None:
        """Refuses tensors of other shapes than those that were registered."""
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes != self.shapes:
            seen, expected = ([tuple(shape) for shape in each] for each in (shapes, self.shapes))
            raise ValueError(f"{subject}: its shapes are {seen}, but they were {expected} when it was registered")


class Backends:
    """Registers adapters and parameters where they are stepped, by name, and keeps their state."""

    def __init__(self, choice: str) -> None:
        if choice not in CHOICES:
            raise ValueError(f"backend is {choice!r}, but it must be one of {', '.join(CHOICES)}")
        self.choice = choice
        self.config = "{}"
        self.slots: dict[str, Slot] = {}
        self._by_device: dict[torch.device, Any] = {}

    def configure(self, config: str) -> None:
        """The configuration of the coming steps, as JSON."""
        for backend in self.distinct():
            backend.configure(config)
        self.config = config

    def distinct(self) -> list[Any]:
        """The backends in use; the torch backend serves several devices."""
        return list({id(backend): backend for backend in self._by_device.values()}.values())

    def of(self, device: torch.device) -> Any:
        """The backend of a device, made where there is none yet."""
        backend = self._by_device.get(device)
        if backend is None:
            backend = self._make(device)
            backend.configure(self.config)
            self._by_device[device] = backend
        return backend

    def _make(self, device: torch.device) -> Any:
        if self.choice == "torch" or (self.choice == "auto" and device.type not in ("cpu", "cuda")):
            return self._torch()
        if self.choice != "auto":
            return _lorapro.CompiledBackend(self.choice, device.index or 0)
        if device.type == "cpu":
            return _lorapro.CompiledBackend("cpu")
        try:
            return _lorapro.CompiledBackend("cuda", device.index or 0)
        except RuntimeError as error:
            warnings.warn(f"{error}: parameters on {device} are stepped by backend torch", stacklevel=2)
            return self._torch()

    def _torch(self) -> Any:
        made = (backend for backend in self._by_device.values() if isinstance(backend, TorchBackend))
        return next(made, None) or TorchBackend()

    def add_pair(self, pair: Pair, a: Tensor, b: Tensor, group: str) -> Slot:
        """Registers an adapter, block by block."""
        refuse_meta(pair.a, a)
        refuse_meta(pair.b, b)
        if a.device != b.device:
            raise ValueError(f"adapter `{pair.name}`: A is on {a.device} and B on {b.device}, but both must be on one")
        backend, scale = self.of(a.device), pair.scale_now()
        blocks = pair.layout.matrices(a.detach().contiguous(), b.detach().contiguous())
        indices = []
        for number, (block_a, block_b) in enumerate(blocks):
            (r, n), m = block_a.shape, block_b.shape[0]
            name = pair.name if len(blocks) == 1 else f"{pair.name}[{number}]"
            indices.append(backend.add_adapter(name, m, n, r, scale, dtype_name(pair.a, a), group))
        self.slots[pair.name] = Slot(a.device, indices, (a.shape, b.shape), scale)
        return self.slots[pair.name]

    def add_param(self, name: str, param: Tensor, group: str) -> Slot:
        """Registers an unpaired parameter."""
        refuse_meta(name, param)
        index = self.of(param.device).add_param(name, param.numel(), dtype_name(name, param), group)
        self.slots[name] = Slot(param.device, [index], (param.shape,))
        return self.slots[name]

    def set_scale(self, slot: Slot, scale: float) -> None:
        """The scale of an adapter's blocks in the coming steps."""
        for index in slot.indices:
            self.of(slot.device).set_scale(index, scale)
        slot.scale = scale

    def step(self, work: dict[torch.device, Work], grad_scale: float) -> list[dict[str, Any]]:
        """Steps everything that is listed. Within one backend, an error leaves everything as it was."""
        joined: dict[int, tuple[Any, torch.device, Work]] = {}
        for device, part in work.items():
            backend = self.of(device)
            _, _, whole = joined.setdefault(id(backend), (backend, device, Work()))
            whole.adapters += part.adapters
            whole.params += part.params
        threads, reports = torch.get_num_threads(), []
        for backend, device, part in joined.values():
            stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
            reports.append(backend.step(part.adapters, part.params, threads, stream, grad_scale))
        return reports

    def report(self, name: str) -> list[dict[str, Any]]:
        """What the last step did to an adapter, block by block."""
        slot = self.slots[name]
        return [self.of(slot.device).adapter_report(index) for index in slot.indices]

    def pair_state(self, name: str) -> dict[str, dict[str, Any]]:
        """An adapter's state under its factors: `{"a": {"step": ..., ...}, "b": {...}}`."""
        slot = self.slots[name]
        read = [self.of(slot.device).adapter_state(index) for index in slot.indices]
        steps, tensors = read[0]
        state: dict[str, dict[str, Any]] = {f: {"step": step_tensor(steps)} for f in "ab"}
        for key in tensors:
            parts = [part[key] for _, part in read]
            state[STATE_FACTORS[key]][key] = parts[0] if len(parts) == 1 else torch.stack(parts)
        return state

    def set_pair_state(self, name: str, state_a: dict[str, Any], state_b: dict[str, Any]) -> None:
        """Replaces an adapter's state by what `pair_state` gave."""
        slot = self.slots[name]
        (steps, tensors), (steps_b, tensors_b) = read_state(name, state_a), read_state(name, state_b)
        if steps != steps_b:
            raise ValueError(f"adapter `{name}`: its two factors were saved at different steps, {steps} and {steps_b}")
        blocks: list[dict[str, Tensor]] = [{} for _ in slot.indices]
        for key, value in (tensors | tensors_b).items():
            parts = value.unbind(0) if len(blocks) > 1 else [value]
            if len(parts) != len(blocks):
                raise ValueError(f"adapter `{name}`: `{key}` has {len(parts)} blocks, not {len(blocks)}")
            for block, part in zip(blocks, parts, strict=True):
                block[key] = part
        for index, block in zip(slot.indices, blocks, strict=True):
            self.of(slot.device).set_adapter_state(index, steps, block)

    def param_state(self, name: str, shape: torch.Size) -> dict[str, Any]:
        """An unpaired parameter's state, in its shape."""
        slot = self.slots[name]
        steps, tensors = self.of(slot.device).param_state(slot.indices[0])
        return {"step": step_tensor(steps), **{k: v.reshape(shape) for k, v in tensors.items()}}

    def set_param_state(self, name: str, state: dict[str, Any]) -> None:
        """Replaces an unpaired parameter's state."""
        slot = self.slots[name]
        steps, tensors = read_state(name, state)
        flat = {key: value.reshape(-1) for key, value in tensors.items()}
        self.of(slot.device).set_param_state(slot.indices[0], steps, flat)


def dtype_name(name: str, tensor: Tensor) -> str:
    try:
        return DTYPE_NAMES[tensor.dtype]
    except KeyError:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPE_NAMES)
        raise ValueError(f"`{name}` is {tensor.dtype}, but it must be one of {expected}") from None


def step_tensor(steps: int) -> Tensor:
    """A step counter as torch's optimizers keep it, whatever torch's default dtype and device are."""
    return torch.tensor(float(steps), dtype=torch.float32, device="cpu")


def read_state(name: str, state: Any) -> tuple[int, dict[str, Tensor]]:
    """A saved step counter and state tensors, of values that a step can have left."""
    if not isinstance(state, Mapping) or "step" not in state:
        raise ValueError(f"`{name}`: its saved state has no `step`, so it is not LoRA-Pro's")
    tensors = {str(key): value for key, value in state.items() if key != "step"}
    steps = number(f"`{name}`", "its saved step", state["step"])
    if not 0 <= steps < 2**53 or steps != int(steps):
        raise ValueError(f"`{name}`: its saved step is {steps}, but it must be a whole number")
    for key, value in tensors.items():
        if type(value) not in (Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_meta:
            raise ValueError(f"`{name}`: its saved `{key}` is {value!r}, but it must be a dense torch.Tensor")
        if not value.isfinite().all():
            raise ValueError(f"`{name}`: its saved `{key}` holds a NaN or an infinity")
        if "_sq" in key and value.is_floating_point() and (value < 0).any():
            raise ValueError(f"`{name}`: its saved `{key}` is a mean of squares, but an entry is negative")
    return int(steps), tensors


def refuse_meta(name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        raise ValueError(f"`{name}` is on the device meta, where it has no values to step")
