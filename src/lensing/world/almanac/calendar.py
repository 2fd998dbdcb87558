"""The calendar and the clock: what day and hour it is, and sums on both circles."""

from __future__ import annotations

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, get, put
from lensing.world.almanac.weights import among, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_day, _hour, _n = AT["day"], AT["hour"], AT["number"]
DAY, HOUR = uniform(lexicon.DAYS), uniform(lexicon.NUMBERS)
# Short waits are spoken of more often: without this slope a model meets no hint of the sum before it knows the sum.
_number = Dist(zip(lexicon.NUMBERS[1:6], (12, 6, 3, 2, 1), strict=True))
_certain = {word: certain(word) for word in (*lexicon.DAYS, *lexicon.NUMBERS)}
theme = Theme(
    "calendar",
    share=weigh(140, 110, 150, 260, 150),
    sees={"day": lambda s: s[_day] is not None, "hour": lambda s: s[_hour] is not None},
    classes={
        "day": ConceptClass(value=get["day"], planted=DAY, per="date"),
        "hour": ConceptClass(value=get["hour"], planted=HOUR, per="stroke of the clock"),
    },
)


def _sum(circle: tuple[str, ...], at: int, state: State) -> str:
    """The word that lies the spoken number of steps further on the circle."""
    return circle[(circle.index(state[at]) + lexicon.NUMBERS.index(state[_n]) + 1) % len(circle)]


theme.slots["day"] = Slot(dist=lambda s: DAY, then=lambda s, w: put(s, day=w), concept="day")
theme.slots["number"] = Slot(dist=lambda s: _number, then=lambda s, w: put(s, number=w))
theme.slots["days_later"] = Slot(
    dist=lambda s: _certain[_sum(lexicon.DAYS, _day, s)], then=lambda s, w: put(s, day=w, number=None)
)
theme.slots["in_days"] = Slot(
    dist=lambda s: _certain[_sum(lexicon.DAYS, _day, s)], then=lambda s, w: put(s, number=None)
)
theme.slots["hour"] = Slot(dist=lambda s: HOUR, then=lambda s, w: put(s, hour=w), concept="hour")
theme.slots["hours_later"] = Slot(
    dist=lambda s: _certain[_sum(lexicon.NUMBERS, _hour, s)], then=lambda s, w: put(s, hour=w, number=None)
)

theme.say("today", "Today is {day} .", among(30, lambda m: not m.day))
theme.say("later", "Another {number} days later it was {days_later} .", among(60, lambda m: m.day))
theme.say("in_days", "In {number} days it will be {in_days} .", among(50, lambda m: m.day))
theme.say("after", "Count from {day} for {number} days and you reach {days_later} .", among(20))
theme.say("clock", "The clock struck {hour} .", among(20, lambda m: not m.hour))
theme.say("struck", "After {number} hours the clock struck {hours_later} .", among(60, lambda m: m.hour))
