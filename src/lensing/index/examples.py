"""Examples of a latent: distinct contexts, the strongest first, then some from each true quantile of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
SAME = 5  # two contexts whose last tokens up to the peak agree in so many are one


@dataclass(frozen=True, eq=False)
class Groups:
    """The examples of one latent.

    `row` are the peaks' rows, `group` their groups: 0 the strongest, then quantiles from the highest down. For each
    group `edges` [groups, 2] are the lowest and highest peak, `n` the distinct contexts in it (of which examples are
    drawn), `mass` the share of the latent's whole activation that lies within its edges, counted by tokens.
    """

    row: Array
    group: Array
    edges: Array
    n: Array
    mass: Array


def tails(tokens: Array, piece: Array) -> Array:
    """A number for each row that is the same where the last `SAME` tokens up to it are, within their pieces."""
    found = np.zeros(len(tokens), dtype=np.uint64)
    for back in range(SAME):
        word = np.zeros(len(tokens), dtype=np.uint64)
        word[back:] = tokens[: len(tokens) - back].astype(np.uint64) + np.uint64(1)
        if back:
            word[back:][piece[back:] != piece[:-back]] = 0
            word[:back] = 0
        found = _mixed(found ^ _mixed(word + np.uint64(back)))
    return found


def peaks(row: Array, value: Array, piece: Array, tail: Array) -> Array:
    """Places of the distinct contexts' peaks in `row`, the strongest first: one for each piece and each tail.

    Among equals the earliest counts.
    """
    order = np.lexsort((row, -value))
    for key in (piece, tail):
        _, first = np.unique(key[row[order]], return_index=True)
        order = order[np.sort(first)]
    return order


def choose(
    row: Array, value: Array, piece: Array, tail: Array, *, top: int, quantiles: int, each: int, seed: int
) -> Groups:
    """Choose the `top` strongest contexts and `each` from every one of `quantiles` equal parts of the rest."""
    order = peaks(row, value, piece, tail)
    strongest, rest = order[:top], order[top:]
    parts = [part for part in np.array_split(rest, quantiles) if len(part)]
    draw = np.random.default_rng(seed)
    kept = [strongest]
    for part in parts:
        some = draw.permutation(len(part))[:each]
        kept.append(part[np.sort(some)])
    members = [strongest, *parts]
    edges = np.array([[value[m[-1]], value[m[0]]] for m in members if len(m)], dtype=np.float32).reshape(-1, 2)
    total = float(value.sum(dtype=np.float64)) or 1.0
    mass = [float(value[(value >= low) & (value <= high)].sum(dtype=np.float64)) / total for low, high in edges]
    return Groups(
        row=np.concatenate([row[k] for k in kept]), group=np.repeat(np.arange(len(kept)), [len(k) for k in kept]),
        edges=edges, n=np.array([len(m) for m in members if len(m)], dtype=np.int64),
        mass=np.array(mass, dtype=np.float64),
    )  # fmt: skip


def _mixed(x: Array) -> Array:
    """Spread the bits of 64-bit numbers (splitmix64)."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
