"""What the shipped model must reach, and whether it does, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensing.draw.cells import Grid, number
from lensing.draw.charts import MISSING

RELATIONS = {">=": "at least", "<=": "at most", "<": "under"}


def bar_grid(report: Mapping[str, Any]) -> Grid:
    """Return the table of all bars: what must be reached, what was measured, whether it is met."""
    rows = [[c["bar"]["name"], wanted(c), measured(c), verdict(c)] for c in report.get("bars") or []]
    return Grid("", ("bar", "must be", "is", ""), rows, (0, 1, 3))


def tally(report: Mapping[str, Any]) -> str:
    """Return one sentence of how many bars are met, and every one that is not by name."""
    bars = report.get("bars") or []
    if not bars:
        return "No bar was measured."
    counts = [sum(verdict(c) == kind for c in bars) for kind in ("met", "not met", MISSING)]
    failed = "; ".join(f"{c['bar']['name']} ({measured(c)})" for c in bars if verdict(c) == "not met")
    sentence = f"{len(bars)} bars: {counts[0]} met, {counts[1]} not met, {counts[2]} not measured."
    return sentence + (f" Not met: {failed}." if failed else "")


def bar_value(report: Mapping[str, Any], name: str) -> float | None:
    """Return the value of the first bar whose name begins with `name`, None where the report has none."""
    found = (c["bar"].get("value") for c in report.get("bars") or [] if c["bar"]["name"].startswith(name))
    return next((v for v in found if v is not None), None)


def wanted(check: Mapping[str, Any]) -> str:
    """Return what a bar asks for, in words."""
    relation, value = check["bar"].get("relation", ""), check["bar"].get("value")
    return f"{RELATIONS.get(relation, relation)} {number(value, 4)}" if value is not None else ""


def measured(check: Mapping[str, Any]) -> str:
    """Return what was measured for a bar."""
    return number(check.get("measured"), 4)


def verdict(check: Mapping[str, Any]) -> str:
    """Return met, not met, or not measured."""
    return MISSING if check.get("met") is None else "met" if check["met"] else "not met"


def bar_sentences(report: Mapping[str, Any], *names: str) -> list[str]:
    """Return a sentence on each bar whose name begins with one of `names`."""
    found = [c for c in report.get("bars") or [] if c["bar"]["name"].startswith(names)]
    return [f"{c['bar']['name']}: {wanted(c)}. It is {measured(c)}: {verdict(c)}." if c.get("met") is not None
            else f"{c['bar']['name']}: {wanted(c)}. It was not measured." for c in found]  # fmt: skip
