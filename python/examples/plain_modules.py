"""Without PEFT: adapters of your own.

    python plain_modules.py

LoRA-Pro looks for modules with `lora_A` (r x n), `lora_B` (m x r) and `scaling`, be the two parameters or
linear layers. Whatever has other names is given as triples (A, B, s). Here the same model is trained both
ways, to the same bits.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from lorapro import LoraPro


class LoraLinear(nn.Module):
    """y = W0 x + s B A x, with W0 frozen."""

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(r, base.in_features) / base.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))
        self.scaling = alpha / r

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scaling * (x @ self.lora_A.T) @ self.lora_B.T


def new_model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [LoraLinear(nn.Linear(32, 64), 4, 8), nn.Tanh(), LoraLinear(nn.Linear(64, 32), 4, 8)]
    return nn.Sequential(*layers, nn.Linear(32, 5))  # the head is trained too: by AdamW


def train(model: nn.Module, optimizer: LoraPro, steps: int) -> tuple[float, float]:
    """The loss before and after."""
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    y = (x[:, :5] * x[:, 5:10]).argmax(1)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses[0], losses[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of the optimizer (default %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate (default %(default)s)")
    args = parser.parse_args()

    by_name, by_triple = new_model(), new_model()
    optimizer = LoraPro(by_name, lr=args.lr)
    print("found by name:", *optimizer.pairs())
    print("loss {:.3f} -> {:.3f}".format(*train(by_name, optimizer, args.steps)))

    adapters = [(layer.lora_A, layer.lora_B, layer.scaling) for layer in by_triple if isinstance(layer, LoraLinear)]
    optimizer = LoraPro([{"params": adapters}, {"params": by_triple[3].parameters()}], lr=args.lr)
    print("given as triples:", *optimizer.pairs())
    print("loss {:.3f} -> {:.3f}".format(*train(by_triple, optimizer, args.steps)))

    pairs = zip(by_name.parameters(), by_triple.parameters(), strict=True)
    print("the same bits:", all(torch.equal(p, q) for p, q in pairs))


if __name__ == "__main__":
    main()
