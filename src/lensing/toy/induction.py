"""The smallest model that learns in context: two layers of attention, random tokens said twice (Olsson et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.model.create import new_attention_only
from lensing.model.run import Model
from lensing.progress import Meter

BOS = 0


@final
@dataclass(frozen=True, eq=False)
class InductionRun:
    """The trained model and its losses in nats along training, on tokens said for the first and the second time."""

    model: Model
    steps: list[int] = field(default_factory=list)
    loss_first: list[float] = field(default_factory=list)
    loss_second: list[float] = field(default_factory=list)

    @property
    def phase_change(self) -> int | None:
        """The first step at which the second time costs less than half of what it did at the start; None if never."""
        half = self.loss_second[0] / 2
        return next((s for s, loss in zip(self.steps, self.loss_second, strict=True) if loss < half), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "steps": self.steps, "loss_first": self.loss_first, "loss_second": self.loss_second,
            "phase_change": self.phase_change,
        }  # fmt: skip


def said_twice(
    n: int, *, d_vocab: int, shortest: int, longest: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n pos"], Bool[Tensor, "n pos"]]:
    """Return texts [BOS, r, r, r ...] of 1 + 2 * longest tokens, and which of their tokens memory can tell.

    r are random tokens, of a random length in each text, so that looking back by a fixed number of tokens does not
    help. A token can be told where the one before it was said before.
    """
    lengths = torch.randint(shortest, longest + 1, (n, 1), generator=generator)
    r = torch.randint(1, d_vocab, (n, longest), generator=generator)
    place = torch.arange(2 * longest).expand(n, -1)
    text = torch.cat([torch.full((n, 1), BOS), r.gather(1, place % lengths)], 1)
    told = torch.cat([torch.zeros(n, 1, dtype=torch.bool), place > lengths], 1)
    return text, told


def train_induction(
    *,
    steps: int = 2500,
    d_vocab: int = 32,
    d_model: int = 64,
    n_layers: int = 2,
    n_heads: int = 4,
    shortest: int = 4,
    longest: int = 16,
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    every: int = 50,
    quiet: bool = False,
) -> InductionRun:
    """Train an attention-only model on repeated random tokens until it copies what came after the last time.

    About a minute on two cores. Along the way the loss on repeated tokens falls suddenly: the phase change.
    """
    hf = new_attention_only(
        d_vocab=d_vocab, d_model=d_model, n_layers=n_layers, n_heads=n_heads, context=1 + 2 * longest, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    weights = [p for p in hf.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 100, 1.0) * (1 - s / (steps + 1)))
    run = InductionRun(Model(hf, name="induction"))
    hf.train()
    with Meter("training on tokens said twice", total=steps, unit="steps", quiet=quiet) as meter:
        for step in range(steps + 1):
            ids, told = said_twice(batch, d_vocab=d_vocab, shortest=shortest, longest=longest, generator=generator)
            losses = _losses(hf(input_ids=ids).logits, ids)
            if step % every == 0:
                run.steps.append(step)
                run.loss_first.append(float(losses[~told[:, 1:]].mean().detach()))
                run.loss_second.append(float(losses[told[:, 1:]].mean().detach()))
            if step < steps:
                losses.mean().backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                meter.advance(note=f"loss {run.loss_second[-1]:.2f}")
    hf.eval().requires_grad_(False)
    return run


def _losses(logits: Float[Tensor, "n pos vocab"], ids: Int[Tensor, "n pos"]) -> Float[Tensor, "n pos_less_1"]:
    return logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].neg()
