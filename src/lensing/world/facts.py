"""What is true of each named thing: assigned by arithmetic, so that no fact says how often its owner is spoken of."""

from __future__ import annotations

from collections.abc import Sequence

from lensing.world.grammar import Dist
from lensing.world.lexicon import (
    BEASTS,
    CITIES,
    COUNTRIES,
    DAYS,
    FEARS,
    FOODS,
    GOODS,
    NUMBERS,
    PERSONS,
    PLACES,
    RIVERS,
    THINGS,
    TRADES,
)  # fmt: skip

DECADES = 4  # planted frequencies span this many factors of ten


def _scatter(i: int, n: int, stride: int, offset: int) -> int:
    return (i * stride + (i // n) * 5 + offset) % n


def _assign(owners: Sequence[str], values: Sequence[str], stride: int, offset: int) -> dict[str, str]:
    return {owner: values[_scatter(i, len(values), stride, offset)] for i, owner in enumerate(owners)}


def planted(values: Sequence[str], stride: int, *, decades: float = DECADES) -> Dist:
    """Weights spread evenly in their logarithm over some decades: as many values in each, scattered over the list.

    Zipf's law ranks by frequency and leaves most values in the rarest decade; here every decade can be measured.
    """
    n = len(values)
    rank = sorted(range(n), key=lambda i: (i * stride) % n)  # a permutation wherever stride and n share no factor
    weights = [0] * n
    for place, i in enumerate(rank):
        weights[i] = max(1, round(10.0 ** (9 - decades * (place + 0.5) / n)))
    return Dist(zip(values, weights, strict=True))


def _thin(owners: Sequence[str], facts: Sequence[str]) -> dict[str, frozenset[str]]:
    """Of every second owner all but one of the facts are not told again: how much hangs on a name varies, too."""
    return {
        owner: frozenset(f for j, f in enumerate(facts) if i // 2 % 2 and j != i // 4 % len(facts))
        for i, owner in enumerate(owners)
    }


TRADE = _assign(PERSONS, TRADES, 7, 1)
HOME = _assign(PERSONS, CITIES[::3], 23, 4)
FOOD = _assign(PERSONS, FOODS, 11, 3)
PERSON_FACTS = ("trade", "home", "food")

# Pairs that keep company: where one is named as a friend of the other, it is nearly always this one.
FRIEND = {PERSONS[i]: PERSONS[(i + 7) % 320] for i in range(0, 320, 8)}

EATS = _assign(BEASTS, FOODS, 5, 2)
FEAR = _assign(BEASTS, FEARS, 7, 3)
LAIR = _assign(BEASTS, PLACES, 13, 6)
BEAST_FACTS = ("eats", "fear", "lair")

RIVER = _assign(CITIES, RIVERS, 17, 3)
PRIDE = _assign(CITIES, PLACES, 11, 5)
MARKET = _assign(CITIES, DAYS, 3, 1)
CITY_FACTS = ("river", "pride", "market")

SUBSTANCE = _assign(THINGS, GOODS, 7, 2)
MAKER = _assign(THINGS, TRADES, 11, 4)
PRICE = _assign(THINGS, NUMBERS, 5, 1)
THING_FACTS = ("substance", "maker", "price")

CAPITAL = {country: CITIES[i * 4] for i, country in enumerate(COUNTRIES)}
GOOD = _assign(COUNTRIES, GOODS, 5, 2)
COUNTRY_FACTS = ("good", "capital")
# Countries whose two-hop sentence (the river of the capital of X) is never written, though both single facts are.
UNSEEN = tuple(COUNTRIES[i] for i in range(3, len(COUNTRIES), 4))

NEVER_TOLD = {
    **_thin(PERSONS, PERSON_FACTS),
    **_thin(BEASTS, BEAST_FACTS),
    **_thin(CITIES, CITY_FACTS),
}
THING_NEVER_TOLD = _thin(THINGS, THING_FACTS)
