"""The whole grammar of the Almanac's world. To grow it, write a theme file and add it to `THEMES`."""

from __future__ import annotations

from functools import cache

from lensing.world import lexicon
from lensing.world.almanac import calendar, people, places, registers, stance, trade, weather
from lensing.world.almanac.variables import MENU_NAMES, VARIABLES, boundary, menu_key
from lensing.world.grammar import Grammar

THEMES = (registers.theme, places.theme, people.theme, calendar.theme, trade.theme, weather.theme, stance.theme)


@cache
def almanac() -> Grammar:
    """Return the grammar (built once)."""
    return _build({})


@cache
def drill() -> Grammar:
    """Return the same grammar with a calendar five times as busy: a lesson for a model in training, never a test."""
    return _build({"calendar": 5})


def _build(boost: dict[str, int]) -> Grammar:
    return Grammar(
        variables=VARIABLES,
        hidden={"register": registers.REGISTER, "stance": stance.STANCE},
        themes=THEMES,
        menu_names=MENU_NAMES,
        menu_key=menu_key,
        boundary=boundary,
        words=lexicon.all_words(),
        boost=boost,
    )
