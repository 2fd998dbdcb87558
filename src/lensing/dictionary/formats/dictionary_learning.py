"""dictionary_learning (Marks et al.): `ae.pt`, a pickle, and `config.json` in `trainer_i`, read.

Equations and names are those of dictionary_learning 0.1.0 (`dictionary.py`, `trainers/`). BatchTopK and Matryoshka are
read with their threshold, as that tool uses them at inference; TopK keeps the k largest.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import Foreign, build, read_config, refuse_architecture, setting, take
from lensing.dictionary.formats.hooks import site_of_module
from lensing.dictionary.tensors import refuse_pickle, unpickle
from lensing.errors import FileFormatError

CONFIG, WEIGHTS = "config.json", "ae.pt"
CLASSES = (
    "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
)  # fmt: skip


def detect(path: Path) -> bool:
    """Whether `path` is a folder with ae.pt, or that file."""
    return path.name == WEIGHTS or (path / WEIGHTS).is_file()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read one trainer's folder; UnsafeFileError without `allow_pickle`."""
    folder = path.parent if path.name == WEIGHTS else path
    where = folder / WEIGHTS
    refuse_pickle(where, allow_pickle)
    config = setting(read_config(folder / CONFIG), "trainer", folder / CONFIG)
    name = str(setting(config, "dict_class", folder / CONFIG))
    if name not in CLASSES:
        refuse_architecture(name, "dictionary_learning", list(CLASSES))
    tensors = unpickle(where, allow_pickle=allow_pickle)
    sizes = {ours: int(config[theirs]) for ours, theirs in _SIZES.items() if config.get(theirs) is not None}
    found = Foreign(
        **_parts(name, tensors, where, config), site=_site(config), model=config.get("lm_name"), checked=sizes
    )
    return build(found, where)


_SIZES = {"d_in": "activation_dim", "d_sae": "dict_size"}


def _parts(name: str, tensors: dict[str, Any], where: Path, config: dict[str, Any]) -> dict[str, Any]:
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        W_enc, W_dec, b_enc, b_dec = take(tensors, where, "W_enc", "W_dec", "b_enc", "b_dec")
    else:
        encoder, decoder = take(tensors, where, "encoder.weight", "decoder.weight")
        W_enc, W_dec = encoder.t(), decoder.t()
        biases = {
            "AutoEncoder": ("encoder.bias", "bias"),
            "AutoEncoderNew": ("encoder.bias", "decoder.bias"),
            "GatedAutoEncoder": ("gate_bias", "decoder_bias"),
        }
        b_enc, b_dec = take(tensors, where, *biases.get(name, ("encoder.bias", "b_dec")))
    parts: dict[str, Any] = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "centred": True}
    match name:
        case "AutoEncoder":
            return parts | {"architecture": "relu"}
        case "AutoEncoderNew":
            return parts | {"architecture": "relu", "centred": False}
        case "GatedAutoEncoder":
            r_mag, b_mag = take(tensors, where, "r_mag", "mag_bias")
            return parts | {"architecture": "gated", "r_mag": r_mag, "b_mag": b_mag}
        case "JumpReluAutoEncoder":
            (threshold,) = take(tensors, where, "threshold")
            return parts | {"architecture": "jumprelu", "threshold": threshold.clamp(min=0.0), "centred": False}
        case "AutoEncoderTopK":
            return parts | {"architecture": "topk", "k": _k(tensors, where, config)}
    (threshold,) = take(tensors, where, "threshold")
    parts |= {"k": _k(tensors, where, config), "threshold": threshold}
    if name == "BatchTopKSAE":
        return parts | {"architecture": "batchtopk"}
    (groups,) = take(tensors, where, "group_sizes")
    edges = tuple(itertools.accumulate(int(size) for size in groups))
    if not edges or edges[-1] != len(b_enc):
        raise FileFormatError(f"{where}: group_sizes {groups.int().tolist()} do not sum to {len(b_enc)} latents. "
                              "Fetch or save it again.")  # fmt: skip
    # one group is BatchTopK
    return parts | (
        {"architecture": "matryoshka", "prefixes": edges[:-1]} if edges[:-1] else {"architecture": "batchtopk"}
    )


def _k(tensors: dict[str, Any], where: Path, config: dict[str, Any]) -> int:
    said = {name: int(found["k"]) for name, found in (("file", tensors), ("config.json", config)) if "k" in found}
    if not said:
        raise FileFormatError(f"{where} does not say k, nor does config.json. Add it to the trainer there.")
    if len(set(said.values())) > 1:
        raise FileFormatError(f"{where} says k is {said['file']}, config.json {said['config.json']}. Correct one.")
    return next(iter(said.values()))


def _site(config: dict[str, Any]) -> str | None:
    layer, name = config.get("layer"), config.get("submodule_name")
    if name is None:
        return f"resid_post.{layer}" if layer is not None else None  # its example hooks the block's output
    found = re.fullmatch(r"(resid_post|resid_pre|mlp_out|attn_out)_layer_(\d+)", name)
    if found:  # a module's output: before any norm that follows it
        return f"{found[1]}{'_raw' if found[1] in ('mlp_out', 'attn_out') else ''}.{found[2]}"
    return site_of_module(name)
