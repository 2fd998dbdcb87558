"""circuit-tracer's cross-layer transcoders: read and written, against the formula over dense numpy arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import lensing as ln
from lensing.cli import main
from lensing.dictionary.crosslayer import new_cross_layer
from lensing.dictionary.crossload import write_cross_layer
from lensing.errors import DictionaryError, FileFormatError, UsageError

D, F, LAYERS, ROWS = 6, 14, 3, 40


def folder(path: Path, *, thresholds: bool, config: bool = True, seed: int = 0) -> Path:
    g = np.random.default_rng(seed)
    path.mkdir()
    for i in range(LAYERS):
        named: dict[str, Any] = {
            f"W_enc_{i}": g.normal(size=(F, D)), f"b_enc_{i}": 0.3 * g.normal(size=F), f"b_dec_{i}": g.normal(size=D)
        }  # fmt: skip
        if thresholds:
            named[f"threshold_{i}"] = g.uniform(0.1, 1.5, size=F)
        save_file({k: v.astype(np.float32) for k, v in named.items()}, path / f"W_enc_{i}.safetensors")
        W_dec = g.normal(size=(F, LAYERS - i, D)) * g.uniform(0.5, 2, size=(F, 1, 1))
        save_file({f"W_dec_{i}": W_dec.astype(np.float32)}, path / f"W_dec_{i}.safetensors")
    if config:
        head = {"model_kind": "cross_layer_transcoder", "model_name": "google/gemma-2-2b"}
        hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
        (path / "config.yaml").write_text(json.dumps(head | hooks))
    return path


def rows() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(LAYERS, ROWS, D)).astype(np.float32)


def dense(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Features, reconstruction and lengths of decoder rows, as the tool's own equations state them."""
    f, y, lengths = np.zeros((LAYERS, ROWS, F)), np.zeros((LAYERS, ROWS, D)), []
    for i in range(LAYERS):
        enc, dec = load_file(path / f"W_enc_{i}.safetensors"), load_file(path / f"W_dec_{i}.safetensors")
        pre = x[i].astype(np.float64) @ enc[f"W_enc_{i}"].T.astype(np.float64) + enc[f"b_enc_{i}"]
        f[i] = pre * (pre > enc[f"threshold_{i}"]) if f"threshold_{i}" in enc else np.maximum(pre, 0)
        y[i] += enc[f"b_dec_{i}"]
        for j in range(i, LAYERS):
            y[j] += f[i] @ dec[f"W_dec_{i}"][:, j - i]
        lengths.append(np.sqrt((dec[f"W_dec_{i}"].astype(np.float64) ** 2).sum((1, 2))))
    return f, y, lengths


@pytest.mark.parametrize("thresholds", [False, True])
def test_read_and_written(tmp_path: Path, thresholds: bool) -> None:
    path = folder(tmp_path / "theirs", thresholds=thresholds)
    f, y, lengths = dense(path, rows())
    assert 0.05 < (f > 0).mean() < 0.6
    clt = ln.load_cross_layer(path)
    assert (clt.reads[2], clt.writes[2]) == ("resid_mid.2", "mlp_out.2")
    assert clt.model_name == "google/gemma-2-2b"
    x = list(torch.from_numpy(rows()))
    for i, (codes, y_hat) in enumerate(zip(clt.encode(x), clt.reconstruct(x), strict=True)):
        assert np.abs(codes.dense().numpy() - f[i] * lengths[i]).max() < 1e-4
        assert np.abs(y_hat.numpy() - y[i]).max() < 1e-4
    written = write_cross_layer(clt, tmp_path / "ours", "circuit-tracer")
    _, again, _ = dense(written, rows())
    assert np.abs(again - y).max() < 1e-4
    assert json.loads((written / "config.yaml").read_text())["feature_input_hook"] == "hook_resid_mid"


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "theirs", thresholds=True, config=False)
    assert main(["convert", str(path), str(tmp_path / "ours"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["d_sae"], report["site"]) == (3 * F, "resid_mid.0+resid_mid.1+resid_mid.2")
    clt = ln.load_cross_layer(tmp_path / "ours")
    _, y, _ = dense(path, rows())
    assert np.abs(torch.stack(clt.reconstruct(list(torch.from_numpy(rows())))).numpy() - y).max() < 1e-4
    assert main(["convert", str(path), str(tmp_path / "ours"), "--to", "circuit-tracer"]) == 2
    assert main(["convert", str(path), str(tmp_path / "other"), "--to", "saelens"]) == 1
    assert "has no cross-layer transcoders" in capsys.readouterr().err


def test_refusals(tmp_path: Path) -> None:
    path = folder(tmp_path / "x", thresholds=True)
    bad = load_file(path / "W_dec_1.safetensors")
    save_file({"W_dec_1": bad["W_dec_1"][:, :1]}, path / "W_dec_1.safetensors")
    with pytest.raises(FileFormatError, match=r"W_dec_1 has shape \[14, 1, 6\].*\[14, 2, 6\]"):
        ln.load_cross_layer(path)
    (path / "W_dec_1.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"W_dec_1\.safetensors is missing"):
        ln.load_cross_layer(path)
    with pytest.raises(DictionaryError, match=r"Load it with ln\.load_cross_layer"):
        ln.load_dictionary(path)
    with pytest.raises(DictionaryError, match=r"holds no config\.json"):
        ln.load_cross_layer(tmp_path / "nothing")
    clt = new_cross_layer(ln.TopK(width=8, k=2), (4, 4), (4, 4))
    with pytest.raises(DictionaryError, match="has TopK latents"):
        write_cross_layer(clt, tmp_path / "y", "circuit-tracer")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "file").touch()
    with pytest.raises(UsageError, match="holds something already"):
        write_cross_layer(clt, tmp_path / "z")
