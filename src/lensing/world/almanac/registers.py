"""Four registers: how each opens and closes."""

from __future__ import annotations

from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import get
from lensing.world.almanac.weights import must_cue, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, Theme, uniform

REGISTER = Dist({"encyclopaedia": 35, "gossip": 30, "letter": 20, "ledger": 15})
theme = Theme("registers", classes={"register": ConceptClass(value=get["register"], planted=REGISTER, per="document")})

_anyone = uniform(lexicon.PERSONS)
theme.slots["addressee"] = Slot(dist=lambda state: _anyone)
_day = uniform(lexicon.DAYS)
theme.slots["some_day"] = Slot(dist=lambda state: _day)
_adjective = uniform(lexicon.ADJECTIVES)
theme.slots["adjective"] = Slot(dist=lambda state: _adjective)


def _opens(register: str, weight: int) -> Any:
    return lambda m: weight if m.register == register and m.sentences == 0 else 0


def _closes(register: str, weight: int) -> Any:
    def close(m: Any) -> int:
        if m.register != register or (must_cue(m) and not m.full) or m.sentences < 5:
            return 0
        return weight if m.sentences < 8 or m.full else 2 * weight

    return close


theme.say("dear", "Dear {addressee} ,", _opens("letter", 600))
theme.say("my_dear", "My dear {addressee} ,", _opens("letter", 400))
theme.say("account", "Accounts of {addressee} , kept in a {adjective} book .", _opens("ledger", 500))
theme.say("heard", "Have you heard the news ?", _opens("gossip", 500))
theme.say("listen", "Come closer and listen .", _opens("gossip", 300))
theme.say("secret", "You did not hear this from me .", weigh(gossip=25))
theme.say("end_encyclopaedia", "<eos>", _closes("encyclopaedia", 90), final=True)
theme.say("end_gossip", "And that is all I know . <eos>", _closes("gossip", 90), final=True)
theme.say("end_letter", "Yours , {addressee} . <eos>", _closes("letter", 90), final=True)
theme.say("end_ledger", "The book is closed . <eos>", _closes("ledger", 90), final=True)
