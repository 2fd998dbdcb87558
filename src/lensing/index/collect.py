"""The columns of an index: what is found of every latent, one after the other, put together at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lensing.index.chunks import Chunks
from lensing.index.examples import Groups, choose, tails
from lensing.index.layout import Facts
from lensing.index.words import firing_words, histogram

Array = np.ndarray
PLACES = 1 << 22  # active places of the latents that are held at once


class Text:
    """The tokens that count, in order, and the piece of text (a row of the model's batch) that each stands in."""

    def __init__(self, tokens: Array, starts: Array, vocab: int) -> None:
        self.tokens, self.starts = tokens, starts
        self.piece = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
        self.tail = tails(tokens, self.piece)
        self.said = np.bincount(tokens, minlength=vocab)

    def window(self, row: Array, before: int, after: int) -> tuple[Array, Array]:
        """First row and row after the last of the text shown around some rows, within their pieces."""
        piece = self.piece[row]
        return np.maximum(row - before, self.starts[piece]), np.minimum(row + after + 1, self.starts[piece + 1])


def collect(chunks: Chunks, text: Text, facts: Facts) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield how many latents are done, and the columns of some more of them (see `lensing.index.layout`)."""
    for first, last in chunks.blocks(PLACES):
        ptr, row, value = chunks.latents(first, last)
        found: dict[str, list[Any]] = {}
        for latent in range(last - first):
            span = slice(int(ptr[latent]), int(ptr[latent + 1]))
            for name, thing in _one(row[span], value[span], text, facts, first + latent).items():
                found.setdefault(name, []).append(thing)
        yield last, {name: _joined(name, parts) for name, parts in found.items()}


def _one(row: Array, value: Array, text: Text, facts: Facts, latent: int) -> dict[str, Any]:
    """Everything about one latent, from its active places."""
    counts, low, high = histogram(value)
    groups = choose(
        row, value, text.piece, text.tail, top=facts.top, quantiles=facts.quantiles, each=facts.each,
        seed=facts.seed + latent,
    )  # fmt: skip
    start, stop = text.window(groups.row, facts.before, facts.after)
    a, b = np.searchsorted(row, start), np.searchsorted(row, stop)
    spans = b - a
    inside = np.arange(int(spans.sum())) + np.repeat(a - (np.cumsum(spans) - spans), spans)
    words = firing_words(text.tokens, row, text.said, facts.words)
    total = value.sum(dtype=np.float64)
    return {
        "count": np.int64(len(row)), "total": total, "square": np.square(value, dtype=np.float64).sum(),
        "mean": total / max(len(row), 1), "max": value.max(initial=0.0), "histogram": counts,
        "histogram_edges": np.array([low, high], dtype=np.float32), **_group_columns(groups, facts.quantiles + 1),
        "examples": np.int64(len(groups.row)), "example_row": groups.row,
        "example_group": groups.group.astype(np.uint8), "example_active": spans,
        "active_offset": (row[inside] - np.repeat(groups.row, spans)).astype(np.int32), "active_value": value[inside],
        "word": _filled(words.token, facts.words, -1), "word_n": _filled(words.n, facts.words, 0),
        "word_precision": _filled(words.precision, facts.words, np.nan),
        "word_recall": _filled(words.recall, facts.words, np.nan),
    }  # fmt: skip


def _group_columns(groups: Groups, n: int) -> dict[str, Array]:
    return {
        "group_edges": _filled(groups.edges, n, np.nan), "group_n": _filled(groups.n, n, 0),
        "group_mass": _filled(groups.mass, n, np.nan),
    }  # fmt: skip


def _filled(values: Array, n: int, filler: Any) -> Array:
    """`values` with fillers behind, `n` in all."""
    out = np.full((n, *values.shape[1:]), filler, dtype=np.result_type(values.dtype, type(filler)))
    out[: len(values)] = values
    return out


RAGGED = ("example_row", "example_group", "example_active", "active_offset", "active_value")
WIDE = ("count", "total", "square", "group_n", "word_n", "example_row")  # kept in 64 bits
TYPES = {"histogram": np.int32, "word": np.int32, "examples": np.int64, "example_active": np.int64}


def _joined(name: str, parts: list[Any]) -> Array:
    return np.concatenate(parts) if name in RAGGED else np.stack(parts)


def together(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """Join the columns of all latents; what has a length of its own for each latent gets pointers."""
    out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for counts, pointer in (("examples", "example_ptr"), ("example_active", "active_ptr")):
        out[pointer] = np.concatenate([[0], np.cumsum(out.pop(counts))]).astype(np.int64)
    small = {np.dtype(np.float64): np.float32}
    return {
        name: array if name in WIDE else array.astype(small.get(array.dtype, TYPES.get(name, array.dtype)), copy=False)
        for name, array in out.items()
    }
