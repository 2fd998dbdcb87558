"""Moments of parts merge to the moments of the whole, however the rows are split and in whatever order."""

from __future__ import annotations

import random

import numpy as np
import torch

from lensing.data.moments import Moments


def rows(n, seed=0, width=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator) * 2 + torch.tensor([0.0, 300.0, -1.0])[:width]


def same(a, b, tolerance=1e-12):
    assert a.n == b.n
    torch.testing.assert_close(a.mean, b.mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.scatter, b.scatter, rtol=100 * tolerance, atol=tolerance)


def test_moments_are_those_of_numpy():
    x = rows(1000)
    found, exact = Moments.none(3).update(x), x.double().numpy()
    np.testing.assert_allclose(found.mean.numpy(), exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variance.numpy(), exact.var(0), rtol=1e-12)
    np.testing.assert_allclose(found.mean_square_norm, (exact**2).sum(1).mean(), rtol=1e-12)


def test_any_split_and_any_order_merge_to_one_pass():
    draw = random.Random(1)
    for seed in range(60):
        x = rows(draw.randint(1, 200), seed)
        cuts = sorted(draw.choices(range(len(x) + 1), k=draw.randint(0, 8)))
        parts = [Moments.none(3).update(p) for p in np.split(x, cuts)]
        draw.shuffle(parts)
        while len(parts) > 1:  # a tree of merges of any shape
            i = draw.randrange(len(parts) - 1)
            parts[i : i + 2] = [parts[i].merge(parts[i + 1])]
        same(parts[0], Moments.none(3).update(x))


def test_merging_is_commutative_to_the_bit_and_none_is_neutral():
    a, b = (Moments.none(3).update(rows(n, n)) for n in (17, 50))
    ab, ba = a.merge(b), b.merge(a)
    assert torch.equal(ab.mean, ba.mean)
    assert torch.equal(ab.scatter, ba.scatter)
    for merged in (a.merge(Moments.none(3)), Moments.none(3).merge(a)):
        assert torch.equal(merged.scatter, a.scatter)


def test_rows_read_in_chunks_give_one_pass(monkeypatch):
    x = rows(500)
    whole = Moments.none(3).update(x)
    monkeypatch.setattr("lensing.data.moments.CHUNK", 30)
    same(Moments.none(3).update(x), whole)


def test_json_round_trip():
    found = Moments.none(3).update(rows(20))
    same(Moments.from_json(found.to_json()), found)
