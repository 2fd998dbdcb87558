"""The report of the shipped world as one Markdown page with pictures; it computes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lensing.draw.cells import Grid, by_class, by_reason, fixed, percent
from lensing.draw.charts import BLUE, MISSING, ORANGE, Bar, Series, Stack, bars, dots, lines, numbered, stacks
from lensing.draw.worldbars import bar_grid, bar_value, tally
from lensing.draw.worldsections import GROUPS, Section, sections

FOLDER = "world"  # of the pictures, beside the page
INTRODUCTION = """\
The Almanac is a world that a program invented: people, beasts, towns, a calendar, letters, a second language. The \
program writes its documents by known rules, so questions about a text that usually have no answer have an exact one \
here: how surprising the next word must be for the best possible reader, who is being spoken of, whether the writer \
trusts the source that is quoted. {model} is a small language model that has read nothing else. This page holds the \
model, and the dictionaries that were trained on its activations, against those answers.

**Labels are true of the text, not of the model's features.** Where a probe or a latent agrees with them, the model \
holds the information at that place in a form that can be read off; that does not say that the model is made of it, or \
uses it. And what is shown here is that the instruments work where the answers are known, not that larger models are \
built in this way."""
BARS = "What the model must reach was written down in `lensing/evaluation/bars.py` before it was measured."


def world_page(report: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the page as Markdown, and its pictures as SVG by file name; the page looks for them in `world/`."""
    model = report.get("model") or "The shipped model"
    parts = ["# The world, and what the model made of it", INTRODUCTION.format(model=f"**{_md(model)}**")]
    parts += ["## The bars", f"{BARS} {_md(tally(report))}"]
    if report.get("bars"):
        parts.append(_table(bar_grid(report)))
    pictures: dict[str, str] = {}
    for section in sections(report):
        parts += [f"## {section.title}", _md(section.read), *_bullets(section.bars)]
        if not section.grids:
            parts.append("Not measured.")
            continue
        for name, (picture, words) in _pictures(section, report).items():
            pictures[name] = picture
            parts.append(f"![{words}]({FOLDER}/{name})")
        for grid in section.grids:
            parts += [_md(grid.title)] * bool(grid.title) + [_table(grid)]
        if section.key == "probes":
            parts += _without(report["probes"])
    parts += _documents(report.get("examples") or [])
    return "\n\n".join(parts) + "\n", pictures


def _pictures(section: Section, report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Pictures of a measured section: by file name, the SVG and what it shows in words."""
    floor, probes = report.get("floor") or {}, report.get("probes") or {}
    dictionaries = report.get("dictionaries") or []
    if section.key == "gap":
        title = "Gap to the reader's floor by group of tokens"
        groups = {"": [floor["overall"] | {"group": "all tokens"}] if floor.get("overall") else []}
        groups |= {name: floor.get(part) or [] for part, name in GROUPS.items()}
        drawn = {
            name: [Bar(g["group"], g["gap"], _twice(g["se"]), fixed(g["gap"])) for g in part]
            for name, part in groups.items()
            if part
        }
        mark = bar_value(report, "gap to the reader's floor, nats a token, every group")
        axis = "gap, nats a token (whiskers: two standard errors)"
        return {"gap.svg": (bars(title, drawn, axis, mark=mark), title)}
    if section.key == "recall":
        title = "Facts said right by how often their owner is spoken of"
        drawn = [
            Bar(f"1e{r['decade']} a token", r["accuracy"], _twice(r.get("se")), percent(r["accuracy"]))
            for r in floor["recall"]
        ]
        axis = "share right (whiskers: two standard errors); the bar is for 1e-5"
        mark = bar_value(report, "recall of")
        return {"recall.svg": (bars(title, {"": drawn}, axis, mark=mark, top=1.0), title)}
    if section.key == "probes":
        title = "Concepts had and not had, by site and by planted frequency"
        middle = probes.get("middle", "the middle layer")
        drawn = {
            "by site": [Stack(s["site"], s["had"], s["tried"]) for s in probes.get("sites") or []],
            f"at {middle}, by planted frequency": [
                Stack(f"{g['group']} a token", g["had"], g["tried"]) for g in probes.get("by_decade") or []
            ],
        }
        return {"concepts.svg": (stacks(title, {name: rows for name, rows in drawn.items() if rows}), title)}
    if section.key == "revisions" and probes.get("revisions"):
        title = "Concepts had along training"
        # An untrained model has no place on a logarithmic axis; the table has it.
        points = [(float(r["tokens"]), float(r["had"])) for r in probes["revisions"] if r["tokens"] > 0]
        up = f"concepts had at {probes.get('middle', 'the middle layer')}"
        return {"revisions.svg": (lines(title, [Series("", points)], "tokens of training", up, log=True), title)}
    if section.key == "words":
        title = "Share of latents that only detect a word"
        drawn = [
            Bar(d["id"], d.get("word_detectors"), _twice(d.get("word_detectors_se")), percent(d.get("word_detectors")))
            for d in dictionaries
        ]
        mark = bar_value(report, "share of latents that only")
        axis = "share of alive latents (whiskers: two standard errors); the bar is for the middle layer"
        return {"words.svg": (bars(title, {"": drawn}, axis, mark=mark, top=1.0), title)}
    if section.key == "fvu":
        title = "Share of the variance not reconstructed, beside tables of tokens and a random-weights model"
        drawn = {d["id"]: d["fvu"] for d in dictionaries if d.get("fvu")}
        return {"fvu.svg": (dots(title, drawn, "FVU, logarithmic; left is better"), title)}
    if section.key == "letter":
        return {"letter.svg": (_letter(report["letter"]["lines"]), "A letter whose writer loses faith, line by line")}
    return {}


def _letter(found: Sequence[Mapping[str, Any]]) -> str:
    def series(name: str, key: str, colour: str = ORANGE) -> Series:
        return Series(name, [(float(n), line.get(key)) for n, line in enumerate(found, start=1)], colour)

    panels = {
        "what probes read": [series("trust", "probe_trust", BLUE), series("doubt", "probe_doubt")],
        "latent of doubt": [series("", "latent")],
        "probability of words of": [series("trust", "p_trust", BLUE), series("doubt", "p_doubt")],
    }
    panels = {name: part for name, part in panels.items() if any(y is not None for s in part for _, y in s.points)}
    texts = [(line["text"], line["stance"]) for line in found]
    return numbered("A letter, line by line, with what is read off after each line", texts, panels, "line")


def _twice(se: float | None) -> float | None:
    return None if se is None else 2 * se


def _without(probes: Mapping[str, Any]) -> list[str]:
    """Concepts that are not had, and those that could not be probed, folded."""
    parts, names, refused = [], probes.get("missing") or [], probes.get("refused") or {}
    if names:
        summary = f"The {len(names):,} concepts that were probed and that the model does not have"
        parts.append(_folded(f"{summary} at {probes.get('middle', 'the middle layer')}", by_class(names)))
    else:
        parts.append(f"Concepts that were probed and are not had: {'none' if 'missing' in probes else MISSING}.")
    if refused:
        parts.append(_folded(f"The {len(refused):,} concepts that could not be probed, and why", by_reason(refused)))
    return parts


def _folded(summary: str, groups: Mapping[str, Sequence[str]]) -> str:
    rows = [f"- **{_md(name)}** ({len(members)}): {_md(', '.join(members))}" for name, members in groups.items()]
    return f"<details>\n<summary>{_md(summary)}</summary>\n\n" + "\n".join(rows) + "\n\n</details>"


def _documents(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = ["## Documents of the world, to read"]
    if not examples:
        return [*parts, "None were written with this report."]
    for e in examples:
        parts += [f"**{_md(e['register'].capitalize())}**, document {e['number']:,}", f"> {_md(e['text'])}"]
    return parts


def _bullets(sentences: Sequence[str]) -> list[str]:
    return ["\n".join(f"- Bar: {_md(sentence)}" for sentence in sentences)] if sentences else []


def _table(grid: Grid) -> str:
    sides = [":---" if i in grid.words else "---:" for i in range(len(grid.headers))]
    rows = [[_md(h) for h in grid.headers], sides, *([_md(cell) for cell in row] for row in grid.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _md(text: str) -> str:
    """Return text with every character that Markdown or HTML would read as markup made harmless."""
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
    # An underscore or a star between letters is no markup; elsewhere it could be.
    return re.sub(r"([\\`*|\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", text)
