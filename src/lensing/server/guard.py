"""Who may ask: the page itself, from this machine, or whoever holds the token."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

LOOPBACK = ("localhost", "127.0.0.1", "::1")
COOKIE = "lensing_token"
MOST = 1 << 20  # bytes of a request
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]  # fmt: skip


class Guard:
    """Refuses a request from another site's page (Host, Origin), without the token, or too large."""

    def __init__(self, app: Any, *, hosts: Iterable[str] = (), token: str | None = None) -> None:
        self.app, self.token = app, token
        self.hosts = {*LOOPBACK, *(h.lower() for h in hosts)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(f"//{host}") not in self.hosts:
            await _refuse(send, 403, f"The host {host!r} is not served. Start lensing serve with --allow-host.")
            return
        if origin is not None and _name(origin) not in self.hosts:
            await _refuse(send, 403, f"A page of {origin!r} may not ask. Start lensing serve with --allow-host.")
            return
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            await _refuse(send, 403, "A page of another site may not ask. Start lensing serve with --allow-host.")
            return
        fresh = False
        if self.token is not None:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            fresh = _same(given, self.token)
            if not (fresh or self._known(headers)):
                await _refuse(send, 401, "The token is missing or wrong. Open the address that lensing serve printed.")
                return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST:
            await _refuse(send, 413, f"The request is larger than {MOST:,} bytes. Send less text.")
            return
        began = time.perf_counter()
        await self.app(scope, _limited(receive), _with_headers(send, self.token if fresh else None, began))

    def _known(self, headers: dict[str, str]) -> bool:
        assert self.token is not None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return _same(bearer, self.token) or (cookie is not None and _same(cookie.value, self.token))


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _limited(receive: Any) -> Any:
    """A body without a length ends where it is too large."""
    read = 0

    async def limited() -> Any:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return {"type": "http.disconnect"} if read > MOST else message

    return limited


def _with_headers(send: Any, token: str | None, began: float) -> Any:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            took = f"handler;dur={1e3 * (time.perf_counter() - began):.2f}"
            extra = [*HEADERS, (b"server-timing", took.encode())]
            if token is not None:
                extra.append((b"set-cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/".encode()))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending


async def _refuse(send: Any, status: int, why: str) -> None:
    body = orjson.dumps({"error": why})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
