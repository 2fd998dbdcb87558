import math

import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.measure.fvu import FVU, fvu, not_reconstructed
from lensing.measure.kl import cross_entropy, kl
from lensing.measure.l0 import Firing, l0
from lensing.measure.matching import best_cosines, recovery


def test_fvu_has_its_known_values() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) + 100
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand_as(x)) == pytest.approx(1, abs=1e-6)
    noise = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    truth = noise.double().square().sum() / (x.double() - x.double().mean(0)).square().sum()
    assert fvu(x.double(), x.double() + noise) == pytest.approx(float(truth), rel=1e-12)


def test_streaming_fvu_is_the_whole() -> None:
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(500, 5, generator=g) * 3 + 1000, torch.randn(500, 5, generator=g) + 1000
    meter = FVU()
    for a, b in zip(x.split(77), y.split(77), strict=True):
        meter.add(a, b)
    assert meter.n == 500
    assert meter.value == pytest.approx(fvu(x, y), rel=1e-10)
    assert torch.allclose(meter.mean, x.double().mean(0), atol=1e-9)
    assert meter.total_variance == pytest.approx(float(x.double().var(0, correction=0).sum()), rel=1e-9)
    assert meter.mean_norm == pytest.approx(float(x.double().norm(dim=1).mean()), rel=1e-12)
    assert math.isnan(FVU().value)


def test_not_reconstructed_weighs_up_to_the_fvu() -> None:
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(50, 4, generator=g), torch.randn(50, 4, generator=g)
    share = not_reconstructed(x, y, x.mean(0))
    weight = (x - x.mean(0)).double().square().sum(1)
    assert float((share * weight).sum() / weight.sum()) == pytest.approx(fvu(x, y), rel=1e-6)
    assert float(share.max()) > 1


def test_firing_counts() -> None:
    dense = torch.tensor([[1.0, 0, 2, 0], [0, 0, 3, 0], [4, 0, 5, 0]])
    meter = Firing(4)
    meter.add(Codes.from_dense(dense[:2]))
    meter.add(Codes.from_dense(dense[2:]))
    assert meter.l0 == pytest.approx(5 / 3) == l0(Codes.from_dense(dense))
    assert meter.density.tolist() == pytest.approx([2 / 3, 0, 1, 0])
    assert meter.dead_share == 0.5


def test_kl_and_cross_entropy_have_their_known_values() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert kl(p, q).item() == pytest.approx(0.25 * math.log(2))
    assert kl(p, p + 7).item() == pytest.approx(0, abs=1e-12)
    assert cross_entropy(p, torch.tensor([1])).item() == pytest.approx(math.log(4))
    never = torch.tensor([[0.0, -math.inf]])
    assert kl(never, torch.tensor([[0.0, 0.0]])).item() == pytest.approx(math.log(2))


def test_recovery_counts_signed_matches() -> None:
    truth = torch.eye(4)
    directions = torch.stack([truth[0] * 5, -truth[1], truth[2] + 0.3 * truth[3]])
    found = recovery(directions, truth)
    assert found.found == 2  # the opposite of a direction is not the direction
    assert found.share == 0.5
    assert best_cosines(directions, truth).tolist() == pytest.approx([1, 0, 1 / 1.09**0.5, 0.3 / 1.09**0.5])
    assert found.to_json()["mmcs"] == pytest.approx((1 + 1.3 / 1.09**0.5) / 4)
