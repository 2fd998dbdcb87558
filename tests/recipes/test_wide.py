"""The wide model reads what the other one read, at the same rates; both are measured alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensing.model.create import new_gemma2
from lensing.model.load import load_model
from lensing.recipes.pretrain import Pretraining, pretrain
from lensing.recipes.wide import compare_widths, make_wide
from lensing.world.almanac.grammar import almanac
from lensing.world.corpus import write_corpus
from lensing.world.sample import sample_document
from lensing.world.tokens import vocabulary
from lensing.world.truth import label_documents

SHAPE = {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_mlp": 24, "context": 256, "window": 8}
SETTINGS = Pretraining(tokens=40_000, batch_tokens=1024, bf16=False, warmup=0.1, decay=0.2, seed=3)


@pytest.fixture(scope="module")
def ids():
    return {"d_vocab": len(vocabulary(almanac())), "bos_id": 1, "eos_id": 2, "pad_id": 0}


@pytest.fixture(scope="module")
def corpus():
    return write_corpus(almanac(), 40, quiet=True)


def test_as_wide_as_the_other_it_is_the_other_at_that_time(ids, corpus, tmp_path):
    plain, then = new_gemma2(**SHAPE, **ids, seed=3), {}
    pretrain(
        plain, corpus, SETTINGS, tmp_path / "plain", pad_id=0, revisions=[9_000],
        on_revision=lambda t: then.update({k: v.clone() for k, v in plain.state_dict().items()}),
    )  # fmt: skip
    folder = make_wide(SHAPE, ids, corpus, SETTINGS, tmp_path / "wide", times=1, tokens=9_000)
    found = load_model(folder).hf.state_dict()
    assert all(torch.allclose(found[k], v, atol=1e-6) for k, v in then.items())
    assert not torch.allclose(found["model.embed_tokens.weight"], plain.state_dict()["model.embed_tokens.weight"])


def test_units_of_both_are_measured(ids, corpus, tmp_path):
    folders = [
        make_wide(SHAPE, ids, corpus, SETTINGS, tmp_path / f"{times}", times=times, tokens=2_000) for times in (1, 4)
    ]
    documents = [np.asarray(corpus[i]).tolist() for i in range(20)]
    text = label_documents(almanac(), (sample_document(almanac(), n) for n in range(12)), quiet=True)
    small, wide = compare_widths(
        [load_model(f) for f in folders],
        documents,
        "tests",
        text,
        tmp_path,
        site="resid_post.1",
        width=64,
        tokens=2_000,
    )
    assert (small["id"], wide["id"]) == ("d_model 16", "d_model 64")
    assert [c["units"] for c in (small["covers"][0], wide["covers"][0])] == [24, 96]
    assert [g["d"] for g in wide["geometry"]] == [64, 64]
