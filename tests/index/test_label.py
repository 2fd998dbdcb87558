"""Labels by a language model: a stand-in server that reads marks, one that is down, and one that talks nonsense."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import lensing as ln
from lensing.db import Notes
from lensing.errors import LensingError, UsageError
from lensing.index.endpoint import Endpoint, Local
from lensing.index.label import explain_with, label
from lensing.index.score import Silent, _balanced, _read, halves, marked, score
from lensing.registry import shipped_indexes

NAME = "almanac/resid_post.5/w1024"


def clever(system, user):
    """Explains by the commonest marked word, and finds that word again."""
    if "EXPLANATION" in system:
        words = [w for part in re.findall(r"<<(.+?)>>", user) for w in part.split()]
        return f"EXPLANATION: {Counter(words).most_common(1)[0][0]}"
    word = re.search(r"The feature: (\S+)", user).group(1)
    texts = re.findall(r"^\d+\. (.*)$", user, re.MULTILINE)
    inside = [" ".join(re.findall(r"<<(.+?)>>", t)) if "<<" in t else t for t in texts]
    return f"I think {json.dumps([int(word in re.findall(r'[^ .]+', t) + list(t)) for t in inside])}."


class Server(BaseHTTPRequestHandler):
    answers = staticmethod(clever)
    asked = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).asked.append((self.headers.get("authorization"), body))
        try:
            said = type(self).answers(*[m["content"] for m in body["messages"]])
        except RuntimeError as error:
            self.send_error(int(str(error)))
            return
        answer = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("LENSING_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    kind = type("One", (Server,), {"asked": [], "answers": staticmethod(clever)})
    made = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    made.kind, made.url = kind, f"http://127.0.0.1:{made.server_port}/v1"
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def model():
    return ln.load_model("almanac")


@pytest.fixture(scope="module")
def sae(model):
    return ln.load_dictionary(NAME, model=model)


@pytest.fixture(scope="module")
def index():
    return ln.open_index(shipped_indexes()[NAME])


@pytest.fixture(scope="module")
def silent(model, sae, index):
    return Silent(model, sae, index)


@pytest.fixture(scope="module")
def clear(index):
    """Latents that are one word's: nearly all of their firing, and nearly all of the word."""
    ok = (index.array("word_recall")[:, 0] > 0.93) & (index.array("word_precision")[:, 0] > 0.93)
    found = [
        i
        for i in ok.nonzero()[0].tolist()
        if len(halves(index, i)[1]) >= 10 and index.latent(i).fires_on[0][0].strip().isalpha()
    ]
    assert len(found) >= 2
    return found[:3]


def test_a_clear_latent_is_explained_and_scored(server, model, sae, index, clear, tmp_path):
    notes = Notes(tmp_path / "n.sqlite")
    done = label(
        model,
        sae,
        index,
        notes,
        "s",
        Endpoint(server.url, "m"),
        latents=clear,
        kinds=("detection", "fuzzing"),
        quiet=True,
    )
    assert (done.made, done.failed) == (len(clear), {})
    for i in clear:
        word = index.latent(i).fires_on[0][0].strip()
        assert notes.labels("s", i)[0].text == word
        assert notes.labels("s", i)[0].by == "m"
        assert notes.labels("s", i)[0].n
    for s in done.scores:
        assert s.accuracy > 0.85, s
        assert s.n >= 18
    controls = [s.control for s in done.scores if s.control is not None]
    assert controls
    assert all(0.2 < c < 0.75 for c in controls), "another latent's explanation should know nothing"
    again = label(
        model, sae, index, notes, "s", Endpoint(server.url, "m"), latents=clear, quiet=True, kinds=("detection",)
    )
    assert (again.made, again.there) == (0, len(clear))


def test_windows_without_the_latent_are_without_it(model, sae, silent):
    window, active = silent.windows[0]
    text = "".join(window)
    read = model.encode(text)
    _, cache = model.run_with_cache(read, sites=["resid_post.5"])
    here = sae.encode(cache["resid_post.5"][0, 1:])
    assert {int(i) for i, v in zip(here.index, here.value, strict=True) if v > 0} == set(active)


def test_what_explains_is_never_what_scores(index):
    for i in (0, 192, 500):
        a, b = halves(index, i)
        assert not {e.row for e in a} & {e.row for e in b}


def test_a_server_that_is_down_fails_each_and_stops_nothing(model, sae, index, tmp_path):
    notes = Notes(tmp_path / "n.sqlite")
    done = label(
        model,
        sae,
        index,
        notes,
        "s",
        Endpoint("http://127.0.0.1:9", "m", tries=1),
        latents=[1, 2],
        kinds=(),
        quiet=True,
    )
    assert set(done.failed) == {1, 2}
    assert "Is it running" in done.failed[1]
    assert notes.labels("s", 1) == []


def test_nonsense_is_counted_and_tried_again(server, model, sae, index, clear, tmp_path):
    notes = Notes(tmp_path / "n.sqlite")
    server.kind.answers = staticmethod(lambda system, user: "Bananas!")
    asker = Endpoint(server.url, "m")
    done = label(model, sae, index, notes, "s", asker, latents=clear, kinds=(), quiet=True)
    assert set(done.failed) == set(clear)
    server.kind.answers = staticmethod(lambda s, u: clever(s, u) if "EXPLANATION" in s else "[0, 1]")
    done = label(model, sae, index, notes, "s", asker, latents=clear, quiet=True)
    assert all("could be read" in why for why in done.failed.values())
    server.kind.answers = staticmethod(clever)
    assert label(model, sae, index, notes, "s", asker, latents=clear, quiet=True).made == len(clear)


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server, monkeypatch):
    answers = iter(["503", "429", None])

    def busy(system, user):
        if status := next(answers):
            raise RuntimeError(status)
        return "fine"

    server.kind.answers = staticmethod(busy)
    monkeypatch.setenv("LENSING_API_KEY", "secret")
    assert Endpoint(server.url, "m", wait=0.01).ask("a", "b") == "fine"
    assert len(server.kind.asked) == 3
    assert server.kind.asked[0][0] == "Bearer secret"

    def refuse(system, user):
        raise RuntimeError("401")

    server.kind.answers = staticmethod(refuse)
    with pytest.raises(LensingError, match="401"):
        Endpoint(server.url, "m", wait=0.01).ask("a", "b")
    assert len(server.kind.asked) == 4
    with pytest.raises(UsageError):
        Endpoint("localhost:8000", "m")


def test_marks_and_answers():
    assert marked((" a", " river", " bed", "."), (0.0, 2.0, 1.9, 0.1)) == "a <<river bed>>."
    assert _read("so [1,0, 1]", 3) == [True, False, True]
    assert _read("[1, 0]", 3) is _read("[2, 0, 1]", 3) is _read("yes", 3) is None
    assert _balanced([(True, True), (True, False), (False, False), (False, False)])[0] == 0.75


def test_a_model_that_is_loaded_here_can_be_asked(make_model):
    assert isinstance(Local(make_model("llama")).ask("the", "bird", tokens=4), str)


def test_rare_latents_and_unknown_scores_are_refused(index, silent, server):
    dead = int((index.array("count") == 0).nonzero()[0][0])
    with pytest.raises(UsageError, match="too few"):
        score(index, silent, dead, "x", Endpoint(server.url, "m"))
    with pytest.raises(UsageError, match="never fires"):
        explain_with(index, dead, Endpoint(server.url, "m"))
    with pytest.raises(UsageError, match="detection"):
        score(index, silent, 0, "x", Endpoint(server.url, "m"), kind="beauty")
