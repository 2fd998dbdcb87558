"""Streaming numbers against brute-force numpy in float64, ours and those of other tools."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UnknownNameError
from lensing.measure.l0 import DENSITY_EDGES, Firing
from lensing.measure.peers import NAMES, PeerMetrics
from lensing.measure.reconstruction import Reconstruction

CUTS = (130, 130, 37)  # unequal batches: a mean of batch means is not the mean


def _batches() -> list[tuple[torch.Tensor, torch.Tensor, Codes]]:
    g = torch.Generator().manual_seed(5)
    parts = []
    for i, rows in enumerate(CUTS):
        x = torch.randn(rows, 12, generator=g) + 40 * (i + 1)  # a mean far from zero that moves from batch to batch
        x[0] *= 30  # one massive row, as a beginning-of-text token has
        x_hat = 0.9 * x + 0.3 * torch.randn(rows, 12, generator=g)
        dense = torch.randn(rows, 20, generator=g).relu() * (torch.rand(rows, 20, generator=g) < 0.3)
        dense[:, 7] = 0
        parts.append((x, x_hat, Codes.from_dense(dense)))
    return parts


def _whole() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = _batches()
    x = np.concatenate([p[0].numpy() for p in parts]).astype(np.float64)
    x_hat = np.concatenate([p[1].numpy() for p in parts]).astype(np.float64)
    return x, x_hat, np.concatenate([p[2].dense().numpy() for p in parts]).astype(np.float64)


def test_ours_equals_brute_force() -> None:
    numbers, firing = Reconstruction(), Firing(20)
    for x, x_hat, codes in _batches():
        numbers.add(x, x_hat)
        firing.add(codes)
    x, y, f = _whole()
    e, lx, ly = x - y, np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    for found, truth in {
        numbers.fvu: (e**2).sum() / ((x - x.mean(0)) ** 2).sum(),
        numbers.uncentred_fvu: (e**2).sum() / (x**2).sum(),
        numbers.mse: (e**2).sum(1).mean(),
        numbers.cosine: ((x * y).sum(1) / lx / ly).mean(),
        numbers.norm_ratio: (ly / lx).mean(),
        numbers.bias: (y**2).sum() / (x * y).sum(),
        firing.l0: (f > 0).sum(1).mean(),
        firing.l1: f.sum(1).mean(),
        firing.dead_share: 1 / 20,
    }.items():
        assert found == pytest.approx(truth, rel=1e-9)
    density = (f > 0).mean(0)
    by_decade = np.histogram(density[density > 0], DENSITY_EDGES)[0].tolist()
    assert firing.histogram() == [1, *by_decade]


def test_densities_on_an_edge_belong_above_it() -> None:
    firing = Firing(4)
    firing.rows, firing.counts = 1000, torch.tensor([1000, 100, 10, 0])
    assert firing.histogram() == [1, 0, 0, 0, 0, 0, 1, 2]  # 0.01 on its edge, 0.1 on its edge, 1 in the last decade


def test_rows_of_zeros_have_no_direction_and_nothing_added_is_not_a_number() -> None:
    numbers = Reconstruction()
    assert np.isnan(numbers.mse)
    assert np.isnan(numbers.cosine)
    numbers.add(torch.tensor([[0.0, 0], [3, 4]]), torch.tensor([[1.0, 0], [3, 4]]))
    assert (numbers.cosine, numbers.norm_ratio) == (0.5, 0.5)


def test_the_numbers_of_other_tools_equal_brute_force() -> None:
    meter = PeerMetrics()
    for part in _batches():
        meter.add(*part)
    x, y, f = _whole()
    e, n = ((x - y) ** 2).sum(1), len(x)
    lx, ly = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    cuts = np.split(np.arange(n), np.cumsum(CUTS)[:-1])
    legacy = np.concatenate([1 - e[c] / ((x[c] - x[c].mean(0)) ** 2).sum(1) for c in cuts])
    spread = [((x[c] - x[c].mean(0)) ** 2).sum() for c in cuts]

    def over(figure: object) -> float:
        return float(np.mean([figure(c) for c in cuts]))  # type: ignore[operator]

    bias = over(lambda c: (y[c] ** 2).sum() / (x[c] * y[c]).sum())
    square = over(lambda c: (x[c] ** 2).sum(1).mean())
    truth = {
        "saelens.explained_variance": 1 - e.sum() / ((x - x.mean(0)) ** 2).sum(),
        "saelens.explained_variance_legacy": legacy.mean(),
        "saelens.mse": e.mean(),
        "saelens.cossim": ((x * y).sum(1) / lx / ly).mean(),
        "saelens.l2_ratio": (ly / lx).mean(),
        "saelens.relative_reconstruction_bias": bias,
        "saelens.l0": (f != 0).sum(1).mean(),
        "saelens.l1": np.abs(f).sum(1).mean(),
        "saelens.n_alive": 19,
        "saebench.explained_variance": 1 - over(lambda c: e[c].mean()) / (square - (square / 12) ** 2),
        "saebench.explained_variance_legacy": legacy.mean(),
        "saebench.mse": np.concatenate([e[c] / len(c) for c in cuts]).mean(),
        "saebench.cossim": ((x * y).sum(1) / lx / ly).mean(),
        "saebench.relative_reconstruction_bias": bias,
        "saebench.l0": (f != 0).sum(1).mean(),
        "saebench.l1": f.sum(1).mean(),
        "sparsify.fvu": np.mean([e[c].sum() / s for c, s in zip(cuts, spread, strict=True)]),
        "dictionary_learning.frac_variance_explained": over(
            lambda c: 1 - (x - y)[c].var(0, ddof=1).sum() / x[c].var(0, ddof=1).sum()
        ),
        "dictionary_learning.l2_loss": over(lambda c: np.sqrt(e[c]).mean()),
        "dictionary_learning.l1_loss": over(lambda c: np.abs(f[c]).sum(1).mean()),
        "dictionary_learning.l0": over(lambda c: (f[c] != 0).sum(1).mean()),
        "dictionary_learning.cossim": over(lambda c: ((x * y).sum(1) / lx / ly)[c].mean()),
        "dictionary_learning.l2_ratio": over(lambda c: (ly / lx)[c].mean()),
        "dictionary_learning.relative_reconstruction_bias": bias,
        "dictionary_learning.frac_alive": 19 / 20,
        "llamascopium.explained_variance": np.mean([1 - e[c].sum() / s for c, s in zip(cuts, spread, strict=True)]),
        "llamascopium.explained_variance_legacy": over(lambda c: legacy[c].mean()),
        "openai.normalized_mean_squared_error": over(lambda c: (e[c] / lx[c] ** 2).mean()),
        "openai.normalized_l1_loss": over(lambda c: (np.abs(f[c]).sum(1) / lx[c]).mean()),
    }
    assert set(truth) == set(NAMES)
    for name, value in truth.items():
        assert meter.value(name) == pytest.approx(value, rel=1e-9), name
    # the point of having them all: one dictionary, many numbers
    names = [name for name in NAMES if "variance" in name or name == "sparsify.fvu"]
    assert len({round(meter.value(name), 6) for name in names}) >= 5


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"sparsify\.fvu"):
        PeerMetrics().value("sparsify.fvuu")
    assert np.isnan(PeerMetrics().value("sparsify.fvu"))
