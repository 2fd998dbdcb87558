"""Promises of weather and counts of geese made by people: right or wrong, and said so."""

from __future__ import annotations

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, put
from lensing.world.almanac.weights import among, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_said = AT["said"]
WEATHER = uniform(lexicon.WEATHERS)
_number = uniform(lexicon.COUNTS)


def fifty_fifty(values: tuple[str, ...]) -> dict[str, Dist]:
    """For each value: that value half the time, each other value equally often otherwise."""
    return {v: Dist({u: len(values) - 1 if u == v else 1 for u in values}) for v in values}


_came, _counted = fifty_fifty(lexicon.WEATHERS), fifty_fifty(lexicon.COUNTS)
_verdict = {True: certain("right"), False: certain("wrong")}
theme = Theme(
    "weather",
    share=weigh(50, 60, 50, 50, 40),
    classes={
        "forecast": ConceptClass(
            value=lambda s: s[_said] if s[_said] in lexicon.WEATHERS else None,
            planted=WEATHER,
            per="promise of weather",
        ),
    },
)


def _compare(s: State, w: str) -> State:
    return put(s, said=(s[_said], w))


theme.slots["weather"] = Slot(
    dist=lambda s: WEATHER, then=lambda s, w: put(s, said=w), concept="forecast", sense="weather"
)
theme.slots["came"] = Slot(dist=lambda s: _came[s[_said]], then=_compare, sense="weather")
theme.slots["geese"] = Slot(dist=lambda s: _number, then=lambda s, w: put(s, said=w))
theme.slots["counted"] = Slot(dist=lambda s: _counted[s[_said]], then=_compare)
theme.slots["right"] = Slot(dist=lambda s: _verdict[s[_said][0] == s[_said][1]], then=lambda s, w: put(s, said=None))

theme.say(
    "promised",
    "{person} promised {weather} . The morning brought {came} , so the {her_trade} was {right} .",
    among(50),
)
theme.say(
    "geese",
    "{person} counted {geese} geese . There were {counted} , so the {her_trade} was {right} .",
    among(50),
)
