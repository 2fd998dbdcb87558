"""Homonyms and translation: one word in two senses, another latent; one meaning in two languages, the same latent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from lensing.dictionary.codes import Codes
from lensing.errors import UnknownNameError, UsageError
from lensing.evaluation.contrast import ranked
from lensing.measure.auroc import auroc
from lensing.measure.information import column, halves

N_MIN = 10
CONFIRMED = 0.8  # AUROC between two senses, on the other half of the documents
PICKS = 0.9  # AUROC from which on a latent picks a word out of its language
LABELS = 1 << 23  # entries of the largest table of words by rows that is held at once


@dataclass(frozen=True)
class SensePair:
    """Two senses of one word: the latent of highest mean activation in each (None: none fires), chosen on one half.

    `auroc_a` is how well latent a ranks rows of sense a above those of sense b on the other half, `auroc_b` likewise;
    0.5 where there is no latent. `n_a` and `n_b` count all rows.
    """

    word: str
    sense_a: str
    sense_b: str
    n_a: int
    n_b: int
    latent_a: int | None
    latent_b: int | None
    auroc_a: float
    auroc_b: float

    @property
    def differ(self) -> bool:
        """Whether both senses have a top latent, and not the same one."""
        return None not in (self.latent_a, self.latent_b) and self.latent_a != self.latent_b


@dataclass(frozen=True)
class Homonyms:
    """All pairs of senses of all words; `null` is the share that differs with senses shuffled among a word's rows."""

    pairs: tuple[SensePair, ...]
    null: float

    @property
    def share(self) -> float:
        """Share of pairs whose top latents differ; NaN without pairs."""
        return _mean([p.differ for p in self.pairs])

    @property
    def confirmed(self) -> float:
        """Share of pairs that differ, and both latents tell the senses apart on the other half (AUROC 0.8)."""
        return _mean([p.differ and min(p.auroc_a, p.auroc_b) >= CONFIRMED for p in self.pairs])

    @property
    def se(self) -> float:
        """Standard error of `share` over words, whose pairs are not independent."""
        differences: dict[str, float] = {}
        for p in self.pairs:
            differences[p.word] = differences.get(p.word, 0.0) + p.differ - self.share
        return float(np.sqrt(np.square(list(differences.values())).sum()) / max(len(self.pairs), 1))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the shares included."""
        rows = [dataclasses.asdict(p) | {"differ": p.differ} for p in self.pairs]
        return {"pairs": rows, "null": self.null, "share": self.share, "se": self.se, "confirmed": self.confirmed}


@dataclass(frozen=True)
class Meaning:
    """One meaning's words, and the latent that picks each out of the words of its language best, by AUROC.

    `auroc_a_on_b` is how well latent a picks word b out of language b. `shared` is the latent whose lower AUROC of the
    two is highest, `auroc_shared` that AUROC.
    """

    word_a: str
    word_b: str
    n_a: int
    n_b: int
    latent_a: int
    latent_b: int
    auroc_a: float
    auroc_b: float
    auroc_a_on_b: float
    auroc_b_on_a: float
    shared: int
    auroc_shared: float

    @property
    def same(self) -> bool:
        """Whether one latent is the best for both words."""
        return self.latent_a == self.latent_b


@dataclass(frozen=True)
class Translations:
    """All meanings that occur often enough; the nulls are the same shares over pairs of words of unlike meaning."""

    meanings: tuple[Meaning, ...]
    null: float
    null_shared: float
    left_out: int

    @property
    def share(self) -> float:
        """Share of meanings that have the same best latent in both languages; NaN without meanings."""
        return _mean([m.same for m in self.meanings])

    @property
    def se(self) -> float:
        """Binomial standard error of `share`."""
        return float(np.sqrt(self.share * (1 - self.share) / max(len(self.meanings), 1)))

    @property
    def share_shared(self) -> float:
        """Share of meanings for which some latent picks the word in both languages (AUROC 0.9)."""
        return _mean([m.auroc_shared >= PICKS for m in self.meanings])

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the shares included."""
        rows = [dataclasses.asdict(m) | {"same": m.same} for m in self.meanings]
        rest = {n: getattr(self, n) for n in ("null", "null_shared", "left_out", "share", "se", "share_shared")}
        return {"meanings": rows, **rest}


def homonyms(
    codes: Codes,
    token: Int[np.ndarray, " rows"],
    sense: Sequence[str],
    words: Sequence[str],
    document: Int[np.ndarray, " rows"],
    *,
    n_min: int = N_MIN,
    seed: int = 0,
) -> Homonyms:
    """Compare the top latents of a word's senses, for words with two or more of at least `n_min` rows each.

    `sense` names each row's sense, '' where it has none or is not settled; `words` is the vocabulary. Half of each
    sense's `n_min` rows must stand in either half of the documents.

    Raises: UsageError: senses, tokens or documents of another number than rows.
    """
    token, second = column(codes, token, "tokens"), halves(column(codes, document, "documents"), seed)
    if len(sense) != codes.rows:
        raise UsageError(f"{len(sense)} senses do not fit {codes.rows} rows. Give one a row, '' for none.")
    names, code = np.unique(np.asarray(sense, dtype=str), return_inverse=True)
    has = np.flatnonzero(names[code] != "")
    keys, group = np.unique(token[has] * len(names) + code[has], return_inverse=True)
    n, late = np.bincount(group), np.bincount(group, weights=second[has])
    enough = (n >= n_min) & (np.minimum(late, n - late) >= n_min / 2)
    word_of = keys // max(len(names), 1)
    several = np.bincount(word_of[enough], minlength=len(words)) >= 2
    kept = enough & several[word_of]
    groups = np.flatnonzero(kept)
    has, group = has[kept[group]], (np.cumsum(kept) - 1)[group[kept[group]]]
    word_of, count = word_of[groups], len(groups)
    pairs = [(a, b) for a, b in combinations(range(count), 2) if word_of[a] == word_of[b]]
    top = _top(codes, has, group, second, count)
    # the null: senses moved among the rows of the same word and half
    order = np.lexsort((np.random.Generator(np.random.PCG64(seed)).random(len(has)), second[has], token[has]))
    moved = np.empty_like(group)
    moved[np.lexsort((second[has], token[has]))] = group[order]
    other = _top(codes, has, moved, second, count)
    found = []
    for a, b in pairs:
        rows_a, rows_b = (has[(group == g) & second[has]] for g in (a, b))
        sense_a, sense_b = (str(names[keys[groups[g]] % len(names)]) for g in (a, b))
        latent_a, latent_b = (None if top[g] < 0 else int(top[g]) for g in (a, b))
        found.append(
            SensePair(
                words[word_of[a]], sense_a, sense_b, int(n[groups[a]]), int(n[groups[b]]), latent_a, latent_b,
                _between(codes, latent_a, rows_a, rows_b), _between(codes, latent_b, rows_b, rows_a),
            )
        )  # fmt: skip
    null = _mean([other[a] != other[b] and min(other[a], other[b]) >= 0 for a, b in pairs])
    return Homonyms(tuple(found), null)


def translations(
    codes: Codes,
    token: Int[np.ndarray, " rows"],
    pairs: Mapping[str, str],
    words: Sequence[str],
    *,
    n_min: int = N_MIN,
) -> Translations:
    """Ask of each meaning whether the latent that picks its word best is the same in two languages.

    `pairs` maps words of language a to those of language b, `words` is the vocabulary. A latent picks a word by the
    AUROC of its activation, over the rows whose token is any word of the same side of the pairs. Of latents that tie,
    the one with the highest mean activation on the word counts. Meanings with a word of fewer than `n_min` rows are
    left out.

    Raises: UnknownNameError: a word that is not in the vocabulary. UsageError: a word that stands in two pairs.
    """
    token, id_of = column(codes, token, "tokens"), {w: i for i, w in enumerate(words)}
    for word in (*pairs, *pairs.values()):
        if word not in id_of:
            raise UnknownNameError("word", word, words)
    ids = np.array([[id_of[a], id_of[b]] for a, b in pairs.items()], dtype=np.int64).reshape(-1, 2)
    if len(np.unique(ids)) < ids.size:
        raise UsageError("A word stands in two pairs, and cannot be told from itself. Give every word once.")
    n = np.bincount(token, minlength=len(words))[ids]
    enough = (n >= n_min).all(1)
    ids, n = ids[enough], n[enough]
    if len(ids) < 2:
        return Translations((), float("nan"), float("nan"), len(pairs) - len(ids))
    sides = [_picks(codes, token, side) for side in ids.T]
    (best_a, area_a), (best_b, area_b) = sides
    k = len(ids)
    found, both = [], np.empty((k, k))
    for i in range(k):
        weaker = np.minimum(area_a[i], area_b)
        both[i] = weaker.max(1)
        a, b, shared = int(best_a[i]), int(best_b[i]), int(weaker[i].argmax())
        found.append(
            Meaning(
                words[ids[i, 0]], words[ids[i, 1]], int(n[i, 0]), int(n[i, 1]), a, b, float(area_a[i, a]),
                float(area_b[i, b]), float(area_b[i, a]), float(area_a[i, b]), shared, float(both[i, i]),
            )
        )  # fmt: skip
    unlike = ~np.eye(k, dtype=bool)
    null = float((best_a[:, None] == best_b)[unlike].mean())
    return Translations(tuple(found), null, float((both >= PICKS)[unlike].mean()), len(pairs) - k)


def _picks(codes: Codes, token: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best latent of each word among the rows of all of them, and the AUROC [words, d_sae] of every latent."""
    rows = np.flatnonzero(np.isin(token, ids))
    part = _take(codes, rows)
    step = max(LABELS // max(len(rows), 1), 1)
    areas = np.concatenate(
        [
            ranked(part, torch.from_numpy(token[rows] == ids[i : i + step, None])).numpy()
            for i in range(0, len(ids), step)
        ]
    )
    word = np.searchsorted(np.sort(ids), token[rows])
    means = _means(part, np.argsort(ids)[word], len(ids))
    return np.where(areas >= areas.max(1, keepdims=True) - 1e-9, means, -1).argmax(1), areas


def _top(codes: Codes, rows: np.ndarray, group: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """The latent of highest mean activation over each group's rows of the first half, -1 where none fires."""
    first = ~second[rows]
    means = _means(_take(codes, rows[first]), group[first], count)
    return np.where(means.max(1, initial=0) > 0, means.argmax(1) if count else 0, -1)


def _means(codes: Codes, group: np.ndarray, count: int) -> np.ndarray:
    """Mean activation [count, d_sae] over the rows of each group."""
    place = group[codes.pattern.row_of.numpy()] * codes.d_sae + codes.index.numpy()
    sums = np.bincount(place, weights=codes.value.numpy(), minlength=count * codes.d_sae)
    return sums.reshape(count, codes.d_sae) / np.maximum(np.bincount(group, minlength=count), 1)[:, None]


def _between(codes: Codes, latent: int | None, positive: np.ndarray, negative: np.ndarray) -> float:
    if latent is None:
        return 0.5
    rows, value = codes.column(latent)
    activation = torch.zeros(codes.rows)
    activation[rows.cpu()] = value.float().cpu()
    labels = torch.arange(len(positive) + len(negative)) < len(positive)
    return auroc(activation[np.concatenate([positive, negative])], labels)


def _take(codes: Codes, rows: np.ndarray) -> Codes:
    """The codes of some rows, in the order given, on the CPU."""
    chosen, indptr = torch.from_numpy(rows), codes.indptr.cpu()
    counts = indptr.diff()[chosen]
    pointer = torch.cat([indptr.new_zeros(1), counts.cumsum(0)])
    places = torch.arange(int(pointer[-1])) + (indptr[chosen] - pointer[:-1]).repeat_interleave(counts)
    value = codes.value.cpu()[places].float().clamp(min=0)
    return Codes(pointer, codes.index.cpu()[places], value, (len(rows), codes.d_sae))


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")
