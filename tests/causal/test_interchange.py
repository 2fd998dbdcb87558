"""Interchange: known from its ends, from hand-made sums, and from programs whose variables lie open."""

import itertools

import pytest
import torch

import lensing as ln
from lensing.dictionary.base import new_dictionary
from lensing.errors import PromptError, UsageError
from lensing.model.edit import Add
from lensing.toy.compile import compile_program
from lensing.toy.rasp import histogram

BASE, SOURCE = [1, 5, 6, 7, 8], [1, 9, 10, 11, 12]


@pytest.fixture(scope="module")
def model():
    return ln.load_model("almanac")


def at(model, ids, site):
    return model.run_with_cache(ids, sites=[site])[1][site]


def test_the_whole_of_a_site_gives_the_sources_answer(model):
    last = f"resid_post.{model.n_layers - 1}"
    found = ln.interchange(model, BASE, SOURCE, ln.Swap(last))
    assert torch.equal(found, model.logits(SOURCE))
    nothing = ln.interchange(model, BASE, BASE, [ln.Swap("resid_post.2"), ln.Swap("attn_z.4", heads=[1])])
    assert torch.equal(nothing, model.logits(BASE))


def test_a_subspace_takes_that_part_alone(model):
    site, basis = "resid_post.2", torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    own, other = at(model, BASE, site), at(model, SOURCE, site)
    projector = basis.T @ torch.linalg.inv(basis @ basis.T) @ basis
    delta = torch.zeros_like(own)
    delta[:, 3] = (other[:, 1] - own[:, 3]) @ projector
    with model.edit(ln.Apply(site, lambda h: h + delta)):
        wanted = model.logits(BASE)
    found = ln.interchange(model, BASE, SOURCE, ln.Swap(site, [3], [1], basis=basis))
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, model.logits(BASE), atol=1e-2)


def test_heads_are_those_of_a_patch(model):
    clean = ln.interchange(model, BASE, SOURCE, ln.Swap("attn_z.3", [4], heads=[2]))
    z = at(model, BASE, "attn_z.3").clone()
    z[:, 4, 2] = at(model, SOURCE, "attn_z.3")[:, 4, 2]
    with model.edit(ln.Replace("attn_z.3", z)):
        assert torch.equal(clean, model.logits(BASE))


def test_latents_bring_their_directions(model):
    sae = new_dictionary(ln.TopK(width=64, k=8), model.d_model, seed=0).requires_grad_(False)
    sae.site = "resid_post.2"
    own, other = (sae.encode(at(model, ids, sae.site)[0, 3:4]).dense()[0] for ids in (BASE, SOURCE))
    latents = [int(own.argmax()), int(other.argmax())]
    delta = sum((other[i] - own[i]) * sae.W_dec[i] for i in latents)
    with model.edit(Add(sae.site, delta, at=3)):
        wanted = model.logits(BASE)
    found = ln.interchange(model, BASE, SOURCE, ln.Swap(positions=[3], dictionary=sae, latents=latents))
    assert torch.allclose(found, wanted, atol=1e-4)
    every = ln.interchange(model, BASE, SOURCE, ln.Swap(positions=[3], dictionary=sae))
    rest = at(model, BASE, sae.site)[0, 3] - own @ sae.W_dec + other @ sae.W_dec
    with model.edit(ln.Replace(sae.site, rest, at=3)):
        assert torch.allclose(every, model.logits(BASE), atol=1e-4)


def test_a_true_hypothesis_is_right_on_every_pair_and_a_false_one_is_not():
    compiled = compile_program(histogram(3, 3))
    program, (layer, _) = compiled.program, compiled.written["mine"]
    place = program.length - program.n
    pairs = list(itertools.product(itertools.product(range(3), repeat=3), repeat=2))
    expected = torch.tensor([program.answers(a, {("mine", place): float(b[0])})[0] for a, b in pairs]).long()
    texts = [[program.text(words) for words in side] for side in zip(*pairs, strict=True)]
    basis = torch.eye(compiled.model.d_model)[compiled.columns["mine"]]
    swap = ln.Swap(f"resid_post.{layer}", [place], basis=basis)
    found = ln.interchange_accuracy(compiled.model, *texts, swap, expected, position=place)
    assert (found.accuracy, found.se, found.n) == (1.0, 0.0, 729)
    other = ln.Swap(f"resid_post.{layer}", [place], basis=torch.eye(compiled.model.d_model)[compiled.columns["token"]])
    false = ln.interchange_accuracy(compiled.model, *texts, other, expected, position=place)
    assert 0.2 < false.accuracy < 0.9
    assert false.se == pytest.approx((false.accuracy * (1 - false.accuracy) / 729) ** 0.5)


@pytest.mark.parametrize(
    ("swap", "said"),
    [
        (ln.Swap(), "no site"),
        (ln.Swap("resid_post.2", [9]), "no position 9"),
        (ln.Swap("resid_post.2", [1, 2], [1]), "cannot take from 1"),
        (ln.Swap("resid_post.2", heads=[0]), "has no heads"),
        (ln.Swap("attn_z.2", heads=[7]), r"no heads \[7\]"),
        (ln.Swap("resid_post.2", basis=torch.ones(1, 3)), "does not fit 144"),
        (ln.Swap("resid_post.2", latents=[1]), "belong to a dictionary"),
        (ln.Swap("attn_z.2", heads=[1], basis=torch.ones(1, 3)), "one of them"),
    ],
)
def test_what_cannot_be_swapped_is_refused(model, swap, said):
    with pytest.raises(UsageError, match=said):
        ln.interchange(model, BASE, SOURCE, swap)


def test_texts_that_do_not_pair_are_refused(model):
    with pytest.raises(PromptError, match="do not pair"):
        ln.interchange(model, [BASE, BASE], SOURCE, ln.Swap("resid_post.2"))
