"""A text read latent by latent: what fires where, what is not reconstructed, what each word costs the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import check_fits, refuse_unknown_latent
from lensing.dictionary.splice import Splice
from lensing.draw.pages import DARK, tokens_html
from lensing.errors import UsageError
from lensing.measure.fvu import not_reconstructed
from lensing.measure.kl import cross_entropy, kl
from lensing.model.run import Model
from lensing.model.tokens import Prompt

WORDS = 8  # that lose most by the splice
ROWS = 16  # whose probabilities are held at once


@final
@dataclass(frozen=True)
class Fired:
    """A latent over a text: its largest activation and where, and its sum."""

    latent: int
    max: float
    at: int
    total: float
    n: int


@final
@dataclass(frozen=True)
class Inference:
    """What a dictionary sees in a text, a number a token; None where a token counts nowhere (BOS).

    `latents` are the active ones of every token, strongest first. `missed` is |x - x_hat|^2 / |x - mu|^2 (None without
    statistics), `kl` is KL(clean || spliced) of the next word, `loss` -log p of the token itself given those before.
    `lost` are next words that become less likely by most under the splice: (word, before, after).
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    special: tuple[bool, ...]
    latents: tuple[tuple[tuple[int, float], ...], ...]
    missed: tuple[float | None, ...]
    kl: tuple[float | None, ...]
    loss: tuple[float | None, ...]
    loss_spliced: tuple[float | None, ...]
    lost: tuple[tuple[tuple[str, float, float], ...], ...]
    corpus: float | None

    def fired(self, n: int = 50) -> list[Fired]:
        """Return the latents that fire, by their largest activation."""
        found: dict[int, list[tuple[float, int]]] = {}
        for position, row in enumerate(self.latents):
            for latent, value in row:
                found.setdefault(latent, []).append((value, position))
        rows = [
            Fired(latent, *max(places, key=lambda p: (p[0], -p[1])), sum(v for v, _ in places), len(places))
            for latent, places in found.items()
        ]
        return sorted(rows, key=lambda f: -f.max)[:n]

    def of(self, latent: int) -> list[float]:
        """One latent's activation at every token."""
        return [dict(row).get(latent, 0.0) for row in self.latents]

    def _repr_html_(self) -> str:
        fired = self.fired(6)
        rows = [("not reconstructed", tokens_html(self.tokens, self.missed, most=1.0, end=DARK))]
        rows += [(f"latent {f.latent}", tokens_html(self.tokens, self.of(f.latent))) for f in fired]
        body = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{line}</td></tr>" for name, line in rows)
        return f"<table>{body}</table>"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"fired": [asdict(f) for f in self.fired()]}


@torch.no_grad()
def infer(model: Model, dictionary: Dictionary, text: Prompt, *, behaviour: bool = True, top: int = 64) -> Inference:
    """Read one text and return what fires at each token, and with `behaviour` what the splice does to it.

    At most `top` latents are kept of each token. Raises: UsageError: several texts. DictionaryError: one that does not
    fit the model, or is no dictionary of one site.
    """
    check_fits(dictionary, model)
    tokens, site = model.encode(text), str(dictionary.site)
    if len(tokens.ids) != 1:
        raise UsageError(f"{len(tokens.ids)} texts cannot be read at once. Give one text.")
    logits, cache = model.run_with_cache(tokens, sites=[site])
    assert logits is not None
    clean, counted = logits[0], ~tokens.special[0]
    x = cache[site][0].flatten(1).to(dictionary.W_dec.device)
    codes = dictionary.encode(x)
    n, none = len(x), [None] * len(x)
    missed: Sequence[float | None] = none
    if dictionary.statistics is not None and not dictionary.is_transcoder:
        share = not_reconstructed(x, dictionary.decode(codes), dictionary.statistics.mean.to(x.device))
        missed = _where(share, counted)
    loss = _losses(clean, tokens.ids[0], counted)
    far, spliced_loss, lost = none, none, [()] * n
    if behaviour and not dictionary.is_transcoder:
        with model.edit(Splice(dictionary)):
            spliced = model.logits(tokens)[0]
        far = _where(kl(clean, spliced), counted)
        spliced_loss = _losses(spliced, tokens.ids[0], counted)
        lost = _lost(model, clean, spliced)
    return Inference(
        tokens=tuple(tokens.strings[0]), ids=tuple(tokens.ids[0].tolist()), special=tuple((~counted).tolist()),
        latents=tuple(_strongest(codes, i, top) if bool(counted[i]) else () for i in range(n)),
        missed=tuple(missed), kl=tuple(far), loss=tuple(loss), loss_spliced=tuple(spliced_loss), lost=tuple(lost),
        corpus=dictionary.statistics.fvu if dictionary.statistics else None,
    )  # fmt: skip


@torch.no_grad()
def activations_of(model: Model, dictionary: Dictionary, text: Prompt, latents: Sequence[int]) -> list[list[float]]:
    """Return the activations of some latents at every token of a text (0 where a token counts nowhere)."""
    for latent in latents:
        refuse_unknown_latent(dictionary, latent)
    found = infer(model, dictionary, text, behaviour=False, top=dictionary.d_sae)
    rows = [dict(row) for row in found.latents]
    return [[row.get(latent, 0.0) for row in rows] for latent in latents]


def _strongest(codes: Codes, row: int, top: int) -> tuple[tuple[int, float], ...]:
    index, value = codes.row(row)
    order = value.argsort(descending=True, stable=True)[:top]
    pairs = zip(index[order].tolist(), value[order].tolist(), strict=True)
    return tuple((i, v) for i, v in pairs if v > 0)


def _where(values: Tensor, counted: Tensor) -> list[float | None]:
    return [v if c else None for v, c in zip(values.tolist(), counted.tolist(), strict=True)]


def _losses(logits: Tensor, ids: Tensor, counted: Tensor) -> list[float | None]:
    """-log p of every token but the first, in nats."""
    found = cross_entropy(logits[:-1], ids[1:].to(logits.device)).tolist() if len(ids) > 1 else []
    return [None, *(v if c else None for v, c in zip(found, counted[1:].tolist(), strict=True))]


def _lost(model: Model, clean: Tensor, spliced: Tensor) -> list[tuple[tuple[str, float, float], ...]]:
    """Of every token, the next words whose probability falls most."""
    found = []
    for some, other in zip(clean.split(ROWS), spliced.split(ROWS), strict=True):
        p, q = some.double().softmax(-1), other.double().softmax(-1)
        ids = (p - q).topk(min(WORDS, p.shape[-1]), dim=-1).indices
        before, after = p.gather(-1, ids), q.gather(-1, ids)
        found += [
            tuple(zip(model.tok_str(i), b.tolist(), a.tolist(), strict=True))
            for i, b, a in zip(ids, before, after, strict=True)
        ]
    return found
