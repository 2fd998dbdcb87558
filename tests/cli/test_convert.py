"""`lensing convert`: there and back, as JSON, what is refused, and that nothing is half-written."""

from __future__ import annotations

import json

import pytest
import torch
from dictionary.test_architectures import make

from lensing.cli import main
from lensing.dictionary.load import load_dictionary


@pytest.fixture
def saved(tmp_path):
    """A saved TopK dictionary with decoder rows of length 1."""
    sae = make("topk")
    sae.fold_(torch.ones(10), torch.ones(10))
    sae.site, sae.model_name = "mlp_out.1", "tiny"
    return sae.save(tmp_path / "ours")


@pytest.mark.parametrize("name", ["saelens", "sparsify"])
def test_there_and_back(saved, tmp_path, name, capsys):
    assert main(["convert", str(saved), str(tmp_path / "theirs"), "--to", name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["format"], shown["site"], shown["d_sae"]) == (name, "mlp_out.1", 48)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "back"), "--from", name]) == 0
    assert "topk, 48 latents on 10 numbers, mlp_out.1 of tiny." in capsys.readouterr().out
    x = torch.randn(20, 10)
    first, last = load_dictionary(saved), load_dictionary(tmp_path / "back")
    assert (first.reconstruct(x) - last.reconstruct(x)).abs().max() < 1e-5


def test_what_cannot_be_expressed_leaves_nothing(tmp_path, capsys):
    sae = make("topk", "crosscoder")
    sae.site = "resid_post.0+resid_post.1"
    source = sae.save(tmp_path / "ours")
    assert main(["convert", str(source), str(tmp_path / "theirs"), "--to", "sparsify"]) == 1
    assert "is a crosscoder, which the format of sparsify cannot express" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["ours"]


def test_refusals(saved, tmp_path, capsys):
    for arguments, words in (
        ([str(saved), str(saved)], "holds something already"),
        ([str(saved), str(tmp_path / "x"), "--from", "saelen"], "Did you mean 'saelens'"),
        ([str(saved), str(tmp_path / "x"), "--to", "openai"], "openai"),
        ([str(saved), str(tmp_path / "x"), "--from", "saelens"], "cfg.json is missing"),
    ):
        assert main(["convert", *arguments]) in (1, 2)
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1 or "--to" in said
        assert not (tmp_path / "x").exists()


def test_a_pickle_needs_the_flag(tmp_path, capsys):
    state = {"encoder.weight": torch.randn(12, 4), "decoder.weight": torch.randn(4, 12)}
    torch.save(state | {"latent_bias": torch.zeros(12), "pre_bias": torch.zeros(4)}, tmp_path / "3.pt")
    command = ["convert", str(tmp_path / "3.pt"), str(tmp_path / "out")]
    assert main(command) == 1
    assert "is a pickle, which can run code" in capsys.readouterr().err
    assert main([*command, "--allow-pickle"]) == 0
    assert load_dictionary(tmp_path / "out").architecture == "relu"
