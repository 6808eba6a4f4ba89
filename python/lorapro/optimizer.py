"""LoRA-Pro as a `torch.optim.Optimizer`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from . import _lorapro
from .backends import Backends, Work, refuse_meta
from .options import check_group, checked, hyper, joined, number
from .pairs import Pair, find_pairs, misfit, pairs_by_name, unwrapped
from .sharding import Shards, SkippedStep
from .state import PairState, ParamState
from .torch_backend.slot import check_distinct

# Parameters that cannot be viewed as matrices, each with a copy that is stepped in its place.
Copies = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Place:
    """A parameter: the number of its group and its number there."""

    group: int
    index: int


@dataclass(frozen=True)
class Plan:
    """What is stepped, and where in `param_groups` it is. Tensors are looked up at each step."""

    pairs: list[tuple[Pair, Place, Place]] = field(default_factory=list)
    params: list[tuple[str, Place]] = field(default_factory=list)
    lengths: tuple[int, ...] = ()

    def part(self, owns: Callable[[str], bool]) -> Plan:
        """What a process steps of it; an adapter belongs to the process that owns its A."""
        pairs = [entry for entry in self.pairs if owns(entry[0].a)]
        return Plan(pairs, [entry for entry in self.params if owns(entry[0])], self.lengths)


class LoraPro(torch.optim.Optimizer):
    r"""LoRA-Pro (arXiv 2407.18242): the step of an adapter comes as near to full fine-tuning's as its rank allows.

    The weight is W = W0 + s B A, with A: r x n, B: m x r and s the scale. Parameters that are not part of
    an adapter (biases, norms, heads, DoRA's magnitudes) are stepped by AdamW in the same call.

    Args:
        params: a model (its trained parameters, and its adapters by PEFT's names), or parameters,
            named parameters, groups of them, as for any optimizer, or triples `(A, B, s)`.
        lr: learning rate, at least 0.
        mode: `"factored"` (default; state r(m + n) + m + n), `"full"` (the paper's; state 2 m n),
            `"efficient"` (the paper's cheaper one; state 2 r(m + n)), `"sgd"`, `"lora"` (AdamW on A and B).
        x: which of the equivalent (dA, dB): `"sylvester"` (the paper's), `"symmetric"`, `"zero"`.
        damping: of the inverses of A A' and B'B: `"relative:1e-4"`, `"absolute:1e-8"`, `"cutoff:1e-10"`, `"none"`.
        betas: decay rates of the moments, each in [0, 1).
        eps: added to the root of the second moment, positive.
        weight_decay: decoupled; B A shrinks by (1 - lr * weight_decay) in a step.
        lr_ratio: learning rate of B over that of A (LoRA+).
        momentum: of mode `"sgd"`, in [0, 1).
        amsgrad: keep the maximum of the second moment.
        maximize: ascend.
        update_clip: at most so large is |update| / |factor|; None leaves updates alone.
        moment_dtype: of mode `"full"`: `"auto"`, `"f32"`, `"bf16"`, `"8bit"`.
        rounding: of 16-bit factors: `"nearest"`, `"stochastic"`, `"master"` (f32 copies are kept).
        max_grad_norm: clip of the global norm of all gradients, before the adjustment.
        on_non_finite: a NaN or an infinity among the gradients is an `"error"`, or the step is a `"skip"`.
        preset: where options that are not given come from: `"recommended"` or `"paper"`.
        backend: `"auto"`, `"cpu"`, `"cuda"`, `"torch"` (plain torch, any device), `"reference"` (slow, f64).
        model: where adapters and scales are looked for if `params` are not a model.
        scale: s of adapters whose module has no `scaling`.
        on_unsupported: an adapter whose product is not B A is an `"error"`, or stepped by `"adamw"`.
        shard: divide adapters, state and work over the processes of the default group (True) or of a
            process group; every process must have the same gradients, as under DDP.

    Raises:
        ValueError: no adapter was found, an option is out of range, a scale is unknown.
        NonFiniteError: in `step`; nothing has changed.

    Source: the closed form is equation by equation in the book's chapter "Derivation".
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        *,
        lr: float | Tensor,
        mode: str | None = None,
        x: str | None = None,
        damping: str | dict[str, float] | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float | None = None,
        lr_ratio: float | None = None,
        momentum: float | None = None,
        amsgrad: bool | None = None,
        maximize: bool | None = None,
        update_clip: float | None = None,
        moment_dtype: str | None = None,
        rounding: str | None = None,
        max_grad_norm: float | None = None,
        on_non_finite: str = "error",
        preset: str = "recommended",
        backend: str = "auto",
        model: nn.Module | None = None,
        scale: float | None = None,
        on_unsupported: str = "error",
        shard: Any = False,
    ) -> None:
        if on_unsupported not in ("error", "adamw"):
            raise ValueError(f"on_unsupported is {on_unsupported!r}, but it must be 'error' or 'adamw'")
        own = "the optimizer"
        checked(own, "preset", preset, str)
        checked(own, "on_non_finite", on_non_finite, str)
        if max_grad_norm is not None:
            max_grad_norm = number(own, "max_grad_norm", max_grad_norm)
        if scale is not None:
            scale = number(own, "scale", scale)
        values = json.loads(_lorapro.resolve_config(json.dumps({"preset": preset})))
        defaults = {
            "lr": lr,
            "mode": values["method"] if mode is None else mode,
            "betas": (values["beta1"], values["beta2"]) if betas is None else betas,
        }
        given = dict(x=x, damping=damping, eps=eps, weight_decay=weight_decay, lr_ratio=lr_ratio)
        given |= dict(momentum=momentum, amsgrad=amsgrad, maximize=maximize, update_clip=update_clip)
        given |= dict(moment_dtype=moment_dtype, rounding=rounding)
        defaults |= {key: values[key] if value is None else value for key, value in given.items()}
        if isinstance(params, nn.Module):
            model = params if model is None else model
            params = [(name, p) for name, p in unwrapped(params).named_parameters() if p.requires_grad]
        self._options: dict[str, Any] = {
            "backend": backend,
            "max_grad_norm": max_grad_norm,
            "on_non_finite": on_non_finite,
            "scale": scale,
            "on_unsupported": on_unsupported,
        }
        self._model = None if model is None else unwrapped(model)
        self._explicit: list[Pair] = []
        self._plan = Plan()
        self._shards = Shards.of(shard)
        self._own = Plan()
        self._loaded: Backends | None = None
        self._backends = Backends(backend)
        self._plain_state = False
        self._values: list[tuple[Any, ...]] | None = None
        self.last_step: dict[str, Any] | None = None
        super().__init__(params, defaults)
        self._replan()

    # Parameters and pairs

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch's. Its adapters are found as at construction."""
        groups, explicit = len(self.param_groups), len(self._explicit)
        try:
            if isinstance(param_group, dict):
                named = list(self._named(param_group["params"]))
                param_group = {**param_group, "params": named}
                if not named:
                    param_group["param_names"] = []
            super().add_param_group(param_group)
            if self._plan.lengths:  # not at construction, where all groups are planned at once
                self._replan()
        except Exception:
            del self.param_groups[groups:], self._explicit[explicit:]
            raise

    def _named(self, params: Any) -> Iterator[tuple[str, Tensor]]:
        """Parameters with their names; triples `(A, B, s)` become two of them and a pair."""
        if isinstance(params, Tensor):
            params = [params]
        names = {} if self._model is None else {id(p): name for name, p in self._model.named_parameters()}
        count = sum(len(group["params"]) for group in self.param_groups)
        for item in params:
            if isinstance(item, tuple) and len(item) == 3 and not isinstance(item[0], str):
                a, b, scale = item
                name = f"adapter{len(self._explicit)}"
                self._explicit.append(Pair(name, f"{name}.lora_A", f"{name}.lora_B", scale))
                yield f"{name}.lora_A", a
                yield f"{name}.lora_B", b
            elif isinstance(item, tuple) and len(item) == 2:
                yield names.get(id(item[1]), str(item[0])), item[1]
            else:
                yield names.get(id(item), f"param{count}"), item
            count += 1

    def _replan(self) -> None:
        """Finds pairs among all parameters, divides them over processes, and checks options.
        On an error nothing has changed."""
        places: dict[str, Place] = {}
        for number, group in enumerate(self.param_groups):
            if len(group.get("param_names", ())) != len(group["params"]):
                raise ValueError(
                    f"parameter group {number} has {len(group['params'])} parameters but "
                    f"{len(group.get('param_names', ()))} names: a framework has replaced or flattened "
                    "them (FSDP with flat parameters, DeepSpeed ZeRO), so adapters cannot be told from "
                    "one another; use DDP, with shard=True to divide the state"
                )
            for index, name in enumerate(group["param_names"]):
                if name in places:
                    raise ValueError(f"two parameters are called `{name}`")
                places[name] = Place(number, index)
        pairs = [pair for pair in self._found(list(places)) if pair.a in places and pair.b in places]
        paired = {name for pair in pairs for name in (pair.a, pair.b)}
        if not pairs:
            raise ValueError(
                "no LoRA pair (lora_A, lora_B) with both factors trained was found: pass the model (or "
                "its parameters and model=...), named parameters, or triples (A, B, scale)"
            )
        for pair in pairs:
            why = misfit(self._at(places[pair.a]), self._at(places[pair.b]), pair.layout)
            if why is not None:
                raise ValueError(f"adapter `{pair.name}`: {why}")
        check_memory(self._tensors())
        plan = Plan(
            [(pair, places[pair.a], places[pair.b]) for pair in pairs],
            [(name, place) for name, place in places.items() if name not in paired],
            tuple(len(group["params"]) for group in self.param_groups),
        )
        _lorapro.resolve_config(self._config(plan, self.param_groups))
        self._plan = self._own = plan
        if self._shards is not None:
            self._shards.assign(self._costs())
            self._own = plan.part(self._shards.owns)
        self._values = None

    def _found(self, names: list[str]) -> list[Pair]:
        options = self._options
        if self._model is not None:
            found = find_pairs(self._model, scale=options["scale"], on_unsupported=options["on_unsupported"])
        else:
            taken = {name for pair in self._explicit for name in (pair.a, pair.b)}
            found = pairs_by_name([name for name in names if name not in taken], options["scale"])
        return self._explicit + found

    def pairs(self) -> list[tuple[str, str]]:
        """The names of A and B of each adapter."""
        return [(pair.a, pair.b) for pair, _, _ in self._plan.pairs]

    # Hyper-parameters

    def _config(self, plan: Plan, groups: list[dict[str, Any]]) -> str:
        """Core's configuration of groups, as JSON."""
        own = {key: self._options[key] for key in ("max_grad_norm", "on_non_finite")}
        if self._clips_here():
            own["max_grad_norm"] = None
        hypers = {str(index): hyper(index, group) for index, group in enumerate(groups)}
        for pair, a, b in plan.pairs:
            if a.group != b.group:
                hypers[group_name(a, b)] = joined(pair.name, hypers[str(a.group)], hypers[str(b.group)])
        return json.dumps({**own, "groups": hypers})

    def _configure(self) -> None:
        """Passes on what was changed in `param_groups` since the last step."""
        values = [tuple(hyper(*each).values()) for each in enumerate(self.param_groups)]
        if values != self._values:
            self._backends.configure(self._config(self._plan, self.param_groups))
            self._values = values

    def _clips_here(self) -> bool:
        """Whether the global norm is over more than what one backend sees."""
        return self._shards is not None or len(self._devices()) > 1

    def _devices(self) -> set[torch.device]:
        return {p.device for group in self.param_groups for p in group["params"]}

    # A step

    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Steps every adapter and parameter that has a gradient. `.grad` is left as it is.

        On an error nothing has changed: no parameter, no state, no counter. With parameters on several
        devices or in several processes there is an exception: an update of finite gradients that overflows
        is seen where it is computed, when others may have stepped their part. Every process raises then, and
        training goes on from a checkpoint.

        Args:
            closure: reevaluates the model and returns the loss.

        Raises:
            NonFiniteError: a gradient or factor holds a NaN or an infinity (see `on_non_finite`).
            ValueError: a tensor is not what was registered, or only one factor has a gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._plan.lengths != tuple(len(group["params"]) for group in self.param_groups):
            self._replan()
        try:
            prepared = self._prepare() if self._shards is None else self._shards.agree(self._prepare)
        except SkippedStep as skipped:
            self.last_step = {"skipped": {"subject": skipped.subject, "reason": str(skipped)}}
        else:
            self._take_step(*prepared)
        return loss

    def _prepare(self) -> tuple[dict[torch.device, Work], Copies, float]:
        """What is stepped, what is copied back afterwards, and what all gradients are multiplied by."""
        self._configure()
        scale = 1.0
        if self._clips_here():
            scale = self._clip()
            self._check()
        work: dict[torch.device, Work] = defaultdict(Work)
        copies: Copies = []
        for pair, a, b in self._own.pairs:
            self._list_pair(pair, group_name(a, b), self._at(a), self._at(b), work, copies)
        for name, place in self._own.params:
            self._list_param(name, str(place.group), self._at(place), work, copies)
        return work, copies, scale

    def _take_step(self, work: dict[torch.device, Work], copies: Copies, scale: float) -> None:
        def step() -> list[dict[str, Any]]:
            reports = self._backends.step(work, scale)
            copy_back(copies, reports)
            return reports

        reports = step() if self._shards is None else self._shards.agree(step)
        if self._shards is not None:
            self._shards.exchange(self._tensors())
        self.last_step = reports[0] if reports else None

    def _list_pair(self, pair: Pair, group: str, a: Tensor, b: Tensor, work: Any, copies: Copies) -> None:
        """Adds an adapter to what is stepped, where it has gradients."""
        grad_a, grad_b = a.grad, b.grad
        if grad_a is None or grad_b is None:
            if grad_a is grad_b:
                return
            missing = pair.a if grad_a is None else pair.b
            raise ValueError(
                f"adapter `{pair.name}`: `{missing}` has no gradient though the other factor has one; an "
                "adapter is stepped as a whole (a frozen factor must not require gradients when the "
                "optimizer is made)"
            )
        slot = self._backends.slots.get(pair.name) or self._backends.add_pair(pair, a, b, group)
        scale = pair.scale_now()
        if scale != slot.scale:
            self._backends.set_scale(slot, scale)
        adapters = work[slot.device].adapters
        if a.ndim == 2 and b.ndim == 2 and pair.layout.blocks == 1:
            adapters.append((slot.indices[0], a, b, grad_a, grad_b))
            return
        slot.check(f"adapter `{pair.name}`", a, b)
        a, b = viewable(pair.a, a, copies), viewable(pair.b, b, copies)
        factors = pair.layout.matrices(a, b)
        gradients = pair.layout.matrices(grad_a.contiguous(), grad_b.contiguous())
        for index, factor, gradient in zip(slot.indices, factors, gradients, strict=True):
            adapters.append((index, *factor, *gradient))

    def _list_param(self, name: str, group: str, param: Tensor, work: Any, copies: Copies) -> None:
        """Adds an unpaired parameter to what is stepped, where it has a gradient."""
        grad = param.grad
        if grad is None or param.numel() == 0:
            return
        if grad.is_sparse:
            raise ValueError(f"parameter `{name}`: its gradient is sparse, but it must be dense")
        slot = self._backends.slots.get(name) or self._backends.add_param(name, param, group)
        slot.check(f"parameter `{name}`", param)
        slot.check(f"parameter `{name}`: its gradient", grad)
        if param.ndim != 1:
            param, grad = viewable(name, param, copies).view(-1), grad.reshape(-1)
        work[slot.device].params.append((slot.indices[0], param, grad))

    def _clip(self) -> float:
        """What all gradients are multiplied by."""
        squares = 0.0
        for name, param in self._tensors():
            if param.grad is None:
                continue
            refuse_meta(name, param)
            square = float(torch.linalg.vector_norm(param.grad.detach(), dtype=torch.float64)) ** 2
            if square != square or square == float("inf"):
                reason = f"parameter `{name}`: its gradient holds a NaN or an infinity"
                if self._options["on_non_finite"] == "skip":
                    raise SkippedStep(name, reason)
                raise _lorapro.NonFiniteError(reason)
            squares += square
        limit, norm = self._options["max_grad_norm"], squares**0.5
        return 1.0 if limit is None or norm <= limit else limit / norm

    def _check(self) -> None:
        """Refuses what one backend would refuse after another has stepped."""
        for name, param in self._tensors():
            if param.grad is None or (self._shards is not None and not self._shards.owns(name)):
                continue
            for tensor, what in ((param, "it"), (param.grad, "its gradient")):
                if type(tensor) not in (Tensor, nn.Parameter):
                    kind = type(tensor).__name__
                    raise ValueError(f"parameter `{name}`: {what} is a {kind}, but it must be a plain torch.Tensor")
            if not torch.linalg.vector_norm(param.detach(), dtype=torch.float64).isfinite():
                raise _lorapro.NonFiniteError(f"parameter `{name}` holds a NaN or an infinity")

    def _at(self, place: Place) -> Tensor:
        """The parameter that is there now: frameworks replace them."""
        param: Tensor = self.param_groups[place.group]["params"][place.index]
        return param

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """Every parameter by name."""
        return [pair for group in self.param_groups for pair in zip(group["param_names"], group["params"], strict=True)]

    def _costs(self) -> list[tuple[list[str], int]]:
        """What is stepped together, and of how many numbers."""
        costs = []
        for pair, place, place_b in self._plan.pairs:
            a, b = self._at(place), self._at(place_b)
            full = self.param_groups[place.group]["mode"] == "full"
            wide = b.shape[0] * a[0].numel() if full else 0
            costs.append(([pair.a, pair.b], a.numel() + b.numel() + wide))
        return costs + [([name], self._at(place).numel()) for name, place in self._plan.params]

    def reports(self) -> dict[str, dict[str, Any]]:
        """What the last step did to each adapter: `step`, `grad_norm`, `update_norm`, `relative_update`
        (each for A and B), `equivalent_norm` (of E = s (B dA + dB A)) and `clip`. An adapter of several
        blocks (experts, convolution groups) has one entry a block."""
        found: dict[str, dict[str, Any]] = {}
        for pair, _, _ in self._plan.pairs:
            if pair.name in self._backends.slots:
                blocks = self._backends.report(pair.name)
                names = [pair.name] if len(blocks) == 1 else [f"{pair.name}[{k}]" for k in range(len(blocks))]
                found |= zip(names, blocks, strict=True)
        return found

    # State

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """State under the parameters: `step` and tensors by name. Reads copy from the backend, and what
        is assigned is written to it."""
        state: defaultdict[Tensor, Any] = defaultdict(dict)
        slots = self._backends.slots
        for pair, a, b in self._plan.pairs:
            if pair.name in slots:
                both = self._backends.pair_state(pair.name) if self._plain_state else None
                for factor, place in (("a", a), ("b", b)):
                    state[self._at(place)] = both[factor] if both else PairState(self._backends, pair.name, factor)
        for name, place in self._plan.params:
            if name in slots:
                param = self._at(place)
                view = ParamState(self._backends, name, param)
                state[param] = self._backends.param_state(name, param.shape) if self._plain_state else view
        return state

    @state.setter
    def state(self, value: Any) -> None:
        if value:
            raise AttributeError("state belongs to the backend: use load_state_dict")

    @_disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        """As torch's. With `shard`, every process must call it, and each gets the whole state."""
        self._plain_state = True
        try:
            own = super().state_dict()
        finally:
            self._plain_state = False
        return own if self._shards is None else self._shards.gather_state(own)

    @_disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but moments keep their own dtypes, and nothing is changed where the state is of
        another model, mode or rank, which is a `ValueError` that names the parameter."""
        handle = self.register_load_state_dict_pre_hook(lambda _, state: self._check_and_hold(state))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
            self._loaded = None

    def _check_and_hold(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Makes backends with the loaded state; what torch gets has none, since it would cast it."""
        groups = state_dict["param_groups"]
        lengths = [len(group["params"]) for group in groups]
        if lengths == [len(group["params"]) for group in self.param_groups]:
            for number, (own, saved) in enumerate(zip(self.param_groups, groups, strict=True)):
                check_group(number, own, saved)
            ids = [number for group in groups for number in group["params"]]
            by_id = dict(zip(ids, self._tensors(), strict=True))
            unknown = [key for key in state_dict["state"] if key not in by_id]
            if unknown:
                raise ValueError(f"the saved state has entries that are no parameter's: {unknown}")
            state = {by_id[key][0]: value for key, value in state_dict["state"].items()}
            self._loaded = self._filled(state, self._config(self._plan, groups))
        return {**state_dict, "state": {}}

    def _filled(self, state: dict[str, dict[str, Any]], config: str) -> Backends:
        """New backends with the state of parameters by name."""
        backends = Backends(self._options["backend"])
        backends.configure(config)
        for pair, a, b in self._own.pairs:
            there = [name in state for name in (pair.a, pair.b)]
            if there == [False, False]:
                continue
            if there != [True, True]:
                missing = pair.b if there[0] else pair.a
                raise ValueError(f"adapter `{pair.name}`: the saved state has none for `{missing}`")
            backends.add_pair(pair, self._at(a), self._at(b), group_name(a, b))
            backends.set_pair_state(pair.name, state[pair.a], state[pair.b])
        for name, place in self._own.params:
            if name in state:
                backends.add_param(name, self._at(place), str(place.group))
                backends.set_param_state(name, state[name])
        return backends

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and deepcopy: scales become numbers (see `attach`), hooks stay behind."""
        self._plain_state = True
        try:
            state = {key: dict(value) for key, value in self.state.items()}
        finally:
            self._plain_state = False
        return {
            "defaults": self.defaults,
            "param_groups": self.param_groups,
            "_options": self._options,
            "_explicit": [pair.frozen_scale() for pair, _, _ in self._plan.pairs],
            "_saved_state": [(param, value) for param, value in state.items()],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_saved_state", None)
        state.pop("state", None)
        super().__setstate__(state)
        if saved is None:  # from load_state_dict
            if self._loaded is not None:
                self._backends, self._values = self._loaded, None
            return
        self._model = self._shards = self._loaded = self._values = self.last_step = None
        self._plan = Plan()
        self._plain_state = False
        self._backends = Backends(self._options["backend"])
        self._replan()
        names = {id(param): name for name, param in self._tensors()}
        config = self._config(self._plan, self.param_groups)
        self._backends = self._filled({names[id(param)]: value for param, value in saved}, config)

    def attach(self, model: nn.Module) -> None:
        """Reads scales from this model again, after a copy or an unpickled optimizer has lost it."""
        self._model, explicit = unwrapped(model), self._explicit
        self._explicit = []
        try:
            self._replan()
        except ValueError:
            self._model, self._explicit = None, explicit
            raise


def group_name(a: Place, b: Place) -> str:
    """Of the options that apply to an adapter."""
    return str(a.group) if a.group == b.group else f"{a.group}+{b.group}"


def viewable(name: str, param: Tensor, copies: Copies) -> Tensor:
    """The parameter, or a copy of it in row-major order that is copied back after the step."""
    if param.is_contiguous():
        return param.detach()
    check_distinct(f"`{name}`", param)
    copies.append((param, param.detach().contiguous()))
    return copies[-1][1]


def check_memory(named: list[tuple[str, Tensor]]) -> None:
    """Refuses parameters in the same memory: both would write it. One that is not contiguous counts as its first
    element alone, since others may lie between its rows."""
    spans = []
    for name, x in named:
        if type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided and x.numel() and x.data_ptr():
            length = (x.numel() if x.is_contiguous() else 1) * x.element_size()
            spans.append((str(x.device), x.data_ptr(), x.data_ptr() + length, name))
    spans.sort()
    for (device, _, end, name), (other_device, start, _, other) in zip(spans, spans[1:], strict=False):
        if device == other_device and start < end:
            raise ValueError(f"`{name}` and `{other}` share memory, so they cannot be stepped as two parameters")


def copy_back(copies: Copies, reports: list[dict[str, Any]]) -> None:
    if not any(report["skipped"] for report in reports):
        for param, copy in copies:
            param.copy_(copy)
