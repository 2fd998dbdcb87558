"""The state of a document in the Almanac's world, and what a sentence's weight may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lensing.world.almanac.weights import untold
from lensing.world.grammar import Slot, State, Theme, Variables, certain

VARIABLES = Variables(
    form=None,  # what the document is: a register, or "lost" (a letter whose writer loses faith), or "creature"
    register=None,  # encyclopaedia, gossip, letter, ledger, song
    stance=None,  # neutral, trusting, doubting: toward the document's source
    tense=None,  # past, present: of most verbs of this document
    cued=False,  # has the stance been shown
    source=None,  # the source this document speaks of, drawn when it is first named
    once=False,  # is it said how the source was once
    stage=0,  # how far a letter's faith has gone
    tongue="plain",  # plain, osk, or lately (the last sentence was in Osk)
    sentences=0,
    topic=None,  # the theme of the person, beast, town or thing that came last
    subject=None,  # the person that a pronoun means
    told=None,  # what has been said of that person already; None where nobody is meant
    beast=None,  # the beast that "it" means
    told_beast=None,
    city=None,  # the town being spoken of
    told_city=None,
    thing=None,  # the thing being spoken of
    told_thing=None,
    place=None,  # the country that "its people" means
    told_place=None,
    day=None,  # what day it is
    hour=None,  # what the clock struck
    said=None,  # what was promised or counted and has not been checked yet; (said, true) once it has
    number=None,  # a number of days or hours just spoken
    spot=None,  # where the thing being spoken of lies hidden
    items=(),  # the list that may be repeated
    at_item=0,  # position in the list being read, from 1
    copying=False,  # reading a list for the second time
    refrain=(),  # the words of a song's refrain
    quoting=False,  # inside a quotation
    word=None,  # the word just given whose name in Osk comes next
    odd=None,  # place in the tree of sayings
    time=None,  # the time of day that this sentence speaks of
)
put = VARIABLES.put
get = {name: VARIABLES.getter(name) for name in VARIABLES.names}
AT = VARIABLES.at

# What a document may be speaking of, one at a time, and what has been told of it.
_NOBODY = dict.fromkeys(
    (
        *("subject", "told", "beast", "told_beast", "city", "told_city"),
        *("thing", "told_thing", "place", "told_place", "spot"),
    )
)

MENU_NAMES = (
    "form",
    "register",
    "stance",
    "cued",
    "stage",
    "sentences",
    "full",
    "refrain",
    "source",
    "tongue",
    "topic",
)
FULL_AT = 190  # tokens after which a document may only close


def menu_key(state: State, n_tokens: int) -> tuple[Any, ...]:
    """What every weight may see: flags and small counts, no names."""
    return (
        state[AT["form"]],
        state[AT["register"]],
        state[AT["stance"]],
        state[AT["cued"]],
        state[AT["stage"]],
        state[AT["sentences"]],
        n_tokens > FULL_AT,
        bool(state[AT["refrain"]]),
        state[AT["source"]] is not None,
        state[AT["tongue"]],
        state[AT["topic"]],
    )


def begin(state: State) -> State:
    """Settle what follows from the form of the document."""
    form = state[AT["form"]]
    register = {"lost": "letter", "creature": "encyclopaedia"}.get(form, form)
    if form == "lost":
        return put(state, register=register, stance="trusting", cued=True, tense="present", source="Almanac")
    if form == "creature":
        return put(state, register=register, stance="neutral", tense="present")
    return put(state, register=register)


def boundary(state: State) -> State:
    """At a sentence's end: count it. Nothing is being listed, quoted or compared with former days any more;
    a letter that loses faith goes one step on."""
    tongue, stage = state[AT["tongue"]], state[AT["stage"]]
    if state[AT["form"]] == "lost" and state[AT["sentences"]]:
        stage += 1  # the opening is no step
    return put(
        state,
        tongue="lately" if tongue == "osk" else "plain",
        stage=stage,
        sentences=min(state[AT["sentences"]] + 1, 8),
        at_item=0,
        copying=False,
        quoting=False,
        once=False,
        odd=None,
        time=None,
    )


def turn_to(state: State, topic: str, **values: Any) -> State:
    """Something else is spoken of, and nothing else any more: "she", "it" and "the town" mean this from here on."""
    return put(state, **(_NOBODY | {"topic": topic} | values))


def tell_once(theme: Theme, told: str, name: str, text: str, weight: int) -> None:
    """A sentence about what is spoken of, said at most once while it is spoken of: `told` notes it by name."""
    theme.effects[f"did_{name}"] = lambda s: put(s, **{told: s[AT[told]] | {name}})
    theme.say(name, f"{text} {{!did_{name}}}", lambda m: weight if untold(told, name)(m) else 0)


def tensed(of: Mapping[Any, Sequence[str]], about: Callable[[State], Any]) -> Slot:
    """A verb that depends on what is spoken of: its present and past by `about(state)`, in the document's tense."""
    forms = {key: {"present": certain(now), "past": certain(then)} for key, (now, then) in of.items()}
    return Slot(dist=lambda s: forms[about(s)][s[AT["tense"]]])


def meaning(variable: str, word: str | Mapping[Any, str]) -> Slot:
    """A word that means what a variable names, without naming it."""
    if isinstance(word, str):
        fixed = certain(word)
        return Slot(dist=lambda s: fixed, refers=variable)
    words, at = {name: certain(w) for name, w in word.items()}, AT[variable]
    return Slot(dist=lambda s: words[s[at]], refers=variable)


def meant(variable: str) -> Callable[[Slot | None, State, str], Any]:
    """The value of a class of antecedents: what a word means, but for names, which say it themselves."""
    at = AT[variable]
    return lambda slot, state, word: state[at] if slot and slot.refers == variable and word != state[at] else None


def see(*names: str) -> dict[str, Callable[[State], Any]]:
    """What a theme's own choice looks at: some variables (never one that holds a name)."""
    return {name: get[name] for name in names}


def fact(about: str, table: dict[str, str], told: str, name: str, sense: str | None = None) -> Slot:
    """A slot that says the one true word about the variable `about`, and notes the fact as told."""
    at, t = AT[about], AT[told]
    words = {owner: certain(word) for owner, word in table.items()}
    return Slot(dist=lambda s: words[s[at]], then=lambda s, w: put(s, **{told: s[t] | {name}}), sense=sense)
