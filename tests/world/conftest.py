"""A world small enough to enumerate: every document with its probability."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lensing.world.grammar import ConceptClass, Dist, Grammar, Literal, Slot, State, Theme, Variables, certain, uniform

VARIABLES = Variables(mood=None, name=None, sentences=0, cued=False)
NAMES = Dist({"Ann": 3, "Bob": 1})
WORD = {"glad": Dist({"well": 4, "ill": 1}), "sad": Dist({"well": 1, "ill": 5})}


def tiny_grammar() -> Grammar:
    put, get = VARIABLES.put, VARIABLES.getter
    theme = Theme("tiny")
    theme.slots["name"] = Slot(dist=lambda s: NAMES, then=lambda s, w: put(s, name=w), concept="name")
    theme.slots["word"] = Slot(dist=lambda s: WORD[get("mood")(s)])
    theme.slots["same"] = Slot(dist=lambda s: certain(get("name")(s)))
    theme.slots["either"] = Slot(dist=lambda s: uniform(("Ann", "Bob")))
    theme.effects["sadly"] = lambda s: put(s, mood="sad", cued=True)
    theme.classes["mood"] = ConceptClass(value=get("mood"), planted=Dist({"glad": 2, "sad": 1}), per="document")
    theme.classes["name"] = ConceptClass(value=get("name"), planted=NAMES, per="introduction")
    theme.say("is", "{name} is {word} .", lambda m: 0 if m.full else 3)
    theme.say("again", "{same} is {word} .", lambda m: 2 if m.named and not m.full else 0)
    theme.say("other", "{either} is here .", lambda m: 0 if m.full else 1)
    theme.say("cue", "alas {!sadly} .", lambda m: (2 if m.mood == "sad" else 1) if not m.full else 0)
    theme.say("end", "so <eos>", lambda m: 3 if m.sentences else 0, final=True)
    # a theme with a share of its own, which looks at what the menu does not
    aside = Theme("aside", share=lambda m: 0 if m.full else 2, sees={"name": get("name")})
    aside.say("hush", "hush .", lambda m: 1)
    aside.say("hey", "hey {same} .", lambda m: 3 if m.name else 0)
    return Grammar(
        variables=VARIABLES,
        hidden={"mood": Dist({"glad": 2, "sad": 1})},
        themes=[theme, aside],
        menu_names=("mood", "named", "sentences", "full"),
        menu_key=lambda s, n: (get("mood")(s), get("name")(s) is not None, get("sentences")(s), n > 12),
        boundary=lambda s: put(s, sentences=min(get("sentences")(s) + 1, 3)),
        words=("Ann", "Bob", "well", "ill"),
        max_tokens=24,
    )


def enumerate_documents(grammar: Grammar) -> Iterator[tuple[tuple[str, ...], float, list[tuple[Any, ...]]]]:
    """Every path of the generator: words, probability, and the hidden state after each word. Written apart from
    `filter.py` on purpose: it walks the generator forward and knows nothing of beliefs."""

    def sentences(words: tuple[str, ...], p: float, state: State, seen: list[State]) -> Iterator[Any]:
        for sentence, q in grammar.menu(state, len(words)).sentences():
            yield from parts(words, p * q, state, seen, sentence, 0)

    def parts(
        words: tuple[str, ...], p: float, state: State, seen: list[State], sentence: Any, i: int
    ) -> Iterator[Any]:
        if i == len(sentence.parts):
            if sentence.final:
                yield words, p, seen
            else:
                state = grammar.boundary(state)
                yield from sentences(words, p, state, [*seen[:-1], state])
            return
        part = sentence.parts[i]
        options = (
            [(part.word, 1.0)]
            if isinstance(part, Literal)
            else [(w, part.dist(state).p(w)) for w in part.dist(state).values]
        )
        for word, q in options:
            after = grammar.step(part, state, word)
            yield from parts((*words, word), p * q, after, [*seen, after], sentence, i + 1)

    for state, p in grammar.starts():
        yield from sentences(("<bos>",), p, state, [state])


@pytest.fixture(scope="session")
def tiny() -> Grammar:
    return tiny_grammar()


@pytest.fixture(scope="session")
def every(tiny: Grammar) -> list[tuple[tuple[str, ...], float, list[tuple[Any, ...]]]]:
    return list(enumerate_documents(tiny))
