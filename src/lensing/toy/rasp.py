"""Small programs over sequences (Weiss et al. 2021), to be run here and compiled into a transformer's weights.

A text is n words, a separator, n blanks to think at and n blanks to answer at, so that a model that never looks ahead
can reverse and sort. Every variable has a value at every position: a number from 0 to its `size` less 1, or, where
`size` is 1, a share between 0 and 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.errors import UsageError


@final
@dataclass(frozen=True)
class Attend:
    """Look at earlier positions whose `key` goes with the `query` here, and take the mean of one-hot `value`s there."""

    name: str
    query: str
    key: str
    value: str
    goes: Callable[[int, int], bool]
    """Whether a query's and a key's value go together; some position must be looked at where it matters."""
    only: Callable[[int], bool] | None = None
    """Take the share of looked-at positions whose value passes, a number, in place of the value itself."""


@final
@dataclass(frozen=True)
class Map:
    """A function of one or two variables at the same position."""

    name: str
    inputs: tuple[str, ...]
    size: int
    function: Callable[..., int]


@final
@dataclass(frozen=True)
class Count:
    """How many positions shared attention with one that counts as an anchor: m where the share is 1 / (m + 1)."""

    name: str
    share: str
    size: int


Step = Attend | Map | Count


@final
@dataclass(frozen=True)
class Program:
    """Steps in order, over `n` words of a vocabulary of `words`; `output` is what the last n positions should say."""

    name: str
    n: int
    words: int
    steps: tuple[Step, ...]
    output: str
    sizes: dict[str, int] = field(init=False)
    _tables: dict[str, Tensor] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = {"token": self.words + 2, "index": self.length}
        for step in self.steps:
            if step.name in sizes:
                raise UsageError(f"{self.name} has two variables {step.name!r}. Give each step a name of its own.")
            if isinstance(step, Attend):
                sizes[step.name] = 1 if step.only else sizes[step.value]
            else:
                sizes[step.name] = step.size
        object.__setattr__(self, "sizes", sizes)

    @property
    def separator(self) -> int:
        """The token between words and blanks; the one after it is the blank."""
        return self.words

    @property
    def length(self) -> int:
        """Tokens of a text."""
        return 3 * self.n + 1

    def text(self, words: Sequence[int]) -> list[int]:
        """Return the tokens of a text with these words."""
        if len(words) != self.n or any(not 0 <= w < self.words for w in words):
            raise UsageError(f"{list(words)} are not {self.n} words. Give numbers from 0 to {self.words - 1}.")
        return [*words, self.separator, *[self.separator + 1] * (2 * self.n)]

    def run(
        self, words: Sequence[int], change: Mapping[tuple[str, int], float] | None = None
    ) -> dict[str, list[float | None]]:
        """Return every variable at every position; `change` sets some by name and position, as an intervention does.

        None stands where nothing goes with the query, or several different values do: what a step says there is
        nothing that the program means.
        """
        given = {name: torch.full((1, self.length), torch.nan, dtype=torch.float64) for name, _ in change or {}}
        for (name, p), value in (change or {}).items():
            given[name][0, p] = value
        self.text(words)  # says what is wrong with them
        found = self.run_many(torch.tensor([list(words)]), given)
        return {name: [None if v != v else v for v in row[0].tolist()] for name, row in found.items()}

    def run_many(
        self, words: Int[Tensor, "batch n"], change: Mapping[str, Float[Tensor, "batch pos"]] | None = None
    ) -> dict[str, Float[Tensor, "batch pos"]]:
        """Return every variable at every position of many texts; NaN where `run` has None, or leaves `change` alone."""
        batch = len(words)
        blank = torch.full((batch, 2 * self.n), self.separator + 1)
        found = {
            "token": torch.cat([words, torch.full((batch, 1), self.separator), blank], 1).double(),
            "index": torch.arange(self.length).double().expand(batch, -1),
        }
        for step in self.steps:
            value = self._values(step, found)
            if change is not None and step.name in change:
                value = torch.where(change[step.name].isnan(), value, change[step.name])
            found[step.name] = value
        return found

    def _values(self, step: Step, found: Mapping[str, Tensor]) -> Float[Tensor, "batch pos"]:
        """What a step makes of the variables before it."""
        if isinstance(step, Count):
            share = found[step.share]
            return torch.where(share > 0, (1 / share).round() - 1, torch.nan)
        table = self._table(step)
        if isinstance(step, Map):
            given = [found[name] for name in step.inputs]
            known = ~torch.stack(given).isnan().any(0)
            value = table[tuple(v.nan_to_num().long() for v in given)]
            return torch.where(known, value, torch.nan)
        query, key, value = found[step.query], found[step.key], found[step.value]
        seen = table[query.nan_to_num().long()[:, :, None], key.nan_to_num().long()[:, None, :]].bool()
        seen &= torch.ones(self.length, self.length, dtype=torch.bool).tril()
        seen &= ~query.isnan()[:, :, None] & ~key.isnan()[:, None, :]
        there = seen.any(-1)
        if step.only is not None:
            passes = torch.tensor([step.only(v) for v in range(self.sizes[step.value])])
            good = passes[value.nan_to_num().long()] & ~value.isnan()
            share = (seen & good[:, None, :]).sum(-1).double() / seen.sum(-1)
            return torch.where(there, share, torch.nan)
        values = value.nan_to_num(nan=-1.0)[:, None, :].expand_as(seen)
        low = values.masked_fill(~seen, torch.inf).amin(-1)
        high = values.masked_fill(~seen, -torch.inf).amax(-1)
        return torch.where(there & (low == high) & (low >= 0), low, torch.nan)

    def _table(self, step: Attend | Map) -> Tensor:
        """What goes with what, or a function's values, for all values of its inputs; made once."""
        if step.name not in self._tables:
            names = (step.query, step.key) if isinstance(step, Attend) else step.inputs
            function: Callable[..., Any] = step.goes if isinstance(step, Attend) else step.function
            sizes = [self.sizes[name] for name in names]
            every = itertools.product(*map(range, sizes))
            self._tables[step.name] = torch.tensor(
                [float(function(*values)) for values in every], dtype=torch.float64
            ).view(sizes)
        return self._tables[step.name]

    def answers(
        self, words: Sequence[int], change: Mapping[tuple[str, int], float] | None = None
    ) -> list[float | None]:
        """Return the output at the last n positions."""
        return self.run(words, change)[self.output][-self.n :]


def reverse(n: int = 5, words: int = 6) -> Program:
    """The words from the last to the first."""
    first = 2 * n + 1
    back = Attend("out", "index", "index", "token", lambda q, k: q >= first and k == n - 1 - (q - first))
    return Program("reverse", n, words, (back,), "out")


def histogram(n: int = 5, words: int = 6) -> Program:
    """How often each word is said."""
    first = 2 * n + 1
    mine = Attend("mine", "index", "index", "token", lambda q, k: q >= first and k == q - first)
    share = Attend("share", "mine", "token", "token", lambda q, k: k in (q, words), only=lambda v: v == words)
    return Program("histogram", n, words, (mine, share, Count("out", "share", n + 1)), "out")


def sort(n: int = 4, words: int = 5) -> Program:
    """The words in ascending order."""
    think, answer = n + 1, 2 * n + 1
    pair = Map("pair", ("token", "index"), (words + 1) * n + 1, lambda t, i: _pair(t, i, n, words))
    mine = Attend("mine", "index", "index", "pair", lambda q, k: think <= q < answer and k == q - think)
    # pairs are numbered by word first, so that of two like words the earlier one comes first
    share = Attend("share", "mine", "pair", "token", lambda q, k: k < q or k == words * n, only=lambda v: v == words)
    rank = Count("rank", "share", n + 1)
    # where a rank is meant: at the places to think; elsewhere a rank that nobody asks for
    placed = Map("placed", ("rank", "index"), n + 1, lambda r, i: r if think <= i < answer else n)
    out = Attend("which", "index", "placed", "mine", lambda q, k: q >= answer and k == q - answer)
    word = Map("out", ("which",), words + 2, lambda pair: pair // n)
    return Program("sort", n, words, (pair, mine, share, rank, placed, out, word), "out")


def frac_prevs(n: int = 6, words: int = 4, word: int = 0) -> Program:
    """The share of words up to each place that are one certain word; it is said at the places of the words."""
    share = Attend("out", "token", "token", "token", lambda q, k: k < words, only=lambda v: v == word)
    return Program("frac_prevs", n, words, (share,), "out")


PROGRAMS = {"reverse": reverse, "histogram": histogram, "sort": sort, "frac_prevs": frac_prevs}


def _pair(token: int, index: int, n: int, words: int) -> int:
    if index < n and token < words:
        return token * n + index
    return words * n if index == n else (words + 1) * n  # the separator; everything else
