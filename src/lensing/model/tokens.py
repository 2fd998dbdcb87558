"""Text to token ids and back: BOS and padding policy, unknown words, strings to show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lensing.errors import PromptError, UnknownNameError, UsageError

Prompt = str | Sequence[int] | Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """A padded batch of token ids; `mask` is False on padding, `special` True on BOS and padding.

    Of chats, `roles` says of each token, padding left out as in `strings`, whose turn said it: the role of a message,
    or "template" where the chat template wrote it. Otherwise it is None.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    special: Bool[Tensor, "batch pos"]
    strings: list[list[str]]
    roles: list[list[str]] | None = None

    def __repr__(self) -> str:
        rows = [" ".join(map(repr, row)) for row in self.strings]
        if self.roles is not None:
            rows = [
                " | ".join(f"{role}: {' '.join(map(repr, words))}" for role, words in turns(row, roles))
                for row, roles in zip(self.strings, self.roles, strict=True)
            ]
        return "Tokens(\n  " + "\n  ".join(rows) + "\n)"

    def to(self, device: torch.device | str) -> Tokens:
        """Return the same batch with its tensors on a device."""
        if self.ids.device == torch.device(device):
            return self
        return replace(self, ids=self.ids.to(device), mask=self.mask.to(device), special=self.special.to(device))

    def repeat(self, times: int) -> Tokens:
        """Return a batch with every row `times` times, the whole batch one after the other."""
        ids, mask, special = (t.repeat(times, 1) for t in (self.ids, self.mask, self.special))
        return Tokens(ids, mask, special, self.strings * times, None if self.roles is None else self.roles * times)

    def of(self, role: str) -> Bool[Tensor, "batch pos"]:
        """Return True on the tokens of a role's turns, or on those that the template wrote ("template").

        Raises: UsageError: tokens of no chat, or a role that no turn of it has.
        """
        if self.roles is None:
            raise UsageError(
                f"These tokens have no roles, so {role!r} means no positions. Make them with "
                "model.encode_chat([{'role': 'user', 'content': ...}])."
            )
        found = sorted({name for row in self.roles for name in row})
        if role not in found:
            raise UnknownNameError("role in this chat", role, found)
        where = torch.zeros_like(self.mask)
        where[self.mask] = torch.tensor([name == role for row in self.roles for name in row], device=self.mask.device)
        return where

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real tokens of each row."""
        return self.mask.sum(dim=1)

    @property
    def offsets(self) -> Int[Tensor, " batch"]:
        """Padding before the first token of each row; 0 where it stands on the right."""
        return self.mask.long().argmax(dim=1)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        found = {"ids": self.ids.tolist(), "special": self.special.tolist(), "strings": self.strings}
        return found if self.roles is None else found | {"roles": self.roles}


def turns(strings: Sequence[str], roles: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return one row's tokens by runs of the same role."""
    pairs = zip(roles, strings, strict=True)
    return [(role, [word for _, word in some]) for role, some in groupby(pairs, key=lambda pair: pair[0])]


class Coder:
    """A tokenizer with one policy: BOS in front where there is one, padding on the right, unknown words refused."""

    def __init__(self, tokenizer: Any, *, bos_id: int | None, pad_id: int, d_vocab: int, context: int | None) -> None:
        self.tokenizer, self.bos_id, self.pad_id = tokenizer, bos_id, pad_id
        self.d_vocab, self.context = d_vocab, context
        self._byte_level = tokenizer is not None and "ByteLevel" in repr(_decoder(tokenizer))

    def encode(
        self, prompt: Prompt | Sequence[Prompt] | Tokens, *, bos: bool | None = None, padding: str = "right"
    ) -> Tokens:
        """Return the prompt, or list of prompts, as Tokens on the CPU; PromptError says what cannot be read.

        BOS is put in front where the model has one and it is not there yet; `bos=False` leaves ids as given.
        """
        if padding not in ("left", "right"):
            raise PromptError(f"There is no padding {padding!r}. Give 'left' or 'right'.")
        if isinstance(prompt, Tokens):
            return prompt
        rows = [self._row(p, bos) for p in _as_list(prompt)]
        width = max(len(r) for r in rows)
        ids = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            columns = slice(len(row)) if padding == "right" else slice(width - len(row), None)
            ids[i, columns] = torch.as_tensor(row)
            mask[i, columns] = True
        return Tokens(ids, mask, self.special(ids, mask), [self.strings(row) for row in rows])

    def special(self, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        """Return True on BOS and on padding."""
        return ~mask if self.bos_id is None else ~mask | (ids == self.bos_id)

    def strings(self, ids: Sequence[int] | Tensor) -> list[str]:
        """Return what each token looks like alone, with the space that belongs to it."""
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if self.tokenizer is None:
            return [str(i) for i in ids]
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        return [f"<{i}>" if t is None else self._show(t) for i, t in zip(ids, tokens, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return ids as running text, without special tokens; ids in a row where there is no tokenizer."""
        if self.tokenizer is None:
            return " ".join(map(str, ids))
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _row(self, prompt: Prompt, bos: bool | None) -> list[int]:
        if isinstance(prompt, str):
            row = self._read(prompt)
        else:
            row = prompt.tolist() if isinstance(prompt, Tensor) else list(prompt)
            for token in row:
                if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self.d_vocab:
                    raise PromptError(f"{token!r} is not a token id. Give whole numbers from 0 to {self.d_vocab - 1}.")
        if not row:
            raise PromptError("The prompt is empty. Give at least one word.")
        if self.bos_id is not None and bos is not False and row[0] != self.bos_id:
            row = [self.bos_id, *row]
        if self.context is not None and len(row) > self.context:
            raise PromptError(
                f"The prompt has {len(row)} tokens, more than the model's context of {self.context}. Shorten it."
            )
        return row

    def _read(self, text: str) -> list[int]:
        if self.tokenizer is None:
            raise PromptError("This model came without a tokenizer. Give token ids instead of text.")
        if not text.strip():
            raise PromptError("The prompt is empty. Give at least one word.")
        encoded = self.tokenizer(text, add_special_tokens=False)
        row = list(encoded["input_ids"])
        unknown = self.tokenizer.unk_token_id
        # GPT-2 names its BOS as its unknown token, though it can spell every word.
        if unknown is not None and unknown in row and unknown not in (self.bos_id, self.tokenizer.eos_token_id):
            raise PromptError(self._unknown_words(text, row, unknown))
        return row

    def _unknown_words(self, text: str, row: list[int], unknown: int) -> str:
        words = []
        if getattr(self.tokenizer, "is_fast", False):
            spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            words = [text[a:b] for (a, b), token in zip(spans, row, strict=True) if token == unknown]
        words = list(dict.fromkeys(w.strip() for w in words if w.strip()))
        if not words:
            return "The prompt holds words that this model's tokenizer does not know. Use other words."
        shown = ", ".join(map(repr, words[:8])) + (", ..." if len(words) > 8 else "")
        verb = "is not a word" if len(words) == 1 else "are not words"
        return f"{shown} {verb} that this model's tokenizer knows. Use other words."

    def _show(self, token: str) -> str:
        if self._byte_level:
            table = _bytes_of_chars()
            if all(c in table for c in token):
                return bytes(table[c] for c in token).decode("utf-8", errors="replace")
            return token
        byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token)
        if byte and int(byte[1], 16) < 128:
            return chr(int(byte[1], 16))
        return token.replace("▁", " ")


def _as_list(prompt: Any) -> list[Prompt]:
    """Tell one prompt from a list of prompts."""
    prompts: list[Any]
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, Tensor):
        if prompt.dtype.is_floating_point or prompt.dim() > 2:
            raise PromptError(
                f"A tensor of {prompt.dtype} with {prompt.dim()} axes is no prompt. Give ids [batch, pos]."
            )
        prompts = list(prompt) if prompt.dim() == 2 else [prompt.reshape(-1)]
    elif isinstance(prompt, Sequence):
        prompts = list(prompt)
        if prompts and not isinstance(prompts[0], (str, Tensor, Sequence)):
            return [prompts]
    else:
        raise PromptError(f"A {type(prompt).__name__} is no prompt. Give text, token ids or a list of either.")
    if not prompts:
        raise PromptError("The prompt is empty. Give at least one word.")
    return prompts


def _decoder(tokenizer: Any) -> Any:
    return getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)


@lru_cache(maxsize=1)
def _bytes_of_chars() -> dict[str, int]:
    """The printable character that byte-level vocabularies write for each byte, inverted."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(b): b for b in plain}
    odd = [b for b in range(256) if b not in plain]
    return table | {chr(256 + i): b for i, b in enumerate(odd)}
