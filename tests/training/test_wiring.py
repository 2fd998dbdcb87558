"""Training in every wiring and with every option of the loop: does it learn what is planted, and hold what it says."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.errors import Interrupted, SiteError, TrainingError, UsageError
from lensing.training.coefficient import Coefficient
from lensing.training.dead import resample_
from lensing.training.loop import train
from lensing.training.scaling import input_scale
from lensing.training.step import StepReport, Trainer

D, FEATURES, ROWS = 16, 40, 6000
EVERY: dict[str, Any] = {
    "topk": ln.TopK(width=64, k=4),
    "batchtopk": ln.BatchTopK(width=64, k=4),
    "matryoshka": ln.Matryoshka(width=64, k=4),
    "relu": ln.ReLU(width=64, l0=5.0),
    "relu, unit rows": ln.ReLU(width=64, l0=5.0, unit_rows=True, resample_every=40),
    "gated": ln.Gated(width=64, l0=5.0),
    "jumprelu": ln.JumpReLU(width=64, l0=5.0, threshold=0.03, bandwidth=0.1),
}


@pytest.fixture(scope="module")
def planted() -> dict[str, Tensor]:
    """Rows of three sites in which the same sparse features are written along directions of each site's own."""
    g = torch.Generator().manual_seed(0)
    active = (torch.rand(ROWS, FEATURES, generator=g) < 0.05) * (1 + torch.rand(ROWS, FEATURES, generator=g))
    sites = {}
    for name, scale in (("a", 1.0), ("b", 30.0), ("c", 0.1)):
        directions = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=g), dim=1)
        sites[name] = scale * (active @ directions + 0.02 * torch.randn(ROWS, D, generator=g) + 1)
    return sites


def go(source: Any, config: Any, **other: Any) -> Any:
    setting: dict[str, Any] = {"tokens": 40_000, "batch": 200, "lr": 3e-3, "warmup": 10, "quiet": True}
    return train(TensorRows(source), config, **(setting | other))


@pytest.mark.parametrize("wiring", [{"site": "a"}, {"site": "a+b"}, {"site": "a", "target": "b"}], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_every_architecture_learns_in_every_wiring(name: str, wiring: Any, planted: dict[str, Tensor]) -> None:
    sae = go(planted, EVERY[name], **wiring, tokens=120_000 if name in ("gated", "jumprelu") else 40_000)
    assert sae.report.fvu < (0.9 if name.startswith("relu") else 0.6)  # L1 makes activations too small
    assert 1 < sae.report.l0 < 16  # the steered ones are on their way
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(64), atol=1e-4)
    assert (sae.site, sae.target) == (wiring["site"], wiring.get("target"))
    assert sae.statistics.mean_norm > (100 if "b" in str(wiring) else 3)


def test_sites_of_other_scales_count_alike_in_a_crosscoder(planted: dict[str, Tensor]) -> None:
    sae = go(planted, EVERY["topk"], site="a+b+c")
    x = torch.cat([planted[name] for name in "abc"], dim=1)
    missed = (x - sae.reconstruct(x)).square().mean(0) / x.var(0)
    shares = [float(part.mean()) for part in missed.split(D)]
    assert max(shares) < 1.3 * min(shares)


def test_a_skip_connection_takes_what_is_linear(planted: dict[str, Tensor]) -> None:
    linear = {"a": planted["a"], "b": planted["a"] @ torch.randn(D, D, generator=torch.Generator().manual_seed(1))}
    with_skip = go(linear, EVERY["topk"], site="a", target="b", skip=True, tokens=80_000)
    without = go(linear, EVERY["topk"], site="a", target="b", tokens=80_000)
    assert with_skip.report.fvu < 0.03
    assert without.report.fvu > 5 * with_skip.report.fvu


def test_a_running_mean_of_the_weights(planted: dict[str, Tensor]) -> None:
    one = Trainer(EVERY["topk"], D, steps=10, batch=100, lr=1e-2, warmup=1, seed=0, ema=0.8)
    one.start(planted["a"])
    expected: Tensor | None = None
    for i in range(10):
        one.step(planted["a"][100 * i : 100 * (i + 1)])
        now = one.dictionary.W_dec.detach().clone()
        expected = now if expected is None else 0.8 * expected + 0.2 * now
    one.finish(torch.float32)
    assert expected is not None
    direction = torch.nn.functional.normalize(expected, dim=1)
    assert torch.allclose(one.dictionary.W_dec, direction, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "jumprelu"])
def test_stopped_and_continued_with_all_that_a_run_remembers(
    name: str, planted: dict[str, Tensor], tmp_path: Any
) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 37:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = go(planted["a"], EVERY[name], tokens=16_000, ema=0.9)
    with pytest.raises(Interrupted, match="Stopped by SIGTERM at step 37 of 80"):
        go(planted["a"], EVERY[name], tokens=16_000, ema=0.9, out=tmp_path, callback=stop)
    again = go(planted["a"], EVERY[name], tokens=16_000, ema=0.9, out=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_leap_of_the_loss_stops_and_keeps_the_last_good_state(planted: dict[str, Tensor], tmp_path: Any) -> None:
    source = TensorRows(planted["a"].clone())

    def poison(report: StepReport) -> None:
        if report.step == 20:
            source.tensors["rows"] *= 100

    setting: dict[str, Any] = {"tokens": 10_000, "batch": 200, "lr": 3e-3, "quiet": True, "out": tmp_path}
    with pytest.raises(TrainingError, match=r"Rows 4,000 to 4,199 .* at step 20, after .*checkpoint\.safetensors"):
        train(source, EVERY["topk"], callback=poison, **setting)
    assert train(TensorRows(planted["a"]), EVERY["topk"], **setting).report.steps == 50


def test_the_scales_are_what_the_papers_say() -> None:
    x = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) * 3 + 5
    mean = x.mean(0)
    assert float(((x - mean) * input_scale(x, "variance")).square().sum(1).mean()) == pytest.approx(12, rel=1e-5)
    assert float((x * input_scale(x, "norm")).norm(dim=1).mean()) == pytest.approx(math.sqrt(12), rel=1e-5)
    assert float((x * input_scale(x, "unit")).square().sum(1).mean()) == pytest.approx(1, rel=1e-5)
    parts = input_scale(torch.cat([x, 100 * x], dim=1), "unit", (12, 12))
    assert torch.allclose(parts[:12], 100 * parts[12:])
    with pytest.raises(TrainingError, match=r"variance 0\.0"):
        input_scale(torch.ones(4, 3), "unit")


def test_a_coefficient_ramps_and_reaches_an_l0() -> None:
    fixed = Coefficient(ln.ReLU(width=64, sparsity=5.0, ramp=0.1), 100, 1.0)
    assert [fixed.at(step) for step in (0, 4, 9, 50)] == pytest.approx([0.5, 2.5, 5.0, 5.0])
    steered = Coefficient(ln.ReLU(width=64, l0=8.0, ramp=0.0), 2000, 1.0)
    l0 = 64.0
    for step in range(2000):  # a dictionary that answers late
        l0 += 0.01 * (64 / (1 + 20 * steered.at(step)) - l0)
        steered.see(l0, step)
    assert l0 == pytest.approx(8, rel=0.02)
    for config, first in ((ln.ReLU(width=64, l0=8.0), 8.0), (ln.JumpReLU(width=64, l0=8.0), 2.0)):
        aims = [math.exp(Coefficient(config, 100, 1.0).aim(step)) for step in (0, 25, 50, 99)]
        assert aims == pytest.approx([first, math.sqrt(8 * first), 8.0, 8.0])


def test_resampled_latents_point_at_what_is_badly_rebuilt(planted: dict[str, Tensor]) -> None:
    one = Trainer(EVERY["relu, unit rows"], D, steps=10, batch=100, lr=1e-3, warmup=1, seed=0)
    one.start(planted["a"])
    one.step(planted["a"][:100])
    one.silence.rows[:5] = one.silence.limit
    x = planted["a"][:50] * one.scale_in
    d = one.dictionary
    length = d.encoder[5:].norm(dim=1).mean()
    resample_(d, one.optimizer, one.silence, x, seed=3)
    assert len(one.silence.dead()) == 0
    cosines = torch.nn.functional.normalize(x - d.b_dec, dim=1) @ d.W_dec[:5].T
    assert torch.allclose(cosines.max(0).values, torch.ones(5), atol=1e-5)
    assert torch.allclose(d.encoder[:5].norm(dim=1), 0.2 * length.expand(5), atol=1e-5)
    assert float(one.optimizer.state[d.W_dec]["exp_avg"][:5].abs().max()) == 0.0


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"site": "a", "target": "d"}, SiteError, "does not give 'd' but a, b, c"),
        ({"site": "a+d"}, SiteError, "does not give 'd'"),
        ({"site": "a", "target": "a"}, UsageError, "cannot write the site that it reads"),
        ({"site": "a", "skip": True}, UsageError, "Give a target"),
        ({"site": "a", "ema": 1.0}, UsageError, "ema is 1.0"),
    ],
)
def test_wirings_that_cannot_be(setting: Any, error: Any, words: str, planted: dict[str, Tensor]) -> None:
    with pytest.raises(error, match=words):
        go(planted, EVERY["topk"], **setting)


def test_thirty_times_almost_nothing_is_no_leap(planted: dict[str, Tensor]) -> None:
    made = Trainer(ln.TopK(width=64, k=4), D, steps=10, batch=200, lr=1e-3, warmup=1, seed=0)
    made.start(planted["a"][:1000])
    made.usual = made.step(planted["a"][:200]).fvu / 1000  # as after rows that were rebuilt almost perfectly
    scale = (0.2 / (1000 * made.usual)) ** 0.5  # so that this batch's FVU is about 0.2
    centre = planted["a"].mean(0)
    assert made.step(centre + scale * (planted["a"][200:400] - centre)).fvu < 0.3
