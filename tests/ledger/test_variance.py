"""The variance's lines close, hold what is planted, and agree with fits written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensing.dictionary.base import new_dictionary
from lensing.dictionary.configs import TopK
from lensing.errors import UsageError
from lensing.ledger.gram import Gram, total
from lensing.ledger.variance import GROUPS, least_squares, variance


def grams(x, x_hat, better=None, shift=None):
    """Sums of rows dealt to groups in turn."""
    shift = torch.zeros(x.shape[1], dtype=torch.float64) if shift is None else shift
    found = [Gram.none(x.shape[1]) for _ in range(GROUPS)]
    e = x - x_hat
    for i, g in enumerate(found):
        g.add(x[i::GROUPS] - shift, e[i::GROUPS], (e if better is None else better)[i::GROUPS])
    return found


def account(x, x_hat, **options):
    shift = options.get("shift")
    d = x.shape[1]
    return variance(grams(x, x_hat, **options), shift=torch.zeros(d).double() if shift is None else shift, documents=99)


def by_name(lines):
    return {line.name: line.share for line in lines}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.integers(40, 300), st.floats(-6, 6), st.floats(0, 50), st.integers(0, 10**6))
def test_both_splits_close_whatever_the_shape_and_scale(d, n, scale, offset, seed):
    draw = torch.Generator().manual_seed(seed)
    x = (10**scale) * (torch.randn(n, d, generator=draw, dtype=torch.float64) + offset)
    x_hat = 0.7 * x + (10**scale) * 0.2 * torch.randn(n, d, generator=draw, dtype=torch.float64)
    found = account(x, x_hat, shift=x[0].clone())
    for part in (found.lines, found.probe):
        assert math.fsum(line.share for line in part) == pytest.approx(found.fvu.share, rel=1e-9)


def test_what_is_planted_is_found():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60_000, 8, generator=draw, dtype=torch.float64)
    v = float(x.square().sum(1).mean())
    offset = torch.zeros(8).double()
    offset[0] = 0.5
    noise = 0.3 * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    # x_hat is shrunk, set off and noisy, and misses a linear part: known to the third digit
    lost = torch.zeros(8, 8).double()
    lost[1, 1] = 0.6
    found = account(x, 0.8 * (x - x @ lost) + offset + noise)
    lines, probe = by_name(found.lines), by_name(found.probe)
    assert lines["mean error"] == pytest.approx(0.25 / v, abs=0.003)
    e_var = (7 * 0.04 + (1 - 0.8 * 0.4) ** 2 + 8 * 0.09) / v
    assert found.fvu.share == pytest.approx(e_var + 0.25 / v, abs=0.01)
    assert probe["linear"] == pytest.approx((7 * 0.04 + (1 - 0.32) ** 2) / v, abs=0.01)
    assert probe["nonlinear"] == pytest.approx(8 * 0.09 / v, abs=0.005)
    # the gain that is best for all dimensions at once: <u, w> / <w, w>
    uw, ww = 7 * 0.8 + 0.32, 7 * 0.64 + 0.32**2 + 8 * 0.09
    assert lines["calibration"] == pytest.approx((e_var * v - (8 - uw**2 / ww)) / v, abs=0.005)
    assert lines["amortisation"] == pytest.approx(-lines["calibration"], abs=1e-9), "no better codes were given"


def test_errors_are_those_of_fresh_samples():
    shares, ses = [], []
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(3000, 5, generator=draw, dtype=torch.float64)
        found = account(x, 0.9 * x + 0.3 * torch.randn(x.shape, generator=draw, dtype=torch.float64))
        shares.append(found.fvu.share)
        ses.append(found.fvu.se)
    assert np.mean(ses) == pytest.approx(np.std(shares), rel=0.4)


def test_engels_number_is_that_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 6)) + 3
    e = 0.2 * x @ rng.normal(size=(6, 6)) + rng.normal(size=(4000, 6)) + 1
    w, *_ = np.linalg.lstsq(x, e, rcond=None)
    want = np.mean(1 - ((e - x @ w) ** 2).sum(0) / ((e - e.mean(0)) ** 2).sum(0))
    t = torch.from_numpy(x)
    found = account(t, t - torch.from_numpy(e), shift=t.mean(0))
    assert found.engels == pytest.approx(want, abs=1e-6)


def test_the_probe_is_a_ridge_regression_on_other_rows():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 4))
    e = x @ rng.normal(size=(4, 4)) * 0.3 + rng.normal(size=(2000, 4)) * 0.2
    t = torch.from_numpy(x)
    found = account(t, t - torch.from_numpy(e))
    group = np.arange(2000) % GROUPS
    left = size = 0.0
    for fit in (group < 5, group >= 5):
        mu, mean = x[fit].mean(0), e[fit].mean(0)
        w, *_ = np.linalg.lstsq(x[fit] - mu, e[fit] - mean, rcond=None)
        left += (((e[~fit] - mean) - (x[~fit] - mu) @ w) ** 2).sum()
        size += ((x[~fit] - mu) ** 2).sum()
    assert by_name(found.probe)["nonlinear"] == pytest.approx(left / size, rel=1e-3)


def test_better_codes_are_least_squares_on_the_same_latents():
    sae = new_dictionary(TopK(width=40, k=4), 12, seed=3).requires_grad_(False)
    sae.b_dec += 0.1
    x = torch.randn(50, 12, generator=torch.Generator().manual_seed(2))
    codes = sae.encode(x)
    found = least_squares(x, sae, codes)
    for i in (0, 7, 49):
        index, _ = codes.row(i)
        atoms = sae.W_dec[index].double().numpy()
        target = (x[i] - sae.b_dec).double().numpy()
        fit, *_ = np.linalg.lstsq(atoms.T, target, rcond=None)
        np.testing.assert_allclose(found[i].numpy(), target - fit @ atoms, atol=1e-6)
    own = (x - sae.decode(codes)).double().norm(dim=1)
    assert bool((found.norm(dim=1) <= own + 1e-6).all())


def test_what_cannot_be_accounted_for_is_said():
    x = torch.randn(100, 3, dtype=torch.float64)
    with pytest.raises(UsageError, match="do not vary"):
        account(torch.ones(100, 3, dtype=torch.float64), torch.zeros(100, 3, dtype=torch.float64))
    with pytest.raises(UsageError, match="no row"):
        account(x[:4], x[:4] * 0.5)
    assert "few" in account(x[:40], 0.5 * x[:40]).warnings[0]
    assert total(grams(x, x)).n == 100
