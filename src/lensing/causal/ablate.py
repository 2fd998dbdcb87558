"""Take latents out: what each one did for the next word, and how few of them carry a difference between two texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.causal.steer import Steer, steer
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.errors import UsageError
from lensing.model.edit import Add, At, Edit
from lensing.model.ends import Fork, last_words
from lensing.model.run import Model
from lensing.model.tokens import Prompt

NUMBERS = 1 << 25  # logits held at once
KEEP = 32  # candidates of the first round of `smallest_set` that later rounds try again


def ablate(dictionary: Dictionary, latents: Iterable[int], *, at: At = "all", include_special: bool = False) -> Edit:
    """Return the edit h -= sum of f_i(h) W_dec[i] over these latents; what the dictionary misses is left alone."""
    return steer(dictionary, dict.fromkeys(latents, 1.0), mode="ablate", at=at, include_special=include_special)


@dataclass(frozen=True)
class Effect:
    """What leaves h when one part is taken out, and the change in log p(target) that this makes, in nats.

    `kind` "latent": f_i W_dec[i], `activation` f_i. "error": what the dictionary misses, h - x_hat. "bias": b_dec. For
    these two `activation` is None. `length` is the length of what was taken out.
    """

    kind: Literal["latent", "error", "bias"]
    latent: int | None
    activation: float | None
    length: float
    effect: float


@dataclass(frozen=True)
class Effects:
    """The effects of all parts of h at one position on the log-probability of the word after the text.

    An effect is log p(target) without the part less log p(target) with it: below zero, the part speaks for the target.
    """

    site: str
    position: int
    token: str
    target: int
    target_word: str
    log_p: float
    latents: tuple[Effect, ...]
    error: Effect
    bias: Effect

    def by_effect(self) -> tuple[Effect, ...]:
        """All parts, error and bias among them, by the size of their effect, largest first."""
        return tuple(sorted((*self.latents, self.error, self.bias), key=lambda e: -abs(e.effect)))

    def by_activation(self) -> tuple[Effect, ...]:
        """The latents by activation, largest first."""
        return tuple(sorted(self.latents, key=lambda e: -(e.activation or 0.0)))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@torch.no_grad()
def effects(
    model: Model, dictionary: Dictionary, text: Prompt, *, position: int = -1, target: int | None = None
) -> Effects:
    """Take each active latent out at one position, exactly and one at a time, and see what the next word loses.

    `position` counts from the text's end when negative; the word is the one after the whole text, `target` (a token
    id) or the likeliest one.

    Raises: UsageError: no such position or token id, or several texts.
    """
    check_fits(dictionary, model)
    tokens, site = model.encode(text), str(dictionary.site)
    length = tokens.ids.shape[1]
    if len(tokens.ids) != 1:
        raise UsageError(f"{len(tokens.ids)} texts cannot be ablated at once. Give one text.")
    if not -length <= position < length:
        raise UsageError(f"There is no position {position} in {length} tokens. Give {-length} to {length - 1}.")
    if target is not None and not 0 <= target < model.d_vocab:
        raise UsageError(f"There is no token {target}. Give a token id from 0 to {model.d_vocab - 1}.")
    position %= length
    logits, cache = model.run_with_cache(tokens, sites=[site])
    assert logits is not None
    h = next(iter(cache.values()))[0, position]
    codes = dictionary.encode(h.reshape(1, -1).to(dictionary.W_dec.device))
    index, value = codes.row(0)
    parts = torch.cat(
        [
            value[:, None] * dictionary.W_dec[index],
            h.reshape(1, -1).to(dictionary.W_dec) - dictionary.decode(codes),
            dictionary.b_dec[None],
        ]
    )
    target = int(logits[0, -1].argmax()) if target is None else target
    # Row 0 takes nothing out, so that both sides of a difference come from batches of one kind.
    taken = torch.cat([torch.zeros_like(parts[:1]), parts])
    fork = Fork(model, tokens, site)
    log_p = torch.cat(
        [
            _last(fork, [Add(site, -v.reshape(-1, *h.shape), at=position, include_special=True)], len(v))
            for v in taken.split(_rows(model))
        ]
    ).log_softmax(-1)[:, target]
    change, lengths = (log_p[1:] - log_p[0]).tolist(), parts.norm(dim=1).tolist()
    kinds: list[tuple[Literal["latent", "error", "bias"], int | None, float | None]] = [
        *(("latent", i, v) for i, v in zip(index.tolist(), value.tolist(), strict=True)),
        ("error", None, None),
        ("bias", None, None),
    ]
    found = [Effect(*kind, size, effect) for kind, size, effect in zip(kinds, lengths, change, strict=True)]
    return Effects(
        site=site, position=position, token=model.tok_str(tokens.ids[0, position : position + 1])[0], target=target,
        target_word=model.tok_str(target)[0], log_p=float(log_p[0]), latents=tuple(found[:-2]), error=found[-2],
        bias=found[-1],
    )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One latent of a smallest set: with it and those before it ablated, the watched mass and share of gap closed."""

    latent: int
    watched: float
    closed: float


@dataclass(frozen=True)
class SmallestSet:
    """Few latents that carry the difference between texts A and B: watched mass at the next word of A, B and A ablated.

    `closed` is (A - ablated) / (A - B), not clipped: above 1 the ablation goes further than B.
    """

    a: float
    b: float
    steps: tuple[Step, ...]
    candidates: int

    @property
    def latents(self) -> list[int]:
        """The latents, in the order in which they were chosen."""
        return [step.latent for step in self.steps]

    @property
    def closed(self) -> float:
        """Share of the gap closed by all of them; 0 where none helps."""
        return self.steps[-1].closed if self.steps else 0.0

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"latents": self.latents, "closed": self.closed}


@torch.no_grad()
def smallest_set(
    model: Model,
    dictionary: Dictionary,
    text_a: Prompt | Sequence[Prompt],
    text_b: Prompt | Sequence[Prompt],
    watch: Sequence[int],
    *,
    most: int = 3,
) -> SmallestSet:
    """Find, greedily, at most `most` latents whose ablation in A at all its positions closes the gap to B.

    The gap is that of the watched tokens' probability mass after the text (the mean over texts, where several are
    given). Every latent active in A is tried exactly in the first round, the best 32 of them in later ones; a latent
    that closes nothing more is not taken. The choice is made on A and B themselves: confirm it on other texts.

    Raises: UsageError: no watched token, or A and B with the same watched mass.
    """
    check_fits(dictionary, model)
    wrong = [i for i in watch if not 0 <= i < model.d_vocab]
    if wrong or not len(watch):
        what = f"{wrong} cannot be watched" if wrong else "There is no token to watch"
        raise UsageError(f"{what}. Give token ids from 0 to {model.d_vocab - 1}.")
    ids = torch.tensor(sorted(set(watch)), device=model.device)
    tokens, other = model.encode(text_a), model.encode(text_b)
    fork = Fork(model, tokens, str(dictionary.site))
    a, b = (float(_mass(_last(f, [], 1), ids).mean()) for f in (fork, Fork(model, other, "embed")))
    if a == b:
        raise UsageError(f"Both texts give the watched words {a:.4f}, so there is no gap. Give texts that differ.")
    _, cache = model.run_with_cache(tokens, sites=[str(dictionary.site)], stop=True)
    h = next(iter(cache.values()))[~tokens.special].flatten(1)
    candidates = dictionary.encode(h.to(dictionary.W_dec.device)).index.unique().tolist()
    chosen: list[int] = []
    steps: list[Step] = []
    tried = candidates
    while len(steps) < most and tried:
        mass = _ablated(fork, dictionary, chosen, tried, ids)
        closed = (a - mass) / (a - b)
        order = closed.argsort(descending=True, stable=True)
        best, gain = tried[int(order[0])], float(closed[order[0]])
        if gain <= (steps[-1].closed if steps else 0.0):
            break
        chosen.append(best)
        steps.append(Step(best, float(mass[order[0]]), gain))
        tried = [tried[i] for i in order.tolist()[1 : KEEP + 1]]
    return SmallestSet(a, b, tuple(steps), len(candidates))


def _ablated(
    fork: Fork, dictionary: Dictionary, chosen: list[int], tried: list[int], ids: Tensor
) -> Float[Tensor, " tried"]:
    """Return the watched mass with `chosen` and each one of `tried` ablated, all positions of the texts."""
    texts, found = len(fork.tokens.ids), []
    step = max(_rows(fork.model) // texts, 1)
    for first in range(0, len(tried), step):
        part = tried[first : first + step]
        out: Mapping[int, Tensor] = {i: torch.ones(len(part) * texts) for i in chosen} | {
            i: (torch.arange(len(part)) == n).float().repeat_interleave(texts) for n, i in enumerate(part)
        }
        logits = _last(fork, [Steer(dictionary, out, mode="ablate")], len(part))
        found.append(_mass(logits, ids).view(len(part), texts).mean(1))
    return torch.cat(found)


def _last(fork: Fork, edits: Sequence[Edit], times: int) -> Float[Tensor, "rows vocab"]:
    """Return the logits after the last word of every text, the whole batch repeated, in float64."""
    with fork.model.edit(*edits):
        return fork.ends(last_words(fork.tokens), times).logits().double()


def _mass(logits: Float[Tensor, "rows vocab"], ids: Int[Tensor, " ids"]) -> Float[Tensor, " rows"]:
    return logits.softmax(-1)[:, ids].sum(1)


def _rows(model: Model) -> int:
    """Rows of a batch whose last words' logits still fit."""
    return max(min(NUMBERS // model.d_vocab, 64), 1)
