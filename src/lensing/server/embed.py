"""The page inside a notebook: a server in a thread of this process, shown in a frame."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, final

import uvicorn

from lensing.errors import LensingError
from lensing.server.app import make_app
from lensing.server.house import open_house
from lensing.server.listen import _bind

WAIT_S = 10.0


@final
class Page:
    """A page that is being served; in a notebook it shows itself. `stop()` ends it."""

    def __init__(self, address: str, server: uvicorn.Server, height: int) -> None:
        self.address, self._server, self.height = address, server, height

    def stop(self) -> None:
        """End the server."""
        self._server.should_exit = True

    def __repr__(self) -> str:
        return f"The page is at {self.address} until .stop() is called."

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{self.address}" width="100%" height="{self.height}" style="border:1px solid #8886" '
            f'title="lensing"></iframe><p><a href="{self.address}" target="_blank">Open it in a tab</a></p>'
        )


def serve(*folders: str | Path, height: int = 800, port: int = 0, **options: Any) -> Page:
    """Serve indexes (or what ships) from this process, and return a page that a notebook shows in a frame.

    `options` are those of `lensing serve`: model, dictionary, notes, runs. On loopback only; a notebook on another
    machine needs its port forwarded.

    Raises: LensingError: what cannot be loaded, or a server that does not start.
    """
    house = open_house([Path(folder) for folder in folders], **options)
    found = _bind("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(make_app(house), log_level="warning", access_log=False))
    threading.Thread(target=server.run, kwargs={"sockets": [found]}, name="lensing page", daemon=True).start()
    until = time.monotonic() + WAIT_S
    while not server.started:
        if time.monotonic() > until:
            raise LensingError("The page's server did not start. Give another port.")
        time.sleep(0.02)
    return Page(f"http://127.0.0.1:{found.getsockname()[1]}/", server, height)
