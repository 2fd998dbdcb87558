"""How many of a text's concepts it takes to explain where a unit is strongest: a greedy set cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.errors import UsageError

SHARE, LIFT, TOP = 0.8, 5.0, 0.01


@dataclass(frozen=True)
class Cover:
    """Concepts, in the order chosen, whose union covers the share `covered` of `rows` top rows.

    `count` is how many were needed, None where all that qualify together cover too little (`names` then holds them).
    """

    names: tuple[str, ...]
    count: int | None
    covered: float
    rows: int


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of every row: integer codes, each column with the names of the codes that stand for a concept.

    Held this way, thousands of concepts over many rows need no dense table.
    """

    columns: tuple[tuple[np.ndarray, dict[int, str]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every concept, column after column."""
        return tuple(name for _, table in self.columns for name in table.values())

    def frequency(self) -> Float[Tensor, " concepts"]:
        """Share of all rows that each concept is on in, in the order of `names`."""
        parts = []
        for codes, table in self.columns:
            count = np.bincount(codes, minlength=max(table, default=0) + 1)
            parts.append(count[list(table)] / max(len(codes), 1))
        return torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0, dtype=torch.float64)

    def of(self, rows: Bool[Tensor, " rows"]) -> Bool[Tensor, "chosen concepts"]:
        """Which concepts are on in the chosen rows."""
        chosen = rows.cpu().numpy()
        parts = [codes[chosen][:, None] == np.array(list(table), dtype=np.int64) for codes, table in self.columns]
        return torch.from_numpy(np.concatenate(parts, axis=1)) if parts else torch.zeros(int(rows.sum()), 0).bool()


def top_rows(values: Float[Tensor, " rows"], share: float = TOP) -> Bool[Tensor, " rows"]:
    """Return the `share` of rows where `values` is largest, at least one, and never one where it is not positive."""
    n = min(max(round(share * len(values)), 1), int((values > 0).sum()))
    top = torch.zeros(len(values), dtype=torch.bool)
    top[values.argsort(descending=True, stable=True)[:n]] = True
    return top


def concepts_needed(
    top: Bool[Tensor, " rows"],
    candidates: Labels | Bool[Tensor, "rows concepts"],
    names: Sequence[str] | None = None,
    *,
    share: float = SHARE,
    lift: float = LIFT,
) -> Cover:
    """Choose concepts greedily, each time the one that covers most of what is left, until `share` is covered.

    A concept qualifies if it is at least `lift` times as frequent among the top rows as in all rows. `candidates` may
    be a dense table with `names` for its columns. Greedy is at most 1 + ln(rows) times the smallest number. Ties go to
    the more telling concept (the rarer one in all rows), then to the first.

    Raises: UsageError: a table with another number of rows.
    """
    if isinstance(candidates, Labels):
        names, frequency, hits = candidates.names, candidates.frequency(), candidates.of(top)
    else:
        if candidates.shape[0] != len(top):
            raise UsageError(f"{candidates.shape[0]} rows of labels do not fit {len(top)} rows. Give one a row.")
        names = [str(i) for i in range(candidates.shape[1])] if names is None else names
        frequency, hits = candidates.double().mean(0), candidates[top]
    rows = len(hits)
    if not rows:
        return Cover((), None, 0.0, 0)
    # the margin keeps rounding from refusing a concept that is exactly `lift` times as frequent
    fits = (hits.double().mean(0) >= lift * frequency * (1 - 1e-9)) & (frequency > 0)
    left = hits & fits
    covered, chosen = torch.zeros(rows, dtype=torch.bool), []
    need = share * rows - 1e-9
    while int(covered.sum()) < need:
        gain = left.sum(0)
        if not len(gain) or int(gain.max()) == 0:
            return Cover(tuple(chosen), None, int(covered.sum()) / rows, rows)
        ties = (gain == gain.max()).nonzero()[:, 0]
        best = int(ties[frequency[ties].argmin()])
        chosen.append(names[best])
        covered |= left[:, best]
        left = left & ~covered[:, None]
    return Cover(tuple(chosen), len(chosen), int(covered.sum()) / rows, rows)
