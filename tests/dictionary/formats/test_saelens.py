"""SAELens' folders: every architecture against its formula written out, old configs, round trips, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionary.formats.making import OUT, D, F, check, keep_top, round_trip, rows, weights, write_folder
from dictionary.test_architectures import CONFIGS, make
from safetensors.torch import load_file

from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, FileFormatError, UnknownNameError

NAMES = ("cfg.json", "sae_weights.safetensors")
META = {"model_name": "gpt2", "hook_name": "blocks.3.hook_mlp_out", "sae_lens_version": "6.22.0"}
BASIC = ("W_enc", "W_dec", "b_enc", "b_dec")


def folder(path: Path, architecture: str, names: tuple[str, ...] = BASIC, **changes: Any) -> Path:
    config = {
        "architecture": architecture, "d_in": D, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none", "metadata": META,
    } | changes  # fmt: skip
    w = weights(config.get("d_out", D))
    return write_folder(path, config, {name: w[name] for name in names}, NAMES)


def pre_of(w: dict[str, torch.Tensor], centred: bool) -> torch.Tensor:
    return (rows() - w["b_dec"] if centred else rows()) @ w["W_enc"] + w["b_enc"]


@pytest.mark.parametrize("centred", [True, False])
def test_standard(tmp_path: Path, centred: bool) -> None:
    w = weights()
    sae = load_dictionary(folder(tmp_path / "x", "standard", apply_b_dec_to_input=centred))
    f = pre_of(w, centred).relu()
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.site, sae.model_name, sae.centred, sae.architecture) == ("mlp_out.3", "gpt2", centred, "relu")


@pytest.mark.parametrize("rescale", [False, True])
def test_topk(tmp_path: Path, rescale: bool) -> None:
    w = weights()
    sae = load_dictionary(folder(tmp_path / "x", "topk", k=4, rescale_acts_by_decoder_norm=rescale))
    norm = w["W_dec"].norm(dim=1)
    pre = pre_of(w, True)
    f = keep_top(pre, 4, by=pre * norm if rescale else None)
    check(sae, f, f @ w["W_dec"] + w["b_dec"], norm)
    assert sae.config.k == 4


@pytest.mark.parametrize("log", [False, True])
def test_jumprelu(tmp_path: Path, log: bool) -> None:
    w = weights()
    path = folder(tmp_path / "x", "jumprelu", (*BASIC, "threshold"))
    if log:
        tensors = load_file(path / NAMES[1])
        tensors["log_threshold"] = tensors.pop("threshold").log()
        write_folder(path, json.loads((path / NAMES[0]).read_text()), tensors, NAMES)
    pre = pre_of(w, True)
    f = torch.where(pre > w["threshold"], pre, 0.0)
    check(load_dictionary(path), f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))


def test_gated(tmp_path: Path) -> None:
    w = weights()
    path = folder(tmp_path / "x", "gated", (*BASIC, "r_mag", "b_mag"))
    tensors = load_file(path / NAMES[1])
    tensors["b_gate"] = tensors.pop("b_enc")
    write_folder(path, json.loads((path / NAMES[0]).read_text()), tensors, NAMES)
    inner = (rows() - w["b_dec"]) @ w["W_enc"]
    f = (inner + w["b_enc"] > 0) * (inner * w["r_mag"].exp() + w["b_mag"]).relu()
    check(load_dictionary(path), f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))


@pytest.mark.parametrize("name", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"])
def test_transcoders(tmp_path: Path, name: str) -> None:
    w = weights(OUT)
    names = BASIC + (("threshold",) if "jump" in name else ()) + (("W_skip",) if "skip" in name else ())
    meta = META | {"hook_name": "blocks.3.mlp.hook_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    sae = load_dictionary(folder(tmp_path / "x", name, names, d_out=OUT, apply_b_dec_to_input=False, metadata=meta))
    pre = pre_of(w, False)
    f = torch.where(pre > w["threshold"], pre, 0.0) if "jump" in name else pre.relu()
    y = f @ w["W_dec"] + w["b_dec"] + (rows() @ w["W_skip"].t() if "skip" in name else 0)
    check(sae, f, y, w["W_dec"].norm(dim=1))
    assert (sae.site, sae.target, sae.is_transcoder) == ("mlp_in.3", "mlp_out.3", True)


def test_a_scale_beside_the_weights_is_folded_in(tmp_path: Path) -> None:
    w, s = weights(), 0.25
    path = folder(tmp_path / "x", "standard", normalize_activations="expected_average_only_in")
    with pytest.raises(DictionaryError, match="does not say the scale"):
        load_dictionary(path)
    (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": s, "has_whitening": False}))
    f = ((s * rows() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    check(load_dictionary(path), f, (f @ w["W_dec"] + w["b_dec"]) / s, w["W_dec"].norm(dim=1) / s)


def test_a_flat_config_of_version_3(tmp_path: Path) -> None:
    w = weights()
    config = {
        "model_name": "gemma-2b", "hook_point": "blocks.6.hook_resid_post", "d_in": D, "d_sae": F,
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": False,
    }  # fmt: skip
    sae = load_dictionary(write_folder(tmp_path / "x", config, {n: w[n] for n in BASIC}, NAMES))
    f = keep_top(pre_of(w, True), 3)
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.site, sae.model_name) == ("resid_post.6", "gemma-2b")


def test_models_that_transformerlens_changed_are_refused(tmp_path: Path) -> None:
    flat = {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre", "d_in": D, "d_sae": F}
    w = {n: weights()[n] for n in BASIC}
    path = write_folder(tmp_path / "x", flat, w, NAMES)
    with pytest.raises(DictionaryError, match=r"resid_pre\.8 of gpt2-small that TransformerLens may have changed"):
        load_dictionary(path)
    for value, refused in ((True, True), (False, False)):
        told = flat | {"model_from_pretrained_kwargs": {"center_writing_weights": value}}
        write_folder(path, told, w, NAMES)
        if refused:
            with pytest.raises(DictionaryError, match="had centred"):
                load_dictionary(path)
        else:
            assert load_dictionary(path).site == "resid_pre.8"
    # neurons and models with an RMS norm are what they are
    for change in ({"hook_name": "blocks.8.mlp.hook_post"}, {"model_name": "gemma-2b"}):
        assert load_dictionary(write_folder(path, flat | change, w, NAMES)).site


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"architecture": "temporal"}, UnknownNameError, "no SAELens architecture named 'temporal'"),
        ({"normalize_activations": "layer_norm"}, DictionaryError, "normalises every vector"),
        ({"d_sae": F + 1}, FileFormatError, "the config says d_sae is 25, the weights say 24"),
        ({"d_in": D + 1}, FileFormatError, "W_enc .* has shape"),
        ({"architecture": "topk"}, FileFormatError, "does not say k"),
        ({"architecture": "topk", "k": 99}, FileFormatError, "k is 99"),
        ({"architecture": "jumprelu"}, FileFormatError, "lacks threshold"),
        ({"activation_fn_str": "tanh-relu"}, UnknownNameError, "tanh-relu"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    config = {"architecture": "standard", "d_in": D, "d_sae": F, "metadata": META} | changes
    path = write_folder(tmp_path / "x", config, {n: weights()[n] for n in BASIC}, NAMES)
    with pytest.raises(kind, match=words):
        load_dictionary(path)


def test_broken_weights(tmp_path: Path) -> None:
    path = folder(tmp_path / "x", "standard")
    config, whole = json.loads((path / NAMES[0]).read_text()), load_file(path / NAMES[1])
    write_folder(path, config, whole | {"W_dec": whole["W_dec"] * float("nan")}, NAMES)
    with pytest.raises(FileFormatError, match="W_dec holds numbers that are not finite"):
        load_dictionary(path)
    write_folder(path, config, whole | {"W_dec": whole["W_dec"].t().contiguous()}, NAMES)
    with pytest.raises(FileFormatError, match=r"W_dec .* has shape \[8, 24\]"):
        load_dictionary(path)
    (path / NAMES[0]).write_text("{")
    with pytest.raises(FileFormatError, match="is not JSON"):
        load_dictionary(path)


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("wiring", ["autoencoder", "transcoder", "skip", "crosscoder"])
def test_there_and_back(tmp_path: Path, architecture: str, wiring: str) -> None:
    sae = make(architecture, wiring)
    if wiring == "crosscoder" or (wiring != "autoencoder" and architecture in ("topk", "gated")):
        with pytest.raises(DictionaryError, match="which the format of SAELens cannot express"):
            round_trip(sae, tmp_path / "x", "saelens")
        assert list(tmp_path.iterdir()) == []
        return
    again = round_trip(sae, tmp_path / "x", "saelens")
    assert (again.encode(rows(10)).dense() - sae.encode(rows(10)).dense()).abs().max() < 1e-5
    assert (again.reconstruct(rows(10)) - sae.reconstruct(rows(10))).abs().max() < 1e-5
    assert (again.site, again.target, again.model_name) == (sae.site, sae.target, "tiny")
    assert (again.centred, again.is_transcoder) == (sae.centred, sae.is_transcoder)
