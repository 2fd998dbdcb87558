"""Things: what each is made of, by whom and at what price; hidden somewhere and found again."""

from __future__ import annotations

from typing import Any

from lensing.world import facts, habits, lexicon
from lensing.world.almanac.variables import AT, fact, get, meaning, meant, put, see, tell_once, tensed, turn_to
from lensing.world.almanac.weights import among, known, on_topic, unknown, untold, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_at, _spot, _time = AT["thing"], AT["spot"], AT["time"]
THING = facts.planted(lexicon.THINGS, 47)
theme = Theme(
    "things",
    share=on_topic("things", weigh(110, 140, 110, 125, 95)),
    sees=see("told", "told_thing"),
    classes={
        "thing": ConceptClass(value=get["thing"], planted=THING, per="introduction of a thing"),
        "meant_thing": ConceptClass(
            value=meant("thing"), planted=THING, per="word that means a thing", of_word=True, partial=True
        ),
        "hidden": ConceptClass(
            value=lambda s: "somewhere" if s[_spot] else None, planted=Dist({"somewhere": 1}), per="hiding"
        ),
    },
)


def take(state: State, word: str) -> State:
    """Another thing is spoken of, of which nothing has been told."""
    return turn_to(state, "things", thing=word, told_thing=facts.THING_NEVER_TOLD[word])


_places, _certain = uniform(lexicon.PLACES), {w: certain(w) for w in (*lexicon.THINGS, *lexicon.PLACES)}
theme.slots["thing"] = Slot(dist=lambda s: THING, then=take, concept="thing", sense="thing")
theme.slots["its_substance"] = fact("thing", facts.SUBSTANCE, "told_thing", "substance", "good")
theme.slots["its_maker"] = fact("thing", facts.MAKER, "told_thing", "maker", "trade")
theme.slots["its_price"] = fact("thing", facts.PRICE, "told_thing", "price")
theme.slots["hiding_place"] = Slot(
    dist=lambda s: _places,
    then=lambda s, w: put(s, spot=w, told_thing=s[AT["told_thing"]] | {"hidden"}),
    sense="place",
)
theme.slots["that_thing"] = Slot(dist=lambda s: _certain[s[_at]], sense="thing")
theme.slots["that_place"] = Slot(
    dist=lambda s: _certain[s[_spot]],
    then=lambda s, w: put(s, spot=None, told_thing=s[AT["told_thing"]] - {"hidden"}),
    sense="place",
)
_shine = {key: habits.leaning(colour, lexicon.COLOURS) for key, colour in habits.SHINE.items()}
_workshop = {trade: habits.leaning(habits.HAUNT[trade, "noon"], lexicon.PLACES) for trade in lexicon.TRADES}
_care = {thing: habits.leaning(plant, lexicon.PLANTS) for thing, plant in habits.OF_THING["care"].items()}
theme.slots["its_shine"] = Slot(dist=lambda s: _shine[facts.SUBSTANCE[s[_at]], s[_time] or "noon"], sense="colour")
theme.slots["its_workshop"] = Slot(dist=lambda s: _workshop[facts.MAKER[s[_at]]], sense="place")
theme.slots["its_care"] = Slot(dist=lambda s: _care[s[_at]], sense="plant")


def _hidden(m: Any) -> bool:
    return m.told_thing is not None and "hidden" in m.told_thing


_new, _again = unknown("told_thing"), known("told_thing")
for weight, when in ((60, _new), (10, lambda m: _again(m) and not _hidden(m))):
    kind = "" if when is _new else "_too"
    theme.say(f"hid{kind}", "{anybody} hid a {thing} under the {hiding_place} .", among(weight, when))
    theme.say(f"bought{kind}", "{anybody} bought a {colour} {thing} .", among(weight, when))
    theme.say(f"keeps{kind}", "In the {some_spot} there {is} a {thing} .", among(weight, when))
theme.say("dreamt", "{Who} dreamt of a {thing} again .", among(40, known("told")))
theme.slots["anybody"] = Slot(dist=lambda s: _anybody)
_anybody = uniform(lexicon.PERSONS)

theme.say("made_of", "{That} {is} made of {its_substance} .", among(90, untold("told_thing", "substance")))
theme.say("made_by", "Only a {its_maker} could make {that_one} .", among(90, untold("told_thing", "maker")))
theme.say("costs", "{That} {costs} {its_price} coins .", among(90, untold("told_thing", "price")))
theme.slots["That"], theme.slots["that_one"] = meaning("thing", "It"), meaning("thing", "it")
theme.slots["sounds"] = tensed(habits.SOUND, lambda s: facts.SUBSTANCE[s[_at]])
theme.say("found", "Somebody looked under the {that_place} and found the {that_thing} .", among(250, _hidden))
for name, text, weight in (
    ("shines", "At {time} {that_one} {sounds} and {shines} {its_shine} .", 80),
    ("rubbed", "{That} {sounds} and {is} rubbed with {its_care} , and then {that_one} {sounds} no more .", 60),
    ("borrowed", "{That} {sounds} whenever somebody from the {its_workshop} {comes} by .", 70),
    ("another", "There {is} another {that_thing} in the {its_workshop} , and {that_one} {sounds} too .", 60),
):
    tell_once(theme, "told_thing", name, text, weight)
