import math
from typing import Any

import pytest
import torch

import lensing as ln
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.splice import keep_only, without
from lensing.errors import DictionaryError, SiteError, UsageError
from lensing.measure.splice_cost import ratio_error, splice_cost, splice_costs
from lensing.model.edit import Apply, Replace

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


PARTS = [f"{SITE}.sae.{part}" for part in ("acts", "recons", "error")]


@pytest.mark.parametrize("keep_error", [False, True])
def test_the_sites_inside_are_what_the_dictionary_computes(model: Any, sae: Dictionary, keep_error: bool) -> None:
    _, clean = model.run_with_cache(TEXT, sites=SITE)
    with model.edit(ln.splice(sae, keep_error=keep_error)):
        plain = model.logits(TEXT)
        logits, cache = model.run_with_cache(TEXT, sites=[*PARTS, SITE])
    assert torch.equal(logits, plain), "looking changes nothing"
    x = clean[SITE][:, 1:]
    assert torch.equal(cache[PARTS[0]][:, 1:], sae.encode(x).dense().view(1, -1, sae.d_sae))
    assert torch.allclose(cache[PARTS[1]][:, 1:], sae.reconstruct(x), atol=1e-6)
    assert torch.allclose(cache[PARTS[1]] + cache[PARTS[2]], torch.cat([torch.zeros_like(x[:, :1]), x], 1), atol=1e-5)
    assert not any(cache[p][:, 0].any() for p in PARTS), "BOS is not spliced"


@pytest.mark.parametrize("keep_error", [False, True])
def test_edits_inside_have_the_effect_of_their_directions(model: Any, sae: Dictionary, keep_error: bool) -> None:
    def louder(acts: torch.Tensor) -> torch.Tensor:
        new = acts.clone()
        new[:, 3, 7] += 2.0
        return new

    base = ln.splice(sae, keep_error=keep_error)
    with model.edit(base):
        _, before = model.run_with_cache(TEXT, sites=[*PARTS, SITE])
    with model.edit(base, Apply(PARTS[0], louder)):
        _, after = model.run_with_cache(TEXT, sites=[*PARTS, SITE])
    change = torch.zeros_like(before[SITE])
    change[:, 3] = 2.0 * sae.W_dec[7]
    assert torch.allclose(after[SITE] - before[SITE], change, atol=1e-5)
    assert float(after[PARTS[0]][0, 3, 7] - before[PARTS[0]][0, 3, 7]) == pytest.approx(2.0)
    with model.edit(base, Replace(PARTS[1], torch.ones(model.d_model), include_special=False)):
        _, ones = model.run_with_cache(TEXT, sites=SITE)
    want = 1.0 + (before[PARTS[2]] if keep_error else 0.0)
    assert torch.allclose(ones[SITE][:, 1:], (want + torch.zeros_like(ones[SITE]))[:, 1:], atol=1e-5)
    silent = Replace(PARTS[2], torch.zeros(model.d_model))
    if keep_error:
        with model.edit(base, silent):
            _, no_error = model.run_with_cache(TEXT, sites=SITE)
        assert torch.allclose(no_error[SITE][:, 1:], before[PARTS[1]][:, 1:], atol=1e-5)
    else:
        with pytest.raises(UsageError, match="Splice with keep_error=True"), model.edit(base, silent):
            model.logits(TEXT)


def test_two_dictionaries_at_once_give_each_node_its_effect(model: Any, sae: Dictionary) -> None:
    """With the error kept, a gradient at a node is the plain run's in the direction that the node writes."""
    later = new_dictionary(ln.TopK(width=80, k=6), model.d_model, seed=1).requires_grad_(False)
    later.site = "resid_post.1"
    names = [f"{SITE}.sae.acts", f"{SITE}.sae.error", "resid_post.1.sae.acts", "resid_post.1.sae.error"]
    with model.edit(ln.splice(sae, keep_error=True), ln.splice(later, keep_error=True)):
        logits, cache = model.run_with_cache(TEXT, sites=names, grad=True)
        grads = torch.autograd.grad(logits[0, -1, 9], [cache[n] for n in names])
    plain, clean = model.run_with_cache(TEXT, sites=[SITE, "resid_post.1"], grad=True)
    assert torch.equal(plain, logits)
    wanted = torch.autograd.grad(plain[0, -1, 9], [clean[SITE], clean["resid_post.1"]])
    for acts, error, want, dictionary in ((grads[0], grads[1], wanted[0], sae), (grads[2], grads[3], wanted[1], later)):
        assert torch.allclose(error[:, 1:], want[:, 1:], atol=1e-5, rtol=1e-4)
        active = cache[f"{dictionary.site}.sae.acts"][:, 1:] > 0
        expected = (want @ dictionary.W_dec.T)[:, 1:]
        assert torch.allclose(acts[:, 1:][active], expected[active], atol=1e-4, rtol=1e-3)
        assert active.sum() > 10


def test_parts_without_a_dictionary_are_refused(model: Any) -> None:
    with pytest.raises(SiteError, match=r"no dictionary is spliced in at mlp_out.1"):
        model.run_with_cache(TEXT, sites=PARTS[0])


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


@pytest.mark.parametrize("bias", ["zero", "mean"])
def test_a_dictionary_of_nothing_costs_what_the_ablation_costs(model: Any, sae: Dictionary, bias: str) -> None:
    mean = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.b_dec.copy_(mean if bias == "mean" else torch.zeros_like(mean))
    cost = splice_cost(model, sae, DOCUMENTS, mean=mean)
    ablated = cost.mean_ablated if bias == "mean" else cost.zero_ablated
    assert cost.spliced == pytest.approx(ablated, abs=1e-6)
    assert abs(cost.delta_loss) > 1e-3


def test_clamping_a_latent_to_its_own_value_changes_nothing(model: Any, sae: Dictionary) -> None:
    ids = model.encode(TEXT).ids[:, :2]  # one word: one value to clamp to
    codes = sae.encode(model.run_with_cache(ids, sites=[SITE])[1][SITE][0, 1:])
    latent, value = int(codes.index[0]), float(codes.value[0])
    clean = model.logits(ids)
    with model.edit(ln.steer(sae, latent, value, unit="raw", mode="clamp")):
        assert torch.allclose(model.logits(ids), clean, atol=1e-6)
    with model.edit(ln.steer(sae, latent, 2 * value, unit="raw", mode="clamp")):
        assert not torch.allclose(model.logits(ids), clean, atol=1e-4)


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
