"""`lensing export`, `import`, `label`, `serve` and the walk's page, from the command line."""

from __future__ import annotations

import json
import re

import pytest

from lensing.cli import main
from lensing.registry import shipped_indexes

INDEX = str(shipped_indexes()["almanac/resid_post.5/w1024"])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSING_HOME", str(tmp_path / "home"))


def test_plain_pages_hold_every_latent_that_fires(tmp_path, capsys):
    assert main(["export", INDEX, "--form", "pages", "--out", str(tmp_path / "p")]) == 0
    table = (tmp_path / "p" / "index.html").read_text()
    links = re.findall(r'href="(latent/\d+\.html)"', table)
    assert len(links) > 900
    assert all((tmp_path / "p" / link).is_file() for link in links)
    one = (tmp_path / "p" / "latent" / "192.html").read_text()
    assert "Strongest contexts" in one
    assert "http" not in one, "it needs nothing from elsewhere"


def test_there_and_back(tmp_path, capsys):
    assert main(["export", INDEX, "--out", str(tmp_path / "v1"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["latents"] == 1024
    command = [
        "import",
        str(tmp_path / "v1"),
        "--dictionary",
        "almanac/resid_post.5/w1024",
        "--out",
        str(tmp_path / "i"),
    ]
    assert main(command) == 0
    assert main(["latent", str(tmp_path / "i"), "192", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["groups"][0]["examples"]


def test_what_is_no_index_is_refused(tmp_path, capsys):
    for command in (
        ["export", str(tmp_path), "--out", str(tmp_path / "o")],
        ["import", str(tmp_path), "--dictionary", "almanac/resid_post.5/w1024", "--out", str(tmp_path / "o")],
        ["label", str(tmp_path), "--llm", "m", "--endpoint", "http://127.0.0.1:9/v1"],
        ["serve", str(tmp_path)],
        ["serve", str(tmp_path / "nowhere")],
        ["label", INDEX, "--llm", "m", "--endpoint", "nowhere"],
        ["label", INDEX, "--llm", "m", "--endpoint", "http://127.0.0.1:9/v1", "--latents", "99999"],
    ):
        assert main(command) == 2, command
        assert capsys.readouterr().err.startswith("lensing: ")


def test_an_index_of_another_dictionary_is_not_served(capsys):
    assert main(["serve", INDEX, "--dictionary", "almanac/resid_post.5/w2048"]) == 1
    assert "built for another dictionary" in capsys.readouterr().err


def test_the_walk_as_one_file(tmp_path, capsys):
    command = [
        "walk",
        "The reliability of the Almanac is very",
        "--html",
        str(tmp_path / "w.html"),
        "--new-tokens",
        "4",
    ]
    assert main([*command, "--strength", "0", "2"]) == 0
    text = (tmp_path / "w.html").read_text()
    titles = ["Tokens", "One vector", "Every layer", "One neuron", "Latents that", "What latent", "The splice"]
    for n, title in enumerate([*titles, "Turn it up", "The ledger"], 1):
        assert f"<h2>{n} {title}" in text
    doses = json.loads(re.search(r'id="doses">(.*?)</script>', text).group(1))
    assert [d["strength"] for d in doses] == [0.0, 2.0]
    assert "src=" not in text.replace('src="data:', "")
    assert "error" in text


def test_strangers_train_index_and_serve(tmp_path, test_data, capsys, monkeypatch):
    """Three commands on somebody's own folder, and every page's question is answered."""
    from fastapi.testclient import TestClient

    from lensing.server.app import make_app
    from lensing.server.house import open_house

    monkeypatch.chdir(tmp_path)
    model, text = str(test_data / "models/stories260K"), str(test_data / "data/wikitext2-valid-test.txt.gz")
    train = ["train", "topk", "--model", model, "--text", text, "--site", "resid_post.2", "--tokens", "20000"]
    assert main([*train, "--width", "128", "--k", "8", "--out", "run"]) == 0
    assert main(["index", "run", "--text", text, "--tokens", "8000", "--out", "idx"]) == 0
    house = open_house([tmp_path / "idx"])
    client = TestClient(make_app(house), base_url="http://localhost")
    prompt = "Once upon a time there was a"
    assert client.get("/api/house").json()["first"] == "run"
    assert client.get("/api/latent/3").json()["latent"]["latent"] == 3
    for path, body in (
        ("read", {"prompt": prompt}), ("beyond", {"prompt": prompt}), ("text", {"text": prompt}),
        ("slide", {"prompt": prompt, "latent": 3, "strengths": [0, 2]}), ("attention", {"text": prompt, "layer": 1}),
        ("search/inference", {"text": prompt}),
        ("steer", {"prompt": prompt, "latents": [{"latent": 3, "strength": 2}], "new_tokens": 4}),
    ):  # fmt: skip
        found = client.post(f"/api/{path}", json=body)
        assert found.status_code == 200, (path, found.text)
    assert client.get("/api/unit", params={"site": "mlp_post.1", "number": 2}).status_code == 200


def test_a_page_in_a_notebook(tmp_path):
    import httpx

    import lensing as ln

    page = ln.serve(height=300)
    try:
        assert page.address in page._repr_html_()
        assert httpx.get(page.address + "api/house").json()["model"]["name"] == "almanac"
    finally:
        page.stop()
    one = ln.open_index(INDEX).latent(192)
    assert "Strongest contexts" in one._repr_html_()
    one.show()
    assert (
        "<span"
        in ln.infer(
            ln.load_model("almanac"), ln.load_dictionary("almanac/resid_post.5/w1024"), "The Almanac"
        )._repr_html_()
    )
