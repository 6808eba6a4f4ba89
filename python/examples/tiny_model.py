"""What the short examples train: a Llama with random weights, adapted by PEFT, and some text to learn by heart."""

from __future__ import annotations

import argparse

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = 64


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` shows an example's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of the optimizer (default %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate (default %(default)s)")
    return parser


def adapted_llama(layers: int = 2) -> PeftModel:
    """Seven adapters a layer; the same weights at each call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
    return get_peft_model(LlamaForCausalLM(config), lora)


def text(count: int = 8, length: int = 16) -> list[dict[str, torch.Tensor]]:
    """Sequences of random tokens, as a dataset for a DataLoader or the Trainer: always the same."""
    rows = torch.randint(0, TOKENS, (count, length), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in rows]
