"""Cross-layer transcoders: gradients against dense autograd, what is planted, what a run remembers, files."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.data.verify import verify_folder
from lensing.dictionary import kernels
from lensing.dictionary.crosslayer import CrossLayer, new_cross_layer
from lensing.dictionary.joint import joint_top_patterns
from lensing.errors import DictionaryError, FileFormatError, Interrupted, UsageError
from lensing.training.crosslayers import train_cross_layer
from lensing.training.loop import train
from lensing.training.step import StepReport, Trainer

READS, WRITES, F, N = (6, 5, 7), (4, 5, 3), 20, 200
CONFIGS: dict[str, Any] = {
    "topk": ln.TopK(width=F, k=3, dead_after_tokens=N),
    "batchtopk": ln.BatchTopK(width=F, k=3, dead_after_tokens=N),
    "matryoshka": ln.Matryoshka(width=F, k=3, prefixes=(4, 9)),
    "relu": ln.ReLU(width=F, sparsity=0.3, ramp=0.0),
    "tanh": ln.JumpReLU(
        width=F, sparsity=0.3, ramp=0.0, penalty="tanh", threshold=0.3, bandwidth=0.5, pre_act=0.1, dead_after_tokens=N
    ),
    "quadratic": ln.JumpReLU(
        width=F, sparsity=0.02, l0=5.0, ramp=0.0, penalty="quadratic", threshold=0.2, bandwidth=0.3
    ),
}


def rows(seed: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, sum(READS), generator=g, dtype=torch.float64) + 0.5
    return x, torch.randn(N, sum(WRITES), generator=g, dtype=torch.float64) + x[:, : sum(WRITES)]


def trainer(config: Any) -> Trainer:
    x, y = rows()
    made = Trainer(
        config, sum(READS), d_out=sum(WRITES), skip=True, parts=READS, writes=WRITES, steps=100, batch=N, lr=1e-3,
        warmup=1, seed=0,
    )  # fmt: skip
    made.start(x.float(), y.float())
    g = torch.Generator().manual_seed(4)
    made.dictionary.double()
    with torch.no_grad():
        for name, parameter in made.dictionary.named_parameters():
            if "threshold" not in name:
                move = 0.2 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
                i = int(name.split(".")[1])
                if name.endswith(("b_dec", "W_skip")):
                    move[..., WRITES[i] :] = 0.0  # a layer's bias and skip are for its own site
                parameter += move
        if config.dead_after_tokens:
            for i, layer in enumerate(made.dictionary):
                layer.b_enc[: 3 + i] = -9.0
                made.silence.rows[i * F : i * F + 3 + i] = N
    made.scale_in, made.scale_out = made.scale_in.double(), made.scale_out.double()
    return made


def dense_loss(made: Trainer, x: Tensor, y: Tensor) -> Tensor:
    """The paper's losses over dense activations, with every decoder as one matrix for each pair of layers."""
    d, c = made.dictionary, made.config
    variance = made.variance if made.recipe.share else 1.0
    xs = (x * made.scale_in).split(READS, dim=1)
    ys = (y * made.scale_out).split(WRITES, dim=1)
    pres = [part @ layer.encoder.T + layer.b_enc for part, layer in zip(xs, d, strict=True)]
    pool = torch.cat([pre.flatten() for pre in pres])
    penalty: Any = 0.0
    fs = []
    for part, pre, layer in zip(xs, pres, d, strict=True):
        norms = torch.stack([w.square().sum(1) for w in layer.W_dec.split(WRITES[-len(layer_sites(layer)) :], 1)])
        norms = norms.sum(0).sqrt()
        match c.architecture:
            case "topk":
                f = torch.where(pre >= pre.topk(3).values[:, -1:], pre.relu(), 0.0)
            case "batchtopk" | "matryoshka":
                f = torch.where(pre >= pool.topk(3 * N * len(READS)).values[-1], pre.relu(), 0.0)
            case "relu":
                f = pre.relu()
                penalty = penalty + c.sparsity * (f * norms).sum(1).mean()
            case "jumprelu":
                t, moved = layer.threshold.detach(), layer.threshold - layer.threshold.detach()
                near = ((pre - t).abs() < c.bandwidth / 2).detach().double()
                also = pre - pre.detach() if c.penalty == "tanh" else 0.0
                f = pre * (pre > t) + near * (t / c.bandwidth) * (also - moved)
                if c.penalty == "tanh":
                    penalty = penalty + c.sparsity * torch.tanh(4 * f * norms).sum(1).mean()
                    dead = made.silence.dead()
                    dead = [int(j) - len(fs) * F for j in dead if len(fs) * F <= j < (len(fs) + 1) * F]
                    below = (layer.threshold - part @ layer.encoder.T - layer.b_enc).relu() * norms
                    penalty = penalty + c.pre_act * below[:, dead].sum(1).mean()
                else:
                    l0 = ((pre > t).double() - near / c.bandwidth * moved).sum(1).mean()
                    penalty = penalty + c.sparsity * 2 / c.l0 * (l0 - c.l0) ** 2
        fs.append(f)
    losses = []
    for end in (*c.prefixes, F):
        square = 0.0
        for j, (target, width) in enumerate(zip(ys, WRITES, strict=True)):
            y_hat = d[j].b_dec[:width] + xs[j] @ d[j].W_skip[:, :width]
            for i in range(j + 1):
                first = sum(WRITES[i:j])
                y_hat = y_hat + fs[i][:, :end] @ d[i].W_dec[:end, first : first + width]
            square = square + (target - y_hat).square().sum(1).mean() / variance
            if end == F:
                losses.append((target - y_hat).detach())
        penalty = penalty + square / (len(c.prefixes) + 1)
    if c.architecture in ("topk", "batchtopk"):
        for i, layer in enumerate(d):
            error = torch.cat(losses[i:], dim=1)
            dead = slice(0, 3 + i)
            z = xs[i] @ layer.encoder[dead].T + layer.b_enc[dead]
            k = min(c.dead_latents_used(WRITES[i]), 3 + i)
            z = torch.where(z >= z.topk(k).values[:, -1:], z.relu(), 0.0)
            share = (z @ layer.W_dec[dead] - error).square().sum() / error.square().sum()
            penalty = penalty + c.aux_coef * share / len(READS)
    return penalty


def layer_sites(layer: Any) -> tuple[int, ...]:
    return next(WRITES[i:] for i in range(len(WRITES)) if sum(WRITES[i:]) == layer.d_out)


@pytest.mark.parametrize("places", ["sparse", "dense"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_dense_autograd(name: str, places: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "DENSE", {"sparse": 2.0, "dense": 0.0}[places])
    made, (x, y) = trainer(CONFIGS[name]), rows()
    found: dict[str, Tensor] = {}
    monkeypatch.setattr(
        made, "_update", lambda _: found.update({n: p.grad.clone() for n, p in made.dictionary.named_parameters()})
    )
    names, parameters = zip(*made.dictionary.named_parameters(), strict=True)
    loss = dense_loss(made, x, y)
    truth = dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))
    report = made.step(x, y)
    assert report.l0 > 0
    assert report.dead == (12 if CONFIGS[name].dead_after_tokens else 0)
    for parameter, gradient in truth.items():
        expected = torch.zeros_like(found[parameter]) if gradient is None else gradient
        assert torch.allclose(found[parameter], expected, rtol=0, atol=1e-10), parameter
    assert min(float(g.abs().max()) for n, g in found.items() if "threshold" not in n) > 1e-4


def test_the_largest_latents_of_all_layers_together() -> None:
    g = torch.Generator().manual_seed(0)
    xs = [torch.randn(50, 8, generator=g) * scale for scale in (1.0, 3.0)]
    weights, biases = [torch.randn(30, 8, generator=g) for _ in xs], [torch.randn(30, generator=g) for _ in xs]
    pres = torch.stack([x @ w.T + b for x, w, b in zip(xs, weights, biases, strict=True)])
    wanted = pres >= pres.flatten().topk(2 * 100).values[-1]
    for guess in (None, 0.0, 1.0, 99.0):
        for quick in (False, True):
            found, least = joint_top_patterns(xs, weights, biases, 2, guess, quick=quick)
            assert least == pytest.approx(float(pres[wanted].min()), rel=1e-5)
            for pattern, mask in zip(found, wanted, strict=True):
                assert torch.equal(pattern.row_of * 30 + pattern.index, mask.flatten().nonzero()[:, 0])
                assert pattern.pre is not None
    ties = [torch.ones(4, 1)] * 2
    found, _ = joint_top_patterns(ties, [torch.ones(3, 1)] * 2, [torch.zeros(3)] * 2, 1)
    assert [len(p.index) for p in found] == [8, 0]  # as many as were asked for, though all are equal


SITES = {"reads": ["in.0", "in.1", "in.2"], "writes": ["out.0", "out.1", "out.2"]}


@pytest.fixture(scope="module")
def planted() -> tuple[TensorRows, list[Tensor]]:
    """Features that can be read at every layer, and that each write along a direction of every site's own."""
    g = torch.Generator().manual_seed(0)
    n, d, features = 6000, 16, 16
    active = (torch.rand(n, features, generator=g) < 3 / 16) * (1 + torch.rand(n, features, generator=g))
    sites, writes = {}, []
    for i in range(3):
        for name, scale in (("in", 1.0), ("out", 10.0**i)):
            directions = torch.linalg.qr(torch.randn(features, d, generator=g)).Q
            sites[f"{name}.{i}"] = scale * (active @ directions + 0.01 * torch.randn(n, d, generator=g) + 1)
            if name == "out":
                writes.append(directions)
    return TensorRows(sites), writes


def go(source: TensorRows, config: Any, **other: Any) -> CrossLayer:
    setting: dict[str, Any] = {"tokens": 6000, "batch": 200, "lr": 2e-2, "warmup": 10, "quiet": True}
    return train_cross_layer(source, config, **SITES, **(setting | other))


@pytest.mark.parametrize(
    "config",
    [
        ln.TopK(width=24, k=2), ln.Matryoshka(width=24, k=2), ln.ReLU(width=24, l0=2.0),
        ln.JumpReLU(width=24, l0=2.0, threshold=0.03, bandwidth=0.1),
        ln.JumpReLU(width=24, l0=2.0, penalty="tanh", threshold=0.1, bandwidth=0.5, ramp=1.0),
    ],
    ids=lambda config: f"{config.architecture} {getattr(config, 'penalty', '')}".strip(),
)  # fmt: skip
def test_every_architecture_learns(config: Any, planted: tuple[TensorRows, list[Tensor]]) -> None:
    steps = 150 if hasattr(config, "sparsity") else 40  # a penalty acts slowly
    clt = go(planted[0], config, tokens=200 * steps, lr=1e-2)
    assert clt.report.fvu < 0.9
    assert clt.statistics.l0 > 0.5
    for i in range(3):
        assert torch.allclose(clt[i].W_dec.norm(dim=1), torch.ones(24), atol=1e-4)
        assert not clt[i].b_dec[16:].any()  # a layer's bias is for its own site


def found_in(decoders: list[Tensor], directions: list[Tensor]) -> Tensor:
    """Which latents (rows) are which features (columns): cosine above 0.95 in every one of the sites."""
    cosines = [torch.nn.functional.normalize(w, dim=1) @ truth.T for w, truth in zip(decoders, directions, strict=True)]
    return torch.stack(cosines).min(0).values > 0.95


def test_what_acts_in_several_layers_is_one_latent(planted: tuple[TensorRows, list[Tensor]]) -> None:
    source, directions = planted

    def recipe(sparsity: float) -> Any:
        return ln.JumpReLU(width=40, penalty="tanh", sparsity=sparsity, ramp=1.0, threshold=0.1, bandwidth=0.5)

    setting: dict[str, Any] = {"tokens": 40_000, "batch": 200, "lr": 1e-2, "warmup": 10, "quiet": True}
    clt = train_cross_layer(source, recipe(1.0), **SITES, **setting)
    hits = found_in([clt.decoder(0, j) for j in range(3)], directions)
    assert int(hits.any(0).sum()) >= 13  # of 16
    assert int(hits.sum()) <= 17  # once each
    later = [found_in([clt.decoder(i, j) for j in range(i, 3)], directions[i:]).any(0) for i in (1, 2)]
    assert not (hits.any(0) & (later[0] | later[1])).any()
    assert clt.statistics is not None
    assert clt.statistics.l0 == pytest.approx(3, abs=0.4)  # as many as there are features in a row
    assert max(clt.statistics.fvus) < 0.2
    for j in (1, 2):  # a transcoder of one layer needs latents of its own for the same features
        one = train(source, recipe(0.4), site=f"in.{j}", target=f"out.{j}", **setting)
        assert int(found_in([one.W_dec], [directions[j]]).any(0).sum()) >= 13
        assert one.report.l0 == pytest.approx(3, abs=0.6)


def test_statistics_are_those_of_brute_force(planted: tuple[TensorRows, list[Tensor]], tmp_path: Path) -> None:
    source, _ = planted
    clt = go(source, ln.TopK(width=24, k=2), tokens=2000, skip=True, out=tmp_path)
    table = {name: torch.cat([part[name] for part in source.held_out(10**9)]).double() for name in source.sites}
    fs = []
    for layer, site in zip(clt, SITES["reads"], strict=True):
        pre = table[site] @ layer.W_enc.double() + layer.b_enc.double()
        ranked = pre * layer.rank
        fs.append(torch.where(ranked >= ranked.topk(2).values[:, -1:], pre.relu(), 0.0))
    error, total = [], []
    for j, site in enumerate(SITES["writes"]):
        y_hat = clt[j].b_dec[:16].double() + table[SITES["reads"][j]] @ clt[j].W_skip[:, :16].double()
        y_hat = y_hat + sum(fs[i] @ clt.decoder(i, j).double() for i in range(j + 1))
        error.append((table[site] - y_hat).square().sum())
        total.append((table[site] - table[site].mean(0)).square().sum())
    s = clt.statistics
    assert s is not None
    assert s.fvus == pytest.approx([float(e / t) for e, t in zip(error, total, strict=True)], rel=1e-4)
    assert s.fvu == pytest.approx(float(sum(error) / sum(total)), rel=1e-4)
    assert clt[1].statistics.fvu == pytest.approx(float(sum(error[1:]) / sum(total[1:])), rel=1e-4)
    assert s.l0s == pytest.approx([float((f > 0).sum(1).double().mean()) for f in fs], abs=1e-9)
    assert s.l0 == pytest.approx(sum(s.l0s))
    assert s.dead_shares == pytest.approx([float((f == 0).all(0).double().mean()) for f in fs])
    again = ln.load_cross_layer(tmp_path)
    assert again.statistics == s
    assert (again.reads, again.writes) == (tuple(SITES["reads"]), tuple(SITES["writes"]))
    x = {name: table[name].float() for name in SITES["reads"]}
    assert all(torch.equal(a, b) for a, b in zip(clt.reconstruct(x), again.reconstruct(x), strict=True))
    assert not torch.is_grad_enabled() or not any(p.requires_grad for p in again.parameters())
    one = ln.load_dictionary(tmp_path / "layer_1")
    assert (one.site, one.target) == ("in.1", "out.1+out.2")
    assert torch.equal(one.encode(x["in.1"]).dense(), again.encode(x)[1].dense())
    with pytest.raises(DictionaryError, match=r"Load it with ln\.load_cross_layer, or one layer"):
        ln.load_dictionary(tmp_path)
    assert verify_folder(tmp_path).whole
    weights = tmp_path / "layer_2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert [f.file for f in verify_folder(tmp_path).findings] == ["layer_2/weights.safetensors"]
    with pytest.raises(FileFormatError, match="layer_2"):
        ln.load_cross_layer(tmp_path)


def test_stopped_and_continued(planted: tuple[TensorRows, list[Tensor]], tmp_path: Path) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    setting: dict[str, Any] = {"config": ln.BatchTopK(width=24, k=1), "tokens": 3000, "ema": 0.9, "skip": True}
    whole = go(planted[0], **setting)
    with pytest.raises(Interrupted, match="Stopped by SIGTERM at step 7 of 15"):
        go(planted[0], **setting, out=tmp_path, callback=stop)
    again = go(planted[0], **setting, out=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    third = go(planted[0], **setting, out=tmp_path)  # finished: read back
    assert third.report.fvu == again.report.fvu
    assert third.statistics == again.statistics


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"reads": ["in.0"], "writes": ["out.0", "out.1"]}, UsageError, "not 1 and 2"),
        ({"config": ln.Gated(width=24, l0=1.0)}, DictionaryError, "Gated latents cannot"),
    ],
)
def test_what_cannot_be(setting: Any, error: Any, words: str, planted: tuple[TensorRows, list[Tensor]]) -> None:
    with pytest.raises(error, match=words):
        train_cross_layer(planted[0], **({"config": ln.TopK(width=24, k=2), **SITES} | setting))


def test_codes_and_layers_that_do_not_fit() -> None:
    clt = new_cross_layer(ln.TopK(width=8, k=2), (4, 4), (3, 3))
    with pytest.raises(DictionaryError, match="reads 2 sites, not 1"):
        clt.encode([torch.zeros(1, 4)])
    with pytest.raises(DictionaryError, match="Codes of 1 layers do not fit 2"):
        clt.decode(clt.encode([torch.zeros(1, 4)] * 2)[:1])
    with pytest.raises(DictionaryError, match="1 sites read and 2 written"):
        new_cross_layer(ln.TopK(width=8, k=2), (4,), (3, 3))
    with pytest.raises(DictionaryError, match="do not make a cross-layer transcoder"):
        CrossLayer([clt[1], clt[0]])
