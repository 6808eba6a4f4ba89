"""Which layers of a PEFT model are not a product B A of two trained factors."""

from __future__ import annotations

from typing import Any

from torch import nn

# Variants of PEFT's LoRA layers that leave the product B A as it is: DoRA scales it from outside
# (the chain rule is in the gradients), activated LoRA applies it to some of the tokens.
PLAIN_VARIANTS = (
    "DoraLinearVariant",
    "DoraEmbeddingVariant",
    "DoraConv1dVariant",
    "DoraConv2dVariant",
    "DoraConv3dVariant",
    "ALoraLinearVariant",
)

# Tuner layers without a product of two factors that AdamW steps in any case.
UNPAIRED_LAYERS = ("TrainableTokensLayer",)


def why_unsupported(model: nn.Module) -> dict[str, str]:
    """For each layer with trained parameters that LoRA-Pro does not apply to, the reason."""
    try:
        from peft.tuners.lora import LoraLayer
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return {}
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer) or not trained(module):
            continue
        kind = type(module).__name__
        if getattr(module, "lora_E", None) is not None:
            refused[name] = f"it is AdaLoRA ({kind}), whose product is B E A"
        elif isinstance(module, LoraLayer):
            for adapter, variant in getattr(module, "lora_variant", {}).items():
                if (variant := type_name(variant)) not in PLAIN_VARIANTS:
                    refused[name] = f"adapter `{adapter}` is a {variant}, whose product is not plain B A"
        elif kind not in UNPAIRED_LAYERS:
            method = type(module).__module__.split(".")[-2]
            refused[name] = f"it is a layer of PEFT's {method} ({kind}), not of LoRA"
    return refused


def trained(module: Any) -> bool:
    """Whether a tuner layer has trained parameters of its own, not of what it wraps."""
    base = getattr(module, "base_layer", None)
    inner = {id(parameter) for parameter in base.parameters()} if base is not None else set()
    return any(p.requires_grad and id(p) not in inner for p in module.parameters())


def type_name(variant: object) -> str:
    return variant.__name__ if isinstance(variant, type) else type(variant).__name__
