"""Find latents: by the words they fire on or speak for, and by examples of where they should fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.errors import UsageError
from lensing.index.index import Index
from lensing.measure.auroc import score_latents
from lensing.model.run import Model

Array = np.ndarray


@final
@dataclass(frozen=True)
class WordHit:
    """A latent that has a word: `how` "fires on" (value: recall) or "promotes", "suppresses" (value: the logit)."""

    latent: int
    how: str
    word: str
    value: float


@final
@dataclass(frozen=True)
class ExampleHit:
    """How well a latent's activation tells marked tokens from the others; `n` marked tokens on which it fires."""

    latent: int
    auroc: float
    average_precision: float
    n: int


def by_word(index: Index, word: str, n: int = 50) -> list[WordHit]:
    """Return latents that fire on a word, or speak for or against it, each way the strongest first.

    The word is compared with tokens stripped of the space before them, case ignored.
    """
    wanted = word.strip().casefold()
    if not wanted:
        raise UsageError("There is no word to look for. Give one.")
    ids = [i for i, s in enumerate(index.strings or ()) if s.strip().casefold() == wanted]
    if index.strings is None:
        ids = [int(wanted)] if wanted.isdigit() else []
    hits = []
    for how, name, value in (
        ("fires on", "word", "word_recall"), ("promotes", "promoted", "promoted_value"),
        ("suppresses", "suppressed", "suppressed_value"),
    ):  # fmt: skip
        if not index.has(name) or not ids:
            continue
        latent, place = np.nonzero(np.isin(index.array(name), ids))
        values = index.array(value)[latent, place]
        for i in np.argsort(-np.abs(values), kind="stable")[:n].tolist():
            said = index.words(index.array(name)[latent[i], place[i]][None])[0]
            hits.append(WordHit(int(latent[i]), how, said, float(values[i])))
    return hits


@torch.no_grad()
def by_example(
    model: Model, dictionary: Dictionary, texts: Sequence[tuple[str, Sequence[int]]], n: int = 50
) -> list[ExampleHit]:
    """Return the latents that best tell marked tokens from all others: texts, each with its marked positions.

    Positions count tokens as `model.encode` gives them, BOS included. Raises: UsageError: none or all marked.
    """
    check_fits(dictionary, model)
    if not texts:
        raise UsageError("There is no text to search by. Give at least one, with marked tokens.")
    rows, labels = [], []
    site = str(dictionary.site)
    for text, marked in texts:
        tokens = model.encode(text)
        length = tokens.ids.shape[1]
        wrong = [p for p in marked if not 0 <= p < length]
        if wrong:
            raise UsageError(f"There is no token {wrong[0]} among {length}. Mark tokens from 0 to {length - 1}.")
        _, cache = model.run_with_cache(tokens, sites=[site], stop=True)
        keep = ~tokens.special[0]
        mask = torch.zeros(length, dtype=torch.bool)
        mask[list(marked)] = True
        rows.append(cache[site][0].flatten(1)[keep])
        labels.append(mask[keep.cpu()])
    codes = dictionary.encode(torch.cat(rows).to(dictionary.W_dec.device))
    label = torch.cat(labels)
    areas, precisions = score_latents(codes, label)
    active = torch.bincount(
        codes.index[label.to(codes.index.device)[codes.pattern.row_of]].long(), minlength=codes.d_sae
    )
    order = np.lexsort((-precisions.numpy(), -areas.numpy()))[:n].tolist()
    return [ExampleHit(i, float(areas[i]), float(precisions[i]), int(active[i])) for i in order]
