"""Draw the walk's neuron and latents: contexts, concepts needed, tables, words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lensing.draw.contexts import context_lines, visible
from lensing.draw.panels import indented, rule, say, table

ROWS, CONTEXTS, WORDS = 6, 8, 8
AGREES = 0.5  # F1 from which on a concept is shown as a latent's label


def one_neuron(b: Any, console: Console) -> None:
    """Beat 4."""
    rule(console, 4, "One neuron, and where it is strong")
    n = b.neuron
    if n is None:
        say(console, "The neurons of this layer are not given by this model's structure, so none is shown.")
        return
    say(
        console,
        f"Neuron {n.index} of {n.site} is the strongest at the last token ({n.value:+.2f}). Where else is it strong, "
        f"both ways, in {b.text_tokens:,} tokens of {b.text}? (An entry of the MLP's hidden layer, not a "
        "coordinate of the residual stream.)",
    )
    for contexts in (n.top, n.bottom):
        for line in context_lines(contexts, console):
            console.print(line)
    kind = "concepts and words" if b.labelled else "words"
    console.print()
    say(console, f"How many {kind} cover 80% of its top 1% (each at least 5 times as frequent there as in all)?")
    grid = table("", "top rows", "needs", "which", right=(1, 2), grow=3)
    named = {"positive": f"neuron {n.index}, above zero", "negative": f"neuron {n.index}, below zero"}
    for key, title in named.items():
        _cover(grid, title, n.covers[key])
    for title, covers in (("other neuron", n.others), ("random direction", n.random)):
        order = sorted(covers, key=lambda c: (c.count is None, c.count or len(c.names), -c.covered))
        if order:
            _cover(grid, f"{title}, median of {len(order)}", order[len(order) // 2])
    _cover(grid, f"latent {b.latent}", n.covers["latent"])
    console.print(indented(grid))


def _cover(grid: Table, title: str, cover: Any) -> None:
    needs = "never fires" if not cover.rows else str(cover.count)
    if cover.rows and cover.count is None:
        needs = f"not within {len(cover.names)}"
    names = ", ".join(map(visible, cover.names))
    if cover.rows and cover.count is None:
        names = f"({cover.covered:.0%} covered) {names}"
    grid.add_row(title, f"{cover.rows:,}", needs, Text(names, style="dim"))


def active_latents(b: Any, console: Console) -> None:
    """Beat 5."""
    rule(console, 5, "Latents at the last token")
    e = b.effects
    say(
        console,
        f"Active on “{visible(e.token).strip()}”: {len(e.latents)} of the dictionary's latents. Left: the "
        f"strongest. Right: those whose removal changes log p(“{visible(e.target_word).strip()}”) most, in nats; what "
        "the dictionary misses has a row of its own.",
    )
    known = {x.id: x for x in b.latents}
    by_effect = [x for x in e.by_effect() if x.kind == "latent"]
    sides = [_latents(rows[:ROWS], known) for rows in (e.by_activation(), by_effect)]
    for side in (e.error, e.bias):
        sides[1].add_row(Text(side.kind, style="italic"), "", _effect(side), Text(_parts[side.kind], style="dim"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=(console.width - 2) // 2)
    grid.add_column(width=(console.width - 2) // 2)
    grid.add_row(*sides)
    console.print(indented(grid))


_parts = {"error": "not reconstructed", "bias": "b_dec"}


def _latents(rows: Sequence[Any], known: dict[int, Any]) -> Table:
    grid = table("latent", "activation", "effect", "label, or its words", right=(0, 1, 2), grow=3)
    for row in rows:
        latent = known[row.latent]
        what = Text(f"↑ {_words(latent.positive_logits[:3])}", style="dim")
        if latent.label and (latent.f1 is None or latent.f1 >= AGREES):
            what = Text(latent.label)
        grid.add_row(str(row.latent), f"{row.activation:.2f}", _effect(row), what)
    return grid


def _effect(part: Any) -> Text:
    return Text(f"{part.effect:+.2f}", style="bold" if abs(part.effect) >= 0.1 else "")


def one_latent(b: Any, console: Console) -> None:
    """Beat 6."""
    rule(console, 6, f"What latent {b.latent} fires on")
    latent, f = b.followed, b.follow
    why = {"found by contrast": f"found from the text's labels for {f.get('concept')}", "as asked": "as asked"}
    sentence = f"Its strongest distinct contexts ({why.get(f['why'], 'the largest effect on the next word')}"
    if "auroc" in f:
        sentence += f"; AUROC {f['auroc']:.3f} on held-out text, average precision {f['average_precision']:.3f}"
        sentence += f", shuffled labels {f['null_auroc']:.2f}" if "null_auroc" in f else ""
    sentence += (
        f"). Fires on {latent.density:.2%} of tokens, at most {latent.max:.2f}; {latent.value:.2f} on this last token."
    )
    if latent.label and latent.f1 is not None and latent.f1 < AGREES:
        sentence += f" No one label fits all the places where it fires (best: {latent.label}, F1 {latent.f1:.2f})."
    elif latent.label:
        sentence += f" It fires where the text is labelled {latent.label}"
        sentence += "." if latent.f1 is None else f" (F1 {latent.f1:.2f})."
    say(console, sentence)
    if not latent.examples:
        say(console, f"It fires nowhere in {b.text}." if b.text_tokens else "There is no text to look in. Give --text.")
    for line in context_lines(latent.examples[:CONTEXTS], console):
        console.print(line)
    for title, words in (("speaks for", latent.positive_logits), ("against", latent.negative_logits)):
        if words:
            line = Text.assemble((f"  {title:<11}", "dim"), _words(words[:WORDS]))
            line.truncate(console.width, overflow="ellipsis")
            console.print(line)


def _words(words: Sequence[tuple[str, float]]) -> str:
    return "  ".join(visible(w).strip() or "␣" for w, _ in words)
