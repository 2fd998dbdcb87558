"""AUROC margins against the exact AUROC and against a brute-force bootstrap over documents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensing.errors import UsageError
from lensing.measure.auroc import auroc, average_precision
from lensing.measure.margin import Sample, margin, rank

DOCUMENTS, LENGTH = 80, 25


def planted(seed=0):
    """Two correlated scores whose noise has a part shared by a whole document, which makes tokens dependent."""
    draw = np.random.Generator(np.random.PCG64(seed))
    document = np.repeat(np.arange(DOCUMENTS), LENGTH)
    label = draw.random(len(document)) < 0.6 * (draw.random(DOCUMENTS) < 0.4)[document]
    shared = draw.normal(size=DOCUMENTS)[document]
    better = 1.5 * label + shared + draw.normal(size=len(document))
    worse = 0.7 * label + 0.5 * shared + draw.normal(size=len(document)) + draw.normal(size=DOCUMENTS)[document]
    return better, worse, label, document


def sample(score, label, document, **extra):
    return Sample(score[label], score[~label], document[label], document[~label], **extra)


def area(score, label):
    return auroc(torch.from_numpy(score), torch.from_numpy(label))


def test_one_sample_is_the_exact_auroc_and_average_precision_with_ties():
    score, _, label, document = planted()
    score = score.round(1)
    found = rank([sample(score, label, document)], DOCUMENTS)
    assert found.auroc == pytest.approx(area(score, label), abs=1e-12)
    expected = average_precision(torch.from_numpy(score), torch.from_numpy(label))
    assert found.average_precision == pytest.approx(expected, abs=1e-12)


def test_drawn_negatives_that_stand_for_several_give_the_same_average_precision():
    score, _, label, document = planted()
    thrice = np.concatenate([np.flatnonzero(label), *[np.flatnonzero(~label)] * 3])
    whole = rank([sample(score[thrice], label[thrice], document[thrice])], DOCUMENTS)
    drawn = rank([sample(score, label, document, off_weight=3.0)], DOCUMENTS)
    assert drawn.average_precision == pytest.approx(whole.average_precision, abs=1e-12)
    assert drawn.auroc == pytest.approx(whole.auroc, abs=1e-12)


def test_several_samples_weigh_by_their_positives():
    score, _, label, document = planted()
    half = document < 30
    parts = [sample(score[side], label[side], document[side]) for side in (half, ~half)]
    areas = [area(score[side], label[side]) for side in (half, ~half)]
    assert rank(parts, DOCUMENTS).auroc == pytest.approx(np.average(areas, weights=[len(p.on) for p in parts]))


def test_standard_errors_agree_with_a_bootstrap_over_documents():
    better, worse, label, document = planted()
    rankings = [rank([sample(s, label, document)], DOCUMENTS) for s in (better, worse)]
    difference, se = margin(*rankings)
    assert difference == pytest.approx(area(better, label) - area(worse, label), abs=1e-12)
    draw = np.random.Generator(np.random.PCG64(5))
    drawn = []
    for _ in range(400):
        rows = (draw.integers(0, DOCUMENTS, DOCUMENTS)[:, None] * LENGTH + np.arange(LENGTH)).ravel()
        drawn.append([area(s[rows], label[rows]) for s in (better, worse)])
    one, two = np.array(drawn).T
    assert se == pytest.approx((one - two).std(), rel=0.2)
    assert rankings[0].se == pytest.approx(one.std(), rel=0.2)
    # The tokens depend on each other: an error that took them as independent would be far too small.
    positives, negatives = label.sum(), (~label).sum()
    assert rankings[0].se > 1.5 * np.sqrt(0.25 * (1 / positives + 1 / negatives) / 3)


def test_a_score_against_itself_has_margin_and_error_zero():
    score, _, label, document = planted()
    one = rank([sample(score, label, document)], DOCUMENTS)
    assert margin(one, one) == (0.0, 0.0)


def test_nothing_to_rank_is_refused():
    score, _, label, document = planted()
    with pytest.raises(UsageError, match="0 positives"):
        rank([sample(score, np.zeros_like(label), document)], DOCUMENTS)
    other = rank([sample(score[:500], label[:500], document[:500])], DOCUMENTS)
    with pytest.raises(UsageError, match="cannot be paired"):
        margin(rank([sample(score, label, document)], DOCUMENTS), other)
