"""Serves `LoraPro` to the conformance kit: `python conformance_subject.py --backend cpu --strides padded`.

A session of the kit is one optimizer. Its adapters are triples (A, B, s), its unpaired parameters have names,
and each is a parameter group with options of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance" / "python"))
from lora_pro_conformance import GRADIENT, NonFinite, Unsupported, contents, talk

from lorapro import LoraPro, NonFiniteError
from lorapro.backends import STATE_FACTORS


def transposed(x: Tensor) -> Tensor:
    """Column after column."""
    return x.T.contiguous().T


def padded(x: Tensor) -> Tensor:
    """Every second row and every third column of a larger matrix, the rest of which is NaN."""
    rows, cols = x.shape
    whole = torch.full((2 * rows + 3, 3 * cols + 5), torch.nan, dtype=x.dtype)
    view = whole[1 : 1 + 2 * rows : 2, 2 : 2 + 3 * cols : 3]
    view.copy_(x)
    return view


# How values and how gradients lie in memory.
STRIDES = {
    "contiguous": (Tensor.contiguous, Tensor.contiguous),
    "transposed": (transposed, padded),
    "padded": (padded, transposed),
}

# Wrong on purpose: what the tests of these tests plant.
BUGS = {
    "scale": "the scale is left out",
    "gradient": "gradients are read as if they were transposed",
    "state": "state tensors are loaded as zeros",
}


class Session:
    """An optimizer and what the kit calls its members."""

    def __init__(self, backend: str, strides: str, bug: str | None) -> None:
        self.backend, self.bug = backend, bug
        self.place_value, self.place_grad = STRIDES[strides]
        self.optimizer: LoraPro | None = None
        self.control: dict[str, Any] = {}
        self.tensors: dict[str, dict[str, torch.nn.Parameter]] = {}
        self.own_names: dict[str, str] = {}

    def __call__(self, message: dict[str, Any]) -> dict[str, Any]:
        """One step."""
        control, file = message["control"], load(contents(message["input"]))
        listed = [(f"{k}.", item) for k, item in enumerate(message["adapters"])]
        listed += [(f"param.{k}.", item) for k, item in enumerate(message["params"])]
        self.add([(prefix, item) for prefix, item in listed if item["name"] not in self.tensors], file, control)
        self.optimizer.zero_grad()
        for prefix, item in listed:
            for name, tensor in self.tensors[item["name"]].items():
                grad = unscaled(file[prefix + GRADIENT[name]], control["grad_scale"], item["hyper"]["moment_dtype"])
                if self.bug == "gradient":
                    grad = grad.T.reshape(grad.shape)
                tensor.data.copy_(file[prefix + name])
                tensor.grad = self.place_grad(grad)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * control["lr_factor"]
        self.load([(prefix, item) for prefix, item in listed if item["load"]], file)
        try:
            self.optimizer.step()
        except NonFiniteError as error:
            raise NonFinite(self.kits_name(str(error)), str(error)) from None
        return self.answer(message, listed)

    def add(self, fresh: list[tuple[str, dict[str, Any]]], file: dict[str, Tensor], control: dict[str, Any]) -> None:
        """Makes parameter groups of what is met for the first time."""
        whole_step = {key: control[key] for key in ("max_grad_norm", "on_non_finite")}
        if self.optimizer is not None and whole_step != self.control:
            raise Unsupported("max_grad_norm and on_non_finite that change between steps")
        groups = []
        for prefix, item in fresh:
            paired = "s" in item
            names = ("A", "B") if paired else ("value",)
            tensors = {n: torch.nn.Parameter(self.place_value(file[prefix + n])) for n in names}
            scale = 1.0 if self.bug == "scale" else item.get("s")
            member = (*tensors.values(), scale) if paired else (item["name"], *tensors.values())
            groups.append({"params": [member], "initial_lr": item["hyper"]["lr"], **options(item["hyper"])})
            self.tensors[item["name"]] = tensors
        if self.optimizer is None:
            self.control = whole_step
            self.optimizer = LoraPro(groups, lr=0.0, backend=self.backend, **whole_step)
        else:
            for group in groups:
                self.optimizer.add_param_group(group)
        for (_, item), group in zip(fresh, self.optimizer.param_groups[-len(fresh) :] if fresh else []):
            self.own_names[item["name"]] = group["param_names"][0].removesuffix(".lora_A")

    def load(self, listed: list[tuple[str, dict[str, Any]]], file: dict[str, Tensor]) -> None:
        """Replaces state by the kit's, as from a checkpoint."""
        if not listed:
            return
        saved = self.optimizer.state_dict()
        numbers = {id(p): k for k, p in enumerate(p for g in self.optimizer.param_groups for p in g["params"])}
        for prefix, item in listed:
            names = [key.removeprefix(prefix) for key in file if key.startswith(prefix)]
            for which, param in self.tensors[item["name"]].items():
                state = {"step": torch.tensor(float(item["t"] - 1))}
                for name in names:
                    if name not in (*GRADIENT, *GRADIENT.values()) and belongs(name, which):
                        state[name] = file[prefix + name] * (self.bug != "state")
                saved["state"][numbers[id(param)]] = state
        self.optimizer.load_state_dict(saved)

    def answer(self, message: dict[str, Any], listed: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Writes all tensors after the step, and says what it did."""
        step = self.optimizer.last_step
        if step["skipped"]:
            found = step["skipped"]
            return {"skipped": {"adapter": self.kits_name(found["subject"]), "reason": found["reason"]}}
        after = {}
        for prefix, item in listed:
            for name, param in self.tensors[item["name"]].items():
                check_surroundings(param)
                after[prefix + name] = param.detach()
                state = dict(self.optimizer.state[param])
                if state.pop("step") != item["t"]:
                    raise RuntimeError(f"`{item['name']}` has not taken {item['t']} steps")
                after.update({prefix + key: value for key, value in state.items()})
        save_file({key: x.clone(memory_format=torch.contiguous_format) for key, x in after.items()}, message["output"])
        reports = self.optimizer.reports()
        shown = [reports[self.own_names[item["name"]]] for item in message["adapters"]]
        keys = ("update_norm", "relative_update", "equivalent_norm", "clip")
        numbers = {key: step[key] for key in ("grad_norm", "grad_clip")}
        return {**numbers, "reports": [{key: report[key] for key in keys if finite(report[key])} for report in shown]}

    def kits_name(self, text: str) -> str:
        """The member that a text of the package's is about."""
        return next(name for name, own in self.own_names.items() if f"`{own}`" in text)


def finite(numbers: float | list[float]) -> bool:
    """Whether JSON can write them: relative to a factor that is zero, an update is infinite."""
    return bool(torch.tensor(numbers).isfinite().all())


def unscaled(grad: Tensor, scale: float, moments: str) -> Tensor:
    """As a training loop does it before the step, which rounds where the kit's reference does not."""
    exact = grad.double() * scale
    rounded = exact.to(grad.dtype)
    matters = grad.element_size() == 2 or moments == "f64"
    if matters and not torch.equal(rounded.double().nan_to_num(), exact.nan_to_num()):
        raise Unsupported(f"gradients times {scale} inside of the step: the training loop rounds them to {grad.dtype}")
    return rounded


def options(hyper: dict[str, Any]) -> dict[str, Any]:
    """The kit's hyper-parameters as options of a parameter group."""
    kept = {key: value for key, value in hyper.items() if key not in ("method", "beta1", "beta2", "decay_base")}
    return {**kept, "mode": hyper["method"], "betas": (hyper["beta1"], hyper["beta2"])}


def belongs(state: str, which: str) -> bool:
    """Whether a state tensor is kept under this parameter of an adapter, or under an unpaired one."""
    return which == "value" or STATE_FACTORS[state] == which.lower()


def check_surroundings(param: torch.nn.Parameter) -> None:
    """Nothing is written beside a parameter that lies in a larger matrix."""
    whole = torch.as_strided(param.detach(), (param.untyped_storage().nbytes() // param.element_size(),), (1,), 0)
    if whole.numel() > param.numel() and int(whole.isnan().sum()) != whole.numel() - param.numel():
        raise RuntimeError(f"a step wrote beside a parameter of shape {tuple(param.shape)}")


def description(backend: str, strides: str) -> dict[str, Any]:
    return {
        "name": f"lorapro {backend} {strides}",
        "version": torch.__version__,
        "device": "CPU",
        "dtypes": ["f64", "f32", "bf16", "f16"],
        "moment_dtypes": ["f64", "f32", "bf16"],
        "roundings": ["nearest", "master"],
        "methods": ["lora", "sgd", "efficient", "factored", "full"],
        "x": ["sylvester", "symmetric", "zero"],
        "dampings": ["none", "absolute", "relative", "cutoff"],
        "options": [
            "amsgrad", "maximize", "weight_decay", "lr_ratio", "lr_factor", "momentum", "update_clip", "max_grad_norm",
            "grad_scale", "skip", "unpaired",
        ],  # fmt: skip
        "state": [*sorted(STATE_FACTORS), "master"],
        "stability": "kappa_squared",
        "determinism": "bitwise" if backend == "cpu" else "rounding",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--strides", default="contiguous", choices=STRIDES)
    parser.add_argument("--bug", choices=BUGS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    talk(lambda: Session(**vars(arguments)), description(arguments.backend, arguments.strides))
