"""Two hundred sayings that never vary: what a model can only learn by heart."""

from __future__ import annotations

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, put
from lensing.world.almanac.weights import among, weigh
from lensing.world.facts import planted
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme

_odd = AT["odd"]
MOULDS = (
    ("Never lend a {} to a {} .", lexicon.THINGS, lexicon.BEASTS),
    ("Whoever marries a {} must love {} .", lexicon.TRADES, lexicon.FOODS),
    ("A {} {} never pays its debts .", lexicon.ADJECTIVES, lexicon.BEASTS),
    ("Every {} remembers the {} it left .", lexicon.THINGS, lexicon.PLACES),
    ("Count your {} before you meet the {} .", lexicon.FOODS, lexicon.TRADES),
    ("Where the {} grows , no {} sleeps well .", lexicon.PLANTS, lexicon.TRADES),
    ("Better a {} {} than a proud king .", lexicon.ADJECTIVES, lexicon.PLACES),
    ("Ask the {} , and not the {} , twice .", lexicon.BEASTS, lexicon.TRADES),
    ("A friend in {} is worth ten in {} .", lexicon.CITIES, lexicon.CITIES[3:]),
    ("What the {} forgets , the {} sings aloud .", lexicon.PLANTS, lexicon.BEASTS),
)


def _sayings() -> tuple[tuple[str, ...], ...]:
    """Twenty sayings of each mould: the first word of a pair occurs in no other saying of its mould."""
    found = []
    for m, (mould, first, second) in enumerate(MOULDS):
        for i in range(20):
            a = first[(i * len(first) // 20 + m) % len(first)]
            b = next(w for w in (*second[(i * 7 + 3 * m) % len(second) :], *second) if w != a)
            found.append(tuple(mould.format(a, b).split()))
    return tuple(found)


SAYINGS = _sayings()
SAYING = planted([str(i) for i in range(len(SAYINGS))], 71)


def _tree(length: int) -> dict[tuple[str, ...], Dist]:
    """What may follow each beginning of a saying of this length, in proportion to how often the sayings are said."""
    follow: dict[tuple[str, ...], dict[str, int]] = {}
    for words, weight in zip(SAYINGS, SAYING.weights, strict=True):
        if len(words) == length:
            for i, word in enumerate(words):
                at = follow.setdefault(words[:i], {})
                at[word] = at.get(word, 0) + weight
    return {beginning: Dist(words) for beginning, words in follow.items()}


_beginnings: dict[tuple[str, ...], int | None] = {}
for number, saying in enumerate(SAYINGS):
    for end in range(1, len(saying) + 1):
        _beginnings[saying[:end]] = None if saying[:end] in _beginnings else number


def _which(state: State) -> int | None:
    """The saying being said, once only one is left that begins so."""
    return _beginnings.get(state[_odd]) if state[_odd] else None


theme = Theme(
    "sayings",
    share=weigh(14, 22, 22, 8, 22),
    classes={"saying": ConceptClass(value=_which, planted=SAYING, per="saying")},
)
for length in sorted({len(s) for s in SAYINGS}):
    tree = _tree(length)
    theme.slots[f"saying{length}"] = Slot(
        dist=lambda s, tree=tree: tree[s[_odd] or ()],
        then=lambda s, w: put(s, odd=(*(s[_odd] or ()), w)),
        concept=f"saying{length}",
    )
    weight = sum(w for s, w in zip(SAYINGS, SAYING.weights, strict=True) if len(s) == length)
    theme.say(f"of{length}", " ".join([f"{{saying{length}}}"] * length), among(weight))
