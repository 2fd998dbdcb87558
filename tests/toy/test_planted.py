import pytest
import torch

import lensing as ln
from lensing.errors import UsageError
from lensing.measure.fvu import fvu
from lensing.measure.matching import recovery
from lensing.toy.planted import Planted
from lensing.training.loop import train


def test_parts_have_their_stated_shares_and_sum_to_the_rows() -> None:
    world = Planted(seed=3)
    drawn = world.draw(30_000, seed=1)
    assert torch.allclose(drawn.x, world.mean + sum(drawn.parts.values()), atol=1e-5)
    shares = drawn.shares()
    for name, share in {"sparse": 0.826, "dense": 0.071, "circles": 0.089, "noise": 0.014}.items():
        assert shares[name] == pytest.approx(share, abs=0.012)
    assert drawn.codes.l0() == pytest.approx(5, abs=0.05)
    assert float(world.mean.norm()) == pytest.approx(3, abs=1e-5)
    assert float(world.probabilities.sum()) == pytest.approx(5, abs=1e-4)
    assert float(world.probabilities.max()) <= 0.3 + 1e-6


def test_true_activations_rebuild_the_sparse_part() -> None:
    world = Planted(seed=1, features=64, l0=3)
    drawn = world.draw(500, seed=2)
    assert torch.allclose(drawn.codes.dense() @ world.directions, drawn.parts["sparse"], atol=1e-5)
    assert drawn.codes.value.min() >= 1
    assert drawn.codes.value.max() <= 1.5


def test_one_seed_is_one_world() -> None:
    assert torch.equal(Planted(seed=4).draw(50, seed=1).x, Planted(seed=4).draw(50, seed=1).x)
    assert not torch.equal(Planted(seed=4).draw(50, seed=1).x, Planted(seed=5).draw(50, seed=1).x)


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot give 5"):
        Planted(features=10)


@pytest.mark.parametrize(("architecture", "least"), [(ln.TopK, 54), (ln.BatchTopK, 48)])
def test_a_short_training_finds_most_planted_features(architecture: type, least: int) -> None:
    world = Planted(seed=0, d_in=32, features=64, l0=3)
    drawn = world.draw(40_000, seed=1)
    sae = train(drawn.x, architecture(width=96, k=6), tokens=150_000, batch=512, lr=6e-3, warmup=50, quiet=True)
    test = world.draw(4000, seed=2)
    found = recovery(sae.W_dec, world.directions)
    assert found.found >= least
    assert fvu(test.x, sae.reconstruct(test.x)) < 0.16
    assert sae.encode(test.x).l0() == pytest.approx(6, abs=0.3)
    assert sae.report.silent_share < 0.15
