"""Covers against the definition that the walk uses, and closed forms of directions that share dimensions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.measure.cover import Labels, concepts_needed, top_rows
from lensing.measure.superposition import (
    compare_covers,
    concept_directions,
    covers,
    feature_dimensionality,
    interference,
)


def ring(n: int) -> torch.Tensor:
    angle = torch.arange(n).double() * 2 * math.pi / n
    return torch.stack([angle.cos(), angle.sin()], 1)


TETRAHEDRON = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()


@pytest.mark.parametrize(
    ("directions", "expected"),
    [(torch.eye(7), 1), (ring(2), 1 / 2), (ring(3), 2 / 3), (ring(5), 2 / 5), (TETRAHEDRON, 3 / 4)],
    ids=["orthogonal", "antipodal pair", "triangle", "pentagon", "tetrahedron"],
)
def test_dimensionality_of_regular_figures(directions, expected):
    assert feature_dimensionality(3.7 * directions).tolist() == pytest.approx([expected] * len(directions))
    unit = directions / directions.norm(dim=1, keepdim=True)
    assert interference(unit).tolist() == pytest.approx([1 / expected - 1] * len(directions), abs=1e-12)


def test_dimensionality_and_interference_by_the_sums_that_define_them():
    w = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w[7] = 0
    unit = torch.nn.functional.normalize(w, dim=1)
    projected = (unit @ w.T).square()
    expected = projected.sum(1) - projected.diagonal()
    assert interference(w).tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    found = feature_dimensionality(w)
    assert found[7] == 0
    others = torch.arange(40) != 7
    assert torch.allclose(found[others], (w.square().sum(1) / projected.sum(1))[others])
    assert float(found.sum()) <= 6


@pytest.fixture
def labels():
    draw = np.random.default_rng(0)
    rare = np.where(draw.random(2000) < 0.1, draw.integers(1, 30, 2000), 0)
    word = draw.integers(0, 50, 2000)
    return Labels(
        ((rare, {i: f"rare.{i}" for i in range(1, 30, 2)}), (word, {i: f"word.{i}" for i in range(50)}))
    )  # fmt: skip


def test_the_same_numbers_as_the_walk_has(labels):
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(2000, 40, generator=draw)
    words = torch.from_numpy(labels.columns[1][0])
    # of a few words more each time, so that the numbers differ; the last are noise, ties, or never positive
    for i in range(30):
        values[:, i] += 10 * (words % 50 <= i // 2)
    values[:, 38] = (words < 20).float()
    values[:, 39] = -1
    units = [(None, column.numpy()) for column in values.T]
    for share, lift in ((0.8, 5.0), (0.9, 1.0)):
        found = covers("any", units, labels, share=share, lift=lift)
        expected = [concepts_needed(top_rows(c), labels, share=share, lift=lift) for c in values.T]
        assert list(found.needed) == [c.count for c in expected]
        assert list(found.rows) == [c.rows for c in expected]
        assert len(set(found.needed)) > 4


def test_what_a_unit_mixes_is_counted(labels):
    words = torch.from_numpy(labels.columns[1][0])
    h = torch.nn.functional.one_hot(words, 50).float()
    neurons = torch.stack([(torch.isin(words, torch.arange(n)).float()) for n in (1, 2)], 1)
    codes = Codes.from_dense(torch.stack([words == 3, words == 60, words == 4], 1).float())
    first, random, latents = compare_covers(neurons, h, codes, labels, directions=7, top=0.04, share=0.9)
    assert first.needed[0] == 1
    assert first.needed[1] is not None
    assert latents.needed == (1, 1)  # the latent that never fires is not asked
    assert latents.within(1) == 1
    assert latents.median == 1
    assert len(random.needed) == 7
    again = compare_covers(neurons, h + 100, codes, labels, directions=7, top=0.04, share=0.9)[1]
    assert random.needed == again.needed  # the mean of the stream says nothing
    assert json.loads(json.dumps(latents.to_json()))["within"]["1"] == 1
    with pytest.raises(UsageError, match="Give alike"):
        compare_covers(neurons[:5], h, codes, labels)


def test_concept_directions_by_hand_and_of_planted_features():
    h = torch.tensor([[1.0, 0], [3, 0], [0, 8], [0, 2]])
    found = concept_directions(h + 50, [np.array([0, 1]), np.array([3])], [np.array([2]), np.array([], dtype=int)])
    assert torch.allclose(found, torch.tensor([[2.0, -2], [-4 / 3, 2 - 8 / 3]]).double())
    draw = np.random.default_rng(0)
    on = draw.random((4000, 3)) < 0.2
    planted = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    rows = torch.from_numpy(on).float() @ planted
    found = concept_directions(rows, [np.flatnonzero(c) for c in on.T])
    assert torch.cosine_similarity(found, planted.double()).min() > 0.99
    with pytest.raises(UsageError, match="Concept 0 is on in 0 rows"):
        concept_directions(h, [np.array([], dtype=int)])
