"""Circuits from weights: against dense matrices, against what heads do in a run, and against heads made by hand."""

import pytest
import torch
from conftest import HEADS, LAYERS

from lensing.causal.weights import LowRank, composition, copying, full_ov, ov, qk, singular_words
from lensing.errors import UsageError
from lensing.model.edit import Replace
from lensing.model.run import Model

IDS = [1, 4, 5, 6, 7, 8, 9, 12]
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "phi3", "granite", "bloom", "olmo2"]


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_low_rank_products_are_those_of_the_dense_ones():
    a, b = LowRank(random(30, 4), random(4, 25)), LowRank(random(25, 6), random(6, 30))
    dense = a.dense() @ b.dense()
    torch.testing.assert_close((a @ b).dense(), dense)
    torch.testing.assert_close((b @ a).dense(), b.dense() @ a.dense())
    assert (a @ b).left.shape[1] == 4
    torch.testing.assert_close((a @ random(25, 3)).dense(), a.dense() @ random(25, 3))
    torch.testing.assert_close(a.T.dense(), a.dense().T)
    torch.testing.assert_close(a.rows(slice(2, 5)), a.dense()[2:5])
    assert a.norm() == pytest.approx(float(a.dense().norm()))
    u, s, v = a.svd()
    torch.testing.assert_close((u * s) @ v, a.dense())
    torch.testing.assert_close(s, torch.linalg.svdvals(a.dense())[:4])
    mine = (a @ b).eigenvalues().abs().sort(descending=True).values
    torch.testing.assert_close(mine, torch.linalg.eigvals(dense).abs().sort(descending=True).values[:4])
    with pytest.raises(UsageError, match=r"shape \[30, 25\] has no eigenvalues"):
        a.eigenvalues()


@pytest.mark.parametrize("family", FAMILIES)
def test_ov_is_what_a_head_adds_when_it_looks_at_one_token(make_model, family):
    """With the pattern written by hand and norms' scales divided out, the head adds x OV, up to biases."""
    model, layer, head, source = make_model(family), 1, 2, 3
    pattern = torch.zeros(1, HEADS, len(IDS), len(IDS))
    pattern[..., source] = 1.0
    sites = [f"attn_z.{layer}", f"resid_pre.{layer}", f"attn_out.{layer}"]
    scales = [s for s in (f"norm_scale_attn.{layer}", f"norm_scale_attn_post.{layer}") if s in model.sites()]
    with model.edit(Replace(f"attn_pattern.{layer}", pattern)):
        _, full = model.run_with_cache(IDS, sites=[*sites, *scales])

    def added(scale):
        """attn_out of two inputs differs by what OV makes of their difference; the post-norm's scale is held."""
        x = full[f"resid_pre.{layer}"].clone()
        x[0, source] *= scale
        z = full[f"attn_z.{layer}"].clone()
        edits = [Replace(f"attn_pattern.{layer}", pattern)]
        edits += [Replace(s, full[s]) for s in scales]
        with model.edit(*edits):
            _, run = model.run_with_cache(IDS, sites=[f"attn_z.{layer}"], start=(f"resid_pre.{layer}", x))
        z[:, :, head] = run[f"attn_z.{layer}"][:, :, head]
        with model.edit(Replace(f"attn_z.{layer}", z), *edits[1:]):
            _, run = model.run_with_cache(
                IDS, sites=[f"attn_out.{layer}"], start=(f"resid_pre.{layer}", full[f"resid_pre.{layer}"])
            )
        return run[f"attn_out.{layer}"][0, -1].double()

    x = full[f"resid_pre.{layer}"][0, source].double()
    want = x @ ov(model, layer, head).dense()
    if f"norm_scale_attn.{layer}" in full:
        want = want / full[f"norm_scale_attn.{layer}"][0, source].double()
    if f"norm_scale_attn_post.{layer}" in full:
        want = want / full[f"norm_scale_attn_post.{layer}"][0, -1].double()
    torch.testing.assert_close(added(2.0) - added(1.0), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "phi3", "llama", "gpt_neox"])
def test_qk_is_the_score_at_distance_zero(make_model, family):
    model, layer = make_model(family), 1
    _, cache = model.run_with_cache(
        IDS, sites=[f"attn_scores.{layer}", f"resid_pre.{layer}", f"norm_scale_attn.{layer}"]
    )
    x = cache[f"resid_pre.{layer}"][0].double() / cache[f"norm_scale_attn.{layer}"][0].double()
    for head in range(HEADS):
        own = ((x @ qk(model, layer, head).left) * (x @ qk(model, layer, head).right.T)).sum(-1) / model.d_head**0.5
        got = cache[f"attn_scores.{layer}"][0, head].diagonal().double()
        if family in ("llama", "gpt_neox", "phi3") and family != "gpt_neox":  # no biases
            torch.testing.assert_close(got, own, rtol=1e-3, atol=1e-3)
        else:  # biases add what the other side alone decides: the rest must go with it
            assert torch.corrcoef(torch.stack([got, own]))[0, 1] > 0.5


def test_full_ov_and_copying_are_those_of_the_dense_matrix(make_model):
    model = make_model("gpt2")
    dense = full_ov(model, 1, 0).dense()
    assert dense.shape == (model.d_vocab, model.d_vocab)
    values = torch.linalg.eigvals(dense)
    assert copying(model, 1, 0) == pytest.approx(float(values.sum().real / values.abs().sum()), abs=1e-6)


def test_a_head_that_copies_has_the_score_one(make_hf, tokenizer):
    hf = make_hf("llama")
    block = hf.model.layers[1].self_attn
    end = hf.lm_head.weight.data * hf.model.norm.weight.data
    # what head 3 reads are the first directions of the embedding, and it writes what raises their own words
    read = torch.linalg.qr(hf.model.embed_tokens.weight.data.T)[0][:, :8]
    seen = hf.model.embed_tokens.weight.data @ read  # [vocab, 8]
    write = torch.linalg.pinv(end) @ seen
    gain = hf.model.layers[1].input_layernorm.weight.data
    block.v_proj.weight.data[8:16] = (read / gain[:, None]).T
    block.o_proj.weight.data[:, 24:32] = write
    model = Model(hf, tokenizer)
    assert copying(model, 1, 3) > 0.99
    block.o_proj.weight.data[:, 24:32] = -write
    assert copying(model, 1, 3) < -0.99


def test_composition_by_dense_matrices_and_made_by_hand(make_hf, tokenizer):
    hf = make_hf("gpt2")
    model = Model(hf, tokenizer)
    for kind, later in (
        ("q", qk(model, 2, 3).dense()),
        ("k", qk(model, 2, 3).dense().T),
        ("v", ov(model, 2, 3).dense()),
    ):
        found = composition(model, kind)
        assert found.shape == (LAYERS, HEADS, LAYERS, HEADS)
        assert not found[1, :, :2].any()
        a = ov(model, 0, 1).dense()
        other = ov(model, 1, 1).dense()
        share, second = (float((m @ later).norm() / (m.norm() * later.norm())) for m in (a, other))
        assert float(found[0, 1, 2, 3] - found[1, 1, 2, 3]) == pytest.approx(share - second, abs=1e-9)
    # the keys of a later head read exactly what head 0.1 writes
    w_o = hf.transformer.h[0].attn.c_proj.weight.data[8:16]
    gain = hf.transformer.h[2].ln_1.weight.data
    hf.transformer.h[2].attn.c_attn.weight.data[:, 32 + 24 : 64] = (w_o - w_o.mean(1, keepdim=True)).T / gain[:, None]
    found = composition(Model(hf, tokenizer), "k")[:, :, 2, 3]
    assert int(found.flatten().argmax()) == 1
    with pytest.raises(UsageError, match="no composition through 'x'"):
        composition(model, "x")


def test_singular_words_and_bad_heads(make_model):
    model = make_model("gemma2")
    found = singular_words(model, 1, 0, n=2, top=4)
    assert len(found) == 2
    assert found[0][0] >= found[1][0]
    assert len(found[0][1]) == len(found[0][2]) == 4
    with pytest.raises(UsageError, match="There is no head 7 of layer 1"):
        ov(model, 1, 7)
