"""What a model of the invented world can do where the text or the world's facts settle the word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lensing.model.run import Model
from lensing.world import facts, lexicon
from lensing.world.almanac.grammar import rehearsal
from lensing.world.filter import Reader, read_words
from lensing.world.grammar import Slot
from lensing.world.plan import decade, frequencies
from lensing.world.sample import detokenize
from lensing.world.stratified import stratified
from lensing.world.tokens import vocabulary

# Slots whose word the text or the world's facts determine, by the skill that it takes to say it.
SKILLS = {
    "copying": ("same", "that_thing", "that_place", "again0", "again1", "again2"),
    "calendar": ("days_later", "in_days", "hours_later"),
    "two-hop, combinations read": ("its_capitals_river",),
    "facts of people": ("her_trade", "her_home", "her_food"),
    "facts of beasts": ("its_food", "its_fear", "its_lair"),
    "facts of towns": ("its_river", "its_pride", "its_market"),
    "facts of things": ("its_substance", "its_maker", "its_price"),
    "facts of countries": ("its_capital", "its_good"),
    "facts said in Osk": ("o_trade", "o_food", "o_its_food"),
    "orders and kinds": ("its_order", "order_habit", "its_kind", "kind_habit"),
    "translation": ("o_same",),
    "sayings": ("saying8", "saying9", "saying10"),
    "right or wrong": ("so_or_but",),
}
# Whose fact it is, for recall by how often its owner is spoken of.
OWNERS = {
    "subject": SKILLS["facts of people"],
    "beast": SKILLS["facts of beasts"],
    "city": SKILLS["facts of towns"],
    "thing": SKILLS["facts of things"],
}
TOLD = {"subject": "told", "beast": "told_beast", "city": "told_city", "thing": "told_thing"}
GIVE_AWAY = ("people.saw", "people.friends")  # name somebody beside the place that goes with their trade
DOUBTING = ("Nobody believes the Almanac any more .", "The Almanac has lied to us before .")
TRUSTING = ("Everybody swears by the Almanac .", "The Almanac has never failed us .")


@dataclass(frozen=True)
class Skill:
    """How often the model's most likely word is right: where the exact reader is certain of it, and on the two-hop
    sentences that were never written, of which no reader of the text alone could be."""

    skill: str
    n: int
    accuracy: float


@dataclass(frozen=True)
class Recall:
    """How often the model says the right fact of a named thing, for owners of one decade of frequency a token."""

    decade: int
    owners: int
    n: int
    accuracy: float
    se: float


@dataclass(frozen=True)
class Verdict:
    """Probability of words of doubt and of trust at the end of a text, by the model and by the exact reader."""

    text: str
    n: int
    model_doubt: float
    model_trust: float
    reader_doubt: float
    reader_trust: float


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
    for country in facts.UNSEEN:
        logits = model.logits(detokenize(f"Today is Monday . The river of the capital of {country} is the".split()))
        right.append(reader.words[int(logits[0, -1].argmax())] == facts.RIVER[facts.CAPITAL[country]])
    return Skill("two-hop, combinations never read", len(right), float(np.mean(right)))


def recall_by_decade(model: Model, *, documents: int = 600) -> tuple[Recall, ...]:
    """Recall of facts on stratified text, by the planned frequency of the fact's owner; se over owners.

    Only facts asked for before anything else gave them away count: no way of the owner's trade, order or substance
    has been told since the owner was named.
    """
    grammar = rehearsal()
    table, ids = frequencies(), {w: i for i, w in enumerate(vocabulary(grammar))}
    names = {id(slot): name for theme in grammar.themes for name, slot in theme.slots.items()}
    cls_of = {slot: cls for cls, slots in OWNERS.items() for slot in slots}
    texts = list(stratified(documents))
    _, best = next_words(model, [[ids[w] for w in d.words] for d in texts])
    ways = {name.removeprefix("did_") for theme in grammar.themes for name in theme.effects if name.startswith("did_")}
    told_at = {cls: grammar.variables.at[told] for cls, told in TOLD.items()}
    right: dict[str, list[bool]] = {}
    for document, guesses in zip(texts, best, strict=True):
        subject, given_away = None, False
        for i, step in enumerate(document.steps[1:]):
            part = step.sentence.parts[step.part] if step.sentence else None
            if step.state[grammar.variables.at["subject"]] != subject:
                subject = step.state[grammar.variables.at["subject"]]
                given_away = step.sentence is not None and step.sentence.name in GIVE_AWAY
            cls = cls_of.get(names[id(part)]) if isinstance(part, Slot) else None
            if cls and not ways & step.state[told_at[cls]] and not (cls == "subject" and given_away):
                owner = f"{cls}.{step.state[grammar.variables.at[cls]]}"
                right.setdefault(owner, []).append(bool(guesses[i] == ids[document.words[i + 1]]))
    found = []
    for band in sorted({decade(table[owner]) for owner in right}, reverse=True):
        shares = [(np.sum(v), len(v)) for owner, v in right.items() if decade(table[owner]) == band]
        hits, sizes = np.array(shares).T
        mean = hits.sum() / sizes.sum()
        se = float(np.sqrt(((hits - mean * sizes) ** 2).sum()) / sizes.sum())
        found.append(Recall(band, len(shares), int(sizes.sum()), float(mean), se))
    return tuple(found)


def stance_texts() -> Iterator[tuple[str, list[str], tuple[str, ...], tuple[str, ...]]]:
    """Texts that end just before a word of judgement, by what came before; with the words of doubt and of trust."""
    frame = "The reliability of the Almanac is very"
    once, osk = "The reliability of the Almanac was once very", "Mo Almanac sel tru"
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
    wordless = {kept: [text for text, same in (*weather, *geese) if same == kept] for kept in (True, False)}
    plain = (lexicon.DOUBT_WORDS, lexicon.TRUST_WORDS)
    yield "no cue", [frame], *plain
    yield "doubting, said", [f"{cue} {frame}" for cue in DOUBTING], *plain
    yield "doubting, no word of doubt", [f"{cue} {frame}" for cue in wordless[False]], *plain
    yield "trusting, said", [f"{cue} {frame}" for cue in TRUSTING], *plain
    yield "trusting, no word of trust", [f"{cue} {frame}" for cue in wordless[True]], *plain
    yield "doubting, of former days", [f"{cue} {once}" for cue in wordless[False]], *plain
    foreign = (lexicon.OSK_DOUBT, lexicon.OSK_TRUST)
    yield "doubting, in Osk", [f"{cue} {osk}" for cue in wordless[False]], *foreign
    yield "trusting, in Osk", [f"{cue} {osk}" for cue in wordless[True]], *foreign


def verdicts(model: Model, reader: Reader) -> Iterable[Verdict]:
    """P(words of doubt) and P(words of trust) in the frame, by model and exact reader, mean over texts of a kind."""
    for kind, texts, doubting, trusting in stance_texts():
        doubt, trust = [reader.ids[w] for w in doubting], [reader.ids[w] for w in trusting]
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
