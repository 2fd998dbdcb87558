"""The ends of runs: the model's own logits at the marked positions, whatever is run once and whatever is left out."""

from __future__ import annotations

import pytest
import torch

import lensing as ln
from lensing.model.edit import Add, Apply
from lensing.model.ends import Fork, ends, last_words


@pytest.fixture(scope="module")
def model():
    return ln.load_model("almanac")


@pytest.fixture(scope="module")
def tokens(model):
    ids = [[5, 6], [7, 8, 9], [10, 11, 12, 13]]
    return model.encode(ids)


@pytest.mark.parametrize("numbers", [1, 1 << 24])
def test_ends_are_the_logits_of_the_marked_positions(model, tokens, numbers, monkeypatch):
    monkeypatch.setattr("lensing.model.ends.NUMBERS", numbers)
    found = ends(model, tokens, tokens.mask)
    whole = model.logits(tokens)[tokens.mask]
    assert len(found) == int(tokens.mask.sum())
    assert torch.allclose(found.logits(), whole, atol=1e-5)
    assert len(list(found.parts())) == (len(found) if numbers == 1 else 1)


@pytest.mark.parametrize("site", ["embed", "mlp_out.0", "resid_post.2", "attn_z.4", "logits"])
def test_a_fork_runs_as_the_whole_does(model, tokens, site):
    fork = Fork(model, tokens, site)
    h = model.run_with_cache(tokens, sites=[site])[1][site]
    edit = Add(site, torch.linspace(-1, 1, h[0, 0].numel()).view(h.shape[2:]))
    with model.edit(edit):
        found = fork.ends(tokens.mask, times=2).logits()
        whole = model.logits(tokens)[tokens.mask]
    assert not torch.allclose(whole, model.logits(tokens)[tokens.mask], atol=1e-2), "the edit does something"
    assert torch.allclose(found, whole.repeat(2, 1), atol=1e-4)


def test_edits_behind_the_last_block_and_around_a_fork_count(model, tokens):
    with model.edit(Apply("final_norm", lambda h: 2 * h)):
        assert torch.allclose(ends(model, tokens, tokens.mask).logits(), model.logits(tokens)[tokens.mask], atol=1e-5)
    early = Add("resid_post.0", torch.ones(model.d_model))
    with model.edit(early):
        fork = Fork(model, tokens, "resid_post.3")
        within = fork.ends(tokens.mask).logits()
    with model.edit(early):
        assert torch.allclose(within, model.logits(tokens)[tokens.mask], atol=1e-5)


def test_the_last_words_of_rows_padded_on_either_side(model):
    for padding in ("left", "right"):
        batch = model.encode([[5, 6, 7, 8], [9, 10]], padding=padding)
        assert batch.ids[last_words(batch)].tolist() == [8, 10]


def test_a_slice_of_positions_is_given_whole_to_the_unembedding(model):
    seen = []
    hook = model.adapter.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    try:
        model.generate([[5, 6, 7], [8, 9, 10]], max_new_tokens=2, stop_ids=())
    finally:
        hook.remove()
    # this hook was there first, and sees what comes from the model; the one that mends it runs after
    assert seen == [False, True]
    assert not model.adapter.head._forward_pre_hooks


def test_what_all_rows_begin_with_is_run_once(model):
    rows = [[1, *range(20, 50), *range(first, first + more)] for first, more in ((60, 4), (70, 3), (80, 1), (90, 4))]
    batch = model.encode(rows)
    where = batch.mask.clone()
    where[:, :30] = False
    seen = []
    hook = model.adapter.embedding.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    try:
        found = ends(model, batch, where).logits()
    finally:
        hook.remove()
    assert seen == [(1, 30), (4, 5)]
    assert torch.allclose(found, model.logits(batch)[where], atol=1e-4)
    with model.edit(Add("resid_post.0", torch.ones(model.d_model), at=0, include_special=True)):
        edited = ends(model, batch, where).logits()
        assert torch.allclose(edited, model.logits(batch)[where], atol=1e-4), "under an edit nothing is shared"
