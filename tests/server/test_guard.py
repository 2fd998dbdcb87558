"""Who may ask: this machine's own pages, or whoever holds the token; and nobody too much."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from lensing.errors import DictionaryError, FileFormatError, UsageError
from lensing.server.app import make_app
from lensing.server.house import check_index, open_house
from lensing.server.listen import _bind


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[bad"])
def test_other_hosts_are_refused(client, host):
    assert client.get("/api/house", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:5173", "[::1]:5173"])
def test_this_machine_is_served(client, host):
    assert client.get("/api/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost.evil.example"])
def test_pages_of_other_sites_are_refused(client, origin):
    assert client.get("/api/jobs", headers={"origin": origin}).status_code == 403
    assert client.post("/api/lists/x", json={"latent": 1}, headers={"origin": origin}).status_code == 403


def test_a_form_of_another_site_is_refused(client):
    assert client.post("/api/lists/x", json={"latent": 1}, headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_too_large_a_request_is_refused(client):
    assert client.post("/api/text", json={"text": "a " * 1_000_000}).status_code == 413


def test_answers_forbid_foreign_scripts(client):
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_token_is_asked_for_once(house):
    client = TestClient(make_app(house, hosts=["box"], token="secret"), base_url="http://box")
    assert client.get("/api/jobs").status_code == 401
    assert client.get("/api/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/api/jobs", headers={"authorization": "Bearer secret"}).status_code == 200
    assert client.get("/?token=secret").status_code == 200
    assert client.get("/api/jobs").status_code == 200, "the cookie is enough now"


def test_the_next_port_is_taken_when_one_is_in_use(capsys):
    with _bind("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with _bind("127.0.0.1", port) as second:
            assert second.getsockname()[1] != port
    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("no.such.host.invalid", 0)])
def test_an_address_that_is_none_is_refused(host, port):
    with pytest.raises(UsageError):
        _bind(host, port)


def test_an_index_of_another_dictionary_is_refused(house):
    specimen, index = house.indexed()
    other = house.specimen("almanac/resid_post.5/w2048").dictionary
    with pytest.raises(DictionaryError, match="another dictionary"):
        check_index(index, house.model, other)
    check_index(index, house.model, specimen.dictionary)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no finished index"):
        open_house([tmp_path])


def test_notes_that_are_something_else_are_refused(tmp_path):
    path = tmp_path / "notes.sqlite"
    path.write_text("this is no database at all, but a text that is long enough to look at " * 20)
    with pytest.raises(FileFormatError, match="no notes"):
        open_house(notes=path)
