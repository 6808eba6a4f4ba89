"""The compiled part: core's optimizer on the memory of torch's tensors."""

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

__all__ = ["CompiledBackend", "NonFiniteError", "__version__", "backends", "resolve_config", "state_factors"]
__version__: str

class NonFiniteError(RuntimeError):
    """A gradient or a factor holds a NaN or an infinity; nothing was changed."""

@final
class CompiledBackend:
    """Core's optimizer with one of its backends, for one device.

    Adapters (A: r x n, B: m x r) and unpaired parameters are registered once and known by number from then
    on. Errors of bad values are `ValueError`, of a device `RuntimeError`, of what a backend does not have
    `NotImplementedError`, of too little memory `MemoryError`; a name of the adapter or parameter is in each.
    """

    def __new__(cls, name: str, device: int = 0) -> CompiledBackend:
        """The backend `"cpu"`, `"cuda"` or `"reference"`; `device` is the ordinal of a CUDA device.

        Raises:
            RuntimeError: the device is not there; the message says what is missing.
        """

    def manifest(self) -> dict[str, Any]:
        """What the backend is and can do: the fields of core's `Manifest`."""

    def configure(self, config: str) -> None:
        """The configuration of the coming steps, as JSON; see `resolve_config`."""

    def add_adapter(self, name: str, m: int, n: int, r: int, scale: float, dtype: str, group: str) -> int:
        """Registers an adapter of dtype `"f64"`, `"f32"`, `"bf16"` or `"f16"` and gives its number. One that is
        registered alike and was never stepped is found."""

    def add_param(self, name: str, numel: int, dtype: str, group: str) -> int:
        """Registers an unpaired parameter and gives its number; finds one as `add_adapter` does."""

    def set_scale(self, adapter: int, scale: float) -> None:
        """The scale s of an adapter in the coming steps."""

    def step(
        self,
        adapters: Sequence[tuple[int, Tensor, Tensor, Tensor, Tensor]],
        params: Sequence[tuple[int, Tensor, Tensor]],
        threads: int,
        stream: int,
        grad_scale: float,
    ) -> dict[str, Any]:
        """Steps adapters, `(number, A, B, grad A, grad B)`, and parameters, `(number, value, grad)`.

        Reads and writes the tensors' own memory; on an error nothing has changed. `threads` is for the CPU,
        `stream` (a `CUstream` as an integer) for CUDA. All gradients are multiplied by `grad_scale` first.

        Returns:
            `lr_factor`, `grad_norm`, `grad_clip`, and `skipped`: None or a dict of `subject` and `reason`.

        Raises:
            NonFiniteError: a gradient or a factor is not finite, and steps are not skipped for that.
        """

    def adapter_state(self, adapter: int) -> tuple[int, dict[str, Tensor]]:
        """An adapter's step counter and copies of its state tensors by name."""

    def set_adapter_state(self, adapter: int, steps: int, tensors: dict[str, Tensor]) -> None:
        """Replaces an adapter's step counter and all of its state tensors."""

    def param_state(self, param: int) -> tuple[int, dict[str, Tensor]]:
        """An unpaired parameter's step counter and copies of its state tensors by name, as vectors."""

    def set_param_state(self, param: int, steps: int, tensors: dict[str, Tensor]) -> None:
        """Replaces an unpaired parameter's step counter and all of its state tensors."""

    def adapter_report(self, adapter: int) -> dict[str, Any]:
        """What the last step did to an adapter.

        Returns:
            `step`; `grad_norm`, `update_norm`, `relative_update` (each for A and B); `equivalent_norm`; `clip`.
        """

def resolve_config(config: str) -> str:
    """A configuration with all fields filled in, as JSON.

    Takes JSON with any of the fields of core's `Config`: those of `Hyper`, `preset`, `groups`,
    `max_grad_norm`, `on_non_finite`.

    Raises:
        ValueError: an unknown field, or a value out of range; the message names it.
    """

def state_factors() -> dict[str, str]:
    """For each state tensor of an adapter, the factor (`"a"` or `"b"`) under whose parameter it is kept."""

def backends() -> list[str]:
    """Names of the backends that are compiled in."""
