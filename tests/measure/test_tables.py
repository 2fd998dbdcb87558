"""Tables of one row a token or a pair, on planted rows whose FVU is known."""

from __future__ import annotations

import pytest
import torch

from lensing.errors import UsageError
from lensing.measure.fvu import fvu
from lensing.measure.tables import bigram_table_fvu, token_table_fvu


@pytest.fixture
def planted():
    """Two thirds of the variance from the token, a ninth of the rest from the pair, the others noise."""
    draw = torch.Generator().manual_seed(0)
    n, d = 60_000, 16
    token, previous = torch.randint(8, (2, n), generator=draw)
    of_token, of_pair = torch.randn(8, d, generator=draw), torch.randn(8, 8, d, generator=draw)
    noise = torch.randn(n, d, generator=draw)
    return token, previous, of_token, of_pair, noise, torch.arange(n) % 2 == 0


def test_a_function_of_the_token_is_reconstructed_whole(planted):
    token, previous, of_token, _, _, train = planted
    h = of_token[token] + 100
    assert token_table_fvu(h, token, train) < 1e-12
    assert bigram_table_fvu(h, token, previous, train) < 1e-12


def test_a_function_of_the_pair_needs_the_pair(planted):
    token, previous, of_token, of_pair, _, train = planted
    h = of_token[token] + of_pair[previous, token]
    parts = of_pair[previous, token] - of_pair.mean(0)[token]
    expected = float(parts.square().sum() / (h - h.mean(0)).square().sum())
    assert token_table_fvu(h, token, train) == pytest.approx(expected, rel=0.02)
    assert bigram_table_fvu(h, token, previous, train) < 1e-4  # what the shrinkage of n / (n + 1) leaves


def test_noise_is_what_remains(planted):
    token, previous, _, _, noise, train = planted
    for value in (token_table_fvu(noise, token, train), bigram_table_fvu(noise, token, previous, train)):
        assert 1 < value < 1.01


def test_small_tables_by_hand():
    h = torch.tensor([[0.0], [2.0], [6.0], [1.0], [3.0], [9.0]])
    token = torch.tensor([0, 0, 1, 0, 1, 2])
    train = torch.tensor([True, True, True, False, False, False])
    mean = 8 / 3  # of the training rows, for token 2, which none of them has
    expected = fvu(h[3:], torch.tensor([[1.0], [6.0], [mean]]))
    assert token_table_fvu(h, token, train) == pytest.approx(expected)
    # the pair (5, 0) was seen twice: its mean is 1, the row of token 0 is 3, and token 1 was never seen
    previous = torch.tensor([5, 5, 4, 5, 5, 5])
    h, token = torch.tensor([[0.0], [2.0], [7.0], [1.0], [3.0], [9.0]]), torch.tensor([0, 0, 0, 0, 1, 0])
    pair = (2 * 1 + 3) / 3
    train = torch.tensor([True, True, True, False, False, False])
    expected = fvu(h[3:], torch.tensor([[pair], [3.0], [pair]]))
    assert bigram_table_fvu(h, token, previous, train) == pytest.approx(expected)
    alone = torch.tensor([5, 4, 3, 5, 5, 4])  # pairs seen once have no row of their own
    assert bigram_table_fvu(h, token, alone, train) == pytest.approx(token_table_fvu(h, token, train))


def test_what_cannot_be_split_is_refused():
    h, token = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
    with pytest.raises(UsageError, match="both sides"):
        token_table_fvu(h, token, torch.ones(3, dtype=torch.bool))
    with pytest.raises(UsageError, match="do not fit 3 rows"):
        bigram_table_fvu(h, token, token[:2], torch.tensor([True, False, True]))
