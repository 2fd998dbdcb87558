"""One coordinate of any site, looked at as a latent is: where it is strong by either sign, and on which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch

from lensing.errors import UsageError
from lensing.measure.contexts import Context, Passages, read_columns, strongest
from lensing.model.run import Model

CONTEXTS, BINS, WORDS, TOP = 12, 50, 10, 0.01  # contexts of each sign; the share of tokens counted as its top


@final
@dataclass(frozen=True)
class Unit:
    """One coordinate: moments over the text, histogram, contexts by sign, words of its top 1% by sign.

    A word is (token, places among the top, share of the word's places that are, share of the top that it is).
    """

    site: str
    index: int
    width: int
    text: str
    tokens: int
    mean: float
    std: float
    min: float
    max: float
    kurtosis: float
    histogram: tuple[int, ...]
    edges: tuple[float, float]
    top: tuple[Context, ...]
    bottom: tuple[Context, ...]
    top_words: tuple[tuple[str, int, float, float], ...]
    bottom_words: tuple[tuple[str, int, float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def unit(model: Model, text: Passages, site: str, index: int, *, contexts: int = CONTEXTS) -> Unit:
    """Return what one coordinate of a site (a neuron of `mlp_post`, a dimension of the stream) does on a text.

    Raises: UsageError: no such coordinate. SiteError: no such site.
    """
    name = model.resolve(site).name
    width = model.width(name)
    if not 0 <= index < width:
        raise UsageError(f"There is no unit {index} at {name}. Give 0 to {width - 1}.")
    column = read_columns(model, text, [(name, lambda rows: rows[:, index : index + 1])])[0][:, 0]
    values = column[text.counted].double()
    ids = text.ids[text.counted].numpy()
    low, high = float(values.min()), float(values.max())
    counts = np.histogram(values.numpy(), bins=BINS, range=(low, high))[0] if low < high else np.array([len(values)])
    centred = values - values.mean()
    spread = float(centred.square().mean())
    top, bottom = (strongest(model, text, column, contexts, sign=sign) for sign in (1, -1))
    return Unit(
        site=name, index=index, width=width, text=text.name, tokens=len(values), mean=float(values.mean()),
        std=spread**0.5, min=low, max=high,
        kurtosis=float(centred.pow(4).mean()) / spread**2 if spread else float("nan"),
        histogram=tuple(counts.tolist()), edges=(low, high), top=top, bottom=bottom,
        top_words=_words(model, values, ids), bottom_words=_words(model, -values, ids),
    )  # fmt: skip


def _words(model: Model, values: torch.Tensor, ids: np.ndarray) -> tuple[tuple[str, int, float, float], ...]:
    """The commonest words of the tokens with the largest values, positive ones only."""
    k = max(int(len(values) * TOP), 1)
    best = values.topk(k)
    chosen = best.indices[best.values > 0].numpy()
    if not len(chosen):
        return ()
    found, n = np.unique(ids[chosen], return_counts=True)
    order: Sequence[int] = np.argsort(-n, kind="stable")[:WORDS].tolist()
    return tuple(
        (model.tok_str([int(found[i])])[0], int(n[i]), float(n[i] / (ids == found[i]).sum()), float(n[i] / len(chosen)))
        for i in order
    )
