import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.dictionary.load import load_dictionary
from lensing.errors import FileFormatError, Interrupted, LensingError, SiteError, TrainingError, UsageError
from lensing.training.checkpoint import CHECKPOINT, read_checkpoint
from lensing.training.job import Job
from lensing.training.loop import train, train_many
from lensing.training.step import StepReport, Trainer

CONFIGS = [ln.TopK(width=64, k=4, dead_after_tokens=600), ln.BatchTopK(width=64, k=4, dead_after_tokens=600)]


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, 16, generator=g), dim=1)
    active = (torch.rand(6000, 40, generator=g) < 0.05) * (1 + torch.rand(6000, 40, generator=g))
    return active @ directions + 0.02 * torch.randn(6000, 16, generator=g) + 2


def _train(source: Any, config: Any, **other: Any) -> Any:
    setting: dict[str, Any] = {"tokens": 12_000, "batch": 200, "lr": 3e-3, "quiet": True}
    return train(source, config, **(setting | other))


def _same(a: Any, b: Any) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


class _StopAt:
    def __init__(self, step: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.step, self.error = step, error

    def __call__(self, report: StepReport) -> None:
        if report.step == self.step:
            raise self.error


@pytest.mark.parametrize("config", CONFIGS, ids=["topk", "batchtopk"])
def test_training_learns_and_reports(config: Any, rows: torch.Tensor) -> None:
    before = _train(rows, config, tokens=200, lr=1e-12).report.fvu
    sae = _train(rows, config, tokens=40_000)
    report = sae.report
    assert report.fvu < 0.6 * before
    assert sae.W_dec.norm(dim=1).tolist() == pytest.approx([1.0] * 64, abs=1e-5)
    assert sae.statistics.fvu == report.fvu
    assert sae.statistics.n == report.held_out_rows == 300
    assert report.l0 == pytest.approx(4, abs=0.5), "BatchTopK's threshold keeps the mean number of active latents"
    assert (report.steps, report.tokens, report.held_out_documents) == (200, 40_000, 300)
    assert report.history[-1]["step"] == 200
    assert json.loads(json.dumps(report.to_json()))["fvu"] == report.fvu
    assert not any(p.requires_grad for p in sae.parameters())


def test_the_same_seed_gives_the_same_weights(rows: torch.Tensor) -> None:
    assert _same(_train(rows, CONFIGS[0]), _train(rows, CONFIGS[0]))
    assert not _same(_train(rows, CONFIGS[0]), _train(rows, CONFIGS[0], seed=1))


@pytest.mark.parametrize("config", CONFIGS, ids=["topk", "batchtopk"])
def test_stopped_and_continued_is_never_stopped(config: Any, rows: torch.Tensor, tmp_path: Path) -> None:
    whole = _train(rows, config)
    with pytest.raises(
        Interrupted, match=r"Stopped by SIGINT at step 31 of 60; the checkpoint is .*checkpoint.safetensors"
    ):
        _train(rows, config, out=tmp_path / "run", callback=_StopAt(31))
    with pytest.raises(Interrupted, match="step 50 of 60"):
        _train(rows, config, out=tmp_path / "run", callback=_StopAt(50))
    again = _train(rows, config, out=tmp_path / "run")
    assert _same(whole, again)
    assert again.report.fvu == whole.report.fvu
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 61))
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    loaded = load_dictionary(tmp_path / "run")
    assert _same(loaded, again)
    assert loaded.statistics is not None


def test_continuing_a_live_source_is_exact(model: Any, tmp_path: Path) -> None:
    documents = [[4 + (i * j) % 25 for j in range(1, 15)] for i in range(40)]

    def go(**other: Any) -> Any:
        source = ln.live(model, documents, sites="mlp_out.1", shuffle_rows=150)
        return _train(source, ln.TopK(width=48, k=4), tokens=1500, batch=50, **other)

    with pytest.raises(Interrupted):
        go(out=tmp_path, callback=_StopAt(17))
    sae = go(out=tmp_path)
    assert _same(go(), sae)
    assert (sae.site, sae.model_name) == ("mlp_out.1", "tiny-gemma2")
    assert sae.sample is not None
    assert sae.report.held_out_documents == 2
    assert len(sae.sample.documents()) == 2


def test_a_crash_leaves_the_last_checkpoint(rows: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        _train(rows, CONFIGS[0], out=tmp_path, checkpoint_minutes=0, callback=_StopAt(20, ZeroDivisionError))
    assert read_checkpoint(tmp_path / CHECKPOINT)[1]["step"] == 19
    assert _same(_train(rows, CONFIGS[0], out=tmp_path), _train(rows, CONFIGS[0]))


def test_a_finished_run_is_not_trained_again(rows: torch.Tensor, tmp_path: Path) -> None:
    first = _train(rows, CONFIGS[0], out=tmp_path)
    again = _train(rows, CONFIGS[0], out=tmp_path, callback=_StopAt(1, ZeroDivisionError))
    assert _same(first, again)
    assert again.report == first.report
    with pytest.raises(ZeroDivisionError):
        _train(rows, CONFIGS[0], out=tmp_path, resume=False, callback=_StopAt(1, ZeroDivisionError))


def test_another_runs_checkpoint_is_refused(rows: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        _train(rows, CONFIGS[0], out=tmp_path, callback=_StopAt(5))
    with pytest.raises(UsageError, match=r"belongs to another run \(jobs.lr was 0.003, is 0.001\)"):
        _train(rows, CONFIGS[0], out=tmp_path, lr=1e-3)
    with pytest.raises(UsageError, match=r"source\.corpus was tensor/"):
        _train(rows + 1, CONFIGS[0], out=tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileFormatError, match="truncated or corrupt"):
        _train(rows, CONFIGS[0], out=tmp_path)
    assert _train(rows, CONFIGS[0], out=tmp_path, resume=False).report.steps == 60


def test_without_a_folder_an_interrupt_says_that_nothing_was_saved(rows: torch.Tensor) -> None:
    with pytest.raises(Interrupted, match=r"nothing was saved. Give --out") as caught:
        _train(rows, CONFIGS[0], callback=_StopAt(3))
    assert caught.value.exit_code == 130


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
import lensing as ln
from lensing.errors import LensingError
torch.manual_seed(0)
try:
    ln.train(torch.randn(3000, 16), ln.TopK(width=64, k=4), tokens=100_000_000, batch=200, out=sys.argv[1], quiet=True,
             callback=lambda report: print(report.step, flush=True))
except LensingError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "1"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert f"the checkpoint is {tmp_path / CHECKPOINT}" in said
    tensors, facts = read_checkpoint(tmp_path / CHECKPOINT)
    assert facts["step"] == int(tensors["|step_number"]) >= 1


def test_what_is_not_finite_stops_training(rows: torch.Tensor) -> None:
    bad = rows.clone()
    bad[5000:] = float("nan")
    with pytest.raises(TrainingError, match=r"have variance nan"):
        _train(bad, CONFIGS[0])

    class Poison:
        def __call__(self, report: StepReport) -> None:
            if report.step == 7:
                source.tensors["rows"][:] = float("inf")

    source = TensorRows(rows.clone())
    with pytest.raises(TrainingError, match=r"Rows 1,400 to 1,599 .* loss is inf and the FVU inf at step 7"):
        _train(source, CONFIGS[0], callback=Poison())
    with pytest.raises(TrainingError, match="variance 0"):
        _train(torch.ones(100, 4), CONFIGS[0])


def test_several_dictionaries_come_out_as_if_alone(rows: torch.Tensor, tmp_path: Path) -> None:
    jobs = {"a": Job(config=CONFIGS[0], lr=3e-3), "b": Job(config=CONFIGS[1], lr=1e-3, seed=2)}
    both = train_many(rows, jobs, tokens=4000, batch=200, out=tmp_path, quiet=True)
    assert _same(both["a"], _train(rows, CONFIGS[0], tokens=4000))
    assert _same(both["b"], _train(rows, CONFIGS[1], tokens=4000, lr=1e-3, seed=2))
    assert _same(load_dictionary(tmp_path / "b"), both["b"])
    again = train_many(rows, jobs, tokens=4000, batch=200, out=tmp_path, quiet=True)
    assert _same(again["a"], both["a"])


def test_numbers_are_those_of_the_rounded_weights(rows: torch.Tensor, tmp_path: Path) -> None:
    sae = _train(rows, CONFIGS[1], out=tmp_path, dtype=torch.float16)
    loaded = load_dictionary(tmp_path)
    assert _same(loaded, sae)
    assert torch.equal(loaded.W_dec, loaded.W_dec.half().float())
    assert (tmp_path / "weights.safetensors").stat().st_size < 3 * 64 * 16 * 2 + 2000


@pytest.mark.parametrize(("k_aux", "alive"), [(None, True), (0, False)])
def test_dead_latents_are_revived_by_aux_alone(k_aux: int | None, alive: bool, rows: torch.Tensor) -> None:
    config = ln.TopK(width=48, k=4, k_aux=k_aux, aux_coef=1 / 4, dead_after_tokens=600)
    trainer = Trainer(config, 16, steps=300, batch=200, lr=3e-3, warmup=1, seed=0)
    trainer.start(rows[:2000])
    with torch.no_grad():
        trainer.dictionary.b_enc[:24] = -3.0  # these win no place among the k
    stream = TensorRows(rows).batches(200)
    first = [trainer.step(next(stream)["rows"]) for _ in range(10)]
    for _ in range(290):
        trainer.step(next(stream)["rows"])
    assert first[-1].dead >= 20
    silent = set(trainer.silence.dead().tolist()) & set(range(24))
    assert (len(silent) < 12) == alive


def test_bad_settings_are_refused(rows: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"does not give 'mlp_out.2' but rows"):
        _train(rows, CONFIGS[0], site="mlp_out.2")
    with pytest.raises(UsageError, match="Cannot train on 0 rows"):
        _train(rows, CONFIGS[0], tokens=0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LensingError, match="cannot be written"):
        _train(rows, CONFIGS[0], out=tmp_path / "file" / "run")
