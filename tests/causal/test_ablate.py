"""Effects and smallest sets against ablations made one at a time by hand."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from lensing.causal.ablate import ablate, effects, smallest_set
from lensing.errors import UsageError
from lensing.model.edit import Replace

PROMPT = "the reliability of the almanac is very"
OTHER = "she said that it was not ever seen"


def log_p_with(model, site, position, vector, prompt=PROMPT):
    """log p of every next word when h at one position is `vector`."""
    with model.edit(Replace(site, vector, at=position)):
        return model.logits(prompt)[0, -1].double().log_softmax(-1)


@pytest.mark.parametrize("position", [-1, 3])
def test_effects_are_those_of_single_ablations(model, dictionary, position):
    found = effects(model, dictionary, PROMPT, position=position)
    logits, cache = model.run_with_cache(PROMPT, sites=[dictionary.site])
    h, clean = cache[dictionary.site][0, position], logits[0, -1].double().log_softmax(-1)
    assert found.target == int(clean.argmax())
    assert found.log_p == pytest.approx(float(clean.max()), abs=1e-5)
    f = dictionary.encode(h[None]).dense()[0]
    assert [e.latent for e in found.latents] == f.nonzero()[:, 0].tolist()
    for e in found.latents:
        assert e.activation == pytest.approx(float(f[e.latent]), rel=1e-5)
        without = h - f[e.latent] * dictionary.W_dec[e.latent]
        wanted = log_p_with(model, dictionary.site, position, without)[found.target] - clean[found.target]
        assert e.effect == pytest.approx(float(wanted), abs=1e-4)
    assert max(abs(e.effect) for e in found.latents) > 1e-3
    x_hat = dictionary.reconstruct(h[None])[0]
    for e, vector in ((found.error, x_hat), (found.bias, h - dictionary.b_dec)):
        wanted = log_p_with(model, dictionary.site, position, vector)[found.target] - clean[found.target]
        assert e.effect == pytest.approx(float(wanted), abs=1e-4)
    assert found.error.length == pytest.approx(float((h - x_hat).norm()), rel=1e-4)


def test_a_given_target_and_the_sorted_views(model, dictionary):
    found = effects(model, dictionary, PROMPT, target=14)
    assert (found.target_word.strip(), found.token.strip(), found.position) == ("bird", "very", 7)
    sizes = [abs(e.effect) for e in found.by_effect()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == len(found.latents) + 2
    values = [e.activation for e in found.by_activation()]
    assert values == sorted(values, reverse=True)
    assert {e.kind for e in found.by_activation()} == {"latent"}
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"position": 8}, r"There is no position 8 in 8 tokens. Give -8 to 7."),
        ({"target": 10_000}, r"There is no token 10000"),
        ({"text": [PROMPT, PROMPT]}, r"2 texts cannot be ablated at once"),
    ],
)
def test_effects_refuse_what_is_not_there(model, dictionary, arguments, text):
    with pytest.raises(UsageError, match=text):
        effects(model, dictionary, arguments.pop("text", PROMPT), **arguments)


def mass(model, prompt, ids, *edits):
    with model.edit(*edits):
        return float(model.logits(prompt)[0, -1].double().softmax(-1)[ids].sum())


def test_the_smallest_set_is_greedy_and_says_what_it_closes(model, dictionary):
    ids = [14, 17]
    found = smallest_set(model, dictionary, PROMPT, OTHER, ids)
    a, b = mass(model, PROMPT, ids), mass(model, OTHER, ids)
    assert (found.a, found.b) == pytest.approx((a, b), rel=1e-4)
    _, cache = model.run_with_cache(PROMPT, sites=[dictionary.site])
    active = dictionary.encode(cache[dictionary.site][0, 1:]).index.unique().tolist()
    assert found.candidates == len(active)
    alone = {i: (a - mass(model, PROMPT, ids, ablate(dictionary, [i]))) / (a - b) for i in active}
    assert found.steps[0].latent == max(alone, key=lambda i: alone[i])
    for n, step in enumerate(found.steps, start=1):
        now = mass(model, PROMPT, ids, ablate(dictionary, found.latents[:n]))
        assert step.watched == pytest.approx(now, rel=1e-3)
        assert step.closed == pytest.approx((a - now) / (a - b), rel=1e-2, abs=1e-4)
    closed = [0.0, *(s.closed for s in found.steps)]
    assert all(x < y for x, y in itertools.pairwise(closed))
    assert 1 <= len(found.steps) <= 3
    assert found.closed == closed[-1]
    assert found.to_json()["latents"] == found.latents


def test_several_texts_are_averaged_and_batches_change_nothing(model, dictionary, monkeypatch):
    texts = [PROMPT, "the old almanac is very"]  # of two lengths: the shorter one is padded
    whole = smallest_set(model, dictionary, texts, OTHER, [14, 17], most=2)
    assert whole.a == pytest.approx(sum(mass(model, t, [14, 17]) for t in texts) / 2, rel=1e-4)
    monkeypatch.setattr("lensing.causal.ablate.NUMBERS", 1)
    parts = smallest_set(model, dictionary, texts, OTHER, [14, 17], most=2)
    assert parts.latents == whole.latents
    assert parts.closed == pytest.approx(whole.closed, rel=1e-3)


def test_smallest_set_refuses_no_gap_and_no_words(model, dictionary):
    with pytest.raises(UsageError, match=r"so there is no gap. Give texts that differ."):
        smallest_set(model, dictionary, PROMPT, PROMPT, [14])
    with pytest.raises(UsageError, match=r"There is no token to watch"):
        smallest_set(model, dictionary, PROMPT, OTHER, [])


def test_ablating_nothing_is_refused_and_ablating_silent_latents_changes_nothing(model, dictionary):
    with pytest.raises(UsageError, match=r"There is no latent to steer"):
        ablate(dictionary, [])
    clean = model.logits(PROMPT)
    with model.edit(ablate(dictionary, [63])):
        assert torch.equal(model.logits(PROMPT), clean)
