"""What the shipped world and model must reach, written down before they were measured."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any

COVERAGE_DECADE = -5  # the rarest decade of concepts, per token, that coverage measures will use
MIDDLE = "resid_post.2"


@dataclass(frozen=True)
class Bar:
    """A number that must be reached: `relation` is ">=", "<=" or "<"."""

    name: str
    relation: str
    value: float


BARS = {
    bar.name: bar
    for bar in (
        Bar("concepts the model has at the middle layer, over d_model", ">=", 3.0),
        Bar("share of latents that only detect a word, middle layer", "<", 0.5),
        Bar("homonyms whose senses have different top latents", ">=", 0.5),
        Bar("meanings with the same latent in both languages", ">=", 0.5),
        Bar("gap to the reader's floor, nats a token, every group", "<=", 0.15),
        Bar("gap to the reader's floor, nats a token, all", "<=", 0.1),
        Bar("copying", ">=", 0.9),
        Bar("calendar", ">=", 0.9),
        Bar("two-hop, combinations read", ">=", 0.9),
        Bar("recall of facts at 1e-5, the rarest of coverage", ">=", 0.8),
        Bar("AUROC of the doubt latent on held-out documents", ">=", 0.95),
        Bar("P(doubt) when the doubt latent is turned up, before babble", ">=", 0.8),
        Bar("share of doubt that ablating few latents removes", ">=", 0.5),
        Bar("shipped files, MB", "<", 30.0),
    )
}


@dataclass(frozen=True)
class Check:
    """One bar with what was measured; `met` None where it was not measured."""

    bar: Bar
    measured: float | None
    met: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def check(name: str, measured: float | None) -> Check:
    """Hold a measurement against its bar."""
    bar = BARS[name]
    compare = {">=": operator.ge, "<=": operator.le, "<": operator.lt}[bar.relation]
    return Check(bar, measured, None if measured is None else bool(compare(measured, bar.value)))
