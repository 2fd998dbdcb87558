"""Small worlds with known answers: what they are, and that dictionaries give the answers that are quick to learn."""

from __future__ import annotations

import pytest
import torch

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.measure.fvu import fvu
from lensing.measure.matching import absorbed_share, best_latents
from lensing.toy.answers import copied, correlated, hierarchy, independent
from lensing.training.loop import train
from lensing.training.scaling import input_scale


def test_a_child_is_never_on_without_its_parent() -> None:
    world = hierarchy(4000)
    on = world.on
    for parent in range(4):
        children = on[:, 4 + 4 * parent : 8 + 4 * parent]
        assert not bool((children.any(1) & ~on[:, parent]).any())
        assert int(children.sum(1).max()) == 1
        assert float(children.any(1)[on[:, parent]].double().mean()) == pytest.approx(0.8, abs=0.06)
    assert torch.allclose(world.x, world.strength @ world.directions, atol=1e-5)
    assert torch.allclose(world.directions @ world.directions.T, torch.eye(20), atol=1e-5)


def test_pairs_are_equally_frequent_and_go_together() -> None:
    on = correlated(20_000).on.double()
    assert on.mean(0).tolist() == pytest.approx([0.25] * 16, abs=0.02)
    assert float(on[on[:, 0] > 0, 1].mean()) == pytest.approx(0.8, abs=0.03)
    assert float(on[on[:, 0] > 0, 2].mean()) == pytest.approx(0.25, abs=0.03)


def test_a_copied_feature_is_in_both_layers_and_another_in_one() -> None:
    world = copied(2000)
    assert world.second is not None
    assert world.second_directions is not None
    lengths = torch.stack([world.directions.norm(dim=1), world.second_directions.norm(dim=1)], 1)
    expected = torch.tensor([[1.0, 1.0]] * 16 + [[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 8)
    assert torch.allclose(lengths, expected, atol=1e-5)
    assert torch.allclose(world.second, world.strength @ world.second_directions, atol=1e-5)


def test_too_many_features_for_right_angles_are_refused() -> None:
    with pytest.raises(UsageError, match="20 features cannot be at right angles in 8"):
        hierarchy(10, d=8)


def test_absorption_counts_silent_rows_among_those_with_both() -> None:
    codes = Codes.from_dense(torch.tensor([[1.0, 0], [0, 2], [3, 0], [0, 1]]))
    parent, child = torch.tensor([True, True, True, False]), torch.tensor([True, True, False, True])
    assert absorbed_share(codes, 0, parent, child) == 0.5
    assert absorbed_share(codes, 1, parent, child) == 0.5
    assert absorbed_share(codes, 0, parent & ~child, child) != absorbed_share(codes, 0, parent, child)


def test_l1_takes_half_its_coefficient_from_every_active_latent() -> None:
    world, coefficient = independent(8000, features=8), 0.1
    config = ln.ReLU(width=8, sparsity=coefficient, unit_rows=True)
    sae = train(world.x, config, tokens=100_000, batch=256, lr=2e-2, quiet=True)
    cut = coefficient / 2 / float(input_scale(world.x, "unit")[0])
    cosine, latent = best_latents(sae.W_dec, world.directions)
    assert float(cosine.min()) > 0.99
    a = (world.x - sae.b_dec) @ world.directions.T
    off = (sae.encode(world.x).dense()[:, latent] - (a - cut).clamp(min=0))[world.on].abs().mean()
    assert float(off) < 0.25 * cut  # no shrinkage, or a whole coefficient of it, would be off by all of it


def test_a_skip_connection_takes_exactly_the_linear_part() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8000, 6, generator=g)
    y = (x @ torch.randn(6, 12, generator=g) - 0.5).relu() @ torch.randn(12, 6, generator=g)
    silent = ln.ReLU(width=4, sparsity=1e4, ramp=0.0)
    source = TensorRows({"in": x, "out": y})
    sae = train(source, silent, site="in", target="out", skip=True, tokens=50_000, batch=256, lr=3e-2, quiet=True)
    codes = sae.encode(x)
    assert codes.l0() < 0.01
    design = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    least = fvu(y, design @ torch.linalg.lstsq(design, y.double()).solution)
    assert 0.1 < least < 0.9
    assert fvu(y, sae.decode(codes) + sae.skipped(x)) == pytest.approx(least, rel=0.05)
