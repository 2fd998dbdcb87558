"""The greedy cover against a plain one, against the smallest by brute force, and on cases known by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lensing.errors import UsageError
from lensing.measure.cover import Labels, concepts_needed, top_rows


def table(rows: int, concepts: int, seed: int, p: float = 0.2) -> torch.Tensor:
    return torch.rand(rows, concepts, generator=torch.Generator().manual_seed(seed)) < p


def smallest(hits: torch.Tensor, fits: list[int], need: float) -> int | None:
    for n in range(1, len(fits) + 1):
        for chosen in itertools.combinations(fits, n):
            if int(hits[:, list(chosen)].any(1).sum()) >= need:
                return n
    return None


def plainly(top, candidates, share, lift):
    """A set cover written the slow way, over Python sets."""
    chosen_rows = top.nonzero()[:, 0].tolist()
    sets = {}
    for c in range(candidates.shape[1]):
        on = set(candidates[:, c].nonzero()[:, 0].tolist())
        inside = on & set(chosen_rows)
        if on and len(inside) / len(chosen_rows) >= lift * len(on) / len(top):
            sets[c] = (inside, len(on))
    covered, order = set(), []
    while len(covered) < share * len(chosen_rows) - 1e-9:
        best = max(sets, key=lambda c: (len(sets[c][0] - covered), -sets[c][1], -c), default=None)
        if best is None or not sets[best][0] - covered:
            return order, None
        order.append(str(best))
        covered |= sets[best][0]
    return order, len(order)


@pytest.mark.parametrize("seed", range(12))
def test_greedy_is_the_plain_greedy_and_near_the_smallest(seed):
    candidates = table(200, 12, seed, 0.15)
    top = torch.zeros(200, dtype=torch.bool)
    top[:20] = True
    candidates[20:] &= table(180, 12, seed + 100, 0.3)  # rarer elsewhere, so that some qualify
    found = concepts_needed(top, candidates, share=0.8, lift=2.0)
    order, count = plainly(top, candidates, 0.8, 2.0)
    assert (list(found.names), found.count) == (order, count)
    assert found.rows == 20
    hits = candidates[top]
    fits = [c for c in range(12) if hits[:, c].double().mean() >= 2 * candidates[:, c].double().mean()]
    best = smallest(hits, fits, 16)
    assert (best is None) == (found.count is None)
    if found.count is not None:
        assert best is not None
        assert best <= found.count <= best * (1 + math.log(20))
        assert found.covered >= 0.8
        assert found.covered == pytest.approx(float(hits[:, [int(n) for n in found.names]].any(1).double().mean()))


def test_disjoint_concepts_are_counted_exactly():
    top = torch.zeros(1000, dtype=torch.bool)
    top[:100] = True
    candidates = torch.zeros(1000, 5, dtype=torch.bool)
    for c, (a, b) in enumerate([(0, 50), (50, 75), (75, 87), (87, 95), (95, 100)]):
        candidates[a:b, c] = True
    found = concepts_needed(top, candidates, list("abcde"))
    assert found.names == ("a", "b", "c")
    assert found.count == 3
    assert found.covered == pytest.approx(0.87)


def test_what_is_common_everywhere_explains_nothing():
    top = torch.zeros(100, dtype=torch.bool)
    top[:10] = True
    everywhere = torch.ones(100, 1, dtype=torch.bool)
    found = concepts_needed(top, everywhere)
    assert found.count is None
    assert found.names == ()
    assert found.covered == 0
    # On all top rows and on exactly a fifth of all rows: five times as frequent, which is enough; one more is not.
    on = torch.zeros(100, 1, dtype=torch.bool)
    on[:20] = True
    assert concepts_needed(top, on).count == 1
    on[20] = True
    assert concepts_needed(top, on).count is None


def test_what_cannot_be_reached_says_how_far_it_came():
    top = torch.zeros(100, dtype=torch.bool)
    top[:10] = True
    candidates = torch.zeros(100, 2, dtype=torch.bool)
    candidates[:3, 0] = True
    candidates[3:5, 1] = True
    found = concepts_needed(top, candidates, ["x", "y"])
    assert found.count is None
    assert found.names == ("x", "y")
    assert found.covered == pytest.approx(0.5)


def test_labels_in_columns_are_the_dense_table():
    draw = np.random.Generator(np.random.PCG64(0))
    first, second = draw.integers(0, 4, 300), draw.integers(0, 30, 300)
    labels = Labels(((first, {1: "a.1", 3: "a.3"}), (second, {i: f"word.{i}" for i in range(30)})))
    dense = torch.from_numpy(np.stack([first == 1, first == 3, *(second == i for i in range(30))], 1))
    assert labels.frequency().tolist() == pytest.approx(dense.double().mean(0).tolist())
    top = torch.zeros(300, dtype=torch.bool)
    top[torch.from_numpy((first == 3) & (second < 4))] = True
    assert torch.equal(labels.of(top), dense[top])
    assert concepts_needed(top, labels, lift=2.0) == concepts_needed(top, dense, labels.names, lift=2.0)


def test_top_rows_never_hold_one_that_does_not_fire():
    values = torch.zeros(1000)
    values[[3, 5, 9]] = torch.tensor([1.0, 3.0, 2.0])
    values[11] = -4
    assert top_rows(values).nonzero()[:, 0].tolist() == [3, 5, 9]
    assert top_rows(values, 0.002).nonzero()[:, 0].tolist() == [5, 9]
    assert int(top_rows(torch.rand(1000) + 1).sum()) == 10
    nothing = top_rows(-values.abs())
    assert int(nothing.sum()) == 0
    assert concepts_needed(nothing, torch.ones(1000, 1, dtype=torch.bool)).rows == 0


def test_tables_of_another_length_are_refused():
    with pytest.raises(UsageError, match="5 rows of labels do not fit 4 rows"):
        concepts_needed(torch.ones(4, dtype=torch.bool), torch.ones(5, 1, dtype=torch.bool))
