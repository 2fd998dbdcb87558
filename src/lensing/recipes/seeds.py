"""The shipped recipe with other random numbers: how much of what the report says is chance."""

from __future__ import annotations

import dataclasses
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.evaluation.doubt import doubt_report
from lensing.evaluation.floor import floor_report
from lensing.model.run import Model
from lensing.world.almanac.grammar import almanac

DOCUMENTS = 150  # of the held-out text that the exact reader reads for each seed


def seed_section(model: Model, seed: int, dictionary: Dictionary | None = None) -> dict[str, Any]:
    """Hold one seed's model against the exact reader, and its latent of doubt (of `dictionary`) against the text."""
    floor = floor_report(model, almanac(), documents=DOCUMENTS)
    groups = (floor.overall, *floor.by_register, *floor.by_language, *floor.by_position, *floor.by_frequency)
    return {
        "seed": seed,
        "documents": floor.documents,
        "tokens": floor.tokens,
        "gaps": [{"group": g.group, "tokens": g.tokens, "gap": g.gap, "se": g.se} for g in groups],
        "skills": [dataclasses.asdict(s) for s in (*floor.skills, floor.unseen_two_hop)],
        "recall": [dataclasses.asdict(r) for r in floor.recall],
        "verdicts": [dataclasses.asdict(v) for v in floor.verdicts],
        "doubt": None if dictionary is None else {**doubt_report(model, dictionary).to_json(), "model": model.name},
    }
