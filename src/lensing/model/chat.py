"""Chats in the words of a tokenizer's own template, with whose turn each token belongs to.

The template is a program that may do anything, so nothing is guessed of it: it writes the chat once as it is and once
with a mark in the place of each message. What stands between the marks is the template's own, and the two must agree to
the letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lensing.errors import PromptError
from lensing.model.tokens import Coder, Tokens

Chat = Sequence[Mapping[str, Any]]  # messages: {"role": "user", "content": "..."}
TEMPLATE = "template"  # the role of tokens that the template wrote
MARK = "\ue000{}\ue001"  # characters that Unicode leaves to private use


def encode_chat(
    coder: Coder, messages: Chat | Sequence[Chat], *, reply: bool | None, padding: str, settings: Mapping[str, Any]
) -> Tokens:
    """See `Model.encode_chat`."""
    tokenizer = coder.tokenizer
    if tokenizer is None:
        raise PromptError("This model came without a tokenizer, so it has no chat template. Give token ids.")
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(
            "This model's tokenizer has no chat template. Give plain text, load the instruction-tuned model, or set "
            "model.tokenizer.chat_template."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise PromptError(
            "This model's tokenizer does not say where its tokens stand in the text, so whose they are is not known. "
            "Give the text with the template's own words in it."
        )
    rows = [_row(tokenizer, chat, reply, settings) for chat in _chats(messages)]
    tokens = coder.encode([ids for ids, _ in rows], bos=False, padding=padding)
    return Tokens(tokens.ids, tokens.mask, tokens.special, tokens.strings, [roles for _, roles in rows])


def _chats(messages: Any) -> list[list[dict[str, str]]]:
    """One chat or several, every message checked."""
    if isinstance(messages, Sequence) and messages and not isinstance(messages, str):
        chats = [messages] if isinstance(messages[0], Mapping) else messages
    else:
        chats = []
    found = []
    for chat in chats:
        if not isinstance(chat, Sequence) or isinstance(chat, str) or not chat:
            raise _no_chat(chat)
        for message in chat:
            if not isinstance(message, Mapping) or not all(
                isinstance(message.get(key), str) for key in ("role", "content")
            ):
                raise _no_chat(message)
            if message["role"] == TEMPLATE:
                raise PromptError(f"No message can have the role {TEMPLATE!r}, which means the template's own words.")
        found.append([dict(message) for message in chat])
    if not found:
        raise _no_chat(messages)
    return found


def _no_chat(found: Any) -> PromptError:
    shown = repr(found)
    return PromptError(
        f"{shown[:60] + '...' if len(shown) > 60 else shown} is no message or chat. Give a list of "
        '{"role": "user", "content": "..."}, all of it text.'
    )


def _row(
    tokenizer: Any, chat: list[dict[str, str]], reply: bool | None, settings: Mapping[str, Any]
) -> tuple[list[int], list[str]]:
    """Token ids of one chat, and each token's role."""
    opened = chat[-1]["role"] != "assistant" if reply is None else reply
    text = _write(tokenizer, chat, opened, settings)
    owners = _owners(text, _skeleton(tokenizer, chat, opened, settings), chat)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, unknown = list(encoded["input_ids"]), tokenizer.unk_token_id
    spans = encoded["offset_mapping"]
    if unknown is not None and unknown in ids and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        words = [text[a:b] for (a, b), token in zip(spans, ids, strict=True) if token == unknown]
        raise PromptError(f"{words[0]!r} is not a word that this model's tokenizer knows. Use other words.")
    return ids, [_owner(text, owners, first, end) for first, end in spans]


def _write(tokenizer: Any, chat: list[dict[str, str]], opened: bool, settings: Mapping[str, Any]) -> str:
    """The chat as text, by the template."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=opened, **settings)
    except (TemplateError, TypeError, ValueError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise PromptError(
            f"This model's chat template cannot write this chat: {why}. Give other roles or another order of messages."
        ) from error


def _skeleton(tokenizer: Any, chat: list[dict[str, str]], opened: bool, settings: Mapping[str, Any]) -> str:
    """The chat as text with a mark for what each message says."""
    marked = [message | {"content": MARK.format(i)} for i, message in enumerate(chat)]
    return _write(tokenizer, marked, opened, settings)


def _owners(text: str, skeleton: str, chat: list[dict[str, str]]) -> list[str]:
    """Whose each character of the text is."""
    own = re.split("|".join(MARK.format(i) for i in range(len(chat))), skeleton)
    if "".join(MARK.format(i) for i in range(len(chat))) != "".join(re.findall(MARK.format("[0-9]+"), skeleton)):
        raise _refused("leaves messages out, or writes them more than once or in another order")
    owners, at = [TEMPLATE] * len(own[0]), len(own[0])
    for i, message in enumerate(chat):
        # templates write what is said as it is, or without the space around it
        said = [s for s in (message["content"], message["content"].strip()) if text.startswith(s + own[i + 1], at)]
        if not text.startswith(own[0]) or not said:
            raise _refused(f"changes message {i}, of {message['role']}, as it writes it")
        at += len(said[0]) + len(own[i + 1])
        owners += [message["role"]] * len(said[0]) + [TEMPLATE] * len(own[i + 1])
    if at != len(text):
        raise _refused("ends differently for other messages")
    return owners


def _refused(what: str) -> PromptError:
    return PromptError(
        f"This model's chat template {what}, so whose the tokens are is not known. Give the template's text "
        "as a plain prompt: model.tokenizer.apply_chat_template(messages, tokenize=False)."
    )


def _owner(text: str, owners: Sequence[str], first: int, end: int) -> str:
    """Whose a token is: whose its letters are, or where there is only space, its first character."""
    letters = {owners[i] for i in range(first, end) if not text[i].isspace()}
    if len(letters) > 1:
        raise PromptError(
            f"The token {text[first:end]!r} joins words of the chat template with those of a message, so it is "
            "nobody's. Begin and end messages with other characters."
        )
    if letters:
        return letters.pop()
    return owners[min(first, len(owners) - 1)] if owners else TEMPLATE
