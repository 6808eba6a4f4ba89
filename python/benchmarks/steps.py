"""Time and memory of one optimizer step: LoRA-Pro beside torch's AdamW and the port on PyPI.

    python python/benchmarks/steps.py                          every shape, ranks 8 and 64
    python python/benchmarks/steps.py square-4096 --rank 8     one of them
    pip install --no-deps lora-pro-adamw                       what the rows of the port need

All engines step tensors of the same shapes with the same gradients, in one process, in random order in
each round. The ratio is the median over the rounds of an engine's time by that of torch's fused AdamW on
A and B in the same round; the two numbers behind it are the quartiles. The memory is the largest resident
set during three steps, less what it was with parameters and gradients alone, each engine in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import lorapro

Shape = tuple[int, int]  # m, n
LLAMA_LAYER: list[Shape] = 4 * [(4096, 4096)] + 2 * [(11008, 4096)] + [(4096, 11008)]
SHAPES: dict[str, list[Shape]] = {
    "square-4096": [(4096, 4096)],
    "llama-2-7b-layer": LLAMA_LAYER,
    "llama-2-7b": 32 * LLAMA_LAYER,
    "t5-base": 144 * [(768, 768)] + 24 * [(3072, 768), (768, 3072)],
    # A step that has nothing to compute (r = 1): what Python and the bookkeeping cost.
    "224-tiny": 224 * [(1, 1)],
}
SCALE = 2.0
RATE = 1e-6  # so small that thousands of steps change no sizes
BASELINE = "torch AdamW on A, B, fused"
MOST_STATE = 6e9  # bytes: engines that would keep more are left out


class Problem:
    """Adapters of one shape table with gradients; W and its gradient where an engine asks for them."""

    def __init__(self, shapes: list[Shape], rank: int) -> None:
        generator = torch.Generator().manual_seed(0)
        random_tensor = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
        self.shapes = shapes
        self.pairs: list[tuple[Tensor, Tensor, float]] = []
        for m, n in shapes:
            r = min(rank, m, n)
            a, b = nn.Parameter(random_tensor(r, n)), nn.Parameter(random_tensor(m, r) * 0.01)
            a.grad, b.grad = random_tensor(r, n) * 0.01, random_tensor(m, r) * 0.01
            self.pairs.append((a, b, SCALE))

    def factors(self) -> list[Tensor]:
        return [factor for a, b, _ in self.pairs for factor in (a, b)]

    def weights(self) -> list[Tensor]:
        weights = [nn.Parameter(torch.randn(m, n)) for m, n in self.shapes]
        for weight in weights:
            weight.grad = torch.randn_like(weight) * 0.01
        return weights

    def size_of_w(self) -> int:
        """Elements of all W."""
        return sum(m * n for m, n in self.shapes)


def ours(mode: str, backend: str = "cpu") -> Callable[[Problem], torch.optim.Optimizer]:
    return lambda problem: lorapro.LoraPro(problem.pairs, lr=RATE, mode=mode, backend=backend)


def adamw(over: str, **options: bool) -> Callable[[Problem], torch.optim.Optimizer]:
    return lambda problem: torch.optim.AdamW(getattr(problem, over)(), lr=RATE, **options)


def port(mode: str) -> Callable[[Problem], torch.optim.Optimizer]:
    def make(problem: Problem) -> torch.optim.Optimizer:
        from lora_pro import LoRAProAdamW

        model = nn.Module()
        for k, (a, b, scale) in enumerate(problem.pairs):
            layer = nn.Module()
            layer.lora_A, layer.lora_B, layer.r = a, b, a.shape[0]
            layer.lora_alpha = scale * layer.r
            model.add_module(f"layer{k}", layer)
        return LoRAProAdamW(model, lr=RATE, lorapro_mode=mode)

    return make


ENGINES: dict[str, Callable[[Problem], torch.optim.Optimizer]] = {
    "LoRA-Pro efficient": ours("efficient"),
    "LoRA-Pro factored": ours("factored"),
    "LoRA-Pro full": ours("full"),
    "LoRA-Pro factored, backend torch": ours("factored", "torch"),
    "mode lora (AdamW on A, B)": ours("lora"),
    "torch AdamW on A, B, for-loop": adamw("factors", foreach=False, fused=False),
    "torch AdamW on A, B, foreach": adamw("factors", foreach=True),
    BASELINE: adamw("factors", fused=True),
    "torch AdamW on W, fused": adamw("weights", fused=True),
    "lora-pro-adamw efficient": port("efficient"),
    "lora-pro-adamw full": port("full"),
}
OVER_W = ("LoRA-Pro full", "torch AdamW on W, fused", "lora-pro-adamw full")
PORT = "lora-pro-adamw"  # timed at square-4096 alone
SLOW = (PORT, "LoRA-Pro factored, backend torch")  # timed in every tenth round


def absent(engine: str, shape: str, problem: Problem) -> str | None:
    """Why an engine is not timed."""
    if engine in OVER_W and 8 * problem.size_of_w() > MOST_STATE:
        return "two moments of W do not fit"
    if engine.startswith(PORT):
        if shape != "square-4096":
            return "timed at square-4096 alone"
        try:
            import lora_pro  # noqa: F401
        except ImportError:
            return "not installed"
    return None


def measure(optimizers: dict[str, torch.optim.Optimizer], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each engine's step in each round; the slow ones only in every tenth."""
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    order = random.Random(0)
    for number in range(-2, rounds):  # two rounds to warm up
        for name in order.sample(list(optimizers), len(optimizers)):
            if name.startswith(SLOW) and number % 10 not in (-1, 0):
                continue
            start = time.perf_counter()
            optimizers[name].step()
            if number >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def peak_of(engine: str, shape: str, rank: int) -> float | None:
    """Megabytes, by a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, __file__, shape, "--rank", str(rank), "--peak-of", engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the memory of {engine} could not be measured:\n{done.stderr}")
    return float(done.stdout)


def own_peak(engine: str, shape: str, rank: int) -> float:
    """Megabytes by which this process grows in three steps of an engine."""
    three_steps(ENGINES[engine](Problem([(64, 64)], 8)))  # what libraries set up once
    problem = Problem(SHAPES[shape], rank)
    if engine == "torch AdamW on W, fused":
        weights = problem.weights()
        problem.weights = lambda: weights  # type: ignore[method-assign]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = peak_resident()
    three_steps(ENGINES[engine](problem))
    return (peak_resident() - before) / 1e6


def three_steps(optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.step()


def peak_resident() -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def compare(shape: str, rank: int, rounds: int, with_memory: bool) -> list[dict]:
    problem = Problem(SHAPES[shape], rank)
    reasons = {name: absent(name, shape, problem) for name in ENGINES}
    optimizers = {name: make(problem) for name, make in ENGINES.items() if reasons[name] is None}
    times = measure(optimizers, rounds)
    rows = []
    for name in ENGINES:
        row: dict = {"shape": shape, "rank": rank, "engine": name, "absent": reasons[name]}
        if row["absent"] is None:
            own = times[name]
            step = 10 if name.startswith(SLOW) else 1
            low, middle, high = quartiles([a / b for a, b in zip(own, times[BASELINE][::step], strict=True)])
            row |= {"ms": statistics.median(own), "ratio": middle, "quartiles": [low, high]}
            row["peak_mb"] = peak_of(name, shape, rank) if with_memory else None
        rows.append(row)
    return rows


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4) if len(values) > 1 else 3 * values


def table(rows: list[dict]) -> str:
    lines = [
        f"### {rows[0]['shape']}, r = {rows[0]['rank']}, {len(SHAPES[rows[0]['shape']])} adapters, f32",
        "",
        "| engine | ms | by fused AdamW on A, B | peak memory, MB |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        if row["absent"] is not None:
            lines.append(f"| {row['engine']} | n/a: {row['absent']} | | |")
            continue
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.1f}"
        low, high = row["quartiles"]
        lines.append(f"| {row['engine']} | {row['ms']:.3g} | {row['ratio']:.2f} ({low:.2f} {high:.2f}) | {peak} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)} (default: all)")
    parser.add_argument("--rank", type=int, nargs="+", default=[8, 64], help="of the adapters (default: 8 64)")
    parser.add_argument("--rounds", type=int, default=31, help="that are timed (default: %(default)s)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--peak-of", choices=ENGINES, metavar="ENGINE", help="print this engine's peak memory alone, in MB")
    args = parser.parse_args()
    unknown = [shape for shape in args.shapes if shape not in SHAPES]
    if unknown:
        parser.error(f"no such shape: {', '.join(unknown)} (of {', '.join(SHAPES)})")
    if args.peak_of:
        print(own_peak(args.peak_of, args.shapes[0], args.rank[0]))
        return
    print(f"torch {torch.__version__}, lorapro {lorapro.__version__}, {torch.get_num_threads()} threads, {processor()}\n")
    found = []
    for shape in args.shapes or SHAPES:
        for rank in args.rank:
            rows = compare(shape, rank, args.rounds, not args.no_memory)
            print(table(rows), flush=True)
            found += rows
    if args.json:
        args.json.write_text(json.dumps({"machine": processor(), "torch": torch.__version__, "rows": found}, indent=1))


def processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
