"""Continue a text token by token: a small loop over the plain forward pass, so that edits and captures work in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from lensing.errors import PromptError, UsageError
from lensing.model.edit import REPLY, EditContext
from lensing.model.parts import contiguous_head, masking
from lensing.model.taps import Taps
from lensing.model.tokens import Prompt, Tokens

if TYPE_CHECKING:
    from lensing.model.run import Cache, Model, Sites


@dataclass(frozen=True, eq=False)
class Generation:
    """Continuations: new ids (padded after a stop), their text, and each token's log-probability in nats.

    `logprobs` are those of the model as edited, at temperature 1; they are 0 where `mask` is False (after a stop).
    `cache` holds the captured sites over prompt and continuation, but for the last new token, which is never read.
    """

    ids: Int[Tensor, "batch new"]
    text: list[str]
    logprobs: Float[Tensor, "batch new"]
    cache: Cache | None
    mask: Bool[Tensor, "batch new"]
    prompt: Tokens

    def to_json(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {
            "prompt": self.prompt.to_json(), "ids": self.ids.tolist(), "text": self.text,
            "logprobs": self.logprobs.tolist(), "mask": self.mask.tolist(),
        }  # fmt: skip


def generate(
    model: Model,
    prompt: Prompt | Sequence[Prompt] | Tokens,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int | Sequence[int],
    sites: Sites,
    stop_ids: Iterable[int] | None,
    cache: bool,
    each: Callable[[Int[Tensor, "batch so_far"]], bool | None] | None = None,
) -> Generation:
    """See `Model.generate`."""
    tokens = _left_padded(model, prompt)
    batch, start = tokens.ids.shape
    _check(model, tokens, max_new_tokens, temperature)
    # MPS has no float64; elsewhere the sum over a large vocabulary keeps its rare words.
    wide = torch.float32 if model.device.type == "mps" else torch.float64
    noise = _noise(seed, batch, max_new_tokens).to(wide).to(model.device) if temperature > 0 else None
    stops = torch.tensor(sorted(set(model.eos_ids if stop_ids is None else stop_ids)), device=model.device)
    wanted = [model._place(s) for s in model.resolve_all(sites)]
    edits = model._placed_edits()
    taps = Taps(model.adapter, wanted, edits)
    padded = not bool(tokens.mask.all())
    # The logits of the prompt are large and only the last are needed, unless somebody reads or edits them.
    few = "logits" not in {s.kind for s, *_ in (*wanted, *edits)}
    extra = {"logits_to_keep": 1} if few and "logits_to_keep" in inspect.signature(model.hf.forward).parameters else {}

    ids, special = tokens.ids, tokens.special
    chunk, chunk_special = ids, special
    logprobs: list[Tensor] = []
    alive = torch.ones(batch, dtype=torch.bool, device=model.device)
    kept: list[Tensor] = []
    pieces: dict[str, list[Tensor]] = {site.name: [] for site, _ in wanted}
    past = _new_past(model) if cache else None
    with model.forward(taps), torch.no_grad(), taps, contiguous_head(model.adapter):
        for step in range(max_new_tokens):
            positions = torch.arange(ids.shape[1] - chunk.shape[1], ids.shape[1], device=model.device)
            taps.at = EditContext(positions, start, tokens.lengths, chunk_special, tokens.offsets, tokens=tokens)
            told = _told(model, tokens, ids.shape[1], chunk.shape[1]) if padded else {}
            output = model.hf(input_ids=chunk, past_key_values=past, use_cache=cache, **extra, **told)
            for name, value in taps.values.items():
                if not cache:
                    pieces[name].clear()
                pieces[name].append(value)
            new, logprob = _choose(output.logits[:, -1], temperature, None if noise is None else noise[:, step])
            new = torch.where(alive, new, model.pad_id)
            logprobs.append(torch.where(alive, logprob, 0.0))
            kept.append(alive)
            dead = ~alive[:, None]
            new_special = dead if model.bos_id is None else dead | (new[:, None] == model.bos_id)
            ids, special = torch.cat([ids, new[:, None]], 1), torch.cat([special, new_special], 1)
            chunk, chunk_special = (ids[:, -1:], new_special) if cache else (ids, special)
            if each is not None and each(ids[:, start:]):
                break
            if len(stops):
                alive = alive & ~torch.isin(new, stops)
                if not bool(alive.any()):
                    break
    mask = torch.stack(kept, 1)
    return Generation(
        ids=ids[:, start:], text=_texts(model, tokens, ids, mask), logprobs=torch.stack(logprobs, 1),
        cache=_cache(model, tokens, ids, special, mask, pieces) if wanted else None, mask=mask, prompt=tokens,
    )  # fmt: skip


def _left_padded(model: Model, prompt: Prompt | Sequence[Prompt] | Tokens) -> Tokens:
    return prompt if isinstance(prompt, Tokens) else model.encode(prompt, padding="left")


def _told(model: Model, tokens: Tokens, length: int, chunk: int) -> dict[str, Any]:
    """The mask over prompt and continuation, and the chunk's positions, of rows padded on the left."""
    mask = functional.pad(tokens.mask, (0, length - tokens.mask.shape[1]), value=True)
    whole = masking(model.hf, Tokens(mask, mask, mask, []))
    return {name: value[:, -chunk:] if name == "position_ids" else value for name, value in whole.items()}


def _joined(parts: list[Tensor], by_query: bool, fill: float) -> Tensor:
    """Chunks of one site along positions; patterns get columns for keys that a chunk did not see yet or any more."""
    if not by_query:
        return torch.cat(parts, 1)
    ends = torch.tensor([p.shape[2] for p in parts]).cumsum(0).tolist()
    return torch.cat(
        [functional.pad(p, (end - p.shape[3], ends[-1] - end), value=fill) for p, end in zip(parts, ends, strict=True)],
        2,
    )


def _check(model: Model, tokens: Tokens, max_new_tokens: int, temperature: float) -> None:
    start = tokens.ids.shape[1]
    if max_new_tokens < 1:
        raise UsageError(f"{max_new_tokens} new tokens cannot be generated. Give 1 or more.")
    if not temperature >= 0:
        raise UsageError(f"There is no temperature {temperature}. Give 0 (the likeliest token) or more.")
    if not bool(tokens.mask[:, -1].all()):
        raise PromptError(
            "Prompts padded on the right cannot be continued. Give the prompts themselves, or encode them with "
            "padding='left'."
        )
    # The last new token is never read, so it needs no position.
    if model.context is not None and start + max_new_tokens - 1 > model.context:
        raise PromptError(
            f"{start} tokens of prompt and {max_new_tokens} new ones are more than the model's context of "
            f"{model.context}. Shorten the prompt or ask for fewer new tokens."
        )


def _choose(logits: Float[Tensor, "batch vocab"], temperature: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return each row's next token and its log-probability at temperature 1; ties go to the lowest id."""
    logp = logits.float().log_softmax(-1)
    if noise is None:
        ids = torch.arange(logits.shape[-1], device=logits.device)
        best = logits == logits.amax(-1, keepdim=True)
        new = torch.where(best, ids, logits.shape[-1] - 1).amin(-1)
    else:
        total = (logp.to(noise.dtype) / temperature).softmax(-1).cumsum(-1)
        point = noise[:, None] * total[:, -1:]
        new = torch.searchsorted(total, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return new, logp.gather(-1, new[:, None])[:, 0]


def _noise(seed: int | Sequence[int], batch: int, steps: int) -> Tensor:
    """One stream of uniform numbers for each row, so that a row's draws do not depend on its neighbours."""
    if isinstance(seed, int):
        seeds = [(seed << 20) + i for i in range(batch)]
    else:
        seeds = [s << 20 for s in seed]
        if len(seeds) != batch:
            raise UsageError(f"{len(seeds)} seeds do not fit {batch} rows. Give one seed, or one for each row.")
    draw = torch.Generator()
    return torch.stack([torch.rand(steps, generator=draw.manual_seed(s), dtype=torch.float64) for s in seeds])


def _new_past(model: Model) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.adapter.config)


def _texts(model: Model, tokens: Tokens, ids: Tensor, mask: Tensor) -> list[str]:
    """Decode prompt and continuation together and cut, so that the space between them is kept."""
    texts = []
    start = tokens.ids.shape[1]
    for first, row, real in zip(tokens.offsets.tolist(), ids.tolist(), mask.sum(1).tolist(), strict=True):
        before, whole = model.decode(row[first:start]), model.decode(row[first : start + real])
        new = row[start : start + real]
        texts.append(whole[len(before) :] if whole.startswith(before) else model.decode(new))
    return texts


def _cache(
    model: Model, tokens: Tokens, ids: Tensor, special: Tensor, mask: Tensor, pieces: dict[str, list[Tensor]]
) -> Cache:
    from lensing.model.cache import Cache

    whole = torch.cat([tokens.mask, mask[:, :-1]], 1)
    strings = [model.tok_str(row[real]) for row, real in zip(ids[:, :-1], whole, strict=True)]
    roles = None
    if tokens.roles is not None:
        pairs = zip(tokens.roles, mask[:, :-1].sum(1).tolist(), strict=True)
        roles = [[*row, *[REPLY] * new] for row, new in pairs]
    read = Tokens(ids[:, :-1], whole, special[:, :-1], strings, roles)
    values = {}
    for name, parts in pieces.items():
        site = model.resolve(name)
        lowest = torch.finfo(parts[0].dtype).min if site.kind == "attn_scores" else 0.0
        values[name] = _joined(parts, site.by_query, lowest)
    return Cache(values, read, model)
