"""Training survives what happens to machines: kills and full disks at every write, flipped bytes, clocks that jump."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import every_write, names, needs_fork

import lensing as ln
from lensing.errors import FileFormatError, Interrupted, LensingError, UsageError
from lensing.training.checkpoint import BEFORE, CHECKPOINT, latest_checkpoint, read_checkpoint

resource = pytest.importorskip("resource")  # limits of a process: not on Windows

CONFIG = ln.BatchTopK(width=12, k=2)


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + 1


def _train(source: Any, out: Path | None, **other: Any) -> Any:
    setting: dict[str, Any] = {"tokens": 240, "batch": 80, "lr": 3e-3, "quiet": True, "checkpoint_minutes": 0}
    return ln.train(source, CONFIG, out=out, **(setting | other))


def _outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, without how long it took."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in sorted(names(folder))}
    record = json.loads(found["config.json"])
    for name in ("seconds", "step_seconds", "reading_seconds"):
        record["training"].pop(name)
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    without = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    found.pop("run.json")  # versions and the command line
    return {**found, "config.json": record, "metrics.jsonl": without}


@pytest.fixture(scope="module")
def undisturbed(rows: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    _train(rows, folder)
    assert set(names(folder)) == {
        "config.json", "metrics.jsonl", "run.json", "statistics.safetensors", "weights.safetensors"
    }  # fmt: skip
    return _outcome(folder)


def _no_half(folder: Path) -> None:
    """Every file that has its final name is whole."""
    for name in (CHECKPOINT, BEFORE):
        if (folder / name).exists():
            read_checkpoint(folder / name)
    if (folder / "config.json").exists():
        ln.load_dictionary(folder)


@needs_fork
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_fault_at_every_write(fault: Any, rows: torch.Tensor, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    tried = 0
    for n, folder in every_write(lambda out: _train(rows, out), tmp_path, fault):
        if folder.exists():
            _no_half(folder)
        _train(rows, folder)
        assert _outcome(folder) == undisturbed, f"write {n}"
        assert {p.name for p in folder.iterdir()} == {*undisturbed, "run.json"}, f"write {n}"
        shutil.rmtree(folder)
        tried += 1
    assert tried > {"kill": 40, "full": 20}[fault], "checkpoints at each of three steps, and the finished files"


@needs_fork
def test_killed_at_three_random_moments(rows: torch.Tensor, tmp_path: Path) -> None:
    threads, draw = torch.get_num_threads(), random.Random(11)
    torch.set_num_threads(1)  # a copied process has none of the threads of the first
    killed = 0
    try:
        _train(rows, tmp_path / "whole", tokens=4000)
        started = time.monotonic()  # of a second run: what the first one loads, copies have
        _train(rows, tmp_path / "again", tokens=4000)
        took = time.monotonic() - started
        for _ in range(3):
            child = os.fork()
            if not child:
                try:
                    _train(rows, tmp_path / "run", tokens=4000)
                finally:
                    os._exit(0)
            time.sleep(draw.uniform(0.1, 0.5) * took)
            os.kill(child, signal.SIGKILL)
            killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    finally:
        torch.set_num_threads(threads)
    assert killed
    _train(rows, tmp_path / "run", tokens=4000)
    assert _outcome(tmp_path / "run") == _outcome(tmp_path / "whole")


class _StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, report: Any) -> None:
        if report.step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def stopped(rows: torch.Tensor, tmp_path: Path) -> Path:
    with pytest.raises(Interrupted):
        _train(rows, tmp_path / "run", callback=_StopAt(2))
    return tmp_path / "run"


def test_every_changed_byte_of_a_checkpoint_shows(stopped: Path, tmp_path: Path) -> None:
    raw = bytearray((stopped / CHECKPOINT).read_bytes())
    tensors, facts = read_checkpoint(stopped / CHECKPOINT)
    copy = tmp_path / "copy.safetensors"
    header = 8 + int.from_bytes(raw[:8], "little")
    for place in [*range(0, header, 5), *range(header, len(raw), 31), len(raw) - 1]:
        changed = raw.copy()
        changed[place] ^= 1
        copy.write_bytes(changed)
        with contextlib.suppress(FileFormatError):
            found, said = read_checkpoint(copy)
            # the header's padding says nothing
            assert said == facts, place
            assert found.keys() == tensors.keys(), place
            assert all(torch.equal(found[name], tensors[name]) for name in found), place
            assert place < header


def test_a_broken_checkpoint_gives_way_to_the_one_before(
    stopped: Path, rows: torch.Tensor, undisturbed: dict[str, Any]
) -> None:
    raw = bytearray((stopped / CHECKPOINT).read_bytes())
    raw[-5] ^= 16
    (stopped / CHECKPOINT).write_bytes(raw)
    found = latest_checkpoint(stopped)
    assert found is not None
    assert (found[0].name, found[2]["step"]) == (BEFORE, 1)
    assert not (stopped / CHECKPOINT).exists(), "the next one written would else drive the whole one out"
    (stopped / CHECKPOINT).write_bytes(raw)
    _train(rows, stopped)
    assert _outcome(stopped) == undisturbed


def test_two_broken_checkpoints_are_reported(stopped: Path, rows: torch.Tensor) -> None:
    for name in (CHECKPOINT, BEFORE):
        os.truncate(stopped / name, 200)
    before = names(stopped)
    with pytest.raises(FileFormatError, match=r"checkpoint.before.safetensors is truncated or corrupt: .*start anew"):
        _train(rows, stopped)
    assert names(stopped) == before


@pytest.mark.parametrize("file", ["weights.safetensors", "statistics.safetensors", "metrics.jsonl"])
def test_a_flipped_byte_in_what_is_finished_is_reported(file: str, rows: torch.Tensor, tmp_path: Path) -> None:
    _train(rows, tmp_path)
    raw = bytearray((tmp_path / file).read_bytes())
    raw[-3] ^= 64
    (tmp_path / file).write_bytes(raw)
    before = names(tmp_path)
    with pytest.raises(FileFormatError, match=rf"{file} is (truncated or corrupt|missing or not)"):
        _train(rows, tmp_path)
    assert names(tmp_path) == before


def test_what_another_run_finished_is_not_written_over(rows: torch.Tensor, tmp_path: Path) -> None:
    _train(rows, tmp_path)
    before = _outcome(tmp_path)
    with pytest.raises(UsageError, match=r"holds a dictionary of another run \(jobs.lr was 0.003, is 0.001\)"):
        _train(rows, tmp_path, lr=1e-3)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=r"another run \(run.json does not say which\). Give another folder"):
        _train(rows, tmp_path)
    assert _outcome(tmp_path) == before
    assert _train(rows, tmp_path, lr=1e-3, resume=False).report.lr == 1e-3


def test_a_disk_that_fills_inside_a_checkpoint(rows: torch.Tensor, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))  # run.json fits, a checkpoint does not
    try:
        with pytest.raises(LensingError, match=r"checkpoint.safetensors cannot be written: .*File too large.*Nothing"):
            _train(rows, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == {"run.json", "metrics.jsonl"}
    _train(rows, tmp_path)
    assert _outcome(tmp_path) == undisturbed


def test_a_clock_that_jumps_changes_nothing(
    rows: torch.Tensor, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(10.0**9 * (1 - 2 * (i % 2)) for i in range(10**6))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    with pytest.raises(Interrupted):
        _train(rows, tmp_path, callback=_StopAt(2), checkpoint_minutes=5)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    sae = _train(rows, tmp_path, checkpoint_minutes=5)
    assert 0 <= sae.report.seconds < 60
    assert _outcome(tmp_path) == undisturbed


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_is_answered_with_a_checkpoint(
    name: str, rows: torch.Tensor, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    def send(report: Any) -> None:
        if report.step == 2:
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(Interrupted, match=rf"Stopped by {name} at step 2 of 3; the checkpoint is"):
        _train(rows, tmp_path, callback=send, checkpoint_minutes=5)
    assert read_checkpoint(tmp_path / CHECKPOINT)[1]["step"] == 2
    _train(rows, tmp_path)
    assert _outcome(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", ["removed", "flipped"])
def test_a_store_that_is_damaged_while_it_is_read(
    damage: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lensing.training.loop.START_ROWS", 50)  # not the whole store is read before the first step
    documents = [[5 + (i + j) % 20 for j in range(3 + i % 7)] for i in range(60)]
    harvest = {"sites": "resid_post.0", "shuffle_rows": 120, "shard_rows": 60, "quiet": True}
    store = ln.harvest(model, documents, out=tmp_path / "acts", **harvest)  # type: ignore[arg-type]
    run: dict[str, Any] = {"tokens": 700, "batch": 50, "lr": 1e-3, "quiet": True}
    whole = ln.train(store, CONFIG, **run)
    path = store.manifest.path(store.folder, "resid_post.0", len(store.manifest.train_shards) - 1)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # the smallest change that there is, one that no gradient would notice
    path.unlink()
    if damage == "flipped":
        path.write_bytes(raw)
    said = {"removed": "is missing", "flipped": "has changed: its hash is not"}[damage]
    with pytest.raises(FileFormatError, match=rf"{path.name} {said}.*Run the same harvest again.*last good state") as e:
        ln.train(ln.open_store(tmp_path / "acts"), CONFIG, out=tmp_path / "d", **run)
    step = read_checkpoint(tmp_path / "d" / CHECKPOINT)[1]["step"]
    assert 0 < step < 14, str(e.value)
    ln.harvest(model, documents, out=tmp_path / "acts", **harvest)  # type: ignore[arg-type]
    again = ln.train(ln.open_store(tmp_path / "acts"), CONFIG, out=tmp_path / "d", **run)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
