"""Towns and countries: single facts, and the two-hop sentence that some countries never get."""

from __future__ import annotations

from lensing.world import facts, lexicon
from lensing.world.almanac.variables import AT, fact, get, put, see
from lensing.world.almanac.weights import among, on_topic, untold, weigh
from lensing.world.grammar import ConceptClass, Slot, State, Theme, certain, uniform, zipf

COUNTRY = zipf(lexicon.COUNTRIES, 0.6)
CITY = facts.planted(lexicon.CITIES, 57)
theme = Theme(
    "places",
    share=on_topic("places", weigh(290, 90, 110, 90, 90)),
    sees=see("told_place", "told_city"),
    classes={
        "place": ConceptClass(value=get["place"], planted=COUNTRY, per="introduction of a country"),
        "city": ConceptClass(value=get["city"], planted=CITY, per="introduction of a town"),
    },
)

_country = AT["place"]
_river = {c: certain(facts.RIVER[facts.CAPITAL[c]]) for c in lexicon.COUNTRIES}
_seen = zipf([c for c in lexicon.COUNTRIES if c not in facts.UNSEEN], 0.6)
_adjective = uniform(lexicon.ADJECTIVES)


def _enter(state: State, word: str) -> State:
    return put(state, topic="places", place=word, told_place=frozenset())


def _arrive(state: State, word: str) -> State:
    return put(state, topic="places", city=word, told_city=facts.NEVER_TOLD[word])


theme.slots["country"] = Slot(dist=lambda s: COUNTRY, then=_enter, concept="place")
theme.slots["seen_country"] = Slot(dist=lambda s: _seen, then=_enter)
theme.slots["its_capital"] = fact("place", facts.CAPITAL, "told_place", "capital")
theme.slots["its_good"] = fact("place", facts.GOOD, "told_place", "good", "good")
theme.slots["its_capitals_river"] = Slot(dist=lambda s: _river[s[_country]])
theme.slots["city"] = Slot(dist=lambda s: CITY, then=_arrive, concept="city")
theme.slots["its_river"] = fact("city", facts.RIVER, "told_city", "river")
theme.slots["its_pride"] = fact("city", facts.PRIDE, "told_city", "pride", "place")
theme.slots["its_market"] = fact("city", facts.MARKET, "told_city", "market")
theme.slots["mood"] = Slot(dist=lambda s: _adjective, sense="adjective")


theme.say("capital", "The capital of {country} {is} {its_capital} .", among(50))
theme.say("two_hop", "The river of the capital of {seen_country} {is} the {its_capitals_river} .", among(60))
theme.say("known_for", "{country} {is} known for its {its_good} .", among(35))
theme.say("its_people", "Its people live by {its_good} and bad jokes .", among(70, untold("told_place", "good")))
theme.say(
    "its_capital", "Its capital , {its_capital} , {is} {mood} at night .", among(70, untold("told_place", "capital"))
)
theme.say("town", "{city} {stands} on the {its_river} .", among(90))
theme.say("streets", "The {mood} streets of {city} run down to the {its_river} .", among(50))
theme.say("far", "It {is} a long road to {city} , and a {mood} one .", among(50))
theme.say("boats", "Boats on the {its_river} bring its news .", among(80, untold("told_city", "river")))
theme.say("pride", "The town {is} proud of its {its_pride} .", among(110, untold("told_city", "pride")))
theme.say("market", "Its market falls on a {its_market} .", among(100, untold("told_city", "market")))
