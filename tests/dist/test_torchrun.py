"""The real commands behind a real torchrun do what one process does, and a signal to it leaves a whole checkpoint."""

from __future__ import annotations

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
from lensing.cli import main
from lensing.training.checkpoint import latest_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torchrun, gloo and signals as on Linux")

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lensing"]
SENTENCES = ("the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen")
TRAIN = ["--width", "16", "--k", "2", "--batch", "64", "--site", "mlp_out.1", "--device", "cpu", "--loss-tokens", "0"]


def launch(*words: str) -> subprocess.Popen[str]:
    source = Path(ln.__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    return subprocess.Popen(
        [*TORCHRUN, *words], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def harvest(model_folder: Any, tmp_path: Path) -> list[str]:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(SENTENCES[i % 3] for i in range(60)), encoding="utf-8")
    return ["harvest", "--model", str(model_folder("llama")), "--text", str(text), "--sites", "mlp_out.1"]


def test_training(harvest: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acts = str(tmp_path / "acts")
    assert main([*harvest, "--out", acts]) == 0
    capsys.readouterr()
    train = ["train", "topk", *TRAIN, "--tokens", "1024", "--json", "--store"]
    assert main([*train, acts, "--out", str(tmp_path / "d1")]) == 0
    expected = json.loads(capsys.readouterr().out)
    running = launch(*train, acts, "--out", str(tmp_path / "d2"), "--tp", "2")
    said, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    found = json.loads(said)  # one process prints
    assert found["fvu"] == pytest.approx(expected["fvu"], rel=1e-4)
    assert found["l0"] == pytest.approx(expected["l0"], rel=1e-3)
    a, b = (ln.load_dictionary(tmp_path / name) for name in ("d1", "d2"))
    assert torch.allclose(a.W_dec, b.W_dec, atol=1e-4)
    assert torch.allclose(a.encoder, b.encoder, atol=1e-4)


def test_a_signal_to_torchrun(harvest: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acts, out = str(tmp_path / "acts"), tmp_path / "d"
    assert main([*harvest, "--out", acts]) == 0
    train = ["train", "batchtopk", *TRAIN, "--tokens", str(64 * 20_000), "--store", acts, "--out", str(out)]
    running = launch(*train, "--tp", "2")
    end = time.monotonic() + 100
    try:
        while not (out / "metrics.jsonl").exists() and running.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=100)
    finally:
        running.kill()
    assert "Stopped by SIGTERM at step" in errors
    assert sorted(path.name for path in out.glob("checkpoint*")) == [f"checkpoint.{i}of2.safetensors" for i in (0, 1)]
    found = latest_checkpoint(out)
    assert found is not None
    _, tensors, facts = found
    assert facts["step"] == int(tensors["|step_number"]) > 0
    assert tensors["|weight.encoder"].shape[0] == 16
