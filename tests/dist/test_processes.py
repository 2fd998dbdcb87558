"""One, two (rows), two (latents) and four (2 x 2) processes train the same dictionary; one that ends hangs no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from dist import worker
from dist.worker import CONFIGS, MAIN, go, numbers, start

import lensing as ln
from lensing.dictionary.load import load_dictionary
from lensing.errors import FileFormatError, Interrupted, UsageError
from lensing.training.checkpoint import latest_checkpoint, write_checkpoint
from lensing.training.loop import train, train_many

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copies of this one")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    """What one process finds."""
    found: dict[str, Any] = {"skip": worker.wiring(), "ties": worker.ties()}
    for name in CONFIGS:
        d, found[f"{name} 64"] = go(name, torch.float64)
        found[f"{name} end"] = numbers(d)
        if name in MAIN:
            found[f"{name} 32"] = go(name, torch.float32)[1]
    return found


def _stop(report: Any) -> None:
    if report.step == 8:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Any]:
    with pytest.raises(Interrupted):
        go("topk", torch.float64, out=folder / "begun", also=_stop)
    return start(worker.training, folder, 2)


@pytest.fixture(scope="module")
def four(folder: Path) -> list[Any]:
    return start(worker.training, folder, 4)


def _same(found: Any, expected: dict[str, Any], tp: int, names: Iterable[str] = CONFIGS) -> None:
    for name in names:
        assert len(found[f"{name} 64 {tp}"]) == worker.STEPS
        for step, (a, b) in enumerate(zip(found[f"{name} 64 {tp}"], expected[f"{name} 64"], strict=True)):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12), f"{name}, step {step}"
        for key, values in expected[f"{name} end"].items():
            assert found[f"{name} end {tp}"][key] == pytest.approx(values, rel=1e-6, abs=1e-8), f"{name}, {key}"
    for name in MAIN:
        for a, b in zip(found[f"{name} 32 {tp}"], expected[f"{name} 32"], strict=True):
            assert a[0] == pytest.approx(b[0], rel=1e-4), f"{name} in float32"
    assert found[f"skip {tp}"] == pytest.approx(expected["skip"], rel=1e-9)
    assert found[f"ties {tp}"] == expected["ties"]


def test_the_cases_are_not_empty(one: dict[str, Any]) -> None:
    """AuxK works, penalties bite, dead latents are drawn anew: else the other tests would show little."""
    for name in ("topk", "batchtopk", "matryoshka"):
        assert one[f"{name} 64"][-1][1] > 0, "AuxK"
        assert one[f"{name} 64"][-1][3] > 0, "dead latents"
    for name in ("jumprelu", "quadratic", "tanh", "steered", "relu", "gated"):
        assert one[f"{name} 64"][-1][4] > 0, "penalty"
    assert one["relu, resampled 64"][4][3] > 0
    assert len(one["ties"][0]) > 60


@pytest.mark.parametrize("tp", [1, 2], ids=["rows", "latents"])
def test_two_processes_train_what_one_does(two: list[Any], one: dict[str, Any], tp: int) -> None:
    for found in two:
        _same(found, one, tp)


def test_four_processes_train_what_one_does(four: list[Any], one: dict[str, Any]) -> None:
    for found in four:
        _same(found, one, 2, worker.ON_FOUR)


@pytest.mark.parametrize("tp", [1, 2], ids=["rows", "latents"])
def test_a_signal_to_one_stops_both_and_one_continues(
    two: list[Any], one: dict[str, Any], folder: Path, tp: int
) -> None:
    out = folder / f"stopped{tp}"
    for found in two:
        assert "Stopped by SIGUSR1 at step 8 of 20; the checkpoint is" in found[f"stopped {tp}"]
    names = sorted(path.name for path in out.glob("checkpoint*"))
    current = ["checkpoint.0of2.safetensors", "checkpoint.1of2.safetensors"]
    assert [name for name in names if "before" not in name] == (current if tp == 2 else ["checkpoint.safetensors"])
    assert (out / "metrics.jsonl").read_text().count("\n") == 8, "one process writes"
    if tp == 2:  # a part that was lost: the step before it is whole
        kept = {out / name: (out / name).read_bytes() for name in current}
        (out / current[1]).unlink()
        found = latest_checkpoint(out)
        assert found is not None
        assert found[2]["step"] == 7
        assert not (out / current[0]).exists(), "or the next one would drive out the whole one before it"
        for path, data in kept.items():
            path.write_bytes(data)
    d, seen = go("topk", torch.float64, out=out)
    assert len(seen) == 12
    for a, b in zip(seen, one["topk 64"][8:], strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12)
    assert numbers(d)["encoder"] == pytest.approx(one["topk end"]["encoder"], rel=1e-6, abs=1e-8)
    assert not list(out.glob("checkpoint*"))


def test_two_continue_what_one_began(two: list[Any], one: dict[str, Any], folder: Path) -> None:
    for found in two:
        for key, values in one["topk end"].items():
            assert found["continued"][key] == pytest.approx(values, rel=1e-6, abs=1e-8)
    saved = load_dictionary(folder / "begun")
    assert saved.statistics is not None
    assert saved.encoder.flatten().tolist() == pytest.approx(one["topk end"]["encoder"], rel=1e-5, abs=1e-6)
    assert [json.loads(line)["step"] for line in (folder / "begun" / "metrics.jsonl").open()] == list(range(1, 21))


def test_whole_dictionaries_on_processes(two: list[Any], one: dict[str, Any], folder: Path) -> None:
    assert [found["team"] for found in two] == [["jumprelu", "topk"], ["batchtopk"]]
    alone = {"topk": go("topk", torch.float32)[0], "batchtopk": go("batchtopk", torch.float32, ema=None)[0]}
    for name, d in alone.items():
        assert torch.equal(load_dictionary(folder / "many" / name).encoder, d.encoder), f"{name} is as trained alone"
    assert not list((folder / "many").glob("checkpoint*"))
    assert ["at step 8 of 20" in found["stopped team"] for found in two] == [True, True]
    made = train_many(worker.rows(), worker.several(), **worker.MANY, out=folder / "halves")
    for name, d in made.items():  # begun by two teams, ended by one process
        assert torch.equal(load_dictionary(folder / "many" / name).encoder, d.encoder), name
        assert [point["step"] for point in d.report.history] == list(range(1, 21))


def test_a_sweep_in_teams_goes_on_where_all_of_one_fail(two: list[Any], folder: Path, tmp_path: Path) -> None:
    table, hopeless = worker.sweeping(tmp_path / "alone", teams=1)

    def same(member: dict[str, Any]) -> dict[str, Any]:
        left_out = ("step_seconds", "rows_per_second", "failure")
        return {**{k: v for k, v in member.items() if k not in left_out}, "failed": bool(member["failure"])}

    expected = [same(member) for member in table["members"]]
    assert [member["failed"] for member in expected] == [False, True, False]
    written = json.loads((folder / "sweep" / "sweep.json").read_text())
    for found in (two[0]["sweep"], two[1]["sweep"], written):
        assert [same(member) for member in found["members"]] == expected
        assert found["members"][1]["failure"]["step"] == 3
    assert hopeless.startswith("All 3 dictionaries failed")
    for found in two:
        assert found["sweep, all failed"].startswith("All 3 dictionaries failed")


def test_what_does_not_divide_is_refused(two: list[Any]) -> None:
    for found in two:
        assert found["refused 63 2"] == "A width of 63 does not divide over 2 processes. Give --width 62 or 64."
        assert "Give --width 2." in found["refused 1 2"]
        assert found["refused 64 3"].startswith("2 processes cannot be dealt out as 3 for the latents (--tp)")


def test_what_is_not_right_in_parts_is_refused_by_name(two: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for found in two:
        assert found["refused pre_act"].startswith("The pre-activation loss of dead latents (pre_act is 3e-06)")
        assert found["refused cross-layer"].startswith("Cross-layer transcoders are trained in one process")
        assert found["refused topk"].startswith("topk cannot be trained by 2 processes together")
    monkeypatch.setenv("WORLD_SIZE", "2")
    nothing: Any = None  # it is refused before anything is looked at
    with pytest.raises(UsageError, match="Fine-tuning runs in one process"):
        ln.finetune(nothing, nothing, nothing)


def _part(folder: Path, part: int, step: int) -> None:
    name = f"d{part}"
    facts = {
        "step": step, "part": part, "parts": 2, "cut": [f"{name}|w"], "history": {name: [{"step": step}]},
        "cost": {"seconds": 1.0, "reading": 0.5, "steps": {name: 0.25}}, "failures": {},
    }  # fmt: skip
    write_checkpoint(folder, {f"{name}|w": torch.full((2,), step)}, facts, part=part, parts=2)


def test_parts_of_one_step_are_one_checkpoint(tmp_path: Path) -> None:
    _part(tmp_path, 0, 3)
    with pytest.raises(FileFormatError, match=r"no whole one \(checkpoint.0of2.safetensors\)"):
        latest_checkpoint(tmp_path)
    _part(tmp_path, 1, 3)
    for step in (5, 6):
        _part(tmp_path, 0, step)  # the other was killed before it wrote these: 3 is lost here, and 5 and 6 not whole
    with pytest.raises(FileFormatError, match="no whole one"):
        latest_checkpoint(tmp_path)
    _part(tmp_path, 1, 6)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    path, tensors, facts = found
    assert path.name == "checkpoint.0of2.safetensors"
    assert {name: t.tolist() for name, t in tensors.items()} == {"d0|w": [6, 6], "d1|w": [6, 6]}
    assert facts["history"] == {"d0": [{"step": 6}], "d1": [{"step": 6}]}
    assert facts["cost"]["steps"] == {"d0": 0.25, "d1": 0.25}
    broken = bytearray(path.read_bytes())
    broken[-1] ^= 1
    path.write_bytes(broken)
    with pytest.raises(FileFormatError, match="its bytes are not those"):
        latest_checkpoint(tmp_path)


def test_latents_are_not_split_in_one_process() -> None:
    with pytest.raises(
        UsageError, match=r"1 process cannot be dealt out as 2 for the latents .* Start a multiple of 2"
    ):
        train(worker.rows(), ln.TopK(width=64, k=4), tp=2, quiet=True)


def test_a_process_that_ends_is_missed(folder: Path) -> None:
    said, code = start(worker.failing, folder, 2)
    assert code == 9
    assert said.startswith("Another process of this run stopped or does not answer (")
    assert said.endswith("run the same command again to continue.")


def test_a_killed_process_is_made_up_for(make_model: Any, model_folder: Any, tmp_path: Path) -> None:
    from data.test_harvest import SMALL, documents, hashes

    setting = {**SMALL, "sites": list(SMALL["sites"])}
    given = {"model": str(model_folder("gemma2")), "documents": documents(), "setting": setting}
    (tmp_path / "harvest.json").write_text(json.dumps(given))
    survivor, code = start(worker.harvest, tmp_path, 2)
    assert code == 9
    alone = ln.harvest(ln.load_model(given["model"]), given["documents"], out=tmp_path / "alone", **setting)
    assert survivor["rows"] == alone.rows
    assert 1 < len(survivor["made"]) == len(set(survivor["made"])), "each shard once, but the one that was lost"
    assert hashes(tmp_path / "acts") == hashes(tmp_path / "alone")
