"""What each layer would say if it were the last one: through a lens, the final norm and the unembedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.draw.lens import grid_html
from lensing.errors import UsageError
from lensing.model.cache import Cache
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens

NUMBERS = 1 << 24  # logits made at once


@final
@dataclass(frozen=True, eq=False)
class Lens:
    """A map from each layer's residual stream to the last one's, h -> M h + b; a layer without one is read as it is.

    Layers are blocks after which the stream is read, -1 what enters the first. Without any matrix this is the logit
    lens; with M = I + A trained the tuned lens (Belrose et al. 2023), with M a mean Jacobian the Jacobian lens.
    """

    kind: Literal["logit", "tuned", "jacobian"] = "logit"
    matrices: dict[int, Float[Tensor, "d_model d_model"]] = field(default_factory=dict)
    biases: dict[int, Float[Tensor, " d_model"]] = field(default_factory=dict)
    model_name: str | None = None

    def __repr__(self) -> str:
        return f"Lens({self.kind!r}, {len(self.matrices)} layers{f' of {self.model_name}' if self.model_name else ''})"

    def translate(self, layer: int, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the stream after a layer would be at the end."""
        matrix, bias = self.matrices.get(layer), self.biases.get(layer)
        if matrix is None:
            return h
        out = h.to(matrix) @ matrix.T
        return (out if bias is None else out + bias).to(h.dtype)

    def logits(self, model: Model, layer: int, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """The lens's logits: final norm, unembedding and cap of the translated stream."""
        return model.unembed(self.translate(layer, h))

    def check(self, model: Model) -> None:
        """Raise UsageError where the lens was made for streams of another width or for other layers."""
        for layer, matrix in self.matrices.items():
            if matrix.shape[0] != model.d_model or not -1 <= layer < model.n_layers:
                raise UsageError(
                    f"This lens reads {matrix.shape[0]} numbers after layer {layer}; {model.name} has {model.d_model} "
                    f"numbers and layers 0 to {model.n_layers - 1}. Give the lens of this model."
                )


@final
@dataclass(frozen=True, eq=False)
class LensGrid:
    """Each layer's guess at every position: the `k` likeliest next tokens, their probabilities, the entropy in nats.

    `layers[i]` is the block after which row `i` was read; -1 is what enters the first block. The last row is the
    model's own prediction. `kl` is KL(model || layer) in nats; `answer` the token that is followed (the model's own
    likeliest, if none was given), with its probability and its rank (0 is first) at each layer.
    """

    kind: str
    layers: list[int]
    ids: Int[Tensor, "n_layers batch pos k"]
    probs: Float[Tensor, "n_layers batch pos k"]
    entropy: Float[Tensor, "n_layers batch pos"]
    kl: Float[Tensor, "n_layers batch pos"]
    answer: Int[Tensor, "batch pos"]
    answer_probs: Float[Tensor, "n_layers batch pos"]
    rank: Int[Tensor, "n_layers batch pos"]
    tokens: list[list[str]]
    special: Bool[Tensor, "batch pos"]
    words: dict[int, str]
    offsets: tuple[int, ...]
    """Columns of padding before each row's first token."""

    @property
    def strings(self) -> list[Any]:
        """The likeliest tokens as strings, nested as `ids`: layer, row, position, rank."""
        return _map_nested(self.ids.tolist(), self.words)

    def top(self, layer: int, position: int = -1, row: int = 0) -> list[tuple[str, float]]:
        """Return a layer's likeliest tokens at one position with their probabilities, best first."""
        at = self._row_of(layer), row, self._position(position, row)
        return [(self.words[i], p) for i, p in zip(self.ids[at].tolist(), self.probs[at].tolist(), strict=True)]

    def lead_layer(self, position: int = -1, row: int = 0) -> int:
        """Return the first layer from which the final top token leads through to the end, at one position.

        Also called the prediction depth (Baldock et al. 2021).
        """
        leaders = self.ids[:, row, self._position(position, row), 0].tolist()
        first = len(leaders) - 1
        while first > 0 and leaders[first - 1] == leaders[-1]:
            first -= 1
        return self.layers[first]

    def first_lead(self, position: int = -1, row: int = 0) -> int | None:
        """Return the first layer at which the answer leads, perhaps not for good; None where it never does."""
        leads = (self.rank[:, row, self._position(position, row)] == 0).nonzero()
        return self.layers[int(leads[0])] if len(leads) else None

    def trajectory(self, position: int = -1, row: int = 0) -> list[dict[str, Any]]:
        """Return, layer by layer at one position: the top word, the answer's probability and rank, entropy and KL."""
        p = self._position(position, row)
        return [
            {
                "layer": layer, "word": self.words[int(self.ids[i, row, p, 0])],
                "answer_p": float(self.answer_probs[i, row, p]), "rank": int(self.rank[i, row, p]),
                "entropy": float(self.entropy[i, row, p]), "kl": float(self.kl[i, row, p]),
            }
            for i, layer in enumerate(self.layers)
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON; nested by layer, row, position, rank."""
        real = [range(len(row)) for row in self.tokens]
        return {
            "kind": self.kind, "layers": self.layers, "tokens": self.tokens, "special": self.special.tolist(),
            "ids": self.ids.tolist(), "strings": self.strings, "probs": self.probs.tolist(),
            "entropy": self.entropy.tolist(), "kl": self.kl.tolist(), "answer": self.answer.tolist(),
            "answer_strings": _map_nested(self.answer.tolist(), self.words),
            "answer_probs": self.answer_probs.tolist(), "rank": self.rank.tolist(),
            "lead_layer": [[self.lead_layer(p, row) for p in positions] for row, positions in enumerate(real)],
        }  # fmt: skip

    def cells(self, row: int = 0) -> list[list[tuple[str, float, float]]]:
        """Return by layer and position the top word, its probability, and KL(model || layer), for drawing."""
        span = range(self.offsets[row], self.offsets[row] + len(self.tokens[row]))
        return [
            [(self.words[int(self.ids[i, row, p, 0])], float(self.probs[i, row, p, 0]), float(self.kl[i, row, p]))
             for p in span]
            for i in range(len(self.layers))
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        return "".join(grid_html(self.tokens[r], self.layers, self.cells(r)) for r in range(len(self.tokens)))

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
        return self.offsets[row] + position % length


@torch.no_grad()
def lens_grid(
    model: Model,
    source: Cache | Prompt | Sequence[Prompt] | Tokens,
    lens: Lens | None = None,
    *,
    top: int = 10,
    answer: int | str | None = None,
) -> LensGrid:
    """Read every layer's residual stream through a lens, the final norm, the unembedding and the cap.

    `source` is a prompt, or a cache that holds `resid_post` of the last layer and of any others; what enters the first
    block is read as layer -1 where the cache holds `embed` or `resid_pre.0`. The logit lens, if no other is given.
    `answer` is the token to follow (text is read as its first token).
    """
    lens = lens or Lens()
    lens.check(model)
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
    final = model.unembed(streams[last]).float().log_softmax(-1)
    followed = final.argmax(-1) if answer is None else torch.full_like(source.ids, _token(model, answer))
    ids, probs, entropy, kl, answer_probs, rank = [], [], [], [], [], []
    before = [(layer, stream) for layer, stream in streams.items() if layer != last]
    for logp in chain(_guesses(model, lens, before), [final]):
        best = logp.topk(top, dim=-1)
        ids.append(best.indices)
        probs.append(best.values.exp())
        entropy.append(torch.special.entr(logp.exp()).sum(-1))
        kl.append((final.exp() * (final - logp)).sum(-1))
        mine = logp.gather(-1, followed[..., None])
        answer_probs.append(mine[..., 0].exp())
        rank.append((logp > mine).sum(-1))
    stacked = torch.stack(ids)
    seen = sorted({*stacked.unique().tolist(), *followed.unique().tolist()})
    return LensGrid(
        kind=lens.kind, layers=list(streams), ids=stacked, probs=torch.stack(probs), entropy=torch.stack(entropy),
        kl=torch.stack(kl), answer=followed, answer_probs=torch.stack(answer_probs), rank=torch.stack(rank),
        tokens=source.tokens, special=source.special, words=dict(zip(seen, model.tok_str(seen), strict=True)),
        offsets=tuple(source.mask.long().argmax(1).tolist()),
    )  # fmt: skip


def logit_lens(model: Model, source: Cache | Prompt | Sequence[Prompt] | Tokens, top: int = 10) -> LensGrid:
    """Read every layer as if it were the last one (nostalgebraist 2020, "interpreting GPT: the logit lens")."""
    return lens_grid(model, source, top=top)


def _guesses(
    model: Model, lens: Lens, streams: Sequence[tuple[int, Tensor]]
) -> Iterator[Float[Tensor, "batch pos vocab"]]:  # fmt: skip
    """The log-probabilities of each layer, some layers at a time: all of them, of a large vocabulary, are too many."""
    step = max(NUMBERS // (streams[0][1][..., 0].numel() * model.d_vocab), 1) if streams else 1
    for first in range(0, len(streams), step):
        some = torch.stack([lens.translate(layer, stream) for layer, stream in streams[first : first + step]])
        for logits in model.unembed(some):
            yield logits.float().log_softmax(-1)


def _token(model: Model, answer: int | str) -> int:
    if isinstance(answer, str):
        return int(model.encode(answer, bos=False).ids[0, 0])
    if not 0 <= answer < model.d_vocab:
        raise UsageError(f"There is no token {answer}. Give 0 to {model.d_vocab - 1}, or a word.")
    return answer


def _map_nested(value: Any, words: dict[int, str]) -> Any:
    return [_map_nested(v, words) for v in value] if isinstance(value, list) else words[value]
