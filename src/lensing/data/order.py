"""The order of rows: a pure function of documents and seed, the same for a running model and for a store on disk.

Training documents are permuted once and cut into shards. An epoch reads the shards (the first one as they lie, later
ones permuted), mixes a few at a time, and permutes the rows of these as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensing.data.rows import mix_seed

SHUFFLE_ROWS = 131_072
SHUFFLE_BYTES = 512 << 20


@dataclass(frozen=True)
class Pool:
    """Shards whose rows are mixed together: its number in the epoch, its shards, and how many rows they have."""

    epoch: int
    number: int
    shards: tuple[int, ...]
    rows: int


@dataclass(frozen=True)
class Order:
    """The rows of each shard, how many shards are mixed at a time, and the seed: all that decides an epoch's order."""

    shard_rows: tuple[int, ...]
    mixed: int
    seed: int

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return sum(self.shard_rows)

    def pools(self, epoch: int) -> list[Pool]:
        """Return the pools of an epoch in order."""
        n = len(self.shard_rows)
        order = range(n) if epoch == 0 else permutation(n, self.seed, epoch).tolist()
        parts = [tuple(order[i : i + self.mixed]) for i in range(0, n, self.mixed)]
        return [Pool(epoch, k, part, sum(self.shard_rows[i] for i in part)) for k, part in enumerate(parts)]

    def visits(self, start: int) -> Iterator[tuple[Pool, int]]:
        """Yield pools for ever from row number `start` on, each with the number of its rows to leave out."""
        epoch, skip = divmod(start, self.rows)
        while True:
            for pool in self.pools(epoch):
                if skip < pool.rows:
                    yield pool, skip
                skip = max(skip - pool.rows, 0)
            epoch += 1

    def mix(self, pool: Pool) -> Tensor:
        """Return the order in which a pool's rows are read, int64 [rows]."""
        return torch.from_numpy(permutation(pool.rows, self.seed, pool.epoch, pool.number))


def deal(
    order: Order, visits: Iterator[tuple[Pool, int, dict[str, Tensor]]], batch: int
) -> Iterator[dict[str, Tensor]]:
    """Yield float32 batches of mixed rows from pools and their rows; a batch may span several pools."""
    waiting: list[dict[str, Tensor]] = []
    held = 0
    for pool, skip, tensors in visits:
        for part in order.mix(pool)[skip:].split(batch):
            # index_select copies whole rows, which takes a quarter of the time that rows[part] takes
            waiting.append({site: rows.index_select(0, part).float() for site, rows in tensors.items()})
            held += len(part)
            if held < batch:
                continue
            whole = waiting[0]
            if len(waiting) > 1:
                whole = {site: torch.cat([rows[site] for rows in waiting]) for site in tensors}
            yield {site: rows[:batch] for site, rows in whole.items()}
            held -= batch
            waiting = [{site: rows[batch:] for site, rows in whole.items()}] if held else []
        del tensors  # or this pool would stay in memory until the one after the next


def split_pieces(parents: np.ndarray, documents: int, seed: int, held_out: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the pieces of documents for training and those held out, and the number of held-out documents.

    At least one document is held out where any share is: without, no number could be measured.
    """
    order = permutation(documents, seed, -1)
    n = min(max(round(held_out * documents), 1), documents - 1) if held_out > 0 else 0
    place = np.empty(documents, dtype=np.int64)
    place[order] = np.arange(documents)
    by_place = np.argsort(place[parents], kind="stable")
    is_held = place[parents[by_place]] >= documents - n
    return by_place[~is_held], by_place[is_held], n


def cut_shards(
    members: np.ndarray, rows: np.ndarray, seed: int, shuffle_rows: int, shard_rows: int | None
) -> tuple[list[np.ndarray], int]:
    """Permute pieces, cut them into shards, and return these and how many of them make about `shuffle_rows` rows.

    A shard has about `shard_rows` rows (None: all that are mixed at a time); no piece is split between two.
    """
    total = int(rows[members].sum())
    pools = max(round(total / shuffle_rows), 1)
    mixed = max(-(-total // (pools * shard_rows)), 1) if shard_rows is not None else 1
    return cut(members[permutation(len(members), seed, 0)], rows, pools * mixed), mixed


def cut(members: np.ndarray, rows: np.ndarray, parts: int) -> list[np.ndarray]:
    """Cut a run of pieces into at most `parts` runs of about equally many rows."""
    if not len(members):
        return []
    total = np.cumsum(rows[members])
    edges = np.searchsorted(total, np.arange(1, parts) * (int(total[-1]) / parts))
    return [part for part in np.split(members, edges) if len(part)]


def default_shuffle_rows(width: int) -> int:
    """Rows mixed at a time when nobody says: 131,072, or as many of `width` float32 numbers as fit in 512 MB."""
    return min(SHUFFLE_ROWS, max(SHUFFLE_BYTES // (4 * max(width, 1)), 4096))


def permutation(n: int, *seeds: int) -> np.ndarray:
    """Return a random order of n things, int64 [n], that depends on the seeds (from -1 up) alone."""
    generator = torch.Generator().manual_seed(mix_seed(*(seed + 1 for seed in seeds)))
    return torch.randperm(n, generator=generator).numpy()


def row_counts(parts: Sequence[np.ndarray], rows: np.ndarray) -> tuple[int, ...]:
    """Rows of each run of pieces."""
    return tuple(int(rows[part].sum()) for part in parts)
