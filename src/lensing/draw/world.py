"""Text of the world with its labels, and a model beside the world's exact reader, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def draw_document(console: Console, title: str, words: Sequence[str], rows: Sequence[dict[str, str]] | None) -> None:
    """Print a document; with `rows` one line a token, showing each label that changed there."""
    console.print(Text(title, style="bold"))
    if rows is None:
        console.print(Text(" ".join(words)), soft_wrap=False)
        return
    table = Table("token", "labels that changed here", box=None, pad_edge=False, show_edge=False)
    before: dict[str, str] = {}
    for word, row in zip(words, rows, strict=True):
        changed = [f"{cls}: {value}" for cls, value in row.items() if before.get(cls) != value]
        table.add_row(Text(word, style="cyan"), Text(", ".join(changed)))
        before = row
    console.print(table)


def draw_report(report: Any, console: Console) -> None:
    """Draw a FloorReport: loss against floor by group, skills, and the stance table."""
    console.rule(f"{report.model} beside the exact reader", align="left")
    console.print(
        f"{report.documents} held-out documents, {report.tokens:,} tokens. Generator's entropy "
        f"{report.generator_entropy:.3f}, reader's floor {report.reader_entropy:.3f} nats a token."
    )
    table = Table("tokens by", "n", "loss", "floor", "gap", "se", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    groups = [report.overall, *report.by_register, *report.by_frequency]
    for gap in groups:
        style = "bold" if gap is report.overall else ""
        cells = (gap.group, f"{gap.tokens:,}", *(f"{v:.3f}" for v in (gap.loss, gap.floor, gap.gap, gap.se)))
        table.add_row(*cells, style=style)
    console.print(table)
    skills = Table("where the text determines the word", "n", "right", box=None, pad_edge=False)
    for skill in (*report.skills, report.unseen_two_hop):
        skills.add_row(skill.skill, f"{skill.n:,}", f"{skill.accuracy:.1%}")
    console.print(skills)
    stance = Table("“The reliability of the Almanac is very” after", "texts", box=None, pad_edge=False)
    for name in ("P(doubt)", "exact", "P(trust)", "exact"):
        stance.add_column(name, justify="right")
    for v in report.verdicts:
        stance.add_row(
            v.text, str(v.n), *(f"{p:.3f}" for p in (v.model_doubt, v.reader_doubt, v.model_trust, v.reader_trust))
        )
    console.print(stance)
