"""The coherence cost and the side effect against sums made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lensing.errors import UsageError
from lensing.measure.coherence import coherence_cost, compare, nats_per_token, side_effect, verdict
from lensing.model.edit import Add

PROMPT = "the reliability of the almanac is very"
SITE = "resid_post.1"


def test_nats_are_those_of_a_plain_forward_pass_up_to_the_end_of_the_text(model):
    # Half the vocabulary ends the text, so that rows stop at different places.
    ends = list(range(2, model.d_vocab, 2))
    made = model.generate([PROMPT] * 6, max_new_tokens=7, temperature=1.0, seed=1, stop_ids=ends)
    lengths = made.mask.sum(1).tolist()
    assert len(set(lengths)) > 1
    nats = nats_per_token(model, made)
    for row, (ids, n) in enumerate(zip(made.ids, lengths, strict=True)):
        whole = torch.cat([made.prompt.ids[row], ids[:n]])
        logp = model.hf(input_ids=whole[None]).logits[0].double().log_softmax(-1)
        start = made.prompt.ids.shape[1]
        wanted = -sum(float(logp[start + i - 1, ids[i]]) for i in range(n)) / n
        assert float(nats[row]) == pytest.approx(wanted, abs=1e-4)
        assert ids[n - 1] in ends or n == made.ids.shape[1]


def test_unsteered_nats_are_the_logprobs_of_the_generation(model):
    made = model.generate([PROMPT] * 3, max_new_tokens=6, temperature=1.0, stop_ids=())
    assert torch.allclose(nats_per_token(model, made).float(), -made.logprobs.mean(1), atol=1e-4)


def test_chunks_change_nothing(model, monkeypatch):
    made = model.generate([PROMPT] * 5, max_new_tokens=6, temperature=1.0)
    whole = nats_per_token(model, made)
    monkeypatch.setattr("lensing.measure.coherence.TOKENS", 1)
    monkeypatch.setattr("lensing.model.ends.NUMBERS", 1)
    assert torch.allclose(nats_per_token(model, made), whole, atol=1e-5)


def test_the_cost_of_no_change_is_exactly_zero(model):
    found = coherence_cost(model, Add(SITE, torch.zeros(model.d_model)), PROMPT, new_tokens=8, seeds=4)
    assert (found.cost, found.se, found.verdict) == (0.0, 0.0, "calm")
    assert found.unsteered > 0


def test_pushing_towards_an_unlikely_word_costs(model):
    logits = model.logits(PROMPT)[0, -1]
    rare = int(logits.argmin())
    push = Add("logits", 50 * torch.nn.functional.one_hot(torch.tensor(rare), model.d_vocab).float())
    found = coherence_cost(model, push, PROMPT, new_tokens=4, seeds=3)
    assert found.cost > 0.5
    assert found.cost == pytest.approx(found.steered - found.unsteered)
    assert 0 <= found.se < 1


def test_standard_error_and_verdict():
    found = compare(torch.tensor([2.0, 4.0, 3.0]), torch.tensor([1.0, 1.0, 1.0]))
    assert found.cost == 2.0
    assert found.se == pytest.approx(1 / math.sqrt(3))  # differences 1, 3, 2
    assert math.isnan(compare(torch.ones(1), torch.ones(1)).se)
    assert [verdict(c) for c in (-1, 0.99, 1.0, 2.99, 3.0)] == ["calm", "calm", "strained", "strained", "babble"]
    assert found.to_json()["verdict"] == "strained"


def test_side_effect_is_the_mean_kl_over_words(model):
    texts = ["the bird sang by the river", "she said that"]
    edit = Add(SITE, torch.full((model.d_model,), 0.7))
    found = side_effect(model, edit, texts)
    total, n = 0.0, 0
    for text in texts:
        ids = model.encode(text)
        p = model.logits(ids)[0, 1:].double().log_softmax(-1)
        with model.edit(edit):
            q = model.logits(ids)[0, 1:].double().log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
        n += len(p)
    assert found.n == n == 9
    assert found.kl == pytest.approx(total / n, rel=1e-4)
    assert found.kl > 0
    assert side_effect(model, Add(SITE, torch.zeros(model.d_model)), texts).kl == 0.0


def test_bad_numbers_are_refused(model):
    with pytest.raises(UsageError, match=r"0 continuations cannot be judged. Give at least 1 seed."):
        coherence_cost(model, [], PROMPT, seeds=0)
    with pytest.raises(UsageError, match=r"The unrelated texts hold no words"):
        side_effect(model, [], [[model.bos_id]])
