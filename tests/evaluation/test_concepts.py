"""Labels of latents against counts made by hand."""

from __future__ import annotations

import numpy as np
import torch

from lensing.dictionary.codes import Codes
from lensing.evaluation.concepts import label_latents, truth_matrix
from lensing.world.almanac.grammar import almanac
from lensing.world.sample import sample_document
from lensing.world.tokens import vocabulary
from lensing.world.truth import label_documents

ROWS, DOCUMENTS = 1200, 60


def world():
    """Four concepts over rows of many documents; latent 0 is concept b with a miss, latent 1 fires at random."""
    draw = np.random.Generator(np.random.PCG64(3))
    document = np.repeat(np.arange(DOCUMENTS), ROWS // DOCUMENTS)
    truth = (draw.random((ROWS, 4)) < (0.3, 0.2, 0.5, 0.004)).astype(np.int8)
    truth[draw.random(ROWS) < 0.1, 1] = -1
    dense = torch.zeros(ROWS, 3)
    dense[:, 0] = torch.from_numpy(np.where(truth[:, 1] == 1, 1 + draw.random(ROWS), 0) * (draw.random(ROWS) < 0.9))
    dense[:, 1] = torch.from_numpy((draw.random(ROWS) < 0.2) * draw.random(ROWS))
    dense[:5, 2] = 1.0
    return Codes.from_dense(dense), dense.numpy(), truth, document


def test_the_concept_of_highest_f1_is_chosen_on_one_half_and_scored_on_the_other():
    codes, dense, truth, document = world()
    found = {x.latent: x for x in label_latents(codes, truth, ["a", "b", "c", "rare"], document, seed=1)}
    assert set(found) == {0, 1}  # latent 2 fires too rarely to be labelled
    assert found[0].concept == "b"
    half = np.random.Generator(np.random.PCG64(1)).permutation(DOCUMENTS) % 2
    for side, value in ((0, found[0].chosen_f1), (1, found[0].f1)):
        rows = half[document] == side
        fires, label = dense[rows, 0] > 0, truth[rows, 1]
        true, false = (fires & (label == 1)).sum(), (fires & (label == 0)).sum()
        missed = (~fires & (label == 1)).sum()
        assert np.isclose(value, 2 * true / (2 * true + false + missed))
    assert found[0].auroc > 0.9
    assert found[0].n == (truth[half[document] == 1, 1] == 1).sum()
    # A latent that fires at random agrees with nothing, whatever is chosen for it.
    assert found[1].f1 < 0.45
    assert 0.35 < found[1].auroc < 0.65


def test_truth_holds_concepts_and_words():
    labelled = label_documents(almanac(), [sample_document(almanac(), i) for i in range(3)])
    names, truth = truth_matrix(labelled, vocabulary(almanac()))
    assert truth.shape == (len(labelled.ids), len(names))
    words = [n for n in names if n.startswith("word.")]
    assert (truth[:, [names.index(w) for w in words]].sum(1) == 1).all()
    assert (truth[:, names.index("word.<bos>")] == (labelled.ids == 1)).all()
