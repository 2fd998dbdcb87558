"""Homonyms and translations on planted latents."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UnknownNameError, UsageError
from lensing.evaluation.senses import homonyms, translations

WORDS = ["the", "seal", "bank", "crane", "dog", "hund", "sun", "sol", "fish", "fisk", "rare"]


def codes_of(*columns: np.ndarray) -> Codes:
    return Codes.from_dense(torch.from_numpy(np.stack(columns, 1)).float())


@pytest.fixture
def text():
    draw = np.random.default_rng(0)
    n = 6000
    token, document = draw.integers(0, 4, n), np.arange(n) // 20
    side = draw.integers(0, 2, n)
    sense = np.where(token == 0, "", np.where(side == 0, "beast", "thing"))
    return token, document, sense, draw


def test_a_latent_a_sense_is_told_from_a_latent_a_word(text):
    token, document, sense, draw = text
    beast, thing = sense == "beast", sense == "thing"
    noise = draw.random(6000)
    codes = codes_of(
        (token == 0) * 9.0,
        (token == 1) & beast, ((token == 1) & thing) * 2.0,  # seal: a latent a sense
        (token == 2) * 1.0,  # bank: one latent for both
        (token == 3) * (1 + noise), (token == 3) * noise,  # crane: latents that know nothing of the sense
    )  # fmt: skip
    found = homonyms(codes, token, sense, WORDS, document)
    seal, bank, crane = found.pairs
    assert (seal.word, seal.sense_a, seal.sense_b, seal.latent_a, seal.latent_b) == ("seal", "beast", "thing", 1, 2)
    assert seal.auroc_a == seal.auroc_b == 1
    assert seal.n_a == int(((token == 1) & beast).sum())
    assert (bank.latent_a, bank.latent_b, bank.differ, bank.auroc_a) == (3, 3, False, 0.5)
    assert crane.latent_a == crane.latent_b == 4
    assert (found.share, found.confirmed, found.null) == (1 / 3, 1 / 3, 0)
    assert found.se == pytest.approx(math.sqrt(4 / 9 + 1 / 9 + 1 / 9) / 3)
    assert json.loads(json.dumps(found.to_json()))["pairs"][0]["differ"] is True


def test_a_difference_by_chance_is_not_confirmed_and_the_null_shows_it(text):
    token, document, sense, draw = text
    columns = [(token > 0) * draw.random(6000) for _ in range(30)]
    found = homonyms(codes_of(*columns), token, sense, WORDS, document)
    assert found.share > 0.5
    assert found.null > 0.5
    assert found.confirmed == 0


def test_rare_senses_and_unsettled_rows_are_left_out(text):
    token, document, sense, _ = text
    third = sense.copy()
    third[np.flatnonzero((token == 1) & (sense == "beast"))[:8]] = "rare"
    third[token == 2] = ""
    codes = codes_of(sense == "beast", sense == "thing")
    found = homonyms(codes, token, list(third), WORDS, document)
    assert [(p.word, p.sense_a, p.sense_b) for p in found.pairs] == [(w, "beast", "thing") for w in ("seal", "crane")]
    assert found.share == 1
    silent = homonyms(codes_of(np.zeros(6000)), token, sense, WORDS, document)
    assert (silent.share, silent.pairs[0].latent_a, silent.pairs[0].auroc_a) == (0, None, 0.5)
    none = homonyms(codes, token, [""] * 6000, WORDS, document)
    assert math.isnan(none.share)
    assert none.pairs == ()
    with pytest.raises(UsageError, match="2 senses do not fit"):
        homonyms(codes, token, ["", ""], WORDS, document)


PAIRS = {"dog": "hund", "sun": "sol", "fish": "fisk"}


def test_meanings_are_told_from_words():
    draw = np.random.default_rng(1)
    token = draw.integers(0, 10, 4000)
    weak = (token == 8) & (draw.random(4000) < 0.9)
    codes = codes_of(
        np.isin(token, [4, 5]),  # the meaning of dog
        token == 6, token == 7,  # a latent a word
        np.isin(token, [6, 7]) & (draw.random(4000) < 0.95),  # a weaker one of the meaning of sun
        weak | (token == 9), token == 8,
        token < 8,
    )  # fmt: skip
    found = translations(codes, token, PAIRS, WORDS)
    dog, sun, fish = found.meanings
    assert (dog.latent_a, dog.latent_b, dog.same, dog.auroc_a_on_b) == (0, 0, True, 1)
    assert (sun.latent_a, sun.latent_b, sun.same) == (1, 2, False)
    assert sun.auroc_a_on_b == 0.5
    assert sun.shared == 3
    assert sun.auroc_shared == pytest.approx(0.975, abs=0.01)
    assert (fish.latent_a, fish.latent_b, fish.shared) == (5, 4, 4)
    assert (found.share, found.share_shared, found.null, found.null_shared) == (1 / 3, 1, 0, 0)
    assert found.se == pytest.approx(math.sqrt(2 / 9 / 3))
    assert (dog.n_a, dog.n_b) == ((token == 4).sum(), (token == 5).sum())
    assert json.loads(json.dumps(found.to_json()))["share"] == found.share


def test_one_latent_for_everything_is_seen_in_the_null():
    token = np.tile(np.array([4, 5, 6, 7, 8, 9]), 50)
    found = translations(codes_of(np.ones(300), np.zeros(300)), token, PAIRS, WORDS)
    assert found.share == found.null == 1
    assert found.share_shared == found.null_shared == 0


def test_words_that_cannot_be_judged():
    token = np.tile(np.array([4, 5, 6, 7]), 50)
    codes = codes_of(token == 4, token == 5)
    found = translations(codes, token, {**PAIRS, "the": "rare"}, WORDS)
    assert ([m.word_a for m in found.meanings], found.left_out) == (["dog", "sun"], 2)
    assert math.isnan(translations(codes, token, {"dog": "hund"}, WORDS).share)
    with pytest.raises(UnknownNameError, match="'hunt'"):
        translations(codes, token, {"dog": "hunt"}, WORDS)
    with pytest.raises(UsageError, match="two pairs"):
        translations(codes, token, {"dog": "hund", "sun": "hund"}, WORDS)
