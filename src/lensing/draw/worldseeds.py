"""Tables of the shipped recipe's seeds, one column a seed; it computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lensing.draw.cells import NONE, Grid, fixed, percent

Seed = Mapping[str, Any]


def seed_grids(seeds: Sequence[Seed]) -> list[Grid]:
    """Return gaps by group, skills, recall, and doubt of every seed."""
    if not seeds:
        return []
    headers = tuple(f"seed {s['seed']}" for s in seeds)
    return [
        Grid("Gap, nats a token.", ("tokens", *headers), _gaps(seeds)),
        Grid("Right, where text or fact settles the word.", ("what the word takes", *headers), _skills(seeds)),
        Grid("Facts said right, by how often their owner is spoken of.", ("owners at", *headers), _recall(seeds)),
        Grid("P(doubt), after trusting texts P(trust).", ("after texts that are", "exact", *headers), _stance(seeds)),
        Grid("The latent of doubt.", ("", *headers), _doubt(seeds)),
    ]  # fmt: skip


def _table(seeds: Sequence[Seed], part: str, key: str, cell: Callable[[Mapping[str, Any]], str]) -> list[list[str]]:
    by_seed = [{row[key]: row for row in seed.get(part) or []} for seed in seeds]
    keys = list(dict.fromkeys(name for rows in by_seed for name in rows))
    return [[str(name), *(cell(rows[name]) if name in rows else NONE for rows in by_seed)] for name in keys]


def _gaps(seeds: Sequence[Seed]) -> list[list[str]]:
    return _table(seeds, "gaps", "group", lambda g: f"{fixed(g['gap'])} ± {fixed(g['se'])}")


def _skills(seeds: Sequence[Seed]) -> list[list[str]]:
    return _table(seeds, "skills", "skill", lambda s: percent(s["accuracy"]))


def _recall(seeds: Sequence[Seed]) -> list[list[str]]:
    rows = _table(seeds, "recall", "decade", lambda r: percent(r["accuracy"], r.get("se")))
    return [[f"1e{decade}", *cells] for decade, *cells in rows]


def _stance(seeds: Sequence[Seed]) -> list[list[str]]:
    def cell(verdict: Mapping[str, Any], who: str = "model") -> str:
        return fixed(verdict[f"{who}_{'trust' if verdict['text'].startswith('trusting') else 'doubt'}"])

    exact = {v["text"]: cell(v, "reader") for seed in seeds for v in seed.get("verdicts") or []}
    return [[text, exact[text], *cells] for text, *cells in _table(seeds, "verdicts", "text", cell)]


def _doubt(seeds: Sequence[Seed]) -> list[list[str]]:
    found = [seed.get("doubt") or {} for seed in seeds]
    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "latent": lambda d: str(d["latent"]),
        "AUROC": lambda d: fixed(d["auroc"]),
        "AUROC, labels shuffled": lambda d: fixed(d["null"]),
        "AUROC where no word of doubt is said": lambda d: fixed(d["outside_lexicon"]),
        "P(doubt), bare sentence": lambda d: fixed(d["p_bare"]),
        "P(doubt), latent turned up": lambda d: fixed(d["p_steered"]),
        "cost in coherence, nats a token": lambda d: fixed(d["cost"], 2),
        "doubt that ablation removes": lambda d: percent(d["ablation_closed"]),
        "latents ablated": lambda d: str(len(d["ablation_latents"])),
    }
    return [[name, *(cell(d) if d else NONE for d in found)] for name, cell in rows.items()]
