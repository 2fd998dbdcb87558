"""Routes of steering: the same text continued as the model would and as it is steered, word by word."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from lensing.causal.steer import Mode, OnRows, Unit, steer
from lensing.errors import LensingError, UsageError
from lensing.measure.coherence import nats_per_token, verdict
from lensing.model.edit import Edit
from lensing.model.tokens import Tokens
from lensing.server.answer import Body, Finite, Name, Text
from lensing.server.house import House
from lensing.server.rooms import Served

router = APIRouter(tags=["steer"])
MOST_TOKENS = 1024


class Turned(Body):
    """One latent turned up or down."""

    latent: int
    strength: Finite = 1.0
    unit: Unit = "max"
    mode: Mode = "add"
    dictionary: Name


class Turn(Body):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Steered(Body):
    """A text or a chat, the latents to turn, and how to continue."""

    prompt: Text = ""
    chat: Annotated[list[Turn], Field(max_length=64)] = []
    latents: Annotated[list[Turned], Field(min_length=1, max_length=16)]
    at: Literal["all", "prompt", "generated"] = "all"
    new_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 48
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, le=1 << 31)] = 0


@router.post("/steer")
async def stream(served: Served, request: Request, asked: Steered) -> StreamingResponse:
    """Continue a text with and without steering, side by side: server-sent events with what each word adds."""
    tokens, edits = await asyncio.to_thread(_prepare, served, asked)
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    loop, gone = asyncio.get_running_loop(), threading.Event()

    def put(event: dict[str, Any] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the server is closing
            loop.call_soon_threadsafe(queue.put_nowait, event)

    def work() -> None:
        try:
            _generate(served, asked, tokens, edits, put, gone)
        except LensingError as error:
            put({"error": str(error)})
        except Exception as error:
            put({"error": f"{type(error).__name__}: {error}. The terminal has more."})
            raise
        finally:
            put(None)

    async def events() -> AsyncIterator[bytes]:
        threading.Thread(target=work, name="steer", daemon=True).start()
        try:
            while (event := await queue.get()) is not None:
                yield b"data: " + orjson.dumps(event) + b"\n\n"
        finally:
            gone.set()  # nobody listens any more: the generation stops at its next word

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def _prepare(house: House, asked: Steered) -> tuple[Tokens, list[Edit]]:
    model = house.model
    if bool(asked.chat) == bool(asked.prompt):
        raise UsageError("Give a prompt or a chat, one of them.")
    one = (
        model.encode_chat([t.model_dump() for t in asked.chat])
        if asked.chat
        else model.encode(asked.prompt, padding="left")
    )
    edits: list[Edit] = []
    for turned in asked.latents:
        sae = house.specimen(turned.dictionary).dictionary
        edit = steer(sae, turned.latent, turned.strength, turned.unit, turned.mode, asked.at)
        edits.append(OnRows(edit, [1]))
    room = asked.new_tokens if model.context is None else min(asked.new_tokens, model.context - one.ids.shape[1] + 1)
    if room < 1:
        raise UsageError(f"The text fills the model's context of {model.context} tokens. Shorten it.")
    return one.repeat(2), edits


def _generate(house: House, asked: Steered, tokens: Tokens, edits: list[Edit], put: Any, gone: threading.Event) -> None:
    model = house.model
    length = tokens.ids.shape[1]
    room = asked.new_tokens if model.context is None else min(asked.new_tokens, model.context - length + 1)
    shown = ["", ""]
    base = model.decode(tokens.ids[0])
    strings = model.tok_str(tokens.ids[0])
    put({"prompt": base, "tokens": strings, "roles": tokens.roles[0] if tokens.roles else None})

    def each(ids: Any) -> bool:
        words = []
        for row, so_far in enumerate(ids.tolist()):
            whole = model.decode([*tokens.ids[0].tolist(), *so_far])
            text = whole[len(base) :] if whole.startswith(base) else model.decode(so_far)
            words.append(text[len(shown[row]) :] if text.startswith(shown[row]) else text)
            shown[row] = text
        put({"plain": words[0], "steered": words[1]})
        return gone.is_set()

    seeds = [asked.seed, asked.seed]
    with model.edit(*edits):
        made = model.generate(tokens, max_new_tokens=room, temperature=asked.temperature, seed=seeds, each=each)
    if gone.is_set():
        return
    nats = nats_per_token(model, made).tolist()
    put(
        {
            "done": True,
            "texts": made.text,
            "nats": nats,
            "cost": nats[1] - nats[0],
            "verdict": verdict(nats[1] - nats[0]),
        }
    )
