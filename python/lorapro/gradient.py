"""The gradient g = dL/dW of a linear layer, as products that never form it where tokens are few."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .torch_backend.precision import at_least_f32, like, to_f64

# Tokens that are multiplied at once where g is formed: bounds the f32 copies of 16-bit tokens.
TOKENS_AT_ONCE = 4096


class Tokens(NamedTuple):
    """g = D'X, with the inputs X (T x n) of T tokens and the gradients D (T x m) of their outputs."""

    d: Tensor
    x: Tensor

    def square(self) -> float:
        """|g|^2 = <D D', X X'>."""
        return dot(self.d @ self.d.mT, self.x @ self.x.mT)

    def left(self, b: Tensor) -> Tensor:
        """B'g, r x n."""
        return like((self.d @ like(b, self.d)).mT @ self.x, b)

    def right(self, a: Tensor) -> Tensor:
        """g A', m x r."""
        return like(self.d.mT @ (self.x @ like(a, self.x).mT), a)

    def outside(self, columns: Tensor, rows: Tensor) -> Tokens:
        """(I - PB) g (I - PA), for orthonormal bases of the projectors' spaces, m x k and n x k."""
        return Tokens(without(self.d, columns), without(self.x, rows))


class Matrix(NamedTuple):
    """g itself, m x n."""

    g: Tensor

    def square(self) -> float:
        """|g|^2."""
        of_rows = to_f64(torch.linalg.vector_norm(self.g, dim=1))
        return dot(of_rows, of_rows)

    def left(self, b: Tensor) -> Tensor:
        """B'g, r x n."""
        return like(like(b, self.g).mT @ self.g, b)

    def right(self, a: Tensor) -> Tensor:
        """g A', m x r."""
        return like(self.g @ like(a, self.g).mT, a)

    def outside(self, columns: Tensor, rows: Tensor) -> Matrix:
        """(I - PB) g (I - PA), for orthonormal bases of the projectors' spaces, m x k and n x k."""
        return Matrix(without(without(self.g, rows).mT, columns).mT)


class Gradient:
    """Sums g over backward passes: keeps tokens while these are fewer numbers than g has, then g itself.

    The fewer numbers are the fewer operations, too: for T tokens T^2 (m + n) against T m n.
    """

    def __init__(self, m: int, n: int) -> None:
        self.m, self.n, self.tokens = m, n, 0
        self._pieces: list[Tokens] = []
        self._sum: Tensor | None = None

    def add(self, d: Tensor, x: Tensor) -> None:
        """Adds tokens, (..., m) and (..., n)."""
        piece = Tokens(d.reshape(-1, self.m), x.reshape(-1, self.n))
        self._pieces.append(piece)
        self.tokens += len(piece.d)
        if self._sum is not None or self.tokens * (self.m + self.n) > self.m * self.n:
            self._form(at_least_f32(d.dtype))

    def _form(self, dtype: torch.dtype) -> None:
        """Adds the tokens to g and forgets them."""
        if self._sum is None:
            self._sum = self._pieces[0].d.new_zeros(self.m, self.n, dtype=dtype)
        for piece in self._pieces:
            for d, x in zip(*(torch.split(part, TOKENS_AT_ONCE) for part in piece), strict=True):
                self._sum.addmm_(d.to(self._sum).mT, x.to(self._sum))
        self._pieces = []

    def product(self) -> Tokens | Matrix:
        """g as it is now, at least in f32."""
        if self._sum is not None:
            return Matrix(self._sum)
        d, x = (torch.cat(parts) for parts in zip(*self._pieces, strict=True))
        dtype = at_least_f32(d.dtype)
        return Tokens(d.to(dtype), x.to(dtype))


def without(x: Tensor, basis: Tensor) -> Tensor:
    """x with its rows projected on the complement of a space, given by an orthonormal basis."""
    basis = like(basis, x)
    return x - x @ basis @ basis.mT


def dot(x: Tensor, y: Tensor) -> float:
    """<x, y>, summed in f64."""
    return float((to_f64(x) * to_f64(y)).sum())


def column_basis(x: Tensor) -> Tensor:
    """Orthonormal columns that span those of a thin matrix, singular values below f32's rounding aside."""
    vectors: Tensor
    vectors, values, _ = torch.linalg.svd(x, full_matrices=False)
    return vectors[:, values > torch.finfo(torch.float32).eps * values[0]]
