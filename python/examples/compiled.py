"""torch.compile: the model is compiled, the step is opaque to the compiler.

    python compiled.py                       inductor, which needs a C++ compiler on the CPU
    python compiled.py --backend aot_eager   traces and differentiates, and generates no code

`step` runs as it is: the compiler does not look into it. It may be called inside a compiled function, which then has
no more graphs than the model alone. The optimizer may be made before or after `torch.compile`.
"""

from __future__ import annotations

import os
import shutil

import torch
from tiny_model import adapted_llama, arguments, text
from torch._dynamo.utils import counters
from torch.utils.data import default_collate

from lorapro import create_lorapro_optimizer


def show(what: str, losses: list[float]) -> None:
    graphs = counters["stats"]["unique_graphs"]
    print(f"{what:<15} loss {losses[0]:.3f} -> {losses[-1]:.3f}   compiled graphs: {graphs}")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default %(default)s)")
    args = parser.parse_args()
    compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")
    if args.backend == "inductor" and not any(map(shutil.which, compilers)):
        print("inductor needs a C++ compiler, and there is none: aot_eager is used instead")
        args.backend = "aot_eager"
    batch = default_collate(text())

    for name in ("eager", "compiled"):
        model = adapted_llama(layers=1)
        optimizer = create_lorapro_optimizer(model, lr=args.lr)
        forward = model if name == "eager" else torch.compile(model, backend=args.backend)
        counters.clear()
        losses = []
        for _ in range(args.steps):
            loss = forward(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        show(name, losses)

    model = adapted_llama(layers=1)
    optimizer = create_lorapro_optimizer(model, lr=args.lr)

    @torch.compile(backend=args.backend)
    def train_step() -> torch.Tensor:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    counters.clear()
    show("model and step", [train_step().item() for _ in range(args.steps)])


if __name__ == "__main__":
    main()
