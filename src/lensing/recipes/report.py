"""The report on the shipped world: every section measured once and kept, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensing.dictionary.load import load_dictionary
from lensing.evaluation.doubt import doubt_report
from lensing.evaluation.floor import floor_report
from lensing.evaluation.letter import read_letter
from lensing.evaluation.triviality import text_fvu
from lensing.evaluation.world_report import checks, chosen, dictionary_section, examples, probes_section
from lensing.files import finite, write_json
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.recipes.seeds import seed_section
from lensing.recipes.wide import compare_widths, load_both
from lensing.registry import revisions
from lensing.world.almanac.grammar import almanac, bilingual
from lensing.world.corpus import Corpus
from lensing.world.stratified import stratified
from lensing.world.truth import Labelled, label_documents

# Of stratified text: all (what a pronoun means is on at few words, so that 100 positives of each take many documents),
# for the probes of snapshots, for dictionaries, and with much Osk in it for senses and translations.
DOCUMENTS, SNAPSHOT_DOCUMENTS, FEWER, SENSE_DOCUMENTS = 10_000, 2_000, 700, 3_000
FLOOR_DOCUMENTS = 400
TABLE_DOCUMENTS = 4_000  # of training text: what the token and bigram tables are fitted on


def stratified_text(path: Path) -> Labelled:
    """The labelled text in which every concept is met often, of the test split (made where it is missing)."""
    if not path.exists():
        label_documents(almanac(), stratified(DOCUMENTS), total=DOCUMENTS, quiet=False).save(path)
    return Labelled.load(path)


def senses_text(path: Path) -> Labelled:
    """The labelled text in which words of both languages and both senses of words are met often (made if missing)."""
    if not path.exists():
        documents = stratified(SENSE_DOCUMENTS, grammar=bilingual())
        label_documents(almanac(), documents, total=SENSE_DOCUMENTS, quiet=False).save(path)
    return Labelled.load(path)


def make_report(
    model: Model,
    path: Path,
    work: Path,
    corpus: Corpus,
    *,
    names: Sequence[str],
    seeds: Mapping[int, tuple[str | None, Path | str]],
) -> dict[str, Any]:
    """Measure everything that is not measured yet, hold it against the bars, and write one JSON file.

    `names` are the dictionaries that are held against it. Tables of tokens are fitted on documents of `corpus`; twins
    of the dictionaries, trained on the model with random weights, are looked for in the work folder's `random`.
    `seeds` gives the revision of each seed's model and the dictionary in which its latent of doubt is looked for.
    """
    text = stratified_text(work / "stratified.npz")
    fewer = text.first(FEWER)
    senses = senses_text(work / "senses.npz")
    snapshots = {name: load_model("almanac", revision=name) for name in revisions("almanac") if name.isdigit()}

    def kept(section: str, measure: Callable[[], Any]) -> Any:
        place = work / "report" / f"{section}.json"
        if not place.exists():
            print(f"measuring: {section}", flush=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, finite(measure()))
        return json.loads(place.read_text("utf-8"))

    fit_on = [np.asarray(corpus[i]).tolist() for i in range(min(TABLE_DOCUMENTS, len(corpus)))]

    def dictionary(name: str) -> dict[str, Any]:
        twin = work / "random" / Path(name).relative_to("almanac")
        fvu = None
        if (twin / "config.json").exists():
            untrained = load_model("almanac", revision="random")
            fvu = text_fvu(untrained, load_dictionary(twin, model=untrained), fewer)
        found = load_dictionary(name, model=model)
        return dictionary_section(model, found, fewer, fit_on=fit_on, random_fvu=fvu, senses_on=senses, quiet=False)

    floor = kept("floor", lambda: floor_report(model, almanac(), documents=FLOOR_DOCUMENTS).to_json())
    doubt = [kept(f"doubt-{name.replace('/', '-')}", lambda name=name: _doubt(model, name)) for name in names]
    best = chosen(doubt)
    letter = kept(
        "letter",
        lambda: read_letter(model, load_dictionary(best["dictionary"], model=model), best["latent"], fewer).to_json(),
    )
    probes = kept("probes", lambda: probes_section(model, text, snapshots, text.first(SNAPSHOT_DOCUMENTS), quiet=False))
    dictionaries = [kept(f"dictionary-{name.replace('/', '-')}", lambda name=name: dictionary(name)) for name in names]
    found = {
        "model": model.name,
        "bars": checks(
            d_model=model.d_model,
            floor=floor,
            probes=probes,
            dictionaries=dictionaries,
            doubt=doubt,
            megabytes=sum(p.stat().st_size for p in path.parent.rglob("*") if p.is_file()) / 1e6,
        ),
        "floor": floor,
        "probes": probes,
        "dictionaries": dictionaries,
        "doubt": doubt,
        "letter": letter,
        "seeds": [kept(f"seed{seed}", lambda seed=seed: _seed(seed, *seeds[seed])) for seed in seeds],
        "wide": kept(
            "wide", lambda: compare_widths(load_both(work / "wide"), fit_on, "almanac/train", fewer, work / "wide")
        )
        if (work / "wide" / "model" / "config.json").exists()
        else [],
        "examples": examples(),
    }
    write_json(path, finite(found))
    return found


def _doubt(model: Model, name: str) -> dict[str, Any]:
    return doubt_report(model, load_dictionary(name, model=model)).to_json()


def _seed(seed: int, revision: str | None, dictionary: Path | str) -> dict[str, Any]:
    model = load_model("almanac", revision=revision)
    return seed_section(model, seed, load_dictionary(dictionary, model=model))
