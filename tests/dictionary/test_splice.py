import math
from typing import Any

import pytest
import torch

import lensing as ln
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.splice import keep_only, without
from lensing.errors import DictionaryError
from lensing.measure.splice_cost import ratio_error, splice_cost, splice_costs

TEXT = "the reliability of the almanac is very doubtful"
SITE = "mlp_out.1"


@pytest.fixture
def sae(model: Any) -> Dictionary:
    sae = new_dictionary(ln.TopK(width=96, k=8), model.d_model, seed=0)
    sae.site = SITE
    return sae.requires_grad_(False)


@pytest.fixture
def identity(model: Any) -> Dictionary:
    """2 d latents, one for each end of every axis: nothing is lost."""
    d = model.d_model
    sae = new_dictionary(ln.TopK(width=2 * d, k=2 * d), d)
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    with torch.no_grad():
        sae.W_dec.copy_(both)
        sae.encoder.copy_(both)
    sae.site = SITE
    return sae.requires_grad_(False)


def test_the_splice_writes_the_reconstruction(model: Any, sae: Dictionary) -> None:
    _, clean = model.run_with_cache(TEXT, sites=[SITE])
    with model.edit(ln.splice(sae)):
        _, spliced = model.run_with_cache(TEXT, sites=[SITE])
    expected = sae.reconstruct(clean[SITE])
    assert torch.allclose(spliced[SITE][:, 1:], expected[:, 1:], atol=1e-5)
    assert torch.equal(spliced[SITE][:, 0], clean[SITE][:, 0]), "BOS stays as it was"


def test_unchanged_codes_with_the_error_kept_change_no_bit(model: Any, sae: Dictionary) -> None:
    clean = model.logits(TEXT)
    with model.edit(ln.splice(sae, keep_error=True)):
        assert torch.equal(model.logits(TEXT), clean)
    with model.edit(ln.splice(sae, keep_error=True, change=lambda codes: codes.with_values(codes.value.clone()))):
        assert torch.equal(model.logits(TEXT), clean)


def test_ablated_latents_leave_only_their_own_part(model: Any, sae: Dictionary) -> None:
    _, clean = model.run_with_cache(TEXT, sites=[SITE])
    codes = sae.encode(clean[SITE])
    latent = int(codes.row(3)[0][0])
    with model.edit(ln.splice(sae, keep_error=True, change=without([latent]))):
        _, edited = model.run_with_cache(TEXT, sites=[SITE])
    f = codes.dense().view(1, -1, 96)[..., latent, None]
    expected = clean[SITE] - f * sae.W_dec[latent]
    assert torch.allclose(edited[SITE][:, 1:], expected[:, 1:], atol=1e-5)
    assert (edited[SITE] - clean[SITE]).abs().max() > 1e-3


def test_keeping_no_latent_leaves_the_bias(model: Any, sae: Dictionary) -> None:
    with model.edit(ln.splice(sae, change=keep_only([]))):
        _, edited = model.run_with_cache(TEXT, sites=[SITE])
    assert torch.allclose(edited[SITE][0, 1:], sae.b_dec.expand(edited[SITE].shape[1] - 1, -1), atol=1e-6)


def test_generation_agrees_with_and_without_the_cache(model: Any, sae: Dictionary) -> None:
    with model.edit(ln.splice(sae)):
        first = model.generate(TEXT, max_new_tokens=6)
        second = model.generate(TEXT, max_new_tokens=6, cache=False)
    assert torch.equal(first.ids, second.ids)


def test_splice_at_heads(make_model: Any) -> None:
    model = make_model("gemma2")
    z = "attn_z.1"
    sae = new_dictionary(ln.TopK(width=64, k=8), 32).requires_grad_(False)
    sae.site = z
    _, clean = model.run_with_cache(TEXT, sites=[z])
    with model.edit(ln.splice(sae)):
        _, edited = model.run_with_cache(TEXT, sites=[z])
    assert torch.allclose(edited[z][0, 1:].flatten(1), sae.reconstruct(clean[z][0, 1:].flatten(1)), atol=1e-5)


def test_a_splice_needs_a_site(sae: Dictionary) -> None:
    sae.site = None
    with pytest.raises(DictionaryError, match="names no site"):
        ln.splice(sae)


DOCUMENTS = [TEXT, "a bird sang by the river on monday", "he said that it was not ever seen", "the old book"]


def test_an_identity_costs_nothing(model: Any, identity: Dictionary) -> None:
    cost = splice_cost(model, identity, DOCUMENTS, mean=torch.zeros(model.d_model))
    assert cost.delta_loss == pytest.approx(0, abs=1e-6)
    assert cost.kl == pytest.approx(0, abs=1e-9)
    assert cost.loss_recovered == pytest.approx(1, abs=1e-4)
    assert cost.mean_ablated == cost.zero_ablated, "the mean given was zero"


def test_losses_agree_with_the_plain_computation(model: Any, sae: Dictionary) -> None:
    mean = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    cost = splice_cost(model, sae, DOCUMENTS, mean=mean, batch_tokens=12)
    losses, n = {"clean": 0.0, "spliced": 0.0}, 0
    for text in DOCUMENTS:  # one by one: no padding, torch's own loss
        ids = model.encode(text).ids
        for name, edits in (("clean", []), ("spliced", [ln.splice(sae)])):
            with model.edit(*edits):
                logits = model.logits(text)[0, 1:-1]
            losses[name] += float(torch.nn.functional.cross_entropy(logits, ids[0, 2:], reduction="sum"))
        n += ids.shape[1] - 2
    assert cost.n == n
    assert cost.clean == pytest.approx(losses["clean"] / n, abs=1e-5)
    assert cost.spliced == pytest.approx(losses["spliced"] / n, abs=1e-5)
    assert cost.to_json()["delta_loss"] == pytest.approx(cost.spliced - cost.clean)
    assert cost.kl > 0


def test_several_at_once_cost_what_each_costs_alone(model: Any, sae: Dictionary, identity: Dictionary) -> None:
    mean = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    both = splice_costs(model, {"a": sae, "b": identity}, DOCUMENTS, site="resid_post.1", mean=mean)
    for name, dictionary in {"a": sae, "b": identity}.items():
        assert both[name] == splice_cost(model, dictionary, DOCUMENTS, site="resid_post.1", mean=mean)
    assert both["a"].documents == len(DOCUMENTS)
    assert both["a"].loss_recovered_se > 0


def test_the_error_of_a_ratio_is_that_of_the_jackknife() -> None:
    g = torch.Generator().manual_seed(0)
    bottom = (5 + torch.rand(400, generator=g)).double()
    top = (0.3 * bottom + 0.2 * torch.randn(400, generator=g)).double()
    left_out = (top.sum() - top) / (bottom.sum() - bottom)
    jackknife = float((399 / 400 * (left_out - left_out.mean()).square().sum()).sqrt())
    assert ratio_error(top, bottom) == pytest.approx(jackknife, rel=0.01)
    assert math.isnan(ratio_error(top[:1], bottom[:1]))


def test_without_statistics_the_mean_must_be_given(model: Any, sae: Dictionary) -> None:
    with pytest.raises(DictionaryError, match="no statistics"):
        splice_cost(model, sae, DOCUMENTS)
