"""One dictionary in training: the step, and the state that a checkpoint holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import new_dictionary
from lensing.errors import TrainingError
from lensing.training.dead import Silence
from lensing.training.losses import auxiliary_loss, reconstruction_loss
from lensing.training.optim import CLIP, adam, default_lr, lr_share, remove_parallel_, unit_rows_

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class StepReport:
    """One step's numbers: `fvu` on the batch about the start's mean, `l0`, `dead` latents before the step, `lr`."""

    step: int
    fvu: float
    aux: float
    l0: float
    dead: int
    lr: float


class Trainer:
    """Train one dictionary batch by batch.

    Inputs are scaled so that the mean of |x - mu|^2 is d_in (mu and the scale from the rows given to `start`);
    `finish` folds the scaling into the weights.
    """

    def __init__(self, config: Any, d_in: int, *, steps: int, batch: int, lr: float | None, warmup: int, seed: int):
        self.config, self.steps, self.batch, self.warmup = config, steps, batch, warmup
        self.lr = lr if lr is not None else default_lr(config.width)
        self.dictionary = new_dictionary(config, d_in, seed=seed)
        self.optimizer = adam(self.dictionary, self.lr)
        limit = config.dead_after_tokens or min(max(steps * batch // 20, 1), 10_000_000)
        self.silence = Silence(config.width, limit)
        self.scale = 1.0
        self.step_number = 0

    def start(self, rows: Float[Tensor, "rows d_in"]) -> None:
        """Set scale, b_dec (the mean) and the encoder's size from the first rows."""
        d = self.dictionary
        mean = rows.double().mean(0)
        variance = float((rows.double() - mean).square().sum(1).mean())
        if not math.isfinite(variance) or variance <= 0:
            raise TrainingError(
                f"The first {len(rows)} rows have variance {variance}. Train on rows that are finite and differ."
            )
        self.scale = math.sqrt(d.d_in / variance)
        with torch.no_grad():
            d.b_dec.copy_(mean * self.scale)
            some = rows[:4096] * self.scale
            codes = d.encode_at(some - d.b_dec, d.active_in_training(some - d.b_dec))
            part = d.decode(codes) - d.b_dec
            # least squares: the multiple of the first reconstruction that is nearest to the rows
            share = float(((some - d.b_dec) * part).sum() / part.square().sum().clamp(min=1e-12))
            if share > 0:
                d.encoder.mul_(share)
                for tensor in d.extra_tensors().values():
                    tensor *= share

    def step(self, rows: Float[Tensor, "rows d_in"]) -> StepReport:
        """One step of the optimiser; TrainingError when the loss is not finite."""
        d = self.dictionary
        x = rows * self.scale
        centred = x - d.b_dec
        codes = d.encode_at(centred, d.active_in_training(centred.detach()))
        x_hat = d.decode(codes)
        loss = fvu = reconstruction_loss(x, x_hat, d.d_in)
        aux, dead = 0.0, self.silence.dead()
        k_aux = self.config.dead_latents_used(d.d_in)
        if len(dead) and k_aux and self.config.aux_coef > 0:
            pre = torch.addmm(d.b_enc[dead], centred.detach(), d.encoder[dead].t())
            extra = auxiliary_loss(x - x_hat, pre, d.W_dec[dead], k_aux)
            loss = loss + self.config.aux_coef * extra
            aux = float(extra.detach())
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss is {value} at step {self.step_number}. Lower the learning rate ({self.lr:g}), "
                "or look for rows that are not finite."
            )
        loss.backward()
        share = lr_share(self.step_number, self.steps, warmup=self.warmup)
        self._update(self.lr * share)
        self.silence.add(codes)
        self.step_number += 1
        return StepReport(self.step_number, float(fvu.detach()), aux, codes.l0(), len(dead), self.lr * share)

    def _update(self, lr: float) -> None:
        d = self.dictionary
        assert d.W_dec.grad is not None
        torch.nn.utils.clip_grad_norm_(d.parameters(), CLIP)
        remove_parallel_(d.W_dec.grad, d.W_dec)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        unit_rows_(d.W_dec)

    def finish(self, dtype: torch.dtype) -> None:
        """Fold the scaling in and round the weights to the type that they will be stored as."""
        d = self.dictionary
        d.scale_(self.scale)
        with torch.no_grad():
            for parameter in d.parameters():
                parameter.copy_(parameter.to(dtype))
        d.stored_dtype = dtype
        d.requires_grad_(False).eval()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, as named tensors."""
        tensors = {f"weight.{name}": tensor.detach() for name, tensor in self.dictionary.state_dict().items()}
        for name, parameter in self.dictionary.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"{key}.{name}": moments[key] for key in MOMENTS if key in moments}
        tensors["silence"] = self.silence.rows
        tensors["scale"] = torch.tensor(self.scale, dtype=torch.float64)
        tensors["step_number"] = torch.tensor(self.step_number)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        weights = {name.removeprefix("weight."): t for name, t in tensors.items() if name.startswith("weight.")}
        self.dictionary.load_state_dict(weights)
        for name, parameter in self.dictionary.named_parameters():
            moments = {key: tensors[f"{key}.{name}"].clone() for key in MOMENTS if f"{key}.{name}" in tensors}
            if moments:
                self.optimizer.state[parameter] = moments
        self.silence.rows = tensors["silence"].clone()
        self.scale = float(tensors["scale"])
        self.step_number = int(tensors["step_number"])
