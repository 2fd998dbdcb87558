"""Models too large for one device as they are: spread over several, or with quantised weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch

from lensing.errors import UsageError
from lensing.memory import memory_bytes

DeviceMap = str | Mapping[str, str | int]
Quantize = Literal["int8", "nf4", "fp4"]
BYTES = {"int8": 1.0, "nf4": 0.5, "fp4": 0.5}  # of a quantised weight; embeddings stay as they are
MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def loading(
    device_map: DeviceMap | None, quantize: Quantize | None, device: torch.device, dtype: Any
) -> dict[str, Any]:
    """Return what transformers must be told to load a model so; UsageError where a package or a name is missing."""
    if device_map is None and quantize is None:
        return {}
    if isinstance(device_map, str) and device_map not in MAPS:
        raise UsageError(f"There is no device map {device_map!r}. Give one of {', '.join(MAPS)}, or a mapping.")
    if quantize is not None and quantize not in BYTES:
        raise UsageError(f"There is no quantisation {quantize!r}. Give 'int8', 'nf4' or 'fp4'.")
    for package in ("accelerate", *(["bitsandbytes"] if quantize else [])):
        if find_spec(package) is None:
            raise UsageError(f"This needs {package}, which is not installed. Run: pip install 'lensing[large]'")
    options: dict[str, Any] = {"device_map": {"": str(device)} if device_map is None else device_map}
    if quantize is not None:
        from transformers import BitsAndBytesConfig

        # it says of every product that its numbers are rounded, which is what was asked for
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=quantize == "int8", load_in_4bit=quantize != "int8",
            bnb_4bit_quant_type=quantize if quantize != "int8" else "nf4",
            bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else torch.bfloat16,
        )  # fmt: skip
    return options


def quantised_bytes(weights: int, quantize: Quantize | None) -> int:
    """About how many bytes weights that take so many in 16 bits, or more, take when quantised."""
    return weights if quantize is None else int(weights / 2 * BYTES[quantize])


def room(device: torch.device, device_map: DeviceMap | None) -> int | None:
    """Bytes that the weights may take: of the device, or of all devices and the machine's own where they are spread."""
    if device_map is not None:
        own = memory_bytes()
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return own and own + sum(torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
