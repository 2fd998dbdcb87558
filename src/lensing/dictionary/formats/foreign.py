"""What a reader finds in another tool's files, and how that becomes a dictionary of ours, folded in float64."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary, config_class, new_dictionary
from lensing.errors import DictionaryError, FileFormatError, UnknownNameError


@dataclass(frozen=True, eq=False, kw_only=True)
class Foreign:
    """y = (f W_dec + b_dec + x scale_in W_skip) / scale_out, f of pre = (x scale_in [- b_dec]) W_enc + b_enc.

    Latents run along the second axis of W_enc and the first of W_dec, however the tool stores them. `threshold` is one
    number or one for each latent, on `pre`. Decoder rows may have any length.
    """

    architecture: str
    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_out"]
    centred: bool = False
    is_transcoder: bool = False
    W_skip: Float[Tensor, "d_in d_out"] | None = None
    threshold: Tensor | None = None
    r_mag: Float[Tensor, " d_sae"] | None = None
    b_mag: Float[Tensor, " d_sae"] | None = None
    k: int | None = None
    prefixes: tuple[int, ...] = ()
    scale_in: float = 1.0
    scale_out: float = 1.0
    site: str | None = None
    target: str | None = None
    model: str | None = None
    checked: dict[str, int] = field(default_factory=dict)  # sizes that the tool's config states


def build(found: Foreign, path: Path) -> Dictionary:
    """The dictionary that `found` states, with decoder rows of length 1 and scales folded in, in float32.

    FileFormatError names a tensor of another shape than its neighbours and config say, or with numbers that are not
    finite.
    """
    d_in, d_sae, d_out = _sizes(found, path)
    settings: dict[str, Any] = {"width": d_sae}
    if found.architecture in ("topk", "batchtopk", "matryoshka"):
        if found.k is None or not 1 <= found.k <= d_sae:
            raise FileFormatError(f"{path}: k is {found.k}, not a number from 1 to {d_sae}. Correct its config.")
        settings["k"] = found.k
        if found.prefixes:
            settings["prefixes"] = found.prefixes
    else:
        settings["sparsity"] = 0.0  # the penalty that it was trained with is not ours to tell
    config = config_class(found.architecture)(**settings)
    wiring: dict[str, Any] = {"d_out": d_out, "skip": found.W_skip is not None} if found.is_transcoder else {}
    sae = new_dictionary(config, d_in, **wiring).double()
    with torch.no_grad():
        sae.encoder.copy_(found.W_enc.t())
        for name, tensor in (("W_dec", found.W_dec), ("b_enc", found.b_enc), ("b_dec", found.b_dec)):
            sae.get_parameter(name).copy_(tensor)
        if sae.W_skip is not None and found.W_skip is not None:
            sae.W_skip.copy_(found.W_skip)
    sae.load_extra_tensors(_extra(found, d_sae))
    sae.centred = found.centred
    wide = torch.ones(d_in, dtype=torch.float64) * found.scale_in
    sae.fold_(wide, torch.ones(d_out, dtype=torch.float64) * found.scale_out)
    # thresholds in double precision outlive the rounding of the rest
    extra = {name: tensor.clone() for name, tensor in sae.extra_tensors().items()}
    sae = sae.float()
    sae.load_extra_tensors(extra)
    sae.site, sae.target, sae.model_name = found.site, found.target, found.model
    return sae.requires_grad_(False).eval()


def _sizes(found: Foreign, path: Path) -> tuple[int, int, int]:
    if found.W_enc.dim() != 2 or found.W_dec.dim() != 2:
        raise FileFormatError(
            f"{path}: W_enc has shape {list(found.W_enc.shape)} and W_dec {list(found.W_dec.shape)}; both should be "
            "matrices. Fetch or save it again."
        )
    d_sae, d_out = len(found.b_enc), len(found.b_dec)
    d_in = found.checked.get("d_in", len(found.W_enc) if found.is_transcoder else d_out)
    vectors = {"b_enc": found.b_enc, "r_mag": found.r_mag, "b_mag": found.b_mag}
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        name: (tensor, (d_sae,)) for name, tensor in vectors.items() if tensor is not None
    }
    expected |= {"W_enc": (found.W_enc, (d_in, d_sae)), "W_dec": (found.W_dec, (d_sae, d_out))}
    expected |= {"b_dec": (found.b_dec, (d_out,))}
    if found.W_skip is not None:
        expected["W_skip"] = (found.W_skip, (d_in, d_out))
    if found.threshold is not None:
        one = found.threshold.numel() == 1
        expected["threshold"] = (found.threshold, tuple(found.threshold.shape) if one else (d_sae,))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise FileFormatError(
                f"{path}: {name} (latents last in W_enc, first in W_dec) has shape {list(tensor.shape)}, its "
                f"neighbours say {list(shape)}. Fetch or save it again."
            )
        if not bool(tensor.isfinite().all()):
            raise FileFormatError(f"{path}: {name} holds numbers that are not finite. Fetch or save it again.")
    for name, size in (("d_in", d_in), ("d_sae", d_sae), ("d_out", d_out)):
        if found.checked.get(name, size) != size:
            raise FileFormatError(
                f"{path}: the config says {name} is {found.checked[name]}, the weights say {size}. "
                "Fetch or save it again."
            )
    return d_in, d_sae, d_out


def _extra(found: Foreign, d_sae: int) -> dict[str, Tensor]:
    extra: dict[str, Tensor] = {}
    if found.threshold is not None:
        one = found.threshold.numel() == 1 and found.architecture == "jumprelu"
        edge = found.threshold.double().reshape(-1)
        extra["threshold"] = edge.expand(d_sae) if one else edge
    if found.r_mag is not None and found.b_mag is not None:
        extra |= {"r_mag": found.r_mag, "b_mag": found.b_mag}
    return extra


def take(tensors: dict[str, Tensor], path: Path, *names: str) -> list[Tensor]:
    """The named tensors as float64; FileFormatError names those that the file lacks."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}. Fetch or save it again.")
    return [tensors[name].double() for name in names]


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file; FileFormatError if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing, and the weights alone do not say enough. Fetch it too.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Fetch or save it again.") from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} does not hold a JSON object. Fetch or save it again.")
    return found


def setting(config: dict[str, Any], name: str, path: Path) -> Any:
    """One entry of a config; FileFormatError if it is not there."""
    if config.get(name) is None:
        raise FileFormatError(f"{path} does not say {name}. Add it, or fetch the file again.")
    return config[name]


def refuse_architecture(name: str, tool: str, known: list[str]) -> None:
    """Raise UnknownNameError for an architecture of another tool that this package does not know."""
    raise UnknownNameError(f"{tool} architecture", name, known, f"These are read: {', '.join(known)}.")


def refuse_to_express(dictionary: Dictionary, what: str, tool: str, instead: str) -> None:
    """Raise DictionaryError: the format of `tool` has no place for `what`."""
    name = dictionary.id or dictionary.site or "The dictionary"
    raise DictionaryError(f"{name} is {what}, which the format of {tool} cannot express. {instead}")
