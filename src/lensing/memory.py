"""How much memory a machine has, and the refusal of what can never fit, before any of it is asked for."""

from __future__ import annotations

import os

from lensing.errors import UsageError


def memory_bytes() -> int | None:
    """Physical memory in bytes, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def refuse_too_large(what: str, needed: int, advice: str, *, room: int | None = None) -> None:
    """Raise UsageError where `what` needs more bytes than the machine (or a device of `room` bytes) has in all."""
    room = memory_bytes() if room is None else room
    if room is not None and needed > room:
        raise UsageError(f"{what} needs {_gb(needed)} of memory, and there are {_gb(room)}. {advice}")


def _gb(n: int) -> str:
    # whole numbers all the way: what is asked for may be larger than any float
    return f"{n // 10**9:,} GB" if n >= 10**10 else f"{n / 1e9:.2g} GB"
