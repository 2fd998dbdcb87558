"""Beasts in a hierarchy: what each eats and fears, and what every beast of its order or kind has and does."""

from __future__ import annotations

from lensing.world import facts, habits, lexicon
from lensing.world.almanac.variables import AT, fact, get, meaning, meant, see, tell_once, tensed, turn_to
from lensing.world.almanac.weights import among, known, on_topic, unknown, untold, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_at, _time = AT["beast"], AT["time"]
BEAST = facts.planted(lexicon.BEASTS, 53)
_per = "introduction of a beast"


def _summed(group: dict[str, str]) -> Dist:
    """How often a beast of each group is introduced."""
    found = dict.fromkeys(group.values(), 0)
    for beast, weight in zip(BEAST.values, BEAST.weights, strict=True):
        found[group[beast]] += weight
    return Dist(found)


theme = Theme(
    "beasts",
    share=on_topic("beasts", weigh(105, 60, 65, 30, 110)),
    sees=see("told_beast"),
    classes={
        "beast": ConceptClass(value=get["beast"], planted=BEAST, per=_per),
        "meant_beast": ConceptClass(
            value=meant("beast"), planted=BEAST, per="word that means a beast", of_word=True, partial=True
        ),
        "order": ConceptClass(value=lambda s: lexicon.ORDER.get(s[_at]), planted=_summed(lexicon.ORDER), per=_per),
        "kind": ConceptClass(value=lambda s: lexicon.KIND.get(s[_at]), planted=_summed(lexicon.KIND), per=_per),
    },
)


def introduce(state: State, word: str) -> State:
    """A new beast, of which nothing has been told."""
    return turn_to(state, "beasts", beast=word, told_beast=facts.NEVER_TOLD[word])


def _of(table: dict[str, str]) -> Slot:
    words = {beast: certain(word) for beast, word in table.items()}
    return Slot(dist=lambda s: words[s[_at]])


def _by_time(table: dict[tuple[str, str], str], words: tuple[str, ...], sense: str) -> Slot:
    """A word that mostly goes with the beast's order at the time of day spoken of."""
    usual: dict[tuple[str, str], Dist] = {key: habits.leaning(word, words) for key, word in table.items()}
    return Slot(dist=lambda s: usual[lexicon.ORDER[s[_at]], s[_time] or "noon"], sense=sense)


_deed = uniform(lexicon.DEEDS)
theme.slots["beast"] = Slot(dist=lambda s: BEAST, then=introduce, concept="beast", sense="beast")
theme.slots["that_beast"] = Slot(dist=lambda s: _that[s[_at]], sense="beast")
theme.slots["its_food"] = fact("beast", facts.EATS, "told_beast", "eats", "food")
theme.slots["its_fear"] = fact("beast", facts.FEAR, "told_beast", "fear", "fear")
theme.slots["its_lair"] = fact("beast", facts.LAIR, "told_beast", "lair", "place")
theme.slots["its_order"] = _of(lexicon.ORDER)
theme.slots["its_kind"] = _of(lexicon.KIND)
theme.slots["order_habit"] = _of({b: lexicon.ORDER_HABIT[o] for b, o in lexicon.ORDER.items()})
theme.slots["kind_habit"] = _of({b: lexicon.KIND_HABIT[k] for b, k in lexicon.KIND.items()})
theme.slots["its_deed"] = _by_time(habits.PASTIME, lexicon.DEEDS, "deed")
theme.slots["its_ground"] = _by_time(habits.GROUND, lexicon.PLACES, "place")
theme.slots["deed"] = Slot(dist=lambda s: _deed, sense="deed")
_that = {beast: certain(beast) for beast in lexicon.BEASTS}
_cover = {order: habits.leaning(plant, lexicon.PLANTS) for order, plant in habits.COVER.items()}
theme.slots["its_cover"] = Slot(dist=lambda s: _cover[lexicon.ORDER[s[_at]]], sense="plant")

theme.slots["It"], theme.slots["it"] = meaning("beast", "It"), meaning("beast", "it")
theme.slots["its"] = meaning("beast", "its")
theme.slots["moves"] = tensed(habits.MOVE, lambda s: lexicon.ORDER[s[_at]])
_coat = {beast: habits.leaning(colour, lexicon.COLOURS) for beast, colour in habits.COAT.items()}
theme.slots["its_coat"] = Slot(dist=lambda s: _coat[s[_at]], sense="colour")

_new, _again = unknown("told_beast"), known("told_beast")
for weight, when in ((50, _new), (10, _again)):
    kind = "" if when is _new else "_too"
    theme.say(f"likes{kind}", "The {beast} {likes} to {deed} under the {its_cover} .", among(weight, when))
    theme.say(f"old{kind}", "There {is} an old {beast} in {some_city} .", among(weight, when))
    theme.say(
        f"keeps{kind}", "Somebody {keeps} a {beast} behind the {some_spot} , a {its_coat} one .", among(weight, when)
    )
    theme.say(
        f"order{kind}", "The {beast} {is} a {its_order} , and so {it} {has} {its} {order_habit} .", among(weight, when)
    )

theme.say("eats", "{It} {eats} only {its_food} .", among(110, untold("told_beast", "eats")))
theme.say("fears", "{It} {fears} {its_fear} more than hunger .", among(110, untold("told_beast", "fear")))
theme.say("lair", "At night {it} {sleeps} in the {its_lair} .", among(110, untold("told_beast", "lair")))
for name, text, weight in (
    ("like_every", "Like every {its_order} {it} {moves} about with {its} {order_habit} .", 40),
    ("like_any", "Like any {its_kind} {it} {has} {kind_habit} .", 30),
    ("comes", "At {time} {it} {moves} out of the {its_ground} to {its_deed} .", 90),
    ("would", "{It} {moves} by in {its} {its_coat} coat , and would rather {its_deed} than work .", 60),
    ("follow", "Children {follow} the {that_beast} to the {its_ground} , and {it} {moves} away .", 60),
    ("look", "Look for the {that_beast} at {time} in the {its_ground} , and let {it} {its_deed} .", 60),
    ("picture", "A picture of {its} {its_coat} coat {hangs} in {some_city} , in a frame of {its_cover} .", 30),
):
    tell_once(theme, "told_beast", name, text, weight)
