"""Where a dictionary is trained."""

from __future__ import annotations

import os

import torch

from lensing.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one. UsageError where it cannot be used here."""
    if name == "auto":
        return _shared_out(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"There is no device {name!r}. Give auto, cpu, cuda or cuda:0.") from error
    if device.type not in ("cpu", "cuda"):
        # thresholds and scales are held in float64, which MPS does not have
        raise UsageError(f"Dictionaries are not trained on {name!r}. Give auto, cpu, cuda or cuda:0.")
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise UsageError(f"The device {name!r} is not here: torch sees {torch.cuda.device_count()} GPUs. Give cpu.")
    return _shared_out(device)


def _shared_out(device: torch.device) -> torch.device:
    # of several processes each needs a GPU of its own: lensing.dist gives each the one of its number
    processes, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if device.type == "cuda" and processes > 1 and (device.index is not None or processes > there):
        raise UsageError(
            f"{processes} processes were started on this machine, which has {there} GPUs, to train on {device}. "
            "Give --device cuda and as many processes as there are GPUs, or --device cpu."
        )
    return device
