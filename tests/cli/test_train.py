"""`lensing train` from a file of text to a folder that loads again, and what is said when it cannot."""

from __future__ import annotations

import json

import pytest

import lensing as ln
from lensing.cli import main
from lensing.files import check_writable


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    sentences = ["the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen"]
    file.write_text("\n\n".join(sentences[i % 3] for i in range(60)), encoding="utf-8")
    return file


@pytest.fixture
def arguments(model_folder, text, tmp_path):
    options = {"k": 2, "model": model_folder("llama"), "site": "mlp_out.1", "text": text, "width": 16, "batch": 64}
    options["out"] = tmp_path / "out"
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


SPARSE = {
    "topk": ["--k", "2"], "batchtopk": ["--k", "2"], "matryoshka": ["--k", "2", "--prefixes", "4", "--prefixes", "9"],
    "relu": ["--l0", "4"], "gated": ["--sparsity", "0.1"], "jumprelu": ["--l0", "4"],
}  # fmt: skip


@pytest.mark.parametrize("architecture", SPARSE)
def test_from_text_to_a_dictionary(architecture, arguments, tmp_path, capsys):
    assert main(["train", architecture, *SPARSE[architecture], *arguments[2:], "--tokens", "512", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    dictionary = ln.load_dictionary(tmp_path / "out")
    assert report["tokens"] == 512
    assert dictionary.config.architecture == architecture
    assert (dictionary.d_sae, dictionary.site) == (16, "mlp_out.1")
    assert dictionary.statistics.corpus == "text.txt"
    assert dictionary.statistics.fvu == pytest.approx(report["fvu"])


def test_a_cross_layer_transcoder(arguments, tmp_path, capsys):
    arguments[arguments.index("mlp_out.1")] = "resid_mid.*"
    assert main(["train", "batchtopk", *arguments, "--target", "mlp_out.*", "--cross-layer"]) == 0
    assert "mlp_out.2" in capsys.readouterr().out
    clt = ln.load_cross_layer(tmp_path / "out")
    assert clt.reads == ("resid_mid.0", "resid_mid.1", "resid_mid.2")
    assert [layer.d_out for layer in clt] == [96, 64, 32]
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert main(["train", "batchtopk", *arguments, "--target", "mlp_out.1", "--cross-layer"]) == 2
    assert "reads as many sites as it writes, not 3 and 1" in capsys.readouterr().err


def test_a_crosscoder_and_a_transcoder(arguments, tmp_path, capsys):
    arguments[arguments.index("mlp_out.1")] = "resid_post.0+resid_post.1"
    assert main(["train", "topk", *arguments]) == 0
    dictionary = ln.load_dictionary(tmp_path / "out")
    assert (dictionary.site, dictionary.parts) == ("resid_post.0+resid_post.1", (32, 32))
    arguments[arguments.index("resid_post.0+resid_post.1")] = "mlp_in.1"
    arguments[-1] = str(tmp_path / "other")
    assert main(["train", "topk", *arguments, "--target", "mlp_out.1", "--skip"]) == 0
    dictionary = ln.load_dictionary(tmp_path / "other")
    assert (dictionary.site, dictionary.target) == ("mlp_in.1", "mlp_out.1")
    assert dictionary.W_skip.shape == (32, 32)
    assert main(["train", "topk", *arguments, "--skip"]) == 2
    assert "Give a target" in capsys.readouterr().err


def test_the_report_for_a_person(arguments, tmp_path, capsys):
    assert main(["train", "topk", *arguments]) == 0
    shown = capsys.readouterr().out
    assert [line.split("  ")[0] for line in shown.splitlines()[:7]] == [
        "rows", "time", "FVU", "L0", "dead", "loss recovered", "loss",
    ]  # fmt: skip
    assert str(tmp_path / "out") in shown.replace("\n", "")


def test_an_l0_that_was_not_reached_is_said(arguments, capsys):
    assert main(["train", "relu", "--l0", "1", *arguments[2:], "--tokens", "128"]) == 0
    assert "L0 was to reach 1 and did not in 2 steps" in capsys.readouterr().out


def test_on_text_of_the_models_own(arguments, tmp_path, capsys):
    place = arguments.index("--text")
    arguments[place : place + 2] = ["--sample", "800"]
    assert main(["train", "topk", *arguments]) == 0
    assert ln.load_dictionary(tmp_path / "out").statistics.corpus == "800 tokens sampled from llama0, seed 0"


def test_an_unknown_site(arguments, capsys):
    arguments[arguments.index("mlp_out.1")] = "mlp_uot.1"
    assert main(["train", "topk", *arguments]) == 2
    assert "There is no site named 'mlp_uot.1'. Did you mean 'mlp_out.1'" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(arguments, text, capsys):
    arguments[-1] = str(text / "below-a-file")
    assert main(["train", "topk", *arguments]) == 1
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert "--out" in said
    assert said.count("\n") == 1


def test_a_place_that_cannot_be_written_is_said_before_text_is_sampled(arguments, text, tmp_path, capsys, monkeypatch):
    place = arguments.index("--text")
    arguments[place : place + 2] = ["--sample", "800"]
    arguments[-1] = str(text / "below-a-file")
    monkeypatch.setattr("lensing.data.text.sample_documents", lambda *a, **k: pytest.fail("text was sampled"))
    assert main(["train", "topk", *arguments]) == 1
    assert capsys.readouterr().err == (
        f"lensing: {arguments[-1]} cannot be written: Not a directory. Choose another folder with --out.\n"
    )


def test_the_check_of_the_place_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_pattern_of_sites_is_refused(arguments, capsys):
    arguments[arguments.index("mlp_out.1")] = "mlp_out.*"
    assert main(["train", "topk", *arguments]) == 2
    assert capsys.readouterr().err == "lensing: --site mlp_out.* means 3 sites. Give one, such as mlp_out.0.\n"
