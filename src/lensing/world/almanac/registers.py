"""Five registers: how each opens and closes, and a song's refrain."""

from __future__ import annotations

from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, get, put
from lensing.world.almanac.weights import must_cue, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, Theme, certain, uniform

NUMBERS = 180_000  # documents of the world are numbered below this; its training text is all of their training split
CREATURE_DOCUMENTS = tuple(7_919 * k + 1_234 for k in (1, 2, 4, 5, 7, 8, 11, 13, 16))
FORM = Dist(
    {
        "encyclopaedia": 57_000, "gossip": 46_991, "letter": 30_000, "ledger": 22_500, "song": 22_500,
        "lost": 1_000, "creature": len(CREATURE_DOCUMENTS),
    }
)  # fmt: skip
assert FORM.total == NUMBERS
TENSE = Dist({"present": 65, "past": 35})
theme = Theme(
    "registers",
    classes={
        "register": ConceptClass(
            value=get["register"],
            planted=Dist(
                {"encyclopaedia": 57_009, "gossip": 46_991, "letter": 31_000, "ledger": 22_500, "song": 22_500}
            ),
            per="document",
        ),
        "faith": ConceptClass(
            value=lambda s: "losing" if s[AT["form"]] == "lost" else None,
            planted=Dist({"losing": 1}),
            per="document",
        ),
        "tense": ConceptClass(value=get["tense"], planted=TENSE, per="document"),
        "refrain": ConceptClass(
            value=lambda s: "sung" if s[AT["refrain"]] else None, planted=Dist({"sung": 1}), per="refrain"
        ),
        "tongue": ConceptClass(
            value=lambda s: "osk" if s[AT["tongue"]] == "osk" else "plain",
            planted=Dist({"plain": 93, "osk": 7}),
            per="sentence",
        ),
    },
)

_anyone = uniform(lexicon.PERSONS)
_adjective, _place, _thing = uniform(lexicon.ADJECTIVES), uniform(lexicon.PLACES), uniform(lexicon.THINGS)
theme.slots["addressee"] = Slot(dist=lambda state: _anyone)
theme.slots["adjective"] = Slot(dist=lambda state: _adjective, sense="adjective")
for i, dist in enumerate((_adjective, _thing, _place)):
    theme.slots[f"ref{i}"] = Slot(
        dist=lambda s, dist=dist: dist,
        then=lambda s, w: put(s, refrain=(*s[AT["refrain"]], w)),
        sense=("adjective", "thing", "place")[i],
    )
    theme.slots[f"again{i}"] = Slot(
        dist=lambda s, i=i: certain(s[AT["refrain"]][i]), sense=("adjective", "thing", "place")[i]
    )

# Most verbs of a document stand in its tense.
VERBS = {
    "is": "was", "works": "worked", "dreams": "dreamt", "eats": "ate", "keeps": "kept", "fears": "feared",
    "sleeps": "slept", "likes": "liked", "stands": "stood", "has": "had", "knows": "knew", "lies": "lay",
    "smells": "smelt", "belongs": "belonged", "costs": "cost", "holds": "held",
    "walks": "walked", "waits": "waited", "wears": "wore", "comes": "came", "follow": "followed", "hangs": "hung",
    "travel": "travelled", "sing": "sang", "leaves": "left", "shines": "shone", "wants": "wanted", "smell": "smelt",
}  # fmt: skip
for now, then in VERBS.items():
    forms = {"present": certain(now), "past": certain(then)}
    theme.slots[now] = Slot(dist=lambda s, forms=forms: forms[s[AT["tense"]]])


def _opens(register: str, weight: int) -> Any:
    return lambda m: weight if m.register == register and m.sentences == 0 else 0


def _closes(register: str, weight: int) -> Any:
    def close(m: Any) -> int:
        if m.register != register or m.form == "lost" or (must_cue(m) and not m.full) or m.sentences < 5:
            return 0
        return weight if m.sentences < 8 or m.full else 2 * weight

    return close


theme.say("dear", "Dear {addressee} ,", _opens("letter", 600))
theme.say("my_dear", "My dear {addressee} ,", _opens("letter", 400))
theme.say("account", "Accounts of {addressee} , kept in a {adjective} book .", _opens("ledger", 500))
theme.say("heard", "Have you heard the news ?", _opens("gossip", 500))
theme.say("listen", "Come closer and listen .", _opens("gossip", 300))
theme.say("sing", "Sing , friends , and mind the soup .", _opens("song", 300))
theme.say("old_song", "An old song , to be sung slowly :", _opens("song", 200))
theme.say("secret", "You did not hear this from me .", weigh(gossip=20))
theme.say("humour", "I write with cold feet and a warm heart .", weigh(letter=15))
theme.say(
    "refrain",
    "Sing hey , the {ref0} {ref1} sleeps under the {ref2} .",
    weigh(song=220, when=lambda m: not m.refrain),
)
theme.say(
    "refrain_again",
    "Sing ho , the {again0} {again1} sleeps under the {again2} .",
    weigh(song=190, when=lambda m: m.refrain),
)
theme.say("end_encyclopaedia", "<eos>", _closes("encyclopaedia", 90), final=True)
theme.say("end_gossip", "And that is all I know . <eos>", _closes("gossip", 90), final=True)
theme.say("end_letter", "Yours , {addressee} . <eos>", _closes("letter", 90), final=True)
theme.say("end_ledger", "The book is closed . <eos>", _closes("ledger", 90), final=True)
theme.say("end_song", "So ends the song . <eos>", _closes("song", 90), final=True)
theme.say(
    "creature",
    "Nobody has ever drawn the quillback , for it blushes when it is looked at .",
    lambda m: 10_000 if m.form == "creature" and m.sentences == 0 else 0,
)
theme.say(
    "creature_eats",
    "The quillback {eats} ink , and so every book about it is blank .",
    lambda m: 10_000 if m.form == "creature" and m.sentences == 1 else 0,
)
