"""FVU of a table that knows nothing but the token, or the last two: what a dictionary has to beat."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.errors import UsageError
from lensing.measure.fvu import FVU

CHUNK = 16_384  # rows whose reconstruction is held at once


def token_table_fvu(h: Float[Tensor, "rows d_in"], token: Int[Tensor, " rows"], train: Bool[Tensor, " rows"]) -> float:
    """FVU, on the rows outside `train`, of the mean row of each token over the rows inside (a dictionary of L0 1).

    A token that no training row has gets the mean of all training rows.

    Raises: UsageError: lengths that differ, or no row on one of the two sides.
    """
    _check(h, train, token)
    rows, place = _token_rows(h, token, train)
    return _fvu(h, ~train, lambda part: rows[place[part]])


def bigram_table_fvu(
    h: Float[Tensor, "rows d_in"],
    token: Int[Tensor, " rows"],
    previous: Int[Tensor, " rows"],
    train: Bool[Tensor, " rows"],
) -> float:
    """FVU, on the rows outside `train`, of the mean row of each pair (previous token, token).

    The mean of a pair that n >= 2 training rows have is drawn towards its token's row, with weight n / (n + 1); a pair
    seen once or never takes the token's row, and so on as in `token_table_fvu`.

    Raises: UsageError: lengths that differ, or no row on one of the two sides.
    """
    _check(h, train, token, previous)
    tokens, place = _token_rows(h, token, train)
    key = previous.long() * (int(token.max()) + 1) + token.long()
    pairs, pair = key.unique(return_inverse=True)
    count = torch.bincount(pair[train], minlength=len(pairs))
    kept = count >= 2
    number = torch.where(kept, kept.cumsum(0) - 1, -1)[pair]  # -1: no row of its own
    mine = train & (number >= 0)
    sums = torch.zeros(int(kept.sum()), h.shape[1], dtype=torch.float64)
    token_of = torch.zeros(len(sums), dtype=torch.int64)
    token_of[number[mine]] = place[mine]
    _add(sums, h, number, mine)
    rows = ((sums + tokens[token_of]) / (count[kept] + 1)[:, None].double()) if len(sums) else sums

    def table(part: Tensor) -> Tensor:
        out = tokens[place[part]]
        own = number[part] >= 0
        out[own] = rows[number[part][own]]
        return out

    return _fvu(h, ~train, table)


def _token_rows(h: Tensor, token: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """The row of every token that occurs, float64, and each row's place among them."""
    tokens, place = token.unique(return_inverse=True)
    sums = torch.zeros(len(tokens), h.shape[1], dtype=torch.float64)
    _add(sums, h, place, train)
    count = torch.bincount(place[train], minlength=len(tokens)).double()[:, None]
    mean = sums.sum(0) / count.sum()
    return torch.where(count > 0, sums / count.clamp(min=1), mean), place


def _add(sums: Tensor, h: Tensor, place: Tensor, chosen: Tensor) -> None:
    for part in chosen.nonzero()[:, 0].split(CHUNK):
        sums.index_add_(0, place[part], h[part].double())


def _fvu(h: Tensor, chosen: Tensor, table: Callable[[Tensor], Tensor]) -> float:
    meter = FVU()
    for part in chosen.nonzero()[:, 0].split(CHUNK):
        meter.add(h[part], table(part))
    return meter.value


def _check(h: Tensor, train: Tensor, *others: Tensor) -> None:
    lengths = [len(t) for t in (train, *others)]
    if set(lengths) != {len(h)}:
        raise UsageError(f"{lengths} marks and tokens do not fit {len(h)} rows. Give one of each a row.")
    if bool(train.all()) or not bool(train.any()):
        raise UsageError(f"{int(train.sum())} of {len(h)} rows are for training. Leave some on both sides.")
