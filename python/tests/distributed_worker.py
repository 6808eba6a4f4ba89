"""What the processes of test_distributed.py do."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from peft_models import loss_of, make
from torch.nn.parallel import DistributedDataParallel

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
    """Something is wrong in one process alone. What each says, what has changed, and a step after all that."""
    model, batch = make("linear")
    optimizer = create_lorapro_optimizer(model, lr=1e-2, shard=True)
    skipping = create_lorapro_optimizer(model, lr=1e-2, shard=True, on_non_finite="skip")
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    messages, changed = {}, []
    run(model, batch, optimizer, 1)
    run(model, batch, skipping, 1)
    for fault, (culprit, spoil) in FAULTS.items():
        stepped = skipping if fault == "skipped" else optimizer
        kept, state = trained(model), stepped.state_dict()["state"]
        stepped.zero_grad()
        loss_of(model, batch).backward()
        for name, param in params.items():
            if rank == culprit:
                spoil(name, param)
        try:
            stepped.step()
            messages[fault] = str(stepped.last_step["skipped"])
        except Exception as error:
            messages[fault] = f"{type(error).__name__}: {error}"
        for name, param in params.items():
            param.data.view(-1)[0] = kept[name].view(-1)[0]  # what may have been spoiled
            changed += [(fault, name)] * (not torch.equal(param, kept[name]))
        changed += [(fault, "state")] * (not same(state, stepped.state_dict()["state"]))
    run(model, batch, optimizer, 1)
    moved = not any(torch.equal(param, kept[name]) for name, param in params.items())
    found = {"messages": messages, "changed": changed, "moved": moved, "model": trained(model)}
    torch.save(found, folder / f"{rank}.pt")


class Other(torch.Tensor):
    pass


def spoil_gradient(name: str, param: torch.nn.Parameter) -> None:
    param.grad.view(-1)[0] = float("nan")


def spoil_value(name: str, param: torch.nn.Parameter) -> None:
    param.data.view(-1)[0] = float("nan")


def spoil_type(name: str, param: torch.nn.Parameter) -> None:
    param.grad = param.grad.as_subclass(Other)


def lose_gradient(name: str, param: torch.nn.Parameter) -> None:
    if "lora_A" in name:
        param.grad = None


# The process at fault, and what is wrong there.
FAULTS = {
    "gradient": (0, spoil_gradient),
    "factor": (1, spoil_value),
    "type": (0, spoil_type),
    "missing": (1, lose_gradient),
    "skipped": (1, spoil_gradient),
}


def same(left: dict, right: dict) -> bool:
    """Whether two states are equal to the last bit."""
    return all(torch.equal(x, right[number][key]) for number, state in left.items() for key, x in state.items())


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


SCENARIOS = {
    "plain": lambda *a: train(*a, shard=False),
    "shard": lambda *a: train(*a, shard=True),
    "shard_full": lambda *a: train(*a, shard=True, mode="full"),
    "shard_experts": lambda *a: train(*a, shard=True, name="experts"),
    "fail": fail,
    "die": die,
}

def process(scenario: str, folder: Path, rank: int, world: int) -> None:
    """One process of a scenario, from its start to its end."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)
    SCENARIOS[scenario](folder, rank, world)
    dist.barrier()
    dist.destroy_process_group()
