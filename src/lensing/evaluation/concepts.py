"""Which concept of the text each latent agrees with best: chosen on half of the documents, scored on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lensing.dictionary.codes import Codes
from lensing.measure.auroc import auroc, average_precision
from lensing.world.truth import OFF, ON, UNDETERMINED, Labelled

MIN_POSITIVES = 10  # in each half; a rarer concept cannot be matched honestly
BLOCK = 256  # concepts counted at a time


@dataclass(frozen=True)
class LatentLabel:
    """One latent's best concept and how well they agree on documents not used to choose it.

    `f1` is of "the latent fires" against "the concept is on"; `auroc` and `average_precision` rank by activation; `n`
    is the number of positives they were scored on. Undetermined tokens count on neither side.
    """

    latent: int
    concept: str
    chosen_f1: float
    f1: float
    auroc: float
    average_precision: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def truth_matrix(labelled: Labelled, words: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return names and truth int8 [tokens, concepts] of all concepts of a text, its words (`word.<w>`) included."""
    concepts = labelled.concepts()
    columns = [labelled.truth(c) for c in concepts]
    for token in np.unique(labelled.ids):
        concepts.append(f"word.{words[token]}")
        columns.append((labelled.ids == token).astype(np.int8))
    return concepts, np.stack(columns, axis=1)


def label_latents(
    codes: Codes, truth: np.ndarray, concepts: Sequence[str], document: np.ndarray, *, seed: int = 0
) -> list[LatentLabel]:
    """Match every latent with the concept of highest F1 on half of the documents, and score it on the other half.

    `codes` has one row a token (BOS left out), as `truth` (1 on, 0 off, -1 undetermined) and `document` (its index) do.
    Latents that fire on fewer than 10 tokens of a half, and concepts on for fewer, are left out.
    """
    half = np.random.Generator(np.random.PCG64(seed)).permutation(int(document.max()) + 1) % 2
    side = half[document]
    choose, score = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    on_a, on_b = (truth[choose] == ON).sum(0), (truth[score] == ON).sum(0)
    kept = np.flatnonzero((on_a >= MIN_POSITIVES) & (on_b >= MIN_POSITIVES))
    true_a, false_a, fires_a = _tables(codes, truth[:, kept], choose)
    true_b, false_b, fires_b = _tables(codes, truth[:, kept], score)
    f1_a = 2 * true_a / np.maximum(true_a + false_a + on_a[kept], 1)
    f1_b = 2 * true_b / np.maximum(true_b + false_b + on_b[kept], 1)
    found = []
    for latent in np.flatnonzero((fires_a >= MIN_POSITIVES) & (fires_b >= MIN_POSITIVES)):
        best = int(f1_a[latent].argmax())
        settled = score[truth[score, kept[best]] != UNDETERMINED]
        rows, values = codes.column(int(latent))
        activation = torch.zeros(codes.rows)
        activation[rows] = values.float()
        labels = torch.from_numpy(truth[settled, kept[best]] == ON)
        ranked = activation[torch.from_numpy(settled)]
        scores = (auroc(ranked, labels), average_precision(ranked, labels))
        f1 = (float(f1_a[latent, best]), float(f1_b[latent, best]))
        found.append(LatentLabel(int(latent), concepts[kept[best]], *f1, *scores, int(labels.sum())))
    return found


def _tables(codes: Codes, truth: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, for each latent and concept over some rows: fires and on, fires and off; and how often each fires."""
    row = torch.repeat_interleave(torch.arange(codes.rows), codes.indptr.diff())
    inside = torch.zeros(codes.rows, dtype=torch.bool)
    inside[torch.from_numpy(rows)] = True
    kept = (codes.value > 0) & inside[row]
    at = torch.stack([codes.index[kept].long(), row[kept]])
    # Counts in float32 are exact up to 2^24, more than the rows of any labelled text.
    ones, size = torch.ones(at.shape[1]), (codes.d_sae, codes.rows)
    fires = torch.sparse_coo_tensor(at, ones, size, check_invariants=False).coalesce()
    counted = np.bincount(at[0].numpy(), minlength=codes.d_sae)
    on, off = np.zeros((codes.d_sae, truth.shape[1])), np.zeros((codes.d_sae, truth.shape[1]))
    for first in range(0, truth.shape[1], BLOCK):
        block = torch.from_numpy(np.ascontiguousarray(truth[:, first : first + BLOCK]))
        on[:, first : first + BLOCK] = (fires @ (block == ON).float()).numpy()
        off[:, first : first + BLOCK] = (fires @ (block == OFF).float()).numpy()
    return on, off, counted
