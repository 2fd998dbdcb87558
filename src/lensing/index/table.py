"""All latents of an index as a table: sort and filter by any statistic, without reading more than the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np

from lensing.errors import UnknownNameError, UsageError
from lensing.index.index import Index

Array = np.ndarray
# name: what it is, as a tooltip says it
COLUMNS = {
    "latent": "the latent's number",
    "count": "tokens on which it fires",
    "density": "share of tokens on which it fires",
    "mean": "mean activation where it fires",
    "max": "largest activation",
    "skew": "largest over mean activation",
    "precision": "of its commonest word's places, the share on which it fires",
    "recall": "share of its firing that is on its commonest word",
    "decoder_cosine": "cosine of its direction with the nearest other one",
    "correlation": "largest correlation with another latent",
    "logit": "largest logit that it speaks for",
    "label_f1": "F1 with its label on text not used to choose it",
}


@final
@dataclass(frozen=True)
class Page:
    """Some rows of a table: `total` latents pass the filters, `columns` hold those asked for, in order."""

    total: int
    latents: tuple[int, ...]
    columns: dict[str, tuple[float | None, ...]]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def column(index: Index, name: str, extra: Mapping[str, Array] | None = None) -> Array:
    """Return one statistic of all latents, NaN where a latent has none."""
    if extra is not None and name in extra:
        return extra[name]
    if name not in COLUMNS:
        raise UnknownNameError("column", name, COLUMNS)
    return _column(index, name)


@lru_cache(maxsize=64)
def _column(index: Index, name: str) -> Array:
    if name == "latent":
        return np.arange(index.d_sae)
    if name in ("count", "density", "mean", "max"):
        return np.asarray(index.array(name))
    if name == "skew":
        mean = np.asarray(index.array("mean"), dtype=np.float64)
        return np.divide(index.array("max"), mean, out=np.full(index.d_sae, np.nan), where=mean > 0)
    if name in ("precision", "recall"):
        return np.asarray(index.array(f"word_{name}")[:, 0])
    if name in ("decoder_cosine", "correlation"):
        return np.asarray(index.array(f"near_{name.removesuffix('_cosine')}_value")[:, 0])
    if name == "logit" and index.has("promoted_value"):
        return np.asarray(index.array("promoted_value")[:, 0])
    return np.full(index.d_sae, np.nan)


def page(
    index: Index,
    *,
    sort: str = "-density",
    where: Sequence[tuple[str, float | None, float | None]] = (),
    among: Sequence[int] | None = None,
    columns: Sequence[str] = ("count", "density", "mean", "max"),
    offset: int = 0,
    limit: int = 100,
    extra: Mapping[str, Array] | None = None,
) -> Page:
    """Return some latents, filtered and sorted: `where` are (column, least, most), None being no bound.

    `sort` is a column, with - in front the largest first; latents without the number come last, ties by number.
    `among` keeps only these latents. A latent without a number passes no bound on it.
    """
    if offset < 0 or not 1 <= limit <= 10_000:
        raise UsageError(
            f"{limit} rows from {offset} on cannot be shown. Give an offset of 0 or more, 1 to 10,000 rows."
        )
    kept = np.ones(index.d_sae, dtype=bool)
    if among is not None:
        kept[:] = False
        kept[[i for i in among if 0 <= i < index.d_sae]] = True
    for name, least, most in where:
        values = column(index, name, extra)
        with np.errstate(invalid="ignore"):
            if least is not None:
                kept &= values >= least
            if most is not None:
                kept &= values <= most
    latents = np.flatnonzero(kept)
    keys = column(index, sort.removeprefix("-"), extra)
    keys = keys[latents] if len(latents) < len(keys) else keys
    chosen = latents[_first(-keys if sort.startswith("-") else keys, offset + limit)][offset:]
    found = {}
    for name in columns:
        values = column(index, name, extra)[chosen].tolist()
        found[name] = tuple(None if v != v else v for v in values)
    return Page(len(latents), tuple(chosen.tolist()), found)


def _first(keys: Array, n: int) -> Array:
    """Places of the `n` smallest keys in order, NaN last, ties in order of place; without sorting all of them."""
    n = min(n, len(keys))
    if n < len(keys) // 8:
        bar = np.partition(keys, n - 1)[n - 1]  # numpy puts NaN last
        if bar == bar:
            below, equal = np.flatnonzero(keys < bar), np.flatnonzero(keys == bar)
            some = np.concatenate([below, equal[: n - len(below)]])
            return some[np.lexsort((some, keys[some]))]
    return np.argsort(keys, kind="stable")[:n]
