"""Things: what each is made of, by whom and at what price; hidden somewhere and found again."""

from __future__ import annotations

from typing import Any

from lensing.world import facts, lexicon
from lensing.world.almanac.variables import AT, fact, get, put, see
from lensing.world.almanac.weights import among, on_topic, untold, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_at, _spot = AT["thing"], AT["spot"]
THING = facts.planted(lexicon.THINGS, 47)
theme = Theme(
    "things",
    share=on_topic("things", weigh(150, 190, 150, 170, 130)),
    sees=see("told_thing", "told"),
    classes={
        "thing": ConceptClass(value=get["thing"], planted=THING, per="introduction of a thing"),
        "hidden": ConceptClass(
            value=lambda s: "somewhere" if s[_spot] else None, planted=Dist({"somewhere": 1}), per="hiding"
        ),
    },
)


def take(state: State, word: str) -> State:
    """Another thing is spoken of, of which nothing has been told."""
    return put(state, topic="things", thing=word, spot=None, told_thing=facts.THING_NEVER_TOLD[word])


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


def _hidden(m: Any) -> bool:
    return m.told_thing is not None and "hidden" in m.told_thing


theme.say("hid", "{person} hid a {thing} under the {hiding_place} .", among(60, lambda m: not _hidden(m)))
theme.say("bought", "{person} bought a {colour} {thing} .", among(45, lambda m: not _hidden(m)))
theme.say("keeps", "In the {some_spot} there {is} a {thing} .", among(45, lambda m: not _hidden(m)))
theme.say("dreamt", "{She} dreamt of a {thing} again .", among(50, lambda m: m.told is not None and not _hidden(m)))
theme.say("made_of", "The thing {is} made of {its_substance} .", among(90, untold("told_thing", "substance")))
theme.say("made_by", "Only a {its_maker} could make it .", among(90, untold("told_thing", "maker")))
theme.say("costs", "Such a thing {costs} {its_price} coins .", among(90, untold("told_thing", "price")))
theme.say("found", "Somebody looked under the {that_place} and found the {that_thing} .", among(220, _hidden))
