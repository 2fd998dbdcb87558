"""`lensing finetune` from a trained dictionary to a better one, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lensing as ln
from lensing.cli import main


def test_a_dictionary_is_fine_tuned(
    tmp_path: Path, model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text, model = tmp_path / "text.txt", str(model_folder("llama"))
    sentences = ["the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen"]
    text.write_text("\n\n".join(sentences[i % 3] for i in range(60)), encoding="utf-8")
    common = ["--model", model, "--text", str(text), "--batch", "64"]
    first = str(tmp_path / "first")
    options = ["--width", "16", "--k", "2", "--site", "resid_post.1", "--out", first]
    assert main(["train", "topk", *options, *common]) == 0
    assert main(["finetune", first, "--out", str(tmp_path / "second"), *common, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    tuned = ln.load_dictionary(tmp_path / "second")
    assert tuned.statistics is not None
    assert tuned.statistics.fvu == pytest.approx(report["fvu"])
    assert report["after"]["kl"] > 0
    assert main(["finetune", first, "--out", str(tmp_path / "second"), *common]) == 0  # finished: shown again
    assert "loss recovered" in capsys.readouterr().out
    assert main(["finetune", first, "--out", str(tmp_path / "x"), "--model", model]) == 2
    assert "one source of text" in capsys.readouterr().err
