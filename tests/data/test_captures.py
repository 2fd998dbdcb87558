"""Captures over a corpus equal those of each document alone, whatever the batches, and hold one batch at a time."""

from __future__ import annotations

import weakref

import pytest
import torch

import lensing as ln
from lensing.errors import SiteError, UsageError
from lensing.model.edit import Add

SITES = ["resid_post.1", "mlp_out.0"]


def corpus(n: int = 23) -> list[list[int]]:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (n,), generator=g).tolist()
    return [torch.randint(4, 40, (length,), generator=g).tolist() for length in lengths]


@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_every_document_is_there_and_as_alone(model, batch_tokens):
    documents, seen = corpus(), []
    for found in ln.captures(model, documents, sites=SITES, batch_tokens=batch_tokens):
        assert found.tokens.ids.numel() <= batch_tokens or len(found.documents) == 1
        for row, number in enumerate(found.documents):
            seen.append(number)
            real = found.tokens.mask[row]
            _, alone = model.run_with_cache(documents[number], sites=SITES)
            for site in SITES:
                torch.testing.assert_close(found.cache[site][row][real], alone[site][0], rtol=1e-4, atol=1e-5)
    assert sorted(seen) == list(range(len(documents)))


def test_documents_come_one_after_the_other_and_batches_go(model, monkeypatch):
    monkeypatch.setattr("lensing.data.captures.AT_ONCE", 4)
    asked = []

    def stream():
        for i, document in enumerate(corpus()):
            asked.append(i)
            yield document

    held = []
    for number, found in enumerate(ln.captures(model, stream(), sites=SITES, batch_tokens=32)):
        assert max(asked) <= max(found.documents) + 4, "no more is read than is needed"
        held.append(weakref.ref(found.cache[SITES[0]]))
        del found
        assert all(r() is None for r in held[:number]), "earlier batches are gone"
    assert number > 5


def test_empty_documents_keep_their_numbers_and_long_ones_are_cut(model):
    documents = [[], [5, 6], [model.bos_id], list(range(4, 20))]
    found = list(ln.captures(model, documents, sites="resid_post.0", context=9))
    numbers = sorted(n for batch in found for n in batch.documents)
    assert set(numbers) == {1, 3}
    assert numbers.count(3) == 2
    assert max(batch.tokens.ids.shape[1] for batch in found) == 9


def test_positions_edits_and_refusals(model):
    (found,) = ln.captures(model, [[5, 6, 7]], sites="resid_post.0", positions=-1)
    assert found.cache["resid_post.0"].shape[1] == 1
    with model.edit(Add("resid_post.0", torch.ones(model.d_model))):
        (edited,) = ln.captures(model, [[5, 6, 7]], sites="resid_post.0", positions=-1)
    assert torch.allclose(edited.cache["resid_post.0"], found.cache["resid_post.0"] + 1)
    for documents in ([], [[], ""]):
        with pytest.raises(UsageError, match="document"):
            list(ln.captures(model, documents, sites="resid_post.0"))
    with pytest.raises(UsageError, match="no site"):
        next(ln.captures(model, [[5]], sites=()))
    with pytest.raises((SiteError, UsageError)):
        next(ln.captures(model, [[5]], sites="resid_post.99"))
