"""circuit-tracer's sets: one layer at a time against its formula, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionary.formats.making import D, F, check, keep_top, rows, weights
from safetensors.torch import save_file

from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, FileFormatError, UnknownNameError, UsageError

HEAD = """model_name: "Qwen/Qwen3-0.6B"
model_kind: transcoder_set
feature_input_hook: mlp.hook_in
feature_output_hook: "blocks.{layer}.mlp.hook_out"
"""
pytest.importorskip("yaml")


def folder(path: Path, names: tuple[str, ...] = (), layers: tuple[int, ...] = (3,), head: str = HEAD) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(head)
    for layer in layers:
        w = weights(seed=layer)
        tensors = {"W_enc": w["W_enc"].t(), "W_dec": w["W_dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
        for name in names:
            tensors["activation_function.threshold" if name == "threshold" else name] = w[name]
        save_file({k: t.contiguous() for k, t in tensors.items()}, path / f"layer_{layer}.safetensors")
    return path


@pytest.mark.parametrize("activation", ["relu", "threshold", "topk"])
@pytest.mark.parametrize("skip", [False, True])
def test_one_layer(tmp_path: Path, activation: str, skip: bool) -> None:
    w = weights(seed=3)
    names = (("threshold",) if activation == "threshold" else ()) + (("W_skip",) if skip else ())
    head = HEAD + ("activation: topk\nk: 4\n" if activation == "topk" else "")
    sae = load_dictionary(folder(tmp_path / "x", names, head=head))
    pre = rows() @ w["W_enc"] + w["b_enc"]
    f = {"relu": pre.relu(), "threshold": pre * (pre > w["threshold"]), "topk": keep_top(pre, 4)}[activation]
    y = f @ w["W_dec"] + w["b_dec"] + (rows() @ w["W_skip"].t() if skip else 0)
    check(sae, f, y, w["W_dec"].norm(dim=1))
    assert (sae.site, sae.target, sae.model_name) == ("mlp_in.3", "mlp_out_raw.3", "Qwen/Qwen3-0.6B")


def test_one_of_several_layers(tmp_path: Path) -> None:
    path = folder(tmp_path / "x", layers=(0, 1, 2))
    with pytest.raises(DictionaryError, match=r"holds 3 dictionaries \(layer_0.safetensors, .*Give one"):
        load_dictionary(path)
    sae = load_dictionary(path / "layer_2.safetensors")
    assert sae.site == "mlp_in.2"
    w = weights(seed=2)
    f = (rows() @ w["W_enc"] + w["b_enc"]).relu()
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))


@pytest.mark.parametrize(
    ("head", "kind", "words"),
    [
        (HEAD.replace("transcoder_set", "cross_layer_transcoder"), DictionaryError, "is a cross-layer transcoder"),
        (HEAD.replace("transcoder_set", "lorsa"), UnknownNameError, "'lorsa'"),
        (HEAD + "activation: tanh\n", UnknownNameError, "'tanh'"),
        (HEAD + "activation: topk\n", FileFormatError, "does not say k"),
        ("- a\n- list\n", FileFormatError, "does not hold a mapping"),
        ("a: [", FileFormatError, "is not YAML"),
    ],
)
def test_refusals(tmp_path: Path, head: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        load_dictionary(folder(tmp_path / "x", head=head))


def test_square_matrices_show_no_direction(tmp_path: Path) -> None:
    path = folder(tmp_path / "x")
    square: dict[str, Any] = {"W_enc": torch.eye(D), "W_dec": torch.eye(D), "b_enc": torch.ones(D)}
    save_file(square | {"b_dec": torch.ones(D)}, path / "layer_3.safetensors")
    with pytest.raises(FileFormatError, match=f"as many latents as its vectors have numbers \\({D}\\)"):
        load_dictionary(path)
    save_file(square | {"b_enc": torch.ones(F), "b_dec": torch.ones(D)}, path / "layer_3.safetensors")
    with pytest.raises(FileFormatError, match="has shape"):
        load_dictionary(path)


def test_a_folder_without_layers_and_a_python_without_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "x", layers=())
    with pytest.raises(FileFormatError, match=r"no layer_<i>\.safetensors"):
        load_dictionary(path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError, match="pip install pyyaml"):
        load_dictionary(path)
