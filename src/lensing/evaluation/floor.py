"""How close a model comes to the exact reader of the world it was trained on: loss against floor, facts, stance."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lensing.evaluation.skills import (
    SKILLS,
    Recall,
    Skill,
    Verdict,
    next_words,
    recall_by_decade,
    unseen_two_hop,
    verdicts,
)  # fmt: skip
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.world.filter import Reader, floors
from lensing.world.grammar import Grammar, Slot
from lensing.world.sample import Document, sample_document, split_of

DETERMINED = 0.999  # the exact reader gives the word at least this probability
FREQUENCIES = (1e-2, 1e-3, 1e-4, 0.0)
POSITIONS = (1, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Gap:
    """Loss and floor over a group of tokens, in nats a token; `gap` is their difference, `se` over documents."""

    group: str
    tokens: int
    loss: float
    floor: float
    gap: float
    se: float


@dataclass(frozen=True)
class FloorReport:
    """A model beside the exact reader, on held-out documents."""

    model: str
    documents: int
    tokens: int
    generator_entropy: float
    reader_entropy: float
    overall: Gap
    by_register: tuple[Gap, ...]
    by_language: tuple[Gap, ...]
    by_position: tuple[Gap, ...]
    by_frequency: tuple[Gap, ...]
    skills: tuple[Skill, ...]
    unseen_two_hop: Skill
    recall: tuple[Recall, ...]
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def floor_report(
    model: Model, grammar: Grammar, *, documents: int = 400, seed: int = 0, quiet: bool = False
) -> FloorReport:
    """Compare a model with the exact reader on held-out documents of its world.

    The gap is the mean of (model's surprisal - exact reader's surprisal) over the same tokens: an unbiased estimate of
    the KL divergence a token, with its standard error over documents. BOS is left out.
    """
    texts = held_out(grammar, documents, seed=seed)
    reader = Reader(grammar)
    names = {id(slot): name for theme in grammar.themes for name, slot in theme.slots.items()}
    skill_of = {slot: skill for skill, slots in SKILLS.items() for slot in slots}
    surprisals, best = next_words(model, [[reader.ids[w] for w in d.words] for d in texts])
    counts = np.zeros(len(reader.words))
    for document in texts:
        np.add.at(counts, [reader.ids[w] for w in document.words[1:]], 1)
    frequency = counts / counts.sum()
    rows: list[tuple[int, float, float, str, int, str, int]] = []
    tongue = grammar.variables.at["tongue"]
    right: dict[str, list[bool]] = {skill: [] for skill in SKILLS}
    entropies = np.zeros(2)
    with Meter("reading by the exact filter", total=len(texts), unit="documents", quiet=quiet) as meter:
        for number, document in enumerate(texts):
            found = floors(reader, document)
            entropies += found.reader.sum(), found.generator.sum()
            register = document.steps[-1].state[grammar.variables.at["register"]]
            for i, word in enumerate(document.words[1:]):
                step = document.steps[i + 1]
                after = document.steps[min(i + 2, len(document.steps) - 1)].state
                language = "Osk" if "osk" in (step.state[tongue], after[tongue]) else "plain"
                rows.append(
                    (number, surprisals[number][i], found.surprisal[i], register, reader.ids[word], language, i + 1)
                )
                part = step.sentence.parts[step.part] if step.sentence else None
                skill = skill_of.get(names[id(part)]) if isinstance(part, Slot) else None
                if skill and np.exp(-found.surprisal[i]) > DETERMINED:
                    right[skill].append(bool(best[number][i] == reader.ids[word]))
            meter.advance()
    of = np.array([r[0] for r in rows])
    loss, floor = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    register = np.array([r[3] for r in rows])
    share = frequency[[r[4] for r in rows]]
    language, position = np.array([r[5] for r in rows]), np.array([r[6] for r in rows])

    def gap(group: str, chosen: np.ndarray) -> Gap:
        difference = (loss - floor)[chosen]
        sums = np.bincount(of[chosen], weights=difference, minlength=len(texts))
        sizes = np.bincount(of[chosen], minlength=len(texts))
        mean = difference.mean()
        # Ratio estimator over documents: tokens of one document are not independent.
        se = np.sqrt(((sums - mean * sizes) ** 2).sum()) / chosen.sum()
        return Gap(
            group, int(chosen.sum()), float(loss[chosen].mean()), float(floor[chosen].mean()), float(mean), float(se)
        )

    upper, bands = np.inf, []
    for lower in FREQUENCIES:
        chosen = (share >= lower) & (share < upper)
        if chosen.any():
            name = (
                f"{lower:g} and above"
                if upper == np.inf
                else f"{lower:g} to {upper:g}"
                if lower
                else f"below {upper:g}"
            )
            bands.append(gap(name, chosen))
        upper = lower
    return FloorReport(
        model=model.name,
        documents=len(texts),
        tokens=len(rows),
        generator_entropy=float(entropies[1] / len(rows)),
        reader_entropy=float(entropies[0] / len(rows)),
        overall=gap("all", np.ones(len(rows), dtype=bool)),
        by_register=tuple(gap(r, register == r) for r in sorted(set(register))),
        by_language=tuple(gap(name, language == name) for name in sorted(set(language))),
        by_position=tuple(
            gap(f"position {a} to {b - 1}", (position >= a) & (position < b))
            for a, b in pairwise(POSITIONS)
            if ((position >= a) & (position < b)).any()
        ),
        by_frequency=tuple(bands),
        skills=tuple(Skill(s, len(v), float(np.mean(v)) if v else float("nan")) for s, v in right.items()),
        unseen_two_hop=unseen_two_hop(model, reader),
        recall=recall_by_decade(model),
        verdicts=tuple(verdicts(model, reader)),
    )


def held_out(grammar: Grammar, n: int, *, seed: int = 0, split: str = "test") -> list[Document]:
    """The first `n` documents of a split."""
    found, number = [], 0
    while len(found) < n:
        if split_of(number) == split:
            found.append(sample_document(grammar, number, seed=seed))
        number += 1
    return found
