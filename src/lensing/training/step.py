"""One dictionary in training: the step, and the state that a checkpoint holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.data.rows import mix_seed
from lensing.dictionary.base import new_dictionary
from lensing.dictionary.configs import Recipe
from lensing.dictionary.crosslayer import CrossLayer, new_cross_layer
from lensing.dictionary.rounding import rounded
from lensing.dist import ALONE, World
from lensing.errors import TrainingError
from lensing.memory import refuse_too_large
from lensing.training.coefficient import Coefficient
from lensing.training.cross import pass_cross_layer
from lensing.training.dead import Silence, resample_
from lensing.training.losses import auxiliary_loss, prefix_loss, reconstruction_loss
from lensing.training.objectives import PENALTIES, Forward, Passed
from lensing.training.optim import adam, default_lr, lr_share, remove_parallel_, unit_rows_
from lensing.training.scaling import input_scale
from lensing.training.split import check_split, clip_, cut_rows, join_, spread_

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
PLACES = 4_000_000  # active places that are held at once: where more latents are active, a batch is taken in parts
# Dead latents rebuild the error of one row in eight (another eighth at each step, never under 512 rows): an unbiased
# estimate of the loss, at an eighth of its cost.
AUX_STRIDE, AUX_ROWS = 8, 512
LEAP = 30.0  # a batch whose FVU is so many times the usual one stops the training
CALM = 0.01  # the least that counts as usual: where nearly nothing is missed, thirty times as much is no leap
FIRST_ROWS = 4096  # rows on which the encoder's length is set


@dataclass(frozen=True)
class StepReport:
    """One step's numbers: `fvu` on the batch about the start's mean, `l0`, `dead` latents before the step, `lr`.

    `penalty` is what the architecture adds to the loss, `coefficient` its weight at this step.
    """

    step: int
    fvu: float
    aux: float
    l0: float
    dead: int
    lr: float
    penalty: float = 0.0
    coefficient: float = 0.0


@dataclass
class Sums:
    """What the parts of a batch add up to."""

    loss: float = 0.0
    squares: float = 0.0
    aux: float = 0.0
    penalty: float = 0.0
    active: int = 0
    places: int = 0
    dead: int = 0

    def everywhere(self, world: World) -> Sums:
        """The same over all processes: numbers of the batch over those with other rows, counts over all that count."""
        if world.team.size == 1:
            return self
        numbers = [self.loss, self.squares, self.aux, self.penalty]
        mine = [n * (world.latents.rank == 0) for n in numbers]
        mine += [self.active, self.places, self.dead * (world.data.rank == 0)]
        *found, active, places, dead = world.team.sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        return Sums(*found, active=int(active), places=int(places), dead=int(dead))


class Trainer:
    """Train one dictionary batch by batch.

    Vectors are scaled as the architecture's recipe says (`start` measures by what); `finish` folds the scaling into the
    weights. With `d_out` it is a transcoder, which rebuilds `y` from `x`; with several `parts` a crosscoder; with
    `writes`, the widths of the sites that its layers write, a cross-layer transcoder. `quick`: active latents
    are looked for with bfloat16 products. `ema`: what is kept at the end is a running mean of the weights with this
    memory. Everything lies on `device` until `finish` brings the dictionary back to the CPU. Each process of a `world`
    takes the whole batch, works on its own rows of it, and from `start` or `load_state` on holds its own latents; what
    it reports is of the whole.
    """

    def __init__(
        self, config: Any, d_in: int, *, steps: int, batch: int, lr: float | None, warmup: int, seed: int,
        d_out: int | None = None, skip: bool = False, parts: tuple[int, ...] = (), quick: bool = False,
        ema: float | None = None, writes: tuple[int, ...] = (), device: torch.device | str = "cpu",
        world: World = ALONE,
    ) -> None:  # fmt: skip
        self.device, self.world = torch.device(device), world
        self.config, self.steps, self.batch, self.warmup, self.seed = config, steps, batch, warmup, seed
        self.recipe: Recipe = config.recipe
        self.decay = self.recipe.decay
        self.lr = lr or self.recipe.lr or default_lr(config.width)
        if writes:  # one encoder reads each part, and its latents write this site and those after it
            each = [read + sum(writes[i:]) for i, read in enumerate(parts or (d_in,))]
            numbers = config.width * sum(each)
        else:
            numbers = config.width * (d_in + (d_out or d_in))
        held = 4 if ema is None else 5  # weights, gradients and two moments; with a running mean once more
        if world.latents.size > 1:  # the whole weights at the start, and then its part of all
            held = 1 + held / world.latents.size
        refuse_too_large(
            f"Training width {config.width:,} on vectors of {d_in:,}", int(numbers * held * 4),
            "Give a smaller --width.",
        )  # fmt: skip
        self.dictionary: Any  # a Dictionary, or a CrossLayer where there are several to write
        if writes:
            self.dictionary = new_cross_layer(config, parts or (d_in,), writes, skip=skip, seed=seed)
        else:
            self.dictionary = new_dictionary(config, d_in, d_out=d_out, skip=skip, parts=parts, seed=seed)
        self.writes = writes
        self.dictionary.to(self.device)
        self.dictionary.quick = quick
        check_split(config, self.dictionary, batch, world)
        self.optimizer = adam(self.dictionary, self.recipe, self.lr)
        self.resample_every: int | None = getattr(config, "resample_every", None)
        limit = config.dead_after_tokens or min(max(steps * batch // 20, 1), 10_000_000)
        if self.resample_every and config.dead_after_tokens is None:
            limit = max(self.resample_every * batch // 2, 1)
        self.silence = Silence(self.dictionary.d_sae, limit, self.device, world.data)
        self.scale_in = torch.ones(d_in, device=self.device)
        self.scale_out = torch.ones(self.dictionary.d_out, device=self.device)
        self.variance = 1.0  # mean |y - mu|^2 of scaled targets
        self.penalty = Coefficient(config, steps, 1.0)
        self.ema = ema
        self.average: dict[str, Tensor] | None = None
        self.step_number, self.density = 0, 1.0
        self.usual = 0.0  # running mean of the FVU

    @property
    def unit_rows(self) -> bool:
        """Whether decoder rows are held at length 1; a transcoder's begin at zero and are left free."""
        return self.recipe.unit_rows and not self.dictionary.is_transcoder

    @property
    def _width(self) -> int:
        return self.dictionary.d_sae * self.world.latents.size

    @property
    def layers(self) -> int:
        """How many layers the latents are of; numbers of an architecture's config are of each."""
        return max(len(self.writes), 1)

    def start(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"] | None = None) -> None:
        """Set scales, biases and the encoder's length from the first rows."""
        self._fit_start(x.to(self.device), None if y is None else y.to(self.device))
        spread_(self)

    def _fit_start(self, x: Tensor, y: Tensor | None) -> None:
        d, target = self.dictionary, x if y is None else y
        self.scale_in = input_scale(x, self.recipe.scale, d.parts)
        self.scale_out = self.scale_in.clone() if y is None else input_scale(target, self.recipe.scale, self.writes)
        mean = (target.double() * self.scale_out).mean(0)
        self.variance = float((target.double() * self.scale_out - mean).square().sum(1).mean())
        power = float((target * self.scale_out).square().sum(1).mean())
        self.penalty = Coefficient(self.config, self.steps, power / self.layers)
        with torch.no_grad():
            if isinstance(d, CrossLayer):
                d.begin_(x[:FIRST_ROWS] * self.scale_in, mean)
                return
            d.b_dec.copy_(mean)
            some = d.centre(x[:FIRST_ROWS] * self.scale_in)
            if d.is_transcoder:
                d.b_enc.copy_(-some.mean(0) @ d.encoder.t())
                return
            d.W_dec.mul_(self.recipe.rows)
            d.encoder.mul_(self.recipe.rows)
            if self.recipe.scale == "variance":
                self._fit_length(some, target[:FIRST_ROWS] * self.scale_out - d.b_dec)

    def _fit_length(self, centred: Tensor, target: Tensor) -> None:
        # least squares: the multiple of the first reconstruction that is nearest to the rows
        d = self.dictionary
        pattern = d.active_in_training(centred)
        part = d.decode(d.codes(d.activate(d.pre_at(centred, pattern), pattern), pattern)) - d.b_dec
        share = float((target * part).sum() / part.square().sum().clamp(min=1e-12))
        if share > 0:
            d.encoder.mul_(share)
            for tensor in d.extra_tensors().values():
                tensor *= share

    def step(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"] | None = None) -> StepReport:
        """One step of the optimiser; TrainingError when the loss is not finite."""
        self.dictionary.begin_step(self.step_number / self.steps)
        x, y = x.to(self.device), None if y is None else y.to(self.device)
        x = x * self.scale_in
        y = x if y is None else y * self.scale_out
        coefficient, dead, sums = self.penalty.at(self.step_number), self.silence.dead(), Sums()
        for part in self._parts(len(x)):
            self._add(x, y, part, dead, coefficient, sums)
        return self.conclude(x, dead, coefficient, sums)

    def conclude(self, x: Tensor, dead: Tensor, coefficient: float, sums: Sums) -> StepReport:
        """End a step whose gradients are there: check the loss, move the weights, remember what was seen."""
        sums.dead = len(dead)
        sums = sums.everywhere(self.world)
        fvu = sums.squares / self.variance
        if not math.isfinite(sums.loss) or (self.usual > 0 and fvu > LEAP * max(self.usual, CALM)):
            self.optimizer.zero_grad()
            usual = f", after {self.usual:.3g} in the steps before" if self.usual > 0 else ""
            raise TrainingError(
                f"The loss is {sums.loss:.4g} and the FVU {fvu:.4g} at step {self.step_number}{usual}. "
                f"Lower the learning rate ({self.lr:g}), or look for rows that are not finite."
            )
        self.usual = fvu if self.usual <= 0 else 0.9 * self.usual + 0.1 * fvu
        share = lr_share(
            self.step_number, self.steps, warmup=self.warmup, decay=self.decay, warmup_from=self.recipe.warmup_from,
        )  # fmt: skip
        self._update(self.lr * share)
        l0 = sums.active / len(x)
        self.density = sums.places / len(x) / self._width
        self.penalty.see(l0 / self.layers, self.step_number)
        self.step_number += 1
        if self.resample_every and self.step_number % self.resample_every == 0:
            resample_(self.dictionary, self.optimizer, self.silence, x, seed=mix_seed(self.seed, self.step_number))
        return StepReport(
            self.step_number, fvu, sums.aux, l0, sums.dead, self.lr * share, sums.penalty,
            coefficient,
        )  # fmt: skip

    def _parts(self, rows: int) -> list[slice]:
        # while many latents are active, as those of ReLU at first, gradients are summed over parts of the batch
        if self.dictionary.whole_batch:
            return [slice(0, rows)]
        processes = self.world.data.size
        return cut_rows(rows, max(int(PLACES / max(self.density * self._width, 1.0)), 64, processes), processes)

    def _add(self, x: Tensor, y: Tensor, part: slice, dead: Tensor, coefficient: float, sums: Sums) -> None:
        # the rows of this process among those of a part: neighbours, so that the part does not depend on who takes it
        mine = self.world.data.slice(part)
        weight = (mine.stop - mine.start) / len(x)
        passed = self.forward(
            x[mine], y[mine], dead, coefficient, of=part.stop - part.start, first=mine.start - part.start
        )
        (weight * passed.total).backward()
        self.take_in(passed, y[mine], weight, sums)

    def take_in(self, passed: Passed, y: Tensor, weight: float, sums: Sums) -> None:
        """Add a part of a batch, of this share of its rows, to the step's sums."""
        self.silence.add(*passed.codes)
        sums.loss += weight * float(passed.total.detach())
        sums.squares += weight * float(reconstruction_loss(y, passed.y_hat.detach(), 1.0))
        sums.aux += weight * _number(passed.aux)
        sums.penalty += weight * _number(passed.penalty)
        sums.active += sum(int((codes.value > 0).sum()) for codes in passed.codes)
        sums.places += sum(codes.nnz for codes in passed.codes)

    def forward(
        self, x: Tensor, y: Tensor, dead: Tensor, coefficient: float, *, of: int | None = None, first: int = 0
    ) -> Passed:  # fmt: skip
        """The losses of some scaled rows: all of them, or those from number `first` on `of` all processes' rows."""
        d, variance = self.dictionary, self.variance if self.recipe.share else 1.0
        of = of or len(x)
        stride = min(AUX_STRIDE, max(of // AUX_ROWS, 1))
        some = slice((self.step_number - first) % stride, None, stride)
        if isinstance(d, CrossLayer):
            return pass_cross_layer(d, x, y, variance=variance, coefficient=coefficient, dead=dead, some=some)
        centred = d.centre(x)
        pattern = d.active_in_training(centred.detach())
        pre = d.pre_at(centred, pattern)
        value = d.activate_in_training(pre, pattern)
        rest = d.b_dec + d.skipped(x)
        if self.config.prefixes:
            loss, y_hat = prefix_loss(
                y, rest, value, d.W_dec, pattern, self.config.prefixes, variance, self.world.latents
            )
        else:
            y_hat = d.mixed(value, pattern) + rest
            loss = reconstruction_loss(y, y_hat, variance)
        share = len(x) / of
        at = Forward(d, y, rest, pattern, pre, value, variance, coefficient, centred.detach()[some], dead, share)
        penalty = self._penalty(at)
        aux = self._rebuilt_by_dead(y - y_hat, centred, dead, some, share)
        total = loss + penalty + getattr(self.config, "aux_coef", 0.0) * aux
        return Passed(y_hat, loss, penalty, aux, total, (d.codes(value.detach(), pattern),))

    def _penalty(self, at: Forward) -> Tensor | float:
        name = self.dictionary.architecture
        return PENALTIES[name](at) if name in PENALTIES else 0.0

    def _rebuilt_by_dead(
        self, error: Tensor, centred: Tensor, dead: Tensor, some: slice, share: float
    ) -> Tensor | float:  # fmt: skip
        if not getattr(self.config, "aux_coef", 0.0) or not self.world.latents.total(len(dead)):
            return 0.0
        d = self.dictionary
        k = self.config.dead_latents_used(d.d_out)
        if not k:
            return 0.0
        return auxiliary_loss(
            error[some], centred[some], d.encoder[dead], d.b_enc[dead], d.W_dec[dead], k, quick=d.quick,
            world=self.world, share=share,
        )  # fmt: skip

    def _update(self, lr: float) -> None:
        d = self.dictionary
        self.world.data.sum_(*(p.grad for p in d.parameters() if p.grad is not None))
        if self.recipe.clip is not None and self.world.latents.size == 1:
            torch.nn.utils.clip_grad_norm_(d.parameters(), self.recipe.clip)
        elif self.recipe.clip is not None:
            clip_(d.named_parameters(), self.recipe.clip, self.world.latents)
        if self.unit_rows:
            remove_parallel_(d.W_dec.grad, d.W_dec)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.unit_rows:
            unit_rows_(d.W_dec)
        d.end_step()
        if self.ema is not None:
            self._remember()

    @torch.no_grad()
    def _remember(self) -> None:
        now = dict(self.dictionary.named_parameters())
        if self.average is None:
            self.average = {name: tensor.detach().clone() for name, tensor in now.items()}
        for name, tensor in self.average.items():
            tensor.lerp_(now[name], 1 - float(self.ema or 0.0))

    @torch.no_grad()
    def finish(self, dtype: torch.dtype) -> None:
        """Fold the scaling in and round the weights to the type that they will be stored as."""
        join_(self)
        d = self.dictionary
        for name, tensor in (self.average or {}).items():
            d.get_parameter(name).copy_(tensor)
        d.fold_(self.scale_in, self.scale_out)
        for tensor in d.weights().values():
            tensor.copy_(rounded(tensor, dtype))
        d.stored_dtype = dtype
        d.requires_grad_(False).eval().cpu()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, as named tensors."""
        tensors = {f"weight.{name}": tensor.detach() for name, tensor in self.dictionary.state_dict().items()}
        for name, parameter in self.dictionary.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"{key}.{name}": moments[key] for key in MOMENTS if key in moments}
        tensors |= {f"average.{name}": tensor for name, tensor in (self.average or {}).items()}
        tensors["silence"] = self.silence.rows
        tensors["scale_in"], tensors["scale_out"] = self.scale_in, self.scale_out
        numbers = [self.variance, self.density, self.usual, *self.penalty.state()]
        tensors["numbers"] = torch.tensor(numbers, dtype=torch.float64)
        tensors["step_number"] = torch.tensor(self.step_number)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        weights = {name.removeprefix("weight."): t for name, t in tensors.items() if name.startswith("weight.")}
        self.dictionary.load_state_dict(weights)
        for name, parameter in self.dictionary.named_parameters():
            kept = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
            moments = {key: tensor.clone().to(parameter.device) for key, tensor in kept.items()}
            if moments:
                self.optimizer.state[parameter] = moments
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        average = {n[8:]: t.to(self.device) for n, t in tensors.items() if n.startswith("average.")}
        self.average = average or None
        self.silence.rows = tensors["silence"].to(self.device)
        self.scale_in, self.scale_out = (tensors[name].to(self.device) for name in ("scale_in", "scale_out"))
        self.variance, self.density, self.usual, *penalty = tensors["numbers"].tolist()
        self.penalty.load_state(penalty)
        self.step_number = int(tensors["step_number"])
        spread_(self)


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else value
