"""Parts that sum to logits: components, heads, tokens that heads read, neurons, latents; and prisms pulled back."""

import pytest
import torch
from conftest import FAMILIES, HEADS, LAYERS

import lensing as ln
from lensing.dictionary.base import new_dictionary
from lensing.errors import SiteError, UsageError
from lensing.lens.prism import Trace, accumulated, direct_logit_attribution, logit_prism

IDS = [1, 4, 5, 6, 7, 8, 9, 12, 20]
SUMS = [f for f in FAMILIES if f != "opt_post_norm"]
EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
families = pytest.mark.parametrize("family", SUMS)


def before_the_cap(model, position=-1):
    _, cache = model.run_with_cache(IDS, sites=f"resid_post.{LAYERS - 1}")
    return model.adapter.unembed(cache[f"resid_post.{LAYERS - 1}"], cap=False)[0, position].double()


@families
@pytest.mark.parametrize("by", ["component", "head", "source", "neuron"])
def test_parts_sum_to_the_logit(make_model, family, by):
    if by == "neuron" and family in EXPERTS:
        with pytest.raises(SiteError, match="as with experts"):
            direct_logit_attribution(make_model(family), IDS, 7, by=by)
        return
    model = make_model(family)
    logits = before_the_cap(model)
    for target, minus in ((7, None), (7, 12)):
        found = direct_logit_attribution(model, IDS, target, minus=minus, by=by)
        want = float(logits[target] - (logits[minus] if minus else 0.0))
        assert found.whole == pytest.approx(want, rel=1e-5, abs=1e-5)
        size = sum(abs(p.value) for p in found.parts)
        assert found.error < 1e-5 * max(size, 1.0), (found.error, size)
    assert {"source": len(IDS) * HEADS * LAYERS, "head": HEADS * LAYERS}.get(by, 1) <= len(found.parts)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "phi", "falcon", "bloom", "gptj"])
def test_in_float64_sums_close_to_a_billionth(make_hf, tokenizer, family):
    """Families whose own norm computes in the weights' format, not in float32."""
    model = ln.Model(make_hf(family).double(), tokenizer)
    for by in ("component", "head", "source", "neuron"):
        assert direct_logit_attribution(model, IDS, 7, minus=12, by=by).error < 1e-9


def test_a_soft_cap_is_named(make_model):
    model = make_model("gemma2")
    found = direct_logit_attribution(model, IDS, 7)
    assert found.capped == pytest.approx(float(model.logits(IDS)[0, -1, 7]), abs=1e-6)
    assert found.capped == pytest.approx(5 * float(torch.tanh(torch.tensor(found.whole / 5))), abs=1e-5)
    assert direct_logit_attribution(model, IDS, 7, minus=8).capped is None
    assert direct_logit_attribution(make_model("llama"), IDS, 7).capped is None


def test_a_head_is_what_the_logit_loses_without_it(make_model):
    """With the final norm held, taking a head out changes the logit by its part: by edits, not by algebra."""
    model = make_model("llama")
    layer, head = LAYERS - 1, 2
    _, cache = model.run_with_cache(IDS, sites=["norm_scale_final", f"attn_z.{layer}", f"mlp_out.{layer}"])
    z = cache[f"attn_z.{layer}"].clone()
    z[:, :, head] = 0
    with model.edit(
        ln.Replace(f"attn_z.{layer}", z), ln.Replace(f"mlp_out.{layer}", cache[f"mlp_out.{layer}"]),
        ln.Replace("norm_scale_final", cache["norm_scale_final"]),
    ):  # fmt: skip
        without = model.logits(IDS)[0, -1, 7]
    part = next(p for p in direct_logit_attribution(model, IDS, 7, by="head").parts if p.label == f"L{layer}H{head}")
    assert part.value == pytest.approx(float(model.logits(IDS)[0, -1, 7] - without), abs=1e-4)


@pytest.mark.parametrize("site", ["resid_post.1", "mlp_out.1", "attn_out.2"])
def test_latents_bias_and_error_stand_for_the_site(make_model, site):
    model = make_model("gemma2")
    sae = new_dictionary(ln.TopK(width=96, k=8), model.d_model, seed=0).requires_grad_(False)
    sae.site = site
    found = direct_logit_attribution(model, IDS, 7, minus=9, by="latent", dictionaries=[sae])
    assert found.error < 1e-5
    _, cache = model.run_with_cache(IDS, sites=site)
    codes = sae.encode(cache[site][:, -1])
    assert sorted(p.index for p in found.parts if p.kind == "latent") == codes.index.tolist()
    assert len([p for p in found.parts if p.kind == "error"]) == 1
    assert ("embed" in {p.kind for p in found.parts}) == (site != "resid_post.1")


def test_dictionaries_that_do_not_fit_are_refused(make_model):
    model = make_model("gemma2")
    sae = new_dictionary(ln.TopK(width=96, k=8), model.d_model, seed=0).requires_grad_(False)
    with pytest.raises(UsageError, match="Latents need dictionaries"):
        direct_logit_attribution(model, IDS, 7, by="latent")
    sae.site = "mlp_in.1"
    with pytest.raises(UsageError, match=r"A dictionary of mlp_in.1 is no part of the stream"):
        direct_logit_attribution(model, IDS, 7, by="latent", dictionaries=[sae])


@families
def test_a_prism_pulled_back_through_a_head_reads_what_the_head_wrote(make_model, family):
    model = make_model(family)
    trace = Trace(model, IDS)
    prism = logit_prism(model, trace, 7, minus=12)
    assert prism.value == pytest.approx(prism.whole, rel=1e-4, abs=1e-4)
    parts = {(p.layer, p.index, p.position): p.value for p in prism.split("source").parts if p.kind == "source"}
    for layer, head, source in ((2, 1, 0), (1, 3, 5), (2, 0, 8)):
        back = prism.through_head(layer, head, source)
        assert back.whole == pytest.approx(parts[layer, head, source], rel=1e-4, abs=1e-5)
        assert back.value == pytest.approx(back.whole, rel=1e-3, abs=1e-4)
        assert back.split("head").error < 1e-4 * max(sum(abs(p.value) for p in back.split("head").parts), 1.0)
    # and once more: two heads, one after the other
    twice = prism.through_head(2, 1, 5).through_head(1, 2, 3)
    assert (twice.layer, twice.position) == (1, 3)
    assert twice.value == pytest.approx(twice.whole, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", [f for f in SUMS if f not in EXPERTS])
def test_a_prism_pulled_back_through_a_neuron_reads_what_the_neuron_wrote(make_model, family):
    model = make_model(family)
    prism = logit_prism(model, IDS, 7)
    parts = {(p.layer, p.index): p.value for p in prism.split("neuron").parts if p.kind == "neuron"}
    for layer, neuron in ((2, 3), (1, 30)):
        back = prism.through_neuron(layer, neuron)
        assert back.whole == pytest.approx(parts[layer, neuron], rel=1e-5, abs=1e-7)
        assert back.value == pytest.approx(back.whole, rel=1e-3, abs=1e-4)
        again = back.split("source" if model.adapter.verdict(0).z_exact else "head")
        assert again.error < 1e-4 * max(sum(abs(p.value) for p in again.parts), 1.0)


def test_accumulated_reads_add_up_part_by_part(make_model):
    model = make_model("gpt2")
    prism = logit_prism(model, IDS, 7)
    found = accumulated(prism)
    parts = prism.split("component").parts
    assert len(found) == LAYERS + 1
    assert float(found[-1]) == pytest.approx(prism.whole, rel=1e-4)
    step = sum(p.value for p in parts if p.layer == 1)
    assert float(found[2] - found[1]) == pytest.approx(step, rel=1e-4, abs=1e-5)


def test_results_show_and_refuse(make_model):
    model = make_model("gemma2")
    found = direct_logit_attribution(model, IDS, "doubtful", minus="certain", by="head")
    assert found.what == "logit of 'doubtful' less that of 'certain'"
    assert found.table("head").shape == (LAYERS, HEADS)
    assert float(found.table("head").sum()) == pytest.approx(sum(p.value for p in found.parts if p.kind == "head"))
    assert len(found.top(3)) == 3
    assert abs(found.top(3)[0].value) >= abs(found.top(3)[1].value)
    assert found.to_json()["parts"][0]["label"]
    assert "L2H0" in found._repr_html_() or "head" in found._repr_html_() or "mlp" in found._repr_html_()
    with pytest.raises(UsageError, match="There is no position 9 in 9 tokens"):
        direct_logit_attribution(model, IDS, 7, position=9)
    with pytest.raises(UsageError, match="There is no token 4000"):
        direct_logit_attribution(model, IDS, 4000)
    with pytest.raises(UsageError, match="There is no head 9 of layer 0"):
        logit_prism(model, IDS, 7).through_head(0, 9, 0)
    with pytest.raises(UsageError, match="There is no head 0 of layer 2 before this prism"):
        logit_prism(model, IDS, 7).through_head(1, 0, 2).through_head(2, 0, 0)
    with pytest.raises(SiteError, match="do not add up"):
        direct_logit_attribution(make_model("opt_post_norm"), IDS, 7)
