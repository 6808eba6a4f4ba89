"""LoRA-Pro's closed form for a batch of adapters; the first dimension of every tensor counts them.

' is the transpose, g the gradient of W, SB = B'B, SA = A A', and S^+ = R R' a damped inverse. Theorems
are those of arXiv 2407.18242, laws those of the book.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Eigenvalues count as zero up to this many of their rounding errors, as on every backend.
NULL_EIGENVALUE = 100.0

# A kind and its number, which "none" does not have.
Damping = tuple[str, float]


class Gram(NamedTuple):
    """S = Q diag(values) Q', r x r, and the root R of its damped inverse R R'.

    Multiplying by R twice loses the condition number of the factor in accuracy; by R R' once, it
    would be its square.
    """

    values: Tensor
    vectors: Tensor
    root: Tensor

    @classmethod
    def of(cls, values: Tensor, vectors: Tensor, damping: Damping, k: int) -> Gram:
        """From the eigen-decomposition of S, whose entries are sums of k products.

        none: 1 / l, and 0 for l <= 100 k eps l_max. cutoff c: 1 / l, and 0 for l <= c l_max.
        absolute d: 1 / (l + d). relative c: 1 / (l + c l_max). The inverse of 0 is 0 (law 11).
        """
        largest = values.amax(-1, keepdim=True).clamp_min(0)
        kind, number = damping
        if kind in ("none", "cutoff"):
            share = NULL_EIGENVALUE * k * torch.finfo(values.dtype).eps if kind == "none" else number
            inverted, keep = values, values > share * largest
        else:
            inverted = values + number * (largest if kind == "relative" else 1)
            keep = inverted > 0
        scales = torch.where(keep, inverted, math.inf).rsqrt()
        return cls(values, vectors, vectors * scales.unsqueeze(-2))


class Tangent(NamedTuple):
    """The tangent space {B Y + Z A} at the factors A (r x n) and B (m x r).

    `left` = B RB (m x r) and `right` = RA' A (r x n) have orthonormal columns and rows, zero ones
    and damping aside: PB = left left', PA = right' right. A matrix G to be projected is given by
    p = left' G and q = G right'.
    """

    a: Tensor
    b: Tensor
    gram_a: Gram
    gram_b: Gram
    left: Tensor
    right: Tensor

    @classmethod
    def at(cls, a: Tensor, b: Tensor, damping: Damping) -> Tangent:
        values, vectors = torch.linalg.eigh(torch.cat([a @ a.mT, b.mT @ b]))
        eigen_a, eigen_b = zip(values.chunk(2), vectors.chunk(2), strict=True)
        gram_a = Gram.of(*eigen_a, damping, a.shape[-1])
        gram_b = Gram.of(*eigen_b, damping, b.shape[-2])
        return cls(a, b, gram_a, gram_b, b @ gram_b.root, gram_a.root.mT @ a)

    def of_factor_gradients(self, grad_a: Tensor, grad_b: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """p and q of G = g, from gA = s B'g and gB = s g A'."""
        return self.gram_b.root.mT @ grad_a / s, grad_b @ self.gram_a.root / s

    def of_product(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """p and q of G = left right."""
        return (self.left.mT @ left) @ right, left @ (right @ self.right.mT)

    def outside(self, y: Tensor) -> Tensor:
        """(I - PB) y."""
        return y - self.left @ (self.left.mT @ y)

    def coordinates(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Y = SB^+ B'G and Z = (I - PB) G A' SA^+. Of G = g these are s U and s V."""
        return self.gram_b.root @ p, self.outside(q @ self.gram_a.root.mT)

    def projection(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """L (m x 2r) and R (2r x n), no larger than G, with L R = B Y + Z A. Of G = g it is E."""
        return torch.cat([self.left, self.outside(q)], -1), torch.cat([p, self.right], -2)

    def closed_form(self, x: str, s: float, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """dA = U + X A and dB = V - B X (theorem 2.1)."""
        u, v = (y / s for y in self.coordinates(p, q))
        if x == "zero":
            return u, v
        if x == "symmetric":  # X = -(1 / 2 s^2) SB^+ B'gB SA^+
            x_matrix = -0.5 / s * (self.gram_b.root @ (self.left.mT @ q) @ self.gram_a.root.mT)
        else:
            x_matrix = sylvester(self.gram_b, self.gram_a, -u @ self.a.mT)
        return u + x_matrix @ self.a, v - self.b @ x_matrix


def sylvester(gram_b: Gram, gram_a: Gram, c: Tensor) -> Tensor:
    """The X of least norm with SB X + X SA = C, by both eigen-decompositions (theorem 2.3)."""
    sums = gram_b.values.unsqueeze(-1) + gram_a.values.unsqueeze(-2)
    largest = sums.amax((-2, -1), keepdim=True)
    null = sums <= NULL_EIGENVALUE * c.shape[-1] * torch.finfo(c.dtype).eps * largest
    rotated = gram_b.vectors.mT @ c @ gram_a.vectors
    return gram_b.vectors @ (rotated / torch.where(null, math.inf, sums)) @ gram_a.vectors.mT
