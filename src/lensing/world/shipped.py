"""What ships beside the model: labelled text to look for contexts in, and what is known of each latent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lensing.errors import FileFormatError
from lensing.registry import ASSETS, shipped_dictionaries, shipped_models
from lensing.world.almanac.grammar import almanac
from lensing.world.filter import Possible
from lensing.world.lexicon import DOUBT_WORDS, TRUST_WORDS
from lensing.world.truth import Labelled

# Sentences to begin with: one word in two senses, one thing in the world's two languages, and who tells them apart.
SENSES = ("In the pantry there is a broom", "She wanders by and smells of broom")
TRANSLATION = ("I saw a bunting", "Un jurva")
PAIRED = "almanac/resid_post.2/w1024"


def ships(model: Any) -> bool:
    """Whether a loaded model is the one inside the package, and not a folder of the same name."""
    home = shipped_models().get(model.name)
    return home is not None and str(home) == str(getattr(model.hf.config, "_name_or_path", ""))


@cache
def shipped_text(model_name: str) -> Labelled | None:
    """Return the labelled text that ships with a model, None where there is none."""
    path = ASSETS / model_name / "text.npz"
    if "/" in model_name or not path.is_file():
        return None
    try:
        return Labelled.load(path)
    except (ValueError, KeyError, OSError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Install the package again.") from error


def shipped_labels(dictionary: Any) -> dict[str, Any] | None:
    """Return the labels that ship beside a dictionary, None for one that does not ship (or has none)."""
    folder = shipped_dictionaries().get(str(dictionary.id))
    if folder is None or not (folder / "labels.json").is_file() or dictionary.statistics is None:
        return None
    try:
        # one that somebody trained under a shipped one's id has other statistics, and these labels are not its own
        if json.loads((folder / "config.json").read_text("utf-8"))["statistics"] != dictionary.statistics.facts():
            return None
        return json.loads((folder / "labels.json").read_text("utf-8"))
    except (ValueError, KeyError) as error:
        raise FileFormatError(f"{folder / 'labels.json'} is corrupt: {error}. Install the package again.") from error


@dataclass(frozen=True)
class StoredReport:
    """What was measured of a shipped model when it was made: sections of plain values."""

    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return self.values


def shipped_report(model_name: str) -> StoredReport | None:
    """Return the report that ships with a model, None where there is none."""
    path = ASSETS / model_name / "report.json"
    if "/" in model_name or not path.is_file():
        return None
    try:
        return StoredReport(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise FileFormatError(f"{path} is corrupt: {error}. Install the package again.") from error


@dataclass(frozen=True)
class Aids:
    """What is known of a shipped dictionary's followed latent, and what steering on the invented world is judged by.

    `latent` and `vector` (the difference of means it was found with) are None where none was found; `watch` holds the
    ids of words of doubt and of trust; `impossible` tells the share of words that no document of the world could hold.
    """

    latent: int | None
    vector: list[float] | None
    watch: dict[str, list[int]]
    impossible: Callable[[list[int], list[int]], float]


def steering_aids(model: Any, dictionary: Any) -> Aids | None:
    """Return what ships for steering this dictionary on this model, None where either is not a shipped one."""
    known = shipped_labels(dictionary)
    if known is None or not ships(model):
        return None
    record = next(iter(known["follow"].values()), {})
    kinds = {"doubt": DOUBT_WORDS, "trust": TRUST_WORDS}
    watch = {name: model.encode(" ".join(words), bos=False).ids[0].tolist() for name, words in kinds.items()}
    possible = Possible(almanac())
    return Aids(record.get("latent"), record.get("difference_of_means"), watch, possible.impossible_share)


def some_documents(text: Labelled, tokens: int) -> tuple[list[list[int]], np.ndarray]:
    """Return documents spread evenly over a text, of about `tokens` tokens, and the place of each of their tokens."""
    lengths = np.diff(text.starts)
    share = min(tokens / max(int(lengths.sum()), 1), 1.0)
    # a document is taken whenever the running share passes a whole number
    steps = np.floor(np.arange(1, len(lengths) + 1) * share + 1e-9)
    chosen = np.flatnonzero(np.diff(steps, prepend=0.0) > 0)
    spans = [np.arange(text.starts[i], text.starts[i + 1]) for i in chosen]
    return [text.ids[span].tolist() for span in spans], np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
