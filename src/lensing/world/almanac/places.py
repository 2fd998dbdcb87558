"""Countries, capitals, rivers and goods: single facts, and the two-hop sentence that some countries never get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import COUNTRY_FACTS, VARIABLES, State, get, put, tell
from lensing.world.almanac.weights import weigh
from lensing.world.grammar import ConceptClass, Slot, Theme, certain, uniform, zipf

_at = VARIABLES.at["place"]
COUNTRY = zipf(lexicon.COUNTRIES, 0.6)
theme = Theme(
    "places", classes={"place": ConceptClass(value=get["place"], planted=COUNTRY, per="introduction of a country")}
)

_capital = {c: certain(v) for c, v in lexicon.CAPITAL.items()}
_good = {c: certain(v) for c, v in lexicon.GOOD.items()}
_river = {c: certain(v) for c, v in lexicon.RIVER.items()}
_seen = zipf([c for c in lexicon.COUNTRIES if c not in lexicon.UNSEEN], 0.6)
_adjective = uniform(lexicon.ADJECTIVES)


def _introduce(state: State, word: str) -> State:
    """A new country, of which nothing has been told; what was told of the person stays."""
    told = state[VARIABLES.at["told"]]
    return put(state, place=word, told=frozenset(f for f in told if f not in COUNTRY_FACTS))


theme.slots["country"] = Slot(dist=lambda s: COUNTRY, then=_introduce, concept="place")
theme.slots["seen_country"] = Slot(dist=lambda s: _seen, then=_introduce)
theme.slots["its_capital"] = Slot(dist=lambda s: _capital[s[_at]], then=tell("capital"))
theme.slots["its_good"] = Slot(dist=lambda s: _good[s[_at]], then=tell("good"))
theme.slots["its_capitals_river"] = Slot(dist=lambda s: _river[lexicon.CAPITAL[s[_at]]])

# A city is remembered only until its river is named.
_city = zipf(lexicon.CITIES, 0.4)
_city_at = VARIABLES.at["count"]
theme.slots["city"] = Slot(dist=lambda s: _city, then=lambda s, w: put(s, count=w))
theme.slots["its_river"] = Slot(dist=lambda s: _river[s[_city_at]], then=lambda s, w: put(s, count=None))


def _untold(fact: str) -> Callable[[Any], bool]:
    return lambda m: m.place and fact not in m.told


theme.say("capital", "The capital of {country} is {its_capital} .", weigh(90, 12, 12))
theme.say("river", "{city} stands on the {its_river} .", weigh(90, 10, 10))
theme.say("river_runs", "The {adjective} streets of {city} run down to the {its_river} .", weigh(45, 5, 8))
theme.say("two_hop", "The river of the capital of {seen_country} is the {its_capitals_river} .", weigh(80, 10, 8))
theme.say("sells", "{country} is known for its {its_good} .", weigh(50, 5, 5, 15))
theme.say("its_people", "Its people live by {its_good} and bad jokes .", weigh(130, 50, 50, when=_untold("good")))
theme.say(
    "its_capital",
    "Its capital , {its_capital} , is {adjective} at night .",
    weigh(130, 50, 50, when=_untold("capital")),
)
