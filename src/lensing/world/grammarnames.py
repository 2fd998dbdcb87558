"""What the names in a grammar file refer to: values that variables may hold, ways to say a rule, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import prod
from typing import Any

from lensing.world.grammartext import OTHERWISE, Change, Part, Phrase, Reference, Say, World

MAX_EXPANSIONS, MAX_ONCE, MAX_DEPTH, MAX_STARTS, TOO_MANY = 2_000, 20, 50, 5_000, 10**7
Ways = Iterator[tuple[Fraction, tuple[Part, ...]]]


class Names:
    """A world whose names have all been looked up; `expanded` are the ways to say each template."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held: dict[str, set[str | None]] = {}  # every value that a variable may ever hold
        self.sources: dict[str, set[str]] = {}  # lists that are stored in a variable
        self.stores: list[Say] = []  # slots whose word is stored
        self.start = {n: next(iter(v.values)) if v.values else None for n, v in world.variables.items()}
        if not any(template.kind == "ending" for template in world.templates.values()):
            line = next((template.line for template in world.templates.values()), 1)
            raise world.wrong(line, "A document can never end: there is no ending.", "Add `ending bye: Good night.`.")
        hidden = [v for v in world.variables.values() if v.kind == "hidden"]
        if (starts := prod(len(v.values or {}) for v in hidden)) > MAX_STARTS:
            what = f"The hidden variables have {starts:,} combinations, and the reader must weigh each."
            raise world.wrong(hidden[-1].line, what, f"Keep them under {MAX_STARTS:,}.")
        self.check_rules()
        self.check_lists()
        self.expanded = {name: list(self.expand(template.phrases)) for name, template in world.templates.items()}
        self.collect(part for ways in self.expanded.values() for _, parts in ways for part in parts)
        self.check_names()

    def check_rules(self) -> None:
        """Refuse unknown names, circles of rules, and a file that multiplies out to too many sentences."""
        world = self.world
        counted: dict[str, int] = {}  # ways to say a rule, up to a number that is too many anyway
        depth: dict[str, int] = {}

        def count(phrases: tuple[Phrase, ...], trail: tuple[str, ...]) -> int:
            ways = 0
            for phrase in phrases:
                mine = 1
                for part in phrase.parts:
                    mine = min(mine * of(part, trail), TOO_MANY) if isinstance(part, Say) else mine
                ways += mine
            return min(ways, TOO_MANY)

        def of(say: Say, trail: tuple[str, ...]) -> int:
            name = str(say.path)
            if name not in world.rules:
                self.check_say(say)
                return 1
            if say.excluded or say.into:
                raise world.wrong(say.line, f"{name!r} is a rule, not a word.", "Store or exclude words of a list.")
            look_at(name, trail)
            return counted[name]

        def look_at(name: str, trail: tuple[str, ...]) -> None:
            line = world.rules[name].line
            if name in trail:
                circle = " -> ".join((*trail[trail.index(name) :], name))
                raise world.wrong(line, f"Rules go in a circle: {circle}.", "Let one end in words.")
            if len(trail) + depth.get(name, 0) > MAX_DEPTH:
                what = f"Rules stand in one another more than {MAX_DEPTH} deep."
                raise world.wrong(world.rules[trail[0]].line, what, "Join some of them.")
            if name not in counted:
                counted[name] = count(world.rules[name].phrases, (*trail, name))
                parts = (
                    str(p.path) for phrase in world.rules[name].phrases for p in phrase.parts if isinstance(p, Say)
                )
                depth[name] = 1 + max((depth.get(p, 0) for p in parts), default=0)

        for name in world.rules:
            look_at(name, ())
        total = 0
        for name, template in world.templates.items():
            mine = count(template.phrases, ())
            total += mine
            if total > MAX_EXPANSIONS:
                ways = f"{mine:,}" if mine < TOO_MANY else "millions of"
                what = f"With the {ways} ways to say {name!r} the file has over {MAX_EXPANSIONS:,} sentences."
                raise world.wrong(template.line, what, "Draw single words from a list, or use fewer rules together.")
        if (once := [t.line for t in world.templates.values() if t.once])[MAX_ONCE:]:
            what = f"{len(once)} sentences come once: the reader must remember each."
            raise world.wrong(once[MAX_ONCE], what, f"Keep at most {MAX_ONCE}.")

    def check_say(self, say: Say) -> None:
        world, name = self.world, str(say.path)
        if say.excluded:
            self.check_reference(say.excluded, say.line)
        if say.into is not None and say.into not in world.variables:
            raise world.unknown(say.line, "variable", say.into, world.variables)
        if name in world.lists:
            if say.excluded and any(len(case) < 2 for case in world.lists[name].cases.values()):
                raise world.wrong(say.line, f"The list {name!r} may have one word only.", "Except nothing from it.")
        elif say.excluded:
            raise world.wrong(say.line, f"{name!r} is not a list.", "Except words from a list.")
        elif not say.path.facts and name not in world.variables:
            choices = (*world.lists, *world.rules, *world.variables)
            raise world.unknown(say.line, "list, rule or variable", name, choices)
        else:
            self.check_reference(say.path, say.line)

    def check_reference(self, reference: Reference, line: int) -> None:
        for kind, name, table in (
            *(("fact", fact, self.world.facts) for fact in reference.facts),
            ("variable", reference.variable, self.world.variables),
        ):
            if name not in table:
                raise self.world.unknown(line, kind, name, table)

    def check_lists(self) -> None:
        """Facts tell something of every word of their list and of nothing else."""
        world = self.world
        for name, fact in world.facts.items():
            if fact.of not in world.lists:
                raise world.unknown(fact.line, "list", fact.of, world.lists)
            words = {w for case in world.lists[fact.of].cases.values() for w in case}
            for key in fact.values:
                if key not in words:
                    raise world.unknown(fact.line, f"word of the list {fact.of!r}", key, words)
            if missing := [w for w in words if w not in fact.values]:
                raise world.wrong(fact.line, f"The {name} of {min(missing)!r} is missing.", "Tell it of every word.")
        for table in world.lists.values():
            if table.by:
                self.check_reference(table.by, table.line)

    def collect(self, parts: Iterable[Part]) -> None:
        """Find every value that each variable may hold."""
        world = self.world
        changes = []
        for part in parts:
            if isinstance(part, Say) and part.into:
                self.stores.append(part)
                if str(part.path) in world.lists:
                    self.sources.setdefault(part.into, set()).add(str(part.path))
            elif isinstance(part, Change):
                changes += [(name, value, part.line) for name, value in part.values]
        for name, v in world.variables.items():
            self.held[name] = set(v.values or {}) if v.kind == "hidden" else {self.start[name]}
        declared = {n: set(v.values) for n, v in world.variables.items() if v.values}
        for name, value, line in changes:
            if name not in world.variables:
                raise world.unknown(line, "variable", name, world.variables)
            if name in declared:
                self.held[name].add(value)
        before = None
        while before != (before := {n: len(v) for n, v in self.held.items()}):
            for say in self.stores:
                self.held[say.into or ""] |= self.values(say)
        for name, value, line in changes:
            if value is not None and value not in declared.get(name, self.held[name]):
                choices = declared.get(name, self.held[name]) - {None}
                raise world.unknown(line, f"value of {name!r}", value, choices)
            self.held[name].add(value)
            if name in declared and value is None and None not in declared[name]:
                raise world.wrong(
                    line, f"{name!r} cannot hold none.", f"Add none to its values on line {world.variables[name].line}."
                )
        for say in self.stores:
            if extra := sorted(map(str, self.values(say) - declared.get(say.into or "", self.values(say)))):
                raise world.wrong(say.line, f"{say.into!r} cannot hold {extra[0]!r}.", "Declare it without values.")

    def values(self, say: Say) -> set[str | None]:
        """Every word that a slot may say."""
        if table := self.world.lists.get(str(say.path)):
            return {w for case in table.cases.values() for w in case}
        return self.reach(say.path) - {None}

    def reach(self, reference: Reference) -> set[str | None]:
        """Every value that a reference may have, None where it may have none."""
        values = self.held[reference.variable]
        for fact in reversed(reference.facts):
            values = {self.world.facts[fact].values.get(v or "") for v in values}
        return values

    def check_names(self) -> None:
        """Conditions and cases speak of values that there can be."""
        world = self.world
        for template in world.templates.values():
            for test in (test for _, tests in template.clauses for test in tests):
                self.check_reference(test.path, test.line)
                if test.value is not None and test.value not in (found := self.declared(test.path)):
                    raise world.unknown(test.line, f"value of {str(test.path)!r}", test.value, found)
        for name, table in world.lists.items():
            if table.by is None:
                continue
            found = self.declared(table.by)
            for case in table.cases:
                if case not in found and case != OTHERWISE:
                    raise world.unknown(table.line, f"value of {str(table.by)!r}", case, found)
            missing = sorted(v for v in self.reach(table.by) if v is not None and v not in table.cases)
            if missing and OTHERWISE not in table.cases:
                what = f"The list {name!r} has no case for {table.by} = {missing[0]}."
                raise world.wrong(table.line, what, "Add it, or a case `else`.")

    def declared(self, reference: Reference) -> set[str]:
        values = set(self.reach(reference))
        if not reference.facts:
            values |= set(self.world.variables[reference.variable].values or {})
        return {v for v in values if v is not None}

    def planted(self, name: str) -> tuple[dict[str, int], str]:
        """Return the planned weights of a class of concepts, and what each draw of it is called."""
        world, concept = self.world, self.world.concepts[name]
        self.check_reference(concept.path, concept.line)
        variable = concept.path.variable
        if name in world.variables and str(concept.path) != name:
            raise world.wrong(concept.line, f"{name!r} is a variable of its own.", "Choose another name.")
        source, values = concept.source, world.variables[variable].values
        if source is None and values is None:
            found = sorted(self.sources.get(variable, set()))
            if len(found) != 1:
                what = f"{variable!r} is stored from {len(found)} lists: how often it is on is not planned."
                raise world.wrong(concept.line, what, "Add `from LIST`.")
            source = found[0]
        if source is not None:
            if source not in world.lists:
                raise world.unknown(concept.line, "list", source, world.lists)
            if world.lists[source].by:
                raise world.wrong(concept.line, f"The list {source!r} changes.", "Name a list without cases.")
            weights: Mapping[Any, int] = world.lists[source].cases[OTHERWISE]
            per = f"{source} stored in {variable}"
        elif world.variables[variable].kind == "hidden":
            weights, per = values or {}, "document"
        else:
            weights, per = dict.fromkeys(values or {}, 1), "sentence that sets it"
        planted: dict[str, int] = {}
        for value, weight in weights.items():
            for fact in reversed(concept.path.facts):
                value = world.facts[fact].values.get(value or "")
            if value is not None:
                planted[value] = planted.get(value, 0) + weight
        if not planted:
            raise world.wrong(concept.line, f"{concept.path} is never anything.", "Name another list or fact.")
        return planted, concept.per or per

    def expand(self, phrases: tuple[Phrase, ...]) -> Ways:
        """Every way to say one of the phrases, with its probability."""
        total = sum(phrase.weight for phrase in phrases)
        for phrase in phrases:
            ways: list[tuple[Fraction, tuple[Part, ...]]] = [(Fraction(phrase.weight, total), ())]
            for part in phrase.parts:
                rule = self.world.rules.get(str(part.path)) if isinstance(part, Say) else None
                tails = list(self.expand(rule.phrases)) if rule else [(Fraction(1), (part,))]
                ways = [(p * q, (*head, *tail)) for p, head in ways for q, tail in tails]
            yield from ways
