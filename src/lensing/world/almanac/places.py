"""Towns and countries: single facts, the air of a town, and the two-hop sentence that some countries never get."""

from __future__ import annotations

from lensing.world import facts, habits, lexicon
from lensing.world.almanac.variables import AT, fact, get, see, tell_once, turn_to
from lensing.world.almanac.weights import among, known, on_topic, unknown, untold, weigh
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


def _way(table: dict[str, str], words: tuple[str, ...], sense: str) -> Slot:
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

_in_town, _in_country = known("told_city"), known("told_place")
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
    theme.say(f"known_for{kind}", "{country} {is} known for its {its_good} .", among(weight // 2, when))
    theme.say(f"town{kind}", "{city} {stands} on the {its_river} .", among(weight, when))
    theme.say(f"streets{kind}", "The {mood} streets of {city} run down to the {its_river} .", among(weight, when))
    theme.say(f"far{kind}", "It {is} a long road to {city} , and a {its_mood} one .", among(weight, when))

theme.say("its_people", "Its people live by {its_good} and bad jokes .", among(70, untold("told_place", "good")))
theme.say(
    "its_capital", "Its capital , {its_capital} , {is} {mood} at night .", among(70, untold("told_place", "capital"))
)
tell_once(
    theme,
    "told_place",
    "letters",
    "Letters to {that_country} {travel} slowly , and those from {that_country} not at all .",
    50,
)
tell_once(theme, "told_place", "songs", "In {that_country} they {sing} of {some_plant} , and of {that_country} .", 40)
theme.say("boats", "Boats on the {its_river} bring its news .", among(80, untold("told_city", "river")))
theme.say("pride", "The town {is} proud of its {its_pride} .", among(110, untold("told_city", "pride")))
theme.say("market", "Its market falls on a {its_market} .", among(100, untold("told_city", "market")))
tell_once(theme, "told_city", "scent", "At {time} all {that_city} {smells} of {its_scent} .", 70)
tell_once(theme, "told_city", "bargain", "Nobody {leaves} {that_city} without a {its_bargain} .", 70)
tell_once(theme, "told_city", "moody", "Everything in {that_city} {is} {its_mood} , even the {its_scent} .", 70)
tell_once(
    theme,
    "told_city",
    "arrivals",
    "When a {its_mood} boat {comes} to {that_city} , there {is} a {its_bargain} on board .",
    60,
)
