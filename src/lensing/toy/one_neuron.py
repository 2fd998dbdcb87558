"""One neuron and several things to tell apart: why cross-entropy likes a neuron that means two of them.

A neuron that fires for one of four equally likely inputs tells that one and leaves the other three alike, 3/4 ln 3 =
0.824 nats; one that fires for two of them leaves ln 2 = 0.693 (Bricken et al. 2023, "Towards Monosemanticity").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lensing.errors import UsageError


def one_neuron_loss(fires: Sequence[bool], p: Sequence[float] | None = None) -> float:
    """Return the least mean cross-entropy, in nats, of telling the input from whether the neuron fires.

    `fires` says for which inputs it does, `p` how likely they are (None: all alike). It is H(input | fires).
    """
    n = len(fires)
    p = [1 / n] * n if p is None else p
    if len(p) != n or any(x < 0 for x in p) or not math.isclose(sum(p), 1, abs_tol=1e-9):
        raise UsageError(f"{list(p)} are not the probabilities of {n} inputs. Give {n} numbers that sum to 1.")
    total = 0.0
    for on in (True, False):
        group = [x for x, fire in zip(p, fires, strict=True) if fire == on and x > 0]
        total += sum(x * math.log(sum(group) / x) for x in group)
    return total


def best_neuron(n: int, p: Sequence[float] | None = None) -> tuple[tuple[bool, ...], float]:
    """Return for which of `n` inputs a neuron should fire, and its loss in nats: every choice is tried."""
    choices = itertools.product((False, True), repeat=n)
    return min(((fires, one_neuron_loss(fires, p)) for fires in choices), key=lambda found: found[1])
