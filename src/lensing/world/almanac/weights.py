"""Weights of sentences: by register, and only when the document is ready for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REGISTERS = ("encyclopaedia", "gossip", "letter", "ledger")


def weigh(
    encyclopaedia: int = 0,
    gossip: int = 0,
    letter: int = 0,
    ledger: int = 0,
    *,
    when: Callable[[Any], bool] = lambda m: True,
) -> Callable[[Any], int]:
    """Return a weight by register for a sentence of the body: after the opening, before the document is full.

    A document whose stance is not neutral must show it before its fifth sentence: then only cues remain on the menu.
    """
    table = {"encyclopaedia": encyclopaedia, "gossip": gossip, "letter": letter, "ledger": ledger}

    def weight(m: Any) -> int:
        return table[m.register] if in_body(m) and not must_cue(m) and when(m) else 0

    return weight


def in_body(m: Any) -> bool:
    """Past the opening of a register that has one, and not full."""
    return not m.full and (m.sentences > 0 or m.register in ("encyclopaedia", "gossip"))


def must_cue(m: Any) -> bool:
    """The stance has not been shown and this is the last moment for it."""
    return m.stance != "neutral" and not m.cued and m.sentences >= 4
