"""The options of a parameter group: under core's names, and as a checkpoint must have them."""

from __future__ import annotations

from typing import Any

# What decides which state tensors exist: it cannot be changed between steps, and a checkpoint must
# have been written with the same.
STRUCTURAL = ("mode", "amsgrad", "moment_dtype", "rounding")

# What core calls by the same name.
PASSED_ON = (
    "x",
    "lr_ratio",
    "eps",
    "weight_decay",
    "momentum",
    "amsgrad",
    "maximize",
    "update_clip",
    "moment_dtype",
    "rounding",
)


def hyper(group: dict[str, Any]) -> dict[str, Any]:
    """A group's options under core's names."""
    beta1, beta2 = group["betas"]
    return {
        "method": group["mode"],
        "lr": float(group["lr"]),
        "beta1": float(beta1),
        "beta2": float(beta2),
        "damping": damping(group["damping"]),
        **{key: group[key] for key in PASSED_ON},
    }


def damping(value: str | dict[str, float]) -> str | dict[str, float]:
    """`"relative:1e-4"` as core's `{"relative": 1e-4}`."""
    if not isinstance(value, str) or ":" not in value:
        return value
    kind, number = value.split(":", 1)
    try:
        return {kind: float(number)}
    except ValueError:
        raise ValueError(f"damping is {value!r}, but it must be like 'relative:1e-4' or 'none'") from None


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
    return {**of_a, "lr_ratio": of_a["lr_ratio"] * ratio}


def check_group(number: int, own: dict[str, Any], saved: dict[str, Any]) -> None:
    """Rejects a group that was saved by another optimizer or of other parameters."""
    for key in STRUCTURAL:
        if key not in saved:
            raise ValueError(f"the saved parameter group {number} has no `{key}`: it is not LoRA-Pro's")
        if saved[key] != own[key]:
            values = f"{own[key]!r}, but the state was saved with {saved[key]!r}"
            raise ValueError(f"parameter group {number}: {key} is {values}")
    names = saved.get("param_names", own["param_names"])
    for mine, theirs in zip(own["param_names"], names, strict=True):
        if mine != theirs:
            raise ValueError(f"the saved state has `{theirs}` where this optimizer has `{mine}`: it is another model's")
