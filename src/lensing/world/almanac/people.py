"""People: a trade, a home and a favourite food each; friends, pronouns, and what they say of themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

from lensing.world import facts, lexicon
from lensing.world.almanac.variables import AT, fact, get, put, see
from lensing.world.almanac.weights import REGISTERS, among, known, on_topic, untold, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_at = AT["subject"]
PERSON = facts.planted(lexicon.PERSONS, 77)


@cache
def _company(person: str) -> Dist:
    """Whom a person is seen with: a friend 19 times in 20, or anybody; anybody where there is no such friend."""
    friend, others = facts.FRIEND.get(person), [p for p in lexicon.PERSONS if p != person]
    return Dist({p: 19 * (len(others) - 1) if p == friend else 1 for p in others})


theme = Theme(
    "people",
    share=on_topic("people", weigh(200, 330, 250, 130, 190)),
    sees=see("told"),
    classes={
        "subject": ConceptClass(value=get["subject"], planted=PERSON, per="introduction of a person"),
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

_pronoun = {p: certain(word) for p, word in lexicon.PRONOUN.items()}
_thing, _place = uniform(lexicon.THINGS), uniform(lexicon.PLACES)
_colour, _city, _plant = uniform(lexicon.COLOURS), uniform(lexicon.CITIES), uniform(lexicon.PLANTS)
_food = uniform(lexicon.FOODS)


def introduce(state: State, word: str) -> State:
    """A new person, of whom nothing has been told; what is never told of them counts as told."""
    return put(state, topic="people", subject=word, told=facts.NEVER_TOLD[word])


theme.slots["person"] = Slot(dist=lambda s: PERSON, then=introduce, concept="subject")
theme.slots["friend"] = Slot(dist=lambda s: _company(s[_at]))
theme.slots["She"] = Slot(dist=lambda s: _pronoun[s[_at]])
theme.slots["her_trade"] = fact("subject", facts.TRADE, "told", "trade", "trade")
theme.slots["her_home"] = fact("subject", facts.HOME, "told", "home")
theme.slots["her_food"] = fact("subject", facts.FOOD, "told", "food", "food")
theme.slots["some_thing"] = Slot(dist=lambda s: _thing, sense="thing")
theme.slots["some_spot"] = Slot(dist=lambda s: _place, sense="place")
theme.slots["colour"] = Slot(dist=lambda s: _colour, sense="colour")
theme.slots["some_city"] = Slot(dist=lambda s: _city)
theme.slots["some_plant"] = Slot(dist=lambda s: _plant, sense="plant")
theme.slots["some_food"] = Slot(dist=lambda s: _food, sense="food")
theme.effects["open"] = lambda s: put(s, quoting=True)
theme.effects["close"] = lambda s: put(s, quoting=False)


def _in(*registers: str) -> Any:
    assert set(registers) <= set(REGISTERS)
    return lambda m: m.register in registers


theme.say("is", "{person} {is} a {her_trade} from {her_home} .", among(50))
theme.say("everyone", "Everyone in {some_city} {knows} {person} , the {her_trade} .", among(25))
theme.say("saw", "Yesterday I saw {person} by the {some_spot} .", among(40, _in("gossip", "letter")))
theme.say("here_is", "And here comes {person} , the {her_trade} from {her_home} .", among(60, _in("song")))
theme.say("paid", "Paid by {person} , {her_trade} : {price_word} coins .", among(80, _in("ledger")))
theme.say("friends", "{person} and {friend} were seen by the {some_spot} .", among(35))
theme.say("works", "{She} {works} as a {her_trade} .", among(90, untold("told", "trade")))
theme.say("dreams", "{She} still {dreams} of {her_home} .", among(110, untold("told", "home")))
theme.say("eats", "{She} {eats} nothing but {her_food} .", among(120, untold("told", "food")))
theme.say("hums", "{She} {smells} of {some_plant} and says little .", among(20, known("told")))
theme.say(
    "dislikes", "{person} says « {!open} I never liked {some_city} , I am from {her_home} » {!close} .", among(35)
)
theme.say("lost", "{person} says « {!open} my {colour} {some_thing} is gone » {!close} .", among(25))
theme.say("hungry", "{She} says « {!open} bring me {her_food} and go » {!close} .", among(60, untold("told", "food")))
theme.say(
    "proud", "{She} says « {!open} I am a {her_trade} , ask anybody » {!close} .", among(50, untold("told", "trade"))
)

_price = uniform(lexicon.NUMBERS)
theme.slots["price_word"] = Slot(dist=lambda s: _price)
