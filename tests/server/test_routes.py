"""What the page is told is what the functions return, and what cannot be is refused in a sentence."""

from __future__ import annotations

import json
import threading
import time

import pytest
import torch
from server.conftest import PROMPT

import lensing as ln
from lensing.causal.ablate import effects
from lensing.index.inference import infer


def test_the_house_names_the_model_and_its_dictionaries(ask, house):
    found = ask("/api/house")
    assert found["model"]["name"] == "almanac"
    assert found["first"] == "almanac/resid_post.5/w1024"
    assert len(found["dictionaries"]) > 10


def test_read_is_the_lens(ask, house):
    found = ask("/api/read", {"prompt": PROMPT})
    grid = ln.lens_grid(house.model, PROMPT)
    assert found["lens"]["strings"] == grid.to_json()["strings"]
    _, cache = house.model.run_with_cache(PROMPT, sites=["resid_post.3"])
    assert found["vectors"]["resid_post.3"] == pytest.approx(cache["resid_post.3"][0, -1].tolist(), abs=1e-4)
    assert ask("/api/read", {"prompt": PROMPT, "lens": "tuned"})["lens"]["kind"] != found["lens"]["kind"]


def test_beyond_has_every_latent_and_the_error(ask, house):
    found = ask("/api/beyond", {"prompt": PROMPT})
    sae = house.specimen().dictionary
    want = effects(house.model, sae, PROMPT)
    assert {x["latent"] for x in found["effects"]["latents"]} == {e.latent for e in want.latents}
    assert found["effects"]["error"]["effect"] == pytest.approx(want.error.effect, abs=1e-5)
    assert found["ledger"][0]["not_reconstructed"] is None
    assert all(0 <= e["not_reconstructed"] < 2 for e in found["ledger"][1:])


def test_decompose_sums_to_the_logit(ask, house):
    found = ask("/api/decompose", {"prompt": PROMPT})
    assert sum(p["value"] for p in found["parts"]) == pytest.approx(found["whole"], abs=1e-4)
    logits = house.model.logits(house.model.encode(PROMPT))[0, -1]
    assert found["capped"] == pytest.approx(float(logits.max()), abs=1e-4)


def test_why_has_a_row_for_the_error(ask):
    found = ask("/api/why", {"prompt": PROMPT, "right": "doubtful", "wrong": "certain"})
    assert any(n["latent"] is None for n in found["nodes"])


def test_a_latent_is_that_of_the_index(ask, house):
    found = ask("/api/latent/192")
    _, index = house.indexed()
    want = json.loads(json.dumps(index.latent(192).to_json()))
    assert found["latent"]["count"] == want["count"]
    assert found["latent"]["groups"][0]["examples"][0]["tokens"] == want["groups"][0]["examples"][0]["tokens"]
    assert found["labels"], "automatic labels are always there"


def test_the_table_sorts_and_filters(ask, house):
    _, index = house.indexed()
    found = ask("/api/table", {"sort": "-max", "where": [["density", 0.001, 0.01]], "limit": 1000})
    density = index.array("density")
    assert found["total"] == int(((density >= 0.001) & (density <= 0.01)).sum()) == len(found["latents"])
    assert found["columns"]["max"] == sorted(found["columns"]["max"], reverse=True)
    by_label = ask("/api/table", {"words": "doubt"})
    assert 0 < by_label["total"] < index.d_sae
    assert all("doubt" in label for label in by_label["labels"])


def test_search_finds_the_latent_by_text_word_and_example(ask):
    fired = ask("/api/search/inference", {"text": "The Almanac is very doubtful"})["hits"]
    assert fired == sorted(fired, key=lambda h: -h["max"])
    words = ask("/api/search/words", q="river")["hits"]
    assert {h["how"] for h in words} <= {"fires on", "promotes", "suppresses"}
    assert all(h["word"].strip() == "river" for h in words)
    text = "In the pantry there is a broom. There is another broom in the bay."
    tokens = ask("/api/activations", {"text": text, "latents": [0]})["tokens"]
    marked = [i for i, t in enumerate(tokens) if t.strip() == "broom"]
    hits = ask("/api/search/examples", {"examples": [{"text": text, "marked": marked}]})["hits"]
    assert len(marked) == 2
    assert hits[0]["auroc"] >= hits[-1]["auroc"]
    assert hits[0]["auroc"] > 0.9


def test_text_counts_nothing_at_bos(ask, house):
    found = ask("/api/text", {"text": PROMPT})
    assert found["missed"][0] is found["kl"][0] is found["loss"][0] is None
    want = infer(house.model, house.specimen().dictionary, PROMPT)
    assert found["missed"][1:] == pytest.approx(want.missed[1:], abs=1e-6)


def test_attention_rows_sum_to_one(ask):
    found = ask("/api/attention", {"text": PROMPT, "layer": 1})
    for head in found["pattern"]:
        assert [len(row) for row in head] == list(range(1, len(found["tokens"]) + 1))
        assert all(sum(row) == pytest.approx(1, abs=2e-3) for row in head)


def test_patching_the_first_layer_at_the_changed_word_is_everything(ask):
    found = ask("/api/patch", {"clean": PROMPT, "corrupt": "The reliability of the river is very"})
    assert found["grid"][0][5] == pytest.approx(1, abs=1e-3)


def test_a_unit_is_shown_by_both_signs(ask):
    found = ask("/api/unit", site="mlp_post.5", number=7)
    assert found["top"][0]["value"] > 0 > found["bottom"][0]["value"]
    assert sum(found["histogram"]) == found["tokens"]


def test_compare_knows_itself_and_other_sites(ask):
    assert ask("/api/compare", latents="5,5")["decoder"] == pytest.approx(1, abs=1e-5)
    assert not ask("/api/compare", latents="5,5", other="almanac/resid_post.2/w1024")["same_site"]


def test_twins_are_the_nearest_of_other_seeds(ask, house):
    name = "almanac/resid_post.2/w1024"
    found = ask("/api/latent/5/twins", dictionary=name)["twins"]
    assert {t["dictionary"] for t in found} >= {f"{name}/seed1", f"{name}/seed2"}
    one = house.specimen(name).dictionary.W_dec[5]
    for twin in found:
        rows = house.specimen(twin["dictionary"]).dictionary.W_dec
        cosine = torch.cosine_similarity(rows.float(), one.float()[None], dim=1)
        assert (twin["latent"], twin["cosine"]) == (int(cosine.argmax()), pytest.approx(float(cosine.max()), abs=1e-5))


def test_slide_agrees_with_an_edited_run(ask, house):
    found = ask("/api/slide", {"prompt": PROMPT, "latent": 192, "strengths": [0, 2]})
    sae = house.specimen().dictionary
    with house.model.edit(ln.steer(sae, 192, 2.0)):
        p = house.model.logits(house.model.encode(PROMPT))[0, -1].double().softmax(-1)
    best = found["directions"][0]["notches"][1]["table"][0]
    assert best["id"] == int(p.argmax())
    assert best["p"] == pytest.approx(float(p.max()), abs=1e-5)
    assert found["directions"][0]["notches"][0]["kl"] == pytest.approx(0, abs=1e-9)
    assert {d["name"] for d in found["directions"]} >= {"latent", "random latent", "random direction"}


def steered(client, **body):
    text = client.post("/api/steer", json={"prompt": PROMPT, "latents": [{"latent": 192, "strength": 4}], **body}).text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_steer_streams_both_sides(client, house):
    events = steered(client, new_tokens=8)
    plain = "".join(e.get("plain", "") for e in events)
    assert plain == house.model.generate(PROMPT, max_new_tokens=8).text[0] == events[-1]["texts"][0]
    sae = house.specimen().dictionary
    with house.model.edit(ln.steer(sae, 192, 4.0)):
        want = house.model.generate(PROMPT, max_new_tokens=8).text[0]
    assert "".join(e.get("steered", "") for e in events) == want
    assert events[-1]["done"]


def test_who_goes_away_stops_the_writing(house, monkeypatch):
    """A closed connection ends the generation at its next word, and leaves the model free."""
    import httpx

    from lensing.server import embed

    monkeypatch.setattr(embed, "open_house", lambda folders: house)
    real, steps = house.model.generate, []

    def slow(*arguments, each, **options):
        def counted(ids):
            steps.append(1)
            time.sleep(0.02)
            return each(ids)

        return real(*arguments, each=counted, **options)

    monkeypatch.setattr(house.model, "generate", slow)
    page = embed.serve()
    try:
        asked = {"prompt": PROMPT, "latents": [{"latent": 192}], "new_tokens": 200}
        with httpx.stream("POST", page.address + "api/steer", json=asked) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
        until = time.monotonic() + 20
        while any(t.name == "steer" for t in threading.enumerate()) and time.monotonic() < until:
            time.sleep(0.02)
        assert 0 < len(steps) < 200, "nobody listened, and it was written to the end"
        assert not house.model.edited
    finally:
        page.stop()


def test_a_latent_that_is_not_there_ends_the_stream_with_a_sentence(client):
    found = client.post("/api/steer", json={"prompt": PROMPT, "latents": [{"latent": 99999}]})
    assert found.status_code in (400, 404)
    assert "latent" in found.json()["error"]


def test_more_new_tokens_than_the_context_holds_are_cut(client, house):
    events = steered(client, new_tokens=1024, temperature=0)
    assert events[-1]["done"]
    assert sum("plain" in e for e in events) <= house.model.context


def test_notes_come_back(client, ask):
    assert ask("/api/latent/7/labels", {"text": "a kept label"})["labels"][0]["text"] == "a kept label"
    put = client.put("/api/latent/7/notes", json={"note": "look again", "tags": ["b", "a"]}).json()
    assert put == {"note": "look again", "tags": ["a", "b"]}
    assert any(h["latent"] == 7 for h in ask("/api/search/labels", q="kept")["hits"])
    ask("/api/lists/odd ones", {"latent": 7})
    assert ask("/api/lists/odd ones")["items"][0]["label"] == "a kept label"
    number = ask("/api/latent/7")["labels"][0]["id"]
    assert client.delete(f"/api/labels/{number}").status_code == 200
    assert not any(h["text"] == "a kept label" for h in ask("/api/search/labels", q="kept")["hits"])


def test_an_index_is_built_as_a_job(client, ask, house):
    name = "almanac/mlp_out.2/w1024"
    refused = client.get("/api/latent/0", params={"dictionary": name})
    assert refused.status_code == 400
    assert "no index" in refused.json()["error"]
    assert ask("/api/index", dictionary=name) == {"name": name, "indexed": False}
    job = ask("/api/index", {"dictionary": name})
    with client.stream("GET", f"/api/jobs/{job['id']}/events") as events:
        last = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")][-1]
    assert last["state"] == "done", last
    assert ask("/api/latent/0", dictionary=name)["text"]["rows"] > 10_000
    assert ask("/api/jobs")["jobs"][0]["state"] == "done"


def test_labels_are_searched_by_meaning(ask, client, house, monkeypatch):
    from lensing.index.meaning import Meaning

    assert "--embedding" in client.get("/api/search/meaning", params={"q": "river"}).json()["error"]
    monkeypatch.setattr(house, "meaning", Meaning(house.model))
    name = "almanac/resid_post.5/w1024"
    texts = ["the river of the capital", "The Almanac is very doubtful", "a bird sang"]
    vectors = house.meaning.vectors(texts)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    for text, row in zip(texts, vectors, strict=True):
        _, cache = house.model.run_with_cache(text, sites=["final_norm"])
        want = torch.nn.functional.normalize(cache["final_norm"][0, -1], dim=0)
        assert row.tolist() == pytest.approx(want.tolist(), abs=1e-5)
    house.meanings[house.specimen(name).subject] = ([7, 3, 5], vectors)
    hits = ask("/api/search/meaning", q="The Almanac is very doubtful", dictionary=name)["hits"]
    assert (hits[0]["latent"], hits[0]["cosine"]) == (3, pytest.approx(1, abs=1e-5))
    house.meanings.clear()


def test_the_ledger_is_made_once(ask, client, house):
    name = "almanac/resid_post.2/w1024"
    first = ask("/api/ledger", dictionary=name)
    with client.stream("GET", f"/api/jobs/{first['job']['id']}/events") as events:
        last = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")][-1]
    assert last["state"] == "done", last
    found = ask("/api/ledger", dictionary=name)["ledger"]
    assert sum(x["share"] for x in found["variance"]["lines"]) == pytest.approx(
        found["variance"]["fvu"]["share"], rel=1e-9
    )
    assert len(found["seeds"]["dictionaries"]) == 3


def test_a_job_can_be_cancelled(house):
    from lensing.progress import Meter

    def work():
        with Meter("counting", total=10**9, quiet=True) as meter:
            while True:
                meter.advance()

    job = house.jobs.start("count", work)
    house.jobs.cancel(job.id)
    for _ in range(100):
        if job.state != "running":
            break
        house.jobs.wait(job, job.version, 0.1)
    assert job.state == "cancelled"


def test_runs_show_their_curves(ask, house):
    folder = house.runs / "a"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    assert [r["name"] for r in ask("/api/runs")["runs"]] == ["a"]
    assert ask("/api/runs/metrics", name="a")["columns"] == {"step": [1, 2], "loss": [2.5, 1.5]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/slide", '{"prompt": "The", "latent": 192, "strengths": [NaN]}', 422),
        ("/api/slide", '{"prompt": "The", "latent": 192, "strengths": [1e999]}', 422),
        ("/api/slide", '{"prompt": "The", "latent": 192, "strengths": []}', 422),
        ("/api/text", '{"text": ""}', 400),
        ("/api/text", '{"text": "zzzqq"}', 400),
        ("/api/text", '{"text": "The", "dictionary": "nobody"}', 404),
        ("/api/text", '{"text": "The", "surprise": 1}', 422),
        ("/api/steer", '{"prompt": "The", "latents": [{"latent": 1}], "new_tokens": 10000}', 422),
        ("/api/table", '{"sort": "beauty"}', 404),
        ("/api/patch", '{"clean": "The Almanac", "corrupt": "The"}', 400),
        ("/api/attention", '{"text": "The", "layer": 99}', 400),
        ("/api/read", '{"prompt": "The", "position": 99}', 400),
        ("/api/read", "not json", 422),
    ],
)
def test_bad_requests_get_a_sentence(client, path, body, status):
    found = client.post(path, content=body, headers={"content-type": "application/json"})
    assert found.status_code == status, found.text
    assert found.json()["error"].endswith((".", "?"))


def test_unknown_addresses_are_the_page_and_unknown_routes_are_not(client):
    assert client.get("/api/nowhere").status_code == 404
    for path in ("/latent/3", "/..%2f..%2fetc/passwd", "/static/..%2f..%2fpyproject.toml"):
        found = client.get(path)
        assert "[project]" not in found.text
        assert "root:" not in found.text
    assert "<div id=" in client.get("/latent/3").text


def test_the_vectors_of_a_closed_house_are_untouched(house):
    """Serving leaves no edit behind."""
    assert not house.model.edited
    assert torch.equal(house.model.logits(house.model.encode(PROMPT)), house.model.logits(house.model.encode(PROMPT)))
