"""What is being served: one model, its dictionaries and their indexes, and where notes are kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor

from lensing.config import recorded_options
from lensing.data.identity import dictionary_digest, weights_digest
from lensing.db import Notes
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits, load_dictionary
from lensing.errors import DictionaryError, UnknownNameError, UsageError
from lensing.index.explain import METHOD, explain
from lensing.index.index import Index, open_index
from lensing.index.layout import NAME, read_facts
from lensing.index.meaning import Meaning
from lensing.ledger.audit import Ledger
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.registry import home, shipped_dictionaries, shipped_indexes
from lensing.server.jobs import Jobs
from lensing.walkthrough import DEFAULT
from lensing.world.shipped import shipped_labels, ships

CONCEPT = "agrees with the text's labels"


@final
@dataclass(eq=False)
class Specimen:
    """A dictionary that is served: its name in addresses, and its index where there is one."""

    name: str
    dictionary: Dictionary
    index: Index | None

    @cached_property
    def subject(self) -> str:
        """What notes on its latents are filed under."""
        return dictionary_digest(self.dictionary.weights() | self.dictionary.extra_tensors())

    @cached_property
    def known(self) -> dict[str, Any]:
        """What ships of its latents: labels, and the one to follow."""
        return shipped_labels(self.dictionary) or {}

    @cached_property
    def extra(self) -> dict[str, np.ndarray]:
        """Columns of the table that come from elsewhere than the index."""
        scores = np.full(self.dictionary.d_sae, np.nan)
        for number, label in self.known.get("latents", {}).items():
            scores[int(number)] = label["f1"]
        return {"label_f1": scores}

    def facts(self) -> dict[str, Any]:
        """What the page says of it."""
        d = self.dictionary
        return {
            "name": self.name, "site": str(d.site), "architecture": d.architecture, "d_sae": d.d_sae, "d_in": d.d_in,
            "indexed": self.index is not None, "wiring": "transcoder" if d.is_transcoder else "autoencoder",
            "text": self.index.facts.text if self.index else None,
            "statistics": d.statistics.facts() if d.statistics else None,
        }  # fmt: skip


@final
@dataclass(eq=False)
class House:
    """The model and everything that is known of it here."""

    model: Model
    notes: Notes
    runs: Path
    first: str | None = None
    jobs: Jobs = field(default_factory=Jobs)
    specimens: dict[str, Specimen] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    meaning: Meaning | None = None
    meanings: dict[str, tuple[list[int], Tensor]] = field(default_factory=dict)  # latents that have labels, and vectors
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def names(self) -> list[str]:
        """Names of all dictionaries, those that were asked for first."""
        shipped = (
            [n for n in shipped_dictionaries() if n.startswith(f"{self.model.name}/")] if ships(self.model) else []
        )
        return list(dict.fromkeys([*self.specimens, *shipped]))

    def specimen(self, name: str | None = None) -> Specimen:
        """Return a dictionary by name (the first one, if none is given), loaded when it is first asked for."""
        name = name or self.first
        if name is None:
            raise UsageError("No dictionary is served. Train one, then: lensing serve INDEX.")
        with self._lock:
            if name in self.specimens:
                return self.specimens[name]
            if name not in self.names:
                raise UnknownNameError("dictionary here", name, self.names)
            found = Specimen(name, load_dictionary(name, model=self.model), None)
            found.index = self._find_index(found)
            self.specimens[name] = found
        self._fill(found)
        return found

    def siblings(self, specimen: Specimen) -> list[str]:
        """Names of other seeds of a dictionary, and of dictionaries of its site and width that are served beside it."""
        base = specimen.name.partition("/seed")[0]
        seeds = [n for n in self.names if n != specimen.name and n.partition("/seed")[0] == base]
        d = specimen.dictionary
        beside = [
            n for n, other in self.specimens.items()
            if other is not specimen and str(other.dictionary.site) == str(d.site) and other.dictionary.d_sae == d.d_sae
        ]  # fmt: skip
        return list(dict.fromkeys([*seeds, *beside]))

    def indexed(self, name: str | None = None) -> tuple[Specimen, Index]:
        """Return a dictionary and its index; UsageError where none was built yet."""
        found = self.specimen(name)
        if found.index is None:
            raise UsageError(f"{found.name} has no index yet. Build it: the button on its page, or lensing index.")
        return found, found.index

    def adopt(self, specimen: Specimen) -> None:
        """Serve a dictionary under its name."""
        self.specimens[specimen.name] = specimen
        self.first = self.first or specimen.name
        self._fill(specimen)

    def home_of(self, specimen: Specimen) -> Path:
        """Where an index that the page builds is kept."""
        return home() / "indexes" / f"{specimen.subject}-{weights_digest(self.model)}"

    def _find_index(self, specimen: Specimen) -> Index | None:
        for folder in (shipped_indexes().get(specimen.name), self.home_of(specimen)):
            if folder is not None and (folder / NAME).is_file():
                index = open_index(folder)
                check_index(index, self.model, specimen.dictionary)
                return index
        return None

    def _fill(self, specimen: Specimen) -> None:
        """File the automatic labels of an index, and the concepts that ship, so that they can be searched."""
        if specimen.index is not None and self.notes.count(specimen.subject, METHOD) != specimen.dictionary.d_sae:
            self.notes.fill(specimen.subject, enumerate(explain(specimen.index)), method=METHOD)
        known = specimen.known.get("latents", {})
        concepts = {int(number): _concept(label["concept"]) for number, label in known.items()}
        if self.notes.count(specimen.subject, CONCEPT) != len(concepts):
            self.notes.fill(specimen.subject, concepts.items(), method=CONCEPT)


def _concept(name: str) -> str:
    """A concept's name as a person would say it: word “very”, stance doubting."""
    kind, _, value = name.partition(".")
    return f"{kind} “{value}”" if kind == "word" else f"{kind} {value}".replace("_", " ")


def check_index(index: Index, model: Model, dictionary: Dictionary) -> None:
    """Raise DictionaryError where an index was built for another model or dictionary, saying which."""
    made = {"model": index.facts.model, "dictionary": index.facts.dictionary}
    here = {
        "model": (model.name, weights_digest(model)),
        "dictionary": (
            dictionary.id or "the dictionary",
            dictionary_digest(dictionary.weights() | dictionary.extra_tensors()),
        ),
    }
    for what, (name, digest) in here.items():
        if made[what]["weights"] != digest:
            old = made[what].get("name") or made[what].get("id") or "another one"
            raise DictionaryError(
                f"The index {index.folder} was built for another {what}: {old} with weights {made[what]['weights']}, "
                f"and {name} has {digest}. Give the {what} it was built for (--{what}), or build it again."
            )


def open_house(
    folders: Sequence[Path] = (), *, model: str | None = None, dictionary: str | None = None, notes: Path | None = None,
    runs: Path = Path("runs"), embedding: str | None = None, allow_pickle: bool = False,
) -> House:  # fmt: skip
    """Load what is to be served: indexes or dictionaries by folder, else what ships.

    An index names its model and dictionary in its run.json; `model` and `dictionary` say where they lie now.

    Raises: LensingError: what cannot be read, or does not belong together.
    """
    plans = [_plan(folder, model, dictionary) for folder in folders]
    if not plans and dictionary is not None:
        plans = [(None, dictionary, model or recorded_options(dictionary).get("model"))]
    loaded: list[tuple[Index | None, Dictionary, str]] = []
    wanted = model
    for index, name, where in plans:
        sae = load_dictionary(name, allow_pickle=allow_pickle)
        wanted = wanted or where or sae.model_name
        loaded.append((index, sae, name))
    if plans and wanted is None:
        raise UsageError("The dictionary does not say which model it belongs to. Give --model.")
    house = House(
        load_model(wanted or "almanac", allow_pickle=allow_pickle), Notes(notes or home() / "notes.sqlite"), runs
    )
    if embedding is not None:
        house.meaning = Meaning(load_model(embedding, allow_pickle=allow_pickle))
    for index, sae, name in loaded:
        check_fits(sae, house.model)
        if index is not None:
            check_index(index, house.model, sae)
        specimen = Specimen(_name(sae, name, house), sae, index)
        if index is None:
            specimen.index = house._find_index(specimen)
        house.adopt(specimen)
    if house.first is None and ships(house.model):
        house.first = next((n for n in house.names if n.endswith(DEFAULT)), next(iter(house.names), None))
    return house


def _plan(folder: Path, model: str | None, dictionary: str | None) -> tuple[Index | None, str, str | None]:
    """An index (or None), where its dictionary lies, and where its model does."""
    if not folder.exists() and folder.as_posix() not in shipped_dictionaries():
        raise UsageError(f"There is no folder {folder}. Give an index that lensing index made, or a dictionary.")
    if not (folder / NAME).is_file():
        if (folder / "config.json").is_file() or not folder.is_dir():
            return None, dictionary or str(folder), model or recorded_options(folder).get("model")
        read_facts(folder)  # raises, and says what is missing
    index = open_index(folder)
    options = recorded_options(folder)
    name = dictionary or options.get("dictionary") or index.facts.dictionary["id"]
    if not name:
        raise UsageError(f"{folder} does not say where its dictionary lies. Give --dictionary.")
    where = model or options.get("model") or recorded_options(name).get("model")
    return index, str(name), where


def _name(sae: Dictionary, path: str, house: House) -> str:
    """A short name that no other dictionary here has."""
    name = sae.id or Path(path).name or str(sae.site)
    while name in house.specimens:
        name += "'"
    return name
