"""How strong the sparsity penalty is at each step: a ramp, and a controller where an L0 is to be reached."""

from __future__ import annotations

import math
from typing import Any

FIRST = 1e-2  # the coefficient with which a steered penalty begins, as a share of the data's mean square
PATIENCE = 0.15  # share of the steps in which the coefficient can change by its whole range
RANGE = math.log(1e4)
MEMORY = 0.9  # of the running mean of L0


class Coefficient:
    """The weight of an architecture's penalty: its own, or one that moves until L0 is what the config asks for.

    A steered coefficient c moves by d log c = gain clip(log(L0 / l0), -1, 1) at each step: an integral controller, on
    a running mean of L0, slow enough to follow the dictionary's answer.
    """

    def __init__(self, config: Any, steps: int, power: float) -> None:
        self.ramp = max(round(getattr(config, "ramp", 0.0) * steps), 1)
        self.target = config.l0 if getattr(config, "is_steered", False) else None
        given = getattr(config, "sparsity", None)
        self.value = given if given is not None else FIRST * power / max(self.target or 1.0, 1.0)
        self.gain = RANGE / max(PATIENCE * steps, 1.0)
        self.l0 = -1.0  # no batch yet

    def at(self, step: int) -> float:
        """The penalty's weight at a step."""
        return self.value * min((step + 1) / self.ramp, 1.0)

    def see(self, l0: float) -> None:
        """Take in a batch's L0."""
        self.l0 = l0 if self.l0 < 0 else MEMORY * self.l0 + (1 - MEMORY) * l0
        if self.target is not None:
            error = math.log(max(self.l0, 1e-3) / self.target)
            self.value *= math.exp(self.gain * min(max(error, -1.0), 1.0))

    def state(self) -> list[float]:
        """What the next steps depend on."""
        return [self.value, self.l0]

    def load_state(self, state: list[float]) -> None:
        """Continue from what `state` gave."""
        self.value, self.l0 = state
