"""People: a trade, a home and a favourite food each; pronouns; quotations; things hidden and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import VARIABLES, get, put, tell
from lensing.world.almanac.weights import weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, Theme, certain, uniform, zipf

_at = VARIABLES.at["subject"]
_hidden = VARIABLES.at["hidden"]
PERSON = zipf(lexicon.PERSONS, 0.5)
theme = Theme(
    "people",
    classes={
        "subject": ConceptClass(value=get["subject"], planted=PERSON, per="introduction of a person"),
        "quotation": ConceptClass(
            value=lambda s: "open" if get["quoting"](s) else None, planted=Dist({"open": 1}), per="quotation"
        ),
        "hidden": ConceptClass(
            value=lambda s: "somewhere" if s[_hidden] else None, planted=Dist({"somewhere": 1}), per="hiding"
        ),
    },
)

_trade, _home, _food, _pronoun = (
    {p: certain(fact[p]) for p in lexicon.PERSONS}
    for fact in (lexicon.TRADE, lexicon.HOME, lexicon.FOOD, lexicon.PRONOUN)
)
_thing, _place, _beast = uniform(lexicon.THINGS), uniform(lexicon.PLACES), zipf(lexicon.BEASTS, 0.7)
_plant, _verb, _colour, _food_any = (
    uniform(lexicon.PLANTS), uniform(lexicon.VERBS), uniform(lexicon.COLOURS), uniform(lexicon.FOODS),
)  # fmt: skip
_cities = uniform(lexicon.CITIES)

theme.slots["person"] = Slot(dist=lambda s: PERSON, then=tell(subject=True), concept="subject")
theme.slots["She"] = Slot(dist=lambda s: _pronoun[s[_at]])
theme.slots["her_trade"] = Slot(dist=lambda s: _trade[s[_at]], then=tell("trade"))
theme.slots["her_home"] = Slot(dist=lambda s: _home[s[_at]], then=tell("home"))
theme.slots["her_food"] = Slot(dist=lambda s: _food[s[_at]], then=tell("food"))
theme.slots["thing"] = Slot(dist=lambda s: _thing)
theme.slots["spot"] = Slot(dist=lambda s: _place)
theme.slots["beast"] = Slot(dist=lambda s: _beast)
theme.slots["plant"] = Slot(dist=lambda s: _plant)
theme.slots["does"] = Slot(dist=lambda s: _verb)
theme.slots["colour"] = Slot(dist=lambda s: _colour)
theme.slots["some_food"] = Slot(dist=lambda s: _food_any)
theme.slots["some_city"] = Slot(dist=lambda s: _cities)
theme.slots["hidden_thing"] = Slot(dist=lambda s: _thing, then=lambda s, w: put(s, hidden=(w, None)))
theme.slots["hiding_place"] = Slot(dist=lambda s: _place, then=lambda s, w: put(s, hidden=(s[_hidden][0], w)))
theme.slots["that_thing"] = Slot(dist=lambda s: certain(s[_hidden][0]))
theme.slots["that_place"] = Slot(dist=lambda s: certain(s[_hidden][1]))
theme.effects["open"] = lambda s: put(s, quoting=True)
theme.effects["close"] = lambda s: put(s, quoting=False)
theme.effects["found"] = lambda s: put(s, hidden=None)


def _untold(fact: str | None = None) -> Callable[[Any], bool]:
    return lambda m: m.subject and fact not in m.told


theme.say("is", "{person} is a {her_trade} from {her_home} .", weigh(60, 60, 35, 20))
theme.say("everyone", "Everyone in {some_city} knows {person} , the {her_trade} .", weigh(25, 30, 20))
theme.say("saw", "Yesterday I saw {person} by the {spot} .", weigh(0, 40, 50))
theme.say("works", "{She} works as a {her_trade} .", weigh(100, 100, 90, 40, when=_untold("trade")))
theme.say("dreams", "{She} still dreams of {her_home} .", weigh(100, 110, 100, when=_untold("home")))
theme.say("eats", "{She} eats nothing but {her_food} .", weigh(120, 120, 110, 70, when=_untold("food")))
theme.say("keeps", "{She} keeps a {colour} {beast} behind the {spot} .", weigh(40, 50, 40, when=_untold()))
theme.say("beast", "A {beast} {does} under the {plant} .", weigh(35, 15, 30))
theme.say("plant", "The {plant} in the {spot} smells of {some_food} .", weigh(30, 15, 30))
theme.say(
    "hid", "{person} hid a {hidden_thing} under the {hiding_place} .", weigh(25, 60, 30, when=lambda m: not m.hidden)
)
theme.say(
    "found",
    "Somebody looked under the {that_place} and found the {that_thing} there {!found} .",
    weigh(150, 200, 180, when=lambda m: m.hidden),
)
theme.say("never_liked", "{person} says « {!open} I never liked {some_city} » {!close} .", weigh(15, 45, 25))
theme.say("lost", "{person} says « {!open} my {colour} {thing} is gone » {!close} .", weigh(15, 45, 25))
