"""Weights of sentences: by register, and only when the document is ready for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REGISTERS = ("encyclopaedia", "gossip", "letter", "ledger", "song")
OPENED = ("letter", "ledger", "song")  # registers that begin with a fixed kind of sentence


def weigh(
    encyclopaedia: int = 0,
    gossip: int = 0,
    letter: int = 0,
    ledger: int = 0,
    song: int = 0,
    *,
    when: Callable[[Any], bool] = lambda m: True,
) -> Callable[[Any], int]:
    """Return a weight by register for a sentence of the body: after the opening, before the document is full.

    A document whose stance is not neutral must show it before its fifth sentence: then only cues remain on the menu.
    """
    table = dict(zip(REGISTERS, (encyclopaedia, gossip, letter, ledger, song), strict=True))

    def weight(m: Any) -> int:
        return table[m.register] if in_body(m) and not must_cue(m) and when(m) else 0

    return weight


def among(weight: int, when: Callable[[Any], bool] = lambda m: True) -> Callable[[Any], int]:
    """Return a weight for a sentence inside a theme that has a share of its own."""
    return lambda m: weight if when(m) else 0


def on_topic(theme: str, usual: Callable[[Any], int], factor: int = 16) -> Callable[[Any], int]:
    """Return a theme's share, raised while the document speaks of something of that theme: prose keeps to its topic."""
    return lambda m: usual(m) * (factor if m.topic == theme else 1)


def known(table: str) -> Callable[[Any], bool]:
    """Whether the thing is known of which `table` notes the facts told."""
    return lambda m: getattr(m, table) is not None


def unknown(*tables: str) -> Callable[[Any], bool]:
    """Whether nothing is known of which one of these tables would note the facts told."""
    return lambda m: all(getattr(m, table) is None for table in tables)


def untold(table: str, fact: str) -> Callable[[Any], bool]:
    """Whether the thing is known and this fact of it has not been told."""
    return lambda m: getattr(m, table) is not None and fact not in getattr(m, table)


def in_body(m: Any) -> bool:
    """Past the opening of a register that has one, not full, and no letter of lost faith, which has its own course."""
    return (
        not m.full
        and m.form != "lost"
        and not (m.form == "creature" and m.sentences < 2)
        and (m.sentences > 0 or m.register not in OPENED)
    )


def must_cue(m: Any) -> bool:
    """The stance has not been shown and this is the last moment for it."""
    return m.stance != "neutral" and not m.cued and m.sentences >= 4
