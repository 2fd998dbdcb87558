"""The logit lens against the model itself and against a lens written out by hand."""

import json

import pytest
import torch
from conftest import FAMILIES, LAYERS, VOCAB

from lensing.errors import UsageError
from lensing.lens.lens import logit_lens
from lensing.model.edit import Replace

TEXT = "the reliability of the almanac is very"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_is_exactly_the_model(make_model, family):
    model = make_model(family)
    lens = logit_lens(model, TEXT, top=5)
    best = model.logits(TEXT).float().log_softmax(-1).topk(5)
    assert lens.layers == [-1, *range(LAYERS)]
    assert torch.equal(lens.ids[-1], best.indices)
    assert torch.equal(lens.probs[-1], best.values.exp())


def test_every_layer_by_hand_soft_cap_and_all(model):
    lens = logit_lens(model, TEXT)
    hidden = model.hf(model.encode(TEXT).ids, output_hidden_states=True).hidden_states
    cap = model.hf.config.final_logit_softcapping
    for row in range(LAYERS):  # hidden_states[i] is what enters block i; the last one is normed already
        x = hidden[row].double()
        norm = x * (x.pow(2).mean(-1, keepdim=True) + model.hf.config.rms_norm_eps).rsqrt()
        logits = norm * (1 + model.hf.model.norm.weight.double()) @ model.hf.lm_head.weight.double().T
        probs = (cap * torch.tanh(logits / cap)).softmax(-1)
        torch.testing.assert_close(lens.probs[row].double(), probs.topk(10).values, rtol=1e-4, atol=1e-6)
        entropy = -(probs * probs.log()).sum(-1)
        torch.testing.assert_close(lens.entropy[row].double(), entropy, rtol=1e-4, atol=1e-5)


def test_a_cache_and_a_text_give_the_same(model):
    _, cache = model.run_with_cache(TEXT, sites=["resid_pre.0", "resid_post.*"])
    for source in (cache, model.encode(TEXT), [TEXT]):
        assert torch.equal(logit_lens(model, source).probs, logit_lens(model, TEXT).probs)
    _, some = model.run_with_cache(TEXT, sites=["resid_post.{0,2}"])
    assert logit_lens(model, some).layers == [0, 2]
    _, few = model.run_with_cache(TEXT, sites="resid_post.1")
    with pytest.raises(UsageError, match=rf"The cache lacks resid_post.{LAYERS - 1}"):
        logit_lens(model, few)


def test_the_lead_layer_is_where_the_final_word_takes_the_lead_for_good(model):
    lens = logit_lens(model, [TEXT, "a bird sang by the river"])
    leaders = lens.ids[..., 0]
    for row, tokens in enumerate(lens.tokens):
        for position in range(len(tokens)):
            words = leaders[:, row, position].tolist()
            expected = next(i for i in range(len(words)) if len(set(words[i:])) == 1)
            assert lens.lead_layer(position, row) == lens.layers[expected]
    assert lens.lead_layer(-1, 1) == lens.lead_layer(6, 1)


def test_a_stream_that_never_changes_leads_from_the_start(model):
    from lensing.model.edit import Apply

    with model.edit(Apply("mlp_out.*", torch.zeros_like), Apply("attn_out.*", torch.zeros_like)):
        assert {logit_lens(model, TEXT).lead_layer(p) for p in range(8)} == {-1}
    _, cache = model.run_with_cache(TEXT, sites="resid_post.2")
    with model.edit(Replace("resid_post.2", -cache["resid_post.2"])):
        assert LAYERS - 1 in {logit_lens(model, TEXT).lead_layer(p) for p in range(8)}


def test_words_and_json(model):
    lens = logit_lens(model, TEXT, top=3)
    word, prob = lens.top(2)[0]
    assert word == model.tok_str(model.logits(TEXT)[0, -1].argmax()[None])[0]
    assert prob == pytest.approx(float(model.logits(TEXT)[0, -1].softmax(-1).max()))
    assert lens.strings[-1][0][-1][0] == word
    value = json.loads(json.dumps(lens.to_json()))
    assert value["strings"][-1][0][-1][0] == word
    assert value["lead_layer"][0][-1] == lens.lead_layer()
    assert value["tokens"] == [["<bos>", *TEXT.split()]]
    assert logit_lens(model, TEXT, top=VOCAB).probs.sum(-1).allclose(torch.tensor(1.0))


def test_bad_requests(model):
    lens = logit_lens(model, TEXT)
    with pytest.raises(UsageError, match="The lens has no layer 7"):
        lens.top(7)
    with pytest.raises(UsageError, match="There is no position 8 among 8 tokens"):
        lens.lead_layer(8)
    for top in (0, VOCAB + 1):
        with pytest.raises(UsageError, match=f"top={top} is not possible"):
            logit_lens(model, TEXT, top=top)
