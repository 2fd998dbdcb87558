"""Where a dictionary is trained."""

from __future__ import annotations

import torch

from lensing.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one. UsageError where it cannot be used here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"There is no device {name!r}. Give auto, cpu, cuda or cuda:0.") from error
    if device.type not in ("cpu", "cuda"):
        # thresholds and scales are held in float64, which MPS does not have
        raise UsageError(f"Dictionaries are not trained on {name!r}. Give auto, cpu, cuda or cuda:0.")
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise UsageError(f"The device {name!r} is not here: torch sees {torch.cuda.device_count()} GPUs. Give cpu.")
    return device
