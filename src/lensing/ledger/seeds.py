"""What of the error every training makes, and what each makes by chance: dictionaries that differ in their seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lensing.ledger.variance import CLOSES, GROUPS, Line

AT_LEAST = 2  # dictionaries


@final
@dataclass(frozen=True)
class Seeds:
    """The mean FVU of several dictionaries, split: `systematic`, the mean over pairs of E<e_j, e_k>, and the rest.

    All over E|x - mu|^2. `ensemble` is the FVU of the mean of their outputs, which is systematic + run-specific / K
    exactly (bias and variance): computed from the rows and checked. The systematic part is an upper bound on what these
    dictionaries can never learn, not an estimate of it: they may all miss what a wider one would find.
    """

    dictionaries: tuple[str, ...]
    fvu: Line
    systematic: Line
    run_specific: Line
    ensemble: float


class SeedSums:
    """Sums of products of the errors of K dictionaries, by group of documents."""

    def __init__(self, k: int) -> None:
        self.products = torch.zeros(GROUPS, k, k, dtype=torch.float64)
        self.mean = torch.zeros(GROUPS, dtype=torch.float64)

    def add(self, group: int, errors: Float[Tensor, "k rows d"]) -> None:
        """Take in the errors of all dictionaries in some rows of one group."""
        wide = errors.double()
        flat = wide.flatten(1)
        self.products[group] += flat @ flat.T
        self.mean[group] += wide.mean(0).square().sum()

    def account(self, names: tuple[str, ...], size: Float64[Tensor, " groups"]) -> Seeds:
        """Return the account; `size` is sum |x - mu|^2 of every group."""
        k = len(names)

        def lines(kept: Tensor) -> Float64[Tensor, " 3"]:
            products, whole = self.products[kept].sum(0), size[kept].sum()
            total = products.diagonal().mean()
            systematic = (products.sum() - products.diagonal().sum()) / (k * (k - 1))
            return torch.stack([total, systematic, total - systematic]) / whole

        every = torch.ones(GROUPS, dtype=torch.bool)
        found = lines(every)
        left = []
        for out in range(GROUPS):
            some = every.clone()
            some[out] = False
            left.append(lines(some))
        spread = torch.stack(left)
        se = ((GROUPS - 1) / GROUPS * (spread - spread.mean(0)).square().sum(0)).sqrt()
        ensemble = float(self.mean.sum() / size.sum())
        gap = abs(float(found[1] + found[2] / k) - ensemble)
        assert gap <= CLOSES * max(abs(float(found[0])), 1e-30), f"the ensemble misses its identity by {gap:g}"
        rows = [
            Line(name, float(v), float(s))
            for name, v, s in zip(("FVU, mean", "systematic", "run-specific"), found, se, strict=True)
        ]
        return Seeds(names, rows[0], rows[1], rows[2], ensemble)
