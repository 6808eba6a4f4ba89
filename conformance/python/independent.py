"""Replays the vector suite without this project's code: numpy, and pseudo-inverses from the
singular values of A and B where the project has eigenvalues of Gram matrices.

    python conformance/python/independent.py [FOLDER]

Prints the worst ||x - ref||_F / ||ref||_F of every method and of the ten worst vectors; exit code 1
where a valid vector is not followed within its tolerance. Vectors to be refused are not looked at.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

EPSILON = np.finfo(float).eps


def load(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    meta, body = header.pop("__metadata__"), data[8 + length :]
    return meta, {
        name: np.frombuffer(body[slice(*t["data_offsets"])], "<f8").reshape(t["shape"])
        for name, t in header.items()
    }


def inverse(factor, damping):
    """R with R R' the damped inverse of factor' factor, from the singular values of factor.

    Never R R' itself: its rounding is as large as its largest entries, in every direction.
    """
    _, sigma, vt = np.linalg.svd(factor)
    values = np.zeros(factor.shape[1])
    values[: len(sigma)] = sigma**2
    largest = values.max()
    kind, _, number = damping.partition(" ")
    if kind == "none" and number:  # the first recordings
        kind, number = "cutoff", "1e-12"
    if kind in ("none", "cutoff"):
        share = 100 * len(factor) * EPSILON if kind == "none" else float(number)
        keep, shift = values > share * largest, 0.0
    else:
        shift = float(number) * (largest if kind == "relative" else 1.0)
        keep = values + shift > 0
    values[keep] = 1 / np.sqrt(values[keep] + shift)
    values[~keep] = 0
    return vt.T * values


def sylvester(b, a, c):
    """SB X + X SA = C of least norm, by the singular vectors of B and of A'."""
    _, sb, qb = np.linalg.svd(b)
    _, sa, qa = np.linalg.svd(a.T)
    r = len(c)
    lb, la = np.zeros(r), np.zeros(r)
    lb[: len(sb)], la[: len(sa)] = sb**2, sa**2
    sums = lb[:, None] + la[None, :]
    solvable = sums > r * EPSILON * (lb.max() + la.max())
    rotated = qb @ c @ qa.T
    return qb.T @ np.divide(rotated, sums, out=np.zeros((r, r)), where=solvable) @ qa


class Adam:
    def __init__(self, o):
        self.o, self.m, self.v, self.top, self.t = o, 0.0, 0.0, 0.0, 0

    def __call__(self, x, square=None):
        o, self.t = self.o, self.t + 1
        self.m = o["beta1"] * self.m + (1 - o["beta1"]) * x
        self.v = o["beta2"] * self.v + (1 - o["beta2"]) * (x * x if square is None else square)
        self.top = np.maximum(self.top, self.v)
        v = self.top if o["amsgrad"] else self.v
        c1, c2 = 1 - o["beta1"] ** self.t, 1 - o["beta2"] ** self.t
        return self.m / c1 / (np.sqrt(v / c2) + o["eps"])


class Factored:
    """The first moment as an m x n matrix in the tangent space, the second as rows and columns."""

    def __init__(self, o):
        self.o, self.m, self.rows, self.cols, self.t = o, 0.0, 0.0, 0.0, 0
        self.top = (0.0, 0.0)

    def __call__(self, e):
        o, self.t = self.o, self.t + 1
        self.m = o["beta1"] * self.m + (1 - o["beta1"]) * e
        mix = lambda old, new: o["beta2"] * old + (1 - o["beta2"]) * new
        self.rows = mix(self.rows, (e * e).mean(1))
        self.cols = mix(self.cols, (e * e).mean(0))
        self.top = np.maximum(self.top[0], self.rows), np.maximum(self.top[1], self.cols)
        c1, c2 = 1 - o["beta1"] ** self.t, 1 - o["beta2"] ** self.t
        rows, cols = self.top if o["amsgrad"] else (self.rows, self.cols)
        left = 1 / (np.sqrt(rows / c2) + o["eps"])
        right = np.sqrt(rows.mean() / c2) / (np.sqrt(cols / c2) + o["eps"])
        return left[:, None] * (self.m / c1) * right[None, :]

    def carry(self, a, b, damping):
        rb, ra = inverse(b, damping), inverse(a.T, damping)
        pb, pa = b @ rb, ra.T @ a
        z = self.m @ pa.T @ pa
        self.m = pb @ (pb.T @ (self.m - z)) + z


def closed_form(a, b, ga, gb, o):
    """(dA, dB) and E."""
    s, rb, ra = o["scale"], inverse(b, o["damping"]), inverse(a.T, o["damping"])
    u, v = rb @ (rb.T @ ga) / s**2, gb @ ra @ ra.T / s**2
    v = v - (b @ rb) @ ((b @ rb).T @ v)
    x = {
        "zero": lambda: np.zeros_like(rb),
        "symmetric": lambda: -0.5 / s**2 * rb @ (rb.T @ (b.T @ gb) @ ra) @ ra.T,
        "sylvester": lambda: sylvester(b, a, -u @ a.T),
    }[o["x"]]()
    return u + x @ a, v - b @ x, s * (b @ u + v @ a)


def bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def follow(meta, tensors):
    """Yields A and B after each step."""
    o = {k: float(v) for k, v in DEFAULTS.items()} | {k: meta.get(k) for k in ("x", "damping")}
    for key in NUMBERS & meta.keys():
        o[key] = float(meta[key])
    o |= {key: meta.get(key) == "true" for key in ("amsgrad", "maximize")}
    method, s, lr = meta["method"], o["scale"], o["lr"]
    adam = Factored(o) if method == "factored" else Adam(o)
    other, momentum = Adam(o), (0.0, 0.0)
    a, b = tensors["A.0"], tensors["B.0"]
    for t in range(1, int(meta["steps"]) + 1):
        g = tensors[f"g.{t}"] * (-1 if o["maximize"] else 1)
        ga, gb = s * b.T @ g, s * g @ a.T
        if method == "lora":
            da, db = adam(ga), other(gb)
        else:
            da, db, e = closed_form(a, b, ga, gb, o)
        if method == "sgd":
            da, db = momentum = o["momentum"] * momentum[0] + da, o["momentum"] * momentum[1] + db
        elif method == "efficient":
            da, db = adam(da), other(db)
        elif method in ("full", "factored"):
            quirk = "quirk" in meta and t > 1
            n = adam(e, bf16(e).astype(float) ** 2) if quirk else adam(e)
            da, db, _ = closed_form(a, b, s * b.T @ n, s * n @ a.T, o)
        da, db = lr * da, lr * o["lr_ratio"] * db
        larger = (da, a) if np.linalg.norm(a) >= np.linalg.norm(b) else (db, b)
        moved, size = map(np.linalg.norm, larger)
        if size > 0 and moved / size > o["update_clip"]:
            da, db = (x * o["update_clip"] * size / moved for x in (da, db))
        w = 0.0 if method == "sgd" else o["weight_decay"]
        keep = 1 - lr * w, 1 - lr * o["lr_ratio"] * w
        if method in ("full", "factored"):
            keep = (np.sqrt(1 - lr * w),) * 2
        a, b = keep[0] * a - da, keep[1] * b - db
        if method == "factored":
            adam.carry(a, b, o["damping"])
        yield t, a, b


DEFAULTS = {"lr_ratio": 1, "momentum": 0, "update_clip": "inf"}
NUMBERS = {"scale", "lr", "beta1", "beta2", "eps", "weight_decay"} | DEFAULTS.keys()


def worst(path):
    meta, tensors = load(path)
    return max(
        np.linalg.norm(x - ref) / (np.linalg.norm(ref) or 1)
        for t, a, b in follow(meta, tensors)
        for x, ref in ((a, tensors[f"A.{t}"]), (b, tensors[f"B.{t}"]))
    ), meta["method"]


def main(folder):
    index = json.loads((folder / "index.json").read_text())
    found = [
        (*worst(folder / v["file"]), v) for v in index["vectors"] if v["result"] == "valid"
    ]
    for method in sorted({method for _, method, _ in found}):
        print(f"{max(e for e, m, _ in found if m == method):8.1e}  {method}")
    for error, _, vector in sorted(found, key=lambda x: -x[0] / x[2]["tolerance"])[:10]:
        print(f"{error:8.1e}  {vector['file']} (tolerance {vector['tolerance']:.0e})")
    failed = [v["file"] for e, _, v in found if not e <= v["tolerance"]]
    print(f"{len(found)} vectors, {len(failed)} not followed", *failed, sep="\n  ")
    return bool(failed)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent / "vectors"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else here))
