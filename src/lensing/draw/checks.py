"""Numbers expected beside numbers got, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def draw_checks(report: Mapping[str, Any], console: Console) -> None:
    """Print the table of a verified walk, how many numbers came out, and why none did where none could."""
    table = Table("beat", "number", box=None, pad_edge=False)
    for name in ("expected", "got", "within"):
        table.add_column(name, justify="right")
    table.add_column("")
    for check in report["checks"]:
        got = "-" if check["got"] is None else f"{check['got']:.4f}"
        mark = {None: "", True: "[green]as expected[/]", False: "[red]differs[/]"}[check["good"]]
        table.add_row(
            check["beat"], check["what"], f"{check['expected']:.4f}", got, f"{check['tolerance']:.2g}", mark
        )  # fmt: skip
    console.print(table)
    of = len(report["checks"])
    if report["missing"] is not None:
        console.print(
            f"None of the {of} numbers was compared: {report['missing']} All steps ran on a small random Gemma 2 in "
            "its place. With the weights: lensing verify gemma-walk --model FOLDER --dictionary FOLDER.",
            soft_wrap=True,
        )
        return
    good = sum(check["good"] for check in report["checks"])
    console.print(f"{good} of {of} numbers of {report['model']} with {report['dictionary']} are as expected.")
