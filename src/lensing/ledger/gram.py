"""What one pass keeps of vectors and errors: sums of products by group of documents, of which the lines are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK = 1 << 22  # numbers widened to float64 at a time


@dataclass(eq=False)
class Gram:
    """Of rows x, shifted by a fixed vector, and errors e = x - x_hat: n, sums, and sums of products, in float64.

    `x` [d], `e` [d]; `xx` [d, d] is sum x x', `xe` [d, d] sum x e'; `ee` [d] sum e^2. `b` and `bb` are the sum
    and the sum of squared lengths of the errors of better codes (see `lensing.ledger.variance`).
    """

    n: int
    x: Float64[Tensor, " d"]
    e: Float64[Tensor, " d"]
    xx: Float64[Tensor, "d d"]
    xe: Float64[Tensor, "d d"]
    ee: Float64[Tensor, " d"]
    b: Float64[Tensor, " d"]
    bb: float

    @classmethod
    def none(cls, d: int) -> Gram:
        """Of no rows."""
        row, square = (torch.zeros(*shape, dtype=torch.float64) for shape in ((d,), (d, d)))
        return cls(0, row, row.clone(), square, square.clone(), row.clone(), row.clone(), 0.0)

    def add(self, x: Float[Tensor, "rows d"], e: Float[Tensor, "rows d"], better: Float[Tensor, "rows d"]) -> None:
        """Take in rows, which are shifted already, their errors, and those of better codes."""
        for some, error, other in zip(*(t.split(max(CHUNK // x.shape[1], 1)) for t in (x, e, better)), strict=True):
            a, c, o = some.double(), error.double(), other.double()
            self.n += len(a)
            self.x += a.sum(0)
            self.e += c.sum(0)
            self.xx += a.T @ a
            self.xe += a.T @ c
            self.ee += c.square().sum(0)
            self.b += o.sum(0)
            self.bb += float(o.square().sum())

    def __add__(self, other: Gram) -> Gram:
        return Gram(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def total(grams: Iterable[Gram]) -> Gram:
    """The sums of several groups together."""
    first, *rest = grams
    for gram in rest:
        first = first + gram
    return first
