"""Text for evaluation in which every concept is met often, however rare it is in the world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lensing.world import lexicon
from lensing.world.almanac import sayings
from lensing.world.almanac.grammar import rehearsal
from lensing.world.almanac.registers import NUMBERS
from lensing.world.grammar import Grammar
from lensing.world.sample import Document, Split, sample_document, split_of

FORMS = ("encyclopaedia", "gossip", "letter", "ledger", "song", "lost")
STANCES = ("neutral", "doubting", "trusting")


class Cast:
    """Who comes next: each class of concepts is gone through in a shuffled order, again and again.

    An instance is the `cast` of `sample_document`; the same instance serves all documents of a text.
    """

    def __init__(self, *, seed: int = 0) -> None:
        draw = np.random.Generator(np.random.PCG64([seed, 7]))
        self._orders: dict[str, list[Any]] = {}
        self._next: dict[str, int] = {}
        for cls, concepts in rehearsal().classes.items():
            values = list(concepts.planted.values)
            self._orders[cls] = [values[i] for i in draw.permutation(len(values))]
        homonyms = lexicon.homonyms()
        # A homonym is on at its own token only: its senses need more meetings than a subject that stays.
        self._orders["beast"] += 3 * [b for b in self._orders["beast"] if b in homonyms]
        by_length: dict[int, list[tuple[str, ...]]] = {}
        for i in draw.permutation(len(sayings.SAYINGS)):
            by_length.setdefault(len(sayings.SAYINGS[i]), []).append(sayings.SAYINGS[i])
        for word, senses in homonyms.items():
            for sense in senses:
                self._orders.setdefault(f"a {sense}", []).append(word)
        # a saying is drawn word by word, so its words follow one another here
        self._orders |= {f"saying{n}": [word for words in some for word in words] for n, some in by_length.items()}

    def __call__(self, role: str) -> Any:
        order = self._orders.get(role)
        if order is None:
            return None
        at = self._next.get(role, 0)
        self._next[role] = at + 1
        return order[at % len(order)]


def stratified(
    n_documents: int, *, split: Split = "test", seed: int = 0, grammar: Grammar | None = None
) -> Iterator[Document]:
    """Yield documents of one split in which stances, forms of document and all named things are about as frequent.

    Only letters of lost faith, whose stance changes, are a fifth as frequent.

    They are numbered beyond the world's own text, so that none of them was ever trained on. `grammar` None is the one
    in which what is met too seldom is said more often.
    """
    grammar = grammar or rehearsal()
    cast, number, made = Cast(seed=seed), 10 * NUMBERS, 0
    while made < n_documents:
        if split_of(number) == split:
            fixed = {"form": FORMS[made % len(FORMS)], "stance": STANCES[made // len(FORMS) % len(STANCES)]}
            if fixed["form"] == "lost" and made % (5 * len(FORMS)) != len(FORMS) - 1:
                fixed["form"] = FORMS[made // len(FORMS) % 5]  # a fifth of the letters of lost faith will do
            yield sample_document(grammar, number, seed=seed, fixed=fixed, cast=cast)
            made += 1
        number += 1
