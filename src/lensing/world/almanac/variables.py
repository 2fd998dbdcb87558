"""The state of a document in the Almanac's world, and what a sentence's weight may look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lensing.world.grammar import State, Variables

VARIABLES = Variables(
    register=None,  # encyclopaedia, gossip, letter, ledger
    stance=None,  # neutral, trusting, doubting: toward the document's source
    cued=False,  # has the stance been shown
    source=None,  # the source this document speaks of, drawn when it is first named
    sentences=0,
    subject=None,  # the person that a pronoun means
    told=frozenset(),  # what has been said of the person and the country already
    place=None,  # the country that "its people" means
    day=None,  # what day it is
    forecast=None,  # a weather that was promised and has not come yet
    count=None,  # a number that the source gave and nobody has checked yet
    hidden=None,  # (thing, place): where something lies hidden
    items=(),  # the list that may be repeated
    at_item=0,  # position in the list being read, from 1
    copying=False,  # reading a list for the second time
    quoting=False,  # inside a quotation
)
put = VARIABLES.put
get = {name: VARIABLES.getter(name) for name in VARIABLES.names}
_AT = VARIABLES.at

MENU_NAMES = (
    "register", "stance", "cued", "sentences", "subject", "place", "day", "hidden", "items", "full", "told",
)  # fmt: skip
COUNTRY_FACTS = ("good", "capital")
FULL_AT = 190  # tokens after which a document may only close


def menu_key(state: State, n_tokens: int) -> tuple[Any, ...]:
    """What the weights may see: flags and small counts, no names."""
    return (
        state[_AT["register"]],
        state[_AT["stance"]],
        state[_AT["cued"]],
        min(state[_AT["sentences"]], 8),
        state[_AT["subject"]] is not None,
        state[_AT["place"]] is not None,
        state[_AT["day"]] is not None,
        state[_AT["hidden"]] is not None,
        len(state[_AT["items"]]),
        n_tokens > FULL_AT,
        state[_AT["told"]],
    )


def boundary(state: State) -> State:
    """At a sentence's end: count it; nothing is being listed or quoted any more."""
    return put(state, sentences=min(state[_AT["sentences"]] + 1, 8), at_item=0, copying=False, quoting=False)


def tell(*facts: str, subject: bool = False) -> Callable[..., State]:
    """Return an effect that notes facts as told; with `subject` the drawn word becomes the person, told nothing yet."""
    told = frozenset(facts)

    def effect(state: State, word: str | None = None) -> State:
        before = state[_AT["told"]]
        if subject:
            return put(state, subject=word, told=frozenset(f for f in before if f in COUNTRY_FACTS))
        return put(state, told=before | told)

    return effect
