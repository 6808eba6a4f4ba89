"""Each short example runs, trains with LoRA-Pro, and shows what it says that it shows."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lorapro import LoraPro

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example in this process; gives what it printed and the optimizers that have stepped in it."""
    stepped: dict[int, torch.optim.Optimizer] = {}

    def of(name: str, *args: str) -> tuple[str, list[torch.optim.Optimizer]]:
        monkeypatch.setattr(sys, "argv", [name, *args])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out, list(stepped.values())

    handle = register_optimizer_step_post_hook(lambda optimizer, *_: stepped.setdefault(id(optimizer), optimizer))
    yield of
    handle.remove()


def losses(text: str) -> list[float]:
    """In the order in which they were printed."""
    return [float(number) for number in re.findall(r"(?:loss|->) (\d+\.\d+)", text)]


def check(optimizers: list[torch.optim.Optimizer], steps: int, adapters: int) -> None:
    """Every optimizer is LoRA-Pro's, and each of its adapters has taken so many steps and moved in the last."""
    assert optimizers and all(type(optimizer) is LoraPro for optimizer in optimizers)
    for optimizer in optimizers:
        reports = optimizer.reports().values()
        assert [report["step"] for report in reports] == [steps] * adapters
        assert all(min(report["update_norm"]) > 0 for report in reports)


@pytest.mark.parametrize("args", ["", "--dtype bf16 --checkpointing", "--dtype fp16 --mode efficient"])
def test_plain_loop(run, args):
    printed, optimizers = run("plain_loop.py", "--steps", "12", *args.split())
    first, *_, last = losses(printed)
    assert last < first - 0.2
    check(optimizers, 12, 14)


def test_trainer(run):
    printed, optimizers = run("trainer.py", "--steps", "10")
    *ways, same = printed.splitlines()
    assert [line.split()[:2] for line in ways] == [[way, "LoraPro"] for way in ("optimizers", "class", "factory")]
    assert all(last < first - 0.2 for first, last in map(losses, ways))
    assert same == "the same bits in each: True"
    check(optimizers, 10, 14)
    assert len(optimizers) == 3


def test_accelerate_loop(run):
    printed, optimizers = run("accelerate_loop.py", "--steps", "6")
    first, second, third, again = losses(printed)
    assert third < second < first and again == third
    assert "the same bits: True" in printed
    check(optimizers, 2 + 6 + 6, 14)  # the epoch of the start, up to the checkpoint, and on from it


def test_ddp():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(EXAMPLES / "ddp.py"), "--steps", "12", "--shard"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, *_, last = losses(done.stdout)
    assert last < first - 0.3 and "the replicas are equal to the last bit" in done.stdout
    held = [int(number) for number in re.search(r"each process: \[(\d+), (\d+)\]", done.stdout).groups()]
    # Moments in the factors' shapes, a row and a column of second moments and two counters an adapter.
    factors = 2 * (4 * 8 * (64 + 64) + 3 * 8 * (64 + 128))
    assert sum(held) == factors + 2 * (4 * (64 + 64) + 3 * (64 + 128)) + 2 * 14
    assert abs(held[0] - held[1]) < 0.1 * sum(held)


def test_compiled(run):
    printed, optimizers = run("compiled.py", "--steps", "8", "--backend", "eager")
    eager, compiled, with_step = (losses(line) for line in printed.splitlines())
    assert eager == pytest.approx(compiled, abs=2e-3) and eager == pytest.approx(with_step, abs=2e-3)
    assert eager[1] < eager[0] - 0.2
    assert re.findall(r"graphs: (\d+)", printed) == ["0", "1", "1"]  # the step has none
    check(optimizers, 8, 7)
    assert len(optimizers) == 3


def test_plain_modules(run):
    printed, optimizers = run("plain_modules.py", "--steps", "20")
    first, last, *others = losses(printed)
    assert last < first / 2 and others == [first, last]
    assert "the same bits: True" in printed and "('0.lora_A', '0.lora_B')" in printed
    check(optimizers, 20, 2)


def test_the_table_lists_every_example():
    listed = re.findall(r"^\| \[`(\w+\.py)`\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted([*listed, "tiny_model.py"]) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("option", [("--steps", "0"), ("--rank", "-1"), ("--lr", "nan")], ids=" ".join)
def test_options_out_of_range_are_refused_by_name(option, run, capsys):
    with pytest.raises(SystemExit):
        run("finetune_text.py", *option)
    assert f"argument {option[0]}: it is {option[1]}" in capsys.readouterr().err
