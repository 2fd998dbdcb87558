"""Queries, keys, values, scores, patterns, norm scales: against the family's outputs and an attention written out."""

import pytest
import torch
from conftest import D_HEAD, D_MODEL, FAMILIES, HEADS, LAYERS

from lensing.errors import SiteError
from lensing.model.attention import eager
from lensing.model.edit import Apply, Replace
from lensing.model.sites import Site

IDS = [1, 4, 5, 6, 7, 8, 9, 12, 20, 21, 22, 23]
families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_patterns_equal_output_attentions(make_model, family):
    model = make_model(family)
    _, cache = model.run_with_cache(IDS, sites="attn_pattern.*")
    with torch.no_grad(), eager(model.adapter.config):
        attentions = model.hf(input_ids=torch.tensor([IDS]), output_attentions=True).attentions
    for layer in range(LAYERS):
        assert cache["attn_pattern", layer].shape == (1, HEADS, len(IDS), len(IDS))
        assert torch.equal(cache["attn_pattern", layer], attentions[layer])


@families
def test_patterns_times_values_are_z(make_model, family):
    model = make_model(family)
    _, cache = model.run_with_cache(IDS, sites="*")
    for layer in range(LAYERS):
        v = cache["attn_v", layer]
        v = v.repeat_interleave(HEADS // v.shape[2], 2)
        z = torch.einsum("bhqk,bkhd->bqhd", cache["attn_pattern", layer], v)
        torch.testing.assert_close(z, cache["attn_z", layer], rtol=1e-5, atol=1e-5)
        future = torch.ones(len(IDS), len(IDS), dtype=torch.bool).triu(1)
        assert not cache["attn_pattern", layer][..., future].any()
        if model.adapter.verdict(layer).sinks:
            assert cache["attn_pattern", layer].sum(-1).min() < 0.99
        else:
            torch.testing.assert_close(cache["attn_scores", layer].softmax(-1), cache["attn_pattern", layer])


def scores_of(q, k, family):
    """Scores from queries and keys as each family's paper writes them, before the mask."""
    q, k = q.double(), k.double().repeat_interleave(q.shape[2] // k.shape[2], 2)
    if family in ("llama", "qwen2", "phi3", "mixtral"):
        base = 1e6 if family == "mixtral" else 1e4
        angle = torch.arange(len(IDS))[:, None] * base ** (-torch.arange(0, D_HEAD, 2) / D_HEAD)
        cos, sin = (torch.cat([f(angle)] * 2, -1)[None, :, None] for f in (torch.cos, torch.sin))

        def rotate(x):
            return x * cos + torch.cat([-x[..., D_HEAD // 2 :], x[..., : D_HEAD // 2]], -1) * sin

        q, k = rotate(q), rotate(k)
    return torch.einsum("bqhd,bkhd->bhqk", q, k) / D_HEAD**0.5


WRITTEN_OUT = ["gpt2", "llama", "qwen2", "phi3", "opt", "mixtral"]


@pytest.mark.parametrize("family", WRITTEN_OUT)
def test_scores_come_from_queries_and_keys(make_model, family):
    model = make_model(family)
    _, cache = model.run_with_cache(IDS, sites="attn_{q,k,scores}.*")
    past = torch.ones(len(IDS), len(IDS), dtype=torch.bool).tril()
    for layer in range(LAYERS):
        want = scores_of(cache["attn_q", layer], cache["attn_k", layer], family)
        torch.testing.assert_close(
            cache["attn_scores", layer].double()[..., past], want[..., past], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("family", WRITTEN_OUT)
@pytest.mark.parametrize("name", ["q", "k", "v", "scores", "pattern", "z"])
def test_an_edit_has_the_effect_of_an_attention_written_out(make_model, family, name):
    """The edited run must give what one gives in which z is computed here, from the edited part on."""
    model, layer = make_model(family), 1
    _, cache = model.run_with_cache(IDS, sites=[f"attn_{n}.{layer}" for n in ("q", "k", "v", "scores", "pattern", "z")])
    part = {n: cache[f"attn_{n}", layer].double() for n in ("q", "k", "v", "scores", "pattern", "z")}
    noise = torch.randn(part[name].shape, generator=torch.Generator().manual_seed(0)).double()
    changed = part[name] + 0.5 * noise if name != "pattern" else (noise.exp() * (part[name] > 0))
    part[name] = changed
    past = torch.ones(len(IDS), len(IDS), dtype=torch.bool).tril()
    if name in "qk":
        part["scores"] = scores_of(part["q"], part["k"], family).masked_fill(~past, -1e30)
    if name in ("q", "k", "scores"):
        part["pattern"] = part["scores"].softmax(-1)
    if name != "z":
        v = part["v"].repeat_interleave(HEADS // part["v"].shape[2], 2)
        part["z"] = torch.einsum("bhqk,bkhd->bqhd", part["pattern"], v)
    with model.edit(Replace(("attn_z", layer), part["z"].float())):
        want = model.logits(IDS)
    with model.edit(Replace((f"attn_{name}", layer), changed.float())):
        got = model.logits(IDS)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-4)
    assert not torch.allclose(got, model.logits(IDS), atol=1e-2)


@pytest.mark.parametrize("family", ["bloom", "gpt_neox", "falcon", "falcon_7b", "mpt", "gpt2"])
def test_fused_projections_are_told_apart(make_model, family):
    """Silencing the queries leaves each score what it is without any key, and the other way round."""
    model, layer = make_model(family), 1
    _, cache = model.run_with_cache(IDS, sites=f"attn_{{q,k}}.{layer}")
    assert cache["attn_q", layer].shape[2:] == (HEADS, D_HEAD)
    assert cache["attn_k", layer].shape[2] == model.adapter.n_kv_heads

    def scores(*zeroed):
        with model.edit(*(Apply((f"attn_{n}", layer), torch.zeros_like) for n in zeroed)):
            return model.run_with_cache(IDS, sites=f"attn_scores.{layer}")[1][f"attn_scores.{layer}"]

    assert torch.equal(scores("q"), scores("q", "k"))
    assert torch.equal(scores("k"), scores("q", "k"))
    # at one position no rotation is between query and key
    q, k = cache["attn_q", layer].double(), cache["attn_k", layer].double()
    own = (q * k.repeat_interleave(HEADS // k.shape[2], 2)).sum(-1).transpose(1, 2) / D_HEAD**0.5
    got = (scores().double() - scores("q", "k").double()).diagonal(dim1=2, dim2=3)
    torch.testing.assert_close(got, own, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "opt_post_norm"])
def test_norm_scales_are_what_norms_divide_by(make_model, family):
    model = make_model(family)
    _, cache = model.run_with_cache(IDS, sites="*")
    x = cache["resid_post", LAYERS - 1].double()
    centred = x - x.mean(-1, keepdim=True) if "Layer" in type(model.adapter.final_norm).__name__ else x
    centred = x if "RMS" in type(model.adapter.final_norm).__name__ else centred
    norm = model.adapter.norm(model.adapter.final_norm)
    want = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(cache["norm_scale_final"].double(), want, rtol=1e-4, atol=1e-5)
    out = norm.linear(x, cache["norm_scale_final"].double()) + norm.bias
    torch.testing.assert_close(out, cache["final_norm"].double(), rtol=1e-3, atol=1e-4)
    with model.edit(Apply("norm_scale_final", lambda s: 2 * s)):
        halved = model.run_with_cache(IDS, sites="final_norm")[1]["final_norm"]
    torch.testing.assert_close(halved - norm.bias, (cache["final_norm"] - norm.bias) / 2, rtol=1e-3, atol=1e-4)


def test_an_edit_of_one_head_at_one_query(make_model):
    model = make_model("gemma2")
    _, before = model.run_with_cache(IDS, sites=["attn_pattern.1", "attn_z.1"])

    def first_token_only(pattern):
        new = pattern.clone()
        new[:, 2, 5] = 0.0
        new[:, 2, 5, 0] = 1.0
        return new

    with model.edit(Apply("attn_pattern.1", first_token_only)):
        _, after = model.run_with_cache(IDS, sites=["attn_z.1", "attn_v.1"])
    same = torch.ones(len(IDS), HEADS, dtype=torch.bool)
    same[5, 2] = False
    assert torch.equal(after["attn_z.1"][0][same], before["attn_z.1"][0][same])
    torch.testing.assert_close(after["attn_z.1"][0, 5, 2], after["attn_v.1"][0, 0, 1])


def test_positions_of_patterns_are_queries(make_model):
    model = make_model("llama")
    _, cache = model.run_with_cache(IDS, sites="attn_pattern.0")
    _, last = model.run_with_cache(IDS, sites="attn_pattern.0", positions=-1)
    assert torch.equal(last["attn_pattern.0"], cache["attn_pattern.0"][:, :, -1:])
    with model.edit(Replace("attn_pattern.0", torch.zeros(HEADS, len(IDS)), at=3)):
        _, edited = model.run_with_cache(IDS, sites="attn_pattern.0")
    assert not edited["attn_pattern.0"][:, :, 3].any()
    assert torch.equal(edited["attn_pattern.0"][:, :, 4], cache["attn_pattern.0"][:, :, 4])


def test_attention_is_given_back_as_it_was(make_model):
    model = make_model("llama")
    config = model.adapter.config
    before = config._attn_implementation
    assert before == "sdpa"
    with pytest.raises(ZeroDivisionError), model.edit(Apply("attn_pattern.1", lambda p: 1 / 0)):
        model.logits(IDS)
    assert config._attn_implementation == before
    assert torch.tensor([0.0, 1.0]).softmax(0).sum() == 1  # nothing watches any more
    model.run_with_cache(IDS, sites="attn_pattern.0", stop=True)
    assert config._attn_implementation == before


def test_attention_that_is_no_softmax_is_refused_with_a_sentence(make_hf):
    from lensing.model.run import Model

    hf = make_hf("gpt2")
    attn = hf.transformer.h[1].attn
    attn.forward = lambda hidden_states, *args, **kwargs: (attn.c_proj(hidden_states), None)
    model = Model(hf)
    with pytest.raises(SiteError, match="does not turn scores into a pattern by one softmax"):
        model.run_with_cache(IDS, sites="attn_pattern.1")
    assert "attn_pattern.0" in model.sites()
    assert "attn_q.1" not in model.sites()
    assert model.shape("attn_pattern.0", 2, 5) == (2, HEADS, 5, 5)
    assert model.adapter.place(Site("resid_post", 1)).side == "out"
    assert model.d_model == D_MODEL
