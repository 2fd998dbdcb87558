"""sparsify (EleutherAI): `cfg.json` and `sae.safetensors` in a folder named after a module, read and written.

Equations and names are those of sparsify 1.3.3: pre = (x - b_dec) encoder.weight.T + encoder.bias, without the
subtraction in a transcoder; the k largest of relu(pre); W_dec has latents in rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import (
    Foreign,
    build,
    read_config,
    refuse_architecture,
    refuse_to_express,
    setting,
    take,
)
from lensing.dictionary.formats.hooks import site_of_module
from lensing.dictionary.formats.latents import exported
from lensing.dictionary.tensors import read_tensors, write_tensors
from lensing.errors import DictionaryError, FileFormatError
from lensing.files import write_json

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def detect(path: Path) -> bool:
    """Whether `path` is a folder with sparsify's two files."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read a sparsify folder; the site is the folder's name, or what this package wrote into cfg.json."""
    config, tensors, where = read_config(path / CONFIG), read_tensors(path / WEIGHTS), path / WEIGHTS
    if (activation := config.get("activation", "topk")) != "topk" or config.get("signed"):
        refuse_architecture("signed topk" if config.get("signed") else activation, "sparsify", ["topk"])
    encoder, W_dec, b_enc, b_dec = take(tensors, where, "encoder.weight", "W_dec", "encoder.bias", "b_dec")
    transcode = bool(config.get("transcode"))
    d_in = int(setting(config, "d_in", path / CONFIG))
    stated = int(config.get("num_latents") or 0) or d_in * int(setting(config, "expansion_factor", path / CONFIG))
    W_skip = None
    if config.get("skip_connection"):
        if not transcode:
            raise DictionaryError(
                f"{path} is an autoencoder with a skip connection, which would copy what is to be rebuilt. "
                "Use one without, or a transcoder."
            )
        (W_skip,) = take(tensors, where, "W_skip")
    elif "W_skip" in tensors:
        raise FileFormatError(f"{where} holds a W_skip that cfg.json does not mention. Correct skip_connection there.")
    noted = config.get("lensing") or {}
    site, target = site_of_module(path.absolute().name, "input" if transcode else "output"), None
    if transcode:
        target = site_of_module(path.absolute().name)
    run = read_config(path.parent / "config.json") if (path.parent / "config.json").is_file() else {}
    found = Foreign(
        architecture="topk", W_enc=encoder.t(), W_dec=W_dec, b_enc=b_enc, b_dec=b_dec, centred=not transcode,
        is_transcoder=transcode, W_skip=W_skip.t() if W_skip is not None else None,
        k=int(setting(config, "k", path / CONFIG)), site=noted.get("site", site), target=noted.get("target", target),
        model=noted.get("model", run.get("model")), checked={"d_in": d_in, "d_sae": stated},
    )  # fmt: skip
    return build(found, where)


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write sparsify's files; DictionaryError for all but TopK, and for transcoders between unequal widths."""
    sae = dictionary
    if sae.parts:
        refuse_to_express(sae, "a crosscoder", "sparsify", "Write it as lensing.")
    if sae.architecture != "topk":
        refuse_to_express(
            sae, f"a {sae.architecture} dictionary", "sparsify", "It keeps TopK only: write it as saelens."
        )
    if sae.d_out != sae.d_in:
        refuse_to_express(
            sae, f"a transcoder from {sae.d_in} to {sae.d_out} numbers", "sparsify", "Write it as lensing."
        )
    weights = exported(sae)
    b_enc = weights["b_enc"]
    if not sae.is_transcoder and not sae.centred:  # theirs subtracts b_dec: add to the bias what that takes
        b_enc = (b_enc.double() + weights["b_dec"].double() @ weights["W_enc"].double()).float()
    tensors = {
        "encoder.weight": weights["W_enc"].t(),
        "encoder.bias": b_enc,
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_dec"],
    }
    if sae.W_skip is not None:
        tensors["W_skip"] = weights["W_skip"].t()
    config: dict[str, Any] = {
        "activation": "topk", "expansion_factor": sae.d_sae // sae.d_in, "normalize_decoder": True,
        "num_latents": sae.d_sae, "k": sae.config.k, "multi_topk": False, "skip_connection": sae.W_skip is not None,
        "transcode": sae.is_transcoder, "d_in": sae.d_in,
        # their reader drops what it does not know; their folder's name says the site, and this one may be anywhere
        "lensing": {"site": sae.site, "target": sae.target, "model": sae.model_name},
    }  # fmt: skip
    write_tensors(folder / WEIGHTS, tensors)
    write_json(folder / CONFIG, config)
