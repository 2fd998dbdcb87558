"""How strong the sparsity penalty is at each step: a ramp, and a controller where an L0 is to be reached."""

from __future__ import annotations

import math
from typing import Any

FIRST = 1e-2  # the coefficient with which a steered penalty begins, as a share of the data's mean square
PATIENCE = 0.3  # share of the steps in which the coefficient can change by its whole range
RANGE = math.log(1e4)
MEMORY = 0.9  # of the running means of log L0 and of its change a step
RISE = 0.5  # share of the steps over which the aim rises, where it begins below l0
AHEAD = 0.1  # share of the steps by which the controller looks ahead


class Coefficient:
    """The weight of an architecture's penalty: its own, or one that moves until L0 is what the config asks for.

    A steered coefficient c moves at each step by d log c = gain clip(e + T de/dt, -1, 1), with e = log(L0 / aim) and
    T a tenth of the steps: it looks ahead, because a dictionary answers late, and stays within its range of its start.
    The aim begins at the recipe's `l0_start` of l0 and rises evenly in its logarithm over the first half: latents that
    start out rare end with less unexplained (a twentieth for Gated and JumpReLU on `almanac`).
    """

    def __init__(self, config: Any, steps: int, power: float) -> None:
        self.ramp = max(round(getattr(config, "ramp", 0.0) * steps), 1)
        self.target = config.l0 if getattr(config, "is_steered", False) else None
        given = getattr(config, "sparsity", None)
        self.first = given or 0.0
        if self.target is not None:
            self.first = FIRST * power / max(self.target, 1.0)
        self.moved = 0.0  # log of the coefficient over its first value
        self.gain, self.ahead = RANGE / max(PATIENCE * steps, 1.0), AHEAD * steps
        self.log_l0, self.trend = math.nan, 0.0
        self.start, self.rise = math.log(config.recipe.l0_start), max(RISE * steps, 1.0)

    def at(self, step: int) -> float:
        """The penalty's weight at a step."""
        return self.first * math.exp(self.moved) * min((step + 1) / self.ramp, 1.0)

    def aim(self, step: int) -> float:
        """The logarithm of the L0 to be reached at a step."""
        assert self.target is not None
        return math.log(self.target) + self.start * max(1.0 - step / self.rise, 0.0)

    def see(self, l0: float, step: int) -> None:
        """Take in a batch's L0."""
        if self.target is None:
            return
        now = math.log(max(l0, 1e-3))
        before = self.log_l0
        self.log_l0 = now if math.isnan(before) else MEMORY * before + (1 - MEMORY) * now
        self.trend = MEMORY * self.trend + (1 - MEMORY) * (0.0 if math.isnan(before) else self.log_l0 - before)
        error = self.log_l0 - self.aim(step) + self.ahead * self.trend
        self.moved += self.gain * min(max(error, -1.0), 1.0)
        self.moved = min(max(self.moved, -RANGE), RANGE)

    def state(self) -> list[float]:
        """What the next steps depend on."""
        return [self.first, self.moved, self.log_l0, self.trend]

    def load_state(self, state: list[float]) -> None:
        """Continue from what `state` gave."""
        self.first, self.moved, self.log_l0, self.trend = state
