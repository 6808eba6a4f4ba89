"""One process of test_distributed.py: `python distributed_worker.py SCENARIO FOLDER RANK WORLD`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft_models import loss_of, make
from torch.nn.parallel import DistributedDataParallel

import lorapro
from lorapro import create_lorapro_optimizer

STEPS = 4


def batches(batch: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """A process's part of the batch; every example four times, so that 1, 2 and 4 processes share it evenly."""
    return batch.repeat(4, *[1] * (batch.ndim - 1))[rank::world]


def trained(model):
    return {n.removeprefix("module."): p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def run(model, batch, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()


def train(folder: Path, rank: int, world: int, shard: bool, name: str = "modules_to_save", mode: str = "factored") -> None:
    """Trains under DDP, saves replicas and state, and continues from the state of another world size."""
    model, batch = make(name)
    model = DistributedDataParallel(model.double())
    batch = batches(batch, rank, world)
    batch = batch.double() if batch.is_floating_point() else batch
    optimizer = create_lorapro_optimizer(model, lr=1e-2, mode=mode, shard=shard, max_grad_norm=0.05)
    run(model, batch, optimizer, STEPS)
    state, weights = optimizer.state_dict(), trained(model)
    earlier = folder / "earlier.pt"
    if earlier.exists():
        saved = torch.load(earlier)
        model.module.load_state_dict(saved["model"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        run(model, batch, optimizer, STEPS)
    held = sum(len(slot.indices) for slot in optimizer._backends.slots.values())
    torch.save({"model": weights, "optimizer": state, "continued": trained(model), "held": held}, folder / f"{rank}.pt")


def fail(folder: Path, rank: int, world: int) -> None:
    """One process has a gradient that is not finite, another a tensor that cannot be stepped."""
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2, shard=True)
    loss_of(model, batch).backward()
    before, messages = trained(model), []
    parameter = next(p for p in model.parameters() if p.requires_grad)
    parameter.grad[0, 0] = float("nan")
    for _ in range(2):
        try:
            optimizer.step()
        except (lorapro.NonFiniteError, ValueError, RuntimeError) as error:
            messages.append(f"{type(error).__name__}: {error}")
        parameter.grad[0, 0] = 0.0
        if rank == 0:  # only here: the other processes must not wait for ever
            for p in model.parameters():
                p.grad = None if p.grad is None else p.grad.as_subclass(Other)
    unchanged = all(torch.equal(p, before[n]) for n, p in trained(model).items())
    torch.save({"messages": messages, "unchanged": unchanged}, folder / f"{rank}.pt")


def die(folder: Path, rank: int, world: int) -> None:
    """Process 0 writes checkpoints; the last process dies in the middle of the third step."""
    model, batch = make("modules_to_save")
    optimizer = create_lorapro_optimizer(model, lr=1e-2, shard=True)
    for step in range(5):
        if rank == world - 1 and step == 3:
            os._exit(9)
        try:
            run(model, batch, optimizer, 1)
            state = optimizer.state_dict()
        except RuntimeError:
            os._exit(1)
        if rank == 0:
            torch.save({"model": trained(model), "optimizer": state, "step": step + 1}, folder / "new.pt")
            os.replace(folder / "new.pt", folder / "checkpoint.pt")


class Other(torch.Tensor):
    pass


SCENARIOS = {
    "plain": lambda *a: train(*a, shard=False),
    "shard": lambda *a: train(*a, shard=True),
    "shard_full": lambda *a: train(*a, shard=True, mode="full"),
    "shard_experts": lambda *a: train(*a, shard=True, name="experts"),
    "fail": fail,
    "die": die,
}

if __name__ == "__main__":
    scenario, folder, rank, world = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    SCENARIOS[scenario](folder, rank, world)
    dist.barrier()
    dist.destroy_process_group()
