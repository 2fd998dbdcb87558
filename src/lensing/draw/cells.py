"""Tables, and numbers as the text of a table's cells; a number that is absent, infinite or not a number is a dash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lensing.draw.charts import finite

NONE = "–"


@dataclass(frozen=True)
class Grid:
    """A table: a sentence over it, its headers, its cells as text, and which columns hold words."""

    title: str
    headers: tuple[str, ...]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)  # set to the left
    wrapped: int | None = None  # the column that takes more than one line where it must


def number(value: float | None, digits: int) -> str:
    """Return a number with `digits` significant digits, a dash where there is none."""
    return NONE if finite(value) is None else f"{value:.{digits}g}"


def fixed(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` digits after the point, a dash where there is none."""
    return NONE if finite(value) is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """Return a whole number with thousands apart, a dash where there is none."""
    return NONE if finite(value) is None else f"{value:,.0f}"


def percent(value: float | None, se: float | None = None) -> str:
    """Return a share as a percentage, with its standard error where there is one; a dash where there is no share."""
    if finite(value) is None:
        return NONE
    return f"{value:.1%}" + (f" ± {se:.1%}" if se is not None and finite(se) is not None else "")


def by_class(names: Sequence[str]) -> dict[str, list[str]]:
    """Return concepts ("class.value") by class, in order, the values alone."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        cls, _, value = name.partition(".")
        found.setdefault(cls, []).append(value or cls)
    return found


def by_reason(refused: Mapping[str, str]) -> dict[str, list[str]]:
    """Return refused concepts by the reason that was given."""
    found: dict[str, list[str]] = {}
    for name, why in sorted(refused.items()):
        found.setdefault(why, []).append(name)
    return found
