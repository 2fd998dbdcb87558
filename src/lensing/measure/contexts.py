"""Where in a text something is strongest: one pass over the text, then distinct contexts of both signs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.data.live import group_by_length
from lensing.dictionary.base import Dictionary
from lensing.model.run import Model

BEFORE, AFTER = 32, 16  # tokens of a context kept on either side of its strongest
SAME = 5  # contexts whose last tokens up to the strongest agree in so many are one


@dataclass(frozen=True, eq=False)
class Passages:
    """Documents as flat token ids; `starts` has one entry more than documents, `counted` is False on BOS."""

    name: str
    ids: Int[Tensor, " tokens"]
    starts: tuple[int, ...]
    counted: Bool[Tensor, " tokens"]

    @classmethod
    def of(cls, model: Model, documents: Sequence[Sequence[int]], name: str) -> Passages:
        """Hold token ids as they are fed to the model."""
        flat = [i for document in documents for i in document]
        starts = [0]
        for document in documents:
            starts.append(starts[-1] + len(document))
        ids = torch.tensor(flat, dtype=torch.long)
        counted = torch.ones_like(ids, dtype=torch.bool) if model.bos_id is None else ids != model.bos_id
        return cls(name, ids, tuple(starts), counted)

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.starts) - 1

    def document(self, i: int) -> list[int]:
        """The token ids of one."""
        return self.ids[self.starts[i] : self.starts[i + 1]].tolist()


@dataclass(frozen=True)
class Context:
    """One place in a text: the tokens around it, their values, and which of them (`peak`) it is about."""

    document: int
    position: int
    value: float
    tokens: tuple[str, ...]
    values: tuple[float, ...]
    peak: int


Read = tuple[str, Callable[[Tensor], Tensor]]  # a site, and what is kept of its rows: [rows, d] to [rows, columns]


@torch.no_grad()
def read_columns(
    model: Model, text: Passages, reads: Sequence[Read], *, batch_tokens: int = 1024
) -> list[Float[Tensor, "tokens columns"]]:
    """Run a text through the model once and keep only what each read makes of its site; 0 where a token is BOS."""
    found: list[Tensor | None] = [None] * len(reads)
    lengths = [b - a for a, b in zip(text.starts, text.starts[1:], strict=False)]
    for group in group_by_length(lengths, batch_tokens):
        tokens = model.encode([text.document(g) for g in group], bos=False)
        _, cache = model.run_with_cache(tokens, sites=[site for site, _ in reads], stop=True)
        keep = ~cache.special
        places = torch.tensor([text.starts[g] for g in group])[:, None] + torch.arange(tokens.ids.shape[1])
        places = places[keep.cpu()]
        for i, (site, function) in enumerate(reads):
            columns = function(cache[site][keep].flatten(1)).float().cpu()
            out = found[i]
            if out is None:
                out = found[i] = torch.zeros(len(text.ids), columns.shape[1])
            out[places] = columns
    return [torch.zeros(len(text.ids), 0) if out is None else out for out in found]


def latent_columns(dictionary: Dictionary, latents: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return a function from rows of the dictionary's site to the activations of these latents."""
    place = torch.full((dictionary.d_sae,), -1, dtype=torch.long, device=dictionary.W_dec.device)
    place[list(latents)] = torch.arange(len(latents), device=place.device)

    def columns(rows: Tensor) -> Tensor:
        codes = dictionary.encode(rows.to(dictionary.W_dec.device))
        at = place[codes.index.long()]
        kept = at >= 0
        out = codes.value.new_zeros(codes.rows, len(latents))
        return out.index_put((codes.pattern.row_of[kept], at[kept]), codes.value[kept])

    return columns


def strongest(
    model: Model, text: Passages, values: Float[Tensor, " tokens"], n: int, *, sign: int = 1
) -> tuple[Context, ...]:
    """Return the `n` distinct contexts where sign x value is largest and positive, strongest first.

    At most one a document, and no two whose last five tokens agree. Ties go to the earlier token.
    """
    signed = torch.where(text.counted, sign * values, 0.0)
    order = signed.argsort(descending=True, stable=True)[: int((signed > 0).sum())].tolist()
    counted = text.counted.tolist()
    found: list[Context] = []
    documents: set[int] = set()
    seen: set[tuple[int, ...]] = set()
    for at in order:
        if len(found) == n or len(documents) == text.documents:
            break
        document = bisect_right(text.starts, at) - 1
        start, stop = text.starts[document], text.starts[document + 1]
        last = tuple(text.ids[max(start, at - SAME + 1) : at + 1].tolist())
        if document in documents or last in seen:
            continue
        documents.add(document)
        seen.add(last)
        window = [i for i in range(max(start, at - BEFORE), min(stop, at + AFTER + 1)) if counted[i]]
        found.append(
            Context(
                document=document, position=at - start, value=float(values[at]),
                tokens=tuple(model.tok_str(text.ids[window])), peak=window.index(at),
                values=tuple(round(v, 4) for v in values[window].tolist()),
            )
        )  # fmt: skip
    return tuple(found)
