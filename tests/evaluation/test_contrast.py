"""Contrasts of texts on a planted direction, and on noise."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.configs import TopK
from lensing.errors import UsageError
from lensing.evaluation.contrast import _ridge, contrast, gather, ranked
from lensing.measure.auroc import auroc, score_latents

SITE = "resid_post.1"
PLANTED = 11


def texts(n: int, seed: int, low: int = 4, high: int = 42) -> list[list[int]]:
    """Random documents of random lengths, as token ids."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (n,), generator=g).tolist()
    return [torch.randint(low, high, (length,), generator=g).tolist() for length in lengths]


@pytest.fixture
def dictionary(model: Any) -> Dictionary:
    sae = new_dictionary(TopK(width=40, k=5), model.d_model, seed=1).requires_grad_(False)
    sae.site, sae.id = SITE, "tiny/planted"
    return sae


def test_a_planted_latent_is_found_and_chance_is_a_half(model, dictionary, monkeypatch):
    def planted(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """One row a document: noise, and in the first 24 documents a latent's direction."""
        noise = torch.randn(48, model.d_model, generator=torch.Generator().manual_seed(0))
        return noise + 40 * (torch.arange(48) < 24)[:, None] * dictionary.W_dec[PLANTED], torch.arange(48)

    monkeypatch.setattr("lensing.evaluation.contrast.gather", planted)
    found = contrast(model, dictionary, texts(24, 0), texts(24, 1), seed=3)
    assert found.best.latent == PLANTED
    assert (found.best.auroc_chosen_on, found.best.auroc, found.best.average_precision) == (1.0, 1.0, 1.0)
    assert (found.means.auroc, found.means.average_precision) == (1.0, 1.0)
    assert torch.cosine_similarity(found.vector, dictionary.W_dec[PLANTED], dim=0) > 0.9
    assert (found.positives, found.negatives, found.documents) == (12, 12, 24)
    assert (found.probe.auroc, found.probe.average_precision) == (1.0, 1.0)
    for null in (found.null, found.means_null, found.probe_null):
        assert null.mean == pytest.approx(0.5, abs=0.06)
        assert 0.6 < null.p95 < 0.9
        assert null.shuffles == 100
    json.dumps(found.to_json(), allow_nan=False)


def test_the_probe_looks_past_what_varies_and_needs_no_dictionary(model, monkeypatch):
    """A direction that tells, under noise ten times as strong that another number shows too: means are misled."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 8, generator=g)
    nuisance = 10 * torch.randn(400, 1, generator=g)
    rows[:, 2:3] = (torch.arange(400) < 200)[:, None] + 0.1 * rows[:, 2:3] + nuisance
    rows[:, 3:4] = nuisance
    monkeypatch.setattr("lensing.evaluation.contrast.gather", lambda *_: (rows, torch.arange(400)))
    found = contrast(model, None, texts(200, 0), texts(200, 1), site=SITE, shuffles=20)
    assert found.probe.auroc > 0.99
    assert found.means.auroc < 0.8
    w = found.probe_vector
    assert float(w[2] / -w[3]) == pytest.approx(1, abs=0.02), "the nuisance is taken away"
    assert (found.dictionary, found.latents, found.site) == (None, (), SITE)
    with pytest.raises(UsageError, match="No dictionary was given"):
        _ = found.best
    with pytest.raises(UsageError, match="no site"):
        contrast(model, None, texts(4, 0), texts(4, 1))


def test_a_probe_is_ridge_regression():
    g = torch.Generator().manual_seed(1)
    x, labels = torch.randn(50, 6, generator=g).double(), torch.rand(3, 50, generator=g) < 0.5
    y = labels.double() - labels.double().mean(1, keepdim=True)
    wanted = torch.linalg.solve(x.T @ x + 0.1 * 50 * torch.eye(6), x.T @ y.T).T
    assert torch.allclose(_ridge(x, labels, 0.1), wanted, atol=1e-12)


def test_texts_of_one_kind_stay_at_chance(model, dictionary):
    scores = [
        contrast(model, dictionary, texts(30, s), texts(30, s + 50), seed=s, shuffles=20).best.auroc for s in range(5)
    ]
    assert sum(scores) / 5 == pytest.approx(0.5, abs=0.12)


def test_rows_are_those_of_each_text_alone(model):
    documents = [*texts(9, 4), "the bird sang"]
    h, owner = gather(model, SITE, documents, "all", batch_tokens=20)
    for i, document in enumerate(documents):
        _, cache = model.run_with_cache(document, sites=[SITE])
        assert torch.allclose(h[owner == i], cache[SITE][0, 1:], atol=1e-4)
    last, owner = gather(model, SITE, documents, batch_tokens=20)
    assert owner.tolist() == list(range(10))
    _, cache = model.run_with_cache(documents[-1], sites=[SITE])
    assert torch.allclose(last[-1], cache[SITE][0, -1], atol=1e-4)
    _, owner = gather(model, SITE, documents, lambda ids: [0, 1, 2])  # BOS never counts
    assert owner.tolist() == [i for i in range(10) for _ in range(2)]


def test_ranks_are_exact_with_ties():
    g = torch.Generator().manual_seed(0)
    dense = torch.randint(0, 4, (50, 6), generator=g).float()
    dense[:, 3] = 0
    labels = torch.rand(5, 50, generator=g) < 0.4
    areas = ranked(Codes.from_dense(dense), labels)
    for i, mine in enumerate(labels):
        assert areas[i].tolist() == pytest.approx([auroc(column, mine) for column in dense.T])
        assert torch.allclose(areas[i], score_latents(Codes.from_dense(dense), mine)[0])


def test_the_seed_decides_the_split(model, dictionary):
    a, b = texts(10, 0), texts(10, 1)
    one, two, three = (contrast(model, dictionary, a, b, seed=s, shuffles=3).to_json() for s in (0, 0, 1))
    assert one == two
    assert one != three


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"texts_a": [[5]]}, r"1 and 4 texts cannot be split into halves. Give two or more of both."),
        ({"at": "first"}, r"There are no positions 'first'. Give 'last', 'all' or a function"),
        ({"at": lambda ids: [99]}, r"There is no position 99 in a text of \d+ tokens"),
        ({"at": lambda ids: []}, r"No token counts in half of one list of texts"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(model, dictionary, given, text):
    with pytest.raises(UsageError, match=text):
        contrast(model, dictionary, **{"texts_a": texts(4, 0), "texts_b": texts(4, 1), **given})
