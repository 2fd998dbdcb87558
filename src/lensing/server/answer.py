"""How the server answers: results as JSON, errors as one sentence with a status."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from lensing.errors import LensingError, UnknownNameError, UsageError

LONGEST = 20_000  # characters of a text; the model's own context is usually far shorter
Text = Annotated[str, Field(max_length=LONGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Name = Annotated[
    str | None, Field(default=None, max_length=512, description="a dictionary's name; the first one if not given")
]


class Body(BaseModel, ABC):
    """The body of a request; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """What went wrong, in one sentence, and what to do."""

    error: str


def answer(result: Any) -> Response:
    """A result as JSON; dataclasses and arrays as they are, numbers that JSON cannot hold as null."""
    value = result.to_json() if hasattr(result, "to_json") else result
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return Response(orjson.dumps(value, option=options), media_type="application/json")


async def said(request: Request, error: Exception) -> JSONResponse:
    """An error that was raised on purpose."""
    status = 404 if isinstance(error, UnknownNameError) else 400 if isinstance(error, UsageError) else 409
    return JSONResponse({"error": str(error)}, status)


async def unfit(request: Request, error: Exception) -> JSONResponse:
    """A request whose shape is wrong: which value, and why."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    return JSONResponse({"error": f"{where or 'The request'}: {first['msg']}. Change it and try again."}, 422)


async def broken(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw: the page says so, the terminal has the traceback."""
    return JSONResponse({"error": f"{type(error).__name__}: {error}. The terminal has more."}, 500)


ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 403, 404, 409, 413, 422)
}  # what the OpenAPI document says of every route
HANDLERS = {LensingError: said, RequestValidationError: unfit, Exception: broken}
