"""`lensing harvest`, `verify` and `train --store`: from a file of text to a dictionary, and what is said on the way."""

from __future__ import annotations

import json

import pytest

import lensing as ln
from lensing.cli import main

TRAIN = ["train", "topk", "--width", "16", "--k", "2", "--batch", "64", "--tokens", "256"]


@pytest.fixture
def arguments(model_folder, tmp_path):
    file = tmp_path / "text.txt"
    sentences = ["the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen"]
    file.write_text("\n\n".join(sentences[i % 3] for i in range(60)), encoding="utf-8")
    options = {"model": model_folder("llama"), "text": file, "out": tmp_path / "acts"}
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["harvest", *flags, "--sites", "mlp_out.1", "resid_post.*"]


def test_from_text_to_a_dictionary(arguments, tmp_path, capsys):
    acts = str(tmp_path / "acts")
    assert main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts["sites"]) == ["mlp_out.1", "resid_post.0", "resid_post.1", "resid_post.2"]
    assert (facts["text"]["source"], facts["text"]["documents"]) == ("text.txt", 60)
    assert main(["verify", acts, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["whole"] is True
    assert main([*TRAIN, "--store", acts, "--site", "mlp_out.1", "--out", str(tmp_path / "d"), "--json"]) == 0
    dictionary = ln.load_dictionary(tmp_path / "d")
    assert (dictionary.site, dictionary.statistics.corpus, dictionary.model_name) == ("mlp_out.1", "text.txt", "llama0")
    assert main(["verify", str(tmp_path / "d")]) == 0
    assert "files of the dictionary" in capsys.readouterr().out


def test_for_a_person(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "60 documents" in shown
    assert "resid_post.2" in shown
    assert f"The store is in {tmp_path / 'acts'}." in shown.replace("\n", "")
    broken = tmp_path / "acts" / "mlp_out.1" / "00000.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    assert main(["verify", str(tmp_path / "acts")]) == 1
    shown = capsys.readouterr().out
    assert "mlp_out.1/00000.safetensors: unreadable (is truncated" in shown
    assert "Run the same harvest again" in shown
    assert main(arguments) == 0
    assert main(["verify", str(tmp_path / "acts")]) == 0
    assert "files of the store" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--store", "none"], "none is no store: it has no store.json. Give a folder that lensing harvest made."),
        (
            ["--store", "s", "--text", "a.txt"],
            "There must be one source of activations. Give either --store, or --model",
        ),
        (["--text", "a.txt"], "There is no --model. Give --model and --site with text, or --store FOLDER."),
        (["--model", "m", "--text", "a.txt"], "There is no --site. Give --model and --site with text, or --store"),
    ],
)
def test_one_source_is_asked_for(more, said, capsys):
    assert main([*TRAIN, "--out", "o", *more]) == 2
    assert capsys.readouterr().err.startswith(f"lensing: {said}")


def test_one_site_is_asked_for(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    assert main([*TRAIN, "--store", str(tmp_path / "acts"), "--out", str(tmp_path / "d")]) == 2
    assert "holds 4 sites. Give one, such as --site mlp_out.1." in capsys.readouterr().err


def test_wrong_paths_are_said_at_once(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lensing.model.load.load_model", lambda *a, **k: pytest.fail("the model was loaded"))
    arguments[arguments.index("--text") + 1] = "none.txt"
    assert main(arguments) == 2
    assert capsys.readouterr().err == "lensing: There is no file none.txt. Give the path of a .txt or .jsonl file.\n"
    assert main(["verify", str(tmp_path)]) == 2
    assert "is neither a store nor a dictionary" in capsys.readouterr().err
