"""Latents that only detect a word, planted among latents that do not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.measure.detectors import word_detectors


@pytest.fixture
def planted():
    draw = np.random.default_rng(0)
    token, document = draw.integers(0, 10, 8000), np.arange(8000) // 40
    mostly = (token == 7) & (draw.random(8000) < 0.95)
    context = (document % 5 == 0) & (token < 5)
    rare = (token == 1) & (np.arange(8000) < 150)
    columns = [token == 4, np.isin(token, [1, 2, 3]), draw.random(8000) < 0.2, mostly, context, rare, token > 99]
    return Codes.from_dense(torch.from_numpy(np.stack(columns, 1)).float()), token, document


def test_planted_kinds_are_told_apart(planted):
    found = word_detectors(*planted)
    assert [x.latent for x in found.latents] == [0, 1, 2, 3, 4]  # too rare, and dead, are left out
    word, words, coin, mostly, context = found.latents
    assert (word.f1_set, word.n_words, word.f1_one, word.word) == (1, 1, 1, 4)
    assert (words.f1_set, words.n_words) == (1, 3)
    assert words.f1_one < 0.7
    assert (coin.f1_set, coin.n_words) == (0, 0)
    assert coin.f1_one < 0.3
    assert mostly.f1_set == mostly.f1_one == pytest.approx(2 * 0.95 / 1.95, abs=0.02)
    assert context.f1_set < 0.5
    assert context.information < 0.5
    assert word.information == pytest.approx(1)
    assert (found.alive, found.share, found.share_one) == (5, 3 / 5, 2 / 5)
    assert found.se == pytest.approx((0.6 * 0.4 / 5) ** 0.5)
    assert json.loads(json.dumps(found.to_json()))["share"] == 0.6


def test_f1_by_brute_force(planted):
    codes, token, document = planted
    found = word_detectors(codes, token, document, min_fires=1, seed=3)
    second = (np.random.Generator(np.random.PCG64(3)).permutation(200) % 2 == 1)[document]
    dense = codes.dense().numpy() > 0
    for latent in found.latents:
        on = dense[:, latent.latent]
        words = [t for t in range(10) if on[~second & (token == t)].mean() > 0.5]
        said = np.isin(token, words)[second]
        assert latent.f1_set == pytest.approx(2 * (said & on[second]).sum() / (said.sum() + on[second].sum()))
        scores = [
            2 * (on & (token == t))[~second].sum() / ((token == t)[~second].sum() + on[~second].sum())
            for t in range(10)
        ]
        best = token == int(np.argmax(scores))
        assert latent.word == np.argmax(scores)
        f1 = 2 * (best & on)[second].sum() / (best[second].sum() + on[second].sum())
        assert latent.f1_one == pytest.approx(f1)


def test_words_that_hold_on_one_half_alone_are_not_believed():
    token, document = np.tile(np.arange(100), 2), np.repeat(np.arange(2), 100)
    on = (np.random.default_rng(0).random(200) < 0.5).astype(np.float32)
    found = word_detectors(Codes.from_dense(torch.from_numpy(on)[:, None]), token, document)
    assert found.latents[0].n_words > 30
    assert found.share == 0


def test_codes_that_never_fire_have_no_share():
    found = word_detectors(Codes.from_dense(torch.zeros(4, 3)), np.arange(4), np.arange(4))
    assert found.alive == 0
    assert np.isnan(found.share)
    with pytest.raises(UsageError, match="Documents"):
        word_detectors(Codes.from_dense(torch.zeros(4, 3)), np.arange(4), np.arange(3))
