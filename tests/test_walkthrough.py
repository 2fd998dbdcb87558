"""The walk's numbers against the model run by hand, its choices, its JSON, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from walking import PROMPT, SILENT, documents, labelled_text, tiny_assets, tiny_dictionary

import lensing as ln
import lensing.registry
import lensing.walkthrough
import lensing.world.shipped
from lensing.errors import DictionaryError, PromptError, UnknownNameError, UsageError
from lensing.model.edit import Replace
from lensing.world.shipped import shipped_labels, some_documents


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("gemma2")


@pytest.fixture(scope="module")
def sae(model):
    return tiny_dictionary(model)


@pytest.fixture(scope="module")
def walk(model, sae):
    return ln.walk(PROMPT, model=model, dictionary=sae, new_tokens=6)


@pytest.fixture
def shipped(tmp_path, monkeypatch, model, sae):
    """The tiny model as if it shipped with the package."""
    follow = next(int(i) for i in sae.statistics.max_activation.argsort(descending=True))
    tiny_assets(tmp_path, model, sae, follow)
    monkeypatch.setattr(lensing.registry, "ASSETS", tmp_path)
    monkeypatch.setattr(lensing.world.shipped, "ASSETS", tmp_path)
    monkeypatch.setattr(model.hf.config, "_name_or_path", str(tmp_path / model.name / "model"))
    monkeypatch.setattr(lensing.world.shipped, "DOUBT_WORDS", ("doubtful", "doubts"))
    monkeypatch.setattr(lensing.world.shipped, "TRUST_WORDS", ("certain", "trusts"))
    lensing.world.shipped.shipped_text.cache_clear()
    yield follow
    lensing.world.shipped.shipped_text.cache_clear()


def test_json_holds_what_the_design_promises(walk, sae):
    found = json.loads(json.dumps(walk.to_json(), allow_nan=False))
    for key in (
        "schema", "model", "dictionary", "prompt", "tokens", "vectors", "lens", "lead_layer", "unit", "latents",
        "splice", "steering", "ledger",
    ):  # fmt: skip
        assert key in found, key
    assert found["schema"] == 1
    assert found["dictionary"] == sae.id
    assert found["prompt"] == PROMPT
    n = len(found["tokens"])
    assert set(found["vectors"]) == {"embed", "resid_post.0", "resid_post.1", "resid_post.2"}
    assert {(len(v), len(v[0])) for v in found["vectors"].values()} == {(n, 32)}
    assert [len(row) for row in found["lens"]] == [10] * 4
    assert set(found["unit"]) >= {"site", "index", "kind", "top", "bottom"}
    keys = {"id", "label", "value", "max", "effect", "examples", "positive_logits", "negative_logits"}
    assert all(keys <= set(latent) for latent in found["latents"])
    assert set(found["splice"]) >= {"kl", "loss", "loss_spliced"}
    keys = {"strength", "share_of_norm", "table", "text", "coherence_cost", "se", "side_effect"}
    assert all(keys <= set(dose) for dose in found["steering"])
    assert [dose["strength"] for dose in found["steering"]] == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    assert all(set(row) >= {"token", "not_reconstructed", "corpus"} for row in found["ledger"])


def test_tokens_guesses_and_continuation_are_the_models(walk, model):
    assert [t.special for t in walk.tokens] == [True] + [False] * 7
    p = model.logits(PROMPT)[0, -1].softmax(-1)
    word, q = walk.lens.top(2)[0]
    assert word == model.tok_str(int(p.argmax()))[0]
    assert q == pytest.approx(float(p.max()), abs=1e-5)
    made = model.generate(PROMPT, max_new_tokens=6)
    assert walk.continuation == made.text[0]
    assert walk.text == f"{PROMPT}{made.text[0]}"


def test_splice_and_ledger_by_hand(walk, model, sae):
    b, tokens = walk.beyond, model.encode(PROMPT)
    logits, cache = model.run_with_cache(tokens, sites=[sae.site])
    x = cache[sae.site][0]
    x_hat = sae.reconstruct(x)
    with model.edit(Replace(sae.site, x_hat[None], include_special=False)):
        spliced = model.logits(tokens)
    p, q = (t[0].double().log_softmax(-1) for t in (logits, spliced))
    kl = (p.exp() * (p - q)).sum(-1)
    ids = tokens.ids[0]
    assert b.splice.kl == pytest.approx(float(kl[-1]), rel=1e-4)
    assert b.splice.kl_mean == pytest.approx(float(kl[1:].mean()), rel=1e-4)
    assert b.splice.loss == pytest.approx(-float(p[1:-1].gather(1, ids[2:, None]).mean()), rel=1e-4)
    assert b.splice.loss_spliced == pytest.approx(-float(q[1:-1].gather(1, ids[2:, None]).mean()), rel=1e-4)
    assert b.splice.words[0].id == int(p[-1].argmax())
    assert int(q[-1].argmax()) in [w.id for w in b.splice.words]
    for w in b.splice.words:
        assert w.word == model.tok_str(w.id)[0]
        assert w.before == pytest.approx(float(p[-1, w.id].exp()), abs=1e-5)
        assert w.after == pytest.approx(float(q[-1, w.id].exp()), abs=1e-5)
    missed = (x - x_hat).square().sum(-1)
    size = (x - sae.statistics.mean).square().sum(-1)
    assert b.ledger[0].not_reconstructed is None
    assert b.ledger[0].kl is None
    assert [e.not_reconstructed for e in b.ledger[1:]] == pytest.approx((missed / size)[1:].tolist(), rel=1e-4)
    assert [e.kl for e in b.ledger[1:]] == pytest.approx(kl[1:].tolist(), rel=1e-3, abs=1e-6)
    assert b.not_reconstructed == pytest.approx(float(missed[1:].sum() / size[1:].sum()), rel=1e-4)
    assert b.corpus == sae.statistics.fvu
    assert "does not say which concepts" in b.says
    assert "what resid_post.1 itself adds" not in b.says


def test_the_neuron_and_its_contexts(walk, model):
    n = walk.beyond.neuron
    _, cache = model.run_with_cache(PROMPT, sites=["mlp_post.1"])
    last = cache["mlp_post.1"][0, -1]
    assert (n.site, n.index) == ("mlp_post.1", int(last.abs().argmax()))
    assert n.value == pytest.approx(float(last[n.index]), rel=1e-4)
    rows = documents(model)
    _, cache = model.run_with_cache(rows, sites=["mlp_post.1"])
    column = cache["mlp_post.1"][:, 1:, n.index]
    assert n.top[0].value == pytest.approx(float(column.max()), rel=1e-4)
    assert n.bottom[0].value == pytest.approx(float(column.min()), rel=1e-4)
    assert (n.top[0].document, n.top[0].position - 1) == divmod(int(column.argmax()), column.shape[1])
    assert len(n.random) == len(n.others) == 5
    assert n.covers["positive"].rows == min(round(0.01 * column.numel()), int((column > 0).sum()))
    assert all(name.startswith("word.") for name in n.covers["positive"].names)


def test_latents_are_those_of_both_orders(walk, model, sae):
    b = walk.beyond
    by_effect = [e.latent for e in b.effects.by_effect() if e.kind == "latent"]
    assert b.latent == next(i for i in by_effect if sae.statistics.max_activation[i] > 0)
    assert b.follow == {"why": "largest effect on the next word"}
    assert {x.id for x in b.latents} == set(by_effect)  # six are active, all shown
    x = b.followed
    _, cache = model.run_with_cache(documents(model), sites=[sae.site])
    column = sae.encode(cache[sae.site][:, 1:]).dense()[:, x.id]
    assert x.examples[0].value == pytest.approx(float(column.max()), rel=1e-4)
    assert x.label is None
    assert x.density == pytest.approx(float(sae.statistics.density[x.id]))


def test_a_shipped_model_brings_its_dictionary_text_and_latent(shipped, model):
    found = ln.walk(PROMPT, model=model, new_tokens=4)
    b = found.beyond
    assert b.dictionary == f"{model.name}/resid_post.1/w64"
    assert b.latent == shipped
    assert b.follow["concept"] == "odd.yes"
    assert b.followed.label == "odd.yes"
    assert b.followed.f1 == 0.75
    assert b.labelled
    assert "true of the text" in b.says
    assert [d.name for d in b.steering.directions][1] == "difference of means"
    assert b.steering.watch == {"doubt": ("doubtful", "doubts"), "trust": ("certain", "trusts")}
    names = {name for c in (*b.neuron.covers.values(), *b.neuron.random) for name in c.names}
    assert all(name.partition(".")[0] in ("half", "odd", "word") for name in names)
    other = next(x.id for x in b.latents if x.id != shipped and x.max > 0)
    asked = ln.walk(PROMPT, model=model, latent=other, new_tokens=2).beyond
    assert asked.latent == other
    assert asked.follow == {"why": "as asked"}
    assert "difference of means" not in [d.name for d in asked.steering.directions]


def test_a_folder_of_the_same_name_does_not_ship(shipped, model, monkeypatch):
    monkeypatch.setattr(model.hf.config, "_name_or_path", "/elsewhere/tiny-gemma2")
    assert ln.walk(PROMPT, model=model, new_tokens=2).beyond is None


def test_labels_are_not_lent_to_another_dictionary(shipped, sae):
    own = ln.load_dictionary(sae.id)
    assert shipped_labels(own) is not None
    import dataclasses

    own.statistics = dataclasses.replace(own.statistics, fvu=0.123)
    assert shipped_labels(own) is None


def test_documents_are_spread_over_the_text(model):
    text = labelled_text(model)
    rows, places = some_documents(text, 4 * 21)
    assert len(rows) == 4
    assert [i for row in rows for i in row] == text.ids[places].tolist()
    first = [int(np.searchsorted(text.starts, places[n * 21])) for n in range(4)]
    assert first == [5, 11, 17, 23]
    assert len(some_documents(text, 10**9)[0]) == len(text)


def test_without_a_dictionary_three_beats_and_a_sentence(model):
    found = ln.walk(PROMPT, model=model, new_tokens=3)
    assert found.beyond is None
    assert found.missing.startswith(
        "Beats 4 to 9 need a dictionary: train one with `lensing train topk --model tiny-gemma2"
    )
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["dictionary"] is None
    assert plain["unit"] is None
    assert plain["latents"] == plain["ledger"] == plain["steering"] == []
    assert found.continuation == model.generate(PROMPT, max_new_tokens=3).text[0]


def test_text_of_your_own_and_a_sublayer(model):
    sae = tiny_dictionary(model, "mlp_out.2")
    found = ln.walk(PROMPT, model=model, dictionary=sae, new_tokens=2, text=["a bird sang by the river", "on monday"])
    b = found.beyond
    assert b.text == "the text given"
    assert b.text_tokens == 8
    assert "what mlp_out.2 itself adds" in b.says
    assert b.neuron.site == "mlp_post.2"


@pytest.mark.parametrize("site", ["embed", "attn_z.0", "mlp_post.1"])
def test_dictionaries_at_other_sites(model, site):
    sae = tiny_dictionary(model, site)
    b = ln.walk(PROMPT, model=model, dictionary=sae, new_tokens=2).beyond
    assert b.site == site
    assert bool(b.followed.positive_logits) == (site == "embed")


def test_a_long_prompt_ends_where_the_context_does(model, sae):
    words = ("the bird sang by " * 12).split()[: model.context - 3]
    found = ln.walk(" ".join(words), model=model, dictionary=sae, new_tokens=32)
    assert len(found.tokens) == model.context - 2
    assert found.beyond.steering.new_tokens == 3


def test_what_is_refused(model, sae, make_model):
    with pytest.raises(UnknownNameError, match="no latent named '64'"):
        ln.walk(PROMPT, model=model, dictionary=sae, latent=64)
    with pytest.raises(UsageError, match=f"Latent {SILENT} of .* was silent"):
        ln.walk(PROMPT, model=model, dictionary=sae, latent=SILENT)
    with pytest.raises(UsageError, match="Latent 3 belongs to no dictionary here"):
        ln.walk(PROMPT, model=model, latent=3)
    with pytest.raises(PromptError, match="'wikipedia' is not a word"):
        ln.walk("the reliability of wikipedia", model=model, dictionary=sae)
    with pytest.raises(UsageError, match="holds no word"):
        ln.walk([model.bos_id], model=model, dictionary=sae)
    with pytest.raises(UsageError, match="0 new tokens"):
        ln.walk(PROMPT, model=model, new_tokens=0)
    other = tiny_dictionary(model, "mlp_post.1")
    other.site = "resid_post.1"
    with pytest.raises(DictionaryError, match="reads vectors of 40 numbers"):
        ln.walk(PROMPT, model=model, dictionary=other)


def test_the_published_text_word_for_word(test_data):
    found = ln.walk("Once upon a time", model=str(test_data / "models" / "stories260K"), new_tokens=128)
    readme = (test_data / "data" / "README.md").read_text(encoding="utf-8")
    published = next(line for line in readme.splitlines() if line.startswith('"Once upon a time'))
    assert found.text.strip() == published.strip()[1:-1].replace("\\n", "\n")
    assert torch.isfinite(found.vectors["resid_post.4"]).all()
