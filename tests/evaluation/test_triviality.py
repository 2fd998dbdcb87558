"""The triviality report of dictionaries whose answer is known: at the embedding there is nothing but the word."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.configs import TopK
from lensing.errors import UsageError
from lensing.evaluation.contrast import gather
from lensing.evaluation.triviality import senses, text_fvu, triviality
from lensing.measure.fvu import fvu
from lensing.measure.tables import bigram_table_fvu, token_table_fvu
from lensing.world.truth import Labelled

DOCUMENTS, LENGTH = 120, 12
BIRD, BOOK = 14, 33  # words of the tests' tokenizer
SENSES: list[list[object]] = [[None], ["bird:beast"], ["bird:machine"], ["bird:beast", "bird:machine"]]


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    draw = np.random.default_rng(0)
    ids = draw.integers(4, 42, (DOCUMENTS, LENGTH))
    ids[:, 0] = 1
    ids[:, 4] = BIRD
    codes = np.zeros((DOCUMENTS, LENGTH, 2), dtype=np.int16)
    codes[:, :, 0] = draw.integers(0, 2, (DOCUMENTS, 1))  # the mood of a document
    codes[:, 2:, 1] = draw.integers(1, 4, (DOCUMENTS, 1))  # the sense, on at the tokens around the word as well
    return Labelled(
        ids.reshape(-1).astype(np.uint16), np.arange(DOCUMENTS + 1) * LENGTH, np.arange(DOCUMENTS),
        codes.reshape(-1, 2), ("mood", "sense"), {"mood": [[None], ["glad"]], "sense": SENSES},
    )  # fmt: skip


def dictionary_at(site: str, model: Any) -> Dictionary:
    sae = new_dictionary(TopK(width=64, k=4), model.d_model, seed=1).requires_grad_(False)
    sae.site, sae.id = site, f"tiny/{site}"
    return sae


def test_at_the_embedding_every_latent_is_a_word_detector(model, labelled):
    sae = dictionary_at("embed", model)
    report = triviality(model, sae, labelled, pairs={"monday": "north", "tuesday": "south"})
    assert (report.rows, report.documents) == (DOCUMENTS * (LENGTH - 1), DOCUMENTS)
    assert report.detectors.share == 1
    assert report.detectors.median_information == pytest.approx(1)
    assert not report.information.left.any()
    assert report.fvu["token table"] < 1e-9
    assert report.fvu["bigram table"] < 1e-9
    assert report.fvu_rows + report.fit_rows == report.rows
    assert report.homonyms is not None
    (pair,) = report.homonyms.pairs  # bird alone, where its sense is settled
    assert (pair.word, pair.sense_a, pair.sense_b) == ("bird", "beast", "machine")
    sense = labelled.codes[labelled.ids == BIRD, 1]
    assert (pair.n_a, pair.n_b) == ((sense == 1).sum(), (sense == 2).sum())
    assert (pair.differ, pair.auroc_a) == (False, 0.5)
    assert report.translations is not None
    assert len(report.translations.meanings) == 2
    json.dumps(report.to_json())


def test_senses_may_be_measured_on_a_text_of_their_own(model, labelled):
    sae = dictionary_at("resid_post.1", model)
    pairs = {"monday": "north", "tuesday": "south"}
    whole = triviality(model, sae, labelled, pairs=pairs, seed=2)
    found, meanings = senses(model, sae, labelled, pairs=pairs, seed=2)
    assert found is not None
    assert meanings is not None
    assert (found.to_json(), meanings.to_json()) == (whole.homonyms.to_json(), whole.translations.to_json())
    assert senses(model, sae, labelled)[1] is None


def test_the_parts_are_those_of_their_own_functions(model, labelled):
    sae = dictionary_at("resid_post.1", model)
    report = triviality(model, sae, labelled, seed=2)
    h, document = gather(model, "resid_post.1", labelled.documents(), "all")
    order = torch.randperm(DOCUMENTS, generator=torch.Generator().manual_seed(2))
    train = (order < 96)[document]
    ids = torch.from_numpy(labelled.ids.astype(np.int64)).view(DOCUMENTS, LENGTH)
    token, previous = ids[:, 1:].reshape(-1), ids[:, :-1].reshape(-1)
    assert report.fvu == pytest.approx(
        {
            "dictionary": fvu(h[~train], sae.reconstruct(h[~train])),
            "token table": token_table_fvu(h, token, train),
            "bigram table": bigram_table_fvu(h, token, previous, train),
        }
    )
    assert report.detectors.share < 1
    assert [c.kind for c in report.covers] == ["neurons", "random directions", "latents"]
    assert [len(c.needed) for c in report.covers[:2]] == [model.d_mlp, 100]
    latents, concepts = report.geometry
    assert (latents.n, latents.d) == (len(report.covers[2].needed), model.d_model)
    assert latents.n == int((torch.bincount(sae.encode(h).index) >= 20).sum())
    assert concepts.n == 3  # the mood and both senses
    assert report.translations is None


def test_tables_may_learn_from_other_text(model, labelled):
    sae = dictionary_at("embed", model)
    seen = [row[1:] for row in labelled.documents()]  # BOS is put in front where it is not there
    report = triviality(model, sae, labelled, fit_on=seen)
    assert report.fvu_rows == report.fit_rows == report.rows
    assert report.fvu["token table"] < 1e-9
    half = triviality(model, sae, labelled, fit_on=[[BIRD, BOOK]])
    assert half.fit_rows == 2
    assert half.fvu["token table"] > 0.5


def test_the_fvu_of_a_text_is_that_of_the_report(model, labelled):
    sae = dictionary_at("resid_post.1", model)
    other = labelled.documents()[:3]
    assert text_fvu(model, sae, labelled) == triviality(model, sae, labelled, fit_on=other).fvu["dictionary"]


def test_one_document_is_refused(model, labelled):
    one = Labelled(
        labelled.ids[:LENGTH], labelled.starts[:2], labelled.numbers[:1], labelled.codes[:LENGTH], labelled.classes,
        labelled.possible,
    )  # fmt: skip
    with pytest.raises(UsageError, match="1 documents cannot be split"):
        triviality(model, dictionary_at("embed", model), one)
