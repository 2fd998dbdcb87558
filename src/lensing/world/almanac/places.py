"""Towns and countries: single facts, the air of a town, and the two-hop sentence that some countries never get."""

from __future__ import annotations

from collections.abc import Mapping

from lensing.world import facts, habits, lexicon
from lensing.world.almanac.variables import AT, fact, get, meaning, meant, see, tell_once, turn_to
from lensing.world.almanac.weights import among, on_topic, unknown, untold, weigh
from lensing.world.grammar import ConceptClass, Slot, State, Theme, certain, uniform, zipf

COUNTRY = zipf(lexicon.COUNTRIES, 0.6)
CITY = facts.planted(lexicon.CITIES, 57)
theme = Theme(
    "places",
    share=on_topic("places", weigh(145, 45, 55, 45, 45)),
    sees=see("told_place", "told_city"),
    classes={
        "place": ConceptClass(value=get["place"], planted=COUNTRY, per="introduction of a country"),
        "city": ConceptClass(value=get["city"], planted=CITY, per="introduction of a town"),
        "meant_country": ConceptClass(
            value=meant("place"), planted=COUNTRY, per="word that means a country", of_word=True, partial=True
        ),
        "meant_town": ConceptClass(
            value=meant("city"), planted=CITY, per="word that means a town", of_word=True, partial=True
        ),
    },
)

_country, _city = AT["place"], AT["city"]
_river = {c: certain(facts.RIVER[facts.CAPITAL[c]]) for c in lexicon.COUNTRIES}
_seen = zipf([c for c in lexicon.COUNTRIES if c not in facts.UNSEEN], 0.6)
_adjective = uniform(lexicon.ADJECTIVES)
_that = {name: certain(name) for name in (*lexicon.COUNTRIES, *lexicon.CITIES)}


def _enter(state: State, word: str) -> State:
    return turn_to(state, "places", place=word, told_place=frozenset())


def _arrive(state: State, word: str) -> State:
    return turn_to(state, "places", city=word, told_city=facts.NEVER_TOLD[word])


def _way(table: Mapping[str, str], words: tuple[str, ...], sense: str) -> Slot:
    """A word that mostly goes with the town."""
    usual = {city: habits.leaning(word, words) for city, word in table.items()}
    return Slot(dist=lambda s: usual[s[_city]], sense=sense)


theme.slots["country"] = Slot(dist=lambda s: COUNTRY, then=_enter, concept="place")
theme.slots["seen_country"] = Slot(dist=lambda s: _seen, then=_enter)
theme.slots["that_country"] = Slot(dist=lambda s: _that[s[_country]])
theme.slots["its_capital"] = fact("place", facts.CAPITAL, "told_place", "capital")
theme.slots["its_good"] = fact("place", facts.GOOD, "told_place", "good", "good")
theme.slots["its_capitals_river"] = Slot(dist=lambda s: _river[s[_country]])
theme.slots["city"] = Slot(dist=lambda s: CITY, then=_arrive, concept="city")
theme.slots["that_city"] = Slot(dist=lambda s: _that[s[_city]])
theme.slots["its_river"] = fact("city", facts.RIVER, "told_city", "river")
theme.slots["its_pride"] = fact("city", facts.PRIDE, "told_city", "pride", "place")
theme.slots["its_market"] = fact("city", facts.MARKET, "told_city", "market")
theme.slots["its_mood"] = _way(habits.MOOD, lexicon.ADJECTIVES, "adjective")
theme.slots["its_scent"] = _way(habits.SCENT, lexicon.PLANTS, "plant")
theme.slots["its_bargain"] = _way(habits.BARGAIN, lexicon.THINGS, "thing")
theme.slots["mood"] = Slot(dist=lambda s: _adjective, sense="adjective")

for weight, when in (
    (60, unknown("told_city", "told_place")),
    (15, lambda m: not unknown("told_city", "told_place")(m)),
):
    kind = "" if weight == 60 else "_too"
    theme.say(f"capital{kind}", "The capital of {country} {is} {its_capital} .", among(weight, when))
    theme.say(
        f"two_hop{kind}",
        "The river of the capital of {seen_country} {is} the {its_capitals_river} .",
        among(weight, when),
    )
    theme.say(f"known_for{kind}", "{country} {is} known for {theirs} {its_good} .", among(weight // 2, when))
    theme.say(f"town{kind}", "{city} {stands} on the {its_river} .", among(weight, when))
    theme.say(f"streets{kind}", "The {mood} streets of {city} run down to the {its_river} .", among(weight, when))
    theme.say(f"far{kind}", "The road to {city} {is} long , and {its_mood} in the rain .", among(weight, when))

theme.slots["Theirs"], theme.slots["theirs"] = meaning("place", "Its"), meaning("place", "its")
theme.slots["Its"], theme.slots["of_town"] = meaning("city", "Its"), meaning("city", "its")
_dish = {c: habits.leaning(food, lexicon.FOODS) for c, food in habits.DISH.items()}
_flower = {c: habits.leaning(plant, lexicon.PLANTS) for c, plant in habits.FLOWER.items()}
theme.slots["its_dish"] = Slot(dist=lambda s: _dish[s[_country]], sense="food")
theme.slots["its_flower"] = Slot(dist=lambda s: _flower[s[_country]], sense="plant")

theme.say("its_people", "{Theirs} people live by {its_good} and bad jokes .", among(70, untold("told_place", "good")))
theme.say(
    "its_capital",
    "{Theirs} capital , {its_capital} , {is} {mood} at night .",
    among(70, untold("told_place", "capital")),
)
theme.say("boats", "Boats on the {its_river} bring {of_town} news .", among(80, untold("told_city", "river")))
theme.say("pride", "The town {is} proud of {of_town} {its_pride} .", among(110, untold("told_city", "pride")))
theme.say("market", "{Its} {its_mood} market falls on a {its_market} .", among(100, untold("told_city", "market")))
for told, name, text, weight in (
    ("told_place", "letters", "Letters to {that_country} {travel} slowly , and {theirs} {its_dish} not at all .", 50),
    ("told_place", "songs", "In {that_country} they {sing} of {theirs} {its_flower} and {theirs} {its_dish} .", 60),
    ("told_city", "scent", "At {time} {of_town} {its_mood} streets {smell} of {its_scent} .", 80),
    ("told_city", "bargain", "Everybody in {that_city} {wants} {of_town} {its_bargain} .", 70),
    ("told_city", "moody", "Everything there {is} {its_mood} , even {of_town} {its_scent} .", 70),
    ("told_city", "arrivals", "A boat {comes} to {that_city} for {of_town} {its_bargain} .", 60),
):
    tell_once(theme, told, name, text, weight)
