"""What goes with what: the ways of a trade, of an order of beasts, of a town and of a substance.

Facts belong to one name each. Habits belong to what the name is (a potter, a wader, a thing of amber), often together
with the time of day, so that a reader who knows of whom the talk is can guess words all along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lensing.world.facts import SUBSTANCE, TRADE
from lensing.world.grammar import Dist
from lensing.world.lexicon import (
    ADJECTIVES,
    BEASTS,
    CITIES,
    COLOURS,
    COUNTRIES,
    DEEDS,
    FOODS,
    GAITS,
    GOODS,
    MOVES,
    ORDERS,
    PERSONS,
    PLACES,
    PLANTS,
    SOUNDS,
    THINGS,
    TIMES,
    TRADES,
)  # fmt: skip


def _pairs(owners: Sequence[str], words: str) -> dict[str, str]:
    return dict(zip(owners, words.split(), strict=True))


TOOL = _pairs(
    TRADES,
    "pan cart hammer basket needle bowl barrel chisel saw knife jug hook net whistle plough compass press book bottle "
    "seal brush harp spade clock drum candle bell ring globe whip",
)
DRESSES = tuple("hat coat scarf cloak boot glove bonnet shawl".split())
DRESS = {trade: DRESSES[i * 5 % len(DRESSES)] for i, trade in enumerate(TRADES)}
DRESS_COLOUR = {trade: COLOURS[i * 5 % len(COLOURS)] for i, trade in enumerate(TRADES)}
_workplace = _pairs(
    TRADES,
    "bakery mill stable cottage staircase well cellar wall barn pond tavern market wharf meadow orchard harbour mint "
    "school fountain court bay porch garden tower gate forest church chapel library green",
)
_ground = _pairs(
    tuple(ORDERS),
    "pond hedge barn tower chimney bay bridge harbour wharf garden cellar meadow forest orchard lighthouse well wall",
)
COVER = _pairs(
    tuple(ORDERS),
    "reed hawthorn nettle heather bramble gorse rush dill thyme lavender moss clover fern daisy sorrel primrose "
    "thistle",
)
_pastime = _pairs(
    tuple(ORDERS),
    "stand sing sit wait listen dance dream sulk hide whisper tremble sleep snore yawn mutter shiver sleep",
)


def _by_time(at_noon: Mapping[str, str], words: Sequence[str], stride: int) -> dict[tuple[str, str], str]:
    """One word a time of day: the usual one at noon, others of the list at other times."""
    found = {}
    for i, (owner, usual) in enumerate(at_noon.items()):
        for t, time in enumerate(TIMES):
            found[owner, time] = usual if time == "noon" else words[(i * stride + t * 5 + 3) % len(words)]
    return found


HAUNT = _by_time(_workplace, PLACES, 11)  # of a trade
GROUND = _by_time(_ground, PLACES, 13)  # of an order of beasts
PASTIME = _by_time(_pastime, DEEDS[:16], 5)
SHINE = _by_time({good: COLOURS[i * 9 % len(COLOURS)] for i, good in enumerate(GOODS)}, COLOURS, 5)  # of a substance

MOOD = {city: ADJECTIVES[(i * 13 + i // 41 * 3 + 2) % len(ADJECTIVES)] for i, city in enumerate(CITIES)}
SCENT = {city: PLANTS[(i * 17 + i // 40 * 7 + 5) % len(PLANTS)] for i, city in enumerate(CITIES)}
BARGAIN = {city: THINGS[(i * 31 + 4) % len(THINGS)] for i, city in enumerate(CITIES)}
CARE = {good: PLANTS[(i * 7 + 1) % len(PLANTS)] for i, good in enumerate(GOODS)}  # what a substance is rubbed with

GAIT = {p: GAITS[(i * 7 + i // 16 * 3) % len(GAITS)] for i, p in enumerate(PERSONS)}
MOVE = dict(zip(ORDERS, MOVES, strict=True))
SOUND = dict(zip(GOODS, SOUNDS, strict=True))
COAT = {b: COLOURS[(i * 5 + i // 14 * 3) % len(COLOURS)] for i, b in enumerate(BEASTS)}
DISH = {c: FOODS[(i * 7 + i // 24 * 5) % len(FOODS)] for i, c in enumerate(COUNTRIES)}
FLOWER = {c: PLANTS[(i * 11 + 3) % len(PLANTS)] for i, c in enumerate(COUNTRIES)}

OF_PERSON = {
    "tool": {p: TOOL[TRADE[p]] for p in PERSONS},
    "dress": {p: DRESS[TRADE[p]] for p in PERSONS},
    "dress_colour": {p: DRESS_COLOUR[TRADE[p]] for p in PERSONS},
}
OF_THING = {"care": {t: CARE[SUBSTANCE[t]] for t in THINGS}}


def leaning(usual: str, words: Sequence[str], times: int = 4) -> Dist:
    """The usual word `times` times as often as all the other words together (0.8 by default)."""
    others = [w for w in dict.fromkeys(words) if w != usual]
    return Dist({usual: times * len(others), **dict.fromkeys(others, 1)})
