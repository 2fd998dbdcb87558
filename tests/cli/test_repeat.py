"""`lensing run`: a harvest, a training and a sweep once more, from what run.json says; and what cannot be repeated."""

from __future__ import annotations

import json
import shlex

import pytest
import torch

import lensing as ln
from lensing.cli import main


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join("the old book that a reader kept by the river" for _ in range(60)), encoding="utf-8")
    return file


@pytest.fixture
def trained(model_folder, text, tmp_path):
    """A training's folder, made by the command line."""
    options = {"k": 2, "model": model_folder("llama"), "site": "mlp_out.1", "text": text, "width": 16, "batch": 64}
    options |= {"out": tmp_path / "one", "tokens": 256}
    assert (
        main(["train", "topk", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]) == 0
    )
    return tmp_path / "one"


def test_a_training_comes_out_again_byte_for_byte(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the record holds whole paths
    capsys.readouterr()
    assert main(["run", str(trained / "run.json"), "--out", str(tmp_path / "two"), "--json"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["out"] == str(tmp_path / "two")
    assert "All 3 files of weights and rows are byte for byte those of" in shown.err
    assert "not as recorded" not in shown.err
    one, two = (json.loads((folder / "run.json").read_text()) for folder in (trained, tmp_path / "two"))
    assert one["setting"] == two["setting"]
    assert (tmp_path / "two" / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()


def test_what_differs_from_the_record_is_said(trained, text, tmp_path, capsys):
    record = json.loads((trained / "run.json").read_text())
    record["versions"]["torch"] = "1.0"
    (trained / "run.json").write_text(json.dumps(record))
    text.write_text(text.read_text() + "\n\na bird sang by the river", encoding="utf-8")
    capsys.readouterr()
    assert main(["run", str(trained), "--out", str(tmp_path / "two")]) == 0
    said = capsys.readouterr().err
    assert f"lensing: not as recorded: versions.torch was 1.0, is {torch.__version__}" in said
    assert "lensing: not as recorded: source.documents was 60, is 61" in said
    assert "files of weights and rows differ from those of" in said


def test_in_its_own_folder_a_finished_run_is_handed_back(trained, capsys):
    before = (trained / "weights.safetensors").stat().st_mtime_ns
    assert main(["run", str(trained)]) == 0
    assert (trained / "weights.safetensors").stat().st_mtime_ns == before


def test_a_harvest_and_a_sweep_of_it(model_folder, text, tmp_path, capsys):
    acts, model = tmp_path / "acts", str(model_folder("llama"))
    more = ["--model", model, "--text", str(text), "--sites", "mlp_out.1", "--shard-rows", "200"]
    assert main(["harvest", *more, "--out", str(acts)]) == 0
    assert main(["run", str(acts), "--out", str(tmp_path / "again")]) == 0
    assert "byte for byte those of" in capsys.readouterr().err
    grid = ["--architecture", "topk", "--width", "8,16", "--k", "2", "--store", str(acts), "--tokens", "200"]
    assert main(["sweep", *grid, "--batch", "50", "--out", str(tmp_path / "sweep")]) == 0
    assert main(["run", str(tmp_path / "sweep"), "--out", str(tmp_path / "second"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "All 6 files of weights and rows are byte for byte those of" in shown.err
    table = json.loads(shown.out[shown.out.index("{") :])
    assert [member["name"] for member in table["members"]] == ["w8", "w16"]
    assert table["members"][0]["loss_recovered"] is not None, "the store's model is found where it was harvested from"


def test_what_cannot_be_repeated(tmp_path, capsys):
    rows = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    ln.train(rows, ln.TopK(width=8, k=2), tokens=100, batch=50, out=tmp_path / "python", quiet=True)
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("{")
    for path, said in {
        "python": "records a call from Python, whose text and model it does not hold. Make that call again.",
        "other.json": "is no record of a run. Give a run.json that lensing wrote.",
        "broken.json": "is not JSON: Expecting property name",
        "none": "There is no",
    }.items():
        assert main(["run", str(tmp_path / path)]) in (1, 2)
        assert said in capsys.readouterr().err


def test_the_next_command_works_as_it_stands(trained, capsys):
    capsys.readouterr()
    assert main(["run", str(trained), "--json"]) == 0
    words = shlex.split(json.loads(capsys.readouterr().out)["next"])
    assert words[:2] == ["lensing", "steer"]
    assert main([*words[1:], "--strength", "1", "--seeds", "2", "--new-tokens", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
