"""Path patching against paths written out by hand on a model without post-norms."""

import pytest
import torch
from conftest import HEADS, LAYERS

from lensing.causal.metrics import logit_difference
from lensing.causal.path import path_patch
from lensing.errors import UsageError
from lensing.model.edit import Replace

CLEAN, CORRUPT = "the reliability of the almanac is very", "the reader of the old book is"


@pytest.fixture
def llama(make_model):
    return make_model("llama")


@pytest.fixture
def metric(llama):
    return logit_difference(llama, "doubtful", "certain")


def written(model, layer, head):
    """What changes in the stream when one head of the corrupt run writes what it writes in the clean one."""
    z = [
        model.run_with_cache(text, sites=f"attn_z.{layer}")[1][f"attn_z.{layer}"][:, :, head]
        for text in (CLEAN, CORRUPT)
    ]
    w_o = model.hf.model.layers[layer].self_attn.o_proj.weight.T.reshape(HEADS, -1, model.d_model)[head]
    return (z[0] - z[1]) @ w_o


def test_the_direct_path_to_the_logits(llama, metric):
    found = path_patch(llama, CLEAN, CORRUPT, metric)
    _, cache = llama.run_with_cache(CORRUPT, sites=f"resid_post.{LAYERS - 1}")
    for layer, head in ((0, 1), (1, 3), (2, 0)):
        want = metric(llama.unembed(cache[f"resid_post.{LAYERS - 1}"] + written(llama, layer, head)))
        assert float(found.raw[layer, head]) == pytest.approx(float(want), abs=1e-4)
    assert found.effect.shape == (LAYERS, HEADS)
    assert found.mode == "denoise, paths to logits"


@pytest.mark.parametrize(("kind", "head"), [("attn_q", 2), ("attn_k", 1), ("attn_v", 0), ("mlp_in", None)])
def test_the_path_to_one_receiver(llama, metric, kind, head):
    found = path_patch(llama, CLEAN, CORRUPT, metric, receivers=[(kind, 2, head)])
    assert found.nodes.layers == ((0, 1, 2) if kind == "mlp_in" else (0, 1))
    _, cache = llama.run_with_cache(CORRUPT, sites=["resid_pre.2", f"{kind}.2"])
    for layer, sender in ((0, 1), (1, 3)):
        changed = cache["resid_pre.2"] + written(llama, layer, sender)
        if kind == "mlp_in":  # attention of layer 2 is held, so the sender alone changes what the MLP reads
            _, base = llama.run_with_cache(CORRUPT, sites="attn_out.2")
            with llama.edit(Replace("attn_out.2", base["attn_out.2"])):
                _, run = llama.run_with_cache(CORRUPT, sites="mlp_in.2", start=("resid_pre.2", changed))
            value = run["mlp_in.2"]
        else:
            _, run = llama.run_with_cache(CORRUPT, sites=f"{kind}.2", start=("resid_pre.2", changed))
            value = cache[f"{kind}.2"].clone()
            value[:, :, head] = run[f"{kind}.2"][:, :, head]
        with llama.edit(Replace(f"{kind}.2", value)):
            want = float(metric(llama.logits(CORRUPT)))
        assert float(found.raw[layer, sender]) == pytest.approx(want, abs=1e-4)


def test_paths_through_mlps_too_are_others(llama, metric):
    held, free = (path_patch(llama, CLEAN, CORRUPT, metric, hold_mlps=hold) for hold in (True, False))
    assert not torch.allclose(held.raw[0], free.raw[0], atol=1e-3)
    z = llama.run_with_cache(CORRUPT, sites="attn_z.2")[1]["attn_z.2"].clone()
    z[:, :, 1] = llama.run_with_cache(CLEAN, sites="attn_z.2")[1]["attn_z.2"][:, :, 1]
    with llama.edit(Replace("attn_z.2", z)):  # of the last layer the only path on is its own MLP
        assert float(free.raw[2, 1]) == pytest.approx(float(metric(llama.logits(CORRUPT))), abs=1e-4)


def test_paths_that_cannot_be_are_refused(llama, metric):
    with pytest.raises(UsageError, match="There is no receiver"):
        path_patch(llama, CLEAN, CORRUPT, metric, receivers=[])
    with pytest.raises(UsageError, match=r"There are heads 0 to 1 at attn_k.1"):
        path_patch(llama, CLEAN, CORRUPT, metric, receivers=[("attn_k", 1, 2)])
    with pytest.raises(UsageError, match="mlp_in has no heads to receive"):
        path_patch(llama, CLEAN, CORRUPT, metric, receivers=[("mlp_in", 1, 0)])
    with pytest.raises(UsageError, match="Heads of layer 1 write after the receivers read"):
        path_patch(llama, CLEAN, CORRUPT, metric, receivers=[("attn_q", 1, 0)], layers=[1])
