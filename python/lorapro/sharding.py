"""Adapters divided over processes that have the same gradients: each steps some, all get the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class SkippedStep(Exception):
    """A step that is left out, and why."""

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(reason)
        self.subject = subject


class Shards:
    """The division over the processes of one group."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        self._owner: dict[str, int] = {}
        self._device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"

    @classmethod
    def of(cls, shard: Any) -> Shards | None:
        """The division that `shard` asks for: none, over the default group (True), over a group."""
        if shard is False or shard is None:
            return None
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("shard needs torch.distributed: call init_process_group first, or leave shard out")
        return cls(None if shard is True else shard)

    def assign(self, costs: list[tuple[list[str], int]]) -> None:
        """Divides items, each of parameters that belong together and its cost.

        Largest first, each to the process with the least so far: the same in every process.
        """
        loads = [0] * self.world
        self._owner = {}
        for names, cost in sorted(costs, key=lambda item: -item[1]):
            owner = min(range(self.world), key=lambda rank: loads[rank])
            self._owner |= dict.fromkeys(names, owner)
            loads[owner] += cost

    def owns(self, name: str) -> bool:
        """Whether this process steps the parameter."""
        return self._owner[name] == self.rank

    def agree(self, work: Callable[[], T]) -> T:
        """What `work` gives, if it fails in no process: none may wait for another that has given up.

        Raises:
            Exception: its own failure.
            RuntimeError: that of another process.
            SkippedStep: where some process skips the step and none fails.
        """
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # handed on below
            failure = error
        failed = torch.tensor(failure is not None, dtype=torch.int32, device=self._device)
        dist.all_reduce(failed, dist.ReduceOp.MAX, group=self.group)
        if not failed.item():
            return result
        own = None if failure is None else (isinstance(failure, SkippedStep), str(failure))
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, own, group=self.group)
        skips, rank, text = min((each[0], rank, each[1]) for rank, each in enumerate(found) if each is not None)
        if failure is not None and own is not None and own[0] == skips:
            raise failure
        if skips:
            raise SkippedStep(f"process {rank}", text)
        raise RuntimeError(f"the step of process {rank} failed: {text}")

    def exchange(self, tensors: list[tuple[str, Tensor]]) -> None:
        """Brings every parameter from the process that stepped it, one all-gather a dtype and device."""
        kinds: dict[tuple[torch.dtype, torch.device], list[tuple[str, Tensor]]] = {}
        for name, tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append((name, tensor))
        for (dtype, device), members in kinds.items():
            of_rank: list[list[Tensor]] = [[] for _ in range(self.world)]
            for name, tensor in members:
                of_rank[self._owner[name]].append(tensor)
            length = max(sum(t.numel() for t in owned) for owned in of_rank)
            mine = torch.zeros(length, dtype=dtype, device=device)
            if of_rank[self.rank]:
                flat = torch.cat([t.detach().reshape(-1) for t in of_rank[self.rank]])
                mine[: flat.numel()] = flat
            gathered = [torch.empty_like(mine) for _ in range(self.world)]
            dist.all_gather(gathered, mine, group=self.group)
            for rank, buffer in enumerate(gathered):
                if rank == self.rank:
                    continue
                start = 0
                for tensor in of_rank[rank]:
                    tensor.copy_(buffer[start : start + tensor.numel()].view(tensor.shape))
                    start += tensor.numel()

    def gather_state(self, own: dict[str, Any]) -> dict[str, Any]:
        """The state of all processes in one dict, the same in each."""
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, own["state"], group=self.group)
        state: dict[int, Any] = {}
        for part in parts:
            state |= part
        return {**own, "state": dict(sorted(state.items()))}
