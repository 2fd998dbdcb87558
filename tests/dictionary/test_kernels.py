from typing import Any

import pytest
import torch

from lensing.dictionary import kernels, select
from lensing.dictionary.kernels import Pattern, sparse_dot, sparse_mix
from lensing.dictionary.select import batch_top_pattern, pattern_above, top_pattern


def _mask(pattern: Pattern) -> torch.Tensor:
    out = torch.zeros(pattern.rows, pattern.columns, dtype=torch.bool)
    out[pattern.row_of, pattern.index.long()] = True
    assert len(pattern.index) == int(out.sum()), "no place twice"
    return out


def _random(rows: int, d: int, f: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d, generator=g), torch.randn(f, d, generator=g), torch.randn(f, generator=g)


def _dense_top(pre: torch.Tensor, k: int) -> torch.Tensor:
    mask = torch.zeros_like(pre, dtype=torch.bool).scatter_(1, pre.topk(k, dim=1).indices, True)
    return mask & (pre > 0)


@pytest.mark.parametrize(("f", "k"), [(512, 16), (300, 5), (33, 20), (40, 40), (17, 1), (1024, 32)])
def test_top_pattern_is_the_dense_top_k(f: int, k: int) -> None:
    x, w, b = _random(130, 24, f)
    assert torch.equal(_mask(top_pattern(x, w, b, k)), _dense_top(x @ w.T + b, k))


def test_top_pattern_in_both_implementations() -> None:
    x, w, b = _random(50, 16, 256)
    fast, slow = top_pattern(x, w, b, 8), select._top_dense(x, w, b, 8)
    assert torch.equal(fast.indptr, slow.indptr)
    assert torch.equal(fast.index, slow.index)


@pytest.mark.parametrize("guess", [None, 0.0, 0.5, 1e9])
def test_torchs_own_way_is_that_of_the_cpu(guess: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b = (t.round(decimals=1) for t in _random(70, 5, 90))  # many ties
    edge = torch.linspace(-1, 2, 90)

    def chosen() -> list[Any]:
        batch, least = batch_top_pattern(x, w, b, 6, guess)
        found = [pattern_above(x, w, b, 0.3), pattern_above(x, w, b, edge), batch]
        return [*((p.indptr.tolist(), p.index.tolist()) for p in found), least]

    quick = chosen()
    monkeypatch.setattr(select, "_on_cpu", lambda _: False)  # as on a GPU
    assert chosen() == quick


def test_ties_do_not_make_more_than_k() -> None:
    x, w = torch.ones(3, 4), torch.ones(64, 4)
    pattern = top_pattern(x, w, torch.zeros(64), 5)
    assert _mask(pattern).sum(1).tolist() == [5, 5, 5]
    batch, least = batch_top_pattern(x, w, torch.zeros(64), 5)
    assert _mask(batch).sum() == 15
    assert least == 4.0


def test_nothing_positive_means_nothing_active() -> None:
    x, w, _ = _random(6, 4, 40)
    low = torch.full((40,), -1e3)
    assert len(top_pattern(x, w, low, 3).index) == 0
    pattern, least = batch_top_pattern(x, w, low, 3)
    assert len(pattern.index) == 0
    assert least == 0.0
    assert torch.equal(sparse_mix(torch.zeros(0), w, pattern), torch.zeros(6, 4))


@pytest.mark.parametrize("guess", [None, 0.0, 0.5, 5.0, 1e9])
def test_batch_top_is_exact_whatever_the_guess(guess: float | None) -> None:
    x, w, b = _random(300, 24, 200)
    pre = x @ w.T + b
    k = 7
    flat = pre.flatten()
    least = flat.topk(k * 300).values[-1]
    pattern, smallest = batch_top_pattern(x, w, b, k, guess)
    assert torch.equal(_mask(pattern), pre >= least)
    assert smallest == pytest.approx(float(least), rel=1e-5)


def test_batch_top_takes_no_negative_ones() -> None:
    x, w, b = _random(20, 8, 12)
    pattern, _ = batch_top_pattern(x, w, b, 12)
    assert torch.equal(_mask(pattern), x @ w.T + b > 0)


def test_pattern_above_is_the_dense_comparison() -> None:
    x, w, b = _random(70, 12, 90)
    for threshold in (-1.0, 0.0, 1.3):
        assert torch.equal(_mask(pattern_above(x, w, b, threshold)), x @ w.T + b > threshold)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b = _random(500, 12, 96)
    whole = top_pattern(x, w, b, 6)
    monkeypatch.setattr(select, "CHUNK_BYTES", 1)
    parts = top_pattern(x, w, b, 6)
    assert torch.equal(whole.indptr, parts.indptr)
    assert torch.equal(whole.index, parts.index)


def _gradients(value: torch.Tensor, inputs: list[torch.Tensor], weights: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad((value * weights).sum(), inputs))


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("f", [96, 40_000])
def test_sparse_gradients_are_the_dense_ones(f: int, sampled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sampled:
        monkeypatch.setattr(kernels, "_sampled_product_works", lambda device, dtype: False)
    x, w_enc, b = (t.double() for t in _random(37, 10, f))
    w_dec = torch.randn(f, 10, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, w_enc, b, w_dec)]
    out = torch.randn(37, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    pattern = top_pattern(x, w_enc, b, 5)
    sparse = sparse_mix(sparse_dot(x, w_enc, b, pattern).relu(), w_dec, pattern)
    dense = ((x @ w_enc.T + b).relu() * _mask(pattern)) @ w_dec
    assert torch.allclose(sparse, dense, atol=1e-12)
    for mine, truth in zip(_gradients(sparse, inputs, out), _gradients(dense, inputs, out), strict=True):
        assert torch.allclose(mine, truth, atol=1e-11)


def test_transposed_pattern_lists_rows_by_latent() -> None:
    x, w, b = _random(40, 8, 30)
    pattern = top_pattern(x, w, b, 4)
    mask = _mask(pattern)
    pointer, order = pattern.transposed
    for j in range(30):
        rows = pattern.row_of[order[pointer[j] : pointer[j + 1]]]
        assert rows.tolist() == mask[:, j].nonzero().squeeze(1).tolist()
