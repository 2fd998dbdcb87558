"""The server as one application: routes, guard, and the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

import lensing
from lensing.errors import LensingError
from lensing.server import dark, index, inside, notes, search, steer, text, walk, work
from lensing.server.answer import ERRORS, HANDLERS
from lensing.server.guard import Guard
from lensing.server.house import House

STATIC = Path(__file__).parent / "static"
PAGE = STATIC / "index.html"


def make_app(house: House | None, *, hosts: Iterable[str] = (), token: str | None = None) -> FastAPI:
    """Return the application that serves a house; without one it only describes itself (OpenAPI)."""
    app = FastAPI(
        title="lensing", version=lensing.__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",
        responses=ERRORS,
    )  # fmt: skip
    app.state.house = house
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    for part in (walk, index, dark, search, steer, text, inside, notes, work):
        app.include_router(part.router, prefix="/api")
    _serve_page(app)
    app.add_middleware(Guard, hosts=list(hosts), token=token)
    return app


def _serve_page(app: FastAPI) -> None:
    @app.get("/api/{rest:path}", include_in_schema=False)
    def nowhere(rest: str) -> JSONResponse:
        return JSONResponse({"error": f"There is no /api/{rest}. See /api/openapi.json."}, 404)

    files: Any = GZipMiddleware(StaticFiles(directory=STATIC, check_dir=False), minimum_size=1024, compresslevel=9)
    app.mount("/static", files)

    @app.get("/{rest:path}", include_in_schema=False)
    def page(request: Request, rest: str) -> FileResponse:
        if not PAGE.is_file():
            raise LensingError("This copy of lensing holds no built page. Say make web, or install the wheel.")
        return FileResponse(PAGE, headers={"cache-control": "no-cache"})
