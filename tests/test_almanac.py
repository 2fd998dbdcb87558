"""The shipped model, dictionaries and labels: what the README says of them, measured again on fresh text."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.causal.ablate import smallest_set
from lensing.causal.dose import dose_response
from lensing.evaluation.bars import BARS, check
from lensing.evaluation.contrast import contrast, gather
from lensing.evaluation.floor import floor_report
from lensing.evaluation.letter import read_letter
from lensing.files import sha256
from lensing.recipes.almanac import FOLLOWED, HOME, SITES, WIDTHS
from lensing.recipes.ladder import rungs
from lensing.registry import shipped_dictionaries
from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.filter import Reader
from lensing.world.sample import sample_document
from lensing.world.stratified import stratified
from lensing.world.tokens import build_tokenizer, vocabulary
from lensing.world.truth import label_documents

LABELLED = [f"{site}/w{width}" for site in SITES for width in WIDTHS]
BARE = "The reliability of the Almanac is very"
DEFAULT = "almanac/resid_post.5/w1024"


@pytest.fixture(scope="module")
def model() -> ln.Model:
    return ln.load_model("almanac")


@pytest.fixture(scope="module")
def followed() -> int:
    return json.loads((HOME / "dictionaries/resid_post.5/w1024/labels.json").read_text())["follow"][FOLLOWED]["latent"]


def ids(words: tuple[str, ...]) -> list[int]:
    table = {w: i for i, w in enumerate(vocabulary(almanac()))}
    return [table[w] for w in words]


def test_every_shipped_file_is_recorded_and_all_are_small() -> None:
    record = json.loads((HOME / "recipe.json").read_text())
    files = {str(p.relative_to(HOME)) for p in HOME.rglob("*") if p.is_file() and p.name != "recipe.json"}
    assert files == set(record["sha256"])
    assert all(sha256(HOME / name) == digest for name, digest in record["sha256"].items())
    # as the wheel holds them, which is what people fetch
    assert sum(len(zlib.compress((HOME / name).read_bytes())) for name in files) < 30e6
    labelled = {f"almanac/{name}" for name in LABELLED}
    assert set(shipped_dictionaries()) == labelled | {f"almanac/{name}" for name in rungs()}
    d_vocab = len(vocabulary(almanac()))
    assert min(WIDTHS) < d_vocab < max(WIDTHS)


def test_plain_transformers_loads_the_folder(model: ln.Model) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = AutoModelForCausalLM.from_pretrained(HOME / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(HOME / "model")
    batch = tokenizer(BARE, return_tensors="pt")
    with torch.no_grad():
        expected = plain(batch["input_ids"]).logits
    found = model.logits(BARE)
    assert torch.equal(found, expected)
    assert tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True) == BARE


def test_the_shipped_tokenizer_is_the_worlds() -> None:
    shipped = json.loads((HOME / "model/tokenizer.json").read_text())
    assert shipped == json.loads(build_tokenizer(almanac()).to_str())


def test_the_model_reads_almost_as_well_as_can_be_read(model: ln.Model) -> None:
    report = floor_report(model, almanac(), documents=60, quiet=True)
    for gap in (report.overall, *report.by_register, *report.by_frequency):
        assert gap.gap - 2 * gap.se < 0.15, gap
    assert report.overall.gap < 0.15
    assert report.generator_entropy < report.reader_entropy
    for skill in report.skills:
        if skill.skill in (
            "copying", "calendar", "two-hop, combinations read", "facts of people", "facts of towns", "right or wrong"
        ):  # fmt: skip
            assert skill.accuracy > 0.9, skill
    recall = {r.decade: r.accuracy for r in report.recall}
    assert min(recall[-2], recall[-3], recall[-4]) > 0.9
    assert recall[-6] < recall[-5] < recall[-4]  # what is rarer is known less
    bare, doubt_said, doubt_shown, trust_said, trust_shown, former, *in_osk = report.verdicts
    assert bare.model_doubt == pytest.approx(bare.reader_doubt, abs=0.05)
    assert bare.reader_doubt == pytest.approx(0.137, abs=0.02)
    assert min(doubt_said.model_doubt, doubt_shown.model_doubt, trust_said.model_trust, trust_shown.model_trust) > 0.9
    assert former.model_trust > 0.4  # who doubts a source now trusted it once (0.95 for the reader): half learnt
    assert [v.text for v in in_osk] == ["doubting, in Osk", "trusting, in Osk"]


def test_the_report_says_what_it_measured_against_the_bars() -> None:
    report = json.loads((HOME / "report.json").read_text())
    assert {c["bar"]["name"] for c in report["bars"]} == set(BARS)
    for c in report["bars"]:
        bar = BARS[c["bar"]["name"]]
        assert c["bar"] == {"name": bar.name, "relation": bar.relation, "value": bar.value}
        assert c["met"] == (None if c["measured"] is None else check(bar.name, c["measured"]).met)
    assert {d["id"] for d in report["dictionaries"]} == {f"almanac/{name}" for name in LABELLED}


def test_dictionaries_say_how_good_they_are(model: ln.Model) -> None:
    for name in shipped_dictionaries():
        dictionary = ln.load_dictionary(name, model=model)
        facts = dictionary.statistics
        assert facts is not None
        assert 0 < facts.fvu < 0.35, (name, facts.fvu)
        assert 8 < facts.l0 < 32, (name, facts.l0)
        assert facts.n > 50_000
        # whole numbers of at most seven bits round a decoder row's length by up to a hundredth
        assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(dictionary.d_sae), atol=1e-2)


def test_codes_do_not_flip_against_float32(model: ln.Model, tmp_path: Path) -> None:
    """What is stored in one or two bytes a weight gives the codes of the same weights in four, bit for bit, and those
    of float64 but where a pre-activation lies on the threshold."""
    documents = [ids(sample_document(almanac(), n, seed=3).words) for n in range(12)]
    rows: dict[str, torch.Tensor] = {}
    for name in shipped_dictionaries():
        stored = ln.load_dictionary(name, model=model)
        site = str(stored.site)
        if site not in rows:
            rows[site] = gather(model, site, documents, "all")[0].float()
        stored.save(tmp_path / name, dtype=torch.float32)
        wide = ln.load_dictionary(tmp_path / name)
        x, a = rows[site], stored.encode(rows[site])
        b = wide.encode(x)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.value, b.value)
        # ReLU has no threshold; JumpReLU has one for each latent
        floor = getattr(stored, "threshold", torch.zeros(1)).detach().double().clamp(min=0.0)
        centre = stored.b_dec.double() if stored.centred else 0.0
        pre = (x.double() - centre) @ stored.W_enc.double() + stored.b_enc.double()
        near = (pre - floor).abs() < 1e-5 * pre.abs().amax()
        assert torch.equal((a.dense() > 0) | near, (pre > floor) | near)
        assert near.double().mean() < 1e-4


def test_the_doubt_latent_is_found_again_on_fresh_text(model: ln.Model, followed: int) -> None:
    """A world of another seed: found by a contrast of texts, before the word of judgement, with no number given."""
    texts: dict[str, list[list[int]]] = {"doubting": [], "neutral": []}
    cued = almanac().variables.at["cued"]
    for stance, found in texts.items():
        number = 0
        while len(found) < 60:
            document = sample_document(almanac(), number, seed=77, fixed={"stance": stance})
            number += 1
            ends = [
                i
                for i, w in enumerate(document.words)
                if w == "very" and document.steps[i].state[cued] == (stance == "doubting")
            ]
            if ends:
                found.append(ids(document.words[: ends[-1] + 1]))
    dictionary = ln.load_dictionary(DEFAULT, model=model)
    result = contrast(model, dictionary, texts["doubting"], texts["neutral"])
    assert result.best.auroc >= 0.95
    assert result.best.average_precision > 0.9
    assert result.null.mean < 0.7
    assert followed in [s.latent for s in result.latents]


def test_steering_makes_the_model_doubt_before_it_babbles(model: ln.Model, followed: int) -> None:
    dictionary = ln.load_dictionary(DEFAULT, model=model)
    words = vocabulary(almanac())
    watch = {"doubt": [words.index(w) for w in lexicon.DOUBT_WORDS]}
    doses = dose_response(model, dictionary, followed, BARE, strengths=(0, 1, 2, 2.5, 3), watch=watch).doses
    assert doses[0].watched["doubt"] < 0.2
    calm = [d for d in doses if d.coherence_cost < 1.0]
    assert max(d.watched["doubt"] for d in calm) > 0.8


def test_reader_and_model_share_one_vocabulary(model: ln.Model) -> None:
    assert model.d_vocab == len(Reader(almanac()).words)
    p = model.logits(BARE)[0, -1].double().softmax(-1).numpy()
    assert np.isclose(p.sum(), 1)


def test_removing_few_latents_removes_much_of_the_doubt(model: ln.Model) -> None:
    dictionary = ln.load_dictionary(DEFAULT, model=model)
    words = vocabulary(almanac())
    doubt = [words.index(w) for w in lexicon.DOUBT_WORDS]
    text = f"Nobody believes the Almanac any more. {BARE}"
    found = smallest_set(model, dictionary, text, BARE, doubt)
    assert len(found.latents) <= 3
    assert found.closed >= 0.5


def test_the_letter_of_lost_faith_is_read_line_by_line(model: ln.Model, followed: int) -> None:
    dictionary = ln.load_dictionary(DEFAULT, model=model)
    labelled = label_documents(almanac(), stratified(90))
    letter = read_letter(model, dictionary, followed, labelled, number=1)
    assert len(letter.lines) == 11
    assert list(dict.fromkeys(line.stance for line in letter.lines)) == [
        "not settled", "trusting", "neutral", "doubting"
    ]  # fmt: skip
    judged = [line for line in letter.lines if line.p_doubt is not None]
    assert [line.stance for line in judged] == ["trusting", "neutral", "doubting", "doubting"]
    first, _, third, former = judged
    assert third.p_doubt > 0.5 > first.p_doubt
    assert former.p_trust > 0.5  # what it once was
    assert third.latent > first.latent
