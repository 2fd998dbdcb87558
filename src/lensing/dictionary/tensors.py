"""Tensors out of files: safetensors, and pickles only where they are allowed by name and then without their code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lensing.errors import FileFormatError, LensingError, UnsafeFileError
from lensing.files import atomic_file

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def read_tensors(path: Path, names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, all of it or the given names; truncated or corrupt files are FileFormatError."""
    try:
        tensors = load_file(str(path))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing. Fetch or save the dictionary again.") from error
    except (SafetensorError, ValueError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Fetch or save it again.") from error
    if names is None:
        return tensors
    missing = [name for name in names if name not in tensors]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}. Fetch or save it again.")
    return {name: tensors[name] for name in names}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, *, keep: Path | None = None
) -> None:
    """Write tensors as one safetensors file, whole or not at all; what was at `path` takes the name `keep`, if given.

    Raises LensingError when the disk refuses.
    """
    with atomic_file(path) as temporary:
        try:
            save_file({name: t.contiguous() for name, t in tensors.items()}, str(temporary), metadata=metadata)
        except SafetensorError as error:
            raise LensingError(
                f"{path} cannot be written: {error}. Free some space or choose another folder."
            ) from error
        if keep is not None and path.exists():
            path.replace(keep)


def refuse_pickle(path: Path, allow_pickle: bool) -> None:
    """Raise UnsafeFileError unless pickles are allowed."""
    if not allow_pickle:
        raise UnsafeFileError(
            f"{path} is a pickle, which can run code when it is read. "
            "Convert it to safetensors, or pass --allow-pickle if you trust where it comes from."
        )


def unpickle(path: Path, *, allow_pickle: bool) -> dict[str, Any]:
    """Read a pickled table of tensors and plain values, by the reader that runs no code; UnsafeFileError if not
    allowed, FileFormatError if the file is corrupt or holds anything else."""
    refuse_pickle(path, allow_pickle)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing. Fetch or save the dictionary again.") from error
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise FileFormatError(
            f"{path} is truncated or corrupt, or holds more than tensors: {reason[:160]}. Fetch or save it again."
        ) from error
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise FileFormatError(f"{path} does not hold a table of named tensors. Save the dictionary as safetensors.")
    return found
