"""The logit lens: what each layer would say if it were the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.errors import UsageError
from lensing.model.cache import Cache
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens


@dataclass(frozen=True, eq=False)
class LogitLens:
    """Each layer's guess at every position: the `k` likeliest next tokens, their probabilities, the entropy in nats.

    `layers[i]` is the block after which row `i` was read; -1 is what enters the first block. The last row is the
    model's own prediction. nostalgebraist 2020, "interpreting GPT: the logit lens".
    """

    layers: list[int]
    ids: Int[Tensor, "n_layers batch pos k"]
    probs: Float[Tensor, "n_layers batch pos k"]
    entropy: Float[Tensor, "n_layers batch pos"]
    tokens: list[list[str]]
    special: Bool[Tensor, "batch pos"]
    words: dict[int, str]

    @property
    def strings(self) -> list[Any]:
        """The likeliest tokens as strings, nested as `ids`: layer, row, position, rank."""
        return _map_nested(self.ids.tolist(), self.words)

    def top(self, layer: int, position: int = -1, row: int = 0) -> list[tuple[str, float]]:
        """Return a layer's likeliest tokens at one position with their probabilities, best first."""
        at = self._row_of(layer), row, self._position(position, row)
        return [(self.words[i], p) for i, p in zip(self.ids[at].tolist(), self.probs[at].tolist(), strict=True)]

    def lead_layer(self, position: int = -1, row: int = 0) -> int:
        """Return the first layer from which the final top token leads through to the end, at one position."""
        leaders = self.ids[:, row, self._position(position, row), 0].tolist()
        first = len(leaders) - 1
        while first > 0 and leaders[first - 1] == leaders[-1]:
            first -= 1
        return self.layers[first]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON; nested by layer, row, position, rank."""
        real = [range(len(row)) for row in self.tokens]
        return {
            "layers": self.layers,
            "tokens": self.tokens,
            "special": self.special.tolist(),
            "ids": self.ids.tolist(),
            "strings": self.strings,
            "probs": self.probs.tolist(),
            "entropy": self.entropy.tolist(),
            "lead_layer": [[self.lead_layer(p, row) for p in positions] for row, positions in enumerate(real)],
        }

    def _row_of(self, layer: int) -> int:
        if layer not in self.layers:
            raise UsageError(f"The lens has no layer {layer}. Choose one of {self.layers}.")
        return self.layers.index(layer)

    def _position(self, position: int, row: int) -> int:
        length = len(self.tokens[row])
        if not -length <= position < length:
            raise UsageError(
                f"There is no position {position} among {length} tokens. Choose one from 0 to {length - 1}."
            )
        return position % length


@torch.no_grad()
def logit_lens(model: Model, source: Cache | Prompt | Sequence[Prompt] | Tokens, top: int = 10) -> LogitLens:
    """Read every layer's residual stream through the model's own final norm, unembedding and cap.

    `source` is a prompt, or a cache that holds `resid_post` of the last layer and of any others; what enters the first
    block is read as layer -1 where the cache holds `embed` or `resid_pre.0`.
    """
    if not isinstance(source, Cache):
        _, source = model.run_with_cache(source, sites=["embed", "resid_post.*"], stop=True)
    last = model.n_layers - 1
    if ("resid_post", last) not in source:
        raise UsageError(f"The cache lacks resid_post.{last}, where the lens ends. Run with sites=['resid_post.*'].")
    if not 1 <= top <= model.d_vocab:
        raise UsageError(f"top={top} is not possible. Give a number from 1 to {model.d_vocab}.")
    streams = {layer: source["resid_post", layer] for layer in range(last + 1) if ("resid_post", layer) in source}
    start = source.get("embed", source.get("resid_pre.0"))
    if start is not None:
        streams = {-1: start, **streams}
    ids, probs, entropy = [], [], []
    # One layer at a time: [pos, vocab] of a large vocabulary is all that should stand in memory.
    for stream in streams.values():
        logp = model.unembed(stream).float().log_softmax(-1)
        best = logp.topk(top, dim=-1)
        ids.append(best.indices)
        probs.append(best.values.exp())
        entropy.append(torch.special.entr(logp.exp()).sum(-1))
    stacked = torch.stack(ids)
    seen = stacked.unique().tolist()
    return LogitLens(
        layers=list(streams), ids=stacked, probs=torch.stack(probs), entropy=torch.stack(entropy),
        tokens=source.tokens, special=source.special, words=dict(zip(seen, model.tok_str(seen), strict=True)),
    )  # fmt: skip


def _map_nested(value: Any, words: dict[int, str]) -> Any:
    return [_map_nested(v, words) for v in value] if isinstance(value, list) else words[value]
