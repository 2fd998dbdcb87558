"""The choice of active latents where several processes hold some of the latents, or read some of the rows, each.

Every process finds its own candidates; their values are gathered, and each decides alike. Of equal values the lower
row, then the lower latent is kept, as in one process.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.kernels import Pattern, pre_at
from lensing.dictionary.select import top_pattern
from lensing.dist import Group, World

ROW_BITS = 24  # of a row's number within one process, in the order of ties


def top_of_all(
    x: Float[Tensor, "rows d_in"], weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], k: int,
    latents: Group, *, quick: bool = False,
) -> Pattern:  # fmt: skip
    """The places of this process among the `k` largest positive pre-activations of every row over all processes."""
    if latents.size == 1:
        return top_pattern(x, weight, bias, k, quick=quick)
    if len(weight):
        found = top_pattern(x, weight, bias, min(k, len(weight)), quick=quick)
    else:
        start = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        found = Pattern(start, torch.zeros(0, dtype=torch.int32, device=x.device), 0)
    value = found.pre if found.pre is not None else pre_at(x, weight, bias, found)
    place = torch.arange(len(value), device=x.device) - found.indptr[found.row_of]
    mine = value.new_full((len(x), k), -torch.inf)
    mine[found.row_of, place] = value
    rows = latents.gather(mine)
    least = torch.cat(rows, 1).topk(k, 1).values[:, -1:]
    greater = torch.stack([(part > least).sum(1) for part in rows]).sum(0)
    equals = torch.stack([(part == least).sum(1) for part in rows])
    before = equals[: latents.rank].sum(0)
    spare = (k - greater - before).clamp(min=0)
    equal = (mine == least) & least.isfinite()
    kept = (mine > least) | (equal & (equal.cumsum(1) <= spare[:, None]))
    return _kept(found, kept[found.row_of, place])


class Edge:
    """The k times rows largest values of a batch whose rows and latents are dealt out over the processes of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def rows(self, mine: int) -> int:
        """Rows of the whole batch."""
        return self.world.data.total(mine)

    def lowest(self, floor: float) -> float:
        """The smallest of the processes' first guesses."""
        return -self.world.team.largest([-floor])[0]

    def total(self, mine: int) -> int:
        """Candidates of all processes."""
        return self.world.team.total(mine)

    def keep(self, found: Pattern, value: np.ndarray, wanted: int) -> tuple[np.ndarray, float]:
        """Which of this process's candidates are among the `wanted` largest of all, and the least value kept."""
        team = self.world.team
        everything = torch.cat(team.gather(torch.from_numpy(value))).numpy()
        if not len(everything):
            return np.ones(0, dtype=bool), 0.0
        if len(everything) <= wanted:
            return np.ones(len(value), dtype=bool), float(everything.min())
        least = np.partition(everything, len(everything) - wanted)[len(everything) - wanted]
        equal = value == least
        spare = wanted - int((everything > least).sum())
        if spare < int((everything == least).sum()):  # ties at the edge: the last of them go
            order = self._order(found)[torch.from_numpy(equal)]
            first = torch.cat(team.gather(order)).sort().values[:spare]
            equal[equal] = torch.isin(order, first).numpy()
        return (value > least) | equal, float(least)

    def _order(self, found: Pattern) -> Tensor:
        # a number for every place, rising by row of the whole batch, then by latent of the whole dictionary
        row = (self.world.data.rank << ROW_BITS) + found.row_of.cpu()
        columns = found.columns * self.world.latents.size
        return row * columns + self.world.latents.rank * found.columns + found.index.cpu()


def _kept(pattern: Pattern, keep: Tensor) -> Pattern:
    indptr = torch.zeros_like(pattern.indptr)
    torch.cumsum(torch.bincount(pattern.row_of[keep], minlength=pattern.rows), 0, out=indptr[1:])
    pre = pattern.pre[keep] if pattern.pre is not None else None
    return Pattern(indptr, pattern.index[keep], pattern.columns, pre)
