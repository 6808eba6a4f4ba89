"""Which parameters form an adapter B A, how they are seen as matrices, and where the scale is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .options import number


@dataclass(frozen=True)
class Layout:
    """How a pair of tensors is seen as matrices A (r x n) and B (m x r).

    A convolution's weights are flattened from their second dimension on. `blocks` counts the independent
    products in one pair of tensors: the experts of a mixture (`interleaved`: the columns of B that
    belong to one expert are `blocks` apart, as PEFT stores them) or the groups of a convolution
    (block-diagonal: B has the rows of one group after those of another).
    """

    blocks: int = 1
    interleaved: bool = False

    def matrices(self, a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of each block's A and B. Tensors that cannot be viewed so are an error of torch's."""
        a, b = a.view(a.shape[0], -1), b.view(b.shape[0], -1)
        if self.blocks == 1:
            return [(a, b)]
        parts_b = b.view(b.shape[0], -1, self.blocks).unbind(2) if self.interleaved else b.chunk(self.blocks)
        return list(zip(a.chunk(self.blocks), parts_b, strict=True))


@dataclass(frozen=True)
class Pair:
    """An adapter: the names of its two parameters, its scale s and its layout.

    `scale` is a number, or a function that is asked before each step.
    """

    name: str
    a: str
    b: str
    scale: float | Callable[[], Any]
    layout: Layout = Layout()

    def scale_now(self) -> float:
        """s, as it is now."""
        return number(f"adapter `{self.name}`", "scale", self.scale() if callable(self.scale) else self.scale)

    def frozen_scale(self) -> Pair:
        """The same pair with its scale as a number: what can be pickled."""
        return replace(self, scale=self.scale_now())


@dataclass(frozen=True)
class Scaling:
    """Reads `module.scaling`, a number or PEFT's dict by adapter."""

    module: nn.Module
    adapter: str | None

    def __call__(self) -> Any:
        scaling: Any = getattr(self.module, "scaling", None)
        return scaling.get(self.adapter) if self.adapter is not None and hasattr(scaling, "get") else scaling


@dataclass(frozen=True)
class Candidate:
    """What a module offers as an adapter."""

    name: str
    module: nn.Module
    adapter: str | None
    a: Tensor
    b: Tensor
    layout: Layout

    @property
    def trainable(self) -> tuple[bool, bool]:
        return self.a.requires_grad, self.b.requires_grad


def check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile: a checkpoint has its names, not theirs."""
    check_model(model)
    if isinstance(model, DistributedDataParallel):
        return unwrapped(model.module)
    inner = model._modules.get("_orig_mod")
    return model if inner is None else unwrapped(inner)


def weight(module_or_tensor: nn.Module | Tensor) -> Tensor:
    """A factor: a parameter, or the weight of a layer without more."""
    found: Any = module_or_tensor
    return found if isinstance(found, Tensor) else found.weight


def candidates(model: nn.Module) -> Iterator[Candidate]:
    """Every `lora_A` with its `lora_B` (or `lora_embedding_A`, `lora_embedding_B`) in a model."""
    for path, module in model.named_modules(remove_duplicate=True):
        for prefix in ("lora_", "lora_embedding_"):
            first, second = getattr(module, prefix + "A", None), getattr(module, prefix + "B", None)
            if first is None or second is None:
                continue
            if isinstance(first, (nn.ModuleDict, nn.ParameterDict)):
                for adapter in first:
                    if adapter in second:
                        pair = (weight(first[adapter]), weight(second[adapter]))
                        yield Candidate(f"{path}.{adapter}", module, adapter, *pair, layout_of(module))
            else:
                yield Candidate(path, module, None, weight(first), weight(second), layout_of(module))


def layout_of(module: Any) -> Layout:
    experts = getattr(module, "num_experts", 1) if hasattr(module, "parameter_name") else 1
    if experts > 1:
        return Layout(experts, interleaved=True)
    base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    groups = getattr(base, "groups", 1)
    return Layout(groups if isinstance(groups, int) else 1)


def find_pairs(model: nn.Module, *, scale: float | None, on_unsupported: str) -> list[Pair]:
    """The adapters of a model whose two factors are trained.

    The scale is read from the module's `scaling` before each step; `scale` is for modules without one.
    A module whose product is not B A is a `ValueError` that names it, or, with
    `on_unsupported="adamw"`, has no pair, so that AdamW steps its parameters.
    """
    from .peft_models import why_unsupported

    check_model(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adamw = on_unsupported == "adamw"
    refused = why_unsupported(model)
    if refused and not adamw:
        name, reason = next(iter(refused.items()))
        raise ValueError(
            f"`{name}`: {reason}, so LoRA-Pro does not apply to it; "
            f'on_unsupported="adamw" steps its parameters by AdamW'
        )
    refused_modules = {id(model.get_submodule(name)) for name in refused}
    found: dict[tuple[int, int], Pair] = {}
    owner: dict[int, str] = {}
    for candidate in candidates(model):
        if candidate.trainable != (True, True) or id(candidate.module) in refused_modules:
            continue
        why = misfit(candidate.a, candidate.b, candidate.layout)
        if why is not None:
            if adamw:
                continue
            raise ValueError(f'adapter `{candidate.name}`: {why}; on_unsupported="adamw" steps it by AdamW')
        key = (id(candidate.a), id(candidate.b))
        if key in found:
            continue
        for tensor in key:
            if tensor in owner:
                raise ValueError(
                    f"adapter `{candidate.name}` shares the parameter `{names[tensor]}` with "
                    f"adapter `{owner[tensor]}`: tied factors cannot be stepped as two adapters"
                )
            owner[tensor] = candidate.name
        found[key] = Pair(
            candidate.name,
            names[key[0]],
            names[key[1]],
            source_of_scale(candidate, scale),
            candidate.layout,
        )
    return list(found.values())


def misfit(a: Tensor, b: Tensor, layout: Layout) -> str | None:
    """Why the shapes of two factors are not those of a product B A of rank r <= min(m, n)."""
    blocks = layout.blocks
    if a.ndim < 2 or b.ndim < 2:
        return f"A is {tuple(a.shape)} and B is {tuple(b.shape)}, but both must be matrices"
    inner = b.shape[1:].numel() if layout.interleaved or blocks == 1 else b.shape[1:].numel() * blocks
    if a.shape[0] != inner:
        return f"A has {a.shape[0]} rows and B has {inner} columns, but both must be the rank"
    rank, m, n = a.shape[0] // blocks, b.shape[0], a.shape[1:].numel()
    m = m if layout.interleaved else m // blocks
    if not 1 <= rank <= min(m, n):
        return f"its rank is {rank}, but it must be from 1 to min(m, n) = {min(m, n)}"
    return None


def source_of_scale(candidate: Candidate, scale: float | None) -> float | Scaling:
    scaling = getattr(candidate.module, "scaling", None)
    if scaling is not None:
        return Scaling(candidate.module, candidate.adapter)
    if scale is not None:
        return scale
    raise ValueError(
        f"adapter `{candidate.name}`: its module has no attribute `scaling`, so the scale s of "
        "W0 + s B A is unknown: pass scale=s"
    )


def pairs_by_name(names: list[str], scale: float | None) -> list[Pair]:
    """Pairs among parameter names alone: `lora_A` and `lora_B` in the same place."""
    known, found = set(names), []
    for name in names:
        parts = name.split(".")
        for first, second in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            if first not in parts:
                continue
            partner = ".".join(second if part == first else part for part in parts)
            if partner not in known:
                continue
            if scale is None:
                raise ValueError(
                    f"`{name}` and `{partner}` are a pair whose scale s is unknown: pass the model "
                    "instead of its parameters (or besides, model=...), or scale=s"
                )
            rest = [part for part in parts if part not in (first, "weight")]
            found.append(Pair(".".join(rest) or name, name, partner, scale))
    return found
