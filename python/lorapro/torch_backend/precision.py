"""Which type of number is computed in, and how results are rounded to their storage type."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def read_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"`{name}` is not a dtype: use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def at_least_f32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@cache
def f64_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU where it has no f64 (Apple's MPS, some of Intel's XPU)."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).sqrt()
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device


def to_f64(x: Tensor) -> Tensor:
    """x in f64, on its device or, where this has no f64, on the CPU."""
    return x.to(f64_device(x.device)).to(torch.float64)


def like(x: Tensor, other: Tensor) -> Tensor:
    """x on the device and in the type of another tensor, converted on the device that has both types."""
    if x.dtype == torch.float64:
        return x.to(other.dtype).to(other.device)
    return x.to(other.device).to(other.dtype)


def round_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x rounded to the nearest number of a type.

    From f64 to 16 bits torch rounds twice, through f32. An f32 number that is rounded to odd
    (toward zero, the last bit set where anything was cut off) on the way keeps x's side of a tie.
    """
    if x.dtype != torch.float64 or dtype.itemsize != 2:
        return x.to(dtype)
    near = x.float()
    beyond = near.double().abs() > x.abs()
    odd = ((near.view(torch.int32) - beyond.int()) | 1).view(torch.float32)
    return torch.where(near.double() == x, near, odd).to(dtype)


def norm(x: Tensor) -> Tensor:
    """The Frobenius norm of each matrix or vector of a batch, summed in f64 where the device has it."""
    dtype = torch.float64 if f64_device(x.device) == x.device else None
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=dtype)
    return norms
