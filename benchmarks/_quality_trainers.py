"""Train one dictionary with one tool's own trainer on given rows, and score it.

Run by `quality_vs_peers.py` in the interpreter of the tool: `python quality_trainers.py JSON`, a list of cells.
A cell names tool, architecture, setting (k, an L0 or a coefficient), rate, seed, steps, batch, width, the files of rows
and truth, and the file for its scores, which is written whole or not at all. All tools see the same batches in the same
order; what is each tool's own: loss, initialisation, scaling, optimiser, dead-latent rule.

Where a tool's defaults are absolute numbers of steps that no run of this length reaches, they are put in proportion,
the same for all: warm-ups a twentieth of the steps, decay over the last fifth, a latent is dead after a twentieth.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from _quality_score import Run, score
from torch import Tensor

FIRST = 32_768  # rows that scales and biases are measured on
PREFIXES = (1, 3, 7, 15, 32)  # of 32, Matryoshka's widths


def batches(rows: np.ndarray, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """The batches of a run: epochs of permuted rows, the same for every tool."""
    rng, order, place = np.random.default_rng(seed), np.zeros(0, dtype=np.int64), 0
    for _ in range(steps):
        if place + batch > len(order):
            order, place = rng.permutation(len(rows)), 0
        yield torch.from_numpy(np.ascontiguousarray(rows[order[place : place + batch]]))
        place += batch


def lensing(cell: dict[str, Any], rows: np.ndarray) -> tuple[Run, np.ndarray, dict[str, Any]]:
    """This package, as `ln.train` does it."""
    import lensing as ln
    from lensing.training.loop import bfloat16_is_fast
    from lensing.training.step import Trainer

    width, setting, kind = cell["width"], cell["setting"], cell["architecture"]
    makers: dict[str, Any] = {"TopK": ln.TopK, "BatchTopK": ln.BatchTopK, "Matryoshka": ln.Matryoshka}
    steered: dict[str, Any] = {"L1": ln.ReLU, "Gated": ln.Gated, "JumpReLU": ln.JumpReLU}
    if kind in makers:
        config = makers[kind](width=width, k=int(setting))
    else:
        config = steered[kind](width=width, l0=setting)
    steps = cell["steps"]
    products = cell.get("products") or ("bfloat16" if bfloat16_is_fast() else "float32")
    trainer = Trainer(
        config, rows.shape[1], steps=steps, batch=cell["batch"], lr=cell["lr"], warmup=max(steps // 20, 1),
        seed=cell["seed"], quick=products == "bfloat16",
    )  # fmt: skip
    trainer.start(torch.from_numpy(rows[:FIRST].copy()))
    for x in batches(rows, cell["batch"], steps, cell["seed"]):
        trainer.step(x)
    trainer.finish(torch.float32)
    sae = trainer.dictionary

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes = sae.encode(torch.from_numpy(x.copy()))
        return codes.dense().numpy(), sae.decode(codes).numpy()

    return run, sae.W_dec.numpy(), {"lr": trainer.lr, "products": products}


def saelens(cell: dict[str, Any], rows: np.ndarray) -> tuple[Run, np.ndarray, dict[str, Any]]:
    """SAELens: its SAETrainer.fit, activations scaled to |x| = sqrt(d) on average, folded by itself."""
    from sae_lens import saes
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    d, width, steps, batch, setting = rows.shape[1], cell["width"], cell["steps"], cell["batch"], cell["setting"]
    few = max(steps // 20, 1)
    common: dict[str, Any] = {"d_in": d, "d_sae": width, "normalize_activations": "expected_average_only_in"}
    made: dict[str, Any] = {
        "TopK": lambda: (saes.TopKTrainingSAE, saes.TopKTrainingSAEConfig(**common, k=int(setting))),
        "BatchTopK": lambda: (saes.BatchTopKTrainingSAE, saes.BatchTopKTrainingSAEConfig(**common, k=setting)),
        "Matryoshka": lambda: (
            saes.MatryoshkaBatchTopKTrainingSAE,
            saes.MatryoshkaBatchTopKTrainingSAEConfig(
                **common, k=setting, matryoshka_widths=[width * n // 32 for n in PREFIXES]
            ),
        ),
        "L1": lambda: (
            saes.StandardTrainingSAE,
            saes.StandardTrainingSAEConfig(**common, l1_coefficient=setting, l1_warm_up_steps=few),
        ),
        "Gated": lambda: (
            saes.GatedTrainingSAE,
            saes.GatedTrainingSAEConfig(**common, l1_coefficient=setting, l1_warm_up_steps=few),
        ),
        "JumpReLU": lambda: (
            saes.JumpReLUTrainingSAE,
            saes.JumpReLUTrainingSAEConfig(**common, l0_coefficient=setting, l0_warm_up_steps=few),
        ),
    }
    torch.manual_seed(cell["seed"])
    cls, config = made[cell["architecture"]]()
    sae = cls(config)
    settings = SAETrainerConfig(
        total_training_samples=steps * batch, train_batch_size_samples=batch, lr=cell["lr"] or 3e-4,
        lr_end=(cell["lr"] or 3e-4) / 10, lr_warm_up_steps=few, lr_decay_steps=steps // 5, dead_feature_window=few,
    )  # fmt: skip
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=batches(rows, batch, steps, cell["seed"]))
    first = torch.from_numpy(rows[:FIRST].copy())
    trainer.activation_scaler.scaling_factor = d**0.5 / float(first.norm(dim=1).mean())
    trainer.fit()
    sae.eval()
    threshold = getattr(sae, "topk_threshold", None)

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            inputs = torch.from_numpy(x.copy())
            if threshold is None:
                codes = sae.encode(inputs)
            else:  # what it saves for inference: one threshold in place of the batch's choice
                _, pre = sae.encode_with_hidden_pre(inputs)
                codes = pre * (pre > threshold)
            codes = codes.to_dense() if codes.is_sparse else codes
            return codes.float().numpy(), sae.decode(codes.float()).numpy()

    return run, sae.W_dec.detach().numpy(), {"lr": settings.lr}


def dictionary_learning(cell: dict[str, Any], rows: np.ndarray) -> tuple[Run, np.ndarray, dict[str, Any]]:
    """dictionary_learning: its trainers' update, activations divided by sqrt(E|x|^2) as its training.py does."""
    # its package imports nnsight, which its trainers do not use and which may be missing
    if "nnsight" not in sys.modules and importlib.util.find_spec("nnsight") is None:
        sys.modules["nnsight"] = types.ModuleType("nnsight")
        sys.modules["nnsight"].LanguageModel = object  # type: ignore[attr-defined]
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    kind, setting, steps = cell["architecture"], cell["setting"], cell["steps"]
    few = max(steps // 20, 1)
    options: dict[str, Any] = {
        "steps": steps, "activation_dim": rows.shape[1], "dict_size": cell["width"], "layer": 0, "lm_name": "none",
        "device": "cpu", "warmup_steps": few, "decay_start": steps - steps // 5, "seed": cell["seed"],
    }  # fmt: skip
    if cell["lr"] is not None:
        options["lr"] = cell["lr"]
    if kind in ("TopK", "BatchTopK", "Matryoshka"):
        options |= {"k": int(setting), "threshold_start_step": few}
    else:
        options |= {"sparsity_warmup_steps": few}
    torch.manual_seed(cell["seed"])
    made: dict[str, Any] = {
        "TopK": lambda: TopKTrainer(**options), "BatchTopK": lambda: BatchTopKTrainer(**options),
        "Matryoshka": lambda: MatryoshkaBatchTopKTrainer(
            **options, group_fractions=[(b - a) / 32 for a, b in zip((0, *PREFIXES), PREFIXES, strict=False)]
        ),
        "L1": lambda: StandardTrainer(**options, l1_penalty=setting),
        "Gated": lambda: GatedSAETrainer(**options, l1_penalty=setting),
        "JumpReLU": lambda: JumpReluTrainer(**options, target_l0=setting),
    }  # fmt: skip
    trainer = made[kind]()
    trainer.dead_feature_threshold = few * cell["batch"]
    norm = float(torch.from_numpy(rows[:FIRST].copy()).square().sum(1).mean().sqrt())
    for step, x in enumerate(batches(rows, cell["batch"], steps, cell["seed"])):
        trainer.update(step, x / norm)
    sae = trainer.ae
    sae.scale_biases(norm)
    plain = {"use_threshold": False} if kind == "TopK" else {}  # k of each row, as its own evaluation encodes

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            codes = sae.encode(torch.from_numpy(x.copy()), **plain)
            return codes.numpy(), sae.decode(codes).numpy()

    weight = sae.W_dec if hasattr(sae, "W_dec") else sae.decoder.weight.T
    return run, weight.detach().numpy(), {"lr": trainer.lr}


TOOLS = {"lensing": lensing, "SAELens": saelens, "dictionary_learning": dictionary_learning}


def main() -> None:
    """Train and score every cell of the list that has no result yet."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for cell in json.loads(sys.argv[1]):
        if os.path.exists(cell["out"]):
            continue
        rows, test = np.load(cell["rows"], mmap_mode="r"), np.load(cell["test"])
        truth = dict(np.load(cell["truth"])) if cell.get("truth") else None
        began = time.process_time()
        try:
            run, decoder, facts = TOOLS[cell["tool"]](cell, rows)
            seconds = time.process_time() - began
            found: dict[str, Any] = score(run, test, decoder, truth) | {"seconds": seconds} | facts
        except (RuntimeError, ValueError, ArithmeticError) as error:  # a rate too high: the cell is lost, not the run
            found = {"failed": f"{type(error).__name__}: {error}"}
        record = {key: value for key, value in cell.items() if key not in ("rows", "test", "truth", "out")} | found
        with open(cell["out"] + ".part", "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.replace(cell["out"] + ".part", cell["out"])
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
