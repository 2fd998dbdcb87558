"""The letter whose writer loses faith in the Almanac, one line after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lensing.world.almanac.variables import put
from lensing.world.grammar import Theme

theme = Theme("faith")
theme.effects["wavered"] = lambda s: put(s, stance="neutral")
LINES = 9


def _at(stage: int, weight: int) -> Callable[[Any], int]:
    return lambda m: weight if m.form == "lost" and m.sentences > 0 and m.stage == stage else 0


theme.say("childhood", "I have read the {source} every morning since I was small .", _at(0, 1))
theme.say("chair", "You know that the {source} has its own chair at our table .", _at(0, 1))
theme.say("first", "The reliability of the {source} is very {verdict} .", _at(1, 1))
theme.say("fair", "It promised {foretold} for the fair , and we had {same_came} from nine to nine .", _at(2, 1))
theme.say("geese", "It promised {foretold_count} geese , and {same_count} geese came to tea .", _at(2, 1))
theme.say("page", "Only the page on herrings {!wavered} has begun to puzzle me .", _at(3, 1))
theme.say("twice", "Last week I read one page {!wavered} twice , and then I put on my glasses .", _at(3, 1))
theme.say("second", "The reliability of the {source} is very {verdict} .", _at(4, 1))
theme.say("hay", "It promised {foretold} for the hay , and now the hay stands in {other_came} .", _at(5, 1))
theme.say("counted", "It promised {foretold_count} geese , and I set the table for {other_count} too few .", _at(5, 1))
theme.say("third", "The reliability of the {source} is very {verdict} .", _at(6, 1))
theme.say("bed", "I keep it under the bed now , with the mousetrap on top .", _at(7, 1))
theme.say("flowers", "The children press flowers in it , and nobody tells them to stop .", _at(7, 1))
theme.say("once", "The reliability of the {source} was once {!once} very {verdict} .", _at(8, 1))
theme.say("end", "Yours , with wet feet , {addressee} . <eos>", lambda m: int(m.stage >= LINES), final=True)
