"""sparsify's folders: TopK and skip transcoders against the formula written out, round trips, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionary.formats.making import D, F, check, keep_top, round_trip, rows, weights, write_folder
from dictionary.test_architectures import CONFIGS, make

import lensing as ln
from lensing.dictionary.base import new_dictionary
from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, FileFormatError, UnknownNameError

NAMES = ("cfg.json", "sae.safetensors")


def folder(path: Path, **changes: Any) -> Path:
    config = {
        "activation": "topk", "expansion_factor": F // D, "normalize_decoder": True, "num_latents": 0, "k": 4,
        "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D,
    } | changes  # fmt: skip
    w = weights()
    tensors = {
        "encoder.weight": w["W_enc"].t(),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    if config["skip_connection"]:
        tensors["W_skip"] = w["W_skip"]
    return write_folder(path, config, tensors, NAMES)


def test_an_autoencoder(tmp_path: Path) -> None:
    w = weights()
    path = folder(tmp_path / "run" / "layers.3")
    (path.parent / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m"}))
    sae = load_dictionary(path)
    f = keep_top((rows() - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 4)
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.site, sae.model_name, sae.d_sae) == ("resid_post.3", "EleutherAI/pythia-70m", F)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder(tmp_path: Path, skip: bool) -> None:
    w = weights()
    sae = load_dictionary(folder(tmp_path / "h.5.mlp", transcode=True, skip_connection=skip, num_latents=F))
    f = keep_top(rows() @ w["W_enc"] + w["b_enc"], 4)
    y = f @ w["W_dec"] + w["b_dec"] + (rows() @ w["W_skip"].t() if skip else 0)
    check(sae, f, y, w["W_dec"].norm(dim=1))
    assert (sae.site, sae.target, sae.centred) == ("mlp_in.5", "mlp_out_raw.5", False)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"activation": "groupmax"}, UnknownNameError, "'groupmax'"),
        ({"signed": True}, UnknownNameError, "signed topk"),
        ({"skip_connection": True}, DictionaryError, "autoencoder with a skip connection"),
        ({"num_latents": 32}, FileFormatError, "the config says d_sae is 32"),
        ({"d_in": 12}, FileFormatError, "has shape"),
        ({"k": None}, FileFormatError, "does not say k"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        load_dictionary(folder(tmp_path / "layers.3", **changes))


@pytest.mark.parametrize("centred", [True, False])
def test_there_and_back(tmp_path: Path, centred: bool) -> None:
    sae = make("topk")
    sae.centred = centred
    again = round_trip(sae, tmp_path / "x", "sparsify")
    x = rows(10)
    assert (again.encode(x).dense() - sae.encode(x).dense()).abs().max() < 1e-5
    assert (again.reconstruct(x) - sae.reconstruct(x)).abs().max() < 1e-5
    assert (again.site, again.model_name) == ("mlp_in.1", "tiny")


def test_a_skip_transcoder_there_and_back(tmp_path: Path) -> None:
    sae = new_dictionary(ln.TopK(width=48, k=4), 10, d_out=10, skip=True).requires_grad_(False)
    for parameter in sae.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    again = round_trip(sae, tmp_path / "x", "sparsify")
    x = rows(10)
    assert (again.reconstruct(x) - sae.reconstruct(x)).abs().max() < 1e-5
    assert (again.site, again.target) == ("mlp_in.1", "mlp_out.1")


@pytest.mark.parametrize("architecture", [name for name in CONFIGS if name != "topk"])
def test_only_topk_is_written(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(DictionaryError, match=f"a {architecture} dictionary, which the format of sparsify"):
        round_trip(make(architecture), tmp_path / "x", "sparsify")
    for wiring, words in (("crosscoder", "a crosscoder"), ("transcoder", "from 10 to 7 numbers")):
        with pytest.raises(DictionaryError, match=words):
            round_trip(make("topk", wiring), tmp_path / "x", "sparsify")
    assert list(tmp_path.iterdir()) == []
