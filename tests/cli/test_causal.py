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


def test_effects(run, make_model, tmp_path):
    tiny_dictionary(make_model("gemma2")).save(tmp_path / "sae")
    sae = ("--dictionary", str(tmp_path / "sae"))
    code, out, _ = run("effects", CLEAN, *sae, "--target", "doubtful", "--minus", "certain")
    assert code == 0
    assert "logit difference of 'doubtful' less 'certain'" in out
    assert "error" in out
    for method in ("gradient", "ig", "exact"):
        code, out, _ = run("effects", CLEAN, *sae, "--method", method, "--positions", "--json")
        assert code == 0
        found = json.loads(out)
        assert found["method"] == method
        assert found["metric"] == "log-probability"
        assert {n["latent"] is None for n in found["nodes"]} == {True, False}
    code, _, err = run("effects", CLEAN, *sae, "--corrupt", "a bird sang")
    assert code == 2
    assert "one length" in err
    pytest.importorskip("matplotlib")
    assert run("effects", CLEAN, *sae, "--picture", str(tmp_path / "a.svg"))[0] == 0


def test_contrast(run, make_model, tmp_path):
    tiny_dictionary(make_model("gemma2")).save(tmp_path / "sae")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for file, word in zip(files, ("certain", "doubtful"), strict=True):
        texts = [
            f"{start} is very {word}" for start in ("the almanac", "the book", "a bird", "the reader", "it", "she")
        ]
        (tmp_path / file).write_text("\n\n".join(texts), encoding="utf-8")
    code, out, err = run("contrast", *files, "--dictionary", str(tmp_path / "sae"), "--vectors", str(tmp_path / "v.st"))
    assert code == 0, err
    assert "linear probe" in out
    assert "latent" in out
    from safetensors.torch import load_file

    assert {name: len(v) for name, v in load_file(tmp_path / "v.st").items()} == {"means": 32, "probe": 32}
    found = json.loads(run("contrast", *files, "--site", "resid_post.1", "--at", "all", "--json")[1])
    assert found["latents"] == []
    assert found["probe"]["auroc"] >= 0.5
    code, _, err = run("contrast", *files)
    assert code == 2
    assert "--site" in err
