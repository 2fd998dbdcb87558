"""Beasts in a hierarchy: what each eats and fears, and what every beast of its order or kind has."""

from __future__ import annotations

from lensing.world import facts, lexicon
from lensing.world.almanac.variables import AT, fact, get, put, see
from lensing.world.almanac.weights import among, known, on_topic, untold, weigh
from lensing.world.grammar import ConceptClass, Slot, State, Theme, certain, uniform

_at = AT["beast"]
BEAST = facts.planted(lexicon.BEASTS, 53)
_per = "introduction of a beast"
theme = Theme(
    "beasts",
    share=on_topic("beasts", weigh(210, 120, 130, 60, 220)),
    sees=see("told_beast"),
    classes={
        "beast": ConceptClass(value=get["beast"], planted=BEAST, per=_per),
        "order": ConceptClass(value=lambda s: lexicon.ORDER.get(s[_at]), planted=uniform(lexicon.ORDERS), per=_per),
        "kind": ConceptClass(value=lambda s: lexicon.KIND.get(s[_at]), planted=uniform(lexicon.KIND_HABIT), per=_per),
    },
)


def introduce(state: State, word: str) -> State:
    """A new beast, of which nothing has been told."""
    return put(state, topic="beasts", beast=word, told_beast=facts.NEVER_TOLD[word])


def _of(table: dict[str, str]) -> Slot:
    words = {beast: certain(word) for beast, word in table.items()}
    return Slot(dist=lambda s: words[s[_at]])


_deed, _plant = uniform(lexicon.DEEDS), uniform(lexicon.PLANTS)
theme.slots["beast"] = Slot(dist=lambda s: BEAST, then=introduce, concept="beast", sense="beast")
theme.slots["its_food"] = fact("beast", facts.EATS, "told_beast", "eats", "food")
theme.slots["its_fear"] = fact("beast", facts.FEAR, "told_beast", "fear", "fear")
theme.slots["its_lair"] = fact("beast", facts.LAIR, "told_beast", "lair", "place")
theme.slots["its_order"] = _of(lexicon.ORDER)
theme.slots["its_kind"] = _of(lexicon.KIND)
theme.slots["order_habit"] = _of({b: lexicon.ORDER_HABIT[o] for b, o in lexicon.ORDER.items()})
theme.slots["kind_habit"] = _of({b: lexicon.KIND_HABIT[k] for b, k in lexicon.KIND.items()})
theme.slots["deed"] = Slot(dist=lambda s: _deed, sense="deed")
theme.slots["plant"] = Slot(dist=lambda s: _plant, sense="plant")


theme.say("likes", "The {beast} {likes} to {deed} under the {plant} .", among(50))
theme.say("old", "There {is} an old {beast} in {some_city} .", among(30))
theme.say("keeps", "Somebody {keeps} a {colour} {beast} behind the {some_spot} .", among(35))
theme.say("order", "The {beast} {is} a {its_order} , and so it {has} its {order_habit} .", among(35))
theme.say("eats", "It {eats} only {its_food} .", among(110, untold("told_beast", "eats")))
theme.say("fears", "It {fears} {its_fear} more than hunger .", among(110, untold("told_beast", "fear")))
theme.say("lair", "At night it {sleeps} in the {its_lair} .", among(110, untold("told_beast", "lair")))
theme.say("like_every", "Like every {its_order} it {has} its {order_habit} .", among(45, known("told_beast")))
theme.say("like_any", "Like any {its_kind} it {has} {kind_habit} .", among(45, known("told_beast")))
