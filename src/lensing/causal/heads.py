"""What attention heads do, measured on random tokens said twice: induction, previous token, duplicate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.draw.heat import heat_html
from lensing.errors import UsageError
from lensing.model.run import Model


@final
@dataclass(frozen=True, eq=False)
class HeadScores:
    """How much of each head's attention goes where its kind looks, mean over texts and tokens, with standard errors.

    On [BOS, r, r], r random tokens, from tokens of the second r: `induction` to the token after the same one in the
    first r, `duplicate` to the same one in the first r; from all tokens after BOS: `previous` to the one before,
    `current` to itself, `first` to the first (a sink). Olsson et al. 2022; Elhage et al. 2021.
    """

    induction: Float[Tensor, "n_layers n_heads"]
    previous: Float[Tensor, "n_layers n_heads"]
    duplicate: Float[Tensor, "n_layers n_heads"]
    current: Float[Tensor, "n_layers n_heads"]
    first: Float[Tensor, "n_layers n_heads"]
    se: dict[str, Float[Tensor, "n_layers n_heads"]]
    layers: list[int]
    length: int
    texts: int
    loss_first: float
    """Loss in nats on the first r, and on the second: what remembering is worth."""
    loss_second: float

    def of(self, kind: str) -> Float[Tensor, "n_layers n_heads"]:
        """The scores of one kind."""
        if kind not in KINDS:
            raise UsageError(f"There is no kind of head {kind!r}. Give one of {', '.join(KINDS)}.")
        return getattr(self, kind)

    def heads(self, kind: str, above: float = 0.4) -> list[tuple[int, int, float]]:
        """Return the heads (layer, head, score) that score above a bar, best first."""
        scores = self.of(kind)
        found = [(self.layers[i], h, float(scores[i, h])) for i, h in (scores > above).nonzero().tolist()]
        return sorted(found, key=lambda item: -item[2])

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "layers": self.layers, "length": self.length, "texts": self.texts, "loss_first": self.loss_first,
            "loss_second": self.loss_second,
            **{kind: {"scores": self.of(kind).tolist(), "se": self.se[kind].tolist()} for kind in KINDS},
        }  # fmt: skip

    def _repr_html_(self) -> str:
        columns = [str(h) for h in range(self.induction.shape[1])]
        rows = [str(layer) for layer in self.layers]
        return "".join(heat_html(f"{kind} (layers by heads)", rows, columns, self.of(kind).tolist()) for kind in KINDS)


KINDS = ("induction", "previous", "duplicate", "current", "first")


@torch.no_grad()
def head_scores(model: Model, *, length: int = 32, texts: int = 16, seed: int = 0) -> HeadScores:
    """Score every head on `texts` texts of `length` random tokens said twice."""
    if length < 3 or texts < 2:
        raise UsageError(f"{texts} texts of {length} tokens say nothing. Give 2 texts or more, of 3 tokens or more.")
    ids = repeated(model, length, texts, seed)
    start = 1 if model.bos_id is not None else 0
    total = ids.shape[1]
    if model.context is not None and total > model.context:
        raise UsageError(f"{total} tokens are more than the context of {model.context}. Give a smaller length.")
    layers = [i for i in range(model.n_layers) if f"attn_pattern.{i}" in model.sites()]
    if not layers:
        model.adapter.place(model.resolve(("attn_pattern", 0)))  # raises, and says why
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    losses = model.logits(ids)[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].neg()
    second = torch.arange(start + length, total, device=ids.device)
    everywhere = torch.arange(max(start, 1), total, device=ids.device)
    for layer in layers:
        _, cache = model.run_with_cache(ids, sites=f"attn_pattern.{layer}", stop=True)
        pattern = cache["attn_pattern", layer].double()  # [text, head, query, key]

        def to(queries: Int[Tensor, " n"], keys: Int[Tensor, " n"], pattern: Tensor = pattern) -> Tensor:
            return pattern[:, :, queries, keys].mean(-1)

        found["induction"].append(to(second, second - length + 1))
        found["duplicate"].append(to(second, second - length))
        found["previous"].append(to(everywhere, everywhere - 1))
        found["current"].append(to(everywhere, everywhere))
        found["first"].append(to(everywhere, torch.zeros_like(everywhere)))
    each = {kind: torch.stack(values) for kind, values in found.items()}  # [layer, text, head]
    return HeadScores(
        **{kind: values.mean(1) for kind, values in each.items()},
        se={kind: values.std(1) / texts**0.5 for kind, values in each.items()},
        layers=layers, length=length, texts=texts, loss_first=float(losses[:, : start + length - 1].mean()),
        loss_second=float(losses[:, start + length - 1 :].mean()),
    )  # fmt: skip


def repeated(model: Model, length: int, texts: int, seed: int) -> Int[Tensor, "texts pos"]:
    """Return [BOS, r, r] for each text, r drawn evenly from the tokens that are not special."""
    special = {model.bos_id, model.pad_id, *model.eos_ids, getattr(model.tokenizer, "unk_token_id", None)}
    words = torch.tensor([i for i in range(model.d_vocab) if i not in special])
    r = words[torch.randint(len(words), (texts, length), generator=torch.Generator().manual_seed(seed))]
    parts = [r, r] if model.bos_id is None else [torch.full((texts, 1), model.bos_id), r, r]
    return torch.cat(parts, 1).to(model.device)
