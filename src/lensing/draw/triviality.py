"""What a dictionary shows beyond the words, in the terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.text import Text

from lensing.draw.contexts import visible
from lensing.draw.panels import indented, say, table

ROWS = 12


def draw_triviality(report: Any, console: Console) -> None:
    """Draw a TrivialityReport: word detectors, tables of words, information, covers, geometry, senses."""
    console.rule(f"{report.dictionary} beside the words", align="left")
    say(console, f"{report.documents:,} documents, {report.rows:,} tokens of labelled text, at {report.site}.")
    d = report.detectors
    say(
        console,
        f"Latents that only detect a word: {_percent(d.share)} ± {_percent(d.se)} of {d.alive:,} alive ones (a set of "
        f"words predicts where they fire, F1 {d.f1:g} on other documents); a single word: {_percent(d.share_one)}. The "
        f"token tells {_percent(d.median_information)} of the median latent's firing.",
    )
    grid = table("not reconstructed (FVU)", "", right=(1,))
    for name, value in report.fvu.items():
        grid.add_row(name, f"{value:.3f}")
    _titled(console, grid, f"on {report.fvu_rows:,} rows; tables fitted on {report.fit_rows:,} others")
    _information(report.information, console)
    if report.covers:
        grid = table("concepts needed for the top 1%", "units", "median", "1 enough", "5 enough", right=(1, 2, 3, 4))
        for c in report.covers:
            median = "none" if not c.needed else f"{c.median:g}" if math.isfinite(c.median) else "never"
            grid.add_row(c.kind, f"{len(c.needed):,}", median, _percent(c.within(1)), _percent(c.within(5)))
        _titled(console, grid, f"on {report.cover_rows:,} rows")
    names = ("directions", "n", "dimensions", "median share of one", "median interference")
    grid = table(*names, right=(1, 2, 3, 4))
    for g in report.geometry:
        grid.add_row(g.kind, f"{g.n:,}", str(g.d), f"{g.dimensionality:.3f}", f"{g.interference:.2f}")
    _titled(console, grid)
    if report.homonyms is not None:
        _homonyms(report.homonyms, console)
    if report.translations is not None:
        _translations(report.translations, console)


def _information(information: Any, console: Console) -> None:
    grid = table("class that tells most beyond the token", "latents", "median share of what is left", right=(1, 2))
    for c in information.by_class()[:ROWS]:
        grid.add_row(Text(c.cls), f"{c.latents:,}", _percent(c.share))
    _titled(console, grid)


def _homonyms(h: Any, console: Console) -> None:
    title = f"{_percent(h.share)} ± {_percent(h.se)} of {len(h.pairs)} pairs of senses have different top latents "
    title += f"({_percent(h.confirmed)} confirmed on other documents; senses shuffled: {_percent(h.null)})"
    grid = table("word", "sense", "latent", "AUROC", "sense", "latent", "AUROC", right=(2, 3, 5, 6))
    for p in h.pairs[:ROWS]:
        sides = ((p.sense_a, p.latent_a, p.auroc_a), (p.sense_b, p.latent_b, p.auroc_b))
        cells = [c for s, top, a in sides for c in (Text(s), "none" if top is None else str(top), f"{a:.2f}")]
        grid.add_row(Text(visible(p.word)), *cells)
    _titled(console, grid, title)


def _translations(t: Any, console: Console) -> None:
    title = f"{_percent(t.share)} ± {_percent(t.se)} of {len(t.meanings)} meanings have the same best latent in both "
    title += f"languages (unlike meanings: {_percent(t.null)}); for {_percent(t.share_shared)} some latent picks both "
    title += f"words (unlike: {_percent(t.null_shared)})"
    grid = table(
        "word", "latent", "AUROC", "word", "latent", "AUROC", "best for both", "AUROC", right=(1, 2, 4, 5, 6, 7)
    )
    for m in t.meanings[:ROWS]:
        grid.add_row(
            Text(visible(m.word_a)), str(m.latent_a), f"{m.auroc_a:.2f}", Text(visible(m.word_b)), str(m.latent_b),
            f"{m.auroc_b:.2f}", str(m.shared), f"{m.auroc_shared:.2f}",
        )  # fmt: skip
    _titled(console, grid, title)


def _titled(console: Console, grid: Any, title: str = "") -> None:
    console.print()
    if title:
        say(console, title, "dim")
    console.print(indented(grid))


def _percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{share:.1%}"
