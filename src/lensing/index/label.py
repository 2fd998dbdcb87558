"""Label latents with a language model: ask it what marked contexts have in common, then how well that predicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

from lensing.db import Notes
from lensing.dictionary.base import Dictionary
from lensing.errors import LensingError, UsageError
from lensing.index.endpoint import Asker
from lensing.index.index import Index
from lensing.index.score import Kind, Score, Silent, halves, marked, score, shown
from lensing.model.run import Model
from lensing.progress import Meter

LONGEST = 300  # characters of an explanation
SYSTEM = (
    "You look at a feature of a language model. You are shown texts in which it fires, the words where it fires "
    "strongly marked <<so>>, and words that it makes likelier. Say in one short phrase what the feature stands for. "
    "Answer with one line: EXPLANATION: and the phrase."
)


@final
@dataclass
class Labelled:
    """What came of labelling: how many labels were made, how many were there, which failed and why."""

    made: int = 0
    there: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    scores: list[Score] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"scores": [s.to_json() for s in self.scores]}


def label(
    model: Model,
    dictionary: Dictionary,
    index: Index,
    notes: Notes,
    subject: str,
    asker: Asker,
    *,
    latents: Iterable[int] | None = None,
    kinds: Sequence[Kind] = ("detection",),
    n: int = 20,
    seed: int = 0,
    quiet: bool = False,
) -> Labelled:
    """Ask a language model what each latent stands for, score the answer, and file it in the notes.

    A latent that it labelled before is left alone, so that the same call again tries only those that failed. One that
    cannot be labelled does not stop the rest. The control of a score is the explanation of the latent before.
    """
    chosen = list(range(index.d_sae) if latents is None else latents)
    wrong = [i for i in chosen if not 0 <= i < index.d_sae]
    if wrong:
        raise UsageError(f"There is no latent {wrong[0]} in {index!r}. Give 0 to {index.d_sae - 1}.")
    method = f"explained{f', {kinds[0]}' if kinds else ''}"
    done = Labelled()
    silent = Silent(model, dictionary, index, seed=seed) if kinds else None
    before: str | None = None
    with Meter("labelling", total=len(chosen), unit="latents", quiet=quiet) as meter:
        for i in chosen:
            old = [x for x in notes.labels(subject, i) if x.method == method and x.by == asker.name]
            if old:
                done.there, before = done.there + 1, old[0].text
                meter.advance()
                continue
            try:
                text = explain_with(index, i, asker)
                scores = []
                if silent is not None:
                    scores = [
                        score(index, silent, i, text, asker, kind=kind, n=n, control=before, seed=seed)
                        for kind in kinds
                    ]
                first = scores[0] if scores else None
                notes.add_label(
                    subject, i, text, method=method, by=asker.name, score=first and first.accuracy, n=first and first.n
                )
                done.made, before = done.made + 1, text
                done.scores += scores
            except LensingError as error:
                done.failed[i] = str(error)
            meter.advance(note=f"{len(done.failed)} failed" if done.failed else "")
    return done


def explain_with(index: Index, latent: int, asker: Asker) -> str:
    """Ask for an explanation of one latent, from half of its contexts.

    Raises: UsageError: a latent without contexts. LensingError: no answer, or one without an explanation.
    """
    examples = halves(index, latent)[0]
    if not examples:
        raise UsageError(f"Latent {latent} never fires on this text. Index a longer one.")
    lines = "\n".join(f"{i}. {marked(*shown(e))}" for i, e in enumerate(examples, 1))
    words = ", ".join(word.strip() for word, value in index.latent(latent).promoted if value > 0 and word.strip())
    answer = asker.ask(SYSTEM, f"{lines}\n\nWords that it makes likelier: {words or 'not known'}")
    found = re.search(r"EXPLANATION\s*\]?\s*:\s*(.+)", answer, re.IGNORECASE)
    text = " ".join((found.group(1) if found else "").split()).strip(" .\"'*")
    if not text:
        raise LensingError(f"{asker.name} answered about latent {latent} without an explanation. Try another model.")
    return text[:LONGEST]
