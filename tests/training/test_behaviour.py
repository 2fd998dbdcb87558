"""The numbers at the end of a training: what the splice costs, where the model is found, and why there are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lensing as ln
from lensing.errors import UsageError
from lensing.measure.splice_cost import splice_cost
from lensing.model.run import Model

DOCUMENTS = [[4 + (i * j) % 25 for j in range(1, 15)] for i in range(60)]
SHORT: dict[str, Any] = {"tokens": 300, "batch": 50, "quiet": True}


def test_the_report_says_what_splice_cost_says(model: Any) -> None:
    source = ln.live(model, DOCUMENTS, sites=["mlp_out.1", "mlp_in.1"])
    sae = ln.train(source, ln.TopK(width=48, k=4), site="mlp_out.1", **SHORT)
    cost = splice_cost(model, sae, source.held_out_tokens(8192))
    found = sae.report.behaviour
    assert found == {**found, **{key: pytest.approx(value) for key, value in cost.to_json().items() if key != "site"}}
    assert found["documents"] == 3
    assert sae.report.behaviour_note is None
    transcoder = ln.train(source, ln.TopK(width=48, k=4), site="mlp_in.1", target="mlp_out.1", **SHORT)
    assert transcoder.report.behaviour is None
    assert transcoder.report.behaviour_note == "a transcoder does not write the one site that it reads"
    skipped = ln.train(source, ln.TopK(width=48, k=4), site="mlp_out.1", loss_tokens=0, **SHORT)
    assert skipped.report.behaviour_note == "it was not asked for"


def test_a_store_whose_model_is_not_here_says_so_and_takes_it_given(model: Any, make_hf: Any, tmp_path: Any) -> None:
    store = ln.harvest(model, DOCUMENTS, sites="mlp_out.1", out=tmp_path / "acts", dtype="float32", quiet=True)
    alone = ln.train(store, ln.TopK(width=48, k=4), **SHORT).report
    assert alone.behaviour is None
    assert alone.behaviour_note == "tiny-gemma2 is not on this machine: give it as model (--model)"
    given = ln.train(store, ln.TopK(width=48, k=4), model=model, **SHORT).report
    live = ln.train(ln.live(model, DOCUMENTS, sites="mlp_out.1"), ln.TopK(width=48, k=4), **SHORT).report
    found, expected = dict(given.behaviour), dict(live.behaviour)
    assert found.pop("policy") == expected.pop("policy")
    assert found == pytest.approx({**expected, "site": "mlp_out.1"})
    hf = make_hf("gemma2")
    with torch.no_grad():
        next(hf.parameters()).add_(0.1)
    with pytest.raises(UsageError, match="was harvested from tiny-gemma2 with other weights"):
        ln.train(store, ln.TopK(width=48, k=4), model=Model(hf, None, name="other"), **SHORT)


def test_a_tensor_has_no_model() -> None:
    rows = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    report = ln.train(rows, ln.TopK(width=16, k=2), **SHORT).report
    assert (report.behaviour, report.behaviour_note) == (None, "the rows came without held-out text")
    assert report.step_seconds + report.reading_seconds <= report.seconds
    assert report.rows_per_second == report.tokens / report.seconds
