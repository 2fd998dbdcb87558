"""Interchange: run one text with a part of another's inside, and see whether it answers as a hypothesis says.

Geiger et al. 2021 ("Causal Abstractions of Neural Networks"); the part may be a direction or a subspace (Geiger et al.
2023), some heads, or latents of a dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.causal.patch import Texts
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import refuse_other_wiring, refuse_unknown_latent
from lensing.errors import PromptError, UsageError
from lensing.model.edit import Edit, EditContext
from lensing.model.run import Model
from lensing.model.sites import SiteName
from lensing.model.tokens import Tokens


@final
@dataclass(frozen=True, eq=False)
class Swap:
    """A part of a site to take from another text: some positions, and there all of it or a part.

    `positions` are those of the base text, `source_positions` where the source's values come from (None: the same).
    Of the tensor there: `heads`; the span of the rows of `basis`, `[k, d]`; or `latents` of `dictionary`, whose site is
    then meant. What they leave out stays the base's own.
    """

    site: SiteName | None = None
    positions: Sequence[int] | None = None
    source_positions: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    basis: Float[Tensor, "k d"] | None = None
    dictionary: Dictionary | None = None
    latents: Sequence[int] | None = None

    @property
    def place(self) -> SiteName:
        """The site that is changed; UsageError where none is meant, or more than one kind of part."""
        if sum(part is not None for part in (self.heads, self.basis, self.dictionary)) > 1:
            raise UsageError("A swap takes heads, a basis or latents, one of them. Give several swaps.")
        if self.latents is not None and self.dictionary is None:
            raise UsageError("Latents belong to a dictionary. Give dictionary= with them.")
        found = self.site if self.dictionary is None else self.dictionary.site
        if found is None:
            raise UsageError("There is no site to swap at. Give site=, or a dictionary that names one.")
        return found


@torch.no_grad()
def interchange(
    model: Model, base: Texts, source: Texts, swaps: Swap | Sequence[Swap]
) -> Float[Tensor, "batch pos vocab"]:
    """Return the logits of the base texts, run with parts of the source texts inside, row by row.

    Texts of a batch have one length; the two batches may differ in it where positions are given. Several swaps act in
    one run, and a later one sees what an earlier one changed.

    Raises: UsageError: no such position, head or latent, a basis of another width. PromptError: texts that do not pair.
    """
    swaps = [swaps] if isinstance(swaps, Swap) else list(swaps)
    a, b = model.encode(base), model.encode(source)
    if len(a.ids) != len(b.ids) or not bool(a.mask.all() & b.mask.all()):
        raise PromptError(
            f"{len(a.ids)} base texts of {a.lengths.tolist()} tokens and {len(b.ids)} sources of {b.lengths.tolist()} "
            "do not pair. Give as many of each, all of a batch of one length."
        )
    _, cache = model.run_with_cache(b, sites=[swap.place for swap in swaps], stop=True)
    with model.edit(*(_Write(swap, cache[swap.place], a, b) for swap in swaps)):
        return model.logits(a)


@dataclass(frozen=True)
class InterchangeAccuracy:
    """The share of `n` pairs that answered as expected, with its standard error."""

    accuracy: float
    se: float
    n: int


def interchange_accuracy(
    model: Model, base: Texts, source: Texts, swaps: Swap | Sequence[Swap], expected: Int[Tensor, " batch"], *,
    position: int = -1,
) -> InterchangeAccuracy:  # fmt: skip
    """Return how often the likeliest next token at one position is what the hypothesis expects of the swap."""
    answers = interchange(model, base, source, swaps)[:, position].argmax(-1)
    right = (answers == expected.to(answers.device)).double()
    mean = float(right.mean())
    return InterchangeAccuracy(mean, math.sqrt(mean * (1 - mean) / len(right)), len(right))


class _Write(Edit):
    """Writes the source's part into the base's run."""

    def __init__(self, swap: Swap, source: Tensor, base: Tokens, other: Tokens) -> None:
        self.site, self.swap, self.source = swap.place, swap, source
        self.to = _positions(swap.positions, base.ids.shape[1], "base")
        given = swap.positions if swap.source_positions is None else swap.source_positions
        self.taken = _positions(given, other.ids.shape[1], "source")
        if len(self.to) != len(self.taken):
            raise UsageError(
                f"{len(self.to)} positions cannot take from {len(self.taken)}. Give positions= of one number in both."
            )
        d = source[0, 0].numel()
        if swap.basis is not None and swap.basis.shape[-1] != d:
            raise UsageError(f"A basis of {list(swap.basis.shape)} does not fit {d} numbers. Give rows of that width.")
        if swap.dictionary is not None:
            refuse_other_wiring(swap.dictionary, "swapped")
            for latent in swap.latents or ():
                refuse_unknown_latent(swap.dictionary, latent)
        if swap.heads is not None and (source.dim() != 4 or any(not 0 <= h < source.shape[2] for h in swap.heads)):
            raise UsageError(f"{self.site} has no heads {list(swap.heads)}. Give some that it has, at attn_z, say.")

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        out = h.clone()
        out[:, self.to] = self._mixed(h[:, self.to], self.source[:, self.taken].to(h))
        return out

    def _mixed(self, own: Tensor, other: Tensor) -> Tensor:
        swap = self.swap
        if swap.heads is not None:
            out = own.clone()
            out[:, :, list(swap.heads)] = other[:, :, list(swap.heads)]
            return out
        if swap.basis is not None:
            # orthonormal columns that span the rows given
            q = torch.linalg.qr(swap.basis.to(own.device, torch.float64).T).Q
            delta = ((other - own).flatten(2).double() @ q) @ q.T
            return own + delta.to(own.dtype).view_as(own)
        if swap.dictionary is not None:
            d = swap.dictionary
            chosen = slice(None) if swap.latents is None else list(swap.latents)
            f_own, f_other = (d.encode(x.flatten(2).to(d.W_dec.device)).dense()[:, chosen] for x in (own, other))
            return own + ((f_other - f_own) @ d.W_dec[chosen]).to(own).view_as(own)
        return other


def _positions(given: Sequence[int] | None, length: int, which: str) -> list[int]:
    chosen = range(length) if given is None else given
    for p in chosen:
        if not -length <= p < length:
            raise UsageError(f"The {which} texts have no position {p}. Give {-length} to {length - 1}.")
    return [p % length for p in chosen]
