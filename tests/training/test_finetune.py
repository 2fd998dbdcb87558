"""End-to-end fine-tuning: gradients against a hooked dense model, what it gains, what it remembers, what it refuses."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lensing as ln
from lensing.dictionary.base import Dictionary
from lensing.errors import DictionaryError, Interrupted, UsageError
from lensing.measure.splice_cost import splice_cost
from lensing.model.run import Model
from lensing.training.finetune import continued, finetune, finetune_step, plan_steps
from lensing.training.loop import train

SITE, WIDTH = "resid_post.1", 48
CONFIGS: dict[str, Any] = {
    "topk": ln.TopK(width=WIDTH, k=4),
    "batchtopk": ln.BatchTopK(width=WIDTH, k=4),
    "relu": ln.ReLU(width=WIDTH, sparsity=0.5),
    "jumprelu": ln.JumpReLU(width=WIDTH, sparsity=0.02, threshold=0.1, bandwidth=0.1),
}


def texts(n: int = 60, length: int = 20) -> list[list[int]]:
    g = torch.Generator().manual_seed(1)
    return [torch.randint(4, 38, (length + i % 3,), generator=g).tolist() for i in range(n)]


@pytest.fixture(scope="module")
def llama(make_model: Callable[[str], Model]) -> Model:
    return make_model("llama")


def small(model: Model, config: Any, tokens: int = 4000) -> Dictionary:
    source = ln.live(model, texts(), sites=SITE)
    return train(source, config, tokens=tokens, batch=200, lr=3e-3, warmup=2, quiet=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_a_hooked_dense_model(
    name: str, make_hf: Callable[[str], Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = make_hf("gemma2").double()
    model = Model(hf, tokenizer, name="tiny")
    tokens = model.encode(texts(6))
    x = model.run_with_cache(tokens, sites=[SITE])[1][SITE][~tokens.special]
    t = continued(small_like(CONFIGS[name], x.float()), x.float(), steps=10, batch=100, lr=1e-3)
    t.scale_in, t.scale_out = t.scale_in.double(), t.scale_out.double()
    d: Any = t.dictionary.double()
    found: dict[str, Tensor] = {}
    monkeypatch.setattr(t, "_update", lambda _: found.update({n: p.grad.clone() for n, p in d.named_parameters()}))

    beta, kept = 0.7, {}

    def hook(module: Any, args: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        rows = h.detach()[~tokens.special] * t.scale_in
        pre = (rows - d.b_dec if d.centred else rows) @ d.encoder.T + d.b_enc
        penalty: Any = 0.0
        if name == "topk":
            f = torch.where(pre >= pre.topk(4).values[:, -1:], pre.relu(), 0.0)
        elif name == "batchtopk":
            f = torch.where(pre >= pre.flatten().topk(4 * len(pre)).values[-1], pre.relu(), 0.0)
        elif name == "relu":
            f = pre.relu()
            penalty = 0.5 * (f * d.W_dec.norm(dim=1)).sum(1).mean()
        else:
            edge, moved = d.threshold.detach(), d.threshold - d.threshold.detach()
            near = ((pre - edge).abs() < 0.05).detach().double()
            f = pre * (pre > edge) - near * edge / 0.1 * moved
            penalty = 0.02 * ((pre > edge).double() - near / 0.1 * moved).sum(1).mean()
        rebuilt = f @ d.W_dec + d.b_dec
        kept["loss"] = (rows - rebuilt).square().sum(1).mean() / (t.variance if t.recipe.share else 1.0)
        kept["penalty"] = penalty
        h = h.detach().clone()
        h[~tokens.special] = rebuilt / t.scale_in
        return (h, *output[1:]) if isinstance(output, tuple) else h

    with torch.no_grad():
        p = hf(input_ids=tokens.ids).logits[~tokens.special].softmax(-1)
    handle = hf.model.layers[1].register_forward_hook(hook)
    q = hf(input_ids=tokens.ids).logits[~tokens.special].softmax(-1)
    handle.remove()
    kl = (p * (p.log() - q.log())).sum(1).mean()
    ratio = float(kept["loss"].detach()) / (float(kl.detach()) + 1e-8)
    loss = (kept["loss"] + ratio * beta * kl) / (1 + beta) + kept["penalty"]
    names, parameters = zip(*d.named_parameters(), strict=True)
    truth = dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))

    report, divergence = finetune_step(t, model, tokens, SITE, beta)
    assert divergence == pytest.approx(float(kl.detach()), rel=1e-9)
    assert divergence > 1e-3
    assert report.l0 > 1
    for parameter, gradient in truth.items():
        assert torch.allclose(found[parameter], gradient, rtol=0, atol=1e-10), parameter
        assert float(gradient.abs().max()) > 1e-6
    assert not any(p.requires_grad or p.grad is not None for p in hf.parameters())


def small_like(config: Any, x: Tensor) -> Dictionary:
    return train(x, config, tokens=1000, batch=100, lr=3e-3, warmup=2, quiet=True)


def test_what_a_splice_costs_falls_and_reconstruction_stays(llama: Model) -> None:
    sae = small(llama, CONFIGS["batchtopk"], tokens=10_000)
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    tuned = finetune(sae, llama, texts(), tokens=10_000, batch=200, lr=3e-3, quiet=True)
    r = tuned.report
    assert all(torch.equal(before[name], tensor) for name, tensor in sae.state_dict().items())
    assert r.fvu_before == pytest.approx(sae.report.fvu, rel=1e-6)  # the same documents are held out
    assert r.l0_before == pytest.approx(sae.report.l0, rel=1e-6)
    assert r.after.kl < 0.9 * r.before.kl
    assert r.after.loss_recovered > r.before.loss_recovered
    assert r.fvu < 1.1 * r.fvu_before
    assert r.history[-1]["l0"] == 4
    assert r.l0 == pytest.approx(r.l0_before, rel=0.5)  # the threshold follows in hundreds of steps
    assert torch.allclose(tuned.W_dec.norm(dim=1), torch.ones(WIDTH), atol=1e-4)
    held = ln.live(llama, texts(), sites=SITE).held_out_tokens(20_000)
    assert tuned.statistics is not None
    assert r.after.kl == pytest.approx(splice_cost(llama, tuned, held).kl, rel=1e-6)


def test_a_trainer_goes_on_from_where_a_dictionary_is(llama: Model) -> None:
    source = ln.live(llama, texts(), sites=SITE)
    x = next(source.batches(500))[SITE]
    for config in CONFIGS.values():
        sae = train(source, config, tokens=2000, batch=200, lr=3e-3, warmup=2, quiet=True, dtype=torch.bfloat16)
        trainer = continued(sae, x, steps=10, batch=200, lr=None)
        assert trainer.step(x).l0 > 1
        trainer = continued(sae, x, steps=10, batch=200, lr=None)
        trainer.finish(torch.float32)
        assert (trainer.dictionary.reconstruct(x) - sae.reconstruct(x)).norm() < 0.02 * x.norm()


@pytest.mark.parametrize("name", ["batchtopk", "jumprelu"])
def test_stopped_and_continued(name: str, llama: Model, tmp_path: Path) -> None:
    def stop(report: Any, divergence: float) -> None:
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    sae = small(llama, CONFIGS[name], tokens=1000)
    setting: dict[str, Any] = {"tokens": 1200, "batch": 150, "quiet": True}
    whole = finetune(sae, llama, texts(), **setting)
    with pytest.raises(Interrupted, match=r"Stopped by SIGTERM at step 3 of 9; the checkpoint is"):
        finetune(sae, llama, texts(), **setting, out=tmp_path, callback=stop)
    with pytest.raises(UsageError, match=r"belongs to another run \(beta was 1.0, is 2.0\)"):
        finetune(sae, llama, texts(), **setting, out=tmp_path, beta=2.0)
    again = finetune(sae, llama, texts(), **setting, out=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    third = finetune(sae, llama, texts(), **setting, out=tmp_path)  # finished: read back
    assert third.report.to_json() == again.report.to_json()
    assert ln.load_dictionary(tmp_path).site == SITE
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, again.report.steps + 1))
    assert sum(json.loads(line)["kl"] > 0 for line in lines) == again.report.steps


def test_whole_documents_a_step() -> None:
    rows = [5, 7, 3, 9, 1]
    plan = plan_steps(rows, 10, 60, seed=3)
    sums = [sum(rows[i] for i in step) for step in plan]
    assert sum(sums) >= 60 > sum(sums[:-1])
    pieces = [i for step in plan for i in step]
    for epoch in (pieces[:5], pieces[5:10]):
        assert sorted(epoch) == list(range(5))
    for step in plan[:-1]:  # as few documents as make ten rows, or the last of an epoch
        assert sum(rows[i] for i in step[:-1]) < 10
        assert sum(rows[i] for i in step) >= 10 or step[-1] in (pieces[4], pieces[9])
    assert plan == plan_steps(rows, 10, 60, seed=3) != plan_steps(rows, 10, 60, seed=4)
    assert plan_steps(rows, 10, 1, seed=3) == [[pieces[0]]]


def test_what_cannot_be(llama: Model) -> None:
    sae = small(llama, ln.ReLU(width=WIDTH, l0=4.0), tokens=400)
    sae.report = None
    with pytest.raises(UsageError, match="Give sparsity="):
        finetune(sae, llama, texts())
    with pytest.raises(UsageError, match="beta 0"):
        finetune(sae, llama, texts(), sparsity=0.1, beta=0)
    with pytest.raises(UsageError, match="Nothing is held out"):
        finetune(sae, llama, texts(), sparsity=0.1, held_out=0.0)
    source = ln.live(llama, texts(), sites=["mlp_in.1", "mlp_out.1"])
    transcoder = train(source, CONFIGS["topk"], site="mlp_in.1", target="mlp_out.1", tokens=400, batch=200, quiet=True)
    with pytest.raises(DictionaryError, match="cannot be fine-tuned end to end"):
        finetune(transcoder, llama, texts())
