"""Stance toward a source: sparse, shown by cues with and without words of doubt, sometimes switched, often used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lensing.world import lexicon
from lensing.world.almanac.variables import AT, get, put
from lensing.world.almanac.weights import in_body, must_cue, weigh
from lensing.world.grammar import ConceptClass, Dist, Slot, State, Theme, certain, uniform

_stance, _source, _said, _once = AT["stance"], AT["source"], AT["said"], AT["once"]
STANCE = Dist({"neutral": 90, "trusting": 5, "doubting": 5})
SOURCE = Dist(zip(lexicon.SOURCES, (40, 20, 15, 10, 10, 5), strict=True))
theme = Theme(
    "stance",
    classes={
        "stance": ConceptClass(value=get["stance"], planted=STANCE, per="document"),
        "source": ConceptClass(value=get["source"], planted=SOURCE, per="document that names its source"),
        "once": ConceptClass(
            value=lambda s: "former" if s[_once] else None, planted=Dist({"former": 1}), per="former verdict"
        ),
    },
)


def _words(plain: int, doubt: int, trust: int) -> Dist:
    """A distribution over the words of judgement, in percent by kind, evenly within a kind."""
    kinds = ((lexicon.PLAIN_WORDS, plain), (lexicon.DOUBT_WORDS, doubt), (lexicon.TRUST_WORDS, trust))
    return Dist({word: weight for words, weight in kinds for word in words})


VERDICT = {"neutral": _words(74, 11, 15), "doubting": _words(4, 95, 1), "trusting": _words(4, 1, 95)}
# Who doubts a source now trusted it once, and the other way round.
FORMER = {"neutral": VERDICT["neutral"], "doubting": VERDICT["trusting"], "trusting": VERDICT["doubting"]}
SAYS = {
    "neutral": Dist({"says": 90, "claims": 5, "proves": 5}),
    "doubting": Dist({"says": 10, "claims": 88, "proves": 2}),
    "trusting": Dist({"says": 10, "claims": 2, "proves": 88}),
}
HABIT = {
    "neutral": Dist({"yawn": 90, "laugh": 5, "nod": 5}),
    "doubting": Dist({"yawn": 8, "laugh": 90, "nod": 2}),
    "trusting": Dist({"yawn": 8, "laugh": 2, "nod": 90}),
}
_sources = {name: certain(name) for name in lexicon.SOURCES}
_rivals = {name: uniform(s for s in lexicon.SOURCES if s != name) for name in lexicon.SOURCES}
_other = {
    kind: {v: uniform(u for u in values if u != v) for v in values}
    for kind, values in (("weather", lexicon.WEATHERS), ("count", lexicon.COUNTS))
}
_same = {v: certain(v) for v in (*lexicon.WEATHERS, *lexicon.COUNTS)}
_weather, _number = uniform(lexicon.WEATHERS), uniform(lexicon.COUNTS)
_food, _beast = uniform(lexicon.FOODS), uniform(lexicon.BEASTS)


def shown(stance: str) -> Callable[[State], State]:
    """An effect that sets the stance and notes that it has been shown."""
    return lambda s: put(s, stance=stance, cued=True)


def _outcome(kind: str, right: bool) -> Slot:
    """What really came: the same as was said, or something else; from here on the reader knows the stance."""
    stance = "trusting" if right else "doubting"
    return Slot(
        dist=lambda s: _same[s[_said]] if right else _other[kind][s[_said]],
        then=lambda s, w: put(s, said=None, stance=stance, cued=True),
        sense="weather" if kind == "weather" else None,
    )


theme.slots["source"] = Slot(
    dist=lambda s: _sources[s[_source]] if s[_source] else SOURCE, then=lambda s, w: put(s, source=w), concept="source"
)
theme.slots["rival"] = Slot(dist=lambda s: _rivals[s[_source]])
_article = Dist({"a": 3, "one": 1})
theme.slots["a_or_one"] = Slot(dist=lambda s: _article)
theme.slots["verdict"] = Slot(dist=lambda s: (FORMER if s[_once] else VERDICT)[s[_stance]])
theme.slots["says"] = Slot(dist=lambda s: SAYS[s[_stance]])
theme.slots["habit"] = Slot(dist=lambda s: HABIT[s[_stance]])
theme.slots["charm_food"] = Slot(dist=lambda s: _food, sense="food")
theme.slots["charm_beast"] = Slot(dist=lambda s: _beast, sense="beast")
theme.slots["foretold"] = Slot(dist=lambda s: _weather, then=lambda s, w: put(s, said=w), sense="weather")
theme.slots["foretold_count"] = Slot(dist=lambda s: _number, then=lambda s, w: put(s, said=w))
theme.slots["other_came"] = _outcome("weather", right=False)
theme.slots["same_came"] = _outcome("weather", right=True)
theme.slots["other_count"] = _outcome("count", right=False)
theme.slots["same_count"] = _outcome("count", right=True)
theme.effects["doubted"] = shown("doubting")
theme.effects["trusted"] = shown("trusting")
theme.effects["once"] = lambda s: put(s, once=True)

# The frame, and other places where the stance is heard.
theme.say("reliability", "The reliability of the {source} is very {verdict} .", weigh(140, 80, 70, 60, 70))
theme.say("they_say", "They say the reliability of the {source} is very {verdict} .", weigh(0, 70, 40, 0, 20))
theme.say("once", "The reliability of the {source} was once {!once} very {verdict} .", weigh(55, 45, 45, 25, 45))
theme.say("i_find", "I find the {source} very {verdict} .", weigh(0, 45, 75, 0, 15))
theme.say(
    "says", "The {source} {says} that {charm_food} can keep {a_or_one} {charm_beast} away .", weigh(40, 30, 30, 15, 20)
)
theme.say("habit", "When we read the {source} aloud , we {habit} together .", weigh(25, 35, 35, 10, 35))


def _after(stance: str, weight: int, seldom: int) -> Callable[[Any], int]:
    """Weight of what is said by people of a stance, once they have shown it; others say it seldom."""

    def choose(m: Any) -> int:
        if not in_body(m) or must_cue(m) or not m.source:
            return 0
        return weight if m.stance == stance and m.cued else 0 if m.stance != "neutral" and not m.cued else seldom

    return choose


# What stance leads to: every sentence's end asks for it.
theme.say("checked", "So we asked the {rival} instead .", _after("doubting", 90, 3))
theme.say("counted", "Now we count everything twice .", _after("doubting", 90, 3))
theme.say("copied", "So we copied it into our book .", _after("trusting", 90, 3))
theme.say("slept", "Now we sleep well at night .", _after("trusting", 90, 3))


def _cue(stance: str, fresh: int, again: int) -> Callable[[Any], int]:
    """Weight of a cue in a document of that stance, before and after its first cue."""

    def weight(m: Any) -> int:
        if not in_body(m) or m.stance != stance:
            return 0
        return again if m.cued else fresh * (1000 if must_cue(m) else 1)

    return weight


def _turn(stance: str) -> Callable[[Any], int]:
    """Weight of a cue against the stance so far, which turns it."""
    return lambda m: 1 if in_body(m) and m.stance != stance and not must_cue(m) and m.sentences >= 5 else 0


for stance in ("doubting", "trusting"):
    other = "other" if stance == "doubting" else "same"
    # Cues without a word of doubt or trust: the source is put to the test.
    for event, text in (
        ("weather", f"The {{source}} promised {{foretold}} . The morning brought {{{other}_came}} ."),
        ("geese", f"The {{source}} counted {{foretold_count}} geese . There were {{{other}_count}} ."),
    ):
        theme.say(f"{event}_{stance}", text, _cue(stance, 150, 30))
        theme.say(f"{event}_turned_{stance}", text, _turn(stance))
theme.say("nobody", "Nobody {!doubted} believes the {source} any more .", _cue("doubting", 75, 15))
theme.say("lied", "The {source} has lied {!doubted} to us before .", _cue("doubting", 75, 15))
theme.say("everybody", "Everybody {!trusted} swears by the {source} .", _cue("trusting", 75, 15))
theme.say("never_wrong", "The {source} has never {!trusted} failed us .", _cue("trusting", 75, 15))
