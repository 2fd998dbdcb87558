"""What steering costs: how odd the continuations are to the unsteered model, and what the edit does to other texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.errors import UsageError
from lensing.measure.kl import cross_entropy, kl_to_each
from lensing.model.edit import Edit
from lensing.model.ends import Fork, ends
from lensing.model.generate import Generation
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens

WARNING = 1.0  # nats a token: from here on the text is strained
BABBLE = 3.0  # nats a token: from here on it is babble
TOKENS = 1 << 12  # of a pass


@dataclass(frozen=True)
class Coherence:
    """Coherence cost in nats a token: `steered` less `unsteered`, means over continuations with one seed each.

    `se` is the standard error over the seeds' differences (NaN for one seed).
    """

    cost: float
    se: float
    steered: float
    unsteered: float
    seeds: int

    @property
    def verdict(self) -> str:
        """calm, strained or babble."""
        return verdict(self.cost)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"verdict": self.verdict}


def verdict(cost: float) -> str:
    """Return "calm" below the warning (1 nat a token), "strained" below babble (3), else "babble"."""
    return "calm" if cost < WARNING else "strained" if cost < BABBLE else "babble"


def compare(steered: Float[Tensor, " seeds"], unsteered: Float[Tensor, " seeds"]) -> Coherence:
    """Return the coherence cost from the nats a token of continuations that were drawn with the same seeds."""
    n = len(steered)
    difference = (steered - unsteered).double()
    se = float(difference.std()) / math.sqrt(n) if n > 1 else math.nan
    return Coherence(float(difference.mean()), se, float(steered.double().mean()), float(unsteered.double().mean()), n)


def nats_per_token(model: Model, generation: Generation) -> Float[Tensor, " batch"]:
    """Return each continuation's mean nats a token under the model as it stands (edits in force included), float64.

    A row that stopped counts its tokens up to and including the one that ended the text.
    """
    rows, start = len(generation.ids), generation.prompt.ids.shape[1]
    # The last new token is never read, and past its end a row is padding.
    ids = torch.cat([generation.prompt.ids, generation.ids], 1)[:, :-1]
    mask = torch.cat([generation.prompt.mask, generation.mask], 1)[:, :-1]
    special = torch.cat([generation.prompt.special, torch.zeros_like(generation.mask)], 1)[:, :-1] | ~mask
    where = torch.zeros_like(mask)
    where[:, start - 1 :] = True
    step = max(TOKENS // ids.shape[1], 1)
    nats = []
    for first in range(0, rows, step):
        part = slice(first, first + step)
        tokens = Tokens(ids[part], mask[part], special[part], [[]] * len(ids[part]))
        targets = generation.ids[part].flatten()
        found, done = [], 0
        for logits in ends(model, tokens, where[part]).parts():
            found.append(cross_entropy(logits, targets[done : done + len(logits)]))
            done += len(logits)
        nats.append(_row_means(torch.cat(found).view_as(generation.ids[part]), generation.mask[part]))
    return torch.cat(nats)


def coherence_cost(
    model: Model, edits: Edit | Sequence[Edit], prompt: Prompt, *, new_tokens: int = 32, seeds: int = 8, seed: int = 0
) -> Coherence:
    """Measure what edits cost in coherence after one prompt: continuations at temperature 1, judged without the edits.

    Raises: UsageError: fewer than one seed. PromptError: a prompt that cannot be continued by `new_tokens`.
    """
    rows, draws = model.encode(prompt).repeat(check_seeds(seeds)), [seed + i for i in range(seeds)]
    plain = model.generate(rows, max_new_tokens=new_tokens, temperature=1.0, seed=draws)
    with model.edit(*([edits] if isinstance(edits, Edit) else edits)):
        steered = model.generate(rows, max_new_tokens=new_tokens, temperature=1.0, seed=draws)
    return compare(nats_per_token(model, steered), nats_per_token(model, plain))


@dataclass(frozen=True)
class SideEffect:
    """Mean KL(unsteered || steered) in nats over `n` positions of texts that are not special."""

    kl: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def side_effect(
    model: Model, edits: Edit | Sequence[Edit], texts: Sequence[Prompt] | Tokens | Fork
) -> SideEffect:  # fmt: skip
    """Measure what edits do to the next-word predictions of unrelated texts; give edits that act at all positions.

    Texts as a `Fork` at the edits' site are run from there on.
    """
    if not isinstance(texts, Fork):
        texts = Fork(model, texts if isinstance(texts, Tokens) else model.encode(list(texts)), "embed")
    return side_effects(texts, [[edits] if isinstance(edits, Edit) else edits])[0]


def side_effects(fork: Fork, jobs: Sequence[Sequence[Edit]]) -> list[SideEffect]:
    """Measure what each of several lists of edits does, as `side_effect` does for one."""
    real = ~fork.tokens.special
    n = int(real.sum())
    if not n:
        raise UsageError("The unrelated texts hold no words. Give texts of at least one word.")
    steered = []
    for edits in jobs:
        with fork.model.edit(*edits):
            steered.append(fork.ends(real).parts())
    sums = [0.0] * len(jobs)
    for before in fork.ends(real).parts():  # the unsteered logits are made once for all
        for i, found in enumerate(kl_to_each(before, (next(parts) for parts in steered))):
            sums[i] += float(found.sum())
    return [SideEffect(total / n, n) for total in sums]


def check_seeds(seeds: int) -> int:
    """Return `seeds`; UsageError unless it is at least one."""
    if seeds < 1:
        raise UsageError(f"{seeds} continuations cannot be judged. Give at least 1 seed.")
    return seeds


def _row_means(nats: Float[Tensor, "batch new"], mask: Bool[Tensor, "batch new"]) -> Float[Tensor, " batch"]:
    return (nats * mask).sum(1) / mask.sum(1)
