"""The efficient mode as a plain function: AdamW on A and B, each fed with its adjusted gradient."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import numpy as np
from lora_pro_conformance import serve


def inverse(gram, longer):
    """Eigenvalues and -vectors, and the inverses of the eigenvalues above rounding."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > 4 * np.finfo(float).eps * longer * max(values[-1], 0)
    return values, vectors, np.where(kept, 1 / np.where(kept, values, 1), 0)


def adjusted(a, b, grad_a, grad_b, s):
    """(dA, dB) with the Sylvester X."""
    values_b, qb, inverse_b = inverse(b.T @ b, len(b))
    values_a, qa, inverse_a = inverse(a @ a.T, a.shape[1])
    u = qb * inverse_b @ qb.T @ grad_a / s**2
    v = grad_b @ (qa * inverse_a @ qa.T) / s**2
    v = v - b @ (qb * inverse_b @ qb.T @ (b.T @ v))
    right = qb.T @ (-u @ a.T) @ qa
    sums = np.maximum(values_b, 0)[:, None] + np.maximum(values_a, 0)[None, :]
    x = qb @ np.divide(right, sums, out=np.zeros_like(right), where=sums > 0) @ qa.T
    return u + x @ a, v - b @ x


def step(adapter, tensors, state, lr):
    hyper, t = adapter["hyper"], adapter["t"]
    a, b, grad_a, grad_b = (tensors[k].astype(float) for k in ("A", "B", "grad_A", "grad_B"))
    sign = -1 if hyper["maximize"] else 1
    d_a, d_b = adjusted(a, b, sign * grad_a, sign * grad_b, adapter["s"])
    for name, factor, d, rate in ("a", a, d_a, lr), ("b", b, d_b, lr * hyper["lr_ratio"]):
        first, second = f"exp_avg_{name}", f"exp_avg_sq_{name}"
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        m = beta1 * state.get(first, 0) + (1 - beta1) * d
        v = beta2 * state.get(second, 0) + (1 - beta2) * d * d
        n = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + hyper["eps"])
        factor = factor * (1 - rate * hyper["weight_decay"]) - rate * n
        dtype = tensors[name.upper()].dtype
        tensors[name.upper()] = factor.astype(dtype)
        state[first], state[second] = m.astype(dtype), v.astype(dtype)


if __name__ == "__main__":
    serve(step, {
        "name": "numpy-efficient",
        "version": "1",
        "device": "CPU",
        "dtypes": ["f64", "f32"],
        "methods": ["efficient"],
        "x": ["sylvester"],
        "dampings": ["none"],
        "options": ["maximize", "weight_decay", "lr_ratio", "lr_factor", "max_grad_norm", "grad_scale", "skip"],
        "state": ["exp_avg_a", "exp_avg_sq_a", "exp_avg_b", "exp_avg_sq_b"],
        "stability": "kappa_squared",
        "determinism": "bitwise",
    })
