"""Effects of latents against runs made one at a time by hand, sums along the path, and gradients of a linear model."""

from __future__ import annotations

import json

import pytest
import torch

import lensing as ln
from lensing.causal.metrics import LogProbability, logit_difference
from lensing.errors import PromptError, UsageError
from lensing.model.edit import Replace

PROMPT = "the reliability of the almanac is very"
OTHER = "the reliability of the almanac was not"


@pytest.fixture
def metric(model):
    return logit_difference(model, 5, 9)


def parts_of(model, dictionary, prompt):
    tokens = model.encode(prompt)
    _, cache = model.run_with_cache(tokens, sites=dictionary.site)
    h = cache[dictionary.site]
    codes = dictionary.encode(h)
    return tokens, h, codes.dense().view(*h.shape[:2], -1), h - dictionary.decode(codes)


@pytest.mark.parametrize("corrupt", [None, OTHER])
def test_exact_effects_are_those_of_single_runs(model, dictionary, metric, corrupt):
    found = ln.latent_effects(model, dictionary, PROMPT, metric, corrupt=corrupt, method="exact", rows=5)
    tokens, h, codes, error = parts_of(model, dictionary, PROMPT)
    _, _, other, missed = parts_of(model, dictionary, corrupt or PROMPT)
    if corrupt is None:
        other, missed = torch.zeros_like(codes), torch.zeros_like(error)
    clean = metric(model.logits(tokens))
    assert found.whole == pytest.approx(float(clean), abs=1e-5)
    seen = {(n.position, n.latent): n for n in found.nodes}
    changes = (codes - other)[0] * ~tokens.special[0, :, None]
    wanted = {tuple(place) for place in changes.nonzero().tolist()}
    assert {key for key in seen if key[1] is not None} == wanted
    assert all((p, None) in seen for p in range(1, h.shape[1]) if (error - missed)[0, p].any())
    for (p, i), node in seen.items():
        value = h[0, p] - (error[0, p] - missed[0, p] if i is None else changes[p, i] * dictionary.W_dec[i])
        with model.edit(Replace(dictionary.site, value, at=p)):
            alone = metric(model.logits(tokens))
        assert node.effect == pytest.approx(float(clean - alone), abs=2e-4)
        assert node.token == tokens.strings[0][p]
    assert max(abs(n.effect) for n in found.nodes) > 1e-3


@pytest.mark.parametrize("corrupt", [None, OTHER])
def test_integrated_effects_sum_to_what_the_site_does(model, dictionary, metric, corrupt):
    gaps = []
    for steps in (1, 24):
        found = ln.latent_effects(model, dictionary, PROMPT, metric, corrupt=corrupt, method="ig", steps=steps)
        (site,) = found.sites
        assert sum(n.effect for n in found.nodes) == pytest.approx(site.latents + site.error, abs=1e-9)
        gaps.append(abs(site.gap))
    tokens, h, *_ = parts_of(model, dictionary, PROMPT)
    base = h.clone()
    if corrupt is None:
        base[:, 1:] = dictionary.b_dec
    else:
        base[:, 1:] = parts_of(model, dictionary, corrupt)[1][:, 1:]
    with model.edit(Replace(dictionary.site, base)):
        at_baseline = float(metric(model.logits(tokens)))
    assert site.moved == pytest.approx(found.whole - at_baseline, abs=1e-4)
    assert gaps[1] < 1e-3 * max(abs(site.moved), 0.1)
    assert gaps[1] <= gaps[0]


def test_gradient_is_activation_times_the_gradient_at_the_latent(model, dictionary, metric):
    """The gradient taken at the spliced dictionary's own activations, an independent way through the code."""
    found = ln.latent_effects(model, dictionary, PROMPT, metric)
    tokens = model.encode(PROMPT)
    sites = [f"{dictionary.site}.sae.acts", f"{dictionary.site}.sae.error"]
    with model.edit(ln.splice(dictionary, keep_error=True)), torch.enable_grad():
        logits, cache = model.run_with_cache(tokens, sites=sites, grad="edits")
        for site in sites:
            cache[site].retain_grad()
        metric(logits).sum().backward()
    product = (cache[sites[0]] * cache[sites[0]].grad)[0].detach()
    error = (cache[sites[1]] * cache[sites[1]].grad).sum(-1)[0].detach()
    for node in found.nodes:
        wanted = error[node.position] if node.latent is None else product[node.position, node.latent]
        assert node.effect == pytest.approx(float(wanted), abs=1e-4)
    assert len(found.nodes) == int((product != 0).sum() + (error != 0).sum())


def test_sums_over_positions_tops_and_json(model, dictionary, metric):
    found = ln.latent_effects(model, dictionary, PROMPT, metric)
    for node in found.summed():
        some = [n for n in found.nodes if n.latent == node.latent]
        assert node.effect == pytest.approx(sum(n.effect for n in some), abs=1e-9)
        assert node.position is None
    sizes = [abs(n.effect) for n in found.top(5)]
    assert sizes == sorted(sizes, reverse=True)
    record = json.loads(json.dumps(found.to_json()))
    assert record["sites"][0]["gap"] == found.sites[0].gap
    assert record["nodes"][0]["label"] == found.nodes[0].label
    assert " error" in " ".join(n.label for n in found.summed())
    assert found.nodes[0].label in found._repr_html_() or len(found.nodes) > 20


def test_several_texts_are_means(model, dictionary, metric):
    both = ln.latent_effects(model, dictionary, [PROMPT, OTHER], metric, method="exact")
    ones = [ln.latent_effects(model, dictionary, p, metric, method="exact") for p in (PROMPT, OTHER)]
    assert both.whole == pytest.approx(sum(o.whole for o in ones) / 2, abs=1e-5)
    for node in both.nodes:
        parts = [n.effect for o in ones for n in o.nodes if (n.position, n.latent) == (node.position, node.latent)]
        assert node.effect == pytest.approx(sum(parts) / 2, abs=2e-4)


def test_refusals(model, dictionary, metric):
    with pytest.raises(UsageError, match=r"no method 'ablate'"):
        ln.latent_effects(model, dictionary, PROMPT, metric, method="ablate")
    with pytest.raises(UsageError, match=r"2 dictionaries of 1 sites"):
        ln.latent_effects(model, [dictionary, dictionary], PROMPT, metric)
    with pytest.raises(UsageError, match=r"0 dictionaries"):
        ln.latent_effects(model, [], PROMPT, metric)
    with pytest.raises(PromptError, match=r"one length"):
        ln.latent_effects(model, dictionary, PROMPT, metric, corrupt="the almanac")
    with pytest.raises(PromptError, match=r"one length"):
        ln.latent_effects(model, dictionary, [PROMPT, "the almanac"], LogProbability((3,)))
    with pytest.raises(UsageError, match=r"steps is 0"):
        ln.latent_effects(model, dictionary, PROMPT, metric, method="ig", steps=0)


def test_a_transcoders_latents_are_parts_of_what_it_writes(model, metric):
    from lensing.dictionary.base import new_dictionary
    from lensing.dictionary.configs import TopK

    transcoder = new_dictionary(TopK(width=32, k=4), model.d_model, d_out=model.d_model, seed=5)
    transcoder.site, transcoder.target, transcoder.model_name = "mlp_in.1", "mlp_out.1", model.name
    torch.nn.init.normal_(transcoder.W_dec, generator=torch.Generator().manual_seed(2))
    transcoder.requires_grad_(False)
    found = ln.latent_effects(model, transcoder, PROMPT, metric, method="exact")
    tokens = model.encode(PROMPT)
    _, cache = model.run_with_cache(tokens, sites=["mlp_in.1", "mlp_out.1"])
    codes = transcoder.encode(cache["mlp_in.1"]).dense().view(1, tokens.ids.shape[1], -1)
    node = max((n for n in found.nodes if n.latent is not None), key=lambda n: abs(n.effect))
    p, i = node.position, node.latent
    without = cache["mlp_out.1"][0, p] - codes[0, p, i] * transcoder.W_dec[i]
    with model.edit(Replace("mlp_out.1", without, at=p)):
        alone = metric(model.logits(tokens))
    assert node.site == "mlp_out.1"
    assert node.effect == pytest.approx(found.whole - float(alone), abs=2e-4)
    assert node.change == pytest.approx(float(codes[0, p, i]), rel=1e-4)
