"""What a grammar is made of: integer distributions, sentence templates, and the state of a document.

A document is written by a hidden Markov program. Its state is a tuple of named variables; at each sentence boundary
one template is drawn from a menu that depends on some of them; inside a template every token is either literal or drawn
from an integer distribution that depends on the state. Because every draw is explicit, the same description is sampled
(`sample.py`), filtered exactly (`filter.py`) and labelled (`truth.py`). A grammar grows by adding theme files.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from lensing.errors import UnknownNameError, UsageError

State = tuple[Any, ...]
MENUS_KEPT = 50_000


class Dist:
    """A distribution over values with integer weights, so that draws are the same on every machine."""

    __slots__ = ("arrays", "cumulative", "index", "total", "values", "weights")

    def __init__(self, weights: Mapping[Any, int] | Iterable[tuple[Any, int]]) -> None:
        pairs = [(v, w) for v, w in dict(weights).items() if w > 0]
        self.values = tuple(v for v, _ in pairs)
        self.weights = tuple(w for _, w in pairs)
        self.cumulative = list(accumulate(self.weights))
        self.total = self.cumulative[-1] if pairs else 0
        self.index = {v: i for i, v in enumerate(self.values)}
        self.arrays: Any = None  # token ids and probabilities, filled by the reader's filter

    def pick(self, raw: int) -> Any:
        """Return the value that a raw 64-bit integer selects."""
        return self.values[bisect_right(self.cumulative, raw % self.total)]

    def p(self, value: Any) -> float:
        """Return the probability of one value."""
        i = self.index.get(value)
        return 0.0 if i is None else self.weights[i] / self.total


def certain(value: Any) -> Dist:
    """A distribution on one value."""
    return Dist({value: 1})


def uniform(values: Iterable[Any]) -> Dist:
    """Equal weights."""
    return Dist(dict.fromkeys(values, 1))


def zipf(values: Iterable[Any], exponent: float, scale: int = 1_000_000) -> Dist:
    """Weights that fall as rank to the power of minus `exponent`, rounded to integers of at least 1."""
    return Dist({v: max(1, round(scale * (i + 1) ** -exponent)) for i, v in enumerate(values)})


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A token drawn given the state; `then` is what the state becomes after the drawn word."""

    dist: Callable[[State], Dist]
    then: Callable[[State, str], State] | None = None
    concept: str | None = None  # the class of concepts that this draw plants, if any
    sense: str | None = None  # what kind of thing the drawn word stands for: tells a homonym's senses apart
    refers: str | None = None  # the variable that the word means without naming it: "she", "its"


@dataclass(frozen=True)
class Literal:
    """A fixed word; `then` is an effect that takes hold right after it."""

    word: str
    then: Callable[[State], State] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sentence:
    """One template with its weight as a function of the menu variables (0: not on the menu)."""

    name: str
    parts: tuple[Literal | Slot, ...]
    weight: Callable[[Any], int]
    final: bool = False  # the document ends after it


@dataclass(frozen=True, kw_only=True)
class Concept:
    """Something that may be on at a token: `name` is `<class>.<value>`; `planted` its chance per draw of `per`."""

    name: str
    cls: str
    planted: float
    per: str
    partial: bool = False


@dataclass
class Theme:
    """What one theme file contributes: slots and effects by name, sentences, concept classes.

    A theme with a `share` (its weight on the menu of sentences, by what the menu may look at) chooses among its own
    sentences afterwards, by what `sees` reads of the state: menus stay small however many themes there are.
    """

    name: str
    share: Callable[[Any], int] | None = None
    sees: Mapping[str, Callable[[State], Any]] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    effects: dict[str, Callable[[State], State]] = field(default_factory=dict)
    sentences: list[tuple[str, str, Callable[[Any], int], bool]] = field(default_factory=list)
    classes: dict[str, ConceptClass] = field(default_factory=dict)

    def say(
        self, name: str, text: str, weight: Callable[[Any], int] | Mapping[str, int], *, final: bool = False
    ) -> None:
        """Add a template. `{slot}` is a drawn word, `{!effect}` changes the state after the word before it."""
        if not callable(weight):
            by_register = dict(weight)
            self.sentences.append((name, text, lambda m: by_register.get(m.register, 0), final))
        else:
            self.sentences.append((name, text, weight, final))


@dataclass(frozen=True, kw_only=True)
class ConceptClass:
    """A family of exclusive concepts: `value(state)` is the one that is on, or None; `planted` the plan.

    With `of_word` the concept belongs to the one word just read: `value(slot, state, word)`, no slot for literal words.
    Of a `partial` class only words that have a value say anything: elsewhere its concepts are undetermined, not off.
    """

    value: Callable[..., Any]
    planted: Dist
    per: str
    of_word: bool = False
    partial: bool = False


class Variables:
    """Names of the state's variables, their start values, and how to read and write them in a plain tuple."""

    def __init__(self, **start: Any) -> None:
        self.names = tuple(start)
        self.start: State = tuple(start.values())
        self.at = {name: i for i, name in enumerate(self.names)}

    def put(self, state: State, **values: Any) -> State:
        """Return the state with some variables changed."""
        changed = list(state)
        for name, value in values.items():
            changed[self.at[name]] = value
        return tuple(changed)

    def getter(self, name: str) -> Callable[[State], Any]:
        """Return a function that reads one variable."""
        i = self.at[name]
        return lambda state: state[i]


class Menu:
    """What a sentence's weight may look at: the menu variables by name, nothing else."""

    def __init__(self, names: tuple[str, ...], key: tuple[Any, ...]) -> None:
        self.__dict__.update(zip(names, key, strict=True))


class Choices:
    """A menu at a sentence's end: some sentences by weight, and whole themes by their share."""

    __slots__ = ("groups", "total", "weights")

    def __init__(self, groups: Iterable[tuple[Dist, int]]) -> None:
        self.groups, self.weights = zip(*groups, strict=True)
        self.total = sum(self.weights)

    def pick(self, draw: Callable[[], int]) -> Sentence:
        """Return the sentence that one raw integer selects, or two where a theme comes first."""
        at = draw() % self.total
        for group, weight in zip(self.groups, self.weights, strict=True):
            if at < weight:
                return group.pick(at if weight == group.total else draw())
            at -= weight
        raise AssertionError("weights do not add up")

    def sentences(self) -> Iterable[tuple[Sentence, float]]:
        """Every sentence on the menu with its probability."""
        for group, weight in zip(self.groups, self.weights, strict=True):
            for sentence, w in zip(group.values, group.weights, strict=True):
                yield sentence, weight / self.total * (w / group.total)


class Grammar:
    """A whole grammar: variables, hidden first draws, themes, and the rules at a sentence's end.

    `hidden` are draws made before the first word; `begin(state)` may settle what follows from them. `menu_key(state)`
    gives the values of `menu_names` that weights may use. `boundary(state)` is the state's change at a sentence's end.
    `words` are those that slots may give. `boost` multiplies the weight of a theme or of one sentence (`theme.name`),
    for text that drills what is rare.
    `reserved[hidden name][value]` are the numbers of the only documents in which that value is drawn: the reader
    knows how many there are, not which.
    """

    def __init__(
        self,
        *,
        variables: Variables,
        hidden: Mapping[str, Dist],
        themes: Iterable[Theme],
        menu_names: tuple[str, ...],
        menu_key: Callable[[State, int], tuple[Any, ...]],
        boundary: Callable[[State], State],
        words: Iterable[str] = (),
        boost: Mapping[str, int] | None = None,
        begin: Callable[[State], State] = lambda state: state,
        reserved: Mapping[str, Mapping[Any, tuple[int, ...]]] | None = None,
        max_tokens: int = 256,
    ) -> None:
        self.variables, self.hidden, self.themes = variables, dict(hidden), list(themes)
        self.begin, self.reserved = begin, dict(reserved or {})
        self.menu_names, self.menu_key, self.boundary, self.max_tokens = menu_names, menu_key, boundary, max_tokens
        self.classes: dict[str, ConceptClass] = {}
        slots: dict[str, Slot] = {}
        effects: dict[str, Callable[[State], State]] = {}
        for theme in self.themes:
            for table, new in ((self.classes, theme.classes), (slots, theme.slots), (effects, theme.effects)):
                if double := table.keys() & new.keys():
                    raise UsageError(f"Theme {theme.name!r} defines {sorted(double)} again. Choose another name.")
                table.update(new)  # type: ignore[arg-type]
        boost = dict(boost or {})
        self.sentences: list[Sentence] = []
        self._flat: list[Sentence] = []
        self._grouped: list[tuple[Callable[[Any], int], Mapping[str, Callable[[State], Any]], list[Sentence]]] = []
        for theme in self.themes:
            factor = boost.get(theme.name, 1)
            own = [
                Sentence(
                    name=f"{theme.name}.{name}",
                    parts=_compile(text, slots, effects),
                    weight=_times(weight, boost.get(f"{theme.name}.{name}", 1) * (1 if theme.share else factor)),
                    final=final,
                )
                for name, text, weight, final in theme.sentences
            ]
            self.sentences += own
            if theme.share is None:
                self._flat += own
            else:
                self._grouped.append((_times(theme.share, factor), theme.sees, own))
        names = {t.name for t in self.themes} | {s.name for s in self.sentences}
        for name in boost:
            if name not in names:
                raise UnknownNameError("theme or sentence", name, names)
        literals = (part.word for s in self.sentences for part in s.parts if isinstance(part, Literal))
        self.words = tuple(dict.fromkeys((*literals, *words)))
        self.longest = max(len(s.parts) for s in self.sentences)
        self._menus: dict[tuple[Any, ...], Choices] = {}
        self._lists: dict[tuple[Any, ...], Dist] = {}

    def menu(self, state: State, n_tokens: int) -> Choices:
        """Return the choice of sentences at a boundary, `n_tokens` into the document."""
        key = self.menu_key(state, n_tokens)
        seen = tuple(tuple(read(state) for read in sees.values()) for _, sees, _ in self._grouped)
        menu = self._menus.get((key, seen))
        if menu is None:
            if len(self._menus) >= MENUS_KEPT:
                self._menus.clear()
                self._lists.clear()
            view = Menu(self.menu_names, key)
            flat = self._list(-1, key, self._flat, view)
            groups = [(flat, flat.total)] if flat.total else []
            for i, ((share, sees, sentences), values) in enumerate(zip(self._grouped, seen, strict=True)):
                if weight := share(view):
                    own = self._list(i, (key, values), sentences, Menu((*self.menu_names, *sees), (*key, *values)))
                    groups += [(own, weight)] if own.total else []
            if not groups:
                raise UsageError(f"The grammar has no sentence for {dict(zip(self.menu_names, key, strict=True))}.")
            menu = self._menus[key, seen] = Choices(groups)
        return menu

    def _list(self, group: int, key: tuple[Any, ...], sentences: list[Sentence], view: Menu) -> Dist:
        found = self._lists.get((group, key))
        if found is None:
            found = self._lists[group, key] = Dist((s, s.weight(view)) for s in sentences)
        return found

    def starts(self) -> list[tuple[State, float]]:
        """Every state a document can start in, with its probability."""
        states = [(self.variables.start, 1.0)]
        for name, dist in self.hidden.items():
            states = [
                (self.variables.put(state, **{name: value}), p * dist.p(value))
                for state, p in states
                for value in dist.values
            ]
        merged: dict[State, float] = {}
        for state, p in states:
            state = self.begin(state)
            merged[state] = merged.get(state, 0.0) + p
        return list(merged.items())

    def concepts(self) -> dict[str, Concept]:
        """Every concept by name."""
        return {
            f"{cls}.{value}": Concept(
                name=f"{cls}.{value}", cls=cls, planted=c.planted.p(value), per=c.per, partial=c.partial
            )
            for cls, c in self.classes.items()
            for value in c.planted.values
        }

    def step(self, part: Literal | Slot, state: State, word: str) -> State:
        """Return the state after `part` gave `word`."""
        if part.then is None:
            return state
        return part.then(state) if isinstance(part, Literal) else part.then(state, word)


def _times(weight: Callable[[Any], int], factor: int) -> Callable[[Any], int]:
    return weight if factor == 1 else lambda m: factor * weight(m)


def _compile(
    text: str, slots: Mapping[str, Slot], effects: Mapping[str, Callable[[State], State]]
) -> tuple[Literal | Slot, ...]:
    parts: list[Literal | Slot] = []
    for piece in text.split():
        match = re.fullmatch(r"\{(!?)(\w+)\}", piece)
        if match is None:
            parts.append(Literal(piece))
        elif match[1]:
            last = parts[-1]
            if not isinstance(last, Literal) or last.then is not None:
                raise UsageError(f"{piece} must stand after a literal word, in {text!r}.")
            parts[-1] = Literal(last.word, effects[match[2]])
        elif match[2] in slots:
            parts.append(slots[match[2]])
        else:
            raise UsageError(f"There is no slot {match[2]!r}, in {text!r}. Define it in the theme.")
    return tuple(parts)
