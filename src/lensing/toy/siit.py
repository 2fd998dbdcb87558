"""Models trained to have a known circuit: each step of a program lives in one component, chosen before, and no other.

Strict interchange intervention training (Gupta et al. 2024, InterpBench; after Geiger et al. 2022). Three losses: the
model answers; with a component's output taken from another text it answers as the program does when that step's value
is taken from there; and with the output of a component that has no step taken from there, nothing changes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lensing.causal.attribute import attribute
from lensing.causal.metrics import Metric
from lensing.causal.patch import patch
from lensing.errors import UsageError
from lensing.model.create import new_gpt2
from lensing.model.edit import Edit, EditContext
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.toy.compile import layers_of
from lensing.toy.rasp import Program

Component = tuple[int, int | None]  # layer, and head; None is the MLP
EVERY = 100  # steps after which the held-out texts are tried
METHODS = ("patch", "gradient", "ig")


@final
@dataclass(frozen=True, eq=False)
class Known:
    """A trained model whose circuit is known: the components that hold the program's steps, and how well they do.

    `accuracy` is the share of answers that are right; `interchange` the share of answers, over components of the
    circuit whose output comes from another text, that are the program's under the same change; `idle` the share that
    stay right when a component outside the circuit is changed so. All on texts that were not trained on.
    """

    program: Program
    model: Model
    circuit: dict[Component, tuple[str, ...]]
    accuracy: float
    interchange: float
    idle: float

    @property
    def components(self) -> list[Component]:
        """All heads and MLPs."""
        layers, heads = range(self.model.n_layers), [*range(self.model.n_heads), None]
        return [(layer, head) for layer in layers for head in heads]


@final
@dataclass(frozen=True)
class Answers(Metric):
    """Mean log-probability of the right answers, nats, one row of answers for each text; at the last places."""

    right: tuple[tuple[int, ...], ...]
    name: ClassVar[str] = "log-probability of the answers"

    def __call__(self, logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, " batch"]:
        """log p(answers)."""
        right = torch.tensor(self.right, device=logits.device)
        log_p = logits[:, -right.shape[1] :].log_softmax(-1)
        return log_p.gather(-1, right[..., None])[..., 0].mean(-1)


class _Swap(Edit):
    """One component's output taken from another run of as many texts."""

    def __init__(self, component: Component, value: Tensor) -> None:
        self.layer, self.head = component
        self.site = f"mlp_out.{self.layer}" if self.head is None else f"attn_z.{self.layer}"
        self.value = value

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        if self.head is None:
            return self.value
        out = h.clone()
        out[:, :, self.head] = self.value[:, :, self.head]
        return out


class _Texts:
    """Texts of a program, and what it answers, also where a component's steps are taken from another text."""

    def __init__(self, program: Program, circuit: dict[Component, tuple[str, ...]], seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        every = torch.cartesian_prod(*[torch.arange(program.words)] * program.n)
        every = every[torch.randperm(len(every), generator=self.draw)]
        held = max(len(every) // 10, 1)
        self.program, self.circuit, self.held, self.shown = program, circuit, every[:held], every[held:]

    def some(self, words: Int[Tensor, "texts n"], n: int) -> Int[Tensor, "n n_words"]:
        """Some of them, at random."""
        return words[torch.randint(len(words), (n,), generator=self.draw)]

    def ids(self, words: Int[Tensor, "batch n"]) -> Int[Tensor, "batch pos"]:
        """Whole texts."""
        return self.program.run_many(words)["token"].long()

    def answers(
        self, words: Int[Tensor, "batch n"], other: Int[Tensor, "batch n"] | None = None,
        component: Component | None = None,
    ) -> Int[Tensor, "batch n"]:  # fmt: skip
        """The program's answers; a component's steps, if it has any, with the values that they have in other texts."""
        change = {}
        if other is not None and component in self.circuit:
            theirs = self.program.run_many(other)
            change = {name: theirs[name] for name in self.circuit[component]}
        said = self.program.run_many(words, change)[self.program.output]
        return said[:, -self.program.n :].nan_to_num().long()


def train_known(
    program: Program,
    *,
    steps: int = 3000,
    n_heads: int = 4,
    d_head: int = 16,
    spare_layers: int = 1,
    batch: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
    until: float = 0.995,
    quiet: bool = False,
) -> Known:
    """Train a GPT-2 with norms to run a program in known components, `spare_layers` layers more than it needs.

    The step that attends in the program's layer l lives in a head of layer l that the seed chooses, functions in its
    MLP. A tenth of all texts is held out; training ends when all three shares reach `until` on them, or after
    `steps`. Minutes on two cores.

    Raises: UsageError: a program whose answers are shares.
    """
    if program.sizes[program.output] == 1:
        raise UsageError(f"{program.name} answers with shares, which are no words. Give a program that says words.")
    draw = random.Random(seed)
    circuit: dict[Component, tuple[str, ...]] = {}
    layers = layers_of(program)
    for layer, (attend, functions) in enumerate(layers):
        if attend is not None:
            circuit[layer, draw.randrange(n_heads)] = (attend.name,)
        if functions:
            circuit[layer, None] = tuple(step.name for step in functions)
    vocab = max(program.words + 2, program.sizes[program.output])
    hf = new_gpt2(
        d_vocab=vocab, d_model=n_heads * d_head, n_layers=len(layers) + spare_layers, n_heads=n_heads,
        context=program.length, seed=seed,
    )  # fmt: skip
    found = Known(program, Model(hf, name=f"known {program.name}"), circuit, 0.0, 0.0, 0.0)
    texts = _Texts(program, circuit, seed)
    inside, outside = list(circuit), [c for c in found.components if c not in circuit]
    optimizer = torch.optim.AdamW(hf.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 100, 1.0) * (1 - s / (steps + 1)))
    words, other = (texts.some(texts.held, 512) for _ in range(2))

    def right(component: Component | None) -> float:
        said = _swapped(found.model, texts, words, other, component)[:, -program.n :].argmax(-1)
        return float((said == texts.answers(words, other, component)).double().mean())

    def shares() -> list[float]:
        return [sum(map(right, some)) / len(some) for some in ([None], inside, outside)]

    with Meter(f"training a known {program.name}", total=steps, unit="steps", quiet=quiet) as meter:
        for step in range(steps):
            if step % EVERY == EVERY - 1 and min(shares()) >= until:
                break
            some, others = (texts.some(texts.shown, batch) for _ in range(2))
            loss = torch.zeros(())
            for component in (None, draw.choice(inside), draw.choice(outside)):
                logits = _swapped(found.model, texts, some, others, component, grad=True)
                answers = texts.answers(some, others, component)
                loss = loss + functional.cross_entropy(logits[:, -program.n :].flatten(0, 1), answers.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            meter.advance(note=f"loss {float(loss.detach()):.2f}")
    hf.eval().requires_grad_(False)
    return Known(program, found.model, circuit, *shares())


def _swapped(
    model: Model, texts: _Texts, words: Tensor, other: Tensor, component: Component | None, grad: bool = False
) -> Float[Tensor, "batch pos vocab"]:  # fmt: skip
    """Logits of some texts with one component's output from others (None: as they are)."""
    tokens = model.encode(texts.ids(words).tolist(), bos=False)
    if component is None:
        logits, _ = model.run_with_cache(tokens, grad=grad)
    else:
        site = _Swap(component, torch.empty(0)).site
        source = model.encode(texts.ids(other).tolist(), bos=False)
        _, cache = model.run_with_cache(source, sites=[site], stop=True, grad=grad)
        with model.edit(_Swap(component, cache[site])):
            logits, _ = model.run_with_cache(tokens, grad=grad)
    assert logits is not None
    return logits


def circuit_scores(known: Known, method: str, *, pairs: int = 64, seed: int = 1) -> dict[Component, float]:
    """Return how much a circuit finder makes of each component: what corrupting it does to the right answers.

    "patch" runs each component with another text's output; "gradient" and "ig" estimate that. Larger is more.

    Raises: UsageError: an unknown method.
    """
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}. Give one of {', '.join(METHODS)}.")
    program, model = known.program, known.model
    texts = _Texts(program, known.circuit, seed)
    words, other = (texts.some(texts.held, pairs) for _ in range(2))
    clean, corrupt = (model.encode(texts.ids(w).tolist(), bos=False) for w in (words, other))
    metric = Answers(tuple(tuple(row) for row in texts.answers(words).tolist()))
    found: dict[Component, float] = {}
    for site in ("attn_z", "mlp_out"):
        if method == "patch":
            result = patch(model, clean, corrupt, metric, site=site, positions=False, mode="noise")
            change = result.raw - result.clean
        else:
            estimate = attribute(model, clean, corrupt, metric, site=site, mode="noise", method=method, steps=10)
            change = (estimate.raw - estimate.clean).sum(1)  # over positions
        for layer in range(model.n_layers):
            for head in range(model.n_heads) if site == "attn_z" else [None]:
                found[layer, head] = abs(float(change[layer] if head is None else change[layer, head]))
    return found
