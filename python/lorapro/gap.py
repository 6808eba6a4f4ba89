"""How far the step of each adapter is from full fine-tuning's, for any optimizer.

g = dL/dW is never formed where tokens are few: g = sum delta' x over tokens, with x the input of the
layer and delta the gradient of its output, so an inner product with g is one of small Gram matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .pairs import Candidate, Pair, candidates, misfit, source_of_scale
from .peft_models import type_name, why_unsupported
from .torch_backend import at_least_f32, work_dtype

# Tokens that are multiplied at once where g is formed: bounds the f32 copies of 16-bit tokens.
TOKENS_AT_ONCE = 4096


def gap(model: nn.Module, *, scale: float | None = None, where: Callable[[str], bool] | None = None) -> Gap:
    """Measures one step of any optimizer on the adapters of a model.

        with lorapro.gap(model) as gap:
            loss_of(model, batch).backward()  # several times, where gradients are accumulated
            optimizer.step()
        print(gap.total, gap.values, gap.skipped)

    Measured are LoRA's `Linear` layers of PEFT, and other modules with `lora_A`, `lora_B` and `scaling`
    whose forward is y = W0 x + s B A x + bias. Each process measures its own batch. A model behind
    `torch.compile` must be measured before it is compiled, since it may not see new hooks.

    The cost for each adapter is at most T m n operations for T tokens, and memory for the smaller of its
    tokens, T (m + n) numbers of the layer's type, and g, m n numbers of f32, from backward to the end.

    Args:
        model: a PEFT model, or any whose modules have `lora_A`, `lora_B` and `scaling`.
        scale: s of modules without `scaling`.
        where: says by an adapter's name whether it is measured; all are by default.

    Raises:
        ValueError: at the start of the block, if a scale is unknown.
    """
    return Gap(model, scale, where)


@dataclass(frozen=True)
class AdapterGap:
    """Distances from g = dL/dW, relative to its norm: from 0, full fine-tuning's step, to 1, nothing of it.

    "Rescaled" is the smallest |g - c E| / |g| over all c, since the learning rate can mend a wrong length.
    With f32 sums, what is below 1e-3 is rounding (but in `lora_pro`, which is exact to about 1e-6).

    Dropout on the adapter's input: g is of the layer's own input, without dropout, as full fine-tuning
    would have it; gA and gB are autograd's, with dropout; `lora_pro` is a projection of g.

    Attributes:
        lora_raw: |g - E| / |g| of LoRA's E = s (B gA + gB A).
        lora_rescaled: the same after the best rescaling of E.
        lora_pro: of LoRA-Pro's E, the projection of g on {B Y + Z A}, without damping: the least that the
            rank allows. A projection has its best length.
        step_rescaled: of the change of W, s (B'A' - B A) with A', B' the factors after the step, after the
            best rescaling. It has all that the optimizer did: moments, clipping, weight decay.
        step_cosine: between g and minus the change of W: 1 is full fine-tuning's direction of descent.
    """

    lora_raw: float
    lora_rescaled: float
    lora_pro: float
    step_rescaled: float
    step_cosine: float

    @classmethod
    def of(cls, products: Products) -> AdapterGap:
        """Where g = 0 there is nothing to reach: all are 0. What is 0 itself reaches nothing of g."""
        gg, ee, ge, outside, dd, gd = products
        if gg == 0:
            return cls(0.0, 0.0, 0.0, 0.0, 0.0)
        cosine_e, cosine_d = cosine(ge, gg, ee), cosine(-gd, gg, dd)
        return cls(
            root((gg - 2 * ge + ee) / gg),
            root(1 - cosine_e * cosine_e),
            root(outside / gg),
            root(1 - cosine_d * cosine_d),
            cosine_d,
        )


class Products(NamedTuple):
    """Inner products that the gap is made of, of one adapter or summed over several."""

    gg: float
    ee: float
    ge: float
    outside: float  # |g - E|^2 of LoRA-Pro's E
    dd: float  # of the change of W
    gd: float


def cosine(xy: float, xx: float, yy: float) -> float:
    return xy / math.sqrt(xx) / math.sqrt(yy) if yy != 0 else 0.0


def root(x: float) -> float:
    """The root of a square that rounding may have left below 0; a NaN stays one."""
    return math.sqrt(max(x, 0.0))


class Gap:
    """A context manager around forward, backward and `optimizer.step`; see `gap`. It can be entered again.

    Attributes:
        values: the gaps of each adapter by name, after the block.
        total: the gaps over all adapted weights as one vector, as `lora-pro gap` gives them; None where
            no adapter was measured.
        skipped: adapters that were not measured, and why.
    """

    def __init__(self, model: nn.Module, scale: float | None, where: Callable[[str], bool] | None) -> None:
        self._model, self._scale, self._where = model, scale, where
        self._adapters: list[Adapter] = []
        self._hooks: ExitStack | None = None
        self._clear()

    def _clear(self) -> None:
        self.values: dict[str, AdapterGap] = {}
        self.total: AdapterGap | None = None
        self.skipped: dict[str, str] = {}

    def __enter__(self) -> Gap:
        if self._hooks is not None:
            raise RuntimeError("this gap is being measured already: make another one")
        self._clear()
        layers: dict[int, Layer] = {}
        with ExitStack() as hooks:
            for candidate, pair in self._found():
                (r, n), m = candidate.a.shape, candidate.b.shape[0]
                key = id(candidate.module)
                if key not in layers:
                    layers[key] = Layer(candidate.module, m, n, hooks)
                self._adapters.append(Adapter(pair, candidate, layers[key], hooks))
            self._hooks = hooks.pop_all()
        return self

    def _found(self) -> list[tuple[Candidate, Pair]]:
        """Adapters that can be measured; the others are skipped."""
        refused = {id(self._model.get_submodule(name)): why for name, why in why_unsupported(self._model).items()}
        found: list[tuple[Candidate, Pair]] = []
        owner: dict[int, str] = {}
        for candidate in candidates(self._model):
            name, factors = candidate.name, (id(candidate.a), id(candidate.b))
            if self._where is not None and not self._where(name):
                continue
            why = refused.get(id(candidate.module)) or why_skipped(candidate)
            shared = next((owner[factor] for factor in factors if factor in owner), None)
            if why is None and shared is not None:
                why = f"it shares a factor with adapter `{shared}`"
            if why is not None:
                self.skipped[name] = why
                continue
            owner |= dict.fromkeys(factors, name)
            found.append((candidate, Pair(name, "", "", source_of_scale(candidate, self._scale))))
        return found

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        try:
            if failed is None:
                self._measure()
        finally:
            hooks, self._hooks, self._adapters = self._hooks, None, []
            if hooks is not None:
                hooks.close()

    def _measure(self) -> None:
        found = []
        for adapter in self._adapters:
            why = adapter.why_unknown()
            if why is not None:
                self.skipped[adapter.name] = why
                continue
            with torch.no_grad(), torch.autocast(adapter.a.device.type, enabled=False):
                found.append(adapter.products())
            self.values[adapter.name] = AdapterGap.of(found[-1])
        if found:
            self.total = AdapterGap.of(Products(*map(sum, zip(*found, strict=True))))

    def log(self, writer: Any, step: int) -> None:
        """Writes `gap/<what>` (the total) and `gap/<adapter>/<what>`.

        Args:
            writer: a `torch.utils.tensorboard.SummaryWriter` or a wandb run, or what has `add_scalar` or `log` as they do.
            step: the number of the step.
        """
        scalars = {} if self.total is None else {f"gap/{key}": x for key, x in asdict(self.total).items()}
        for name, value in self.values.items():
            scalars |= {f"gap/{name}/{key}": x for key, x in asdict(value).items()}
        if hasattr(writer, "add_scalar"):
            for tag, x in scalars.items():
                writer.add_scalar(tag, x, step)
        elif hasattr(writer, "log"):
            writer.log(scalars, step=step)
        else:
            raise TypeError(f"writer is a {type(writer).__name__}, but it must have add_scalar or log")


def why_skipped(candidate: Candidate) -> str | None:
    """Why g is not sum delta' x over the tokens of a module, or its adapter is not stepped."""
    module, a, b = candidate.module, candidate.a, candidate.b
    base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    variant = getattr(module, "lora_variant", {}).get(candidate.adapter)
    if hasattr(module, "parameter_name"):
        return "it adapts a parameter of a module, not a linear layer"
    if isinstance(base, (nn.Embedding, nn.EmbeddingBag)):
        return "it adapts an embedding, not a linear layer"
    if a.ndim != 2 or b.ndim != 2 or candidate.layout.blocks != 1:
        return "it adapts a convolution, not a linear layer"
    if variant is not None:
        return f"it is a {type_name(variant)}, whose layer is not W0 x + s B A x"
    if candidate.trainable != (True, True):
        return "a factor is frozen"
    if type(a.data) is not Tensor or type(b.data) is not Tensor:
        return f"its factors are of type {type(a.data).__name__}, not plain tensors"
    return misfit(candidate)


class Layer:
    """Hooks on a module that gather its g."""

    def __init__(self, module: nn.Module, m: int, n: int, hooks: ExitStack) -> None:
        self.gradient, self.fault, self._hooks = Gradient(m, n), None, hooks
        handle = module.register_forward_hook(self._see_forward, with_kwargs=True)
        hooks.callback(handle.remove)

    def _see_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        m, n = self.gradient.shape
        if x is None or not isinstance(output, Tensor) or (*x.shape[:-1], n, m) != (*output.shape[:-1], x.shape[-1], output.shape[-1]):
            self.fault = f"its module does not map a tensor (..., {n}) to a tensor (..., {m})"
        elif output.requires_grad:
            x = x.detach()
            handle = output.register_hook(lambda delta, x=x, version=x._version: self._see_backward(delta, x, version))
            self._hooks.callback(handle.remove)

    def _see_backward(self, delta: Tensor, x: Tensor, version: int) -> None:
        if x._version != version:
            self.fault = "the input of its module was changed in place before the backward pass"
        else:
            self.gradient.add(delta.detach(), x)


class Adapter:
    """The factors of an adapter before the step, and their gradients."""

    def __init__(self, pair: Pair, candidate: Candidate, layer: Layer, hooks: ExitStack) -> None:
        self.name, self.a, self.b, self.layer = pair.name, candidate.a, candidate.b, layer
        self._scale = pair.scale_now()
        self._before = candidate.a.detach().clone(), candidate.b.detach().clone()
        self._gradients: dict[str, Tensor] = {}
        for key, factor in (("a", candidate.a), ("b", candidate.b)):
            handle = factor.register_hook(lambda gradient, key=key: self._add(key, gradient))
            hooks.callback(handle.remove)

    def _add(self, key: str, gradient: Tensor) -> None:
        """The gradient of one backward pass, before it is clipped or unscaled: on the scale of g."""
        gradient = gradient.detach().to(work_dtype(gradient.device), copy=True)
        known = self._gradients.get(key)
        self._gradients[key] = gradient if known is None else known + gradient

    def why_unknown(self) -> str | None:
        if self.layer.fault is not None:
            return self.layer.fault
        if len(self._gradients) < 2 or self.layer.gradient.tokens == 0:
            return "no backward pass reached it"
        return None

    def products(self) -> Products:
        g, s = self.layer.gradient, self._scale
        a, b, a_after, b_after = (x.detach().to(work_dtype(x.device)) for x in (*self._before, self.a, self.b))
        of_lora = Product(s * torch.cat([b, self._gradients["b"]], 1), torch.cat([self._gradients["a"], a]))
        # B'A' - B A = (B' - B) A' + B (A' - A) has no cancellation of large terms.
        change = Product(s * torch.cat([b_after - b, b], 1), torch.cat([a_after, a_after - a]))
        outside = g.outside(column_basis(b), column_basis(a.mT)).square()
        return Products(g.square(), of_lora.square(), g.dot(of_lora), outside, change.square(), g.dot(change))


class Product(NamedTuple):
    """A matrix of low rank by its factors, m x k and k x n."""

    left: Tensor
    right: Tensor

    def square(self) -> float:
        return dot(self.left.mT @ self.left, self.right @ self.right.mT)


class Gradient:
    """g = sum delta' x: its tokens while these are fewer numbers than g has, else g itself.

    For T tokens |g|^2 = <D D', X X'> (D: T x m, X: T x n) takes T^2 (m + n) operations, and forming g
    T m n: the fewer numbers are also the fewer operations.
    """

    def __init__(self, m: int, n: int) -> None:
        self.shape, self.tokens = (m, n), 0
        self.matrix: Tensor | None = None
        self._pieces: list[tuple[Tensor, Tensor]] = []

    def add(self, delta: Tensor, x: Tensor) -> None:
        m, n = self.shape
        self._pieces.append((delta.reshape(-1, m), x.reshape(-1, n)))
        self.tokens += self._pieces[-1][0].shape[0]
        if self.matrix is not None or not keeps_tokens(self.tokens, m, n):
            with torch.no_grad(), torch.autocast(delta.device.type, enabled=False):
                self._form()

    def _form(self) -> None:
        """Adds the tokens to g and forgets them."""
        for delta, x in self._pieces:
            if self.matrix is None:
                self.matrix = delta.new_zeros(self.shape, dtype=at_least_f32(delta.dtype))
            for part, inputs in zip(delta.split(TOKENS_AT_ONCE), x.split(TOKENS_AT_ONCE), strict=True):
                self.matrix.addmm_(part.to(self.matrix.dtype).mT, inputs.to(self.matrix.dtype))
        self._pieces = []

    def _tokens(self) -> tuple[Tensor, Tensor]:
        """All tokens' delta and x, T x m and T x n."""
        delta, x = (torch.cat([part.to(at_least_f32(part.dtype)) for part in parts]) for parts in zip(*self._pieces, strict=True))
        return delta, x.to(delta)

    def square(self) -> float:
        """|g|^2."""
        if self.matrix is not None:
            norm = float(torch.linalg.vector_norm(self.matrix, dtype=work_dtype(self.matrix.device)))
            return norm * norm
        delta, x = self._tokens()
        return dot(delta @ delta.mT, x @ x.mT)

    def dot(self, other: Product) -> float:
        """<g, L R>."""
        if self.matrix is not None:
            left, right = (x.to(self.matrix) for x in other)
            return dot(self.matrix @ right.mT, left)
        delta, x = self._tokens()
        return dot(delta @ other.left.to(delta), x @ other.right.to(x).mT)

    def outside(self, columns: Tensor, rows: Tensor) -> Gradient:
        """(I - PB) g (I - PA), for orthonormal bases of the projectors' spaces, m x k and n x k."""
        rest = Gradient(*self.shape)
        if self.matrix is not None:
            columns, rows = columns.to(self.matrix), rows.to(self.matrix)
            rest.matrix = self.matrix - columns @ (columns.mT @ self.matrix)
            rest.matrix -= rest.matrix @ rows @ rows.mT
        else:
            delta, x = self._tokens()
            columns, rows = columns.to(delta), rows.to(x)
            rest._pieces = [(delta - delta @ columns @ columns.mT, x - x @ rows @ rows.mT)]
        return rest


def keeps_tokens(tokens: int, m: int, n: int) -> bool:
    return tokens * (m + n) <= m * n


def dot(x: Tensor, y: Tensor) -> float:
    """<x, y> of small matrices."""
    return float((x.to(work_dtype(x.device)) * y).sum())


def column_basis(x: Tensor) -> Tensor:
    """Orthonormal columns that span those of a thin matrix (k x r).

    A singular value counts as zero up to f32's rounding of the largest. The QR decomposition comes first
    since it is as accurate as that of the r x r triangle by singular values, which is done on the CPU.
    """
    if not x.isfinite().all():
        return torch.full_like(x, math.nan)
    q, triangle = torch.linalg.qr(x.cpu() if x.device.type == "mps" else x)
    vectors, values, _ = torch.linalg.svd(triangle.cpu().double())
    kept = vectors[:, values > torch.finfo(torch.float32).eps * values[0]]
    return (q @ kept.to(q)).to(x)
