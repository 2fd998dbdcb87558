"""`ln.evaluate` against brute-force numpy on the model's own activations and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.errors import DictionaryError, UsageError
from lensing.measure.peers import POLICIES
from lensing.measure.splice_cost import splice_cost

SITE = "resid_post.1"
DOCUMENTS = ["the reliability of the almanac is very doubtful", "a bird sang by the river", "she said that it was"]


@pytest.fixture
def sae(model: Any) -> Dictionary:
    sae = new_dictionary(ln.TopK(width=80, k=6), model.d_model, seed=1)
    sae.site = SITE
    return sae.requires_grad_(False)


def _losses(logits: torch.Tensor, ids: torch.Tensor) -> np.ndarray:
    z = logits.double().numpy()
    log_p = z - z.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    return -log_p[np.arange(len(ids) - 1), ids[1:].numpy()]


def test_every_number_equals_brute_force(model: Any, sae: Dictionary) -> None:
    found = ln.evaluate(sae, DOCUMENTS, model=model, batch_tokens=12)
    xs, clean, zero, kls, spliced = [], [], [], [], []
    for text in DOCUMENTS:  # one at a time, without padding, without any streaming
        logits, cache = model.run_with_cache(text, sites=[SITE])
        ids, x = cache.ids[0], cache[SITE][0]
        xs.append(x[1:])
        written = x.clone()
        written[1:] = sae.reconstruct(x[1:])
        nothing = torch.zeros_like(x)
        nothing[0] = x[0]
        runs = []
        for value in (written, nothing):
            with model.edit(ln.model.edit.Replace(SITE, value[None])):
                runs.append(model.logits(text)[0])
        clean.append(_losses(logits[0], ids)[1:])  # the prediction made at BOS is not counted
        spliced.append(_losses(runs[0], ids)[1:])
        zero.append(_losses(runs[1], ids)[1:])
        p, q = (run.double().log_softmax(-1)[1:-1] for run in (logits[0], runs[0]))
        kls.append((p.exp() * (p - q)).sum(-1).numpy())
    x = torch.cat(xs)
    y, f = sae.reconstruct(x).double().numpy(), sae.encode(x).dense().double().numpy()
    x = x.double().numpy()
    # activations differ in float32's last bits between a padded batch and a text alone; sums are float64
    near = lambda value: pytest.approx(float(value), rel=2e-5)  # noqa: E731
    assert found.fvu == near(((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())
    assert found.mse == near(((x - y) ** 2).sum(1).mean())
    assert found.l0 == near((f > 0).sum(1).mean())
    assert found.l1 == near(f.sum(1).mean())
    assert found.dead_share == near((f == 0).all(0).mean())
    assert found.alive == int((f > 0).any(0).sum())
    assert sum(found.density_histogram) == 80
    assert found.splice is not None
    assert found.splice.n == sum(map(len, clean))
    assert found.splice.clean == near(np.concatenate(clean).mean())
    assert found.splice.spliced == near(np.concatenate(spliced).mean())
    assert found.splice.zero_ablated == near(np.concatenate(zero).mean())
    assert found.splice.kl == near(np.concatenate(kls).mean())
    assert found.mask.rows == len(x)
    assert found.mask.left_out == len(DOCUMENTS)
    assert found.mask.special == (model.bos_id,)
    record = found.to_json()
    assert record["splice"]["policy"] == {
        "splice_special": False, "ablate_special": False, "count_special": False, "kl_at_end": False,
    }  # fmt: skip
    assert record["explained_variance"] == 1 - found.fvu


def test_the_same_rows_give_the_same_numbers_from_a_tensor(model: Any, sae: Dictionary) -> None:
    with_model = ln.evaluate(sae, DOCUMENTS, model=model)
    rows = torch.cat([model.run_with_cache(text, sites=[SITE])[1][SITE][0, 1:] for text in DOCUMENTS])
    alone = ln.evaluate(sae, rows, peers=True)
    assert alone.fvu == pytest.approx(with_model.fvu, rel=1e-5)
    assert alone.splice is None
    # one batch of all rows: here two other tools agree with ours
    assert alone.peers["sparsify.fvu"] == pytest.approx(alone.fvu, rel=1e-9)
    assert alone.peers["saelens.explained_variance"] == pytest.approx(1 - alone.fvu, rel=1e-9)
    assert alone.peers["openai.normalized_mean_squared_error"] != pytest.approx(alone.fvu, rel=1e-2)


def test_special_positions_change_the_numbers_and_the_mask_says_so(model: Any, sae: Dictionary) -> None:
    without, with_bos = (ln.evaluate(sae, DOCUMENTS, model=model, include_special=flag) for flag in (False, True))
    assert with_bos.mask.rows == without.mask.rows + len(DOCUMENTS)
    assert with_bos.mask.special == ()
    assert with_bos.mask.left_out == 0
    assert with_bos.fvu != without.fvu


def test_each_tools_policy_gives_its_own_losses(model: Any, sae: Dictionary) -> None:
    mean = torch.zeros(model.d_model)
    cost = {name: splice_cost(model, sae, DOCUMENTS, mean=mean, policy=policy) for name, policy in POLICIES.items()}
    assert cost["lensing"].spliced == cost["saelens"].spliced != cost["saebench"].spliced
    assert cost["lensing"].zero_ablated != cost["saelens"].zero_ablated == cost["saebench"].zero_ablated
    assert cost["saelens"].n + len(DOCUMENTS) == cost["dictionary_learning"].n
    assert cost["saelens"].kl != cost["lensing"].kl  # the last position counts there
    found = ln.evaluate(sae, DOCUMENTS, model=model, peers=True).peers
    assert found["saelens.ce_loss_score"] == pytest.approx(cost["saelens"].loss_recovered, rel=1e-9)
    assert found["dictionary_learning.frac_recovered"] == pytest.approx(cost["dictionary_learning"].loss_recovered)


def test_a_transcoder_is_measured_on_what_it_writes_and_not_spliced(model: Any) -> None:
    sae = new_dictionary(ln.TopK(width=40, k=4), model.d_model, d_out=model.d_model, seed=2).requires_grad_(False)
    sae.site, sae.target = "mlp_in.1", "mlp_out.1"
    found = ln.evaluate(sae, DOCUMENTS, model=model)
    target = torch.cat([model.run_with_cache(text, sites=["mlp_out.1"])[1]["mlp_out.1"][0, 1:] for text in DOCUMENTS])
    truth = target.double().square().sum() / (target.double() - target.double().mean(0)).square().sum()
    assert found.fvu == pytest.approx(float(truth), rel=1e-5)  # its decoder begins at zero
    assert found.splice is None
    assert "write" in str(found.not_spliced)


def test_max_rows_ends_with_a_document(model: Any, sae: Dictionary) -> None:
    found = ln.evaluate(sae, DOCUMENTS, model=model, max_rows=9)
    assert found.mask.rows == 8 + 6


def test_what_cannot_be_measured_is_refused(model: Any, sae: Dictionary) -> None:
    with pytest.raises(UsageError, match="documents without a model"):
        ln.evaluate(sae, DOCUMENTS)
    with pytest.raises(UsageError, match="a model with rows"):
        ln.evaluate(sae, torch.randn(4, model.d_model), model=model)
    with pytest.raises(DictionaryError, match="has 32"):
        ln.evaluate(_wide(), DOCUMENTS, model=model)
    with pytest.raises(UsageError, match="no row"):
        ln.evaluate(sae, TensorRows(torch.randn(4, model.d_model), held_out=0))
    sae.target = "mlp_out.1"
    with pytest.raises(UsageError, match="no site"):
        ln.evaluate(sae, TensorRows({SITE: torch.randn(40, model.d_model)}))


def _wide() -> Dictionary:
    sae = new_dictionary(ln.TopK(width=8, k=2), 48)
    sae.site = SITE
    return sae


def test_the_command_prints_the_numbers(tmp_path: Path, capsys: Any, model_folder: Any, model: Any, sae: Any) -> None:
    import json

    from lensing.__main__ import main

    sae.save(tmp_path / "sae")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(DOCUMENTS))
    command = ["evaluate", str(tmp_path / "sae"), "--model", str(model_folder("gemma2")), "--text", str(text)]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["fvu"] == pytest.approx(ln.evaluate(sae, DOCUMENTS, model=model).fvu, rel=1e-5)
    assert main([*command, "--peers"]) == 0
    shown = capsys.readouterr().out
    assert "saebench.explained_variance" in shown
    assert "not spliced, not ablated, not counted" in shown
    assert main(command[:2]) == 2
    assert "names no model" in capsys.readouterr().err
    assert main([*command, "--tokens", "0"]) == 2
