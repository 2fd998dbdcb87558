"""Distinct contexts and quantile groups against plain loops over random texts full of repetitions and ties."""

from __future__ import annotations

import numpy as np
import pytest

from lensing.index.examples import SAME, choose, peaks, tails
from lensing.index.words import extremes, firing_words, histogram


def random_text(seed):
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, 3, 300).astype(np.int32)  # three words only, so that tails repeat
    piece = np.repeat(np.arange(30), 10).astype(np.int32)
    row = np.sort(draw.choice(300, 150, replace=False))
    value = draw.integers(1, 6, 150).astype(np.float32)  # five values only, so that they tie
    return tokens, piece, row, value


def tail_of(tokens, piece, r):
    return tuple(int(tokens[q]) for q in range(r, r - SAME, -1) if q >= 0 and piece[q] == piece[r])


@pytest.mark.parametrize("seed", range(5))
def test_tails_are_equal_where_the_last_words_are(seed):
    tokens, piece, *_ = random_text(seed)
    found = tails(tokens, piece)
    numbers: dict[tuple[int, ...], int] = {}
    for r in range(len(tokens)):
        assert numbers.setdefault(tail_of(tokens, piece, r), int(found[r])) == int(found[r])
    assert len(set(numbers.values())) == len(numbers) > 50


@pytest.mark.parametrize("seed", range(5))
def test_peaks_are_the_strongest_of_each_piece_and_tail(seed):
    tokens, piece, row, value = random_text(seed)
    of_piece: dict[int, int] = {}
    for i in range(len(row)):
        p = int(piece[row[i]])
        if p not in of_piece or value[i] > value[of_piece[p]]:
            of_piece[p] = i
    wanted, seen = [], set()
    for i in sorted(of_piece.values(), key=lambda i: (-value[i], row[i])):
        if (tail := tail_of(tokens, piece, int(row[i]))) not in seen:
            seen.add(tail)
            wanted.append(i)
    assert peaks(row, value, piece, tails(tokens, piece)).tolist() == wanted
    assert len(wanted) < len(of_piece)


@pytest.mark.parametrize(("top", "quantiles", "each"), [(4, 3, 2), (100, 4, 5), (1, 40, 1), (2, 2, 0)])
def test_groups_are_equal_parts_of_what_is_left(top, quantiles, each):
    tokens, piece, row, value = random_text(0)
    tail = tails(tokens, piece)
    order = peaks(row, value, piece, tail)
    found = choose(row, value, piece, tail, top=top, quantiles=quantiles, each=each, seed=3)
    assert found.row[found.group == 0].tolist() == row[order[:top]].tolist()
    parts = [p for p in np.array_split(order[top:], quantiles) if len(p)]
    assert found.n.tolist() == [min(top, len(order)), *map(len, parts)]
    assert max(map(len, parts), default=0) - min(map(len, parts), default=0) <= 1
    for number, part in enumerate([order[:top], *parts]):
        low, high = value[part].min(), value[part].max()
        assert found.edges[number].tolist() == [low, high]
        inside = (value >= low) & (value <= high)
        assert found.mass[number] == pytest.approx(float(value[inside].sum()) / float(value.sum()), rel=1e-12)
        chosen = found.row[found.group == number]
        assert set(chosen.tolist()) <= set(row[part].tolist())
        assert len(chosen) == (len(part) if number == 0 else min(each, len(part)))
    again = choose(row, value, piece, tail, top=top, quantiles=quantiles, each=each, seed=3)
    assert again.row.tolist() == found.row.tolist()


def test_a_latent_that_never_fires():
    tokens, piece, *_ = random_text(0)
    none = np.zeros(0, dtype=np.int64)
    found = choose(none, np.zeros(0, dtype=np.float32), piece, tails(tokens, piece), top=3, quantiles=2, each=2, seed=0)
    assert len(found.row) == len(found.n) == len(found.mass) == 0
    assert found.edges.shape == (0, 2)
    words = firing_words(tokens, none, np.bincount(tokens), 4)
    assert len(words.token) == 0


def test_words_and_histograms_against_counting():
    tokens, _, row, value = random_text(1)
    said = np.bincount(tokens, minlength=5)
    found = firing_words(tokens, row, said, 2)
    counts = sorted(((int((tokens[row] == t).sum()), -t) for t in range(3)), reverse=True)[:2]
    assert found.token.tolist() == [-t for _, t in counts]
    assert found.n.tolist() == [n for n, _ in counts]
    assert found.precision.tolist() == [n / said[-t] for n, t in counts]
    assert found.recall.tolist() == [n / len(row) for n, _ in counts]
    counted, low, high = histogram(value, 5)
    assert (low, high) == (1, 5)
    assert counted.tolist() == np.histogram(value, 5)[0].tolist()
    assert histogram(np.full(4, 2.0), 5)[0].tolist() == [0, 0, 0, 0, 4]
    assert histogram(np.zeros(0), 5)[0].sum() == 0
    logits = np.array([[3.0, 1.0, 2.0, -1.0], [0.0, 4.0, -2.0, 1.0]])
    high_ids, low_ids = extremes(logits, 2)
    assert high_ids.tolist() == [[0, 2], [1, 3]]
    assert low_ids.tolist() == [[3, 1], [2, 0]]
    assert extremes(logits, 9)[0].shape == (2, 4)
