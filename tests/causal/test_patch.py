"""Activation patching against runs with one edit, attribution against slopes, integrated gradients against 1."""

import pytest
import torch
from conftest import HEADS, LAYERS

from lensing.causal.attribute import attribute
from lensing.causal.metrics import KL, LogProbability, Probability, logit_difference
from lensing.causal.patch import ablation, patch
from lensing.errors import PromptError, SiteError, UsageError
from lensing.model.edit import Apply, Replace

CLEAN, CORRUPT = "the reliability of the almanac is very", "the reader of the old book is"
LENGTH = 8
SITES = [
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "attn_z",
    "attn_q",
    "attn_k",
    "attn_pattern",
    "mlp_post",
]


@pytest.fixture
def metric(model):
    return logit_difference(model, "doubtful", "certain")


def brute(model, site, position, head, metric, source=CLEAN, base=CORRUPT):
    """The whole model again, with one value of the source written by hand."""
    _, theirs = model.run_with_cache(source, sites=site)

    def write(h):
        out = h.clone()
        if "pattern" in site:
            out[:, head, position] = theirs[site][:, head, position]
        elif head is not None:
            out[:, position, head] = theirs[site][:, position, head]
        else:
            out[:, position] = theirs[site][:, position]
        return out

    with model.edit(Apply(site, write)):
        return float(metric(model.logits(base)))


@pytest.mark.parametrize("site", SITES)
def test_every_node_is_a_run_with_one_value_replaced(model, metric, site):
    found = patch(model, CLEAN, CORRUPT, metric, site=site, rows=5)
    by_head = site.startswith("attn_") and site != "attn_out"
    kv = 2 if site == "attn_k" else HEADS
    assert found.raw.shape == (LAYERS, LENGTH, *([kv] if by_head else []))
    for layer, position, head in ((0, 7, 1), (1, 3, 0), (2, 7, 1), (2, 1, 0)):
        place = (layer, position, head) if by_head else (layer, position)
        want = brute(model, f"{site}.{layer}", position, head if by_head else None, metric)
        assert float(found.raw[place]) == pytest.approx(want, abs=1e-4)
    assert found.clean == pytest.approx(float(metric(model.logits(CLEAN))), abs=1e-5)
    assert found.corrupt == pytest.approx(float(metric(model.logits(CORRUPT))), abs=1e-5)
    effect = (found.raw - found.corrupt) / (found.clean - found.corrupt)
    torch.testing.assert_close(found.effect, effect)


def test_the_whole_stream_brings_everything_either_way(model, metric):
    for mode in ("denoise", "noise"):
        found = patch(model, CLEAN, CORRUPT, metric, positions=False, mode=mode)
        torch.testing.assert_close(found.effect, torch.ones(LAYERS, dtype=torch.float64), rtol=1e-4, atol=1e-4)
        assert found.nodes.positions is None
        assert found.nodes.label(1) == "resid_pre.1"


def test_several_pairs_are_averaged(model):
    pairs = [(CLEAN, CORRUPT), ("a bird sang by the river on", "the letter of a reader was not")]
    metrics = [logit_difference(model, right, wrong) for right, wrong in (("doubtful", "certain"), ("monday", "ever"))]
    both = logit_difference(model, ["doubtful", "monday"], ["certain", "ever"])
    found = patch(model, [c for c, _ in pairs], [c for _, c in pairs], both, site="attn_out", layers=[1])
    each = [patch(model, c, d, m, site="attn_out", layers=[1]).raw for (c, d), m in zip(pairs, metrics, strict=True)]
    torch.testing.assert_close(found.raw, (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-5)


def test_labels_tables_and_the_largest(model, metric):
    found = patch(model, CLEAN, CORRUPT, metric, site="attn_z", positions=[1, -1], heads=[0, 3])
    assert (found.nodes.positions, found.nodes.heads) == ((1, 7), (0, 3))
    name, effect = found.top(1)[0]
    assert abs(effect) == pytest.approx(float(found.effect.abs().max()))
    assert name.startswith("attn_z.")
    assert " head " in name
    rows, columns, values = found.grid()
    assert (len(rows), len(columns)) == values.shape == (2 * LAYERS, 2)
    assert values[1, 0] == found.effect[0, 0, 1]
    together = patch(model, CLEAN, CORRUPT, metric, site="attn_z", positions=False)
    assert together.grid()[2].shape == (LAYERS, HEADS)
    assert "<table" in found._repr_html_()
    assert found.to_json()["top"][0]["node"] == name


def test_what_cannot_be_patched_is_refused(model, metric, make_model):
    with pytest.raises(PromptError, match=r"The texts have \[8\] and \[4\] tokens"):
        patch(model, CLEAN, "a bird sang", metric)
    with pytest.raises(UsageError, match="There is no position 8 in 8 tokens"):
        patch(model, CLEAN, CORRUPT, metric, positions=[8])
    with pytest.raises(UsageError, match="attn_out has no heads"):
        patch(model, CLEAN, CORRUPT, metric, site="attn_out", heads=[0])
    with pytest.raises(UsageError, match="There are heads 0 to 3 at attn_z"):
        patch(model, CLEAN, CORRUPT, metric, site="attn_z", heads=[4])
    with pytest.raises(UsageError, match="There is no mode 'forwards'"):
        patch(model, CLEAN, CORRUPT, metric, mode="forwards")
    with pytest.raises(SiteError, match="runs attention and MLP in parallel"):
        patch(make_model("gpt_neox"), CLEAN, CORRUPT, metric, site="resid_mid")
    with pytest.raises(UsageError, match="2 right words and 1 wrong ones"):
        logit_difference(model, ["very", "is"], "of")
    with pytest.raises(UsageError, match="3 words do not fit 1 texts"):
        LogProbability((1, 2, 3))(model.logits(CLEAN))


def test_metrics_by_hand(model):
    logits = model.logits([CLEAN, CORRUPT + " very"])[:, :8]
    p = logits[:, -1].softmax(-1)
    torch.testing.assert_close(Probability((5,))(logits), p[:, 5])
    torch.testing.assert_close(LogProbability((5, 6))(logits), torch.stack([p[0, 5], p[1, 6]]).log())
    torch.testing.assert_close(KL(logits[0, -1])(logits)[0], torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(KL(logits[0, -1])(logits)[1], (p[0] * (p[0] / p[1]).log()).sum())


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "attn_z", "attn_q", "attn_pattern", "mlp_post"])
def test_attribution_is_the_slope_of_patching(make_hf, tokenizer, site):
    from lensing.model.run import Model

    model = Model(make_hf("gpt2").double(), tokenizer)
    metric = logit_difference(model, "doubtful", "certain")
    found = attribute(model, CLEAN, CORRUPT, metric, site=site)
    _, theirs = model.run_with_cache(CLEAN, sites=f"{site}.1")
    _, ours = model.run_with_cache(CORRUPT, sites=f"{site}.1")
    base, step = float(metric(model.logits(CORRUPT))), 1e-5
    for position, head in ((7, 1), (3, 0)):
        mask = torch.zeros_like(ours[f"{site}.1"])
        if site == "attn_pattern":
            mask[:, head, position] = 1
        elif found.nodes.heads is not None:
            mask[:, position, head] = 1
        else:
            mask[:, position] = 1
        mixed = ours[f"{site}.1"] + step * mask * (theirs[f"{site}.1"] - ours[f"{site}.1"])
        with model.edit(Replace(f"{site}.1", mixed)):
            slope = (float(metric(model.logits(CORRUPT))) - base) / step
        place = (1, position, head) if found.nodes.heads is not None else (1, position)
        assert float(found.raw[place]) - base == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_integrated_gradients_of_the_embedding_add_up_to_the_whole_way(make_hf, tokenizer):
    from lensing.model.run import Model

    model = Model(make_hf("llama").double(), tokenizer)
    metric = logit_difference(model, "doubtful", "certain")
    found = attribute(model, CLEAN, CORRUPT, metric, site="resid_pre", layers=[0], method="ig", steps=400)
    assert float(found.effect.sum()) == pytest.approx(1.0, abs=0.02)
    one = attribute(model, CLEAN, CORRUPT, metric, site="resid_pre", layers=[0])
    assert abs(float(one.effect.sum()) - 1.0) > 0.1, "one gradient alone does not"
    with pytest.raises(UsageError, match="steps is 0"):
        attribute(model, CLEAN, CORRUPT, metric, method="ig", steps=0)
    with pytest.raises(UsageError, match="with method 'guess'"):
        attribute(model, CLEAN, CORRUPT, metric, method="guess")


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
@pytest.mark.parametrize("site", ["attn_z", "mlp_out"])
def test_ablation_is_a_run_without_the_node(model, metric, site, method):
    others = [CORRUPT, "a bird sang by the river on"]
    reference = {"zero": None, "mean": others, "resample": CORRUPT}[method]
    found = ablation(model, CLEAN, metric, site=site, method=method, reference=reference)
    assert found.nodes.positions is None
    _, own = model.run_with_cache(CLEAN, sites=f"{site}.1")
    value = torch.zeros_like(own[f"{site}.1"])
    if reference is not None:
        value = model.run_with_cache(reference, sites=f"{site}.1")[1][f"{site}.1"].mean(0, keepdim=True)
    if site == "attn_z":
        mixed = own[f"{site}.1"].clone()
        mixed[:, :, 2] = value[:, :, 2]
        value = mixed
    with model.edit(Replace(f"{site}.1", value)):
        want = float(metric(model.logits(CLEAN))) - found.whole
    assert float(found.effect[(1, 2) if site == "attn_z" else (1,)]) == pytest.approx(want, abs=1e-4)
    assert found.whole == pytest.approx(float(metric(model.logits(CLEAN))), abs=1e-5)


def test_a_mean_over_texts_of_other_lengths_is_over_their_tokens(model, metric):
    texts = ["a bird sang", "the letter of a reader"]
    found = ablation(model, CLEAN, metric, site="mlp_out", method="mean", reference=texts, layers=[2])
    _, cache = model.run_with_cache(texts, sites="mlp_out.2")
    mean = cache["mlp_out.2"][~cache.special].mean(0)
    with model.edit(Replace("mlp_out.2", mean)):
        want = float(metric(model.logits(CLEAN))) - found.whole
    assert float(found.effect[0]) == pytest.approx(want, abs=1e-4)


def test_ablations_that_cannot_be_are_refused(model, metric):
    with pytest.raises(UsageError, match="A mean ablation needs other texts"):
        ablation(model, CLEAN, metric)
    with pytest.raises(UsageError, match="There is no ablation 'half'"):
        ablation(model, CLEAN, metric, method="half", reference=CORRUPT)
    with pytest.raises(PromptError, match="several lengths cannot be ablated"):
        ablation(model, [CLEAN, "a bird"], metric, method="zero")
    assert "table" in ablation(model, CLEAN, metric, method="zero")._repr_html_()
