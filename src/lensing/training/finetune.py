"""End-to-end fine-tuning: a finished dictionary, spliced into its model, also lowers what the splice costs.

The loss is (reconstruction + a beta KL) / (1 + beta), a = reconstruction / KL without gradient, KL the mean over
positions of KL(clean || spliced); penalties and AuxK as before. Source: Karvonen 2025, "Revisiting End-To-End Sparse
Autoencoder Training: A Short Finetune Is All You Need"; Braun et al. 2024.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.config import differences, to_mapping, write_run
from lensing.data.live import LiveSource, live
from lensing.data.rows import mix_seed
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits, load_dictionary, refuse_other_wiring
from lensing.dictionary.statistics import Sample
from lensing.dist import refuse_many
from lensing.errors import DictionaryError, Interrupted, TrainingError, UsageError
from lensing.files import check_writable
from lensing.measure.splice_cost import SpliceCost, splice_cost
from lensing.model.edit import Edit, EditContext, where
from lensing.model.run import Model
from lensing.model.tokens import Tokens
from lensing.progress import Meter
from lensing.training.checkpoint import Asked, latest_checkpoint, remove_checkpoints, write_checkpoint
from lensing.training.ending import SAMPLE_TOKENS
from lensing.training.finish import measure_statistics
from lensing.training.loop import POINTS, START_ROWS
from lensing.training.losses import balanced_loss, kl_loss
from lensing.training.objectives import Passed
from lensing.training.step import StepReport, Sums, Trainer

NEARLY = 0.02  # decoder rows whose lengths differ by less differ by rounding


@dataclass(frozen=True)
class FinetuneReport:
    """What fine-tuning did: numbers on held-out rows, and the splice's cost on held-out documents, before and after.

    `tokens` rows were seen in `steps` steps of about `batch` rows in whole documents. `history` are points of
    metrics.jsonl.
    """

    steps: int
    tokens: int
    batch: int
    lr: float
    beta: float
    seed: int
    seconds: float
    documents: int
    held_out_documents: int
    held_out_rows: int
    fvu_before: float
    fvu: float
    l0_before: float
    l0: float
    dead_share: float
    before: SpliceCost
    after: SpliceCost
    history: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"before": self.before.to_json(), "after": self.after.to_json()}

    def summary(self) -> dict[str, Any]:
        """The same without the history, as it stands in the dictionary's config.json."""
        return {name: value for name, value in asdict(self).items() if name != "history"}


def finetune(
    dictionary: Dictionary,
    model: Model,
    documents: Sequence[str | Sequence[int]],
    *,
    tokens: int | None = None,
    batch: int = 2048,
    beta: float = 1.0,
    lr: float | None = None,
    sparsity: float | None = None,
    seed: int = 0,
    held_out: float = 0.05,
    held_out_rows: int = 131_072,
    corpus: str | None = None,
    out: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = True,
    quiet: bool = False,
    callback: Callable[[StepReport, float], None] | None = None,
) -> Dictionary:
    """Fine-tune a finished autoencoder end to end on documents and return the new one, with `.report`.

    About `batch` rows of whole documents a step, `tokens` rows in all (None: one pass). `beta` weighs the KL against
    the reconstruction, 1 alike. `lr` None is the architecture's own; the rate falls evenly to zero. A penalty needs its
    weight, `sparsity` (None: the config's, or where training ended, if that is known). The documents, `seed` and
    `held_out` that it was trained with hold out the same documents again. Special positions are never spliced. With
    `out`, the run can be stopped and continued as in `train`. `callback` gets each step's report and KL.

    Raises: DictionaryError: a transcoder or crosscoder, or one that does not fit the model. UsageError: numbers that
    cannot be, or no `sparsity` to be found. TrainingError: the loss is not finite or leaps. Interrupted: as in `train`.
    """
    refuse_many("Fine-tuning")
    refuse_other_wiring(dictionary, "fine-tuned end to end")
    check_fits(dictionary, model)
    if batch < 1 or (tokens is not None and tokens < 1) or not (beta > 0 and math.isfinite(beta)):
        raise UsageError(f"Cannot train on {tokens} rows, {batch} a step, with beta {beta}. Give positive numbers.")
    source = live(model, documents, sites=str(dictionary.site), seed=seed, held_out=held_out, corpus=corpus)
    if not source.held_out_documents:
        raise UsageError("Nothing is held out to measure on. Give more documents, or held_out above 0.")
    pieces = source.training_tokens()
    rows = [len(p) - (p.count(model.bos_id) if model.bos_id is not None else 0) for p in pieces]
    plan = plan_steps(rows, batch, tokens or source.rows, seed)
    setting = {
        "dictionary": _digest(dictionary), "config": to_mapping(dictionary.config), "site": dictionary.site,
        "steps": len(plan), "batch": batch, "beta": beta, "lr": lr, "seed": seed, "held_out_rows": held_out_rows,
        "sparsity": _coefficient(dictionary, sparsity), "source": source.fingerprint(),
    }  # fmt: skip
    run = _Finetuning(dictionary, model, source, pieces, plan, json.loads(json.dumps(setting)), out)
    if (done := run.begin(resume)) is None:
        run.loop(checkpoint_minutes, quiet, callback)
        done = run.finish()
    return done


def plan_steps(rows: Sequence[int], batch: int, tokens: int, seed: int) -> list[list[int]]:
    """Which pieces of text are read at each step: whole ones, permuted anew each epoch, of at least `batch` rows
    together (an epoch's last step may have fewer), until there are `tokens` rows."""
    plan: list[list[int]] = []
    total = epoch = 0
    while total < tokens:
        order = np.random.Generator(np.random.PCG64(mix_seed(seed, epoch))).permutation(len(rows))
        here: list[int] = []
        held = 0
        for place, piece in enumerate(order.tolist()):
            here.append(piece)
            held += rows[piece]
            if held >= batch or (place == len(order) - 1 and held) or total + held >= tokens:
                plan.append(here)
                total, here, held = total + held, [], 0
                if total >= tokens:
                    break
        epoch += 1
    return plan


class InTraining(Edit):
    """Write a training dictionary's reconstruction over its site at positions that are not special, keeping losses."""

    def __init__(self, trainer: Trainer, site: str, dead: Tensor, coefficient: float) -> None:
        self.trainer, self.site, self.dead, self.coefficient = trainer, site, dead, coefficient
        self.x: Float[Tensor, "rows d_in"] | None = None
        self.passed: Passed | None = None

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        """The spliced value of the site; `x` (scaled) and `passed` are kept."""
        chosen, t = where(at), self.trainer
        self.x = h[chosen].flatten(1).detach().to(t.scale_in.dtype) * t.scale_in
        self.passed = t.forward(self.x, self.x, self.dead, self.coefficient)
        out = h.clone()
        out[chosen] = (self.passed.y_hat / t.scale_out).to(h.dtype).view(-1, *h.shape[2:])
        return out


def finetune_step(trainer: Trainer, model: Model, tokens: Tokens, site: str, beta: float) -> tuple[StepReport, float]:
    """One step on some documents: the step's report, and the KL before it."""
    trainer.dictionary.begin_step(1.0)
    counted = ~tokens.special
    clean = model.logits(tokens)[counted]
    coefficient, dead, sums = trainer.penalty.at(trainer.step_number), trainer.silence.dead(), Sums()
    edit = InTraining(trainer, site, dead, coefficient)
    with model.edit(edit):
        spliced = model.logits(tokens, grad="edits")[counted]
    assert edit.passed is not None
    assert edit.x is not None
    wide = trainer.scale_in.dtype
    divergence, passed = kl_loss(clean.to(wide), spliced.to(wide)), edit.passed
    aux = getattr(trainer.config, "aux_coef", 0.0) * passed.aux
    total = balanced_loss(passed.loss, divergence, beta) + passed.penalty + aux
    total.backward()
    trainer.take_in(replace(passed, total=total), edit.x, 1.0, sums)
    return trainer.conclude(edit.x, dead, coefficient, sums), float(divergence.detach())


def continued(
    dictionary: Dictionary, x: Float[Tensor, "rows d_in"], *, steps: int, batch: int, lr: float | None,
    sparsity: float | None = None, seed: int = 0,
) -> Trainer:  # fmt: skip
    """A trainer that goes on from a finished dictionary, scaled on the rows `x` as its recipe says."""
    trainer = Trainer(
        dictionary.config, dictionary.d_in, steps=steps, batch=batch, lr=lr, warmup=min(100, max(steps // 20, 1)),
        seed=seed,
    )  # fmt: skip
    trainer.start(x)
    trainer.decay, trainer.penalty.ramp = 1.0, 1
    if sparsity is not None:
        trainer.penalty.first = sparsity
    d = trainer.dictionary
    d.centred = dictionary.centred
    with torch.no_grad():
        for name, tensor in dictionary.named_parameters():
            d.get_parameter(name).copy_(tensor)
    d.load_extra_tensors({name: tensor.clone() for name, tensor in dictionary.extra_tensors().items()})
    d.fold_(1 / trainer.scale_in, 1 / trainer.scale_out)
    # rows stored in bfloat16 are not quite of length 1: what their rounding did to a common number is undone
    for name in ("threshold", "rank"):
        value = getattr(d, name, None)
        if value is None or value.requires_grad or len(value) == 1:
            continue
        if float(value.max() - value.min()) > NEARLY * float(value.max()):
            if name == "threshold":
                raise DictionaryError(
                    f"{dictionary} has a threshold for each latent, which BatchTopK does not train. "
                    "Fine-tune a dictionary that was trained here."
                )
        else:
            setattr(d, name, value.mean().reshape(1) if name == "threshold" else torch.ones_like(value))
    return trainer


class _Finetuning:
    """The state of one call of finetune."""

    def __init__(
        self, dictionary: Dictionary, model: Model, source: LiveSource, pieces: list[list[int]], plan: list[list[int]],
        setting: dict[str, Any], out: str | Path | None,
    ) -> None:  # fmt: skip
        self.dictionary, self.model, self.source, self.pieces, self.plan = dictionary, model, source, pieces, plan
        self.setting, self.out = setting, Path(out) if out is not None else None
        self.step, self.rows, self.seconds = 0, 0, 0.0
        self.saved: Path | None = None
        self.history: list[dict[str, float]] = []

    def begin(self, resume: bool) -> Dictionary | None:
        """Prepare trainer and folder; return the dictionary when this very run was finished before."""
        if self.out is not None:
            check_writable(self.out)
            if not resume:
                remove_checkpoints(self.out)
            elif self._finished():
                return self._reload()
        first = next(self.source.batches(min(START_ROWS, self.source.rows)))[str(self.dictionary.site)]
        self.trainer = continued(
            self.dictionary, first, steps=len(self.plan), batch=self.setting["batch"], lr=self.setting["lr"],
            sparsity=self.setting["sparsity"], seed=self.setting["seed"],
        )  # fmt: skip
        if self.out is None or (found := latest_checkpoint(self.out)) is None:
            if self.out is not None:
                self.out.mkdir(parents=True, exist_ok=True)
                (self.out / "config.json").unlink(missing_ok=True)
                write_run(self.out, what="finetune", setting=self.setting)
            return None
        self.saved, tensors, facts = found
        if facts["setting"] != self.setting:
            raise UsageError(
                f"{self.saved} belongs to another run ({differences(facts['setting'], self.setting)}). "
                "Give another folder with --out, or start anew without resuming."
            )
        self.trainer.load_state(tensors)
        self.step, self.rows = int(facts["step"]), int(facts["rows"])
        self.seconds, self.history = float(facts["seconds"]), facts["history"]
        return None

    def _finished(self) -> bool:
        assert self.out is not None
        try:
            record = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        same = isinstance(record, dict) and record.get("setting") == self.setting
        return same and (self.out / "config.json").exists()

    def _reload(self) -> Dictionary:
        assert self.out is not None
        dictionary = load_dictionary(self.out)
        facts = json.loads((self.out / "config.json").read_text(encoding="utf-8"))["training"]
        costs = {name: SpliceCost.from_json(facts[name]) for name in ("before", "after")}
        lines = (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        dictionary.report = FinetuneReport(**(facts | costs), history=[json.loads(line) for line in lines])
        return dictionary

    def loop(
        self, checkpoint_minutes: float, quiet: bool, callback: Callable[[StepReport, float], None] | None
    ) -> None:
        """Take the steps that are left."""
        every = max(len(self.plan) // POINTS, 1)
        began, before, saved = time.monotonic(), self.seconds, time.monotonic()
        with Asked() as asked, Meter("fine-tuning", total=len(self.plan), quiet=quiet) as meter:
            meter.resume(self.step)
            try:
                while self.step < len(self.plan):
                    tokens = self.model.encode([self.pieces[i] for i in self.plan[self.step]])
                    site = str(self.dictionary.site)
                    report, divergence = finetune_step(self.trainer, self.model, tokens, site, self.setting["beta"])
                    self.step, self.rows = self.step + 1, self.rows + int((~tokens.special).sum())
                    self.seconds = before + time.monotonic() - began
                    if self.step % every == 0 or self.step == len(self.plan):
                        self.history.append(
                            {
                                "step": self.step, "rows": self.rows, "fvu": report.fvu, "kl": divergence,
                                "l0": report.l0, "dead": report.dead, "lr": report.lr, "penalty": report.penalty,
                                "coefficient": report.coefficient, "seconds": round(self.seconds, 3),
                            }
                        )  # fmt: skip
                    meter.advance(1, f"fvu {report.fvu:.3f}, kl {divergence:.4f}")
                    if callback is not None:
                        callback(report, divergence)
                    if asked.by is not None:
                        raise self._stopped(asked.by)
                    if time.monotonic() - saved > 60 * checkpoint_minutes:
                        self._checkpoint()
                        saved = time.monotonic()
            except KeyboardInterrupt as error:
                raise self._stopped("SIGINT") from error
            except TrainingError as error:
                kept = self._kept()
                where_ = f"The last good state is {kept}." if kept else "Nothing was saved. Give --out to keep work."
                raise TrainingError(f"Step {self.step + 1} stopped the fine-tuning. {error} {where_}") from error

    def _checkpoint(self) -> Path | None:
        if self.out is None:
            return None
        facts = {
            "setting": self.setting, "step": self.step, "rows": self.rows, "seconds": self.seconds,
            "history": self.history,
        }  # fmt: skip
        self.saved = write_checkpoint(self.out, self.trainer.state(), facts)
        return self.saved

    def _kept(self) -> Path | None:
        # a step that was cut in half leaves a trainer that disagrees with the counter
        return self._checkpoint() if self.trainer.step_number == self.step else self.saved

    def _stopped(self, by: str) -> Interrupted:
        path, where_ = self._kept(), f"Stopped by {by} at step {self.step} of {len(self.plan)}"
        if path is None:
            return Interrupted(f"{where_}; nothing was saved. Give --out to keep work.")
        return Interrupted(f"{where_}; the checkpoint is {path}. Run the same command to continue.")

    def finish(self) -> Dictionary:
        """Fold, round, measure before and after, and save."""
        self._checkpoint()
        old, t = self.dictionary, self.trainer
        t.finish(old.stored_dtype)
        d: Dictionary = t.dictionary
        d.site, d.model_name = old.site, self.model.name
        site, held = str(old.site), list(self.source.held_out(self.setting["held_out_rows"]))
        counted = {"corpus": self.source.corpus, "documents": self.source.held_out_documents}
        first = measure_statistics(old, (part[site] for part in held), **counted)
        s = d.statistics = measure_statistics(d, (part[site] for part in held), **counted)
        sample = self.source.held_out_tokens(SAMPLE_TOKENS)
        d.sample = Sample.of(sample)
        before, after = (splice_cost(self.model, one, sample, site=site, mean=first.mean) for one in (old, d))
        d.report = FinetuneReport(
            steps=len(self.plan), tokens=self.rows, batch=self.setting["batch"], lr=t.lr, beta=self.setting["beta"],
            seed=self.setting["seed"], seconds=self.seconds, documents=self.source.documents,
            held_out_documents=self.source.held_out_documents, held_out_rows=s.n, fvu_before=first.fvu, fvu=s.fvu,
            l0_before=first.l0, l0=s.l0, dead_share=s.dead_share, before=before, after=after, history=self.history,
        )  # fmt: skip
        if self.out is not None:
            lines = "".join(json.dumps(point) + "\n" for point in self.history)
            (self.out / "metrics.jsonl").write_text(lines, encoding="utf-8")
            d.save(self.out)
            remove_checkpoints(self.out)
        return d


def _coefficient(dictionary: Dictionary, given: float | None) -> float | None:
    # the penalty's weight: what is given, where training ended, or what its config says
    if not hasattr(dictionary.config, "sparsity"):
        return None
    history = getattr(dictionary.report, "history", None)
    found = given if given is not None else history[-1]["coefficient"] if history else dictionary.config.sparsity
    if found is None or (given is None and not found):
        raise UsageError(
            f"Nothing says how strong the penalty of {dictionary} was at the end of its training. "
            "Give sparsity=, such as the last coefficient in its metrics.jsonl."
        )
    return found


def _digest(dictionary: Dictionary) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted((dictionary.weights() | dictionary.extra_tensors()).items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
