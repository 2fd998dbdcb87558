import math

import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.training.dead import Silence
from lensing.training.losses import auxiliary_loss, reconstruction_loss
from lensing.training.optim import default_lr, lr_share, remove_parallel_, unit_rows_


def test_reconstruction_loss_is_the_fvu_about_a_known_variance() -> None:
    x, y = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 0], [0, 4]])
    assert float(reconstruction_loss(x, y, 2.0)) == pytest.approx((4 + 9) / (2 * 2))


def test_auxiliary_loss_uses_the_best_dead_latents() -> None:
    error = torch.tensor([[2.0, 0.0]], requires_grad=True)
    directions = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    encoder, bias, centred = torch.zeros(3, 2), torch.tensor([1.5, 1.0, -3.0]), torch.zeros(1, 2)
    assert float(auxiliary_loss(error, centred, encoder, bias, directions, 1)) == pytest.approx(0.25 / 4)
    assert float(auxiliary_loss(error, centred, encoder, bias, directions, 3)) == pytest.approx((0.25 + 1) / 4)
    assert not auxiliary_loss(error, centred, encoder, bias, directions, 1).requires_grad, "the error is taken as given"
    assert math.isfinite(float(auxiliary_loss(torch.zeros(1, 2), centred, encoder, bias * 0, directions, 1)))


def test_rates_rise_hold_and_fall() -> None:
    shares = [lr_share(step, 100, warmup=10) for step in range(100)]
    assert shares[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert shares[10:81] == [1.0] * 71
    assert shares[90] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.05)
    assert default_lr(2**14) == pytest.approx(2e-4)
    assert default_lr(2**12) == pytest.approx(4e-4)


def test_projection_and_normalisation() -> None:
    g = torch.Generator().manual_seed(0)
    w = torch.randn(5, 7, generator=g)
    unit_rows_(w)
    assert w.norm(dim=1).tolist() == pytest.approx([1.0] * 5)
    gradient = torch.randn(5, 7, generator=g)
    parallel = (gradient * w).sum(1, keepdim=True) * w
    expected = gradient - parallel
    remove_parallel_(gradient, w)
    assert torch.allclose(gradient, expected, atol=1e-6)
    assert (gradient * w).sum(1).abs().max() < 1e-6


def test_silence_counts_rows_since_the_last_firing() -> None:
    silence = Silence(3, limit=4)
    silence.add(Codes.from_dense(torch.tensor([[1.0, 0, 0], [0, 0, 0]])))
    assert silence.rows.tolist() == [0, 2, 2]
    silence.add(Codes.from_dense(torch.tensor([[0.0, 1, 0], [0, 0, 0]])))
    assert silence.rows.tolist() == [2, 0, 4]
    assert silence.dead().tolist() == [2]
