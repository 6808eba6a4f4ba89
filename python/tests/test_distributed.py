"""Several processes on the CPU (gloo): DDP, divided state, and what happens where a process fails."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import pytest
import torch
from distributed_worker import process, run

# A server that has imported what takes long forks every process from itself.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["peft", "transformers", "lorapro"])


def launch(scenario: str, folder: Path, world: int, check: bool = True) -> list[dict]:
    folder.mkdir(parents=True, exist_ok=True)
    processes = [CONTEXT.Process(target=process, args=(scenario, folder, rank, world)) for rank in range(world)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(120)
        each.kill()
    if check:
        assert [each.exitcode for each in processes] == [0] * world
    return [torch.load(f, weights_only=False) for f in sorted(folder.glob("[0-9]*.pt"))]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """What one process with the whole batch gets."""
    folders = {}

    def of(scenario):
        if scenario not in folders:
            folders[scenario] = launch(scenario, tmp_path_factory.mktemp(scenario), 1)[0]
        return folders[scenario]

    return of


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("scenario", ["plain", "shard", "shard_full", "shard_experts"])
def test_processes_agree_with_one_process_and_with_each_other(scenario, world, single, tmp_path):
    """Replicas are equal to the last bit; they differ from one process by the rounding of DDP's mean, in
    f64. A checkpoint of one process continues in several."""
    alone = single(scenario)
    torch.save({"model": alone["model"], "optimizer": alone["optimizer"]}, tmp_path / "earlier.pt")
    ranks = launch(scenario, tmp_path, world)
    for other in ranks[1:]:
        for key in ("model", "continued"):
            assert all(torch.equal(p, other[key][n]) for n, p in ranks[0][key].items())
        for number, state in ranks[0]["optimizer"]["state"].items():
            assert all(torch.equal(v, other["optimizer"]["state"][number][k]) for k, v in state.items())
    for n, p in alone["model"].items():
        torch.testing.assert_close(p, ranks[0]["model"][n], rtol=1e-9, atol=1e-11)
    total = sum(rank["held"] for rank in ranks)
    assert total == alone["held"] * (1 if "shard" in scenario else world)


def test_a_checkpoint_of_four_processes_continues_in_one(single, tmp_path):
    ranks = launch("shard", tmp_path / "four", 4)
    (tmp_path / "one").mkdir()
    torch.save({"model": ranks[0]["model"], "optimizer": ranks[0]["optimizer"]}, tmp_path / "one" / "earlier.pt")
    (tmp_path / "two").mkdir()
    torch.save({"model": ranks[0]["model"], "optimizer": ranks[0]["optimizer"]}, tmp_path / "two" / "earlier.pt")
    one, two = launch("plain", tmp_path / "one", 1)[0], launch("shard", tmp_path / "two", 2)[0]
    for n, p in one["continued"].items():
        assert not torch.equal(p, one["model"][n])
        torch.testing.assert_close(p, two["continued"][n], rtol=1e-9, atol=1e-11)


def test_where_one_process_fails_nothing_changes_in_any(tmp_path):
    ranks = launch("fail", tmp_path, 2)
    assert [rank["changed"] for rank in ranks] == [[], []]
    assert all(torch.equal(p, ranks[1]["model"][n]) for n, p in ranks[0]["model"].items()) and ranks[0]["moved"]
    expected = {
        "gradient": (0, "NonFiniteError: parameter `.*`: its gradient holds a NaN"),
        "factor": (1, "NonFiniteError: parameter `.*` holds a NaN"),
        "type": (0, "ValueError: parameter `.*`: its gradient is a Other, but"),
        "missing": (1, "ValueError: adapter `.*`: `.*lora_A.*` has no gradient"),
    }
    for fault, (culprit, message) in expected.items():
        own, other = (ranks[rank]["messages"][fault] for rank in (culprit, 1 - culprit))
        assert re.match(message, own), own
        assert other == f"RuntimeError: the step of process {culprit} failed: {own.split(': ', 1)[1]}"
    assert "'subject': 'process 1'" in ranks[0]["messages"]["skipped"]
    assert all("its gradient holds a NaN" in rank["messages"]["skipped"] for rank in ranks)


def test_a_process_that_dies_leaves_a_checkpoint_that_continues(tmp_path):
    launch("die", tmp_path, 2, check=False)
    saved = torch.load(tmp_path / "checkpoint.pt")
    assert saved["step"] == 3
    from peft_models import make

    from lorapro import create_lorapro_optimizer

    model, batch = make("modules_to_save")
    optimizer = create_lorapro_optimizer(model, lr=1e-2)
    model.load_state_dict(saved["model"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    run(model, batch, optimizer, 2)
    whole, batch = make("modules_to_save")
    never_stopped = create_lorapro_optimizer(whole, lr=1e-2)
    run(whole, batch, never_stopped, 5)
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(p, q)
