"""An optimizer's `state`: views of what a backend keeps, under the parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, MutableMapping

from torch import Tensor

from .backends import Backends


class StateView(MutableMapping[str, Tensor]):
    """The state under one parameter, read from the backend at each access."""

    @abstractmethod
    def _read(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _write(self, state: dict[str, Tensor]) -> None: ...

    def __getitem__(self, key: str) -> Tensor:
        return self._read()[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self._write({**self._read(), key: value})

    def __delitem__(self, key: str) -> None:
        raise TypeError("state tensors cannot be removed one by one")

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


class PairState(StateView):
    """The state of an adapter that lies along one of its factors."""

    def __init__(self, backends: Backends, name: str, factor: str) -> None:
        self._backends, self._name, self._factor = backends, name, factor

    def _read(self) -> dict[str, Tensor]:
        return self._backends.pair_state(self._name)[self._factor]

    def _write(self, state: dict[str, Tensor]) -> None:
        both = self._backends.pair_state(self._name)
        both[self._factor] = state
        for half in both.values():
            half["step"] = state["step"]
        self._backends.set_pair_state(self._name, both["a"], both["b"])


class ParamState(StateView):
    """The state of an unpaired parameter."""

    def __init__(self, backends: Backends, name: str, param: Tensor) -> None:
        self._backends, self._name, self._param = backends, name, param

    def _read(self) -> dict[str, Tensor]:
        return self._backends.param_state(self._name, self._param.shape)

    def _write(self, state: dict[str, Tensor]) -> None:
        self._backends.set_param_state(self._name, state)
