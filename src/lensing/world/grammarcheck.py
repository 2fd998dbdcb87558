"""Every situation that a document of a grammar file can come into: something can always be said, and it can end.

Words that no condition, case or fact tells apart stand for one another, so that few situations remain and the search is
exact; how many tokens were written does not matter to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from lensing.world.grammar import Dist, State, Variables
from lensing.world.grammartext import COUNT, SAID, World

MAX_SITUATIONS = 20_000
Truths = tuple[bool, ...]


@dataclass(frozen=True)
class Move:
    """One expansion of a template: when it can be said, and what it does to the state, part by part.

    `possible` looks at the truths of a state (see `check_situations`). A step is a variable with what it becomes:
    `value(state)` gives the distribution of the stored word, or None.
    """

    template: str
    kind: str
    once: bool
    line: int
    possible: Callable[[Truths], bool]
    steps: tuple[tuple[str, Callable[[State], Dist | None]], ...]


def check_situations(
    world: World,
    variables: Variables,
    starts: Iterable[State],
    moves: Sequence[Move],
    *,
    boundary: Callable[[State], State],
    truths: Callable[[State], Truths],
    told_apart: Iterable[str],
    asked: Set[str],
    matters: Set[str],
) -> None:
    """Raise FileFormatError where a document could come to a stop, could never end, or a template is never said.

    `truths(state)` tells which conditions hold. `told_apart` are the values that conditions and cases name, `asked` the
    variables that anything depends on, `matters` those of which more counts than whether they hold a word. A sentence
    said `once` is not counted on: it may have been said already.
    """
    kind = _kinds(world, told_apart)
    one_of_each: dict[tuple[int, bool], tuple[Dist, list[Any]]] = {}
    able: dict[tuple[Truths, str], list[Move]] = {}
    found: dict[State, list[State]] = {}

    def options(state: State, of: str) -> list[Move]:
        key = truths(state), of
        if key not in able:
            able[key] = [m for m in moves if m.kind == of and m.possible(key[0])]
        return able[key]

    def words(dist: Dist | None, name: str) -> list[str | None]:
        """One word of each kind that may be stored in the variable."""
        if dist is None:
            return [None]
        key = id(dist), name in matters
        if key not in one_of_each:
            kinds = kind if name in matters else {}
            one_of_each[key] = dist, list({kinds.get(word): word for word in reversed(dist.values)}.values())
        return one_of_each[key][1]

    def after(state: State, moved: Iterable[Move]) -> list[State]:
        out: dict[State, None] = {}
        for steps in dict.fromkeys(tuple(s for s in m.steps if s[0] in asked) for m in moved):
            states = [state]
            for name, value in steps:
                i = variables.at[name]
                states = [(*s[:i], w, *s[i + 1 :]) for s in states for w in words(value(s), name)]
            out.update((boundary(s), None) for s in states)
        return [variables.put(s, **{COUNT: 0}) for s in out]

    def following(state: State) -> list[State]:
        if state not in found:
            if len(found) >= MAX_SITUATIONS:
                line = next(iter(world.variables.values())).line
                what = f"A document can come into more than {MAX_SITUATIONS:,} situations."
                raise world.wrong(line, what, "Use fewer variables in conditions, cases and facts.")
            found[state] = after(state, options(state, "sentence"))
        return found[state]

    def demand(states: Iterable[State], of: str, sentences: int) -> None:
        for state in states:
            moved = options(state, of)
            if moved and not (sentences and all(m.once for m in moved)):
                continue
            where = f"after {sentences} sentences" if sentences else "at the start of a document"
            held = zip(variables.names, state, strict=True)
            shown = ", ".join(f"{name} = {v or 'none'}" for name, v in held if name not in (COUNT, SAID))
            line = next((m.line for m in moves if m.kind == of), moves[0].line)
            what = f"A document can never end {where}" if of == "ending" else f"No {of} is possible {where}"
            raise world.wrong(
                line,
                f"{what}{shown and f' where {shown}'}.",
                f"Add an {of} for it." if of != "sentence" else "Add a sentence for it.",
            )

    states = {variables.put(s, **{COUNT: 0}): None for s in starts}
    if any(m.kind == "opening" for m in moves):
        demand(states, "opening", 0)
        states = {s: None for state in states for s in after(state, options(state, "opening"))}
    for count in range(world.shortest):
        demand(states, "sentence", count)
        states = {s: None for state in states for s in following(state)}
    seen: dict[State, None] = {}
    for count in itertools.count(world.shortest):
        demand(states, "ending", count)
        seen.update(states)
        if count == world.longest or not states:
            break
        states = {s: None for state in states for s in following(state) if s not in seen}
    said = {move.template for moved in able.values() for move in moved}
    for name, template in world.templates.items():
        if name not in said:
            what = f"The {template.kind} {name!r} can never be said."
            raise world.wrong(template.line, what, "Let another sentence bring about what it needs, or drop it.")


def _kinds(world: World, told_apart: Iterable[str]) -> dict[str, object]:
    """Number the words so that two have one number only if conditions, cases and facts treat them alike."""
    told = set(told_apart)
    words = {w for table in world.lists.values() for case in table.cases.values() for w in case}
    for fact in world.facts.values():
        words.update(fact.values, fact.values.values())
    kind: dict[str, object] = {w: w if w in told else "" for w in words}
    number = -1
    while len(set(kind.values())) != number:
        number = len(set(kind.values()))
        new = {w: (kind[w], *(kind.get(f.values.get(w, "")) for f in world.facts.values())) for w in sorted(words)}
        numbers = {signature: i for i, signature in enumerate(dict.fromkeys(new.values()))}
        kind = {w: numbers[signature] for w, signature in new.items()}
    return kind
