"""Steering against vectors made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import lensing as ln
from lensing.causal.ablate import ablate
from lensing.causal.steer import Steer, SteerVector, steer
from lensing.errors import DictionaryError, UsageError

PROMPT = "the reliability of the almanac is very"


def captured(model, site, *edits, prompt=PROMPT):
    with model.edit(*edits):
        _, cache = model.run_with_cache(prompt, sites=[site])
    return cache[site]


def test_add_writes_strength_times_maximum_times_the_direction(model, dictionary, latent):
    h = captured(model, dictionary.site)
    steered = captured(model, dictionary.site, ln.steer(dictionary, latent, 2))
    delta = 2 * float(dictionary.statistics.max_activation[latent]) * dictionary.W_dec[latent]
    assert torch.allclose(steered[:, 1:], h[:, 1:] + delta, atol=1e-6)
    assert torch.equal(steered[:, 0], h[:, 0])  # BOS is left alone
    everywhere = captured(model, dictionary.site, ln.steer(dictionary, latent, 2, include_special=True))
    assert torch.allclose(everywhere, h + delta, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("raw", lambda d, i: 1.0),
        ("norm", lambda d, i: d.statistics.mean_norm),
        ("max", lambda d, i: d.statistics.max_activation[i]),
    ],
)
def test_units(model, dictionary, latent, unit, size):
    h = captured(model, dictionary.site)
    steered = captured(model, dictionary.site, steer(dictionary, latent, 0.5, unit))
    length = 0.5 * float(size(dictionary, latent))
    assert (steered - h)[0, 1:].norm(dim=1).numpy() == pytest.approx(length, rel=1e-4)


def test_clamping_to_its_own_value_changes_nothing(model, dictionary, latent):
    h = captured(model, dictionary.site)
    own = float(dictionary.encode(h[0, -1:]).dense()[0, latent])
    assert own > 0
    edit = steer(dictionary, latent, own, "raw", "clamp", at=-1)
    assert (captured(model, dictionary.site, edit) - h).abs().max() < 1e-5
    in_max = own / float(dictionary.statistics.max_activation[latent])
    edit = steer(dictionary, latent, in_max, "max", "clamp", at=-1)
    assert (captured(model, dictionary.site, edit) - h).abs().max() < 1e-5


def test_clamp_writes_the_difference_from_the_value_before_the_edit(model, dictionary, latent):
    h = captured(model, dictionary.site)
    own = dictionary.encode(h[0]).dense()[:, latent]
    steered = captured(model, dictionary.site, steer(dictionary, latent, 3, "raw", "clamp"))
    wanted = h[0] + (3 - own)[:, None] * dictionary.W_dec[latent]
    assert torch.allclose(steered[0, 1:], wanted[1:], atol=1e-5)


def test_scale_and_ablate(model, dictionary, latent):
    h = captured(model, dictionary.site)
    part = dictionary.encode(h[0]).dense()[:, latent, None] * dictionary.W_dec[latent]
    part[0] = 0
    assert part.abs().max() > 0.1
    scaled = captured(model, dictionary.site, steer(dictionary, latent, 3, mode="scale"))
    assert torch.allclose(scaled[0], h[0] + 2 * part, atol=1e-5)
    ablated = captured(model, dictionary.site, steer(dictionary, latent, mode="ablate"))
    assert torch.allclose(ablated[0], h[0] - part, atol=1e-5)
    half = captured(model, dictionary.site, steer(dictionary, latent, 0.5, mode="ablate"))
    assert torch.allclose(half[0], h[0] - part / 2, atol=1e-5)


def test_several_latents_take_activations_from_before_the_edit(model, dictionary):
    h = captured(model, dictionary.site)
    f = dictionary.encode(h[0]).dense()
    active = f[-1].nonzero()[:, 0].tolist()[:3]
    both = captured(model, dictionary.site, ablate(dictionary, active))
    wanted = h[0] - f[:, active] @ dictionary.W_dec[active]
    assert torch.allclose(both[0, 1:], wanted[1:], atol=1e-5)
    mixed = captured(model, dictionary.site, steer(dictionary, {active[0]: 1.0, active[1]: -2.0}, 0.5, "raw"))
    wanted = h[0] + 0.5 * dictionary.W_dec[active[0]] - dictionary.W_dec[active[1]]
    assert torch.allclose(mixed[0, 1:], wanted[1:], atol=1e-5)


@pytest.mark.parametrize("mode", ["add", "clamp", "scale"])
def test_a_row_of_strengths_is_each_strength_alone(model, dictionary, latent, mode):
    strengths = [0.0, 0.5, 4.0]
    edit = Steer(dictionary, {latent: torch.tensor(strengths)}, mode=mode)
    together = captured(model, dictionary.site, edit, prompt=[PROMPT] * 3)
    for row, strength in zip(together, strengths, strict=True):
        alone = captured(model, dictionary.site, steer(dictionary, latent, strength, mode=mode))
        assert torch.allclose(row, alone[0], atol=1e-5)


def test_along_writes_the_same_length_in_another_direction(model, dictionary, latent):
    h = captured(model, dictionary.site)
    other = torch.randn(dictionary.d_in, generator=torch.Generator().manual_seed(0))
    edit = Steer(dictionary, {latent: 2.0}, mode="clamp", along=other)
    plain = Steer(dictionary, {latent: 2.0}, mode="clamp")
    a, b = ((captured(model, dictionary.site, e) - h)[0, 1:] for e in (edit, plain))
    assert torch.allclose(a.norm(dim=1), b.norm(dim=1), rtol=1e-4)
    assert torch.cosine_similarity(a, other[None]).numpy() == pytest.approx(1.0, abs=1e-4)


def test_a_plain_vector_has_the_length_that_was_asked(model, dictionary):
    h = captured(model, dictionary.site, prompt=[PROMPT] * 2)
    vector = torch.arange(1.0, dictionary.d_in + 1)
    edit = SteerVector(dictionary.site, vector, torch.tensor([1.0, 3.0]))
    delta = captured(model, dictionary.site, edit, prompt=[PROMPT] * 2) - h
    assert delta[0, 1:].norm(dim=1).numpy() == pytest.approx(1.0, rel=1e-4)
    assert delta[1, 1:].norm(dim=1).numpy() == pytest.approx(3.0, rel=1e-4)
    with pytest.raises(UsageError, match=r"A vector of length 0 or with infinite numbers has no direction"):
        SteerVector(dictionary.site, torch.zeros(4), 1.0)
    with pytest.raises(UsageError, match=r"A direction of shape \[4\] does not fit"):
        captured(model, dictionary.site, SteerVector(dictionary.site, torch.ones(4), 1.0))


@pytest.mark.parametrize("mode", ["add", "clamp", "ablate"])
def test_generation_is_the_same_with_and_without_cache(model, dictionary, latent, mode):
    strength = 1.0 if mode == "ablate" else 3.0
    with model.edit(steer(dictionary, latent, strength, mode=mode)):
        with_cache, without = (model.generate(PROMPT, max_new_tokens=8, cache=c).ids for c in (True, False))
    assert torch.equal(with_cache, without)


def test_positions(model, dictionary, latent):
    h = captured(model, dictionary.site)
    moved = (captured(model, dictionary.site, steer(dictionary, latent, 1, at=slice(2, 4))) - h)[0].norm(dim=1) > 0
    assert moved.nonzero()[:, 0].tolist() == [2, 3]
    assert torch.equal(captured(model, dictionary.site, steer(dictionary, latent, 1, at="generated")), h)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"latent": 64}, r"There is no latent named '64'. tiny/resid_post.1/w64 has latents 0 to 63."),
        ({"latent": -1}, r"has latents 0 to 63"),
        ({"latent": 1.5}, r"1.5 is not a latent's number. Give a whole number from 0 to 63."),
        ({"latent": {}}, r"There is no latent to steer. Give at least one."),
        ({"latent": 1, "mode": "clmap"}, r"There is no mode named 'clmap'. Did you mean 'clamp'"),
        ({"latent": 1, "unit": "maxx"}, r"There is no unit named 'maxx'. Did you mean 'max'"),
        ({"latent": 1, "strength": float("nan")}, r"There is no strength nan. Give a finite number"),
        ({"latent": 1, "strength": 2, "mode": "ablate"}, r"2.0 is no share to ablate. Give 0 to 1"),
        ({"latent": 63}, r"Latent 63 of tiny/resid_post.1/w64 was silent .* give unit='norm' or 'raw'"),
    ],
)
def test_what_cannot_be_is_refused(dictionary, arguments, text):
    with pytest.raises(UsageError, match=text) as error:
        steer(dictionary, **arguments)
    assert error.value.exit_code == 2


def test_without_statistics_only_raw_strengths_are_known(model, dictionary, latent):
    dictionary.statistics = None
    steer(dictionary, latent, 1, "raw")
    steer(dictionary, latent, 1, mode="ablate")
    with pytest.raises(UsageError, match=r"holds no statistics, so the unit 'max' is unknown. Give unit='raw'."):
        steer(dictionary, latent)


def test_a_dictionary_without_a_site_is_refused(dictionary):
    dictionary.site = None
    with pytest.raises(DictionaryError, match=r"names no site"):
        steer(dictionary, 1)


def test_strengths_that_do_not_fit_the_rows_are_refused(model, dictionary, latent):
    edit = Steer(dictionary, {latent: torch.ones(3)})
    with pytest.raises(UsageError, match=r"3 strengths do not fit 2 rows"):
        captured(model, dictionary.site, edit, prompt=[PROMPT] * 2)


def test_a_decoder_row_of_another_length_keeps_the_unit(model, dictionary, latent):
    dictionary.W_dec[latent] *= 3
    dictionary.statistics = replace(dictionary.statistics, mean_norm=5.0)
    h = captured(model, dictionary.site)
    steered = captured(model, dictionary.site, steer(dictionary, latent, 2, "norm"))
    assert (steered - h)[0, 1:].norm(dim=1).numpy() == pytest.approx(10.0, rel=1e-4)
