"""The options of a parameter group: under core's names, and as a checkpoint must have them."""

from __future__ import annotations

import math
from typing import Any

# What decides which state tensors exist: it cannot be changed between steps, and a checkpoint must
# have been written with the same.
STRUCTURAL = ("mode", "amsgrad", "moment_dtype", "rounding")

# What core calls by the same name.
NUMBERS = ("lr", "lr_ratio", "eps", "weight_decay", "momentum")
WORDS = ("x", "moment_dtype", "rounding")
FLAGS = ("amsgrad", "maximize")


def hyper(index: int, group: dict[str, Any]) -> dict[str, Any]:
    """A group's options under core's names. Core checks their ranges.

    Raises:
        ValueError: a value has a wrong type, or is not finite.
    """
    subject = f"group `{index}`"
    clip = group["update_clip"]
    return {
        "method": checked(subject, "mode", group["mode"], str),
        **betas(subject, group["betas"]),
        "damping": damping(subject, group["damping"]),
        "update_clip": None if clip is None else number(subject, "update_clip", clip),
        **{key: number(subject, key, group[key]) for key in NUMBERS},
        **{key: checked(subject, key, group[key], str) for key in WORDS},
        **{key: checked(subject, key, group[key], bool) for key in FLAGS},
    }


def number(subject: str, key: str, value: Any) -> float:
    """A finite number of any type: tensors and numpy's scalars are taken, too."""
    try:
        found = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{subject}: {key} is {value!r}, but it must be a finite number")
    return found


def checked(subject: str, key: str, value: Any, kind: type) -> Any:
    """A value of the right type."""
    if not isinstance(value, kind):
        raise ValueError(f"{subject}: {key} is {value!r}, but it must be a {kind.__name__}")
    return value


def betas(subject: str, value: Any) -> dict[str, float]:
    try:
        beta1, beta2 = value
    except (TypeError, ValueError):
        raise ValueError(f"{subject}: betas is {value!r}, but it must be two numbers") from None
    return {"beta1": number(subject, "beta1", beta1), "beta2": number(subject, "beta2", beta2)}


def damping(subject: str, value: Any) -> str | dict[str, float]:
    """`"relative:1e-4"` as core's `{"relative": 1e-4}`."""
    try:
        if isinstance(value, str) and ":" in value:
            kind, size = value.split(":", 1)
            value = {kind: float(size)}
        if isinstance(value, dict):
            return {kind: number(subject, f"damping ({kind})", size) for kind, size in value.items()}
        return str(checked(subject, "damping", value, str))
    except ValueError:
        raise ValueError(f"{subject}: damping is {value!r}, but it must be like 'relative:1e-4' or 'none'") from None


def joined(adapter: str, of_a: dict[str, Any], of_b: dict[str, Any]) -> dict[str, Any]:
    """Core's options of an adapter whose factors are in two groups: only the learning rate may differ."""
    for key, value in of_a.items():
        if key != "lr" and value != of_b[key]:
            raise ValueError(
                f"adapter `{adapter}`: {key} is {value} in the group of A and {of_b[key]} in that of B, but "
                "only lr may differ"
            )
    if of_a["lr"] == 0 and of_b["lr"] != 0:
        raise ValueError(f"adapter `{adapter}`: lr is 0 for A but not for B: freeze A instead")
    ratio = of_b["lr"] / of_a["lr"] if of_a["lr"] else 1.0
    if ratio == 0:
        raise ValueError(f"adapter `{adapter}`: lr is 0 for B but not for A: freeze B instead")
    return {**of_a, "lr_ratio": number(f"adapter `{adapter}`", "lr_ratio", of_a["lr_ratio"] * ratio)}


def check_group(index: int, own: dict[str, Any], saved: dict[str, Any]) -> None:
    """Rejects a group that was saved by another optimizer or of other parameters."""
    for key in STRUCTURAL:
        if key not in saved:
            raise ValueError(f"the saved parameter group {index} has no `{key}`: it is not LoRA-Pro's")
        if saved[key] != own[key]:
            values = f"{own[key]!r}, but the state was saved with {saved[key]!r}"
            raise ValueError(f"parameter group {index}: {key} is {values}")
    try:
        hyper(index, saved)
    except KeyError as key:
        raise ValueError(f"the saved parameter group {index} has no `{key.args[0]}`") from None
    names = saved.get("param_names", own["param_names"])
    for mine, theirs in zip(own["param_names"], names, strict=True):
        if mine != theirs:
            raise ValueError(f"the saved state has `{theirs}` where this optimizer has `{mine}`: it is another model's")
