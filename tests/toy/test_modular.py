"""The measures of grokking, on logits whose waves are planted; and the beginning of a training run."""

import math

import pytest
import torch

from lensing.errors import UsageError
from lensing.toy.modular import (
    answers,
    embedding_energy,
    excluded_loss,
    key_frequencies,
    logit_energy,
    restricted_loss,
    train_modular,
    waves,
)

P, KEY = 13, {2: 3.0, 5: 4.0}


@pytest.fixture
def planted():
    a, b, c = torch.meshgrid(*[torch.arange(P)] * 3, indexing="ij")
    return sum(s * torch.cos(2 * math.pi * k * (a + b - c).double() / P) for k, s in KEY.items())


def test_waves_are_orthonormal():
    flat = waves(P).flatten(0, 1)
    assert torch.allclose(flat @ flat.T, torch.eye(P - 1, dtype=torch.float64), atol=1e-12)
    with pytest.raises(UsageError, match="odd number"):
        waves(12)


def test_planted_frequencies_have_the_energy_that_was_planted(planted):
    energy = logit_energy(planted + 7.0)
    assert float(energy[1]) == pytest.approx(9 / 25)
    assert float(energy[4]) == pytest.approx(16 / 25)
    assert float(energy.sum()) == pytest.approx(1)
    assert key_frequencies(energy) == [2, 5]
    assert key_frequencies(energy, 0.5) == [5]


def test_energy_of_an_embedding():
    embedding = torch.cat([2 * waves(P)[2], waves(P)[3]]).T
    energy = embedding_energy(embedding + 1.0)
    assert energy.tolist() == pytest.approx([0, 0, 0.8, 0.2, 0, 0])


def test_restricted_and_excluded_losses(planted):
    pairs = torch.arange(40)
    whole = float(torch.nn.functional.cross_entropy(planted.flatten(0, 1), answers(P).flatten()))
    assert restricted_loss(planted, [2, 5]) == pytest.approx(whole)
    assert excluded_loss(planted, [2, 5], pairs) == pytest.approx(math.log(P))
    # what is not a wave of the sum is left out, and what is known by heart is all that is left
    heart = torch.randn(P, P, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = planted + heart
    assert restricted_loss(both, [2, 5]) < float(
        torch.nn.functional.cross_entropy(both.flatten(0, 1), answers(P).flatten())
    )
    assert excluded_loss(both, [2, 5], pairs) > math.log(P) - 0.5


def test_a_run_begins_by_heart():
    run = train_modular(p=7, steps=60, every=20, quiet=True)
    assert run.steps == [0, 20, 40, 60]
    assert run.train[-1] < 0.5 * run.train[0]
    assert run.train[-1] < run.test[-1]
    assert run.to_json()["key"] == run.key
    again = train_modular(p=7, steps=60, every=20, quiet=True)
    assert again.test == run.test
