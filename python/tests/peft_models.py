"""Small models of every kind that PEFT adapts, with a batch for each."""

from __future__ import annotations

import peft
import torch
from peft.tuners.lora import LoraGAConfig
from peft.tuners.lora.loraga import preprocess_loraga
from torch import nn


class Block(nn.Module):
    """Embedding, linear and norm layers, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(23, 12)
        self.first = nn.Linear(12, 20)
        self.norm = nn.LayerNorm(20)
        self.second = nn.Linear(20, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.head(x + self.second(torch.relu(self.norm(self.first(x)))))


class Attention(nn.Module):
    """torch's attention, whose weights PEFT merges with the adapter's in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(23, 12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


class Conv(nn.Module):
    """A convolution with groups, and one without."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dim]
        self.conv = conv(4, 8, 3, padding=1, groups=groups)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(2).mean(2))


class Experts(nn.Module):
    """A mixture of experts whose weights are one parameter, experts x in x out."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(4, 6, 10) / 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,eio->beo", x, self.gate_up).tanh().sum(1)


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Experts()
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.experts(x))


def tokens() -> torch.Tensor:
    return torch.randint(0, 23, (6, 7))


def lora(**options) -> dict:
    return {"r": 4, "lora_alpha": 8, **options}


LINEAR = ["first", "second"]


def with_eva(base: nn.Module, config: peft.LoraConfig) -> peft.PeftModel:
    """A from the principal components of the layers' inputs; ranks and scales are dealt out anew."""
    model = peft.get_peft_model(base, config)
    plain = dict(prepare_model_inputs_fn=None, prepare_layer_inputs_fn=None, show_progress_bar=False)
    data = [tokens() for _ in range(4)]
    peft.initialize_lora_eva_weights(model, data, forward_fn=lambda model, batch: model(batch), **plain)
    return model


def with_lora_ga(base: nn.Module, config: peft.LoraConfig) -> peft.PeftModel:
    """A and B from the singular vectors of g."""
    batch = tokens()
    preprocess_loraga(base, config, lambda: loss_of(base, batch).backward())
    return peft.get_peft_model(base, config)


# Starts that take more than a configuration.
STARTS = {"eva": with_eva, "lora_ga": with_lora_ga}

# Name: (base model, options of LoraConfig, batch, numbers of adapters and blocks that are expected).
MODELS = {
    "linear": (Block, lora(target_modules=LINEAR), tokens, 2),
    "rslora": (Block, lora(target_modules=LINEAR, use_rslora=True), tokens, 2),
    "rank_pattern": (
        Block,
        lora(target_modules=LINEAR, rank_pattern={"first": 2}, alpha_pattern={"second": 3}),
        tokens,
        2,
    ),
    "bias": (Block, lora(target_modules=LINEAR, bias="all"), tokens, 2),
    "lora_bias": (Block, lora(target_modules=LINEAR, lora_bias=True), tokens, 2),
    "dora": (Block, lora(target_modules=LINEAR, use_dora=True), tokens, 2),
    "modules_to_save": (Block, lora(target_modules=LINEAR, modules_to_save=["head", "norm"]), tokens, 2),
    "embedding": (Block, lora(target_modules=["embed", "first"]), tokens, 2),
    "trainable_tokens": (
        Block,
        lora(target_modules=LINEAR, trainable_token_indices={"embed": [1, 2]}),
        tokens,
        2,
    ),
    "pissa": (Block, lora(target_modules=LINEAR, init_lora_weights="pissa"), tokens, 2),
    "olora": (Block, lora(target_modules=LINEAR, init_lora_weights="olora"), tokens, 2),
    "orthogonal": (Block, lora(target_modules=LINEAR, init_lora_weights="orthogonal"), tokens, 2),
    "eva": (Block, lora(target_modules=LINEAR, init_lora_weights="eva", eva_config=peft.EvaConfig(rho=1.5)), tokens, 2),
    "lora_ga": (
        Block,
        lora(target_modules=LINEAR, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig()),
        tokens,
        2,
    ),
    "attention": (Attention, lora(target_modules=["attention"]), tokens, 2),
    "conv1d": (lambda: Conv(1, 1), lora(target_modules=["conv"]), lambda: torch.randn(5, 4, 6), 1),
    "conv2d": (lambda: Conv(2, 1), lora(target_modules=["conv"]), lambda: torch.randn(5, 4, 6, 6), 1),
    "conv3d": (lambda: Conv(3, 1), lora(target_modules=["conv"]), lambda: torch.randn(5, 4, 3, 3, 3), 1),
    "conv_groups": (lambda: Conv(2, 2), lora(target_modules=["conv"]), lambda: torch.randn(5, 4, 6, 6), 2),
    "experts": (
        Mixture,
        lora(target_modules=[], target_parameters=["experts.gate_up"]),
        lambda: torch.randn(5, 6),
        4,
    ),
}


def make(name: str, seed: int = 0) -> tuple[peft.PeftModel, torch.Tensor]:
    """A PEFT model of the table and a batch for it, the same for the same seed."""
    base, options, batch, _ = MODELS[name]
    torch.manual_seed(seed)
    model = STARTS.get(name, peft.get_peft_model)(base(), peft.LoraConfig(**options))
    return model, batch()


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Some loss that depends on every trained parameter."""
    return (model(batch).float() - 1).square().mean()


def backward(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    return loss
