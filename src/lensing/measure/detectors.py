"""The latents that only detect a word: a rule that sees nothing but the current token predicts where they fire."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from lensing.dictionary.codes import Codes
from lensing.measure.information import Fires, column, halves, token_information

F1, MIN_FIRES = 0.9, 20


@dataclass(frozen=True)
class WordLatent:
    """One latent as a detector of words: F1 on documents not used to choose the words.

    `f1_set` is of "the token is one of `n_words` words" against "fires", `f1_one` of "the token is `word`" (an id);
    `information` is the share of H(on) that the token tells.
    """

    latent: int
    fires: int
    f1_set: float
    n_words: int
    f1_one: float
    word: int
    information: float


@dataclass(frozen=True)
class WordDetectors:
    """Which latents only detect a word: a rule that sees the current token alone predicts them with F1 of `f1`."""

    latents: tuple[WordLatent, ...]
    f1: float
    min_fires: int

    @property
    def alive(self) -> int:
        """Number of latents that fire often enough to be judged."""
        return len(self.latents)

    @property
    def share(self) -> float:
        """Share of alive latents that a set of words predicts; NaN where none is alive."""
        return self._mean([x.f1_set >= self.f1 for x in self.latents])

    @property
    def share_one(self) -> float:
        """Share of alive latents that a single word predicts."""
        return self._mean([x.f1_one >= self.f1 for x in self.latents])

    @property
    def se(self) -> float:
        """Binomial standard error of `share`, over latents."""
        return float(np.sqrt(self.share * (1 - self.share) / max(self.alive, 1)))

    @property
    def median_information(self) -> float:
        """Median over alive latents of the share of H(on) that the token tells."""
        return float(np.median([x.information for x in self.latents])) if self.latents else float("nan")

    @staticmethod
    def _mean(values: list[bool]) -> float:
        return float(np.mean(values)) if values else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the shares included."""
        names = ("alive", "share", "se", "share_one", "median_information")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in names}


def word_detectors(
    codes: Codes,
    token: Int[np.ndarray, " rows"],
    document: Int[np.ndarray, " rows"],
    *,
    f1: float = F1,
    min_fires: int = MIN_FIRES,
    seed: int = 0,
) -> WordDetectors:
    """Judge which latents only detect a word: the words are chosen on half of the documents, scored on the other.

    The set of a latent is the tokens t with P(fires | t) > 1/2; the one word is that of highest F1. Latents with fewer
    than `min_fires` firing rows, or fewer than half as many in either half, are not alive and left out.

    Raises: UsageError: tokens or documents of another number than rows.
    """
    token, document = column(codes, token, "tokens"), column(codes, document, "documents")
    table, second = Fires.of(codes), halves(document, seed)
    n = int(token.max()) + 1 if len(token) else 0
    latent, word, both = table.pairs(token)
    _, _, late = table.pairs(token, second)
    seen, seen_late = np.bincount(token, minlength=n), np.bincount(token, weights=second, minlength=n)
    early, seen_early, size = both - late, seen - seen_late, len(table.alive)

    def total(weight: np.ndarray) -> np.ndarray:
        return np.bincount(latent, weights=weight, minlength=size)

    fires_early, fires_late = total(early), total(late)
    inside = 2 * early > seen_early[word]
    words, hits, said = total(inside), total(inside * late), total(inside * seen_late[word])
    score = 2 * early / np.maximum(seen_early[word] + fires_early[latent], 1)
    # the last of each latent's pairs in ascending order of score (the lower id where they tie) is its best word
    order = np.lexsort((-word, score, latent))
    best = order[np.append(np.diff(latent[order]) > 0, True)] if len(order) else order
    one = 2 * late[best] / np.maximum(seen_late[word[best]] + fires_late, 1)
    many = 2 * hits / np.maximum(said + fires_late, 1)
    share = token_information(codes, token).ratio
    enough = (table.fires >= min_fires) & (np.minimum(fires_early, fires_late) >= min_fires / 2)
    rows = tuple(
        WordLatent(
            int(table.alive[j]), int(table.fires[j]), float(many[j]), int(words[j]), float(one[j]),
            int(word[best[j]]), float(share[j]),
        )
        for j in np.flatnonzero(enough)
    )  # fmt: skip
    return WordDetectors(rows, f1, min_fires)
