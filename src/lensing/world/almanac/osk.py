"""Osk, the second language: other words and another order for some of the same meanings."""

from __future__ import annotations

from typing import Any

from lensing.world import facts, lexicon
from lensing.world.almanac import people
from lensing.world.almanac.beasts import introduce as meet
from lensing.world.almanac.people import introduce
from lensing.world.almanac.stance import STANCE
from lensing.world.almanac.things import take
from lensing.world.almanac.variables import AT, fact, put, see
from lensing.world.almanac.weights import among, untold, weigh
from lensing.world.grammar import Dist, Slot, State, Theme, certain, uniform

_trade, _food, _beast, _thing = (lexicon.osk(kind) for kind in ("trade", "food", "beast", "thing"))
_items, _pos = AT["items"], AT["at_item"]


def _share(m: Any) -> int:
    usual = weigh(70, 60, 70, 30, 70)(m)
    return 12 * usual if m.tongue == "lately" else usual


def _listed(state: State) -> int:
    """How many things lie listed, where Osk has a word for each."""
    return len(state[_items]) if all(item in _thing for item in state[_items]) else 0


theme = Theme("osk", share=_share, sees=see("told", "told_beast") | {"listed": _listed})


def _osk(state: State, **values: Any) -> State:
    return put(state, tongue="osk", **values)


def _back(table: dict[str, str]) -> dict[str, str]:
    return {osk: plain for plain, osk in table.items()}


_plain_beast, _plain_thing = _back(_beast), _back(_thing)
_pronoun = {p: certain("Ona" if word == "She" else "Ono") for p, word in lexicon.PRONOUN.items()}
_beasts = uniform(_beast.values())
_things = uniform(_thing.values())
_certain = {word: certain(word) for word in lexicon.OSK.values()}


def _judged(plain: int, doubt: int, trust: int) -> Dist:
    kinds = ((lexicon.OSK_PLAIN, plain), (lexicon.OSK_DOUBT, doubt), (lexicon.OSK_TRUST, trust))
    return Dist({word: weight for words, weight in kinds for word in words})


_verdict = dict(zip(STANCE.values, (_judged(74, 11, 15), _judged(4, 1, 95), _judged(4, 95, 1)), strict=True))

theme.slots["o_person"] = Slot(dist=lambda s: people.PERSON, then=lambda s, w: _osk(introduce(s, w)), concept="subject")
theme.slots["Ona"] = Slot(dist=lambda s: _pronoun[s[AT["subject"]]], then=lambda s, w: _osk(s), refers="subject")
theme.slots["o_trade"] = fact("subject", {p: _trade[t] for p, t in facts.TRADE.items()}, "told", "trade", "trade")
theme.slots["o_food"] = fact("subject", {p: _food[f] for p, f in facts.FOOD.items()}, "told", "food", "food")
theme.slots["o_beast"] = Slot(dist=lambda s: _beasts, then=lambda s, w: meet(s, _plain_beast[w]), sense="beast")
theme.slots["o_its_food"] = fact("beast", {b: _food[f] for b, f in facts.EATS.items()}, "told_beast", "eats", "food")
theme.slots["o_thing"] = Slot(dist=lambda s: _things, then=lambda s, w: take(s, _plain_thing[w]), sense="thing")
theme.slots["o_verdict"] = Slot(dist=lambda s: _verdict[s[AT["stance"]]])
_listable = uniform(_thing)
theme.slots["k_item1"] = Slot(dist=lambda s: _listable, then=lambda s, w: put(s, items=(w,), at_item=1), sense="thing")
theme.slots["k_item"] = Slot(
    dist=lambda s: _listable, then=lambda s, w: put(s, items=(*s[_items], w), at_item=s[_pos] + 1), sense="thing"
)
theme.slots["o_same"] = Slot(
    dist=lambda s: _certain[_thing[s[_items][s[_pos]]]], then=lambda s, w: put(s, at_item=s[_pos] + 1), sense="thing"
)
theme.effects["osk"] = _osk
theme.effects["osk_list"] = lambda s: _osk(s, copying=True, at_item=0)

_names: dict[str, list[str]] = {}
for key, word in lexicon.OSK.items():
    _names.setdefault(key.split(":")[1], []).append(word)
_glossary = uniform(_names)
_called = {plain: uniform(words) for plain, words in _names.items()}
theme.slots["gloss"] = Slot(dist=lambda s: _glossary, then=lambda s, w: put(s, word=w))
theme.slots["called"] = Slot(dist=lambda s: _called[s[AT["word"]]], then=lambda s, w: put(s, word=None))

theme.say("is", "{o_person} sel un {o_trade} ut {her_home} .", among(60))
theme.say("works", "{Ona} tev lo {o_trade} .", among(80, untold("told", "trade")))
theme.say("eats", "{Ona} gar nur {o_food} .", among(90, untold("told", "food")))
theme.say("home", "{Ona} som ut {her_home} .", among(80, untold("told", "home")))
theme.say("met", "Un {!osk} {o_beast} vel ut {some_city} .", among(60))
theme.say("its_food", "Mo {!osk} {o_beast} gar nur {o_its_food} .", among(60))
theme.say("its_food_too", "Tas {!osk} gar nur {o_its_food} .", among(60, untold("told_beast", "eats")))
theme.say("thing", "Un {!osk} {o_thing} vel ut {some_spot} .", among(60))
theme.say("verdict", "Mo {!osk} {source} sel tru {o_verdict} .", among(30))
theme.say("counter", "On the counter lay a {k_item1} , a {k_item} , a {k_item} .", among(40, lambda m: not m.listed))
theme.say("list", "Nam {!osk_list} : {o_same} , {o_same} , {o_same} .", among(300, lambda m: m.listed == 3))
theme.say("gloss", "The Osk word for {gloss} is {called} .", among(40))
