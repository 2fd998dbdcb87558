"""The shipped model served without a network: one house for all tests of the server."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from lensing.server.app import make_app
from lensing.server.house import open_house

PROMPT = "The reliability of the Almanac is very"


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSING_HOME", str(tmp_path_factory.mktemp("home")))
        yield open_house(runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def client(house):
    return TestClient(make_app(house), base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture
def ask(client):
    """Ask and expect an answer."""

    def asking(path, body=None, **query):
        found = client.post(path, json=body) if body is not None else client.get(path, params=query)
        assert found.status_code == 200, found.text
        return found.json()

    return asking
