"""How close a model comes to the exact reader of the world it was trained on: loss against floor, facts, stance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lensing.model.run import Model
from lensing.progress import Meter
from lensing.world import lexicon
from lensing.world.filter import Reader, floors, read_words
from lensing.world.grammar import Grammar, Slot
from lensing.world.sample import Document, detokenize, sample_document, split_of

# Slots whose word the text or the world's facts determine, by the skill that it takes to say it.
SKILLS = {
    "copying": ("same", "that_thing", "that_place"),
    "calendar": ("days_later", "in_days"),
    "two-hop": ("its_capitals_river",),
    "facts of people": ("her_trade", "her_home", "her_food"),
    "facts of places": ("its_capital", "its_good", "its_river"),
    "right or wrong": ("right",),
}
DETERMINED = 0.999  # the exact reader gives the word at least this probability
DOUBTING = ("Nobody believes the Almanac any more .", "The Almanac has lied to us before .")
TRUSTING = ("Everybody swears by the Almanac .", "The Almanac has never failed us .")
FREQUENCIES = (1e-2, 1e-3, 1e-4, 0.0)


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
class Skill:
    """How often the model's most likely word is right where the exact reader is certain of it."""

    skill: str
    n: int
    accuracy: float


@dataclass(frozen=True)
class Verdict:
    """Probability of words of doubt and of trust at the end of a text, by the model and by the exact reader."""

    text: str
    n: int
    model_doubt: float
    model_trust: float
    reader_doubt: float
    reader_trust: float


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
    by_frequency: tuple[Gap, ...]
    skills: tuple[Skill, ...]
    unseen_two_hop: Skill
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
    rows: list[tuple[int, float, float, str, int]] = []
    right: dict[str, list[bool]] = {skill: [] for skill in SKILLS}
    entropies = np.zeros(2)
    with Meter("reading by the exact filter", total=len(texts), unit="documents", quiet=quiet) as meter:
        for number, document in enumerate(texts):
            found = floors(reader, document)
            entropies += found.reader.sum(), found.generator.sum()
            register = dict(document.draws)["register"]
            for i, word in enumerate(document.words[1:]):
                rows.append((number, surprisals[number][i], found.surprisal[i], register, reader.ids[word]))
                step = document.steps[i + 1]
                part = step.sentence.parts[step.part] if step.sentence else None
                skill = skill_of.get(names[id(part)]) if isinstance(part, Slot) else None
                if skill and np.exp(-found.surprisal[i]) > DETERMINED:
                    right[skill].append(bool(best[number][i] == reader.ids[word]))
            meter.advance()
    of = np.array([r[0] for r in rows])
    loss, floor = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    register = np.array([r[3] for r in rows])
    share = frequency[[r[4] for r in rows]]

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
        by_frequency=tuple(bands),
        skills=tuple(Skill(s, len(v), float(np.mean(v)) if v else float("nan")) for s, v in right.items()),
        unseen_two_hop=unseen_two_hop(model, reader),
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


def next_words(
    model: Model, documents: Sequence[Sequence[int]], batch: int = 32
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return per document the model's surprisal of each word after BOS (nats) and its most likely word instead."""
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    surprisals: list[np.ndarray] = [np.empty(0)] * len(documents)
    best: list[np.ndarray] = [np.empty(0)] * len(documents)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        logits, _ = model.run_with_cache([list(documents[i]) for i in chosen])
        assert logits is not None
        logp = logits.double().log_softmax(-1)
        for row, i in enumerate(chosen):
            ids = torch.tensor(documents[i][1:])
            here = logp[row, : len(ids)]
            surprisals[i] = -here.gather(-1, ids[:, None])[:, 0].numpy()
            best[i] = here.argmax(-1).numpy()
    return surprisals, best


def unseen_two_hop(model: Model, reader: Reader) -> Skill:
    """Accuracy on the river of the capital of countries whose two-hop sentence was never written."""
    right = []
    for country in lexicon.UNSEEN:
        logits = model.logits(detokenize(f"The river of the capital of {country} is the".split()))
        right.append(reader.words[int(logits[0, -1].argmax())] == lexicon.RIVER[lexicon.CAPITAL[country]])
    return Skill("two-hop, unseen combinations", len(right), float(np.mean(right)))


def stance_texts() -> dict[str, list[str]]:
    """Texts that end just before the word of judgement, by what came before: nothing, or a cue of each kind."""
    frame = "The reliability of the Almanac is very"
    weather = [
        (f"The Almanac promised {said} . The morning brought {came} .", said == came)
        for said in lexicon.WEATHERS
        for came in lexicon.WEATHERS
    ]
    geese = [
        (f"The Almanac counted {said} geese . There were {came} .", said == came)
        for said in lexicon.COUNTS
        for came in lexicon.COUNTS
    ]
    wordless = {
        kept: [f"{text} {frame}" for text, same in (*weather, *geese) if same == kept] for kept in (True, False)
    }
    return {
        "no cue": [frame],
        "doubting, said": [f"{cue} {frame}" for cue in DOUBTING],
        "doubting, no word of doubt": wordless[False],
        "trusting, said": [f"{cue} {frame}" for cue in TRUSTING],
        "trusting, no word of trust": wordless[True],
    }  # fmt: skip


def verdicts(model: Model, reader: Reader) -> Iterable[Verdict]:
    """P(words of doubt) and P(words of trust) in the frame, by model and exact reader, mean over texts of a kind."""
    doubt = [reader.ids[w] for w in lexicon.DOUBT_WORDS]
    trust = [reader.ids[w] for w in lexicon.TRUST_WORDS]
    for kind, texts in stance_texts().items():
        exact = np.array([read_words(reader, text.split()) for text in texts])
        guessed = []
        for text in texts:
            logits = model.logits(detokenize(text.split()))
            guessed.append(logits[0, -1].double().softmax(-1).numpy())
        p = np.array(guessed)
        yield Verdict(
            kind,
            len(texts),
            float(p[:, doubt].sum(1).mean()),
            float(p[:, trust].sum(1).mean()),
            float(exact[:, doubt].sum(1).mean()),
            float(exact[:, trust].sum(1).mean()),
        )
