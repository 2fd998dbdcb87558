"""The dose response against runs of one strength and one seed at a time."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lensing.causal.dose import STRENGTHS, dose_response
from lensing.causal.steer import SteerVector, steer
from lensing.errors import DictionaryError, UsageError
from lensing.measure.coherence import coherence_cost, side_effect

PROMPT = "the reliability of the almanac is very"
UNRELATED = ["the bird sang by the river", "she said that it was not old"]
SHORT = {"strengths": (0, 1, 4), "new_tokens": 5, "seeds": 3}


@pytest.fixture
def doses(model, dictionary, latent):
    return dose_response(
        model, dictionary, latent, PROMPT, watch={"doubt": [10, 36], "bird": [14]}, unrelated=UNRELATED,
        contrast=torch.ones(dictionary.d_in), impossible=lambda prompt, new: len(new) / 10, **SHORT,
    )  # fmt: skip


def test_strength_zero_is_the_unsteered_model_in_every_direction(model, doses):
    p = model.logits(PROMPT)[0, -1].double().softmax(-1)
    plain = model.generate([PROMPT], max_new_tokens=5, temperature=1.0, seed=[0])
    for direction in doses.directions:
        zero = direction.doses[0]
        assert (zero.coherence_cost, zero.se, zero.side_effect, zero.share_of_norm) == (0.0, 0.0, 0.0, 0.0)
        assert zero.verdict == "calm"
        assert zero.table[0].p == pytest.approx(float(p.max()), rel=1e-4)
        assert zero.watched["doubt"] == pytest.approx(float(p[10] + p[36]), rel=1e-4)
        assert zero.text == plain.text[0]


@pytest.mark.parametrize("i", [1, 2])
def test_the_batch_of_all_strengths_is_each_strength_alone(model, dictionary, latent, doses, i):
    dose = doses.doses[i]
    edit = steer(dictionary, latent, dose.strength)
    with model.edit(edit):
        p = model.logits(PROMPT)[0, -1].double().softmax(-1)
        texts = [model.generate([PROMPT], max_new_tokens=5, temperature=1.0, seed=[0]).text[0]]
    assert [g.id for g in dose.table[:3]] == p.topk(3).indices.tolist()
    assert [g.p for g in dose.table[:3]] == pytest.approx(p.topk(3).values.tolist(), rel=1e-3)
    assert dose.watched["bird"] == pytest.approx(float(p[14]), rel=1e-3)
    assert dose.text == texts[0]
    alone = coherence_cost(model, edit, PROMPT, new_tokens=5, seeds=3)
    assert dose.coherence_cost == pytest.approx(alone.cost, abs=1e-4)
    assert dose.se == pytest.approx(alone.se, abs=1e-4)
    assert dose.side_effect == pytest.approx(side_effect(model, edit, UNRELATED).kl, rel=1e-3)
    length = dose.strength * float(dictionary.statistics.max_activation[latent])
    assert dose.share_of_norm == pytest.approx(length / dictionary.statistics.mean_norm, rel=1e-4)


def test_small_batches_change_nothing(model, dictionary, latent, monkeypatch):
    given = {"watch": {"bird": [14]}, **SHORT}
    whole = dose_response(model, dictionary, latent, PROMPT, **given)
    monkeypatch.setattr("lensing.causal.dose.ROWS", 1)
    parts = dose_response(model, dictionary, latent, PROMPT, **given)
    for a, b in zip(whole.directions, parts.directions, strict=True):
        assert [d.text for d in a.doses] == [d.text for d in b.doses]
        assert [d.coherence_cost for d in a.doses] == pytest.approx([d.coherence_cost for d in b.doses], abs=1e-4)
        assert [d.watched["bird"] for d in a.doses] == pytest.approx([d.watched["bird"] for d in b.doses], rel=1e-3)


def test_side_directions_have_the_latents_length(model, dictionary, latent, doses):
    names = ["latent", "difference of means", "random latent", "random direction"]
    assert [d.name for d in doses.directions] == names
    assert len({d.doses[2].share_of_norm for d in doses.directions}) == 1
    other = doses.directions[2].latent
    assert other not in (latent, 63, None)  # 63 is dead
    length = 4 * float(dictionary.statistics.max_activation[latent])
    for direction, vector in ((doses.directions[1], torch.ones(32)), (doses.directions[2], dictionary.W_dec[other])):
        with model.edit(SteerVector(dictionary.site, vector, length)):
            p = model.logits(PROMPT)[0, -1].double().softmax(-1)
        assert direction.doses[2].watched["doubt"] == pytest.approx(float(p[10] + p[36]), rel=1e-3)


def test_the_record(doses):
    assert doses.to_json()["directions"][0]["doses"][1]["strength"] == 1
    json.dumps(doses.to_json(), allow_nan=False)
    assert doses.watch["bird"] == ("bird",)
    assert doses.left_out == ()
    assert all(0 < d.impossible <= 0.5 for d in doses.doses)
    assert [len(d.table) for d in doses.doses] == [10, 10, 10]


def test_clamp_and_scale_and_ablate(model, dictionary, latent):
    found = {
        mode: dose_response(model, dictionary, latent, PROMPT, mode=mode, new_tokens=3, seeds=2, strengths=strengths)
        for mode, strengths in (("clamp", (0, 2)), ("scale", (0, 1)), ("ablate", None))
    }
    assert [d.strength for d in found["ablate"].doses] == [0, 1]
    gone = [found["clamp"].doses[0], found["scale"].doses[0], found["ablate"].doses[1]]  # one thing said three ways
    for dose in gone:
        assert dose.share_of_norm == pytest.approx(gone[0].share_of_norm, rel=1e-5)
        assert dose.table[0].p == pytest.approx(gone[0].table[0].p, rel=1e-4)
        assert dose.share_of_norm > 0
    for same in (found["scale"].doses[1], found["ablate"].doses[0]):
        assert (same.coherence_cost, same.share_of_norm) == (0.0, 0.0)
    assert found["clamp"].left_out == (
        "difference of means: no texts to contrast were given", "side effect: no unrelated texts were given",
    )  # fmt: skip
    assert found["clamp"].doses[0].side_effect is None


def test_seeds_decide(model, dictionary, latent):
    a, b, c = (
        dose_response(model, dictionary, latent, PROMPT, strengths=(1,), new_tokens=4, seeds=2, seed=s)
        for s in (5, 5, 6)
    )
    assert a == b
    assert a.doses != c.doses
    assert not math.isnan(a.doses[0].se)
    assert len(STRENGTHS) == 8


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"latent": 99}, r"There is no latent named '99'.* has latents 0 to 63"),
        ({"strengths": ()}, r"There is no strength to try"),
        ({"strengths": (math.inf,)}, r"There is no strength inf"),
        ({"seeds": 0}, r"0 continuations cannot be judged"),
        ({"watch": {"doubt": [4000]}}, r"'doubt' watches \[4000\]. Give token ids from 0 to"),
        ({"watch": {"doubt": []}}, r"'doubt' watches no token"),
        ({"contrast": torch.ones(3)}, r"A difference of means of shape \[3\] does not fit a site of 32 numbers"),
        ({"prompt": [PROMPT, PROMPT]}, r"2 prompts cannot be steered at once"),
        ({"new_tokens": 100}, r"more than the model's context"),
    ],
)
def test_bad_arguments_are_refused(model, dictionary, latent, arguments, text):
    given = {"latent": latent, "prompt": PROMPT, **SHORT, **arguments}
    with pytest.raises(UsageError, match=text):
        dose_response(model, dictionary, given.pop("latent"), given.pop("prompt"), **given)


def test_a_dictionary_of_another_width_is_refused(model, dictionary, latent):
    dictionary.site = "mlp_post.1"
    with pytest.raises(DictionaryError, match=r"reads vectors of 32 numbers, but mlp_post.1 .* has 40"):
        dose_response(model, dictionary, latent, PROMPT)
