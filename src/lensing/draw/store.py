"""What a harvest left on disk, and what a check of it found, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 20  # files that are named


def draw_store(facts: Mapping[str, Any], console: Console) -> None:
    """Print a store's sites, rows and size."""
    text = facts["text"]
    lines = {
        "model": facts["model"]["name"],
        "text": f"{text['source']}, {text['documents']:,} documents",
        "rows": f"{facts['rows']:,} to train on, {facts['held_out_rows']:,} held out",
        "size": f"{facts['bytes'] / 1e9:,.3g} GB in {facts['shards']:,} shards",
    }
    if text["skipped"]:
        lines["left out"] = f"{text['skipped']:,} rows of the text that cannot be used"
    for name, value in lines.items():
        console.print(f"{name:12}{value}", soft_wrap=True)
    table = Table("site", "width", "dtype", box=None, pad_edge=False)
    for site, about in facts["sites"].items():
        table.add_row(site, str(about["width"]), about["dtype"])
    console.print(table)
    console.print(f"The store is in {facts['folder']}.", soft_wrap=True)


def draw_verified(report: Mapping[str, Any], console: Console) -> None:
    """Print which files are not whole, and what to do."""
    if report["whole"]:
        console.print(
            f"All {report['files']:,} files of the {report['kind']} {report['folder']} are whole.", soft_wrap=True
        )
        return
    for finding in report["findings"][:SHOWN]:
        console.print(f"{finding['file']}: {finding['fault']}", soft_wrap=True)
    if len(report["findings"]) > SHOWN:
        console.print(f"... and {len(report['findings']) - SHOWN:,} more; --json lists all.")
    of = f"{len(report['findings']):,} of {report['files']:,} files of the {report['kind']}"
    console.print(f"{of} {report['folder']} are not whole. {report['advice']}", soft_wrap=True)
