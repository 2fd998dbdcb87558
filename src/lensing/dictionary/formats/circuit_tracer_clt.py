"""circuit-tracer's cross-layer transcoders: `config.yaml`, and for each layer `W_enc_<i>` and `W_dec_<i>.safetensors`.

pre_i = x_i W_enc_i.T + b_enc_i with latents in rows, f_i is relu(pre_i), or pre_i above `threshold_i`;
y_j = b_dec_j + the sum over i <= j of f_i W_dec_i[:, j - i]. Hooks default to hook_resid_mid and hook_mlp_out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lensing.dictionary.configs import JOIN
from lensing.dictionary.crosslayer import CrossLayer
from lensing.dictionary.formats.circuit_tracer import CONFIG, read_config
from lensing.dictionary.formats.foreign import Foreign, build, take
from lensing.dictionary.formats.hooks import hook_of_site, site_of_hook
from lensing.dictionary.formats.latents import exported
from lensing.dictionary.tensors import read_tensors
from lensing.errors import DictionaryError, FileFormatError

READ, WRITTEN = "hook_resid_mid", "hook_mlp_out"


def detect(path: Path) -> bool:
    """Whether `path` is a folder with the first layer's encoder."""
    return (path / "W_enc_0.safetensors").is_file()


def read(path: Path) -> CrossLayer:
    """Read a cross-layer transcoder, decoder rows end to end of length 1; what is rebuilt is as it was."""
    config = read_config(path / CONFIG) if (path / CONFIG).is_file() else {}
    count = len(list(path.glob("W_enc_*.safetensors")))
    tensors = [_layer(path, i, count) for i in range(count)]
    widths = [len(layer["b_dec"]) for layer in tensors]
    reads = [site_of_hook(config.get("feature_input_hook", READ), i) for i in range(count)]
    writes = [site_of_hook(config.get("feature_output_hook", WRITTEN), i) for i in range(count)]
    layers = []
    for i, found in enumerate(tensors):
        where = path / f"W_dec_{i}.safetensors"
        b_dec = torch.zeros(sum(widths[i:]), dtype=torch.float64)
        b_dec[: widths[i]] = found["b_dec"]
        threshold = found.get("threshold")
        if threshold is not None and bool((threshold < 0).any()):
            raise FileFormatError(f"{path} has thresholds below zero in layer {i}. Fetch or save it again.")
        foreign = Foreign(
            architecture="relu" if threshold is None else "jumprelu", W_enc=found["W_enc"].t(),
            W_dec=found["W_dec"].flatten(1), b_enc=found["b_enc"], b_dec=b_dec, is_transcoder=True, threshold=threshold,
        )  # fmt: skip
        layers.append(build(foreign, where))
    clt = CrossLayer(layers)
    clt.site, clt.target = JOIN.join(map(str, reads)), JOIN.join(map(str, writes))
    clt.model_name = config.get("model_name")
    return clt.requires_grad_(False).eval()


def write(clt: CrossLayer, folder: Path) -> None:
    """Write a ReLU or JumpReLU (or BatchTopK, as a threshold) cross-layer transcoder; DictionaryError for others."""
    hooks = [_hook(sites) for sites in (clt.reads, clt.writes)]
    if clt.architecture == "topk" or clt.has_skip or len({*clt.parts, *clt.out_parts}) != 1 or None in hooks:
        raise DictionaryError(
            f"{clt} has TopK latents, a skip connection, sites of several widths or of several kinds, or does not "
            "begin at layer 0, which circuit-tracer's format cannot express. Write it as lensing."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for i, layer in enumerate(clt):
        found = exported(layer)
        encoder = {"W_enc": found["W_enc"].t(), "b_enc": found["b_enc"], "b_dec": found["b_dec"][: clt.out_parts[i]]}
        if "threshold" in found:
            encoder["threshold"] = found["threshold"]
        decoder = {"W_dec": found["W_dec"].view(layer.d_sae, len(clt) - i, -1)}
        for name, part in (("W_enc", encoder), ("W_dec", decoder)):
            named = {f"{key}_{i}": tensor.contiguous() for key, tensor in part.items()}
            save_file(named, str(folder / f"{name}_{i}.safetensors"))
    record = {
        "model_kind": "cross_layer_transcoder", "model_name": clt.model_name,
        "feature_input_hook": hooks[0], "feature_output_hook": hooks[1],
    }  # fmt: skip
    # JSON is YAML, and needs no package
    (folder / CONFIG).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _hook(sites: tuple[str, ...]) -> str | None:
    # the one hook that all sites are of, layer by layer from 0
    found = [re.fullmatch(rf"blocks\.{i}\.(.+)", str(hook_of_site(site))) for i, site in enumerate(sites)]
    names = {match[1] if match else None for match in found}
    return names.pop() if len(names) == 1 else None


def _layer(path: Path, i: int, count: int) -> dict[str, Tensor]:
    encoder, decoder = path / f"W_enc_{i}.safetensors", path / f"W_dec_{i}.safetensors"
    tensors = read_tensors(encoder)
    W_enc, b_enc, b_dec = take(tensors, encoder, f"W_enc_{i}", f"b_enc_{i}", f"b_dec_{i}")
    (W_dec,) = take(read_tensors(decoder), decoder, f"W_dec_{i}")
    expected = (len(b_enc), count - i, len(b_dec))
    if tuple(W_dec.shape) != expected:
        raise FileFormatError(
            f"{decoder}: W_dec_{i} has shape {list(W_dec.shape)}, latents, layers from {i} on and their width say "
            f"{list(expected)}. Fetch or save it again."
        )
    found: dict[str, Any] = {"W_enc": W_enc, "b_enc": b_enc, "b_dec": b_dec, "W_dec": W_dec}
    if f"threshold_{i}" in tensors:
        found["threshold"] = tensors[f"threshold_{i}"].double().flatten()
    return found
