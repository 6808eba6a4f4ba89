"""How far the step of each adapter is from full fine-tuning's, for any optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .gradient import Gradient, Matrix, Tokens, column_basis, dot
from .pairs import Candidate, Pair, candidates, find_pairs
from .peft_models import type_name
from .torch_backend.precision import to_f64


@contextmanager
def gap(
    model: nn.Module, *, scale: float | None = None, where: Callable[[str], bool] | None = None
) -> Iterator[Gaps]:
    """Measures one step of any optimizer on the adapters of a model.

        with lorapro.gap(model) as gaps:
            loss_of(model, batch).backward()  # several times, where gradients are accumulated
            optimizer.step()
        print(gaps.total, gaps.adapters, gaps.skipped)
        gaps.log(writer, step)

    Measured are LoRA's linear layers of PEFT, and other modules with `lora_A`, `lora_B` and `scaling` whose
    forward is y = W0 x + s B A x + bias. Embeddings, convolutions, experts and variants such as DoRA are
    listed as skipped. g is of the layer's own input, without the adapter's dropout, as full fine-tuning
    would have it. Each process measures its own batch. A model behind `torch.compile` must be measured
    before it is compiled, since it may not see new hooks.

    The model, its gradients and the random numbers are left as they are. For T tokens, an adapter costs at
    most T m n operations, and until the end of the block it holds the smaller of its tokens, T (m + n)
    numbers of the layer's type, and g, m n numbers of f32.

    Args:
        model: a PEFT model, or any whose modules have `lora_A`, `lora_B` and `scaling`.
        scale: s of modules without `scaling`.
        where: says by an adapter's name whether it is measured; all are by default.

    Raises:
        ValueError: at the start of the block, if a scale is unknown or two adapters share a factor.
    """
    gaps = Gaps()
    with ExitStack() as hooks:
        adapters = list(watched(model, scale, where, gaps.skipped, hooks))
        yield gaps
    measured = []
    for adapter in adapters:
        with torch.no_grad(), torch.autocast(adapter.a.device.type, enabled=False):
            products = adapter.products()
        if isinstance(products, str):
            gaps.skipped[adapter.name] = products
        else:
            gaps.adapters[adapter.name] = AdapterGap.of(products)
            measured.append(products)
    if measured:
        gaps.total = AdapterGap.of(Products(*map(sum, zip(*measured, strict=True))))


@dataclass(frozen=True)
class AdapterGap:
    """Distances from g = dL/dW, relative to its norm: from 0, full fine-tuning's step, to 1, nothing of it.

    "Rescaled" is the smallest |g - c E| / |g| over c >= 0, since the learning rate can mend a wrong length.
    All are 0 where g is 0. Sums are in f32, so that what is below 1e-3 is rounding (1e-6 in `lora_pro`).

    Attributes:
        lora_raw: |g - E| / |g| of LoRA's E = s^2 (B B'g + g A'A); it has no upper limit.
        lora_rescaled: the same after the best rescaling of E.
        lora_pro: of LoRA-Pro's E, the projection of g on {B Y + Z A}, without damping: the least that the
            rank allows. A projection has its best length.
        step_rescaled: of the change of W, s (B'A' - B A) with A', B' the factors after the step, after the
            best rescaling. It has all that the optimizer did: moments, clipping, weight decay.
        step_cosine: between g and minus the change of W; 1 is full fine-tuning's direction of descent, and
            below 0 the step ascends.
    """

    lora_raw: float
    lora_rescaled: float
    lora_pro: float
    step_rescaled: float
    step_cosine: float

    @classmethod
    def of(cls, products: Products) -> AdapterGap:
        gg, ee, ge, outside, dd, gd = products
        if gg == 0:
            return cls(0.0, 0.0, 0.0, 0.0, 0.0)
        step_cosine = cosine(-gd, gg, dd)
        return cls(
            root((gg - 2 * ge + ee) / gg),
            rescaled(cosine(ge, gg, ee)),
            root(outside / gg),
            rescaled(step_cosine),
            step_cosine,
        )


class Products(NamedTuple):
    """Inner products that the gaps are made of, of one adapter or summed over several."""

    gg: float
    ee: float  # of LoRA's E
    ge: float
    outside: float  # |g - E|^2 of LoRA-Pro's E
    dd: float  # of the change of W
    gd: float


def cosine(xy: float, xx: float, yy: float) -> float:
    return xy / math.sqrt(xx) / math.sqrt(yy) if yy > 0 else 0.0


def rescaled(cosine: float) -> float:
    """The smallest |g - c E| / |g| over c >= 0."""
    return root(1 - max(cosine, 0.0) ** 2)


def root(x: float) -> float:
    """The root of a square that rounding may have left below 0."""
    return math.sqrt(max(x, 0.0))


@dataclass
class Gaps:
    """What `gap` has measured, filled at the end of its block.

    Attributes:
        adapters: the gaps of each adapter by name.
        total: the gaps over all measured weights as one vector; None where none was measured.
        skipped: adapters that were not measured, and why.
    """

    adapters: dict[str, AdapterGap] = field(default_factory=dict)
    total: AdapterGap | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """All gaps in one dict: `gap/<what>` (the total) and `gap/<adapter>/<what>`."""
        named = {"gap": self.total} if self.total else {}
        named |= {f"gap/{name}": gaps for name, gaps in self.adapters.items()}
        return {f"{name}/{what}": x for name, gaps in named.items() for what, x in asdict(gaps).items()}

    def log(self, writer: Any, step: int) -> None:
        """Writes `scalars()`.

        Args:
            writer: a `SummaryWriter` of TensorBoard, or a run of wandb (or `wandb` itself).
            step: the number of the step.
        """
        if hasattr(writer, "add_scalar"):
            for name, x in self.scalars().items():
                writer.add_scalar(name, x, step)
        elif hasattr(writer, "log"):
            writer.log(self.scalars(), step=step)
        else:
            raise TypeError(f"writer is a {type(writer).__name__}, but it must have add_scalar or log")


def watched(
    model: nn.Module,
    scale: float | None,
    where: Callable[[str], bool] | None,
    skipped: dict[str, str],
    hooks: ExitStack,
) -> Iterator[Adapter]:
    """The adapters that can be measured, with hooks on their modules; the others are skipped."""
    pairs = {pair.name: pair for pair in find_pairs(model, scale=scale, on_unsupported="adamw")}
    layers: dict[nn.Module, Layer] = {}
    for candidate in candidates(model):
        name, module = candidate.name, candidate.module
        if where is not None and not where(name):
            continue
        if name not in pairs:
            skipped[name] = "it is not a product B A of two trained factors of its own"
        elif why := why_not_linear(candidate):
            skipped[name] = why
        else:
            if module not in layers:
                layers[module] = Layer(module, len(candidate.b), candidate.a.shape[1], hooks)
            yield Adapter(pairs[name], candidate, layers[module])


def why_not_linear(candidate: Candidate) -> str | None:
    """Why g is not a sum over the tokens of a module."""
    module: Any = candidate.module
    a, b = candidate.a, candidate.b
    base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    variant = getattr(module, "lora_variant", {}).get(candidate.adapter)
    if variant is not None:
        return f"it is a {type_name(variant)}, whose layer is not W0 x + s B A x"
    if a.ndim != 2 or hasattr(module, "parameter_name") or isinstance(base, (nn.Embedding, nn.EmbeddingBag)):
        return f"it adapts a {type(base).__name__}, and only linear layers are measured"
    if type(a.data) is not Tensor or type(b.data) is not Tensor:
        return f"its factors are of type {type(a.data).__name__}, not plain tensors"
    return None


class Layer:
    """Hooks on a module that sum its g."""

    def __init__(self, module: nn.Module, m: int, n: int, hooks: ExitStack) -> None:
        self.gradient, self.fault = Gradient(m, n), ""
        self._hooks = hooks
        hooks.callback(module.register_forward_hook(self._see_forward, with_kwargs=True).remove)

    def _see_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x: Any = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        m, n = self.gradient.m, self.gradient.n
        if not (holds_rows(x, n) and holds_rows(output, m) and x.shape[:-1] == output.shape[:-1]):
            self.fault = f"its module does not map a tensor (..., {n}) to a tensor (..., {m})"
        elif output.requires_grad:
            x = x.detach()
            handle = output.register_hook(lambda d, x=x, version=x._version: self._see_backward(d, x, version))
            self._hooks.callback(handle.remove)

    def _see_backward(self, d: Tensor, x: Tensor, version: int) -> None:
        if x._version != version:
            self.fault = "the input of its module was changed in place before the backward pass"
        else:
            with torch.no_grad(), torch.autocast(d.device.type, enabled=False):
                self.gradient.add(d.detach(), x)


def holds_rows(x: Any, length: int) -> bool:
    return isinstance(x, Tensor) and x.shape[-1:] == (length,)


class Adapter:
    """An adapter, and its factors before the step."""

    def __init__(self, pair: Pair, candidate: Candidate, layer: Layer) -> None:
        self.name, self.a, self.b = pair.name, candidate.a, candidate.b
        self._layer, self._scale = layer, pair.scale_now()
        self._before = self.a.detach().clone(), self.b.detach().clone()

    def products(self) -> Products | str:
        """Inner products after the step, or why there are none."""
        if self._layer.fault or self._layer.gradient.tokens == 0:
            return self._layer.fault or "no backward pass reached it"
        g = self._layer.gradient.product()
        a, b, a_after, b_after = (to_f64(x.detach()) for x in (*self._before, self.a, self.b))
        if not all(x.isfinite().all() for x in (*g, a, b, a_after, b_after)):
            return "its gradient or its factors hold a NaN or an infinity"
        return products(g, self._scale, a, b, a_after, b_after)


def products(
    g: Tokens | Matrix, s: float, a: Tensor, b: Tensor, a_after: Tensor, b_after: Tensor
) -> Products:
    """Of g, LoRA's E = s^2 (B B'g + g A'A), g - E of LoRA-Pro, and the change of W."""
    da, db = a_after - a, b_after - b
    bg, ga = g.left(b), g.right(a)
    # B'A' - B A = (B' - B) A' + B (A' - A) has no cancellation of large terms.
    change = s * torch.cat([db, b], 1), torch.cat([a_after, da])
    return Products(
        gg=g.square(),
        ee=square(s * s * torch.cat([b, ga], 1), torch.cat([bg, a])),
        ge=s * s * (dot(bg, bg) + dot(ga, ga)),
        outside=g.outside(column_basis(b), column_basis(a.mT)).square(),
        dd=square(*change),
        gd=s * (dot(g.right(a_after), db) + dot(bg, da)),
    )


def square(left: Tensor, right: Tensor) -> float:
    """|L R|^2 of a product of low rank."""
    return dot(left.mT @ left, right @ right.mT)
