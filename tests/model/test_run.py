"""Captures and caches: cheap, detached, stopped early when asked, with the graph when asked."""

import threading

import pytest
import torch
from conftest import CONTEXT, D_MODEL, LAYERS, VOCAB

from lensing.errors import UnknownNameError, UsageError
from lensing.model.cache import Cache
from lensing.model.edit import Add, Apply

TEXT = "the reliability of the almanac is very"


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def test_a_text_in_logits_and_cache_out(model):
    logits, cache = model.run_with_cache(TEXT, sites=["resid_post.*", "mlp_out.2"])
    assert logits.shape == (1, 8, VOCAB)
    assert cache.sites == ["resid_post.0", "resid_post.1", "resid_post.2", "mlp_out.2"]
    assert cache["mlp_out.2"].shape == (1, 8, D_MODEL)
    assert cache["resid_post", 2] is cache["blocks.2.hook_resid_post"] is cache["resid_post.-1"]
    assert cache.tokens == [["<bos>", *TEXT.split()]]
    assert cache.ids.tolist() == [[1, *model.tokenizer(TEXT)["input_ids"]]]
    assert cache.mask.all()
    assert cache.special.tolist() == [[True, *[False] * 7]]
    assert "mlp_out.2" in cache
    assert ("mlp_out", 1) not in cache
    assert "nonsense" not in cache
    assert cache.get("mlp_out.1") is None
    assert len(cache) == 4


def test_what_was_not_captured_is_named(model):
    _, cache = model.run_with_cache(TEXT, sites="mlp_out.2")
    with pytest.raises(UnknownNameError, match=r"no captured site named 'mlp_out.1'. Captured were: mlp_out.2"):
        cache["mlp_out.1"]
    with pytest.raises(UnknownNameError, match=r"Did you mean 'mlp_out.1'"):
        cache["mlp_ot.1"]


def test_one_site_many_sites_and_pairs(model):
    for sites in ("mlp_out.1", ["mlp_out.1"], ("mlp_out", 1), [("mlp_out", 1)], {"mlp_out.1"}, ["mlp_out.1"] * 2):
        assert model.run_with_cache(TEXT, sites=sites)[1].sites == ["mlp_out.1"]


def test_nothing_is_left_behind(model):
    before = hooks(model)
    model.run_with_cache(TEXT, sites="*")
    model.run_with_cache(TEXT, sites="embed", stop=True)
    assert hooks(model) == before
    assert not any(p.requires_grad for p in model.hf.parameters())
    assert not model.hf.training


def test_captures_take_no_gradient_unless_asked(model):
    logits, cache = model.run_with_cache(TEXT, sites="*")
    assert not logits.requires_grad
    assert not any(v.requires_grad for v in cache.values())


def test_gradients_agree_with_finite_differences(make_hf):
    from lensing.model.run import Model

    model = Model(make_hf("gpt2").double())  # Llama's norm computes in float32 whatever it is given
    ids = [1, 4, 5, 6]
    logits, cache = model.run_with_cache(ids, sites="mlp_out.0", grad=True)
    (gradient,) = torch.autograd.grad(logits[0, -1, 7], cache["mlp_out.0"])
    step = 1e-5 * torch.randn(D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def moved(sign):
        with model.edit(Add("mlp_out.0", sign * step, at=2)):
            return model.logits(ids)[0, -1, 7]

    expected = (moved(1) - moved(-1)) / 2
    torch.testing.assert_close(gradient[0, 2] @ step, expected, rtol=1e-5, atol=1e-12)


def test_gradients_reach_what_an_edit_adds_and_never_the_weights(model):
    vector = torch.zeros(D_MODEL, requires_grad=True)
    with model.edit(Add("resid_post.0", vector)):
        model.logits(TEXT, grad=True).sum().backward()
    assert vector.grad is not None
    assert vector.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.hf.parameters())


def test_stop_ends_the_pass_after_the_deepest_site(model):
    _, full = model.run_with_cache(TEXT, sites="*")
    ran = []
    handles = [
        layer.register_forward_hook(lambda m, a, o, i=i: ran.append(i)) for i, layer in enumerate(model.hf.model.layers)
    ]
    logits, cache = model.run_with_cache(TEXT, sites=["mlp_out.1", "resid_pre.0"], stop=True)
    for handle in handles:
        handle.remove()
    assert logits is None
    assert ran == [0]  # block 1 was left in the middle
    for site in cache:
        assert torch.equal(cache[site], full[site])


def test_stop_after_a_layer(model):
    logits, cache = model.run_with_cache(TEXT, sites="resid_post.0", stop=1)
    assert logits is None
    assert cache.sites == ["resid_post.0"]
    with pytest.raises(UsageError, match=r"resid_post.2 lies after the stop at layer 1. Stop later"):
        model.run_with_cache(TEXT, sites="resid_post.2", stop=1)
    with pytest.raises(UnknownNameError, match="layers are 0 to 2"):
        model.run_with_cache(TEXT, stop=9)


def test_logits_stay_unless_a_stop_is_asked_for(model):
    assert model.run_with_cache(TEXT, sites="embed")[0] is not None
    assert model.run_with_cache(TEXT, sites="embed", stop=False)[0] is not None
    logits, cache = model.run_with_cache(TEXT, sites="logits", stop=True)
    assert cache["logits"].shape == (1, 8, VOCAB)
    assert logits is None
    with pytest.raises(UsageError, match="stop=True needs sites"):
        model.run_with_cache(TEXT, stop=True)
    with pytest.raises(UsageError, match="There is no stop='soon'"):
        model.run_with_cache(TEXT, stop="soon")


@pytest.mark.parametrize("family", ["gemma2", "llama", "gpt2", "opt", "gpt_neox", "mistral"])
def test_padding_does_not_touch_the_real_tokens(make_model, family):
    model = make_model(family)
    texts = [TEXT, "a bird sang", "he said that it was not ever seen in the north"]
    logits, cache = model.run_with_cache(texts, sites="mlp_out.1")
    assert cache.mask.sum(1).tolist() == [8, 4, 12]
    assert cache.special.sum(1).tolist() == [1 + 4, 1 + 8, 1]
    for row, text in enumerate(texts):
        alone, one = model.run_with_cache(text, sites="mlp_out.1")
        length = alone.shape[1]
        torch.testing.assert_close(logits[row, :length], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cache["mlp_out.1"][row, :length], one["mlp_out.1"][0], rtol=1e-4, atol=1e-4)


def test_tokens_and_ids_run_like_text(model):
    tokens = model.encode(TEXT)
    logits = model.logits(TEXT)
    for same in (tokens, tokens.ids, tokens.ids[0], tokens.ids[0].tolist(), tokens.ids[0, 1:], [tokens.ids[0]]):
        assert torch.equal(model.logits(same), logits)


def test_a_full_context_runs(model):
    assert model.logits([1] * CONTEXT).shape == (1, CONTEXT, VOCAB)


def test_edits_belong_to_their_thread(model):
    plain = model.logits(TEXT)
    seen = []
    with model.edit(Apply("resid_post.0", torch.zeros_like)):
        thread = threading.Thread(target=lambda: seen.append(model.logits(TEXT)))
        thread.start()
        thread.join()
        assert not torch.allclose(model.logits(TEXT), plain)
    assert torch.equal(seen[0], plain)


def test_the_sites_of_a_model_are_listed_in_forward_order(model):
    sites = model.sites()
    assert sites[0] == "embed"
    assert sites[-2:] == ["final_norm", "logits"]
    assert [s for s in sites if s.startswith("resid_post")] == [f"resid_post.{i}" for i in range(LAYERS)]
    assert model.resolve("blocks.1.hook_mlp_out").name == "mlp_out.1"


def test_representations_say_what_they_are(model):
    assert repr(model) == f"Model('tiny-gemma2', Gemma2ForCausalLM, layers=3, d_model={D_MODEL}, vocab={VOCAB})"
    assert repr(model.run_with_cache(TEXT, sites="embed")[1]) == f"Cache(embed[1, 8, {D_MODEL}])"
    assert isinstance(model.run_with_cache(TEXT)[1], Cache)
