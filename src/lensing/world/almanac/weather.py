"""Promises of weather and counts of geese made by people: right or wrong, and said so."""

from __future__ import annotations

from lensing.world import lexicon
from lensing.world.almanac.variables import VARIABLES, get, put
from lensing.world.almanac.weights import weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_forecast, _count = VARIABLES.at["forecast"], VARIABLES.at["count"]
WEATHER = uniform(lexicon.WEATHERS)
_number = uniform(lexicon.COUNTS)


def fifty_fifty(values: tuple[str, ...]) -> dict[str, Dist]:
    """For each value: that value half the time, each other value equally often otherwise."""
    return {v: Dist({u: len(values) - 1 if u == v else 1 for u in values}) for v in values}


_came, _counted = fifty_fifty(lexicon.WEATHERS), fifty_fifty(lexicon.COUNTS)
_verdict = {True: certain("right"), False: certain("wrong")}
theme = Theme(
    "weather",
    classes={"forecast": ConceptClass(value=get["forecast"], planted=WEATHER, per="promise of weather")},
)


def _judge(name: str) -> Slot:
    """The verdict on what was said (kept as a pair: said, true)."""
    at = VARIABLES.at[name]
    return Slot(dist=lambda s: _verdict[s[at][0] == s[at][1]], then=lambda s, w: put(s, **{name: None}))


def _came_then(s: State, w: str) -> State:
    return put(s, forecast=None, count=(s[_forecast], w))


theme.slots["weather"] = Slot(dist=lambda s: WEATHER, then=lambda s, w: put(s, forecast=w), concept="forecast")
theme.slots["came"] = Slot(dist=lambda s: _came[s[_forecast]], then=_came_then)
theme.slots["geese"] = Slot(dist=lambda s: _number, then=lambda s, w: put(s, count=w))
theme.slots["counted"] = Slot(dist=lambda s: _counted[s[_count]], then=lambda s, w: put(s, count=(s[_count], w)))
theme.slots["right"] = _judge("count")

theme.say(
    "promised",
    "{person} promised {weather} . The morning brought {came} , so the {her_trade} was {right} .",
    weigh(50, 60, 45, 25),
)
theme.say(
    "geese",
    "{person} counted {geese} geese . There were {counted} , so the {her_trade} was {right} .",
    weigh(40, 40, 35, 40),
)
