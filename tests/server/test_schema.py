"""Whatever the OpenAPI document allows, and more, is answered without an error of the server's own."""

from __future__ import annotations

import contextlib

import pytest

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402  (it comes with schemathesis)
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from server.conftest import PROMPT  # noqa: E402

from lensing.server.app import make_app  # noqa: E402

OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(make_app(None).openapi()).get_all_operations()]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_request_breaks_the_server(client, operation, mode):
    @settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def asked(case):
        query = {key: str(value) for key, value in (case.query or {}).items()}
        body = case.body if isinstance(case.body, dict | list | str | int | float | bool | None) else None
        if mode is GenerationMode.POSITIVE and isinstance(body, dict):
            body |= {key: PROMPT for key in ("prompt", "text", "clean", "corrupt") if key in body}  # words it knows
        found = client.request(case.method, case.formatted_path, params=query, json=body)
        assert found.status_code < 500, found.text
        if found.status_code >= 400:
            assert found.json()

    with contextlib.suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
        asked()
