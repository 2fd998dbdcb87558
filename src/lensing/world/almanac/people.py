"""People: a trade, a home and a favourite food each, the ways of their trade, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from lensing.world import facts, habits, lexicon
from lensing.world.almanac.variables import AT, fact, get, meaning, meant, put, see, tell_once, tensed, turn_to
from lensing.world.almanac.weights import REGISTERS, among, known, on_topic, unknown, untold, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, uniform

_at, _time = AT["subject"], AT["time"]
PERSON = facts.planted(lexicon.PERSONS, 77)


@cache
def _company(person: str) -> Dist:
    """Whom a person is seen with: a friend 19 times in 20, or anybody; anybody where there is no such friend."""
    friend, others = facts.FRIEND.get(person), [p for p in lexicon.PERSONS if p != person]
    return Dist({p: 19 * (len(others) - 1) if p == friend else 1 for p in others})


theme = Theme(
    "people",
    share=on_topic("people", weigh(100, 165, 125, 65, 95)),
    sees=see("told"),
    classes={
        "subject": ConceptClass(value=get["subject"], planted=PERSON, per="introduction of a person"),
        "meant_person": ConceptClass(
            value=meant("subject"), planted=PERSON, per="word that means a person", of_word=True, partial=True
        ),
        "speaker": ConceptClass(value=lambda s: s[_at] if s[AT["quoting"]] else None, planted=PERSON, per="quotation"),
        "quotation": ConceptClass(
            value=lambda s: "open" if s[AT["quoting"]] else None, planted=Dist({"open": 1}), per="quotation"
        ),
        "pronoun": ConceptClass(
            value=lambda s: lexicon.PRONOUN[s[_at]] if s[_at] else None,
            planted=Dist({"She": 1, "He": 1}),
            per="introduction of a person",
        ),
    },
)

# A pronoun two times in three, else the name again.
_opening = {p: Dist({p: 1, word: 2}) for p, word in lexicon.PRONOUN.items()}
_inside = {p: Dist({p: 1, word.lower(): 2}) for p, word in lexicon.PRONOUN.items()}
_object = {p: Dist({p: 1, {"She": "her", "He": "him"}[word]: 2}) for p, word in lexicon.PRONOUN.items()}
_place = uniform(lexicon.PLACES)
_colour, _city, _plant = uniform(lexicon.COLOURS), uniform(lexicon.CITIES), uniform(lexicon.PLANTS)


def introduce(state: State, word: str) -> State:
    """A new person, of whom nothing has been told; what is never told of them counts as told."""
    return turn_to(state, "people", subject=word, told=facts.NEVER_TOLD[word])


def _way(table: Mapping[str, str], words: tuple[str, ...], sense: str) -> Slot:
    """A word that mostly goes with the person's trade."""
    usual = {person: habits.leaning(word, words) for person, word in table.items()}
    return Slot(dist=lambda s: usual[s[_at]], sense=sense)


theme.slots["person"] = Slot(dist=lambda s: PERSON, then=introduce, concept="subject")
theme.slots["friend"] = Slot(dist=lambda s: _company(s[_at]))
theme.slots["Who"] = Slot(dist=lambda s: _opening[s[_at]], refers="subject")
theme.slots["who"] = Slot(dist=lambda s: _inside[s[_at]], refers="subject")
theme.slots["whom"] = Slot(dist=lambda s: _object[s[_at]], refers="subject")
theme.slots["She"] = meaning("subject", lexicon.PRONOUN)
theme.slots["she"] = meaning("subject", {p: word.lower() for p, word in lexicon.PRONOUN.items()})
theme.slots["his"] = meaning("subject", {p: {"She": "her", "He": "his"}[w] for p, w in lexicon.PRONOUN.items()})
theme.slots["my"] = meaning("subject", "my")
theme.slots["gait"] = tensed(habits.GAIT, get["subject"])
theme.slots["her_trade"] = fact("subject", facts.TRADE, "told", "trade", "trade")
theme.slots["her_home"] = fact("subject", facts.HOME, "told", "home")
theme.slots["her_food"] = fact("subject", facts.FOOD, "told", "food", "food")
theme.slots["her_tool"] = _way(habits.OF_PERSON["tool"], lexicon.THINGS, "thing")
theme.slots["her_dress"] = _way(habits.OF_PERSON["dress"], habits.DRESSES, "thing")
theme.slots["her_colour"] = _way(habits.OF_PERSON["dress_colour"], lexicon.COLOURS, "colour")
_haunts = {key: habits.leaning(place, lexicon.PLACES) for key, place in habits.HAUNT.items()}
theme.slots["her_haunt"] = Slot(dist=lambda s: _haunts[facts.TRADE[s[_at]], s[_time] or "noon"], sense="place")
_times = uniform(lexicon.TIMES)
theme.slots["time"] = Slot(dist=lambda s: _times, then=lambda s, w: put(s, time=w))
theme.slots["some_spot"] = Slot(dist=lambda s: _place, sense="place")
theme.slots["colour"] = Slot(dist=lambda s: _colour, sense="colour")
theme.slots["some_city"] = Slot(dist=lambda s: _city)
theme.slots["some_plant"] = Slot(dist=lambda s: _plant, sense="plant")
theme.effects["open"] = lambda s: put(s, quoting=True)
theme.effects["close"] = lambda s: put(s, quoting=False)


def _in(*registers: str) -> Any:
    assert set(registers) <= set(REGISTERS)
    return lambda m: m.register in registers


_new, _again = unknown("told"), known("told")

# Somebody comes in; where somebody is spoken of already, seldom.
for weight, when in ((50, _new), (10, _again)):
    kind = "" if when is _new else "_too"
    theme.say(f"is{kind}", "{person} {is} a {her_trade} from {her_home} .", among(weight, when))
    theme.say(f"everyone{kind}", "Everyone in {some_city} {knows} {person} , the {her_trade} .", among(weight, when))
    theme.say(
        f"dislikes{kind}",
        "{person} says « {!open} I never liked {some_city} , I am from {her_home} » {!close} .",
        among(weight, when),
    )
theme.say("saw", "Yesterday I saw {person} by the {her_haunt} .", among(40, _in("gossip", "letter")))
theme.say("here_is", "And here comes {person} , the {her_trade} from {her_home} .", among(60, _in("song")))
theme.say("paid", "Paid by {person} , {her_trade} : {price_word} coins .", among(80, _in("ledger")))
theme.say("friends", "{person} and {friend} were seen by the {her_haunt} .", among(25))

# What is told of somebody once.
theme.say("works", "{Who} {works} as a {her_trade} .", among(90, untold("told", "trade")))
theme.say("dreams", "{Who} still {dreams} of {her_home} .", among(110, untold("told", "home")))
theme.say("eats", "{Who} {eats} nothing but {her_food} .", among(120, untold("told", "food")))
theme.say("hungry", "{Who} says « {!open} bring me {her_food} and go » {!close} .", among(60, untold("told", "food")))
theme.say(
    "proud", "{Who} says « {!open} I am a {her_trade} , ask anybody » {!close} .", among(50, untold("told", "trade"))
)

# The ways of the trade: nearly every word hangs on who it is, or on that and the time of day.
for name, text, weight in (
    ("walks", "At {time} {who} {gait} to the {her_haunt} with {his} {her_tool} .", 90),
    ("waits", "{She} {gait} past the {her_haunt} , {his} {her_tool} under one arm .", 70),
    ("wears", "Nobody {knows} why {she} {gait} about in {his} {her_colour} {her_dress} at {time} .", 60),
    ("visit", "Look for {whom} at {time} in the {her_haunt} , where {she} {gait} about alone .", 60),
    ("hums", "{She} {gait} by and {smells} of {some_plant} , {his} {her_dress} in one hand .", 30),
    ("lost", "{Who} says « {!open} {my} {her_colour} {her_dress} is gone » {!close} .", 50),
    ("left", "« {!open} Look in the {her_haunt} , I left {my} {her_tool} there » {!close} , says {who} .", 70),
    ("lend", "« {!open} Give me {my} {her_tool} and {my} {her_dress} » {!close} , says {who} , and means it .", 50),
):
    tell_once(theme, "told", name, text, weight)

_price = uniform(lexicon.NUMBERS)
theme.slots["price_word"] = Slot(dist=lambda s: _price)
