"""What a training run did, as one result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainReport:
    """One dictionary's training: how long, and how good on the held-out rows.

    `tokens` rows were seen in `steps` steps of `batch` at peak learning rate `lr`, in `seconds` of this and earlier
    sittings. `documents` are the source's, `held_out_documents` those never trained on, `held_out_rows` the rows that
    `fvu`, `l0` and `dead_share` were measured on (definitions: dictionary.statistics.Statistics). `silent_share` is
    the share of latents that were dead by the training's own rule at its end. `step_seconds` of the `seconds` went
    into this dictionary's own steps, `reading_seconds` into waiting for rows, which several dictionaries share.
    `behaviour` is what its splice costs the model (measure.splice_cost.SpliceCost, as plain values), or None, and then
    `behaviour_note` says why. `history` are points of metrics.jsonl.
    """

    steps: int
    tokens: int
    batch: int
    lr: float
    seed: int
    seconds: float
    documents: int
    held_out_documents: int
    held_out_rows: int
    fvu: float
    l0: float
    dead_share: float
    silent_share: float
    step_seconds: float = 0.0
    reading_seconds: float = 0.0
    behaviour: dict[str, Any] | None = None
    behaviour_note: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def rows_per_second(self) -> float:
        """Rows trained on in a second, reading included."""
        return self.tokens / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"rows_per_second": self.rows_per_second}

    def summary(self) -> dict[str, Any]:
        """The same without the history, as it stands in the dictionary's config.json."""
        return {name: value for name, value in asdict(self).items() if name != "history"}
