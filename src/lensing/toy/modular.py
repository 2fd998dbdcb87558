"""Addition modulo a prime: a one-layer transformer first learns its examples by heart, then the circle (grokking).

The answer is found by turning a and b into angles of a few frequencies: logits become sums of cos(w_k (a + b - c)),
w_k = 2 pi k / p. Measures of progress from Nanda et al. 2023 ("Progress measures for grokking via mechanistic
interpretability").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lensing.errors import UsageError
from lensing.model.create import new_relu_gpt2
from lensing.model.run import Model
from lensing.progress import Meter

SHAPE = {"d_model": 128, "n_layers": 1, "n_heads": 4, "d_mlp": 512}
DONE = 0.01  # nats of test loss
CONTEXT = 16  # three are used


@final
@dataclass(frozen=True, eq=False)
class ModularRun:
    """The trained model, its embedding and logits at every `every` steps' look, and the losses there in nats.

    `restricted` is the loss on all pairs of the logits' key frequencies alone, `excluded` that on the training pairs of
    logits without them; the key frequencies are those of the end.
    """

    model: Model
    p: int
    key: list[int]
    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    restricted: list[float] = field(default_factory=list)
    excluded: list[float] = field(default_factory=list)
    embedding_share: float = 0.0
    logit_share: float = 0.0
    accuracy: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {k: v for k, v in vars(self).items() if k != "model"}


def waves(p: int) -> Float[Tensor, "frequencies 2 p"]:
    """Return cos(2 pi k x / p) and sin, of length 1, for k from 1 to (p - 1) / 2, p odd; float64."""
    if p < 3 or p % 2 == 0:
        raise UsageError(f"{p} has no whole set of frequencies here. Give an odd number from 3 on.")
    k = torch.arange(1, (p - 1) // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * k[:, None] * torch.arange(p, dtype=torch.float64) / p
    return torch.stack([angle.cos(), angle.sin()], 1) * math.sqrt(2 / p)


def embedding_energy(embedding: Float[Tensor, "p d"]) -> Float[Tensor, " frequencies"]:
    """Return the share of each frequency in the energy of an embedding of the numbers, their mean left out."""
    found = (waves(len(embedding)).to(embedding.device) @ embedding.double()).square().sum((1, 2))
    return found / found.sum()


def logit_energy(logits: Float[Tensor, "p p p"]) -> Float[Tensor, " frequencies"]:
    """Return the share of cos(w_k (a + b - c)) in the energy of all logits [a, b, c], each pair's mean left out."""
    p = len(logits)
    centred = logits.double() - logits.double().mean(-1, keepdim=True)
    a, b, c = torch.meshgrid(*[torch.arange(p)] * 3, indexing="ij")
    wave = waves(p)[:, 0] / p  # over all a and b the square of a wave of length 1 sums to p^2
    found = torch.stack([(centred * w[(a + b - c) % p]).sum().square() for w in wave])
    return found / centred.square().sum()


def key_frequencies(energy: Float[Tensor, " frequencies"], share: float = 0.95) -> list[int]:
    """Return the fewest frequencies (from 1) that hold a share of what all of them hold."""
    order = energy.argsort(descending=True)
    held = energy[order].cumsum(0) / energy.sum()
    return sorted(int(k) + 1 for k in order[: int((held < share).sum()) + 1])


def of_sums(logits: Float[Tensor, "p p c"], key: Sequence[int]) -> Float[Tensor, "p p c"]:
    """Return the part of all logits that is a wave of a key frequency in a + b; float64."""
    p = len(logits)
    a, b = torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")
    out = torch.zeros_like(logits, dtype=torch.float64)
    for k in key:
        for wave in waves(p)[k - 1]:
            w = wave[(a + b) % p] / math.sqrt(p)  # of length 1 over all pairs
            out += w[..., None] * (w[..., None] * logits.double()).sum((0, 1))
    return out


def restricted_loss(logits: Float[Tensor, "p p p"], key: Sequence[int]) -> float:
    """Return the loss in nats, on all pairs, of the logits' mean and key frequencies of a + b alone."""
    kept = of_sums(logits, key) + logits.double().mean((0, 1))
    return float(functional.cross_entropy(kept.flatten(0, 1), answers(len(logits)).flatten()))


def excluded_loss(logits: Float[Tensor, "p p p"], key: Sequence[int], pairs: Int[Tensor, " pairs"]) -> float:
    """Return the loss in nats on some pairs (numbers a p + b) of the logits without the key frequencies of a + b."""
    left = (logits.double() - of_sums(logits, key)).flatten(0, 1)
    return float(functional.cross_entropy(left[pairs], answers(len(logits)).flatten()[pairs]))


def answers(p: int) -> Int[Tensor, "p p"]:
    """Return (a + b) mod p."""
    return (torch.arange(p)[:, None] + torch.arange(p)) % p


def train_modular(
    *, p: int = 37, share: float = 0.5, steps: int = 10_000, lr: float = 1e-3, weight_decay: float = 1.0,
    every: int = 100, seed: int = 0, quiet: bool = False,
) -> ModularRun:  # fmt: skip
    """Train on a `share` of all pairs at once, until the others are told too (test loss below 0.01 nats) or to `steps`.

    AdamW with a strong weight decay, which is what makes the model give up what it knows by heart; no norms.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = new_relu_gpt2(d_vocab=p + 1, context=CONTEXT, spread=0.08, **SHAPE).train()
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    text = torch.cat([pairs, torch.full((len(pairs), 1), p)], 1)
    target = answers(p).flatten()
    drawn = torch.randperm(len(text), generator=torch.Generator().manual_seed(seed))
    known, unknown = drawn.tensor_split([int(share * len(text))])
    optimizer = torch.optim.AdamW(hf.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.98))
    seen: list[tuple[int, Tensor]] = []
    with Meter("learning to add", total=steps, unit="steps", quiet=quiet) as meter:
        for step in range(steps + 1):
            if step % every == 0:
                with torch.no_grad():
                    logits = hf(input_ids=text, use_cache=False).logits[:, -1, :p]
                seen.append((step, logits))
                test = float(functional.cross_entropy(logits[unknown], target[unknown]))
                meter.advance(every if step else 0, note=f"test loss {test:.3f}")
                if test < DONE:
                    break
            loss = functional.cross_entropy(hf(input_ids=text[known], use_cache=False).logits[:, -1, :p], target[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model = Model(hf.eval().requires_grad_(False), name=f"addition-mod-{p}")
    last = seen[-1][1].view(p, p, p)
    energy = logit_energy(last)
    key = key_frequencies(energy)
    in_embedding = embedding_energy(hf.transformer.wte.weight[:p])
    run = ModularRun(
        model, p, key, embedding_share=float(sum(in_embedding[k - 1] for k in key)),
        logit_share=float(sum(energy[k - 1] for k in key)),
        accuracy=float((last.flatten(0, 1)[unknown].argmax(1) == target[unknown]).double().mean()),
    )  # fmt: skip
    for step, logits in seen:
        square = logits.view(p, p, p)
        run.steps.append(step)
        run.train.append(float(functional.cross_entropy(logits[known].double(), target[known])))
        run.test.append(float(functional.cross_entropy(logits[unknown].double(), target[unknown])))
        run.restricted.append(restricted_loss(square, key))
        run.excluded.append(excluded_loss(square, key, known))
    return run
