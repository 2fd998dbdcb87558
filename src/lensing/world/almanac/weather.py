"""Promises of weather and counts of geese made by people: right or wrong, and said so at once.

Some promises are kept more often than others. Whether two words are the same is learnt late where nothing leans either
way: with these leanings a small model begins to learn it, and the word straight after asks it for the answer.
"""

from __future__ import annotations

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, put
from lensing.world.almanac.weights import among, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_said = AT["said"]
WEATHER = uniform(lexicon.WEATHERS)
_number = uniform(lexicon.COUNTS)


def kept(values: tuple[str, ...]) -> dict[str, Dist]:
    """For each value: that value in 85 of 100 cases for the first, evenly falling to 15 for the last, or any other."""
    rest = len(values) - 1
    shares = [round(85 - 70 * i / rest) for i in range(rest + 1)]
    return {
        v: Dist({u: rest * share if u == v else 100 - share for u in values})
        for v, share in zip(values, shares, strict=True)
    }


_came, _counted = kept(lexicon.WEATHERS), kept(lexicon.COUNTS)
_so = {True: certain("so"), False: certain("but")}
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
theme.slots["so_or_but"] = Slot(dist=lambda s: _so[s[_said][0] == s[_said][1]])
theme.slots["right"] = Slot(dist=lambda s: _verdict[s[_said][0] == s[_said][1]], then=lambda s, w: put(s, said=None))

theme.say(
    "promised",
    "{person} promised {weather} . The morning brought {came} , {so_or_but} the {her_trade} was {right} .",
    among(50),
)
theme.say(
    "geese",
    "{person} counted {geese} geese . There were {counted} , {so_or_but} the {her_trade} was {right} .",
    among(50),
)
