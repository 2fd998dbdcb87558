"""Llama Scope (He et al. 2024): `hyperparams.json` and `checkpoints/final.safetensors`, read.

pre = (x s_in) encoder.weight.T + encoder.bias with s_in = sqrt(d_in) / mean norm, and s_out likewise. A latent is
active where pre |W_dec row| / s_out, which is what it writes of raw vectors, is above the one jump_relu_threshold:
Language-Model-SAEs folds the scales in and makes decoder rows unit before it compares. (Where
sparsity_include_decoder_norm is false, where pre is.)
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import Foreign, build, read_config, refuse_architecture, setting, take
from lensing.dictionary.formats.hooks import site_of_hook
from lensing.dictionary.tensors import read_tensors
from lensing.errors import DictionaryError

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
MODEL = "meta-llama/Llama-3.1-8B"  # the files do not say; the release is of this one


def detect(path: Path) -> bool:
    """Whether `path` is a folder with hyperparams.json."""
    return (path / CONFIG).is_file()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read one Llama Scope dictionary or transcoder, its data set's scales folded in."""
    config, where = read_config(path / CONFIG), path / WEIGHTS
    if (name := config.get("act_fn", "jumprelu")) != "jumprelu":
        refuse_architecture(str(name), "Llama Scope", ["jumprelu"])
    if config.get("use_glu_encoder"):
        refuse_architecture("gated linear encoder", "Llama Scope", ["jumprelu"])
    tensors = read_tensors(where)
    encoder, decoder, b_enc = take(tensors, where, "encoder.weight", "decoder.weight", "encoder.bias")
    use_bias = config.get("use_decoder_bias", True)
    b_dec = take(tensors, where, "decoder.bias")[0] if use_bias else torch.zeros(len(decoder), dtype=torch.float64)
    hook_in, hook_out = setting(config, "hook_point_in", path / CONFIG), config.get("hook_point_out")
    is_transcoder = hook_out is not None and hook_out != hook_in
    d_in = int(setting(config, "d_model", path / CONFIG))
    scale_in, scale_out = _scales(config, path, d_in)
    if not is_transcoder:
        scale_out = scale_in
    threshold = torch.tensor(float(setting(config, "jump_relu_threshold", path / CONFIG)), dtype=torch.float64)
    if config.get("sparsity_include_decoder_norm", True) and decoder.dim() == 2:
        norm = decoder.norm(dim=0)
        threshold = threshold * scale_out / torch.where(norm > 0, norm, 1.0)
    found = Foreign(
        architecture="jumprelu", W_enc=encoder.t(), W_dec=decoder.t(), b_enc=b_enc, b_dec=b_dec, threshold=threshold,
        centred=bool(config.get("apply_decoder_bias_to_pre_encoder")) and not is_transcoder,
        is_transcoder=is_transcoder, scale_in=scale_in, scale_out=scale_out, site=site_of_hook(hook_in),
        target=site_of_hook(hook_out) if is_transcoder else None, model=MODEL,
        checked={"d_in": d_in} | ({"d_sae": int(config["d_sae"])} if "d_sae" in config else {}),
    )  # fmt: skip
    return build(found, where)


def _scales(config: dict, path: Path, d_in: int) -> tuple[float, float]:
    kind = config.get("norm_activation", "dataset-wise")
    if kind == "inference":  # folded already
        return 1.0, 1.0
    if kind != "dataset-wise":
        raise DictionaryError(
            f"{path} normalises every vector ({kind}), which cannot be folded into weights. "
            "Use a dictionary with dataset-wise normalisation."
        )
    norms = setting(config, "dataset_average_activation_norm", path / CONFIG)
    norm_in = float(setting(norms, "in", path / CONFIG))
    norm_out = float(norms.get("out", norm_in))
    if norm_in <= 0 or norm_out <= 0:
        raise DictionaryError(f"{path} states mean norms of {norm_in} and {norm_out}. Correct its {CONFIG}.")
    return math.sqrt(d_in) / norm_in, math.sqrt(d_in) / norm_out
