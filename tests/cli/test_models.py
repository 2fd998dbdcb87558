"""`lensing sites`, `lensing doctor`, and what is said about a model that cannot be loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from lensing.cli import main


def test_sites_of_a_folder_as_json(model_folder, make_hf, capsys):
    config = make_hf("llama").config
    assert main(["sites", str(model_folder("llama")), "--json"]) == 0
    shapes = json.loads(capsys.readouterr().out)["shapes"]
    heads = config.num_attention_heads
    assert shapes["resid_post.2"] == [config.hidden_size]
    assert shapes["mlp_post.0"] == [config.intermediate_size]
    assert shapes["attn_z.1"] == [heads, config.hidden_size // heads]
    assert f"resid_post.{config.num_hidden_layers}" not in shapes


def test_sites_of_a_folder_as_a_table(model_folder, make_hf, capsys):
    config = make_hf("llama").config
    assert main(["sites", str(model_folder("llama"))]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    heads, last = config.num_attention_heads, config.num_hidden_layers - 1
    assert lines["mlp_out.L"][:5] == ["mlp_out.L", "0", "to", str(last), str(config.hidden_size)]
    assert lines["attn_z.L"][4:7] == [str(heads), "x", str(config.hidden_size // heads)]
    assert lines["attn_pattern.L"][4:9] == [str(heads), "x", "query", "x", "key"]
    assert lines["norm_scale_attn_post.0"][1:4] == ["is", "not", "given:"]


def test_an_unknown_model(capsys):
    assert main(["sites", "almanak-of-nobody"]) == 2
    assert "There is no model named 'almanak-of-nobody'." in capsys.readouterr().err


def test_a_folder_that_is_no_model(tmp_path, capsys):
    assert main(["sites", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == f"lensing: {tmp_path} is not a model: it has no config.json. Give a model's folder.\n"


def test_a_pickle_is_refused_and_the_flag_named(model_folder, tmp_path, capsys):
    folder = shutil.copytree(model_folder("llama"), tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert main(["sites", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "is a pickle, which can run code" in said
    assert "--allow-pickle" in said


@pytest.mark.parametrize("keep", [100, 0.5], ids=["cut in the header", "cut in the weights"])
def test_truncated_weights(model_folder, tmp_path, keep, capsys):
    folder = shutil.copytree(model_folder("llama"), tmp_path / "m")
    weights = folder / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: keep if keep > 1 else int(len(raw) * keep)])
    assert main(["sites", str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"lensing: {weights} is truncated or corrupt")
    assert said.count("\n") == 1


def test_doctor_says_what_is_amiss(monkeypatch, capsys):
    monkeypatch.setattr("lensing.registry.shipped_models", dict)
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == torch.__version__
    assert found["amiss"] == ["No model ships with this copy. Say make world to make one, or fetch the package again."]
    assert main(["doctor"]) == 1
    assert "Amiss: No model ships with this copy." in capsys.readouterr().out


def test_doctor_is_content(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("lensing.registry.shipped_models", lambda: {"almanac": tmp_path})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    assert main(["doctor"]) == 0
    assert "All is well." in capsys.readouterr().out


def test_weights_that_were_damaged_beyond_their_header(model_folder, tmp_path, capsys):
    folder = shutil.copytree(model_folder("llama"), tmp_path / "damaged")
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(-4000, 2)
        file.write(b"\xff" * 4000)
    assert main(["sites", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "gives numbers that are not finite; its weights are damaged. Copy or download it again.\n" in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
