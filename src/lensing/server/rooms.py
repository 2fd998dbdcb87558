"""What every route asks for: the house that is served."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from lensing.server.house import House


def _house(request: Request) -> House:
    return request.app.state.house


Served = Annotated[House, Depends(_house)]
