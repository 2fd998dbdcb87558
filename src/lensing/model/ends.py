"""The ends of runs: logits only where they are wanted, of runs that begin only where they part from one another.

The logits of all positions are the largest tensor of a run with a large vocabulary, and what lies before an edit is the
same with every strength of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.model.edit import EditContext
from lensing.model.sites import GLOBAL_LAST, SiteName
from lensing.model.taps import Stop, Taps
from lensing.model.tokens import Tokens

if TYPE_CHECKING:
    from lensing.model.run import Model

NUMBERS = 1 << 24  # logits made at once
SHARED = 64  # tokens spared, from which on what rows begin with alike is run once


@final
class Ends:
    """What a run ends in at some positions, rows first: logits, or the last stream that they are made from."""

    def __init__(self, model: Model, values: Float[Tensor, "places _"], *, made: bool) -> None:
        self._model, self._values, self._made = model, values, made

    def __len__(self) -> int:
        return len(self._values)

    def parts(self) -> Iterator[Float[Tensor, "some vocab"]]:
        """Yield the logits, as many positions at a time as hold 16 million numbers."""
        for part in self._values.split(max(NUMBERS // self._model.d_vocab, 1)):
            yield part if self._made else self._model.unembed(part)

    def logits(self) -> Float[Tensor, "places vocab"]:
        """All of the logits."""
        parts = list(self.parts())
        return torch.cat(parts) if parts else self._values.new_zeros(0, self._model.d_vocab)


@torch.no_grad()
def ends(
    model: Model, tokens: Tokens, where: Bool[Tensor, "batch pos"], *,
    start: tuple[int, Float[Tensor, "batch pos d_model"]] | None = None,
) -> Ends:  # fmt: skip
    """Run a batch under the edits in force, and keep what its marked positions end in.

    `start` is a block and what enters it; the blocks before are not run. Where an edit lies behind the last block, or
    what lies there is not known, the logits themselves are kept.
    """
    begin = None if start is None else (("resid_pre", start[0]), start[1])
    behind = any(site.kind in GLOBAL_LAST for site, *_ in model._placed_edits())
    if behind or not model.adapter.head_exact:
        logits, _ = model.run_with_cache(tokens, start=begin)
        assert logits is not None
        return Ends(model, logits[where], made=True)
    last = f"resid_post.{model.n_layers - 1}"
    shared = 0 if begin is not None or model.edited else _shared(tokens, where)
    if shared * (len(tokens.ids) - 1) >= SHARED:
        return Ends(model, _after(model, tokens, shared, last)[where[:, shared:]], made=False)
    _, cache = model.run_with_cache(tokens, sites=[last], stop=True, start=begin)
    return Ends(model, cache[last][where], made=False)


def _shared(tokens: Tokens, where: Bool[Tensor, "batch pos"]) -> int:
    """How many tokens all rows begin with, before the first position that is marked."""
    alike = (tokens.ids == tokens.ids[:1]).all(0) & tokens.mask.all(0) & ~where.any(0)
    return int(alike.long().cumprod(0).sum())


def _after(model: Model, tokens: Tokens, shared: int, site: str) -> Float[Tensor, "batch rest d_model"]:
    """A site's values after the tokens that all rows begin with, which are run once."""
    from transformers import DynamicCache

    past = DynamicCache(config=model.adapter.config)
    taps = Taps(model.adapter, [model._place(site)], stop_early=True)
    with model.forward(taps), taps:
        for rows, columns in ((slice(1), slice(shared)), (slice(None), slice(shared, None))):
            taps.at = EditContext(
                torch.arange(tokens.ids.shape[1], device=tokens.ids.device)[columns], tokens.ids.shape[1],
                tokens.lengths[rows], tokens.special[rows, columns],
            )  # fmt: skip
            with contextlib.suppress(Stop):
                model.hf(input_ids=tokens.ids[rows, columns], past_key_values=past, use_cache=True)
            if columns.stop is not None:
                past.batch_repeat_interleave(len(tokens.ids))
    return taps.values[site]


@final
class Fork:
    """One batch run many times with edits at one site: what enters the site's block is computed once.

    Edits in force when it is made belong to what is computed once.
    """

    def __init__(self, model: Model, tokens: Tokens, site: SiteName) -> None:
        self.model, self.tokens, self.layer = model, tokens, model.resolve(site).layer or 0
        self._stream: Tensor | None = None
        if self.layer and not model.edited:
            _, cache = model.run_with_cache(tokens, sites=[("resid_pre", self.layer)], stop=True)
            self._stream = cache["resid_pre", self.layer]

    def ends(self, where: Bool[Tensor, "batch pos"], times: int = 1) -> Ends:
        """The ends of the batch, the whole of it `times` times, under the edits in force."""
        batch = self.tokens.repeat(times)
        start = None if self._stream is None else (self.layer, self._stream.repeat(times, 1, 1))
        return ends(self.model, batch, where.repeat(times, 1), start=start)


def last_words(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
    """Mark the last token of every row."""
    where = torch.zeros_like(tokens.mask)
    last = tokens.mask.shape[1] - 1 - tokens.mask.long().flip(1).argmax(1)
    where[torch.arange(len(where), device=where.device), last] = True
    return where
