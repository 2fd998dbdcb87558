"""What a grammar file says, statement by statement, before any name is looked up (see docs/worlds.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lensing.errors import FileFormatError, suggest

OTHERWISE = "else"  # the case of a list for every value that has none of its own
RESERVED = frozenset("of except by per from when and not weight once none else to".split())
COUNT, SAID = "sentences so far", "sentences said"  # the two variables that a file cannot name
SPECIAL_WORDS = frozenset(("<pad>", "<bos>", "<eos>", "<unk>"))


@dataclass(frozen=True)
class Reference:
    """What a variable holds (`subject`), or a fact of it (`river of home of subject`: facts, outermost first)."""

    facts: tuple[str, ...]
    variable: str

    def __str__(self) -> str:
        return " of ".join((*self.facts, self.variable))


@dataclass(frozen=True)
class Condition:
    """One condition: the path holds `value`, or anything at all where `value` is None; `yes` False denies it."""

    path: Reference
    value: str | None
    yes: bool
    line: int = field(compare=False, default=0)

    def __str__(self) -> str:
        return str(self.path) if self.value is None else f"{self.path} = {self.value}"


@dataclass(frozen=True)
class Word:
    """A literal word."""

    text: str
    line: int


@dataclass(frozen=True)
class Say:
    """A slot: a draw from a list, a rule, or what a path holds; `into` stores the word."""

    path: Reference
    excluded: Reference | None
    into: str | None
    line: int = field(compare=False)


@dataclass(frozen=True)
class Change:
    """Variables set right after the word before."""

    values: tuple[tuple[str, str | None], ...]
    line: int = field(compare=False)


Part = Word | Say | Change


@dataclass(frozen=True)
class Phrase:
    """One alternative of a rule or sentence."""

    weight: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Variable:
    """`values` are those declared with their weights (None: it holds drawn words); the first is the start."""

    line: int
    kind: str  # variable, hidden, local
    values: dict[str | None, int] | None


@dataclass(frozen=True)
class WordList:
    """Words with weights, by case; the only case of a list without `by` is OTHERWISE."""

    line: int
    by: Reference | None
    cases: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Fact:
    """A word for every word of the list `of`."""

    line: int
    of: str
    values: dict[str, str]


@dataclass(frozen=True)
class Rule:
    """A phrase by name."""

    line: int
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class Template:
    """A statement `opening`, `sentence` or `ending`: the first of `clauses` whose tests hold gives the weight."""

    line: int
    kind: str
    once: bool
    clauses: tuple[tuple[int, tuple[Condition, ...]], ...]
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class ConceptLine:
    """A class of concepts: the value of a path, planted by the draws of a list."""

    line: int
    path: Reference
    source: str | None
    per: str


@dataclass
class World:
    """Everything that a file says, by name."""

    file: Path
    name: str = "world"
    shortest: int = 1
    longest: int | None = None
    max_tokens: int = 256
    lines: dict[str, int] = field(default_factory=dict)  # where `length` and `max_tokens` stand
    variables: dict[str, Variable] = field(default_factory=dict)
    lists: dict[str, WordList] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    concepts: dict[str, ConceptLine] = field(default_factory=dict)

    def wrong(self, line: int, what: str, todo: str) -> FileFormatError:
        """Return the error for one line."""
        return FileFormatError(f"{self.file}:{line}: {what} {todo}")

    def unknown(self, line: int, kind: str, name: str, choices: Iterable[object]) -> FileFormatError:
        """Return the error for a name that nothing defines."""
        return self.wrong(line, f"There is no {kind} named {name!r}.", suggest(name, sorted({str(c) for c in choices})))
