"""Gemma Scope 1 (Lieberum et al. 2024): `params.npz` in `layer_N/width_W/average_l0_X`, read.

f = pre where pre = x W_enc + b_enc is above `threshold`, x not centred and not scaled. The file says neither model nor
site: both are read from the folders' names, as the release names them.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import Foreign, build, take
from lensing.errors import FileFormatError

WEIGHTS = "params.npz"
_RELEASE = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")
_SITES = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z"}


def detect(path: Path) -> bool:
    """Whether `path` is a folder with params.npz, or that file."""
    return path.name == WEIGHTS or (path / WEIGHTS).is_file()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read one Gemma Scope dictionary; model and site are None where the folders are not named as in the release."""
    where = path if path.name == WEIGHTS else path / WEIGHTS
    W_enc, W_dec, b_enc, b_dec, threshold = take(_arrays(where), where, "W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    text = where.absolute().as_posix()
    release, layer = _RELEASE.search(text), re.search(r"/layer_(\d+)/", text)
    kind, site, target, model = release[3] if release else None, None, None, None
    if release:
        model = f"google/gemma-2-{release[1]}" + ("-it" if release[2] == "it" else "")
    if "/embedding/" in text:
        site = "embed"
    elif layer and kind in _SITES:
        site = f"{_SITES[kind]}.{layer[1]}"
    elif layer and kind == "transcoders":
        # the norm's output before its gain, which no site of ours is; the peer's name is better than a wrong one
        site, target = f"blocks.{layer[1]}.ln2.hook_normalized", f"mlp_out.{layer[1]}"
    found = Foreign(
        architecture="jumprelu", W_enc=W_enc, W_dec=W_dec, b_enc=b_enc, b_dec=b_dec, threshold=threshold.clamp(min=0.0),
        is_transcoder=kind == "transcoders", site=site, target=target, model=model,
    )  # fmt: skip
    return build(found, where)


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: torch.from_numpy(found[name]) for name in found.files}
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing. Fetch it again.") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Fetch it again.") from error
