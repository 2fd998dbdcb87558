"""What a latent's firing tells beyond the token: information in nats.

Everything is counted over pairs (latent, cell), a cell being a token or a token with a label; only pairs that occur
are held, so the cost follows the active places, not width times vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError

SHUFFLES = 2


@dataclass(frozen=True, eq=False)
class TokenInformation:
    """Per latent that fires: its number of rows `fires`, and nats of H(on) and of I(on; token).

    `plug_in` is I from the raw shares. `entropy` and `information` have the Miller-Madow correction: for H(on) and for
    H(on | token) within each token, (states seen - 1) / (2 rows) is added. `ratio` is information / entropy: 1 where
    the token decides, about 0 (either side) where it tells nothing. A token seen once looks as if it decided.
    """

    latent: Int[np.ndarray, " alive"]
    fires: Int[np.ndarray, " alive"]
    entropy: np.ndarray
    plug_in: np.ndarray
    information: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Share of H(on) that the token tells."""
        return _ratio(self.information, self.entropy)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, a list a field."""
        return {f.name: getattr(self, f.name).tolist() for f in dataclasses.fields(self)} | {
            "ratio": self.ratio.tolist()
        }


@dataclass(frozen=True)
class ClassInformation:
    """A class of concepts: how many latents it tells most about, and its median share of what the token leaves open."""

    cls: str
    latents: int
    share: float


@dataclass(frozen=True, eq=False)
class ConceptInformation:
    """Per latent that fires, in nats: I(on; label | token) by class, less its null; and what the token leaves open.

    `plug_in` and `null` are [alive, classes]: the raw figure, and its mean over shuffles of the label among rows of the
    same token. `left` is H(on | token), plug-in, the most that any label could tell.
    """

    latent: Int[np.ndarray, " alive"]
    fires: Int[np.ndarray, " alive"]
    classes: tuple[str, ...]
    plug_in: np.ndarray
    null: np.ndarray
    left: np.ndarray

    @property
    def information(self) -> np.ndarray:
        """I(on; label | token) less its null, [alive, classes]."""
        return self.plug_in - self.null

    @property
    def best(self) -> Int[np.ndarray, " alive"]:
        """The class of greatest information, as a place in `classes`."""
        return self.information.argmax(1)

    @property
    def share(self) -> np.ndarray:
        """Greatest information of any class over H(on | token); 0 where the token leaves nothing open."""
        return _ratio(self.information.max(1), self.left)

    def by_class(self, min_fires: int = 20) -> tuple[ClassInformation, ...]:
        """Say of each class how many latents it tells most about, among those that fire on `min_fires` rows."""
        enough, best, most = self.fires >= min_fires, self.best, self.information.max(1)
        found = []
        for c, name in enumerate(self.classes):
            mine = enough & (best == c) & (most > 0)
            median = float(np.median(self.share[mine])) if mine.any() else 0.0
            found.append(ClassInformation(name, int(mine.sum()), median))
        return tuple(sorted(found, key=lambda x: (-x.latents, x.cls)))

    def to_json(self) -> dict[str, Any]:
        """Return the best class of each latent with its numbers."""
        best, rows = self.best, np.arange(len(self.latent))
        return {
            "latent": self.latent.tolist(), "fires": self.fires.tolist(), "left": self.left.tolist(),
            "cls": [self.classes[c] for c in best], "information": self.information[rows, best].tolist(),
            "null": self.null[rows, best].tolist(), "share": self.share.tolist(),
        }  # fmt: skip


def token_information(codes: Codes, token: Int[np.ndarray, " rows"], n_tokens: int | None = None) -> TokenInformation:
    """Measure what the current token tells of each latent's firing (activation above zero).

    Raises: UsageError: another number of tokens than rows, or an id outside 0 to `n_tokens` - 1.
    """
    token = column(codes, token, "tokens")
    if n_tokens is not None and len(token) and not 0 <= int(token.min()) <= int(token.max()) < n_tokens:
        raise UsageError(f"Token ids run from {token.min()} to {token.max()}, not within 0 to {n_tokens - 1}.")
    table = Fires.of(codes)
    plain, mixed = table.left(token)
    raw, entropy = table.entropy(), table.entropy() + (table.fires < table.rows) / (2 * table.rows)
    return TokenInformation(
        table.alive, table.fires, entropy, raw - plain, entropy - (plain + mixed / (2 * table.rows))
    )


def concept_information(
    codes: Codes,
    token: Int[np.ndarray, " rows"],
    labels: Int[np.ndarray, "rows classes"],
    classes: Sequence[str],
    *,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> ConceptInformation:
    """Measure what the label of each class tells of each latent's firing beyond the token: I(on; label | token).

    `labels` are codes such as `Labelled.codes`, one column a class (one column alone may be given as a vector); every
    code is a value of its own, undetermined ones included. The plug-in figure is too high by chance where a label has
    many values: the null, its mean over `shuffles` of the labels among rows of the same token, says by how much.

    Raises: UsageError: tokens or labels that do not fit the rows or the classes.
    """
    token = column(codes, token, "tokens")
    labels = np.asarray(labels).reshape(len(labels), -1)
    if labels.shape != (codes.rows, len(classes)):
        raise UsageError(f"Labels {labels.shape} do not fit {codes.rows} rows and {len(classes)} classes. Give both.")
    table, draw = Fires.of(codes), np.random.Generator(np.random.PCG64(seed))
    left, _ = table.left(token)
    plug_in, null = np.zeros((2, len(table.alive), len(classes)))
    by_token = np.argsort(token, kind="stable")
    # the same few shuffles of the rows serve all classes
    moved = [np.lexsort((draw.random(codes.rows), token)) for _ in range(shuffles)]
    for c in range(len(classes)):
        values, value = np.unique(labels[:, c], return_inverse=True)
        if len(values) < 2:
            continue
        cell = token * len(values)
        plug_in[:, c] = left - table.left(cell + value)[0]
        for order in moved:
            other = np.empty_like(value)
            other[by_token] = value[order]
            null[:, c] += (left - table.left(cell + other)[0]) / shuffles
    return ConceptInformation(table.alive, table.fires, tuple(classes), plug_in, null, left)


def halves(document: Int[np.ndarray, " rows"], seed: int = 0) -> np.ndarray:
    """Return True for rows of a random half of the documents, the one that is scored on."""
    numbers, place = np.unique(document, return_inverse=True)
    return (np.random.Generator(np.random.PCG64(seed)).permutation(len(numbers)) % 2 == 1)[place]


@dataclass(frozen=True, eq=False)
class Fires:
    """Every place with an activation above zero, row after row: `counts` a row, `latent` numbered among the `alive`."""

    counts: np.ndarray
    latent: np.ndarray
    alive: np.ndarray
    fires: np.ndarray

    @classmethod
    def of(cls, codes: Codes) -> Fires:
        """Find them."""
        on = codes.value > 0
        row, index = codes.pattern.row_of[on].cpu().numpy(), codes.index[on].cpu().numpy()
        fires = np.bincount(index, minlength=codes.d_sae)
        alive = np.flatnonzero(fires)
        # numpy sorts 16-bit integers by radix, many times faster than others
        number = (np.cumsum(fires > 0) - 1).astype(np.int16 if len(alive) <= 1 << 15 else np.int64)
        return cls(np.bincount(row, minlength=codes.rows), number[index], alive, fires[alive])

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.counts)

    def entropy(self) -> np.ndarray:
        """H(on) of every latent, plug-in."""
        table = _xlogx(self.rows)
        return (table[self.rows] - table[self.fires] - table[self.rows - self.fires]) / max(self.rows, 1)

    def left(self, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """H(on | cell) of every latent, plug-in, and in how many cells it is both on and off; a cell a row."""
        _, cell = np.unique(cell, return_inverse=True)
        latent, place, k = self.pairs(cell)
        n, table, width = np.bincount(cell)[place], _xlogx(self.rows), len(self.alive)
        # a cell where the latent never fires adds nothing
        nats = np.bincount(latent, weights=table[n] - table[k] - table[n - k], minlength=width)
        return nats / max(self.rows, 1), np.bincount(latent, weights=k < n, minlength=width)

    def pairs(self, cell: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every (latent, cell) that occurs, in order, and its number of rows, or the sum of a row's `weight` there."""
        order = np.argsort(cell, kind="stable")
        counts = self.counts[order]
        starts = (np.cumsum(self.counts) - self.counts)[order]
        places = np.arange(len(self.latent)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        # rows stand in the order of their cells: a stable sort by latent then orders by latent and cell
        by_latent = np.argsort(self.latent[places], kind="stable")
        here, latent = np.repeat(cell[order], counts)[by_latent], np.repeat(np.arange(len(self.alive)), self.fires)
        changed = np.ones(len(here), dtype=bool)
        changed[1:] = (here[1:] != here[:-1]) | (latent[1:] != latent[:-1])
        first = np.flatnonzero(changed)
        if weight is None:
            return latent[first], here[first], np.diff(first, append=len(here))
        weights = np.repeat(weight[order].astype(np.float64), counts)[by_latent]
        return latent[first], here[first], np.add.reduceat(weights, first)


def _xlogx(n: int) -> np.ndarray:
    counts = np.arange(n + 1, dtype=np.float64)
    return counts * np.log(np.maximum(counts, 1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 1e-12)


def column(codes: Codes, values: Any, what: str) -> np.ndarray:
    """Return one whole number a row of codes, or refuse."""
    values = np.asarray(values).astype(np.int64)
    if values.shape != (codes.rows,):
        raise UsageError(f"{what.capitalize()} {values.shape} do not fit {codes.rows} rows. Give one a row.")
    return values
