"""`lensing patch`, `heads` and `attribute` as they are typed: drawn, as JSON, as pictures, and wrong."""

from __future__ import annotations

import json

import pytest
from walking import tiny_dictionary

from lensing.cli import main

CLEAN, CORRUPT = "the reliability of the almanac is very", "the reader of the old book is"


@pytest.fixture
def run(model_folder, capsys):
    folder = str(model_folder("gemma2"))
    capsys.readouterr()

    def run(*arguments: str):
        code = main([*arguments, "--model", folder])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_patch(run, tmp_path):
    words = ("--right", "doubtful", "--wrong", "certain")
    code, out, _ = run("patch", CLEAN, CORRUPT, *words)
    assert code == 0
    assert "1 is the whole way" in out
    assert "resid_pre" in out
    for method in ("patch", "gradient", "ig"):
        code, out, _ = run("patch", CLEAN, CORRUPT, *words, "--site", "attn_z", "--method", method, "--json")
        found = json.loads(out)
        assert code == 0
        assert len(found["effect"]) == 3
        assert found["heads"] == [0, 1, 2, 3]
    assert run("patch", CLEAN, CORRUPT, *words, "--site", "attn_z")[0] == 0
    pytest.importorskip("matplotlib")
    assert run("patch", CLEAN, CORRUPT, *words, "--picture", str(tmp_path / "a.svg"))[0] == 0
    assert (tmp_path / "a.svg").stat().st_size > 1000
    code, _, err = run("patch", CLEAN, "a bird sang", *words)
    assert code == 2
    assert "Patching needs pairs of one length" in err


def test_heads(run, tmp_path):
    code, out, _ = run("heads", "--length", "6", "--texts", "4", "--above", "0.1")
    assert code == 0
    assert "induction:" in out
    found = json.loads(run("heads", "--length", "6", "--texts", "4", "--json")[1])
    assert len(found["previous"]["scores"]) == 3
    assert run("heads", "--texts", "1")[0] == 2
    pytest.importorskip("matplotlib")
    assert run("heads", "--length", "6", "--texts", "4", "--picture", str(tmp_path / "a.png"))[0] == 0


def test_attribute(run, make_model, tmp_path):
    code, out, _ = run("attribute", CLEAN, "--by", "head", "--target", "doubtful", "--minus", "certain")
    assert code == 0
    assert "logit of 'doubtful' less that of 'certain'" in out
    assert "from the model's number" in out
    found = json.loads(run("attribute", CLEAN, "--json")[1])
    assert abs(found["total"] - found["whole"]) < 1e-4
    dictionary = tiny_dictionary(make_model("gemma2"))
    dictionary.save(tmp_path / "sae")
    code, out, _ = run("attribute", CLEAN, "--dictionary", str(tmp_path / "sae"))
    assert code == 0
    assert "latent" in out
    assert run("attribute", CLEAN, "--by", "latent")[0] == 2
    pytest.importorskip("matplotlib")
    assert run("attribute", CLEAN, "--picture", str(tmp_path / "a.pdf"))[0] == 0
