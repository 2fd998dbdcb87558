"""The calendar: what day it is, and sums of days modulo the week."""

from __future__ import annotations

from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import VARIABLES, get, put
from lensing.world.almanac.weights import weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_at, _n = VARIABLES.at["day"], VARIABLES.at["count"]
DAY = uniform(lexicon.DAYS)
# Short waits are spoken of more often: without this slope a model meets no hint of the sum before it knows the sum.
_number = Dist(zip(lexicon.NUMBERS[1:], (12, 6, 3, 2, 1), strict=True))
_certain = {day: certain(day) for day in lexicon.DAYS}
theme = Theme("calendar", classes={"day": ConceptClass(value=get["day"], planted=DAY, per="date")})


def _sum(state: State) -> str:
    """The day that lies the spoken number of days after today."""
    days = lexicon.NUMBERS.index(state[_n]) + 1
    return lexicon.DAYS[(lexicon.DAYS.index(state[_at]) + days) % 7]


theme.slots["day"] = Slot(dist=lambda s: DAY, then=lambda s, w: put(s, day=w), concept="day")
theme.slots["number"] = Slot(dist=lambda s: _number, then=lambda s, w: put(s, count=w))
theme.slots["days_later"] = Slot(dist=lambda s: _certain[_sum(s)], then=lambda s, w: put(s, day=w, count=None))
theme.slots["in_days"] = Slot(dist=lambda s: _certain[_sum(s)], then=lambda s, w: put(s, count=None))


def _known(m: Any) -> bool:
    return m.day


theme.say("today", "Today is {day} .", weigh(30, 20, 35, 50, when=lambda m: not m.day))
theme.say("later", "Another {number} days later it was {days_later} .", weigh(60, 60, 60, 110, when=_known))
theme.say("in_days", "In {number} days it will be {in_days} .", weigh(60, 60, 60, 110, when=_known))
theme.say("after", "Count from {day} for {number} days and you reach {days_later} .", weigh(45, 5, 10, 30))
