"""What a latent does at every strength, beside three directions of the same length, from calm to babble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.causal.steer import Mode, Steer, Unit, steer, unit_of
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.errors import UsageError
from lensing.measure.coherence import BABBLE, WARNING, check_seeds, compare, nats_per_token, side_effects
from lensing.model.edit import At
from lensing.model.ends import Fork, last_words
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
TOP = 10  # next words of each strength
ROWS, NUMBERS = 256, 1 << 24  # continuations written at once, and numbers in their next-word logits

LATENT, MEANS, RANDOM_LATENT, RANDOM_DIRECTION = "latent", "difference of means", "random latent", "random direction"

Job = tuple[float, Tensor]  # a strength and a direction


@dataclass(frozen=True)
class Guess:
    """A next word and its probability."""

    id: int
    word: str
    p: float


@dataclass(frozen=True)
class Dose:
    """One strength of one direction.

    `share_of_norm`: |delta h| / mean |h|, the mean over the prompt where the edit depends on h. `table`: likeliest next
    words after the prompt; `watched`: probability mass of each watched list there. `text`: the first seed's
    continuation at temperature 1. `coherence_cost` with its standard error `se` over seeds: nats a token.
    `side_effect`: mean KL in nats on unrelated texts, the edit at all positions. `impossible`: mean share of
    continuation words that cannot be. The last two are None where nothing was given to measure them on.
    """

    strength: float
    share_of_norm: float
    table: tuple[Guess, ...]
    watched: dict[str, float]
    text: str
    coherence_cost: float
    se: float
    verdict: str
    side_effect: float | None
    impossible: float | None


@dataclass(frozen=True)
class Direction:
    """A direction and what each strength of it does; `latent` is its number where it is one."""

    name: str
    latent: int | None
    doses: tuple[Dose, ...]


@dataclass(frozen=True)
class DoseResponse:
    """The doses of a latent and of its comparison directions, all of the latent's length at each strength.

    `unit_size` is strength 1 in activation units. `left_out` says what was not measured, and why.
    """

    model: str
    dictionary: str
    site: str
    latent: int
    prompt: str
    unit: str
    mode: str
    at: str
    unit_size: float
    mean_norm: float
    new_tokens: int
    seeds: int
    seed: int
    watch: dict[str, tuple[str, ...]]
    directions: tuple[Direction, ...]
    left_out: tuple[str, ...]
    warning: float = WARNING
    babble: float = BABBLE

    @property
    def doses(self) -> tuple[Dose, ...]:
        """The latent's own doses."""
        return self.directions[0].doses

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@torch.no_grad()
def dose_response(
    model: Model,
    dictionary: Dictionary,
    latent: int,
    prompt: Prompt,
    *,
    strengths: Sequence[float] | None = None,
    unit: Unit = "max",
    mode: Mode = "add",
    at: At = "all",
    new_tokens: int = 32,
    seeds: int = 8,
    seed: int = 0,
    watch: Mapping[str, Sequence[int]] | None = None,
    contrast: Float[Tensor, " d_in"] | None = None,
    unrelated: Sequence[Prompt] = (),
    impossible: Callable[[list[int], list[int]], float] | None = None,
) -> DoseResponse:
    """Steer one latent by each strength after a prompt, and by its side directions of the same length.

    `strengths` None: 0, 0.25, 0.5, 1, 2, 4, 8, 16; under ablate, where a strength is a share, 0 and 1. `watch` names
    lists of token ids; `contrast` is a difference of means at the dictionary's site; `unrelated` texts are what the
    side effect is measured on; `impossible(prompt ids, continuation ids)` gives the share of words that cannot be.
    The side directions get the latent's own amounts (of the h they see), so that only the direction differs.

    Raises: UsageError: what `ln.steer` refuses, no strength, fewer than one seed, an unknown token id. PromptError: a
    prompt that cannot be continued by `new_tokens`. DictionaryError: a dictionary that does not fit the site.
    """
    check_fits(dictionary, model)
    strengths = ((0.0, 1.0) if mode == "ablate" else STRENGTHS) if strengths is None else tuple(map(float, strengths))
    if not strengths:
        raise UsageError("There is no strength to try. Give at least one.")
    steer(dictionary, latent, 1.0, unit, mode, at)  # refuses what cannot be
    for strength in strengths:
        steer(dictionary, latent, strength, unit, mode, at)
    bench = _Bench(
        model, dictionary, latent, model.encode(prompt), strengths, unit, mode, at, new_tokens, check_seeds(seeds),
        seed, watched_words(model, watch or {}), tuple(unrelated), impossible,
    )  # fmt: skip
    side, left_out = side_directions(dictionary, latent, contrast, seed)
    directions = bench.measure([(LATENT, latent, dictionary.W_dec[latent].detach()), *side])
    if not unrelated:
        left_out.append("side effect: no unrelated texts were given")
    return DoseResponse(
        model=model.name, dictionary=dictionary.id or str(dictionary), site=str(dictionary.site), latent=latent,
        prompt=prompt if isinstance(prompt, str) else model.decode(bench.prompt.ids[0]), unit=unit, mode=mode,
        at=str(at), unit_size=unit_of(dictionary, latent, unit, mode), mean_norm=bench.mean_norm,
        new_tokens=new_tokens, seeds=seeds, seed=seed,
        watch={name: tuple(w.strip() for w in model.tok_str(ids)) for name, ids in bench.watch.items()},
        directions=tuple(directions), left_out=tuple(left_out),
    )  # fmt: skip


@dataclass(frozen=True)
class _Words:
    """What one strength does after the prompt."""

    table: tuple[Guess, ...]
    watched: dict[str, float]
    text: str
    nats: Float[Tensor, " seeds"]
    impossible: float | None


class _Bench:
    """Everything that all directions share: the prompt, its unsteered continuations, what is watched."""

    def __init__(
        self, model: Model, dictionary: Dictionary, latent: int, prompt: Tokens, strengths: tuple[float, ...],
        unit: Unit, mode: Mode, at: At, new_tokens: int, seeds: int, seed: int, watch: dict[str, Int[Tensor, " ids"]],
        unrelated: tuple[Prompt, ...], impossible: Callable[[list[int], list[int]], float] | None,
    ) -> None:  # fmt: skip
        if len(prompt.ids) != 1:
            raise UsageError(f"{len(prompt.ids)} prompts cannot be steered at once. Give one prompt.")
        self.model, self.dictionary, self.latent, self.prompt = model, dictionary, latent, prompt
        self.unit: Unit = unit
        self.mode: Mode = mode
        self.at, self.new_tokens, self.watch, self.impossible = at, new_tokens, watch, impossible
        self.strengths, self.draws = strengths, [seed + i for i in range(seeds)]
        # The strength that leaves everything as it is; clamping has none.
        self.still = {"add": 0.0, "ablate": 0.0, "scale": 1.0}.get(mode)
        _, cache = model.run_with_cache(prompt, sites=[str(dictionary.site)], stop=True)
        self.h = next(iter(cache.values()))
        rows = self.h[~prompt.special].flatten(1)
        if not len(rows):
            raise UsageError("The prompt holds no word. Give at least one.")
        self.mean_norm = dictionary.statistics.mean_norm if dictionary.statistics else float(rows.norm(dim=1).mean())
        self.fork = Fork(model, prompt, str(dictionary.site))
        self.unrelated = Fork(model, model.encode(list(unrelated)), str(dictionary.site)) if unrelated else None

    def edit(self, jobs: Sequence[Job], at: At, times: int = 1) -> Steer:
        """The edit with `times` rows for each strength of a direction."""
        strengths = torch.tensor([s for s, _ in jobs]).repeat_interleave(times)
        along = torch.stack([vector for _, vector in jobs]).repeat_interleave(times, 0)
        return Steer(self.dictionary, {self.latent: strengths}, unit=self.unit, mode=self.mode, at=at, along=along)

    def measure(self, directions: Sequence[tuple[str, int | None, Tensor]]) -> list[Direction]:
        """Return all doses of all directions."""
        # Unsteered rows are made once, and stand for the strength that changes nothing in every direction.
        jobs = [(s, vector) for _, _, vector in directions for s in self.strengths if s != self.still]
        if self.still is None:
            plain, words = self.batch(None)[0], iter(self.words(jobs))
        else:
            plain, *rest = self.words([(self.still, directions[0][2]), *jobs])
            words = iter(rest)
        spilt = iter(self.spill(jobs))
        found = []
        for name, number, vector in directions:
            doses = []
            for s in self.strengths:
                said = plain if s == self.still else next(words)
                cost = compare(said.nats, plain.nats)
                doses.append(
                    Dose(
                        strength=s, share_of_norm=self.share((s, vector)), table=said.table, watched=said.watched,
                        text=said.text, coherence_cost=cost.cost, se=cost.se, verdict=cost.verdict,
                        side_effect=self.none if s == self.still else next(spilt), impossible=said.impossible,
                    )
                )  # fmt: skip
            found.append(Direction(name, number, tuple(doses)))
        return found

    def words(self, jobs: Sequence[Job]) -> list[_Words]:
        """Return next words and continuations of many strengths and directions."""
        step = max(min(ROWS, NUMBERS // self.model.d_vocab) // len(self.draws), 1)
        return [words for first in range(0, len(jobs), step) for words in self.batch(jobs[first : first + step])]

    def batch(self, jobs: Sequence[Job] | None) -> list[_Words]:
        """One forward pass and one generation for all jobs, or without steering (None)."""
        k = len(self.draws)
        n = 1 if jobs is None else len(jobs)
        one = [] if jobs is None else [self.edit(jobs, self.at)]
        many = [] if jobs is None else [self.edit(jobs, self.at, k)]
        with self.model.edit(*one):
            p = self.fork.ends(last_words(self.prompt), n).logits().double().softmax(-1)
        with self.model.edit(*many):
            made = self.model.generate(
                self.prompt.repeat(n * k), max_new_tokens=self.new_tokens, temperature=1.0, seed=self.draws * n
            )
        nats = nats_per_token(self.model, made)
        top = p.topk(min(TOP, p.shape[-1]))
        found = []
        for i in range(n):
            rows = slice(i * k, (i + 1) * k)
            ids = top.indices[i].tolist()
            table = zip(ids, self.model.tok_str(ids), top.values[i].tolist(), strict=True)
            found.append(
                _Words(
                    table=tuple(Guess(j, word.strip() or word, q) for j, word, q in table),
                    watched={name: float(p[i, ids].sum()) for name, ids in self.watch.items()},
                    text=made.text[rows.start], nats=nats[rows],
                    impossible=self.share_impossible(made.ids[rows], made.mask[rows]),
                )
            )  # fmt: skip
        return found

    def share_impossible(self, ids: Int[Tensor, "seeds new"], mask: Bool[Tensor, "seeds new"]) -> float | None:
        """Return the mean share of impossible words of these continuations, what follows their end left out."""
        if self.impossible is None:
            return None
        prompt = self.prompt.ids[0].tolist()
        shares = [self.impossible(prompt, row[real].tolist()) for row, real in zip(ids, mask, strict=True)]
        return sum(shares) / len(shares)

    def share(self, job: Job) -> float:
        """Return |delta h| / mean |h| over the prompt's words; every direction has the latent's length."""
        amount = self.edit([job], self.at).amounts(self.h)[..., 0].abs()[~self.prompt.special].mean()
        return float(amount * self.dictionary.W_dec[self.latent].norm()) / self.mean_norm

    @property
    def none(self) -> float | None:
        """The side effect of the strength that changes nothing."""
        return None if self.unrelated is None else 0.0

    def spill(self, jobs: Sequence[Job]) -> list[float | None]:
        """Return the side effects of jobs on the unrelated texts."""
        if self.unrelated is None or not jobs:
            return [None] * len(jobs)
        rows = len(self.unrelated.tokens.ids)
        return [found.kl for found in side_effects(self.unrelated, [[self.edit([job], "all", rows)] for job in jobs])]


def side_directions(
    dictionary: Dictionary, latent: int, contrast: Tensor | None, seed: int
) -> tuple[list[tuple[str, int | None, Tensor]], list[str]]:
    """Return the comparison directions (name, latent, vector) and what had to be left out."""
    found: list[tuple[str, int | None, Tensor]] = []
    left_out = []
    if contrast is None:
        left_out.append(f"{MEANS}: no texts to contrast were given")
    elif contrast.shape != (dictionary.d_in,):
        raise UsageError(
            f"A difference of means of shape {list(contrast.shape)} does not fit a site of {dictionary.d_in} numbers. "
            "Give one taken at the dictionary's site."
        )
    else:
        found.append((MEANS, None, contrast))
    draw = torch.Generator().manual_seed(seed)
    statistics = dictionary.statistics
    alive = statistics.density.cpu() > 0 if statistics is not None else torch.ones(dictionary.d_sae, dtype=torch.bool)
    alive[latent] = False
    choices = alive.nonzero()[:, 0]
    if len(choices):
        other = int(choices[torch.randint(len(choices), (1,), generator=draw)])
        found.append((RANDOM_LATENT, other, dictionary.W_dec[other].detach()))
    else:
        left_out.append(f"{RANDOM_LATENT}: no other latent is alive")
    found.append((RANDOM_DIRECTION, None, torch.randn(dictionary.d_in, generator=draw)))
    return found, left_out


def watched_words(model: Model, watch: Mapping[str, Sequence[int]]) -> dict[str, Int[Tensor, " ids"]]:
    """Return lists of words to watch as tensors; UsageError for a token id that is none, or an empty list."""
    for name, ids in watch.items():
        wrong = [i for i in ids if not 0 <= i < model.d_vocab]
        if wrong or not len(ids):
            raise UsageError(f"{name!r} watches {wrong or 'no token'}. Give token ids from 0 to {model.d_vocab - 1}.")
    return {name: torch.tensor(sorted(set(ids)), device=model.device) for name, ids in watch.items()}
