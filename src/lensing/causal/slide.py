"""What the next word becomes as a latent is turned up, at once: one short forward pass, no continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.causal.dose import LATENT, TOP, Guess, side_directions, watched_words
from lensing.causal.steer import Mode, Steer, Unit, unit_of
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.errors import UsageError
from lensing.measure.kl import kl
from lensing.model.edit import At
from lensing.model.ends import Fork, last_words
from lensing.model.run import Model
from lensing.model.tokens import Prompt


@final
@dataclass(frozen=True)
class Notch:
    """One strength: the likeliest next words, the mass of each watched list, KL(unsteered || steered) in nats."""

    strength: float
    share_of_norm: float
    table: tuple[Guess, ...]
    watched: dict[str, float]
    kl: float


@final
@dataclass(frozen=True)
class Ghost:
    """A direction, the latent's own or one beside it, and what each strength of it does to the next word."""

    name: str
    latent: int | None
    notches: tuple[Notch, ...]


@final
@dataclass(frozen=True)
class Slide:
    """The next word under each strength of a latent, and of directions of its length beside it."""

    latent: int
    unit_size: float
    watch: dict[str, tuple[str, ...]]
    directions: tuple[Ghost, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@torch.no_grad()
def slide(
    model: Model,
    dictionary: Dictionary,
    latent: int,
    prompt: Prompt,
    strengths: Sequence[float],
    *,
    unit: Unit = "max",
    mode: Mode = "add",
    at: At = "all",
    watch: Mapping[str, Sequence[int]] | None = None,
    contrast: Float[Tensor, " d_in"] | None = None,
    beside: bool = True,
    seed: int = 0,
) -> Slide:
    """Return the next word after a prompt under each strength of a latent, all in one forward pass.

    `beside` adds the difference of means `contrast`, a random latent and a random direction, each at the latent's own
    length. What it costs in coherence takes continuations: see `dose_response`.

    Raises: UsageError: what `ln.steer` refuses, no strength. DictionaryError: one that does not fit.
    """
    check_fits(dictionary, model)
    if not strengths:
        raise UsageError("There is no strength to try. Give at least one.")
    tokens = model.encode(prompt)
    if len(tokens.ids) != 1:
        raise UsageError(f"{len(tokens.ids)} prompts cannot be steered at once. Give one prompt.")
    Steer(dictionary, {latent: torch.tensor(list(strengths))}, unit=unit, mode=mode, at=at)  # refuses what cannot be
    words = watched_words(model, watch or {})
    rows: list[tuple[str, int | None, Tensor]] = [(LATENT, latent, dictionary.W_dec[latent].detach())]
    left_out: list[str] = []
    if beside:
        side, left_out = side_directions(dictionary, latent, contrast, seed)
        rows += side
    n, site = len(strengths), str(dictionary.site)
    along = torch.stack([vector for _, _, vector in rows]).repeat_interleave(n, 0)
    amounts = torch.tensor([float(s) for s in strengths]).repeat(len(rows))
    edit = Steer(dictionary, {latent: amounts}, unit=unit, mode=mode, at=at, along=along)
    fork, last = Fork(model, tokens, site), last_words(tokens)
    plain = fork.ends(last).logits()[0]
    with model.edit(edit):
        logits = fork.ends(last, len(amounts)).logits()
    _, cache = model.run_with_cache(tokens, sites=[site], stop=True)
    h, counted = next(iter(cache.values())), ~tokens.special
    mean_norm = (
        dictionary.statistics.mean_norm if dictionary.statistics else float(h[counted].flatten(1).norm(dim=1).mean())
    )
    one = Steer(dictionary, {latent: amounts[:n]}, unit=unit, mode=mode, at=at)
    moved = one.amounts(h.expand(n, *h.shape[1:]))[..., 0].abs()[:, counted[0]].mean(1) if bool(counted.any()) else None
    size = float(dictionary.W_dec[latent].norm())
    shares = [0.0] * n if moved is None else [float(m) * size / mean_norm for m in moved]
    p, far = logits.double().softmax(-1), kl(plain.expand_as(logits), logits)
    top = p.topk(min(TOP, p.shape[-1]))
    notches = []
    for i in range(len(amounts)):
        ids = top.indices[i].tolist()
        table = zip(ids, model.tok_str(ids), top.values[i].tolist(), strict=True)
        notches.append(
            Notch(
                strength=float(amounts[i]), share_of_norm=shares[i % n],
                table=tuple(Guess(j, word.strip() or word, q) for j, word, q in table),
                watched={name: float(p[i, ids].sum()) for name, ids in words.items()}, kl=float(far[i]),
            )
        )  # fmt: skip
    return Slide(
        latent=latent, unit_size=unit_of(dictionary, latent, unit, mode),
        watch={name: tuple(w.strip() for w in model.tok_str(ids)) for name, ids in words.items()},
        directions=tuple(
            Ghost(name, number, tuple(notches[i * n : (i + 1) * n])) for i, (name, number, _) in enumerate(rows)
        ),
        left_out=tuple(left_out),
    )  # fmt: skip
