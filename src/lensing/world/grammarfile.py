"""Worlds written in a plain text file: `read_grammar` compiles one into a Grammar like any other (see docs/worlds.md).

Alternatives and rules are multiplied out into sentences whose weights are the products, so that sampling, the exact
filter, truth and tokenizer need to know nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import lcm
from pathlib import Path
from typing import Any

from lensing.world.grammar import ConceptClass, Dist, Grammar, Slot, State, Theme, Variables, certain
from lensing.world.grammarcheck import Move, Truths, check_situations
from lensing.world.grammarnames import Names
from lensing.world.grammarparser import read_statements
from lensing.world.grammartext import (
    COUNT,
    OTHERWISE,
    SAID,
    Change,
    Condition,
    Part,
    Reference,
    Say,
    Template,
    Word,
    WordList,
    World,
)  # fmt: skip
from lensing.world.sample import EOS

MAX_WORDS, MAX_WEIGHT = 60_000, 2**48
Get = Callable[[State], Any]
Keys = tuple[tuple[str, bool], ...]  # conditions by their label on the menu
Clauses = tuple[tuple[int, Keys], ...]


def read_grammar(path: str | Path) -> Grammar:
    """Compile a grammar file; FileFormatError `FILE:LINE: ...` where it makes no sense, UsageError where it is not."""
    return _Compiler(read_statements(path)).grammar()


@cache
def held_out() -> Grammar:
    """Return the held-out world, on which nobody tunes anything (read once)."""
    return read_grammar(Path(__file__).with_name("heldout.grammar"))


def find_grammar(name: str) -> Grammar:
    """Return the world called `almanac` or `heldout`, or else the one that the file of that path describes."""
    if name == "almanac":
        from lensing.world.almanac.grammar import almanac

        return almanac()
    return held_out() if name == "heldout" else read_grammar(name)


class _Compiler:
    """Turns statements into slots, effects and weights of one theme."""

    def __init__(self, world: World) -> None:
        self.world, self.names = world, Names(world)
        self.readers: dict[Reference, Get] = {}
        self.dists: dict[tuple[Reference, Reference | None], Callable[[State], Dist]] = {}
        self.sets: dict[str | None, Callable[[State], Dist | None]] = {}
        self.atoms: dict[tuple[Reference, str | None], str] = {}  # what weights may look at
        self.said: dict[str, None] = {}  # words that slots say
        self.used: dict[Any, str] = {}  # slots and effects by what they do
        self.theme = Theme(world.name)
        start: dict[str, Any] = dict(self.names.start)
        opens = any(t.kind == "opening" for t in world.templates.values())
        self.variables = Variables(**start, **{COUNT: -1 if opens else 0, SAID: frozenset()})

    def grammar(self) -> Grammar:
        """Build the grammar, then try every situation in it."""
        world = self.world
        moves = self.sentences()
        full = self.room(moves[0].line)
        for name, concept in world.concepts.items():
            planted, per = self.names.planted(name)
            self.theme.classes[name] = ConceptClass(value=self.reader(concept.path), planted=Dist(planted), per=per)
        boundary = self.boundary()
        once = {n: f"{n} was said" for n, t in world.templates.items() if t.once}
        grammar = Grammar(
            variables=self.variables,
            hidden={n: Dist(v.values or {}) for n, v in world.variables.items() if v.kind == "hidden"},
            themes=[self.theme],
            menu_names=("may open", "may go on", "may end", *self.atoms.values(), *once.values()),
            menu_key=self.menu_key(full, tuple(once)),
            boundary=boundary,
            words=self.said,
            max_tokens=world.max_tokens,
        )
        if (n := len(grammar.words)) > MAX_WORDS:
            raise world.wrong(1, f"The file has {n:,} words.", f"At most {MAX_WORDS:,} fit the tokenizer.")
        # A list's cases can change what a document comes into only where its words are stored.
        cases = [t for t in (world.lists.get(str(say.path)) for say in self.names.stores) if t and t.by]
        deep = [reference for reference, value in self.atoms if value or reference.facts]
        deep += [table.by for table in cases if table.by]
        deep += [
            r for say in self.names.stores for r in (say.path, say.excluded) if r and r.variable in world.variables
        ]
        check_situations(
            world,
            self.variables,
            [state for state, _ in grammar.starts()],
            moves,
            boundary=boundary,
            truths=self.truths(),
            told_apart={value for _, value in self.atoms if value} | {c for table in cases for c in table.cases},
            asked={reference.variable for reference in (*deep, *(reference for reference, _ in self.atoms))},
            matters={reference.variable for reference in deep},
        )
        return grammar

    def sentences(self) -> list[Move]:
        """Add every way to say every template to the theme."""
        moves, total = [], 0
        scale = lcm(*(p.denominator for ways in self.names.expanded.values() for p, _ in ways))
        for name, template in self.world.templates.items():
            clauses = self.clauses(template)
            ways = self.names.expanded[name]
            for i, (p, parts) in enumerate(ways):
                guard, steps = self.follow(parts)
                text = self.text(parts, name if template.once else None)
                text = text if template.kind != "ending" else f"{text} {EOS}"
                keys = self.keys(guard)
                weight = _weigh(template, name, clauses, keys, int(p * scale))
                title = name if len(ways) == 1 else f"{name}/{i + 1}"
                self.theme.say(title, text, weight, final=template.kind == "ending")
                possible = self.possible(keys, clauses)
                moves.append(Move(name, template.kind, template.once, template.line, possible, steps))
                total += max(w for w, _ in clauses) * int(p * scale)
                if total > MAX_WEIGHT:
                    what = f"With {name!r} the weights of alternatives multiply to over 2^48."
                    raise self.world.wrong(template.line, what, "Use smaller, rounder weights.")
        return moves

    def room(self, line: int) -> int:
        """Return after how many tokens only an ending is sure to fit."""
        world, longest = self.world, {"opening": 0, "sentence": 0, "ending": 1}
        for name, ways in self.names.expanded.items():
            kind = world.templates[name].kind
            words = max(sum(not isinstance(part, Change) for part in parts) for _, parts in ways)
            longest[kind] = max(longest[kind], words + (kind == "ending"))
        least = 1 + longest["opening"] + world.shortest * longest["sentence"] + longest["ending"]
        if least > world.max_tokens:
            what = f"A document of {world.shortest} sentences may take {least} tokens, and it has {world.max_tokens}."
            line = world.lines.get("max_tokens") or world.lines.get("length") or line
            raise world.wrong(line, what, "Raise max_tokens or lower length.")
        return world.max_tokens - longest["sentence"] - longest["ending"]

    # What sentences do

    def reader(self, reference: Reference) -> Get:
        if reference not in self.readers:
            i = self.variables.at[reference.variable]
            tables: list[dict[Any, str]] = [dict(self.world.facts[f].values) for f in reversed(reference.facts)]

            def read(state: State) -> Any:
                value: Any = state[i]
                for table in tables:
                    value = table.get(value)
                return value

            self.readers[reference] = read
        return self.readers[reference]

    def dist(self, say: Say) -> Callable[[State], Dist]:
        key = (say.path, say.excluded)
        if key not in self.dists:
            table = self.world.lists.get(str(say.path))
            if table is None:
                said = {v: certain(v) for v in self.names.values(say)}
                read = self.reader(say.path)
                self.dists[key] = lambda s: said[read(s)]
            else:
                without = self.reader(say.excluded) if say.excluded else lambda s: None
                self.dists[key] = _draw(table, self.reader(table.by) if table.by else lambda s: None, without)
        return self.dists[key]

    def follow(self, parts: tuple[Part, ...]) -> tuple[tuple[Condition, ...], tuple[Any, ...]]:
        """What must hold before a sentence for it to be said at all, and its steps from state to state."""
        now: dict[str, set[str | None]] = {}
        guard: dict[Condition, None] = {}
        steps: list[tuple[str, Callable[[State], Dist | None]]] = []

        def need(reference: Reference, line: int) -> None:
            values = now.get(reference.variable)
            if values is None:
                if None in self.names.reach(reference):
                    guard[Condition(reference, None, True)] = None
                return
            for value in sorted(values, key=str):
                at = value
                for fact in reversed(reference.facts):
                    at = self.world.facts[fact].values.get(at or "")
                if at is None:
                    what = f"{{{reference}}} has no word where {reference.variable} = {value or 'none'}."
                    raise self.world.wrong(line, what, "Store the word in a variable of its own.")

        for part in parts:
            if isinstance(part, Say):
                table = self.world.lists.get(str(part.path))
                if table is None:
                    need(part.path, part.line)
                elif table.by and OTHERWISE not in table.cases:
                    need(table.by, part.line)
                if part.into:
                    now[part.into] = self.names.values(part)
                    steps.append((part.into, self.dist(part)))
            elif isinstance(part, Change):
                for name, value in part.values:
                    now[name] = {value}
                    dist = None if value is None else certain(value)
                    steps.append((name, self.sets.setdefault(value, lambda s, d=dist: d)))
        return tuple(guard), tuple(steps)

    def text(self, parts: tuple[Part, ...], once: str | None) -> str:
        """Write an expansion in the grammar's own notation; slots and effects go into the theme."""
        units: list[tuple[Word | Say, list[Change]]] = []
        for part in parts:
            if not isinstance(part, Change):
                units.append((part, []))
            elif units:
                units[-1][1].append(part)
            else:
                raise self.world.wrong(part.line, "A change stands before the first word.", "Put it after a word.")
        out = []
        for i, (part, changes) in enumerate(units):
            values = {name: value for change in changes for name, value in change.values}
            name = once if i + 1 == len(units) else None
            key = (part if isinstance(part, Say) else None, tuple(values.items()), name)
            if isinstance(part, Say):
                self.said.update(dict.fromkeys(sorted(map(str, self.names.values(part)))))
                if key not in self.used:
                    self.used[key] = f"s{len(self.used)}"
                    effect = self.effect(values, name, part.into) if values or name or part.into else None
                    self.theme.slots[self.used[key]] = Slot(
                        dist=self.dist(part), then=effect, concept=self.plants(part)
                    )
                out.append(f"{{{self.used[key]}}}")
            else:
                out.append(part.text)
                if values or name:
                    if key not in self.used:
                        self.used[key] = f"e{len(self.used)}"
                        self.theme.effects[self.used[key]] = self.effect(values, name, None)
                    out.append(f"{{!{self.used[key]}}}")
        return " ".join(out)

    def effect(self, values: dict[str, Any], once: str | None, into: str | None) -> Any:
        at = self.variables.at
        pairs = [(at[name], value) for name, value in values.items()]
        said, stored = at[SAID], at[into] if into else None

        def change(state: State, word: str | None = None) -> State:
            new = list(state)
            if stored is not None:
                new[stored] = word
            for i, value in pairs:
                new[i] = value
            if once:
                new[said] = new[said] | {once}
            return tuple(new)

        return change

    def plants(self, say: Say) -> str | None:
        """The class of concepts whose plan is this very draw."""
        for name, concept in self.world.concepts.items():
            source = {concept.source} if concept.source else self.names.sources.get(concept.path.variable)
            if str(concept.path) == say.into and source == {str(say.path)} and not say.excluded:
                return name
        return None

    # Menus

    def keys(self, tests: tuple[Condition, ...]) -> Keys:
        return tuple((self.atoms.setdefault((t.path, t.value), str(t)), t.yes) for t in tests)

    def possible(self, guard: Keys, clauses: Clauses) -> Callable[[Truths], bool]:
        """Tell from the truths of all atoms whether some clause gives a weight."""
        places = {label: i for i, label in enumerate(self.atoms.values())}
        always = [(places[k], yes) for k, yes in guard]
        options = [[(places[k], yes) for k, yes in tests] for _, tests in clauses]
        return lambda truths: (
            all(truths[i] == yes for i, yes in always)
            and any(all(truths[i] == yes for i, yes in option) for option in options)
        )

    def truths(self) -> Callable[[State], Truths]:
        atoms = [(self.reader(reference), value) for reference, value in self.atoms]

        def truths(state: State) -> Truths:
            held = ((read(state), value) for read, value in atoms)
            return tuple(h is not None if value is None else h == value for h, value in held)

        return truths

    def menu_key(self, full: int, once: tuple[str, ...]) -> Callable[[State, int], tuple[Any, ...]]:
        counter, said = (self.variables.at[n] for n in (COUNT, SAID))
        shortest, longest, truths_of = self.world.shortest, self.world.longest, self.truths()
        possible = {name: self.possible((), self.clauses(self.world.templates[name])) for name in once}

        def key(state: State, n_tokens: int) -> tuple[Any, ...]:
            n, truths = state[counter], truths_of(state)
            must_end = n == longest or n_tokens > full
            phase = (n < 0, n >= 0 and not must_end, n >= 0 and (must_end or n >= shortest))
            # What was said matters only where it could come again: that keeps menus few.
            return (*phase, *truths, *(name in state[said] and possible[name](truths) for name in once))

        return key

    def clauses(self, template: Template) -> Clauses:
        return tuple((weight, self.keys(tests)) for weight, tests in template.clauses)

    def boundary(self) -> Callable[[State], State]:
        counter = self.variables.at[COUNT]
        most = max(self.world.shortest, self.world.longest or 0)
        local = [self.variables.at[n] for n, v in self.world.variables.items() if v.kind == "local"]

        def boundary(state: State) -> State:
            new = list(state)
            new[counter] = min(new[counter] + 1, most)
            for i in local:
                new[i] = self.variables.start[i]
            return tuple(new)

        return boundary


def _draw(table: WordList, case: Get, without: Get) -> Callable[[State], Dist]:
    dists = {key: Dist(words) for key, words in table.cases.items()}
    rest: dict[tuple[Any, Any], Dist] = {}

    def dist(state: State) -> Dist:
        of, gone = case(state), without(state)
        of = of if of in dists else OTHERWISE
        if gone is None:
            return dists[of]
        if (of, gone) not in rest:
            rest[of, gone] = Dist({w: n for w, n in table.cases[of].items() if w != gone})
        return rest[of, gone]

    return dist


def _weigh(template: Template, name: str, clauses: Clauses, guard: Keys, factor: int) -> Callable[[Any], int]:
    """The weight of one expansion given the menu's variables: that of the first clause whose tests hold."""
    phase = {"opening": "may open", "sentence": "may go on", "ending": "may end"}[template.kind]
    guard = ((phase, True), *guard, *(((f"{name} was said", False),) if template.once else ()))

    def weight(menu: Any) -> int:
        seen = vars(menu)
        if all(seen[k] == yes for k, yes in guard):
            for n, tests in clauses:
                if all(seen[k] == yes for k, yes in tests):
                    return n * factor
        return 0

    return weight
