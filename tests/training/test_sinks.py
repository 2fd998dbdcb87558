"""Sinks get every number, one that is not there is said at once, one that breaks stops nothing."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import lensing as ln
from lensing.errors import LensingError, UnknownNameError, UsageError

SHORT: dict[str, Any] = {"tokens": 1000, "batch": 100, "quiet": True}


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randn(1500, 8, generator=torch.Generator().manual_seed(0))


class Run:
    def __init__(self, opened: dict[str, Any]) -> None:
        self.opened, self.logged, self.ended = opened, [], False

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.logged.append((step, numbers))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A maker of fake libraries whose runs are kept."""

    def make(name: str) -> list[Run]:
        runs: list[Run] = []
        module = types.ModuleType(name)

        def init(**opened: Any) -> Run:
            runs.append(Run(opened))
            return runs[-1]

        module.init = init  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        return runs

    return make


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_point_of_the_history_reaches_a_run(name: str, library: Any, rows: torch.Tensor, tmp_path: Path) -> None:
    runs = library(name)
    sae = ln.train(rows, ln.TopK(width=16, k=2), out=tmp_path / "mine", log=[name], **SHORT)
    (run,) = runs
    assert run.ended
    assert [step for step, _ in run.logged] == list(range(1, 11))
    for (step, numbers), point in zip(run.logged, sae.report.history, strict=True):
        assert {"step": step, **numbers} == point
    assert run.opened["name"].startswith("mine")
    assert run.opened["config"]["architecture"] == "topk"
    assert run.opened["resume"] == "allow"


def test_a_sweep_is_a_group_of_runs_and_a_continued_one_keeps_its_ids(
    library: Any, rows: torch.Tensor, tmp_path: Path
) -> None:
    runs = library("wandb")
    grid = {"architecture": "topk", "width": [8, 16], "k": 2}
    for _ in range(2):
        ln.sweep(rows, grid, out=tmp_path / "grid", log=["wandb"], resume=False, **SHORT)
    assert [run.opened["name"] for run in runs] == ["grid/w8", "grid/w16"] * 2
    assert {run.opened["group"] for run in runs} == {"grid"}
    assert [run.opened["id"] for run in runs[:2]] == [run.opened["id"] for run in runs[2:]]
    assert runs[0].opened["id"] != runs[1].opened["id"]


def test_one_that_breaks_is_left_alone_with_one_warning(
    library: Any, rows: torch.Tensor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, whole = library("wandb"), library("trackio")

    def log(self: Run, numbers: dict[str, float], step: int) -> None:
        if self is runs[0] and step == 3:
            raise ConnectionError("the line is down\nand more")
        self.logged.append((step, numbers))

    monkeypatch.setattr(Run, "log", log)
    sae = ln.train(rows, ln.TopK(width=16, k=2), log=["wandb", "trackio"], **SHORT)
    said = capsys.readouterr().err
    assert said.startswith("lensing: the sink 'wandb' failed at step 3 (the line is down) and gets nothing more.")
    assert said.count("\n") == 1
    assert len(runs[0].logged) == 2
    assert len(whole[0].logged) == 10
    assert sae.report.steps == 10


def test_one_that_cannot_begin_is_said_before_training(
    rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = types.ModuleType("wandb")
    module.init = lambda **_: (_ for _ in ()).throw(RuntimeError("no login"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(LensingError, match=r"sink 'wandb' cannot begin: no login. .*leave --log wandb out"):
        ln.train(rows, ln.TopK(width=16, k=2), log=["wandb"], **SHORT)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UsageError, match=r"needs trackio, which is not installed. .* pip install trackio"):
        ln.train(rows, ln.TopK(width=16, k=2), log=["trackio"], out=tmp_path / "no", **SHORT)
    assert not (tmp_path / "no").exists()
    with pytest.raises(UnknownNameError, match=r"no sink named 'wandbb'. Did you mean 'wandb'"):
        ln.train(rows, ln.TopK(width=16, k=2), log=["wandbb"], **SHORT)


def test_tensorboard_by_a_fake(rows: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, list[Any]] = {}

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            self.mine = written.setdefault(folder, [])
            assert purge_step is None

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.mine.append((name, value, step))

        def close(self) -> None:
            self.mine.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    grid = {"architecture": "topk", "width": [8, 16], "k": 2}
    report = ln.sweep(rows, grid, out=tmp_path, log=["tensorboard"], **SHORT)
    assert sorted(written) == [str(tmp_path / "tensorboard" / name) for name in ("w16", "w8")]
    last = report.dictionaries["w8"].report.history[-1]
    assert ("fvu", last["fvu"], 10) in written[str(tmp_path / "tensorboard" / "w8")]
    assert all(lines[-1] == "closed" for lines in written.values())


def test_tensorboard_itself(rows: torch.Tensor, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sae = ln.train(rows, ln.TopK(width=16, k=2), out=tmp_path, log=["tensorboard"], **SHORT)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("fvu")] == list(range(1, 11))
    assert found.Scalars("l0")[-1].value == pytest.approx(sae.report.history[-1]["l0"])
