"""Ten thousand steps in constant memory, forks, threads, and numbers of threads that change."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import sys
import threading
import time

import pytest
import torch
from torch.nn import Parameter

from lorapro import LoraPro

BACKENDS = ["cpu", "torch"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and glibc's counters, and forks")


class Training:
    """Adapters and a bias with an optimizer, whose gradients follow from the number of the step."""

    def __init__(self, backend: str, m=12, n=10, r=4, adapters=1, dtype=torch.float32, seed=0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        pairs = [(self.new(r, n, dtype), self.new(m, r, dtype), 0.5) for _ in range(adapters)]
        self.params = [p for pair in pairs for p in pair[:2]] + [self.new(m, 1, dtype)]
        self.gradients = [torch.randn(p.shape, generator=self.random, dtype=dtype) for p in self.params]
        groups = [{"params": pairs}, {"params": [("bias", self.params[-1])]}]
        self.optimizer = LoraPro(groups, lr=1e-3, backend=backend, max_grad_norm=1.0)
        self.steps = 0

    def new(self, rows: int, cols: int, dtype: torch.dtype) -> Parameter:
        return Parameter(torch.randn(rows, cols, generator=self.random, dtype=dtype))

    def run(self, steps: int) -> list[torch.Tensor]:
        """Steps with a schedule, now and then reading all that can be read; gives copies of the parameters."""
        for _ in range(steps):
            for p, gradient in zip(self.params, self.gradients, strict=True):
                p.grad = gradient * (1 + self.steps % 7)
            self.optimizer.param_groups[0]["lr"] = 1e-3 / (1 + self.steps % 5)
            self.optimizer.step()
            self.steps += 1
            if self.steps % 100 == 0:
                self.optimizer.load_state_dict(self.optimizer.state_dict())
                self.optimizer.reports()
        return [p.detach().clone() for p in self.params]


def large(backend: str, seed: int = 0) -> Training:
    """Of several tiles, so that the threads of a pool have something to do; in f64, since steps magnify rounding."""
    return Training(backend, 300, 200, 8, adapters=6, dtype=torch.float64, seed=seed)


def running_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def equal(left, right):
    return all(torch.equal(p, q) for p, q in zip(left, right, strict=True))


class Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks mapped _ _2 used free top".split()]


def memory() -> dict[str, int]:
    """Bytes that malloc has given out (Rust's and torch's among them), Python's small objects, resident bytes."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    info = mallinfo()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"bytes": info.used + info.mapped, "objects": sys.getallocatedblocks(), "resident": resident}


def growth(training: Training, steps: int, leak: list | None = None) -> dict[str, int]:
    """What `steps` steps add to memory, after those that fill caches."""
    training.run(1000)
    before = memory()
    for _ in range(steps):
        training.run(1)
        if leak is not None:
            leak.append(torch.empty(1))
    return {key: after - before[key] for key, after in memory().items()}


# Less than 5 bytes and a fifth of an object for each of 10,000 steps: what torch's own caches still take.
LIMITS = {"bytes": 50_000, "objects": 2_000, "resident": 2_000_000}


@LINUX
@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_thousand_steps_need_no_more_memory(backend):
    grown = growth(Training(backend), 10_000)
    assert all(grown[key] < limit for key, limit in LIMITS.items()), grown


@LINUX
def test_a_leak_of_one_number_a_step_is_seen():
    grown = growth(Training("cpu"), 10_000, leak=[])
    assert all(grown[key] > limit for key, limit in LIMITS.items()), grown


@LINUX
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_process_steps_on(backend, tmp_path):
    """A child has none of its parent's threads: it drops one optimizer and gets the same bits from another."""
    torch.set_num_threads(2 if backend == "cpu" else 1)  # torch's own threads do not survive a fork
    training, dropped = large(backend), [large(backend)]
    training.run(2)
    dropped[0].run(1)

    def work() -> None:
        dropped.clear()
        torch.save(training.run(3), tmp_path / "child.pt")

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    here = training.run(3)
    child.join(60)
    child.kill()
    assert child.exitcode == 0
    assert equal(here, torch.load(tmp_path / "child.pt"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_optimizers_in_two_threads_do_not_meet(backend):
    torch.set_num_threads(2 if backend == "cpu" else 1)
    expected = [large(backend, seed).run(20) for seed in (0, 1)]
    found: dict[int, list] = {}
    trainings = {seed: large(backend, seed) for seed in (0, 1)}
    threads = [threading.Thread(target=lambda s=s, t=t: found.update({s: t.run(20)})) for s, t in trainings.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(equal(found[seed], expected[seed]) for seed in (0, 1))


@LINUX
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_number_of_threads_may_change_between_steps(backend):
    """The compiled backend's bits do not depend on it, torch's only in their last digits; no pool stays behind."""
    torch.set_num_threads(1)
    expected, training, before = large(backend).run(15), large(backend), running_threads()
    for step in range(15):
        torch.set_num_threads(1 + step % 3)
        found = training.run(1)
    digits = {"cpu": 0.0, "torch": 1e-9}[backend]
    torch.testing.assert_close(found, expected, rtol=digits, atol=digits)
    until = time.monotonic() + 20  # the threads of a dropped pool end in their own time
    while running_threads() > before + 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert running_threads() <= before + 4  # the pool of the last step, and torch's own
