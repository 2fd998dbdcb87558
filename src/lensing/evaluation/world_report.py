"""The shipped world's report: each section measured by itself, as plain values, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.evaluation.bars import COVERAGE_DECADE, MIDDLE, check
from lensing.evaluation.probe_report import ProbeReport, first_revision
from lensing.evaluation.probing import probe_models, probe_sites
from lensing.evaluation.triviality import TrivialityReport, senses, triviality
from lensing.model.run import Model
from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.almanac.weights import REGISTERS
from lensing.world.plan import frequencies
from lensing.world.sample import sample_document, split_of
from lensing.world.truth import Labelled


def pairs() -> dict[str, str]:
    """Plain word to Osk word, for every meaning whose plain word has no second sense."""
    homonyms, meanings = lexicon.homonyms(), [key.split(":")[1] for key in lexicon.OSK]
    return {
        plain: osk
        for (_, plain), osk in ((key.split(":"), osk) for key, osk in lexicon.OSK.items())
        if plain not in homonyms and meanings.count(plain) == 1
    }


def probes_section(
    model: Model,
    labelled: Labelled,
    snapshots: Mapping[str, Model] | None = None,
    fewer: Labelled | None = None,
    *,
    quiet: bool = True,
) -> dict[str, Any]:
    """Probe every concept at every layer, and at the middle layer for every snapshot (on `fewer` documents)."""
    report = probe_sites(model, labelled, quiet=quiet)
    planted = {name: f for name, f in frequencies().items() if f > 0}
    for row in report.rows:  # a concept that the sample never met is rarer than one token of it
        planted.setdefault(row.concept, 1e-6)
    by_revision: dict[str, ProbeReport] = (
        probe_models(snapshots, fewer or labelled, [MIDDLE], quiet=quiet) if snapshots else {}
    )
    first = first_revision(by_revision, MIDDLE) if by_revision else {}
    classes: dict[str, list[int]] = {}
    for concept, revision in first.items():
        classes.setdefault(concept.partition(".")[0], []).append(int(revision))
    return {
        "documents": report.documents,
        "tokens": report.tokens,
        "middle": MIDDLE,
        "min_auroc": report.min_auroc,
        "sites": [
            {
                "site": site,
                "tried": len(report.at(site)),
                "had": len(report.had(site)),
                "null_share": report.null_share(site),
                "null_beyond": report.null_beyond(site),
            }
            for site in report.sites
        ],
        "by_class": [g.to_json() for g in report.by_class(MIDDLE)],
        "by_decade": [g.to_json() for g in report.by_decade(MIDDLE, planted)],
        "missing": report.missing(MIDDLE),
        "refused": report.refused,
        "revisions": [
            {"revision": name, "tokens": int(name), "had": len(r.had(MIDDLE))} for name, r in by_revision.items()
        ],
        "first_revision": [
            {"cls": cls, "median_tokens": median(tokens), "concepts": len(tokens)}
            for cls, tokens in sorted(classes.items())
        ],
    }


def dictionary_section(
    model: Model,
    dictionary: Dictionary,
    labelled: Labelled,
    *,
    fit_on: Sequence[Sequence[int]] | None = None,
    random_fvu: float | None = None,
    senses_on: Labelled | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """What one dictionary shows beyond the words; `random_fvu` is that of an equal one on the random-weights model.

    Homonyms and translations are measured on `senses_on`, where given: they need words that are rare elsewhere.
    """
    told_here = pairs() if senses_on is None else None
    report = triviality(model, dictionary, labelled, pairs=told_here, fit_on=fit_on, quiet=quiet)
    statistics = dictionary.statistics
    two_senses, meanings = report.homonyms, report.translations
    if senses_on is not None:
        two_senses, meanings = senses(model, dictionary, senses_on, pairs=pairs())
    return {
        "id": dictionary.id,
        "site": str(dictionary.site),
        "width": dictionary.d_sae,
        "l0": None if statistics is None else statistics.l0,
        "fvu": report.fvu | {"random-weights model": random_fvu},
        "alive": report.detectors.alive,
        "word_detectors": report.detectors.share,
        "word_detectors_se": report.detectors.se,
        "single_word": report.detectors.share_one,
        "token_share": report.detectors.median_information,
        "homonyms": None
        if two_senses is None
        else {
            "share": two_senses.share,
            "se": two_senses.se,
            "confirmed": two_senses.confirmed,
            "null": two_senses.null,
            "pairs": len(two_senses.pairs),
        },
        "translations": None
        if meanings is None
        else {
            "share": meanings.share,
            "se": meanings.se,
            "share_shared": meanings.share_shared,
            "null": meanings.null,
            "meanings": len(meanings.meanings),
        },
        **units_section(report),
        "concept_classes": [
            {"cls": c.cls, "latents": c.latents, "share": c.share} for c in report.information.by_class()
        ],
    }


def units_section(report: TrivialityReport) -> dict[str, Any]:
    """How many concepts single units need, and how directions share the space."""
    return {
        "covers": [
            {"kind": c.kind, "units": len(c.needed), "median": c.median, "one": c.within(1), "five": c.within(5)}
            for c in report.covers
        ],
        "geometry": [
            {"kind": g.kind, "n": g.n, "d": g.d, "dimensionality": g.dimensionality, "interference": g.interference}
            for g in report.geometry
        ],
    }


def chosen(doubt: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of several dictionaries' latents of doubt, the one that its own choosing half ranks first; ties by strength."""
    return max(doubt, key=lambda d: (d["auroc_chosen_on"], d["p_steered"]))


def checks(
    *,
    d_model: int,
    floor: Mapping[str, Any] | None = None,
    probes: Mapping[str, Any] | None = None,
    dictionaries: Sequence[Mapping[str, Any]] = (),
    doubt: Sequence[Mapping[str, Any]] = (),
    megabytes: float | None = None,
) -> list[dict[str, Any]]:
    """Hold what was measured against the bars; of several dictionaries or sites, the best for what one may choose.

    Word detectors are held against their bar at the middle layer, where the worst dictionary counts.
    """
    found = []
    middle = next((s for s in probes["sites"] if s["site"] == MIDDLE), None) if probes else None
    found.append(
        check("concepts the model has at the middle layer, over d_model", middle["had"] / d_model if middle else None)
    )
    here = [d["word_detectors"] for d in dictionaries if d["site"] in (MIDDLE, "mlp_out.2")]
    found.append(check("share of latents that only detect a word, middle layer", max(here) if here else None))
    for name, key in (
        ("homonyms whose senses have different top latents", "homonyms"),
        ("meanings with the same latent in both languages", "translations"),
    ):
        shares = [d[key]["share"] for d in dictionaries if d[key] and d[key]["share"] is not None]
        found.append(check(name, max(shares) if shares else None))
    gaps = (
        [g["gap"] for part in ("by_register", "by_language", "by_position", "by_frequency") for g in floor[part]]
        if floor
        else []
    )
    found.append(check("gap to the reader's floor, nats a token, every group", max(gaps) if gaps else None))
    found.append(check("gap to the reader's floor, nats a token, all", floor["overall"]["gap"] if floor else None))
    skills = {s["skill"]: s["accuracy"] for s in floor["skills"]} if floor else {}
    found += [check(name, skills.get(name)) for name in ("copying", "calendar", "two-hop, combinations read")]
    recall = {r["decade"]: r["accuracy"] for r in floor["recall"]} if floor else {}
    found.append(check("recall of facts at 1e-5, the rarest of coverage", recall.get(COVERAGE_DECADE)))
    best = chosen(doubt) if doubt else None
    found.append(check("AUROC of the doubt latent on held-out documents", best["auroc"] if best else None))
    found.append(
        check("P(doubt) when the doubt latent is turned up, before babble", best["p_steered"] if best else None)
    )
    found.append(check("share of doubt that ablating few latents removes", best["ablation_closed"] if best else None))
    found.append(check("shipped files, MB", megabytes))
    return [c.to_json() for c in found]


def examples(each: int = 2) -> list[dict[str, Any]]:
    """Documents for a person to read: the first of each register among the test split's numbers."""
    found: dict[str, list[dict[str, Any]]] = {register: [] for register in REGISTERS}
    number = 0
    while any(len(some) < each for some in found.values()):
        if split_of(number) == "test":
            document = sample_document(almanac(), number)
            form = dict(document.draws)["form"]
            if len(found.get(form, ())) < each:
                found.setdefault(form, []).append({"number": number, "register": form, "text": document.text})
        number += 1
    return [some[i] for i in range(each) for some in found.values() if i < len(some)]
