"""SAELens (versions 3 to 6): `cfg.json` and `sae_weights.safetensors`, read and written.

Equations and names are those of SAELens 6.54.12 (`sae_lens/saes`); flat configs of versions before 6 are understood.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from lensing.dictionary.formats.hooks import hook_of_site, site_of_hook
from lensing.dictionary.formats.latents import exported
from lensing.dictionary.tensors import read_tensors, write_tensors
from lensing.errors import DictionaryError
from lensing.files import write_json

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
LAYOUT = "6.0.0"  # the version whose layout is written
# architecture of theirs: ours
ARCHITECTURES = {
    "standard": "relu", "gated": "gated", "topk": "topk", "jumprelu": "jumprelu", "transcoder": "relu",
    "skip_transcoder": "relu", "jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu",
}  # fmt: skip
# What TransformerLens does to a model's weights unless told not to: here it changes the vectors at a site.
_CENTRED = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "embed", "hook_embed", "hook_pos_embed")
# Families without a LayerNorm: TransformerLens cannot centre their weights.
_RMS_FAMILIES = ("gemma", "llama", "mistral", "mixtral", "qwen", "olmo", "deepseek")


def detect(path: Path) -> bool:
    """Whether `path` is a folder with SAELens' two files."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read a SAELens folder; DictionaryError names what has no counterpart here (LayerNorm of inputs, scales that the
    files do not state, a model that TransformerLens had changed)."""
    config, tensors = _upgraded(read_config(path / CONFIG)), read_tensors(path / WEIGHTS)
    name, meta, where = config["architecture"], config["metadata"], path / WEIGHTS
    if name not in ARCHITECTURES:
        refuse_architecture(name, "SAELens", list(ARCHITECTURES))
    _refuse_processed(config, path)
    is_transcoder = "transcoder" in name
    W_enc, W_dec, b_dec = take(tensors, where, "W_enc", "W_dec", "b_dec")
    (b_enc,) = take(tensors, where, "b_gate" if name == "gated" else "b_enc")
    if config.get("finetuning_scaling_factor") or "scaling_factor" in tensors:
        raise DictionaryError(f"{path} has a fine-tuned scaling factor, which is not read. Fold it in SAELens first.")
    k, factor = None, 1.0
    optional: dict[str, Any] = {}
    if name == "topk":
        k = int(setting(config, "k", path / CONFIG))
        if config.get("rescale_acts_by_decoder_norm"):  # latents are ranked, and stated, by what they write
            norm = W_dec.norm(dim=1)
            norm = torch.where(norm > 0, norm, 1.0)
            W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm[:, None]
    if "jumprelu" in name:
        optional["threshold"] = _threshold(tensors, where)
    if name == "gated":
        optional["r_mag"], optional["b_mag"] = take(tensors, where, "r_mag", "b_mag")
    if "skip" in name:
        (W_skip,) = take(tensors, where, "W_skip")
        optional["W_skip"] = W_skip.t()
    if (kind := config.get("normalize_activations") or "none") != "none":
        factor = _scale(path, kind, is_transcoder)
    sizes = {ours: int(config[ours]) for ours in ("d_in", "d_sae", "d_out") if ours in config}
    target = site_of_hook(meta.get("hook_name_out")) if is_transcoder else None
    found = Foreign(
        architecture=ARCHITECTURES[name], W_enc=W_enc, W_dec=W_dec, b_enc=b_enc, b_dec=b_dec,
        centred=bool(config.get("apply_b_dec_to_input", True)) and not is_transcoder, is_transcoder=is_transcoder, k=k,
        scale_in=factor, scale_out=factor, site=site_of_hook(meta.get("hook_name")), target=target,
        model=meta.get("model_name"), checked=sizes, **optional,
    )  # fmt: skip
    return build(found, where)


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write SAELens 6's files; DictionaryError for a crosscoder, and for TopK or gated transcoders.

    BatchTopK and Matryoshka become jumprelu with their threshold, as SAELens saves its own.
    """
    sae, name = dictionary, _their_name(dictionary)
    weights = exported(sae)
    tensors = {key: weights[key] for key in ("W_enc", "W_dec", "b_dec")}
    tensors["b_gate" if name == "gated" else "b_enc"] = weights["b_enc"]
    if "jumprelu" in name:
        tensors["threshold"] = weights["threshold"]
    if name == "gated":
        tensors |= {key: weights[key] for key in ("r_mag", "b_mag")}
    if sae.W_skip is not None:
        tensors["W_skip"] = weights["W_skip"].t()
    config: dict[str, Any] = {
        "architecture": name, "d_in": sae.d_in, "d_sae": sae.d_sae, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": sae.centred, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": LAYOUT, "sae_lens_training_version": None, "model_name": sae.model_name,
            "hook_name": hook_of_site(sae.site), "hook_name_out": hook_of_site(sae.target),
            "model_from_pretrained_kwargs": {},
        },
    }  # fmt: skip
    if sae.is_transcoder:
        config["d_out"] = sae.d_out
    if name == "topk":
        config |= {"k": sae.config.k, "rescale_acts_by_decoder_norm": False}
    write_tensors(folder / WEIGHTS, tensors)
    write_json(folder / CONFIG, config)


def _their_name(sae: Dictionary) -> str:
    if sae.parts:
        refuse_to_express(sae, "a crosscoder", "SAELens", "Write it as lensing.")
    kind = {"relu": "standard", "batchtopk": "jumprelu", "matryoshka": "jumprelu"}.get(
        sae.architecture, sae.architecture
    )
    if not sae.is_transcoder:
        return kind
    if kind not in ("standard", "jumprelu"):
        refuse_to_express(sae, f"a {sae.architecture} transcoder", "SAELens", "Write it as lensing.")
    return {"standard": "", "jumprelu": "jumprelu_"}[kind] + ("skip_" if sae.W_skip is not None else "") + "transcoder"


def _upgraded(config: dict[str, Any]) -> dict[str, Any]:
    # the names and defaults of version 6 for the flat configs of older ones
    found = dict(config)
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        if old in found:
            found.setdefault(new, found.pop(old))
    found.setdefault("architecture", "standard")
    keywords = found.get("activation_fn_kwargs") or {}
    if found.get("activation_fn") == "topk":
        found["architecture"], found["k"] = "topk", found.get("k", keywords.get("k"))
    elif found.get("activation_fn", "relu") not in ("relu", "", None):
        refuse_architecture(str(found["activation_fn"]), "SAELens", ["relu", "topk"])
    if isinstance(found.get("normalize_activations"), bool):
        found["normalize_activations"] = "expected_average_only_in" if found["normalize_activations"] else "none"
    # of the metadata, `None` says whether the model was changed is unknown
    flat = {key: found.get(key) for key in ("model_name", "hook_name", "hook_name_out", "model_from_pretrained_kwargs")}
    meta = found.get("metadata")
    if isinstance(meta, dict):
        version = str(meta.get("sae_lens_version") or "0")
        known = {} if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= 6 else None
        found["metadata"] = meta | {"model_from_pretrained_kwargs": meta.get("model_from_pretrained_kwargs", known)}
    else:
        found["metadata"] = flat
    return found


def _refuse_processed(config: dict[str, Any], path: Path) -> None:
    meta = config["metadata"]
    model, changed = str(meta.get("model_name") or "an unnamed model"), meta.get("model_from_pretrained_kwargs")
    site = site_of_hook(meta.get("hook_name")) or ""
    kind = site.partition(".")[0]
    told = isinstance(changed, dict)
    if told and kind == "attn_z" and changed.get("fold_value_biases"):
        why = "with the biases of the values folded away"
    elif kind not in _CENTRED or any(family in model.lower() for family in _RMS_FAMILIES):
        return
    elif told and changed.get("center_writing_weights"):
        why = "whose writing weights TransformerLens had centred"
    elif not told:
        why = "that TransformerLens may have changed: its cfg.json does not say"
    else:
        return
    raise DictionaryError(
        f"{path} was trained on {site or 'activations'} of {model} {why}; on the plain model's activations it is "
        "silently off. Use another dictionary, or, if you know that its activations were plain, write "
        '"model_from_pretrained_kwargs": {"center_writing_weights": false} into its cfg.json.'
    )


def _threshold(tensors: dict[str, Tensor], path: Path) -> Tensor:
    if "threshold" not in tensors and "log_threshold" in tensors:
        (log,) = take(tensors, path, "log_threshold")
        return log.exp()
    (threshold,) = take(tensors, path, "threshold")
    return threshold.clamp(min=0.0)  # they rectify as well, so that a threshold below zero is zero


def _scale(path: Path, kind: str, is_transcoder: bool) -> float:
    if kind != "expected_average_only_in" or is_transcoder:
        raise DictionaryError(
            f"{path} normalises every vector ({kind}), which cannot be folded into weights. "
            "Use a dictionary with normalize_activations none."
        )
    if not (path / SCALER).is_file():
        raise DictionaryError(
            f"{path} was trained on scaled activations ({kind}) and does not say the scale. "
            f'Write {{"scaling_factor": ...}}, the square root of d_in over the mean norm, into its {SCALER}.'
        )
    return float(setting(read_config(path / SCALER), "scaling_factor", path / SCALER))
