"""An optimizer from a model in one call, in the form of PEFT's `create_loraplus_optimizer`."""

from __future__ import annotations

from typing import Any

from torch import nn

from .optimizer import LoraPro
from .pairs import unwrapped


def create_lorapro_optimizer(model: nn.Module, *, lr: float, weight_decay: float = 0.0, **kwargs: Any) -> LoraPro:
    """LoRA-Pro for every adapter of a model, AdamW for its other trained parameters.

    Weight decay applies to adapters and matrices, not to biases, norms and magnitudes (one dimension).

    Args:
        model: a PEFT model, or any whose modules have `lora_A`, `lora_B` and `scaling`.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        kwargs: the other options of `LoraPro`.

    Raises:
        ValueError: the model has no adapter whose two factors are trained, or one that is not B A.
    """
    trained = [(name, p) for name, p in unwrapped(model).named_parameters() if p.requires_grad]
    matrices = [(name, p) for name, p in trained if p.ndim > 1]
    vectors = [(name, p) for name, p in trained if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return LoraPro(groups, lr=lr, model=model, **kwargs)


class LoraProFactory:
    """For `Trainer(optimizer_cls_and_kwargs=(LoraProFactory, {"lr": 1e-3}))`: the Trainer of transformers 5
    makes a factory and calls it with the model."""

    def __init__(self, *params: Any, **options: Any) -> None:
        if params or options:
            raise TypeError(
                "this Trainer takes optimizer classes only, as before transformers 5: pass "
                'optimizer_cls_and_kwargs=(LoraPro, {"model": model, "lr": ...})'
            )

    def __call__(self, model: nn.Module, **kwargs: Any) -> LoraPro:
        """As `create_lorapro_optimizer`."""
        return create_lorapro_optimizer(model, **kwargs)
