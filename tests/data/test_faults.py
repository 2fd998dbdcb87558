"""A harvest survives what happens to machines: kills and full disks at every write, signals, what was left behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from killing import every_write, names, needs_fork

import lensing as ln
from lensing.data.verify import verify_store
from lensing.errors import FileFormatError, LensingError

resource = pytest.importorskip("resource")  # limits of a process: not on Windows

DOCUMENTS = [[5 + (3 * i + j) % 20 for j in range(4 + i % 5)] for i in range(12)]
SMALL: dict[str, Any] = {"sites": ["mlp_out.0"], "shuffle_rows": 40, "quiet": True}


def _harvest(model: Any, out: Path) -> Any:
    return ln.harvest(model, DOCUMENTS, out=out, **SMALL)


def _hashes(folder: Path) -> dict[str, str]:
    """Hash of every file with a final name but run.json, which holds versions and the command line."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names(folder) - {"run.json"}}


@pytest.fixture(scope="module")
def undisturbed(make_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed") / "acts"
    _harvest(make_model("gemma2"), folder)
    return _hashes(folder)


@needs_fork
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_fault_at_every_write(fault: Any, model: Any, undisturbed: dict[str, str], tmp_path: Path) -> None:
    tried = 0
    for n, folder in every_write(lambda out: _harvest(model, out), tmp_path, fault):
        there = _hashes(folder) if folder.exists() else {}
        assert there.items() <= undisturbed.items(), f"write {n}: nothing half-written has a final name"
        assert "mlp_out.0/stats.json" not in there or {n for n in undisturbed if n < "stats"} <= there.keys()
        _harvest(model, folder)
        assert _hashes(folder) == undisturbed, f"write {n}"
        assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {*undisturbed, "run.json"}
        shutil.rmtree(folder)
        tried += 1
    assert tried > {"kill": 30, "full": 20}[fault], "six shards, their statistics, store.json and run.json"


def test_a_disk_that_fills_inside_a_shard(model: Any, undisturbed: dict[str, str], tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))  # store.json fits, a shard of rows does not
    try:
        with pytest.raises(LensingError, match=r"safetensors cannot be written: File too large\. Free some space"):
            _harvest(model, tmp_path / "acts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    there = _hashes(tmp_path / "acts")
    assert "store.json" in there
    assert there.items() < undisturbed.items()
    _harvest(model, tmp_path / "acts")
    assert _hashes(tmp_path / "acts") == undisturbed


def test_a_clock_that_jumps_changes_nothing(
    model: Any, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps, real = iter(10.0**9 * (1 - 2 * (i % 2)) for i in range(10**6)), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    _harvest(model, tmp_path / "acts")
    (tmp_path / "acts" / "mlp_out.0" / "00001.safetensors").unlink()
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    _harvest(model, tmp_path / "acts")
    assert _hashes(tmp_path / "acts") == undisturbed


def test_every_read_of_a_shard_is_compared_once(model: Any, tmp_path: Path) -> None:
    _harvest(model, tmp_path / "acts")
    for what in ("mlp_out.0", "tokens"):
        path = tmp_path / "acts" / what / "00000.safetensors"
        raw = path.read_bytes()
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        store = ln.open_store(tmp_path / "acts")
        with pytest.raises(FileFormatError, match=r"00000.safetensors has changed: its hash is not the one in stats"):
            store.tokens(0) if what == "tokens" else store.shard(what, 0)
        path.write_bytes(raw)
        assert store.shard("mlp_out.0", 0) is not None, "the mended file is read"
    assert next(ln.open_store(tmp_path / "acts").batches(8))["mlp_out.0"].shape == (8, 32)


def test_a_changed_record_shows(model: Any, tmp_path: Path) -> None:
    _harvest(model, tmp_path / "acts")
    path = tmp_path / "acts" / "store.json"
    text = path.read_text()
    assert '"seed": 0' in text
    path.write_text(text.replace('"seed": 0', '"seed": 1'))  # as one flipped bit would: the order of all rows changes
    found = {finding.file: finding.fault for finding in verify_store(tmp_path / "acts", quiet=True).findings}
    assert found == {"store.json": "not what run.json says (seed: 0, now 1)"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_command_with_what_is_whole(
    name: str, model_folder: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lensing.cli import main
    from lensing.data import harvest

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(["the bird sang by the river", "the reader trusts the almanac"] * 12))
    call = ["harvest", "--model", str(model_folder("llama")), "--text", str(text), "--sites", "mlp_out.1"]
    call += ["--shuffle-rows", "40"]
    assert main([*call, "--out", str(tmp_path / "whole")]) == 0
    made = []

    def signalled(*given: Any) -> Any:
        made.append(given)
        if len(made) == 3:
            os.kill(os.getpid(), getattr(signal, name))
        return original(*given)

    original = harvest.make_shard
    monkeypatch.setattr(harvest, "make_shard", signalled)
    before = signal.getsignal(signal.SIGTERM)
    # in the background of a shell Ctrl-C is ignored, also by these tests
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    capsys.readouterr()
    try:
        assert main([*call, "--out", str(tmp_path / "acts")]) == 130
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert "finished shards are in" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.undo()
    there = _hashes(tmp_path / "acts")
    assert sum(name.startswith("mlp_out.1") for name in there) == 2, "the shard at the disk was finished"
    assert not list((tmp_path / "acts").rglob("*.part"))
    assert main([*call, "--out", str(tmp_path / "acts")]) == 0
    assert _hashes(tmp_path / "acts") == _hashes(tmp_path / "whole")
