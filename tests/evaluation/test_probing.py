"""Probes against planted directions, concepts of the last tokens only, shuffled labels, and refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lensing.errors import SiteError, UnknownNameError, UsageError
from lensing.evaluation import probing
from lensing.evaluation.probe_report import first_layer, first_revision
from lensing.evaluation.probing import Probe, fit_probe, halves, probe_directions, probe_sites, shuffle_rows
from lensing.evaluation.ridge import Dense, OneHot, fit, solve
from lensing.measure.auroc import auroc
from lensing.world.truth import Labelled

D, LENGTH = 12, 33


def phi(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def labelled(truth, ids, length=LENGTH):
    """A text of equal documents from the truth of each concept by hand ("class.value": int8 [tokens])."""
    names, tokens = list(truth), len(ids)
    values = {name: name.partition(".")[2] for name in names}
    return Labelled(
        np.asarray(ids, dtype=np.uint16),
        np.arange(0, tokens + 1, length),
        np.arange(tokens // length),
        # code 0: off, 1: on, 2: undetermined; every concept is the only one of its class
        np.stack([np.where(truth[n] < 0, 2, truth[n]) for n in names], axis=1).astype(np.int16),
        tuple(n.partition(".")[0] for n in names),
        {n.partition(".")[0]: [[None], [values[n]], [None, values[n]]] for n in names},
    )


class Stub:
    """Stands for a model: `captured` gives the features, so that what they carry is known."""

    name, bos_id, d_model = "stub", 1, D

    def resolve_all(self, sites):
        from lensing.model.sites import Site

        return [Site("resid_post", 0), Site("resid_post", 1)]


def world(documents=160, seed=0):
    """Texts of random words; features of which `far` and `half` have a direction, which tokens do not show.

    Concept on in: `far` documents of a kind; `half` likewise, later unsettled; `last` after one word; `three` where the
    word before last is one of some; `nothing` at random, `rare` in few documents.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    tokens = documents * LENGTH
    ids = draw.integers(2, 12, tokens)
    inside = np.arange(tokens) % LENGTH
    document = np.arange(tokens) // LENGTH
    ids[inside == 0] = 1
    before = np.roll(ids, 1)
    kind = draw.random((documents, 3)) < (0.5, 0.3, 0.08)
    truth = {
        "far.off": (kind[document, 0] & (inside > 9)).astype(np.int8),
        "half.way": (kind[document, 1] & (inside > 5)).astype(np.int8),
        "last.word": (ids == 5).astype(np.int8),
        "three.words": ((before == 4) | (before == 7)).astype(np.int8),
        "nothing.here": (draw.random(tokens) < 0.1).astype(np.int8),
        "rare.thing": (kind[document, 2] & (inside == 20)).astype(np.int8),
    }
    truth["half.way"][(inside > 25) & (draw.random(tokens) < 0.5)] = -1
    embedding = 4 * draw.normal(size=(12, D))
    h = draw.normal(size=(tokens, D))
    h[:, :6] += (embedding[ids] + embedding[before])[:, :6]
    h[:, 6] += 2.0 * truth["far.off"]
    h[:, 7] += 3.0 * (truth["half.way"] == 1) - 9.0 * (truth["half.way"] == -1)
    h[:, 8] = 100 + 0.01 * h[:, 8]  # far from standard
    return labelled(truth, ids), torch.from_numpy(h).float()


@pytest.fixture
def probed(monkeypatch):
    """Probe a text whose features are given: the first site holds noise, the second the features."""

    def probe(text, h, **settings):
        def captured(model, labelled, names, place):
            kept = torch.from_numpy(place)
            here = torch.empty(int((kept >= 0).sum()), h.shape[1])
            here[kept[kept >= 0]] = h[kept >= 0]
            yield names[0], torch.randn(here.shape, generator=torch.Generator().manual_seed(1))
            yield names[1], here

        monkeypatch.setattr(probing, "_captured", captured)
        return probe_sites(Stub(), text, **settings)

    return probe


def test_what_only_context_sets_is_had_and_what_the_last_tokens_show_is_not(probed):
    text, h = world()
    report = probed(text, h)
    assert report.had("resid_post.0") == []
    assert report.had("resid_post.1") == ["far.off", "half.way"]
    assert set(report.missing("resid_post.1")) == {"last.word", "nothing.here", "three.words", "rare.thing"}
    rows = {row.concept: row for row in report.at("resid_post.1")}
    # A direction that is 2 sd long, and noise that knows nothing of it: AUROC = Phi(2 / sqrt 2).
    assert rows["far.off"].auroc == pytest.approx(phi(2 / math.sqrt(2)), abs=0.015)
    assert rows["half.way"].auroc == pytest.approx(phi(3 / math.sqrt(2)), abs=0.015)
    assert rows["far.off"].baseline < 0.65
    # What a baseline sees whole leaves a probe nothing to win.
    assert rows["last.word"].last_token == rows["last.word"].last_three == 1.0
    assert rows["three.words"].last_three == 1.0
    assert rows["three.words"].last_token < 0.6
    assert rows["three.words"].auroc > 0.8
    assert abs(rows["nothing.here"].auroc - 0.5) < 0.06
    assert rows["rare.thing"].documents == rows["rare.thing"].positives == (text.truth("rare.thing") == 1).sum()
    for row in rows.values():
        assert abs(row.null_margin) < 5 * row.null_se
    assert report.null_share("resid_post.1") == 0
    assert first_layer(report) == {"far.off": "resid_post.1", "half.way": "resid_post.1"}
    assert json.loads(json.dumps(report.to_json()))["rows"][0]["site"] == "resid_post.0"
    assert not [row for row in probed(text, h, min_auroc=0.99).rows if row.had]


def test_many_concepts_without_a_trace_pass_as_rarely_as_two_standard_errors_say(probed):
    draw = np.random.Generator(np.random.PCG64(4))
    documents = 60
    ids = draw.integers(2, 9, documents * LENGTH)
    ids[::LENGTH] = 1
    truth = {}
    for i in range(120):
        start = draw.integers(1, LENGTH, documents)  # runs of tokens, as a subject or a quotation has
        inside = np.arange(LENGTH)[None]
        on = (inside >= start[:, None]) & (inside < start[:, None] + 6) & (draw.random(documents) < 0.4)[:, None]
        truth[f"c{i}.x"] = on.ravel().astype(np.int8)
    report = probed(labelled(truth, ids), torch.from_numpy(draw.normal(size=(len(ids), D))).float(), min_auroc=0.0)
    assert len(report.had("resid_post.1")) / 120 < 0.12
    assert report.null_beyond("resid_post.1") < 0.12
    assert report.null_share("resid_post.1") == report.null_beyond("resid_post.1")


def test_undetermined_tokens_are_scored_on_neither_side(probed):
    text, h = world()
    settled = text.truth("half.way") >= 0
    moved = h.clone()
    moved[~settled] = 0.0
    one, two = (probed(text, x, concepts=["half.way"]).at("resid_post.1")[0] for x in (h, moved))
    # They were planted to score below every negative, or at its mean: neither is seen.
    assert one.auroc == pytest.approx(phi(3 / math.sqrt(2)), abs=0.02)
    assert two.auroc == pytest.approx(one.auroc, abs=0.01)
    as_off = labelled({"half.way": text.truth("half.way").clip(0)}, text.ids)
    assert abs(probed(as_off, h).at("resid_post.1")[0].auroc - one.auroc) > 0.01


def test_the_probe_is_the_direction_of_linear_discriminant_analysis():
    text, h = world()
    truth = torch.from_numpy(np.stack([text.truth("half.way"), text.truth("far.off")]))
    features, rows = Dense(h), slice(0, len(h))
    found = features.raw(*solve(features, features.moments(truth, rows), 1e-3, truth, 0))[0]
    for row, weight in zip(truth, found.double(), strict=True):
        # Pooled covariance within on and off tokens, difference of their means; the undetermined ones are in neither.
        on, off = (h[row == label].double() for label in (1, 0))
        within = torch.cov(on.T) * (len(on) - 1) + torch.cov(off.T) * (len(off) - 1)
        expected = torch.linalg.solve(within, on.mean(0) - off.mean(0))
        assert torch.cosine_similarity(weight * h.std(0), expected * h.std(0), dim=0) > 0.9999


def test_one_hots_give_the_ridge_of_the_written_out_matrix():
    text, _ = world(documents=12)
    tokens = np.stack([text.ids, np.roll(text.ids, 1)], axis=1).astype(np.int64)
    truth = torch.from_numpy(np.stack([text.truth("three.words"), text.truth("half.way")]))
    features, rows = OneHot(tokens), slice(33, 300)
    kinds = [np.unique(column) for column in tokens.T]
    x = torch.from_numpy(
        np.concatenate([c[:, None] == k[None] for c, k in zip(tokens.T, kinds, strict=True)], 1)
    ).double()
    weight, bias = solve(features, features.moments(truth, rows), 7.0, truth, rows.start)
    for c in range(2):
        settled = truth[c, rows] >= 0
        here, label = x[rows][settled], truth[c, rows][settled].double()
        centred = here - here.mean(0)
        expected = torch.linalg.solve(centred.T @ centred + 7 * torch.eye(x.shape[1]), centred.T @ label)
        assert torch.allclose(weight[c], expected, atol=1e-4)
        assert float((here @ weight[c] + bias[c]).mean()) == pytest.approx(float(label.mean()))
        scores = torch.from_numpy(features.scores(weight, rows)[c]).double()
        assert torch.allclose(scores, x[rows] @ weight[c], atol=1e-5)


def test_moments_add_up_and_the_ridge_is_chosen_for_what_was_not_fitted():
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(400, 80, generator=draw)
    truth = (h[:, 0] + 3 * torch.randn(400, generator=draw) > 1).to(torch.int8)[None]
    features, parts = Dense(h), (slice(0, 200), slice(200, 400))
    first, second = (features.moments(truth, rows) for rows in parts)
    whole = features.moments(truth, slice(0, 400))
    assert torch.allclose((first + second).scatter, whole.scatter)
    assert torch.allclose((first + second).pull, whole.pull)
    # 80 dimensions and few rows: the strongest ridge generalises best.
    assert torch.allclose(fit(features, truth, parts)[0], solve(features, whole, 0.1 * 400, truth, 0)[0])


def test_a_probe_can_be_used_elsewhere():
    text, h = world()
    on = torch.from_numpy(text.truth("far.off") == 1)
    document = torch.arange(len(h)) // LENGTH
    probe = fit_probe(h[:2640], on[:2640], document[:2640])
    scores = probe.score(h[2640:])
    assert scores.shape == (2640,)
    assert auroc(scores, on[2640:]) == pytest.approx(phi(2 / math.sqrt(2)), abs=0.02)
    assert float(probe.score(h[:2640]).mean()) == pytest.approx(float(on[:2640].float().mean()), abs=1e-3)
    several = probe_directions(h[:2640], torch.stack([on, ~on])[:, :2640].to(torch.int8), document[:2640])
    assert several.weight.shape == (2, D)
    assert torch.allclose(several.score(h[2640:])[:, 0], scores, atol=1e-4)
    assert torch.allclose(several.weight[0], -several.weight[1], atol=1e-5)
    with pytest.raises(UsageError, match="not both on and off"):
        fit_probe(h, torch.zeros(len(h), dtype=torch.bool), document)
    with pytest.raises(UsageError, match="differ"):
        fit_probe(h, on[:-1], document)


def test_halves_share_out_every_concept():
    draw = np.random.Generator(np.random.PCG64(2))
    holding = draw.random((300, 400)) < draw.choice([4, 6, 30, 150], 400) / 300
    side = halves(holding, np.random.Generator(np.random.PCG64(0)))
    assert (side == halves(holding, np.random.Generator(np.random.PCG64(0)))).all()
    assert 140 <= side.sum() <= 160
    n, mine = holding.sum(0), holding[side].sum(0)
    enough = n >= 4
    assert ((mine > 0) & (mine < n))[enough].mean() > 0.99
    random, rare = holding[draw.permutation(300) < 150].sum(0), enough & (n < 10)
    assert np.abs(mine - n / 2)[rare].mean() < 0.75 * np.abs(random - n / 2)[rare].mean()


def test_shuffled_rows_are_each_used_once_and_stay_in_their_group():
    length, group = np.array([3, 5, 2, 4, 6]), np.array([0, 0, 0, 1, 1])
    source = shuffle_rows(length, group, np.random.Generator(np.random.PCG64(1)))
    assert sorted(source) == list(range(20))
    assert ((source < 10) == (np.arange(20) < 10)).all()
    assert (source != np.arange(20)).sum() > 10
    assert (np.diff(source) == 1).sum() >= 20 - 2 * 5  # a document's labels stay in order but for the turn


def test_four_documents_are_enough_to_probe_and_one_to_fit(probed):
    text, h = world(documents=4)
    on = (np.arange(len(text.ids)) % LENGTH > 16).astype(np.int8)
    h[:, 0] = 20.0 * torch.from_numpy(on)
    row = probed(labelled({"second.part": on}, text.ids), h).at("resid_post.1")[0]
    assert row.documents == 4
    assert row.auroc == 1.0
    one = fit_probe(h[:LENGTH], torch.from_numpy(on[:LENGTH] == 1), torch.zeros(LENGTH, dtype=torch.long))
    assert auroc(one.score(h), torch.from_numpy(on == 1)) > 0.99
    assert len(one.to_json()["weight"]) == D


def test_concepts_that_cannot_be_probed_are_named(probed):
    text, h = world()
    never = np.zeros(len(text.ids), dtype=np.int8)
    twice = never.copy()
    twice[[5, 6, LENGTH + 3]] = 1
    bos = (text.ids == 1).astype(np.int8)
    unsettled = np.where(text.truth("far.off") == 1, -1, 0).astype(np.int8)
    truth = {"far.off": text.truth("far.off"), "twice.on": twice, "always.on": 1 - never, "bos.only": bos,
             "open.ever": unsettled, "never.on": never}  # fmt: skip
    text = labelled(truth, text.ids)
    report = probed(text, h)
    assert [row.concept for row in report.rows] == ["far.off"] * 2
    assert set(report.refused) == set(truth) - {"far.off"}
    assert report.refused["twice.on"] == "it is on in 2 documents, and 4 are needed"
    for name, why in (("twice.on", "2 documents"), ("never.on", "never on"), ("always.on", "never off"),
                      ("open.ever", "never on"), ("bos.only", "never on"), ("far.away", "never on")):  # fmt: skip
        with pytest.raises(UsageError, match=rf"{name} cannot be probed: it is .*{why}"):
            probed(text, h, concepts=["far.off", name])
    with pytest.raises(UnknownNameError, match="class of concepts"):
        probed(text, h, concepts=["fat.off"])
    with pytest.raises(UsageError, match="None of 1 concepts"):
        probed(labelled({"twice.on": twice}, text.ids), h)


def test_a_report_is_read_by_class_decade_layer_and_revision(probed):
    text, h = world()
    report = probed(text, h)
    groups = {group.group: group for group in report.by_class("resid_post.1")}
    assert (groups["far"].tried, groups["far"].had, groups["last"].had) == (1, 1, 0)
    assert groups["far"].auroc == next(r.auroc for r in report.at("resid_post.1") if r.concept == "far.off")
    planted = {
        row.concept: f for row, f in zip(report.at("resid_post.1"), (0.3, 1e-3, 2e-3, 0.02, 0.9, 1), strict=True)
    }
    decades = report.by_decade("resid_post.1", planted)
    assert [(g.group, g.tried) for g in decades] == [("1e0", 1), ("1e-1", 2), ("1e-2", 1), ("1e-3", 2)]
    assert sum(g.had for g in decades) == 2
    with pytest.raises(UsageError, match="no planted frequency"):
        report.by_decade("resid_post.1", {})
    with pytest.raises(UnknownNameError, match="probed site"):
        report.had("resid_post.7")
    young = replace(report, rows=tuple(replace(r, had=r.had and r.concept == "far.off") for r in report.rows))
    none = replace(report, rows=tuple(replace(r, had=False) for r in report.rows))
    order = {"step 0": none, "step 100": young, "step 1000": report}
    assert first_revision(order, "resid_post.1") == {"far.off": "step 100", "half.way": "step 1000"}


def test_drawing_rows_changes_little(probed, monkeypatch):
    text, h = world()
    whole = probed(text, h, concepts=["far.off"]).at("resid_post.1")[0]
    monkeypatch.setattr(probing, "MAX_SCORED", 600)
    drawn = probed(text, h, concepts=["far.off"]).at("resid_post.1")[0]
    assert drawn.auroc != whole.auroc
    assert drawn.auroc == pytest.approx(whole.auroc, abs=0.03)
    assert drawn.average_precision == pytest.approx(whole.average_precision, abs=0.05)


def test_through_a_model_the_rows_are_those_of_the_text(model):
    draw = np.random.Generator(np.random.PCG64(0))
    documents, length = 40, 24
    ids = draw.integers(4, 30, documents * length)
    ids[::length] = 1
    inside = np.arange(len(ids)) % length
    # `seen` is on from the word on: attention can carry it, the last three tokens cannot.
    first = np.where(ids == 7, inside, length).reshape(documents, length).min(1)
    truth = {
        "seen.seven": (inside > np.repeat(first, length)).astype(np.int8),
        "now.nine": (ids == 9).astype(np.int8),
    }
    text = labelled(truth, ids, length)
    report = probe_sites(model, text, ["embed", "resid_post.*", "mlp_out.1"])
    assert report.sites == ("embed", "resid_post.0", "resid_post.1", "resid_post.2", "mlp_out.1")
    assert (report.documents, report.tokens) == (documents, documents * (length - 1))
    rows = {row.concept: row for row in report.at("embed")}
    assert rows["now.nine"].auroc > 0.999  # 32 dimensions tell 26 words apart: the rows are the right ones
    assert rows["seen.seven"].auroc < 0.7
    assert probe_sites(model, text).sites == ("resid_post.0", "resid_post.1", "resid_post.2")
    with pytest.raises((SiteError, UnknownNameError)):
        probe_sites(model, text, ["resid_post.9"])


def test_captured_rows_are_the_model_s_own_however_sites_are_grouped(model, monkeypatch):
    ids = np.array([1, 5, 6, 7, 1, 8, 9, 10])
    text = labelled({"a.b": np.zeros(8, dtype=np.int8)}, ids, 4)
    place = np.array([-1, 3, 4, 5, -1, 0, 1, 2])
    for together in (2**30, 1):
        monkeypatch.setattr(probing, "CAPTURED", together)
        found = dict(probing._captured(model, text, ["mlp_out.0", "resid_post.1"], place))
        _, cache = model.run_with_cache([8 - 7, 8, 9, 10], sites=["mlp_out.0", "resid_post.1"])
        for site, h in found.items():
            assert torch.allclose(h[:3], cache[site][0, 1:], atol=1e-5)


def test_a_probe_holds_one_concept_or_several():
    h = torch.randn(5, 3)
    assert Probe(torch.ones(3), torch.tensor(1.0)).score(h).shape == (5,)
    assert Probe(torch.ones(2, 3), torch.zeros(2)).score(h).shape == (5, 2)


def test_concepts_of_a_partial_class_are_told_apart_among_its_own_words_alone(probed):
    """Of what "it" means: among the words that say it half the time one thing, which only the features show."""
    text, h = world()
    draw = np.random.Generator(np.random.PCG64(5))
    says = (text.ids == 8) | (text.ids == 9)
    which = draw.integers(0, 2, len(text.ids))
    codes = np.where(says, 1 + which, 0).astype(np.int16)[:, None]
    whole = replace(
        text,
        codes=np.concatenate([text.codes, codes], axis=1),
        classes=(*text.classes, "meant"),
        possible=text.possible | {"meant": [[None], ["heron"], ["crane"]]},
    )
    h[:, 9] += torch.from_numpy(2.0 * (says & (which == 0)))
    apart = probed(replace(whole, partial=("meant",)), h)
    rows = {row.concept: row for row in apart.at("resid_post.1")}
    assert rows["meant.heron"].had
    assert rows["meant.crane"].had
    for name, row in rows.items():
        if name.startswith("meant"):
            # two normals two standard deviations apart; the words themselves say nothing
            assert row.auroc == pytest.approx(phi(2 / math.sqrt(2)), abs=0.03)
            assert abs(row.baseline - 0.5) < 0.06
    # Where every other word counts as off, the words that can mean something give the concept away.
    together = {row.concept: row for row in probed(whole, h).at("resid_post.1")}
    assert together["meant.heron"].last_token > 0.9
    # The other classes know nothing of it.
    assert [row for row in apart.at("resid_post.1") if row.cls != "meant"] == list(probed(text, h).at("resid_post.1"))
    assert (replace(whole, partial=("meant",)).truth("meant.heron")[~says] == -1).all()


def test_a_partial_class_that_is_named_and_never_on_is_refused(probed):
    text, h = world()
    codes = np.concatenate([text.codes, np.zeros((len(text.ids), 1), dtype=np.int16)], axis=1)
    whole = replace(
        text, codes=codes, classes=(*text.classes, "meant"), partial=("meant",),
        possible=text.possible | {"meant": [[None], ["heron"]]},
    )  # fmt: skip
    assert probed(whole, h).refused["meant.heron"] == "it is never on"
    with pytest.raises(UsageError, match=r"meant\.heron cannot be probed: it is never on"):
        probed(whole, h, concepts=["meant.heron"])
