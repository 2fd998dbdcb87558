"""What an intervention is judged by: a number for each text, from the logits at one position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.errors import UsageError
from lensing.model.run import Model

Word = int | str


class Metric(ABC):
    """A number of the model's output for each row of a batch; all rows have one length."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, " batch"]:
        """The number of each row; differentiable in the logits."""


@final
@dataclass(frozen=True)
class LogitDifference(Metric):
    """Logit of the right word less that of the wrong one (Wang et al. 2022); one pair of words, or one for each row."""

    right: tuple[int, ...]
    wrong: tuple[int, ...]
    position: int = -1
    name: ClassVar[str] = "logit difference"

    def __call__(self, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, " batch"]:
        """Right less wrong."""
        at = logits[:, self.position]
        return _pick(at, self.right) - _pick(at, self.wrong)


@final
@dataclass(frozen=True)
class LogProbability(Metric):
    """Log-probability of a word, in nats; one word, or one for each row. Its negative is the loss."""

    target: tuple[int, ...]
    position: int = -1
    name: ClassVar[str] = "log-probability"

    def __call__(self, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, " batch"]:
        """log p(target)."""
        return _pick(logits[:, self.position].log_softmax(-1), self.target)


@final
@dataclass(frozen=True)
class Probability(Metric):
    """Probability of a word; one word, or one for each row."""

    target: tuple[int, ...]
    position: int = -1
    name: ClassVar[str] = "probability"

    def __call__(self, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, " batch"]:
        """p(target)."""
        return _pick(logits[:, self.position].softmax(-1), self.target)


@final
@dataclass(frozen=True, eq=False)
class KL(Metric):
    """KL(reference || output) in nats at one position; `reference` holds logits, `[vocab]` or `[batch, vocab]`."""

    reference: Float[Tensor, "*batch vocab"]
    position: int = -1
    name: ClassVar[str] = "KL"

    def __call__(self, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, " batch"]:
        """KL(reference || output)."""
        p, q = self.reference.log_softmax(-1), logits[:, self.position].log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)


def logit_difference(
    model: Model, right: Word | Sequence[Word], wrong: Word | Sequence[Word], *, position: int = -1
) -> LogitDifference:
    """The metric "logit of right less logit of wrong"; text is read as its first token."""
    metric = LogitDifference(token_ids(model, right), token_ids(model, wrong), position)
    if len(metric.right) != len(metric.wrong):
        raise UsageError(f"{len(metric.right)} right words and {len(metric.wrong)} wrong ones. Give as many of each.")
    return metric


def token_ids(model: Model, words: Word | Sequence[Word]) -> tuple[int, ...]:
    """Return words as token ids, each by its first token; UsageError for an id that is none."""
    found = []
    for word in [words] if isinstance(words, (int, str)) else words:
        if isinstance(word, str):
            found.append(int(model.encode(word, bos=False).ids[0, 0]))
        elif 0 <= word < model.d_vocab:
            found.append(int(word))
        else:
            raise UsageError(f"There is no token {word}. Give 0 to {model.d_vocab - 1}, or a word.")
    return tuple(found)


def _pick(values: Float[Tensor, "batch vocab"], ids: tuple[int, ...]) -> Float[Tensor, " batch"]:
    if len(ids) not in (1, len(values)):
        raise UsageError(f"{len(ids)} words do not fit {len(values)} texts. Give one word, or one for each text.")
    index = torch.tensor(ids, device=values.device).expand(len(values))
    return values.gather(-1, index[:, None])[:, 0]
