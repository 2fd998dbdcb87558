"""A step's gradients against dense autograd in float64, written out from the papers, for every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lensing as ln
from lensing.dictionary import kernels
from lensing.training import step as stepping
from lensing.training.step import Trainer

D, F, N = 12, 40, 300
CONFIGS: dict[str, Any] = {
    "topk": ln.TopK(width=F, k=4, dead_after_tokens=N),
    "batchtopk": ln.BatchTopK(width=F, k=4, dead_after_tokens=N),
    "topk in prefixes": ln.TopK(width=F, k=4, prefixes=(5, 17)),
    "matryoshka": ln.Matryoshka(width=F, k=4),
    "relu": ln.ReLU(width=F, sparsity=0.7, ramp=0.0),
    "relu, unit rows": ln.ReLU(width=F, sparsity=0.1, ramp=0.0, unit_rows=True),
    "gated": ln.Gated(width=F, sparsity=0.2, ramp=0.0),
    "jumprelu": ln.JumpReLU(width=F, sparsity=0.02, ramp=0.0, threshold=0.2, bandwidth=0.3),
    "jumprelu, quadratic": ln.JumpReLU(
        width=F, sparsity=0.02, l0=5.0, ramp=0.0, penalty="quadratic", threshold=0.2, bandwidth=0.3, frequency=0.1
    ),
    "jumprelu, tanh": ln.JumpReLU(
        width=F, sparsity=0.3, ramp=0.0, penalty="tanh", threshold=0.3, bandwidth=0.5, pre_act=0.1, dead_after_tokens=N
    ),
}
WIRINGS: dict[str, dict[str, Any]] = {"autoencoder": {}, "crosscoder": {"parts": (4, 8)}, "skip": {"skip": True}}


def data(wiring: str) -> tuple[Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(N, D, generator=g, dtype=torch.float64) + 0.5
    y = torch.randn(N, 7, generator=g, dtype=torch.float64) + x[:, :7] if wiring == "skip" else None
    return x, y


def trainer(config: Any, wiring: str) -> Trainer:
    x, y = data(wiring)
    made = Trainer(
        config, D, d_out=None if y is None else 7, steps=100, batch=N, lr=1e-3, warmup=1, seed=0, **WIRINGS[wiring]
    )
    made.start(x.float(), None if y is None else y.float())
    g = torch.Generator().manual_seed(4)
    d = made.dictionary.double()
    with torch.no_grad():
        for name, parameter in d.named_parameters():
            if name != "threshold":
                parameter += 0.2 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
        if config.dead_after_tokens:
            d.b_enc[:9] = -9.0  # some are dead
            made.silence.rows[:9] = N
    made.scale_in, made.scale_out = made.scale_in.double(), made.scale_out.double()
    return made


def dense_loss(made: Trainer, x: Tensor, y: Tensor | None) -> Tensor:
    """The papers' losses, over dense activations."""
    d: Any = made.dictionary
    c = made.config
    x = x * made.scale_in
    y = x if y is None else y * made.scale_out
    centred = x - d.b_dec if d.centred else x
    pre = centred @ d.encoder.T + d.b_enc
    penalty: Any = 0.0
    variance = made.variance if made.recipe.share else 1.0
    rest = d.b_dec + (x @ d.W_skip if d.W_skip is not None else 0.0)
    match c.architecture:
        case "topk":
            f = torch.where(pre >= pre.topk(4).values[:, -1:], pre.relu(), 0.0)
        case "batchtopk" | "matryoshka":
            f = torch.where(pre >= pre.flatten().topk(4 * N).values[-1], pre.relu(), 0.0)
        case "relu":
            f = pre.relu()
            penalty = c.sparsity * (f * d.W_dec.norm(dim=1)).sum(1).mean()
        case "gated":
            f = (pre > 0) * ((pre - d.b_enc) * d.r_mag.exp() + d.b_mag).relu()
            gate = pre.relu()
            penalty = c.sparsity * (gate * d.W_dec.norm(dim=1)).sum(1).mean()
            penalty = penalty + (y - gate @ d.W_dec.detach() - rest.detach()).square().sum(1).mean()
        case "jumprelu":
            t, moved = d.threshold.detach(), d.threshold - d.threshold.detach()
            near = ((pre - t).abs() < c.bandwidth / 2).detach().double()
            also = pre - pre.detach() if c.penalty == "tanh" else 0.0
            f = pre * (pre > t) + near * (t / c.bandwidth) * (also - moved)
            fires = (pre > t).double() - near / c.bandwidth * moved
            l0, norms, dead = fires.sum(1).mean(), d.W_dec.norm(dim=1), made.silence.dead()
            if c.penalty == "tanh":
                penalty = c.sparsity * torch.tanh(4 * f * norms).sum(1).mean()
                below = (d.threshold - centred.detach() @ d.encoder.T - d.b_enc).relu() * norms
                penalty = penalty + c.pre_act * below[:, dead].sum(1).mean()
            else:
                penalty = c.sparsity * (l0 if c.penalty == "linear" else 2 / c.l0 * (l0 - c.l0) ** 2)
            penalty = penalty + c.frequency * (fires.mean(0) - 0.1).relu().sum()
    ends = (*c.prefixes, F)
    parts = [(y - (f[:, :end] @ d.W_dec[:end] + rest)).square().sum(1).mean() / variance for end in ends]
    error = (y - (f @ d.W_dec + rest)).detach()
    dead = made.silence.dead()
    if len(dead) and c.architecture in ("topk", "batchtopk"):
        z = centred.detach() @ d.encoder[dead].T + d.b_enc[dead]
        k = min(c.dead_latents_used(d.d_out), len(dead))
        z = torch.where(z >= z.topk(k).values[:, -1:], z.relu(), 0.0)
        penalty = penalty + c.aux_coef * (z @ d.W_dec[dead] - error).square().sum() / error.square().sum()
    return torch.stack(parts).mean() + penalty


@pytest.mark.parametrize("places", ["sparse", "dense", "parts"])
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_dense_autograd(
    name: str, wiring: str, places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "DENSE", {"sparse": 2.0, "dense": 0.0, "parts": 0.1}[places])
    monkeypatch.setattr(kernels, "DENSE_BYTES", 64 * F * 8)
    config = CONFIGS[name]
    made, (x, y) = trainer(config, wiring), data(wiring)
    if places == "parts" and getattr(config, "penalty", "") != "quadratic":  # that one asks for the whole batch's L0
        monkeypatch.setattr(stepping, "PLACES", 100 * F)
    found: dict[str, Tensor] = {}
    monkeypatch.setattr(
        made, "_update", lambda _: found.update({n: p.grad.clone() for n, p in made.dictionary.named_parameters()})
    )
    loss = dense_loss(made, x, y)
    names, parameters = zip(*made.dictionary.named_parameters(), strict=True)
    truth = dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))
    report = made.step(x, y)
    assert report.l0 > 0
    for parameter, gradient in truth.items():
        expected = torch.zeros_like(found[parameter]) if gradient is None else gradient
        assert torch.allclose(found[parameter], expected, rtol=0, atol=1e-10), parameter
    assert any(float(g.abs().max()) > 1e-4 for g in found.values())
