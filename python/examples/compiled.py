"""torch.compile: the model is compiled, the step is opaque to the compiler.

    python compiled.py                       inductor, which needs a C++ compiler on the CPU
    python compiled.py --backend aot_eager   traces and differentiates, and generates no code

`step` runs as it is: the compiler does not look into it, and it may be called inside a compiled function, where
the graph ends before it and goes on after it. The optimizer may be made before or after `torch.compile`.
"""

from __future__ import annotations

import os
import shutil

import torch
from tiny_model import adapted_llama, arguments, text
from torch._dynamo.utils import counters
from torch.utils.data import default_collate

from lorapro import create_lorapro_optimizer


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default %(default)s)")
    args = parser.parse_args()
    compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")
    if args.backend == "inductor" and not any(map(shutil.which, compilers)):
        print("inductor needs a C++ compiler, and there is none: aot_eager is used instead")
        args.backend = "aot_eager"
    batch = default_collate(text())

    finals = {}
    for name in ("eager", "compiled"):
        model = adapted_llama(layers=1)
        optimizer = create_lorapro_optimizer(model, lr=args.lr)
        forward = model if name == "eager" else torch.compile(model, backend=args.backend)
        torch._dynamo.reset()
        counters.clear()
        for step in range(args.steps):
            loss = forward(**batch).loss
            loss.backward()
            graphs = counters["stats"]["unique_graphs"]
            optimizer.step()
            optimizer.zero_grad()
            assert counters["stats"]["unique_graphs"] == graphs, "the step was compiled"
            if step == 0:
                first = loss.item()
        finals[name] = loss.item()
        print(f"{name:<9} loss {first:.3f} -> {finals[name]:.3f}   graphs of the model: {graphs}, of the step: 0")

    model = adapted_llama(layers=1)
    optimizer = create_lorapro_optimizer(model, lr=args.lr)

    @torch.compile(backend=args.backend)
    def train_step() -> torch.Tensor:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    losses = [train_step().item() for _ in range(args.steps)]
    print(f"a compiled function with the step in it: loss {losses[0]:.3f} -> {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
