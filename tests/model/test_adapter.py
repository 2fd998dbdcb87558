"""The sites of every family against the plain Hugging Face model and against its own arithmetic."""

from contextlib import nullcontext

import pytest
import torch
from conftest import D_HEAD, D_MLP, D_MODEL, FAMILIES, HEADS, LAYERS, VOCAB

from lensing.errors import ModelError, SiteError, UnknownNameError
from lensing.model.attention import eager
from lensing.model.edit import Replace
from lensing.model.run import Model

IDS = [1, 4, 5, 6, 7, 8, 9, 12, 20, 21, 22, 23]
PARALLEL = ["gpt_neox", "phi", "gptj", "cohere", "falcon", "falcon_7b"]
SEQUENTIAL = [f for f in FAMILIES if f not in (*PARALLEL, "opt_post_norm")]
EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
families = pytest.mark.parametrize("family", FAMILIES)


def plain(model, ids=IDS, written_out=False):
    """The Hugging Face model as it is, or with its attention written out, as it is where patterns are captured."""
    with torch.no_grad(), eager(model.adapter.config) if written_out else nullcontext():
        return model.hf(input_ids=torch.tensor([ids]), output_hidden_states=True)


def quick(model):
    """The sites for which attention runs as it likes."""
    return [s for s in model.sites() if not s.startswith(("attn_scores", "attn_pattern"))]


def run(model, sites):
    return model.run_with_cache(IDS, sites=sites)


@families
def test_logits_are_bit_identical_to_plain_hugging_face(make_model, family):
    model = make_model(family)
    for sites, written_out in ((quick(model), False), (model.sites(), True)):
        expected = plain(model, written_out=written_out).logits
        logits, cache = run(model, sites)
        assert torch.equal(logits, expected)
        assert torch.equal(cache["logits"], expected)
        assert len(cache) == len(sites) > 10 * LAYERS
        assert all(list(cache[s].shape) == list(model.shape(s, 1, len(IDS))) for s in sites)
    assert torch.equal(model.logits(IDS), plain(model).logits)


@families
def test_captures_equal_output_hidden_states(make_model, family):
    model = make_model(family)
    hidden = plain(model).hidden_states
    _, cache = run(model, ["embed", "resid_pre.*", "resid_post.*"])
    assert torch.equal(cache["embed"], hidden[0])
    for layer in range(LAYERS):
        assert torch.equal(cache["resid_pre", layer], hidden[layer])
    for layer in range(LAYERS - 1):
        assert torch.equal(cache["resid_post", layer], hidden[layer + 1])
    if model.adapter.final_norm is not None:
        assert torch.equal(run(model, "final_norm")[1]["final_norm"], hidden[LAYERS])


@families
def test_the_lens_at_the_last_layer_is_the_model(make_model, family):
    model = make_model(family)
    logits, cache = run(model, ("resid_post", LAYERS - 1))
    assert torch.equal(model.unembed(cache["resid_post", LAYERS - 1]), logits)


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_contributions_add_up_to_the_stream(make_model, family):
    model = make_model(family)
    _, cache = run(model, "*")
    for layer in range(LAYERS):
        mid = cache["resid_pre", layer] + cache["attn_out", layer]
        torch.testing.assert_close(mid, cache["resid_mid", layer])
        torch.testing.assert_close(mid + cache["mlp_out", layer], cache["resid_post", layer])
    total = cache["embed"] + sum(cache["attn_out", i] + cache["mlp_out", i] for i in range(LAYERS))
    torch.testing.assert_close(total, cache["resid_post", LAYERS - 1])


@pytest.mark.parametrize("family", PARALLEL)
def test_parallel_blocks_add_up_and_have_no_middle(make_model, family):
    model = make_model(family)
    _, cache = run(model, ["resid_pre.*", "attn_out.*", "mlp_out.*", "resid_post.*"])
    for layer in range(LAYERS):
        total = cache["resid_pre", layer] + cache["attn_out", layer] + cache["mlp_out", layer]
        torch.testing.assert_close(total, cache["resid_post", layer])
    for pattern in ("resid_mid.1", "resid_mid.*"):
        with pytest.raises(SiteError, match="runs attention and MLP in parallel, so the stream has no middle"):
            run(model, pattern)
    assert not any(s.startswith("resid_mid") for s in model.sites())


def test_a_stream_that_is_normed_after_adding_is_refused_with_a_sentence(make_model):
    model = make_model("opt_post_norm")
    for site in ("attn_out.0", "mlp_out.1", "resid_mid.2", "mlp_out.*"):
        with pytest.raises(SiteError, match="do not add up to the residual stream"):
            run(model, site)
    assert run(model, "mlp_out_raw.0")[1]["mlp_out_raw.0"].shape == (1, len(IDS), D_MODEL)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_raw_outputs_become_contributions_through_the_post_norms(make_model, family):
    model = make_model(family)
    _, cache = run(model, "*")
    for layer, block in enumerate(model.hf.model.layers):
        normed = block.post_feedforward_layernorm(cache["mlp_out_raw", layer])
        assert torch.equal(normed, cache["mlp_out", layer])
        assert torch.equal(block.post_attention_layernorm(cache["attn_out_raw", layer]), cache["attn_out", layer])
        assert not torch.allclose(cache["mlp_out_raw", layer], cache["mlp_out", layer])


def test_on_llama_the_norm_of_the_same_name_is_read_before_the_mlp(make_model):
    model = make_model("llama")
    _, cache = run(model, "*")
    block = model.hf.model.layers[1]
    assert torch.equal(cache["attn_out", 1], cache["attn_out_raw", 1])
    assert torch.equal(block.post_attention_layernorm(cache["resid_mid", 1]), cache["mlp_in", 1])


@families
def test_inner_sites_recompute_the_outer_ones(make_model, family):
    """Neurons through the down-projection give the MLP's output, heads through W_O that of attention."""
    model = make_model(family)
    _, cache = run(model, "*")
    for layer, block in enumerate(model.adapter.blocks):
        # where the stream is added inside the module, its projection's output is what is added
        raw = "" if family == "bloom" else "_raw"
        assert cache["attn_z", layer].shape == (1, len(IDS), HEADS, D_HEAD)
        heads = block.linears["o"](cache["attn_z", layer].flatten(2))
        torch.testing.assert_close(heads, cache[f"attn_out{raw}", layer], rtol=1e-5, atol=1e-5)
        if family in EXPERTS:
            continue
        raw = "" if family in ("bloom", "mpt") else "_raw"
        assert cache["mlp_post", layer].shape == (1, len(IDS), model.d_mlp)
        down = block.linears["down"](cache["mlp_post", layer])
        torch.testing.assert_close(down, cache[f"mlp_out{raw}", layer], rtol=1e-5, atol=1e-5)
        neurons = block.act(cache["mlp_pre", layer])
        if "mlp_up.0" in cache:
            neurons = neurons * cache["mlp_up", layer]
            gate, up = _gate_and_up(block, cache["mlp_in", layer])
            torch.testing.assert_close(up, cache["mlp_up", layer])
            torch.testing.assert_close(gate, cache["mlp_pre", layer])
        torch.testing.assert_close(neurons, cache["mlp_post", layer])


def _gate_and_up(block, x):
    if hasattr(block.mlp, "gate_up_proj"):
        return block.mlp.gate_up_proj(x).chunk(2, -1)
    return block.mlp.gate_proj(x), block.mlp.up_proj(x)


@pytest.mark.parametrize("family", EXPERTS)
def test_neurons_of_experts_are_refused_with_a_sentence(make_model, family):
    with pytest.raises(SiteError, match=r"as with experts"):
        run(make_model(family), "mlp_post.0")


@families
def test_writing_back_a_captured_value_changes_nothing(make_model, family):
    model = make_model(family)
    for sites, written_out in ((quick(model), False), (model.sites(), True)):
        expected = plain(model, written_out=written_out).logits
        _, cache = run(model, sites)
        for site in cache if not written_out else set(sites) - set(quick(model)):
            with model.edit(Replace(site, cache[site])):
                assert torch.equal(model.logits(IDS), expected), site


@families
def test_an_edit_reaches_the_logits_from_every_site(make_model, family):
    model = make_model(family)
    logits, cache = run(model, "*")
    bias_only = {f"attn_{x}.{LAYERS - 1}" for x in "qk"}  # attention may not care; the rest must
    for site in set(cache) - bias_only:
        by_query = site.startswith(("attn_scores", "attn_pattern"))
        shape = cache[site][:, :, 0].shape[1:] if by_query else cache[site].shape[2:]
        value = torch.full(shape, 3.0 if site.startswith("norm_scale") else 0.0)
        with model.edit(Replace(site, value)):
            changed, edited = model.run_with_cache(IDS, sites=site)
        assert not torch.allclose(changed, logits), site
        assert bool((edited[site] == value.flatten()[0]).all()), site


def test_an_edit_of_the_middle_reaches_both_readers(make_model):
    """The stream goes on past the MLP, so a new middle must show in resid_post as well as in the MLP."""
    for family in ("llama", "gemma2", "gpt2", "opt"):
        model = make_model(family)
        value = torch.randn(1, len(IDS), D_MODEL, generator=torch.Generator().manual_seed(0))
        with model.edit(Replace("resid_mid.1", value)):
            _, cache = run(model, "*")
        assert torch.equal(cache["resid_mid.1"], value)
        torch.testing.assert_close(cache["resid_post.1"], value + cache["mlp_out.1"], rtol=1e-5, atol=1e-4)


def test_transformer_lens_embed_is_the_token_embedding_alone(make_model):
    gpt2, llama = make_model("gpt2"), make_model("llama")
    _, cache = run(gpt2, ["hook_embed", "hook_pos_embed", "embed"])
    parts = cache["hook_embed"] + cache["hook_pos_embed"]
    torch.testing.assert_close(parts, cache["embed"])
    assert torch.equal(cache["hook_embed"][0], gpt2.hf.transformer.wte.weight[IDS])
    assert run(llama, "hook_embed")[1].sites == ["embed"]
    assert torch.equal(run(gpt2, "embeddings")[1]["embeddings"], cache["hook_embed"])
    with pytest.raises(SiteError, match="no learned positions"):
        run(llama, "hook_pos_embed")


def test_the_peers_unembedding_is_what_comes_before_the_cap(make_model):
    model = make_model("gemma2")
    _, cache = run(model, ["lm_head", "logits"])
    cap = model.hf.config.final_logit_softcapping
    torch.testing.assert_close(torch.tanh(cache["lm_head"] / cap) * cap, cache["logits"])


def test_modules_by_path(make_model):
    model = make_model("llama")
    _, cache = run(model, ["module:model.layers.1.mlp", "mlp_out.1"])
    assert torch.equal(cache["module:model.layers.1.mlp"], cache["mlp_out.1"])
    with pytest.raises(
        UnknownNameError, match=r"no module named 'model.layers.1.mpl'. Did you mean 'model.layers.1.mlp'"
    ):
        run(model, "module:model.layers.1.mpl")


@families
def test_sizes(make_model, family):
    model = make_model(family)
    assert (model.n_layers, model.d_model, model.n_heads) == (LAYERS, D_MODEL, HEADS)
    d_mlp = {"bloom": 4 * D_MODEL, "mpt": 4 * D_MODEL}.get(family, D_MLP)
    assert (model.d_head, model.d_mlp, model.d_vocab) == (D_HEAD, d_mlp, VOCAB)
    _, cache = run(model, quick(model))
    for site, value in cache.items():
        assert model.width(site) == value.shape[-1], site
    assert torch.equal(model.W_U, model.hf.get_output_embeddings().weight.T)


def test_a_head_that_is_not_known_is_refused(make_hf):
    hf = make_hf("llama")
    hf.config.final_logit_softcapping = 1.0  # named in the config, but Llama's code does not do it
    model = Model(hf)
    with pytest.raises(ModelError, match="does something between its last block and its logits"):
        model.unembed(torch.zeros(1, D_MODEL))


def test_a_model_without_blocks_is_refused(make_hf):
    hf = make_hf("llama")
    hf.config.num_hidden_layers = 17
    with pytest.raises(ModelError, match="holds no list of 17 decoder blocks"):
        Model(hf)
