"""What a checkpoint is before it is read: how large its weights will be, and whether it brings code of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lensing.errors import UnsafeFileError

# bytes of a number, by the names that safetensors headers use
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def weight_bytes(folder: Path, dtype: Any) -> int:
    """Return how many bytes the safetensors weights of a folder take in memory, from their headers alone.

    Floating-point numbers count as `dtype`, or as they are stored where that is not a torch.dtype.
    """
    counts: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for size in tensor["shape"]:
                    count *= size
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + count
    return in_memory(counts, dtype)


def refuse_own_code(config: Path, label: str, trusted: bool) -> None:
    """Raise UnsafeFileError where a config needs code of its own and nobody said that it may run.

    A config of a type that transformers knows is read by its code, whatever else lies in the folder.
    """
    from transformers import CONFIG_MAPPING

    facts = json.loads(config.read_text(encoding="utf-8"))
    own = facts.get("auto_map")
    if own and not trusted and facts.get("model_type") not in CONFIG_MAPPING:
        name = next(iter(own.values())) if isinstance(own, dict) else own
        raise UnsafeFileError(
            f"{label} brings code of its own ({name}), which would run here. Read it, and give "
            "ln.load_model(..., trust_remote_code=True) if you trust it."
        )


def in_memory(counts: Mapping[str, int], dtype: Any) -> int:
    """Return the bytes of so many numbers of each type, floating-point ones as `dtype` if that is a torch.dtype."""
    wide = torch.finfo(dtype).bits // 8 if isinstance(dtype, torch.dtype) else None
    return sum(n * (wide if wide and "F" in kind else BYTES.get(kind, 1)) for kind, n in counts.items())
