"""Serve a house until somebody stops it."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterable

import uvicorn

from lensing.errors import LensingError, UsageError
from lensing.server.app import PAGE, make_app
from lensing.server.guard import LOOPBACK
from lensing.server.house import House

TRIES = 20  # ports after the one that was asked for
GRACE_S = 3  # that requests have to end once the server is stopped


def listen(
    house: House, *, host: str, port: int, hosts: Iterable[str] = (), token: str | None = None, browser: bool = False
) -> None:
    """Serve on a port, or the next free one, and print the address; returns when the person presses Ctrl-C."""
    if not PAGE.is_file():
        raise LensingError("This copy of lensing holds no built page. Say make web, or install the wheel.")
    local = host.lower() in LOOPBACK
    token = token or (None if local else secrets.token_urlsafe(24))
    found = _bind(host, port)
    port = found.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    app = make_app(house, hosts=[*hosts, host], token=token)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=1 << 16,
    )
    server = uvicorn.Server(config)
    print(f"lensing: the page is at {address}  (Ctrl-C stops it)", file=sys.stderr, flush=True)
    if browser:
        threading.Thread(target=_open, args=(server, address), daemon=True).start()
    server.run(sockets=[found])


def _open(server: uvicorn.Server, address: str) -> None:
    while not server.started:
        time.sleep(0.05)
    webbrowser.open(address)


def _bind(host: str, port: int) -> socket.socket:
    """A socket at the port, or at the next free one, which is said."""
    if not 0 <= port <= 65535:
        raise UsageError(f"There is no port {port}. Give 1 to 65535, or 0 for any.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port == 0 else range(port, min(port + TRIES, 65536)):
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, number))
        except PermissionError as error:
            found.close()
            raise UsageError(f"Port {number} may not be used. Give --port 1024 or more.") from error
        except socket.gaierror as error:
            found.close()
            raise UsageError(f"There is no address {host!r} on this machine. Give --host 127.0.0.1.") from error
        except OSError as error:
            found.close()
            if error.errno not in (98, 48, 10048):  # in use: Linux, macOS, Windows
                raise UsageError(f"{host} cannot be listened at: {error.strerror}. Give --host 127.0.0.1.") from error
            continue
        if number != port and port:
            print(f"lensing: port {port} is in use; the page takes {number}.", file=sys.stderr, flush=True)
        return found
    raise UsageError(f"Ports {port} to {port + TRIES - 1} are all in use. Give another with --port.")
