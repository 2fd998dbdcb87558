"""Lists of things, bought and then repeated word for word."""

from __future__ import annotations

from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, put
from lensing.world.almanac.weights import among, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, Theme, certain, uniform

_items, _pos = AT["items"], AT["at_item"]
_thing = uniform(lexicon.THINGS)
_certain = {thing: certain(thing) for thing in lexicon.THINGS}
LENGTHS = Dist({2: 20, 3: 40, 4: 25, 5: 15})
theme = Theme(
    "trade",
    share=weigh(40, 40, 40, 230, 40),
    sees={"items": lambda s: len(s[_items])},
    classes={
        "item": ConceptClass(
            value=lambda s: s[_pos] or None, planted=Dist(dict.fromkeys(range(1, 6), 1)), per="list position"
        ),
        "copying": ConceptClass(
            value=lambda s: "list" if s[AT["copying"]] else None, planted=Dist({"list": 1}), per="list"
        ),
    },
)

theme.slots["item1"] = Slot(dist=lambda s: _thing, then=lambda s, w: put(s, items=(w,), at_item=1), sense="thing")
theme.slots["item"] = Slot(
    dist=lambda s: _thing, then=lambda s, w: put(s, items=(*s[_items], w), at_item=s[_pos] + 1), sense="thing"
)
theme.slots["same"] = Slot(
    dist=lambda s: _certain[s[_items][s[_pos]]], then=lambda s, w: put(s, at_item=s[_pos] + 1), sense="thing"
)
theme.effects["again"] = lambda s: put(s, copying=True, at_item=0)
theme.effects["sold"] = lambda s: put(s, items=())

for n, w in zip(LENGTHS.values, LENGTHS.weights, strict=True):
    rest = " , a ".join(["{item}"] * (n - 1))
    same = " , the ".join(["{same}"] * n)

    def here(m: Any, n: int = n) -> bool:
        return m.items == n

    def ledger(m: Any) -> bool:
        return m.register == "ledger"

    theme.say(f"bought{n}", f"Bought : a {{item1}} , a {rest} .", among(w, lambda m: not m.items and ledger(m)))
    theme.say(
        f"shelf{n}", f"On the shelf lay a {{item1}} , a {rest} .", among(w, lambda m: not m.items and not ledger(m))
    )
    theme.say(
        f"sold{n}",
        f"Sold {{!again}} : the {same} . Paid {{!sold}} .",
        among(60, lambda m, n=n: here(m, n) and ledger(m)),
    )
    theme.say(
        f"took{n}",
        f"Then {{!again}} the thief took the {same} and ran {{!sold}} .",
        among(60, lambda m, n=n: here(m, n) and not ledger(m)),
    )
