"""Signed parts of a sum as bars to either side of zero."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

FOR, AGAINST = "#2166ac", "#b2182b"


def parts_table(parts: Sequence[tuple[str, float]], width: int = 24) -> Table:
    """Return the parts as a table for the terminal, with bars that grow from the middle."""
    most = max((abs(v) for _, v in parts), default=0.0) or 1.0
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for label, value in parts:
        cells = round(abs(value) / most * width / 2)
        half = width // 2
        left = " " * half if value >= 0 else " " * (half - cells) + "█" * cells
        right = "█" * cells if value > 0 else ""
        bar = Text.assemble((left, AGAINST), ("│", "dim"), (right, FOR))
        table.add_row(label, f"{value:+.4f}", bar)
    return table


def parts_html(what: str, parts: Sequence[tuple[str, float]], whole: float, total: float) -> str:
    """Return the parts as an HTML table with bars, the sum and the model's own number below."""
    most = max((abs(v) for _, v in parts), default=0.0) or 1.0
    rows = []
    for label, value in parts:
        share = abs(value) / most * 50
        place = f"left:{50 if value >= 0 else 50 - share}%;width:{share}%;background:{FOR if value >= 0 else AGAINST}"
        rows.append(
            f"<tr><th scope='row' style='text-align:left;padding:1px 8px'>{html.escape(label)}</th>"
            f"<td style='text-align:right;padding:1px 8px'>{value:+.4f}</td>"
            "<td style='width:240px'><div style='position:relative;height:12px'>"
            f"<div style='position:absolute;top:0;height:12px;{place}'></div></div></td></tr>"
        )
    return (
        f"<table style='font-size:12px;border-collapse:collapse'><caption style='text-align:left'>{html.escape(what)}: "
        f"{whole:+.4f}; all parts sum to {total:+.4f}</caption><tbody>{''.join(rows)}</tbody></table>"
    )
