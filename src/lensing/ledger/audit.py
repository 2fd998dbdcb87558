"""The ledger of a dictionary on a text: one pass, then an account that closes, with what it does not show beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.data.forward import activations
from lensing.data.pieces import Pieces, read_pieces
from lensing.data.text import Text as Source
from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import check_fits
from lensing.draw.ledger import ledger_html
from lensing.errors import DictionaryError, UsageError
from lensing.ledger.gram import Gram
from lensing.ledger.seeds import Seeds, SeedSums
from lensing.ledger.variance import GROUPS, Variance, least_squares, variance
from lensing.measure.tables import bigram_table_fvu, token_table_fvu
from lensing.model.run import Model
from lensing.progress import Meter

AT_ONCE = 16_384  # rows of text read at a time
HELD = 1 << 29  # bytes of rows that tables of words may keep
WORDS, TOP = 20, 0.01


@final
@dataclass(frozen=True)
class Where:
    """Where the error lies: `top` is the share of sum |e|^2 on the darkest 1% of tokens, `gini` how unevenly it lies.

    A word is (token, share of the error, share of the tokens), those with most of the error first.
    """

    top: float
    gini: float
    words: tuple[tuple[str, float, float], ...]


@final
@dataclass(frozen=True)
class Ledger:
    """The account of one dictionary on one text; `beside` are FVUs of what knows only the words (None: not computed).

    `says` is what the numbers show and do not show, in plain words.
    """

    model: str
    dictionary: str
    site: str
    text: str
    l0: float
    d_sae: int
    variance: Variance
    beside: dict[str, float | None]
    where: Where
    seeds: Seeds | None
    says: tuple[str, ...]

    def _repr_html_(self) -> str:
        return ledger_html(self)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@torch.no_grad()
def audit(
    model: Model,
    dictionary: Dictionary,
    text: str | Path | Source | Iterable[str | Sequence[int]],
    *,
    seeds: Sequence[Dictionary] = (),
    tokens: int | None = None,
    context: int | None = None,
    batch_tokens: int = 4096,
    seed: int = 0,
    field: str = "text",
    skip_bad: bool = False,
    name: str | None = None,
    quiet: bool = False,
) -> Ledger:
    """Account for what a dictionary leaves of the variance at its site, on a text that it was not trained on.

    `text` and the options are those of `build_index`. Documents are dealt into ten groups by `seed`: five are fitted on
    and five scored, both ways round, and errors come from leaving groups out. For a transcoder the account is of what
    it writes, and the probe's x is that output. `seeds` are dictionaries of the same site that differ in their seed:
    with them the error is split into what all make and what each makes.

    Raises: UsageError: too few documents. DictionaryError: a dictionary that does not fit, or joins several sites.
    """
    check_fits(dictionary, model)
    if dictionary.parts:
        raise DictionaryError(f"{dictionary} joins several sites and cannot be audited. Give one of a single site.")
    for other in seeds:
        check_fits(other, model)
        if (other.site, other.target, other.parts) != (dictionary.site, dictionary.target, dictionary.parts):
            raise DictionaryError(
                f"{other.id or other} is of {other.site} and {dictionary.id or dictionary} of {dictionary.site}. Give "
                "seeds of one site."
            )
    source = Source(text, field=field, skip_bad=skip_bad) if isinstance(text, (str, Path)) else text
    pieces = read_pieces(model, source, context=context, rows=tokens)
    if pieces.documents < 2 * GROUPS:
        raise UsageError(f"{pieces.documents} documents cannot be held apart. Give a text of {2 * GROUPS} or more.")
    group = np.random.default_rng(seed).permutation(pieces.documents) % GROUPS
    run = _Pass(model, [dictionary, *seeds], pieces, group[pieces.parents], batch_tokens)
    with Meter("auditing", total=int(pieces.rows.sum()), unit="tokens", quiet=quiet) as meter:
        for first, last in _stretches(pieces):
            meter.advance(run.read(first, last))
    found = variance(run.grams, shift=run.shift.double(), documents=pieces.documents)
    where = run.where()
    return Ledger(
        model=model.name, dictionary=dictionary.id or str(dictionary), site=run.target,
        text=name or (source.name if isinstance(source, Source) else "documents"), l0=run.active / run.n,
        d_sae=dictionary.d_sae, variance=found, beside=run.tables(), where=where,
        seeds=run.seeds_account() if seeds else None, says=_says(found, where),
    )  # fmt: skip


class _Pass:
    """What one pass over the text keeps."""

    def __init__(
        self, model: Model, dictionaries: Sequence[Dictionary], pieces: Pieces, group: np.ndarray, batch_tokens: int
    ) -> None:
        self.dictionaries, dictionary = dictionaries, dictionaries[0]
        self.model, self.dictionary, self.pieces, self.group = model, dictionary, pieces, group
        self.across = SeedSums(len(dictionaries))
        self.batch_tokens = batch_tokens
        self.site = str(dictionary.site)
        self.target = dictionary.target or self.site
        d, rows = dictionary.W_dec.shape[1], int(pieces.rows.sum())
        self.grams = [Gram.none(d) for _ in range(GROUPS)]
        self.shift = torch.zeros(d)
        self.n = self.active = 0
        self.token = np.zeros(rows, dtype=np.int64)
        self.previous = np.full(rows, model.d_vocab, dtype=np.int64)  # nothing stands before a piece's first token
        self.half = np.zeros(rows, dtype=bool)
        self.error = np.zeros(rows)
        self.kept: list[Tensor] | None = [] if 4 * d * rows <= HELD else None

    def read(self, first: int, last: int) -> int:
        """Take in some pieces; return how many rows they have."""
        some = [self.pieces[i] for i in range(first, last)]
        found = activations(
            self.model, some, list(dict.fromkeys([self.site, self.target])), batch_tokens=self.batch_tokens
        )
        x, y = found[self.site], found[self.target]
        if not self.n:
            self.shift = y.mean(0)  # sums are taken about it: nothing cancels when the mean is far from zero
        codes, skipped, error = _errors(self.dictionary, x, y)
        aimed = (y - skipped).to(self.dictionary.W_dec.device)
        better = least_squares(aimed, self.dictionary, codes).cpu()
        group = torch.from_numpy(np.repeat(self.group[first:last], self.pieces.rows[first:last]))
        errors = [error, *(_errors(d, x, y)[2] for d in self.dictionaries[1:])]
        for g, gram in enumerate(self.grams):
            rows = group == g
            if len(errors) > 1:
                self.across.add(g, torch.stack([other[rows] for other in errors]))
            gram.add(y[rows] - self.shift, error[rows], better[rows])
        self._words(some, first, last, error, group.numpy())
        if self.kept is not None:
            self.kept.append(y)
        self.n += len(y)
        self.active += int((codes.value != 0).sum())
        return len(y)

    def _words(self, some: list[np.ndarray], first: int, last: int, error: Tensor, group: np.ndarray) -> None:
        bos, here = self.model.bos_id, slice(self.n, self.n + len(error))
        words = [piece if bos is None else piece[piece != bos] for piece in some]
        self.token[here] = np.concatenate(words)
        before = [np.concatenate([[self.model.d_vocab], w[:-1]]) for w in words if len(w)]
        self.previous[here] = np.concatenate(before)
        self.half[here] = group < GROUPS // 2
        self.error[here] = error.double().square().sum(1).numpy()

    def seeds_account(self) -> Seeds:
        """The error of several seeds, split."""
        mu = torch.stack([g.x for g in self.grams]).sum(0) / sum(g.n for g in self.grams)
        size = torch.stack([g.xx.trace() - 2 * mu @ g.x + g.n * mu @ mu for g in self.grams])
        return self.across.account(tuple(d.id or str(d) for d in self.dictionaries), size)

    def tables(self) -> dict[str, float | None]:
        """FVU of a row for each token, and for each pair; both ways round, as the lines are."""
        if self.kept is None:
            return {"token table": None, "bigram table": None}
        h: Float[Tensor, "rows d"] = torch.cat(self.kept)
        token, previous, half = (torch.from_numpy(a) for a in (self.token, self.previous, self.half))
        ways = (half, ~half)
        return {
            "token table": sum(token_table_fvu(h, token, way) for way in ways) / 2,
            "bigram table": sum(bigram_table_fvu(h, token, previous, way) for way in ways) / 2,
        }

    def where(self) -> Where:
        """How the error lies over tokens and words."""
        order = np.sort(self.error)
        total, n = order.sum(), len(order)
        rank = np.arange(1, n + 1)
        by_word = np.bincount(self.token, weights=self.error)
        count = np.bincount(self.token)
        best = np.argsort(-by_word, kind="stable")[:WORDS]
        best = best[by_word[best] > 0]
        strings = self.model.tok_str(best.tolist()) if len(best) else []
        return Where(
            top=float(order[n - max(int(n * TOP), 1) :].sum() / total) if total else 0.0,
            gini=float((2 * (rank * order).sum() / (n * total)) - (n + 1) / n) if total else 0.0,
            words=tuple(
                (word, float(by_word[i] / total), float(count[i] / n)) for word, i in zip(strings, best, strict=True)
            ),
        )  # fmt: skip


def _errors(dictionary: Dictionary, x: Tensor, y: Tensor) -> tuple[Codes, Tensor, Tensor]:
    """A dictionary's codes of some rows, what goes round its latents, and its errors on the CPU."""
    there = x.to(dictionary.W_dec.device)
    codes = dictionary.encode(there)
    skipped = torch.as_tensor(dictionary.skipped(there)).cpu()
    return codes, skipped, y - dictionary.decode(codes).cpu() - skipped


def _stretches(pieces: Pieces) -> list[tuple[int, int]]:
    """Ranges of pieces with about so many rows that are read at a time."""
    ends = np.cumsum(pieces.rows)
    cuts = np.unique(np.searchsorted(ends, np.arange(AT_ONCE, int(ends[-1]) + AT_ONCE, AT_ONCE), side="left") + 1)
    cuts = np.unique(np.minimum(cuts, len(pieces)))
    return list(zip([0, *cuts[:-1].tolist()], cuts.tolist(), strict=True))


def _says(v: Variance, where: Where) -> tuple[str, ...]:
    lines = {line.name: line for line in v.lines}
    nonlinear = next(line for line in v.probe if line.name == "nonlinear")
    return (
        f"The dictionary leaves {v.fvu.share:.1%} of the variance (± {2 * v.fvu.se:.1%}, two standard errors).",
        f"Better codes on the same latents would mend {lines['amortisation'].share:.1%}, a gain "
        f"{lines['calibration'].share:.1%}: that part is known to the dictionary and badly coded.",
        f"The nonlinear part, {nonlinear.share:.1%}, does not show features that are not linear: structureless vectors "
        "of the same covariance have such a part too.",
        f"The darkest hundredth of tokens holds {where.top:.0%} of the error. How many concepts are missing, and what "
        "that does to the model's words, variance does not say.",
    )
