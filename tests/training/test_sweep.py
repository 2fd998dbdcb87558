"""A sweep: what its grid means, that each member is as if alone, and that one's end is not the others'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lensing as ln
from lensing.dictionary.load import load_dictionary
from lensing.errors import Interrupted, TrainingError, UnknownNameError, UsageError
from lensing.training.checkpoint import CHECKPOINT, read_checkpoint
from lensing.training.folder import SomeFailed
from lensing.training.grid import expand
from lensing.training.job import Job
from lensing.training.loop import train_many

SHORT: dict[str, Any] = {"tokens": 3000, "batch": 100, "quiet": True}


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return (
        torch.randn(4000, 12, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.linspace(0.2, 2, 12)) + 1
    )


def _same(a: Any, b: Any) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_every_combination_is_a_member_named_by_what_tells_it_apart() -> None:
    jobs = expand(
        [{"architecture": ["topk", "batchtopk"], "k": [2, 4]}, {"architecture": "relu", "l0": 3.0}],
        {"width": [16, 32], "lr": 1e-3},
    )
    assert list(jobs) == [
        "topk-w16-k2", "topk-w16-k4", "topk-w32-k2", "topk-w32-k4", "batchtopk-w16-k2", "batchtopk-w16-k4",
        "batchtopk-w32-k2", "batchtopk-w32-k4", "relu-w16-l0_3", "relu-w32-l0_3",
    ]  # fmt: skip
    assert jobs["relu-w32-l0_3"].config == ln.ReLU(width=32, l0=3.0)
    assert {job.lr for job in jobs.values()} == {1e-3}
    assert list(expand([{"architecture": "topk", "width": 16, "k": 2}])) == ["topk"]
    sites = expand([{"architecture": "topk", "width": 8, "k": 2, "site": ["mlp_in.0", "module:a.b"], "seed": [0, 1]}])
    assert list(sites) == ["mlp_in.0-seed0", "mlp_in.0-seed1", "module=a.b-seed0", "module=a.b-seed1"]
    nested = expand([{"architecture": "topk", "width": 16, "k": 2, "prefixes": [[4], [4, 8]]}])
    assert [job.config.prefixes for job in nested.values()] == [(4,), (4, 8)]


@pytest.mark.parametrize(
    ("grid", "error", "said"),
    [
        ({"architecture": "topq", "width": 8, "k": 2}, UnknownNameError, "Did you mean 'topk'"),
        ({"width": 8, "k": 2}, UsageError, "needs an architecture"),
        ({"architecture": "topk", "widht": 8, "k": 2}, UnknownNameError, "Did you mean 'width'"),
        ({"architecture": "topk", "width": 8, "k": 2, "l0": 3.0}, UnknownNameError, "setting of topk named 'l0'"),
        ({"architecture": "topk", "width": [8, "16"], "k": 2}, UsageError, "width is '16'. Give a whole number"),
        ({"architecture": "topk", "width": [8, 16], "k": 9}, UsageError, "w8 cannot be: k is 9, outside 1 to"),
        ({"architecture": "topk", "width": 8}, UsageError, "topk lacks k"),
        ({"architecture": "topk", "width": [8, 8], "k": 2}, UsageError, "Two members of the sweep are alike"),
        ({"architecture": "topk", "width": [], "k": 2}, UsageError, "width has no value"),
    ],
)
def test_a_grid_that_cannot_be(grid: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        expand([grid])
    assert said in str(caught.value)


def test_each_member_is_as_if_it_were_trained_alone(rows: torch.Tensor, tmp_path: Path) -> None:
    grid = {"architecture": ["topk", "batchtopk"], "width": [24, 48], "k": 3, "lr": 2e-3}
    report = ln.sweep(rows, grid, out=tmp_path, **SHORT)
    for member in report.members:
        alone = ln.train(rows, member.job.config, lr=2e-3, **SHORT)
        assert _same(report.dictionaries[member.name], alone), member.name
        assert _same(load_dictionary(tmp_path / member.name), alone)
        assert member.report is not None
        assert (member.report.fvu, member.report.l0) == (alone.report.fvu, alone.report.l0)
    table = json.loads((tmp_path / "sweep.json").read_text())
    assert table == json.loads(json.dumps(report.to_json()))
    assert [member["name"] for member in table["members"]] == [member.name for member in report.members]
    own = sum(member["step_seconds"] for member in table["members"])
    assert own + table["reading_seconds"] <= table["seconds"]


def test_a_finished_sweep_is_handed_back_and_a_stopped_one_goes_on(rows: torch.Tensor, tmp_path: Path) -> None:
    jobs = {"a": Job(config=ln.TopK(width=24, k=3)), "b": Job(config=ln.ReLU(width=24, l0=3.0), seed=1)}

    def stop(name: str, report: Any) -> None:
        if report.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train_many(rows, jobs, out=tmp_path, callback=stop, **SHORT)
    report = ln.sweep(rows, jobs, out=tmp_path, **SHORT)
    whole = ln.sweep(rows, jobs, **SHORT)
    assert all(_same(report.dictionaries[name], whole.dictionaries[name]) for name in jobs)
    assert ln.sweep(rows, jobs, out=tmp_path, **SHORT).to_json() == report.to_json()


def test_one_that_fails_is_stopped_and_the_others_are_as_if_alone(
    rows: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"architecture": "topk", "width": 24, "k": 3, "lr": [1e-3, 1e9]}
    report = ln.sweep(rows, grid, out=tmp_path, **SHORT)
    assert "lr1e+09 is stopped, the others go on. Rows 100 to 199" in capsys.readouterr().err
    assert list(report.dictionaries) == ["lr0.001"]
    assert _same(report.dictionaries["lr0.001"], ln.train(rows, ln.TopK(width=24, k=3), lr=1e-3, **SHORT))
    failure = report.failures["lr1e+09"]
    assert (failure.step, failure.rows) == (1, (100, 199))
    assert "Lower the learning rate" in failure.reason
    folder = tmp_path / "lr1e+09"
    assert not (folder / "config.json").exists()
    assert read_checkpoint(folder / CHECKPOINT)[1]["step"] == 1, "the last good state is kept"
    assert json.loads((folder / "failed.json").read_text()) == failure.to_json()
    again = ln.sweep(rows, grid, out=tmp_path, **SHORT)
    assert again.to_json() == report.to_json(), "it would fail again, and is not tried again"
    assert capsys.readouterr().err == ""
    jobs = {"a": Job(config=ln.TopK(width=24, k=3)), "b": Job(config=ln.TopK(width=24, k=3), lr=1e9)}
    with pytest.raises(SomeFailed, match=r"1 of 2 dictionaries failed, b at step 1: .*The others are made"):
        train_many(rows, jobs, **SHORT)


def test_a_member_that_failed_stays_failed_when_a_sweep_goes_on(rows: torch.Tensor, tmp_path: Path) -> None:
    jobs = {
        "a": Job(config=ln.TopK(width=24, k=3), lr=1e-3),
        "b": Job(config=ln.TopK(width=24, k=3), lr=1e9),
    }

    def stop(name: str, report: Any) -> None:
        if report.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train_many(rows, jobs, out=tmp_path, callback=stop, **SHORT)
    report = ln.sweep(rows, jobs, out=tmp_path, **SHORT)
    assert list(report.failures) == ["b"]
    assert _same(report.dictionaries["a"], ln.train(rows, jobs["a"].config, lr=1e-3, **SHORT))


def test_when_all_fail_the_sweep_does(rows: torch.Tensor, tmp_path: Path) -> None:
    grid = {"architecture": "topk", "width": [24, 48], "k": 3, "lr": 1e9}
    with pytest.raises(TrainingError, match=r"All 2 dictionaries failed. w24: The loss is"):
        ln.sweep(rows, grid, out=tmp_path, **SHORT)
    with pytest.raises(TrainingError, match="2 of 2 dictionaries failed"):
        ln.sweep(rows, grid, out=tmp_path, **SHORT)


def test_rows_are_read_once(rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from lensing.data.rows import TensorRows

    read = []
    batches = TensorRows.batches

    def count(self: TensorRows, batch: int, *, start: int = 0) -> Any:
        for found in batches(self, batch, start=start):
            read.append(batch)
            yield found

    monkeypatch.setattr(TensorRows, "batches", count)
    ln.sweep(rows, {"architecture": "topk", "width": [8, 16, 24], "k": 2}, **SHORT)
    assert read.count(100) == 30
