"""Information of a latent's firing: closed forms, and a brute-force count over tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.measure.information import concept_information, token_information


def codes_of(*columns: np.ndarray) -> Codes:
    return Codes.from_dense(torch.from_numpy(np.stack(columns, 1)).float())


def entropy(*columns: np.ndarray) -> float:
    _, n = np.unique(np.stack(columns, 1), axis=0, return_counts=True)
    return float(-(n / n.sum() * np.log(n / n.sum())).sum())


def test_a_function_of_the_token_is_told_whole_and_a_coin_not_at_all():
    draw = np.random.default_rng(0)
    token = draw.integers(0, 8, 40_000)
    told, coin, half = token < 2, draw.random(40_000) < 0.3, (token == 3) & (draw.random(40_000) < 0.5)
    codes = codes_of(told * 2.0, np.zeros(40_000), coin * 1.0, half * 0.5)
    found = token_information(codes, token, 8)
    assert found.latent.tolist() == [0, 2, 3]
    assert found.fires.tolist() == [told.sum(), coin.sum(), half.sum()]
    assert found.ratio[0] == pytest.approx(1, abs=1e-12)
    assert abs(found.information[1]) < 3e-4
    assert found.plug_in[1] > 0
    # P(on) = 1/16; given the token, a fair coin one time in eight
    assert found.entropy[2] == pytest.approx(-math.log(1 / 16) / 16 - 15 / 16 * math.log(15 / 16), abs=0.005)
    assert found.ratio[2] == pytest.approx(1 - math.log(2) / 8 / found.entropy[2], abs=0.005)
    assert found.to_json()["ratio"] == found.ratio.tolist()


def test_the_correction_is_that_of_miller_and_madow():
    draw = np.random.default_rng(1)
    token, on = draw.integers(0, 5, 60), draw.random(60) < 0.4
    found = token_information(codes_of(on * 1.0), token)
    plain = entropy(on) + entropy(token) - entropy(on, token)
    assert found.plug_in[0] == pytest.approx(plain)
    states = [len(np.unique(c, axis=0)) for c in (on, token, np.stack([on, token], 1))]
    assert found.information[0] == pytest.approx(plain + (states[0] + states[1] - states[2] - 1) / 120)
    assert found.entropy[0] == pytest.approx(entropy(on) + 1 / 120)


def test_corrected_information_of_a_coin_is_about_zero_where_the_raw_one_is_not():
    draw = np.random.default_rng(2)
    token = draw.integers(0, 40, 2000)
    found = token_information(codes_of(*(draw.random((300, 2000)) < 0.3).astype(float)), token)
    assert abs(found.information.mean()) < 0.1 * found.plug_in.mean()


def test_xor_is_told_by_the_label_only_where_the_token_is_known():
    draw = np.random.default_rng(3)
    token, label = draw.integers(0, 2, 20_000), draw.integers(0, 2, 20_000)
    other = draw.integers(0, 3, 20_000)
    codes = codes_of((token ^ label) * 1.0, token * 1.0, label * 1.0)
    labels = np.stack([other, label, np.zeros_like(label)], 1)
    found = concept_information(codes, token, labels, ["other", "label", "constant"])
    assert token_information(codes, token).information[0] == pytest.approx(0, abs=1e-3)
    assert found.best.tolist()[::2] == [1, 1]
    assert found.information[[0, 2], 1] == pytest.approx(math.log(2), abs=1e-3)
    assert found.share[[0, 2]] == pytest.approx(1, abs=1e-3)
    assert found.information[:, 0] == pytest.approx(0, abs=1e-3)
    assert found.plug_in[1].tolist() == [0, 0, 0]
    assert found.left[1] == found.share[1] == 0
    assert not found.plug_in[:, 2].any()
    assert found.to_json()["cls"][0] == "label"


def test_conditional_information_by_brute_force():
    draw = np.random.default_rng(4)
    token, label = draw.integers(0, 4, 80), draw.integers(-1, 3, 80)
    on = draw.random((3, 80)) < [[0.2], [0.5], [0.9]]
    found = concept_information(codes_of(*on.astype(float)), token, label, ["label"], shuffles=2)
    for j, column in enumerate(on):
        total = 0.0
        for t, v, y in itertools.product(range(4), range(-1, 3), (False, True)):
            here = (token == t) & (label == v) & (column == y)
            if here.any():
                given = column[(token == t) & (label == v)] == y
                total += here.mean() * math.log(given.mean() / (column[token == t] == y).mean())
        assert found.plug_in[j, 0] == pytest.approx(total)


def test_the_null_is_exact_where_a_shuffle_can_change_nothing_and_near_the_figure_of_a_coin():
    draw = np.random.default_rng(5)
    token = draw.integers(0, 6, 3000)
    label, on = draw.integers(0, 50, 3000), draw.random(3000) < 0.2
    found = concept_information(codes_of(on * 1.0), token, np.stack([token, label], 1), ["same", "noise"], shuffles=20)
    assert found.plug_in[0, 0] == found.null[0, 0] == 0
    assert found.plug_in[0, 1] > 0.01
    assert abs(found.information[0, 1]) < 0.15 * found.plug_in[0, 1]


def test_what_does_not_fit_is_refused():
    codes = codes_of(np.ones(3))
    with pytest.raises(UsageError, match="do not fit 3 rows"):
        token_information(codes, np.zeros(2))
    with pytest.raises(UsageError, match="not within 0 to 1"):
        token_information(codes, np.array([0, 1, 2]), 2)
    with pytest.raises(UsageError, match="1 classes"):
        concept_information(codes, np.zeros(3), np.zeros((3, 2)), ["one"])
