"""Gemma Scope 1 and 2 and Llama Scope: folders in their layouts against their formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dictionary.formats.making import OUT, D, F, check, rows, weights, write_folder

from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, FileFormatError, UnknownNameError

BASIC = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


def jump(w: dict[str, torch.Tensor]) -> torch.Tensor:
    pre = rows() @ w["W_enc"] + w["b_enc"]
    return torch.where(pre > w["threshold"], pre, 0.0)


def npz(folder: Path, w: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: w[name].numpy() for name in BASIC if name in w})
    return folder


@pytest.mark.parametrize(
    ("place", "site", "model"),
    [
        ("gemma-scope-2b-pt-mlp/layer_20/width_16k/average_l0_71", "mlp_out.20", "google/gemma-2-2b"),
        ("gemma-scope-9b-it-res/layer_9/width_16k/average_l0_88", "resid_post.9", "google/gemma-2-9b-it"),
        ("gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_9", "attn_z.3", "google/gemma-2-2b"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "embed", "google/gemma-2-2b"),
        ("elsewhere", None, None),
    ],
)
def test_gemma_scope(tmp_path: Path, place: str, site: str | None, model: str | None) -> None:
    w = weights()
    sae = load_dictionary(npz(tmp_path / place, w))
    f = jump(w)
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.site, sae.model_name, sae.centred, sae.is_transcoder) == (site, model, False, False)


def test_a_gemma_scope_transcoder(tmp_path: Path) -> None:
    w = weights()
    path = npz(tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_4" / "width_16k" / "average_l0_7", w)
    sae = load_dictionary(path / "params.npz")
    assert (sae.site, sae.target) == ("blocks.4.ln2.hook_normalized", "mlp_out.4")
    f = jump(w)
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))


def test_gemma_scope_refusals(tmp_path: Path) -> None:
    w = weights()
    lacking = npz(tmp_path / "a", {name: w[name] for name in BASIC if name != "threshold"})
    with pytest.raises(FileFormatError, match="lacks threshold"):
        load_dictionary(lacking)
    with pytest.raises(FileFormatError, match=r"W_dec .* has shape"):
        load_dictionary(npz(tmp_path / "b", w | {"W_dec": w["W_dec"].t()}))
    (lacking / "params.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FileFormatError, match="truncated or corrupt"):
        load_dictionary(lacking)
    np.savez(lacking / "params.npz", W_enc=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(FileFormatError, match="truncated or corrupt"):
        load_dictionary(lacking)


def gemma_2(folder: Path, d_out: int = D, drop: str = "", **changes: Any) -> Path:
    config = {
        "architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "affine_connection": False,
        "hf_hook_point_in": "model.layers.12.post_feedforward_layernorm.output",
    } | changes  # fmt: skip
    w = weights(d_out)
    tensors = {name.lower(): w[name] for name in BASIC if name != drop}
    if config["affine_connection"]:
        tensors["affine_skip_connection"] = w["W_skip"].t()
    return write_folder(folder, config, tensors, ("config.json", "params.safetensors"))


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("model.layers.12.post_feedforward_layernorm.output", "mlp_out.12"),
        ("model.layers.12.output", "resid_post.12"),
        ("model.layers.12.self_attn.o_proj.input", "attn_z.12"),
    ],
)
def test_gemma_scope_2(tmp_path: Path, hook: str, site: str) -> None:
    w, f = weights(), jump(weights())
    sae = load_dictionary(gemma_2(tmp_path / "x", hf_hook_point_in=hook))
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.site, sae.model_name, sae.target) == (site, "google/gemma-3-1b-pt", None)


@pytest.mark.parametrize("affine", [False, True])
def test_a_gemma_scope_2_transcoder(tmp_path: Path, affine: bool) -> None:
    w = weights(OUT)
    hooks = {
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
    }
    sae = load_dictionary(gemma_2(tmp_path / "x", OUT, affine_connection=affine, **hooks))
    f = jump(w)
    y = f @ w["W_dec"] + w["b_dec"] + (rows() @ w["W_skip"].t() if affine else 0)
    check(sae, f, y, w["W_dec"].norm(dim=1))
    assert (sae.site, sae.target) == ("mlp_in.3", "mlp_out.3")


def test_gemma_scope_2_refusals(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no Gemma Scope 2 architecture named 'topk'"):
        load_dictionary(gemma_2(tmp_path / "a", architecture="topk"))
    with pytest.raises(FileFormatError, match="lacks b_enc"):
        load_dictionary(gemma_2(tmp_path / "b", drop="b_enc"))
    with pytest.raises(DictionaryError, match="affine connection"):
        load_dictionary(gemma_2(tmp_path / "c", affine_connection=True))
    (gemma_2(tmp_path / "d") / "config.json").unlink()
    with pytest.raises(FileFormatError, match=r"config\.json is missing"):
        load_dictionary(tmp_path / "d")
    cross = {name.lower(): tensor for name, tensor in weights().items() if name in BASIC}
    cross["w_dec"] = cross["w_dec"][:, None].repeat(1, 3, 1)
    config = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.3.output"}
    write_folder(tmp_path / "e", config, cross, ("config.json", "params.safetensors"))
    with pytest.raises(DictionaryError, match="is a cross-layer transcoder"):
        load_dictionary(tmp_path / "e")


def llama(folder: Path, d_out: int = D, **changes: Any) -> Path:
    config = {
        "act_fn": "jumprelu", "jump_relu_threshold": 0.33, "d_model": D, "d_sae": F, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 4.5, "out": 4.5}, "sparsity_include_decoder_norm": True,
        "hook_point_in": "blocks.15.hook_resid_post", "hook_point_out": "blocks.15.hook_resid_post",
        "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "top_k": 50,
    } | changes  # fmt: skip
    w = weights(d_out)
    tensors = {
        "encoder.weight": w["W_enc"].t(), "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].t(),
        "decoder.bias": w["b_dec"],
    }  # fmt: skip
    return write_folder(folder, config, tensors, ("hyperparams.json", "checkpoints/final.safetensors"))


@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("is_transcoder", [True, False])
def test_llama_scope(tmp_path: Path, by_norm: bool, is_transcoder: bool) -> None:
    changes: dict[str, Any] = {"sparsity_include_decoder_norm": by_norm}
    if is_transcoder:
        changes |= {
            "hook_point_in": "blocks.15.ln2.hook_normalized", "hook_point_out": "blocks.15.hook_mlp_out",
            "dataset_average_activation_norm": {"in": 4.5, "out": 2.25},
        }  # fmt: skip
    w = weights()
    sae = load_dictionary(llama(tmp_path / "x", **changes))
    s_in, s_out = math.sqrt(D) / 4.5, math.sqrt(D) / (2.25 if is_transcoder else 4.5)
    lengths = w["W_dec"].norm(dim=1) / s_out  # of decoder rows in raw space
    pre = s_in * rows() @ w["W_enc"] + w["b_enc"]
    f = torch.where((pre * lengths if by_norm else pre) > 0.33, pre, 0.0)
    check(sae, f, (f @ w["W_dec"] + w["b_dec"]) / s_out, lengths)
    assert sae.site == ("blocks.15.ln2.hook_normalized" if is_transcoder else "resid_post.15")
    assert (sae.target, sae.is_transcoder) == ("mlp_out.15" if is_transcoder else None, is_transcoder)
    if by_norm:  # one threshold on what a latent writes
        assert torch.allclose(sae.get_parameter("threshold"), torch.tensor(0.33))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"act_fn": "topk"}, UnknownNameError, "no Llama Scope architecture named 'topk'"),
        ({"norm_activation": "token-wise"}, DictionaryError, "normalises every vector"),
        ({"dataset_average_activation_norm": None}, FileFormatError, "does not say dataset_average_activation_norm"),
        ({"dataset_average_activation_norm": {"in": 0}}, DictionaryError, "mean norms of 0.0"),
        ({"jump_relu_threshold": None}, FileFormatError, "does not say jump_relu_threshold"),
        ({"d_sae": F + 1}, FileFormatError, "the config says d_sae is 25"),
    ],
)
def test_llama_scope_refusals(tmp_path: Path, changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        load_dictionary(llama(tmp_path / "x", **changes))
