"""Gemma Scope 2 (2025): `config.json` and `params.safetensors`, names in lower case, read.

The equation is Gemma Scope 1's; a transcoder may add x affine_skip_connection. config.json names what is read and
written by the modules of the Hugging Face model.
"""

from __future__ import annotations

from pathlib import Path

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import Foreign, build, read_config, refuse_architecture, setting, take
from lensing.dictionary.formats.hooks import site_of_module
from lensing.dictionary.tensors import read_tensors
from lensing.errors import DictionaryError

CONFIG, WEIGHTS = "config.json", "params.safetensors"


def detect(path: Path) -> bool:
    """Whether `path` is a folder with params.safetensors."""
    return (path / WEIGHTS).is_file() or bool(list(path.glob("params_layer_*.safetensors")))


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read one Gemma Scope 2 dictionary; DictionaryError for a cross-layer transcoder."""
    config, where = read_config(path / CONFIG), path / WEIGHTS
    if not where.is_file():
        _refuse_cross_layer(path)
    if (name := config.get("architecture")) != "jump_relu":
        refuse_architecture(str(name), "Gemma Scope 2", ["jump_relu"])
    tensors = read_tensors(where)
    W_enc, W_dec, b_enc, b_dec, threshold = take(tensors, where, "w_enc", "w_dec", "b_enc", "b_dec", "threshold")
    if W_dec.dim() == 3:
        _refuse_cross_layer(path)
    reads, writes = str(setting(config, "hf_hook_point_in", path / CONFIG)), config.get("hf_hook_point_out")
    is_transcoder = writes is not None and writes != reads
    W_skip = None
    if config.get("affine_connection") and not is_transcoder:
        raise DictionaryError(f"{path} is an autoencoder with an affine connection, which is not read. Use another.")
    if config.get("affine_connection"):
        (W_skip,) = take(tensors, where, "affine_skip_connection")
    found = Foreign(
        architecture="jumprelu", W_enc=W_enc, W_dec=W_dec, b_enc=b_enc, b_dec=b_dec, threshold=threshold.clamp(min=0.0),
        is_transcoder=is_transcoder, W_skip=W_skip, site=_site(reads),
        target=_site(str(writes)) if is_transcoder else None, model=_model(config.get("model_name")),
    )  # fmt: skip
    return build(found, where)


def _site(hook: str) -> str:
    module, _, side = hook.rpartition(".")
    return site_of_module(module, side) if side in ("input", "output") else site_of_module(hook)


def _model(name: str | None) -> str | None:
    # the configs write gemma-v3-1b-pt for google/gemma-3-1b-pt
    if name is None:
        return None
    plain = name.replace("-v3", "-3")
    return plain if "/" in plain else f"google/{plain}"


def _refuse_cross_layer(path: Path) -> None:
    raise DictionaryError(
        f"{path} is a cross-layer transcoder, which writes several layers and is not read from this format. "
        "Use a transcoder of one layer."
    )
