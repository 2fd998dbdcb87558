"""One training step of each tool on given rows, as `stepper(name, d_in, d_sae, rows) -> function of a batch`.

Imported by `train_vs_peers.py` in the interpreter of the tool itself, so nothing but torch is imported at the top. A
name is `<tool> <architecture>`, with `bf16` for the tool's autocast and `AuxK` for half of the latents dead.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

K, L0, STEPS = 32, 50, 10_000
LR = 1e-4
Step = Callable[[Tensor], object]


def stepper(name: str, d_in: int, d_sae: int, rows: Tensor) -> Step:
    """The step of a tool, as its own trainer takes it: loss, gradients, clipping, optimiser, statistics."""
    tool, _, kind = name.partition(" ")
    makers = {
        "lensing": _lensing,
        "SAELens": _saelens,
        "sparsify": _sparsify,
        "dictionary_learning": _dictionary_learning,
    }
    return makers[tool](kind, d_in, d_sae, rows)


def floor(name: str, d_in: int, d_sae: int, rows: Tensor) -> Step:
    """What no TopK step can avoid (one bfloat16 product and one selection), or five dense float32 products."""
    weight = torch.randn(d_sae, d_in)
    if name == "product and selection":
        from lensing.dictionary.select import top_pattern

        bias = torch.zeros(d_sae)
        return lambda x: top_pattern(x, weight, bias, K, quick=True)
    dense = torch.zeros(len(rows), d_sae)

    def products(x: Tensor) -> None:
        f = torch.mm(x, weight.t(), out=dense)
        e = f @ weight
        torch.mm(e, weight.t(), out=dense)
        _ = dense.t() @ e, dense.t() @ x

    return products


def _lensing(kind: str, d_in: int, d_sae: int, rows: Tensor) -> Step:
    import lensing as ln
    from lensing.training.loop import bfloat16_is_fast
    from lensing.training.step import Trainer

    configs: dict[str, Any] = {
        "TopK": ln.TopK(width=d_sae, k=K), "BatchTopK": ln.BatchTopK(width=d_sae, k=K),
        "Matryoshka": ln.Matryoshka(width=d_sae, k=K), "L1": ln.ReLU(width=d_sae, sparsity=1.0),
        "JumpReLU": ln.JumpReLU(width=d_sae, sparsity=1e-3),
    }  # fmt: skip
    architecture = kind.split()[0]
    trainer = Trainer(
        configs[architecture], d_in, steps=STEPS, batch=len(rows), lr=LR, warmup=1, seed=0,
        quick="float32" not in kind and bfloat16_is_fast(),
    )  # fmt: skip
    trainer.start(rows)
    d: Any = trainer.dictionary
    with torch.no_grad():
        if architecture in ("L1", "JumpReLU"):  # where a training has arrived: about 50 latents a row
            some = rows[:256] * trainer.scale_in  # few: this is no part of the job, nor is its memory
            pre = d.centre(some) @ d.W_enc + d.b_enc
            edge = pre.flatten().kthvalue(pre.numel() - L0 * len(some)).values
            (d.threshold.fill_(float(edge)) if architecture == "JumpReLU" else d.b_enc.sub_(edge))
            trainer.density = L0 / d_sae
        if "AuxK" in kind:
            d.b_enc[: d_sae // 2] -= 0.3 * float(d.W_enc.norm(dim=0).mean())
    dead = torch.arange(d_sae // 2)

    def step(x: Tensor) -> object:
        if "AuxK" in kind:
            trainer.silence.rows[dead] = trainer.silence.limit
        return trainer.step(x)

    return step


def _saelens(kind: str, d_in: int, d_sae: int, rows: Tensor) -> Step:
    from sae_lens import saes
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sizes: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu"}
    prefixes = [d_sae * n // 32 for n in (1, 3, 7, 15, 32)]
    made: dict[str, tuple[Any, Any]] = {
        "TopK": (saes.TopKTrainingSAE, lambda: saes.TopKTrainingSAEConfig(**sizes, k=K)),
        "BatchTopK": (saes.BatchTopKTrainingSAE, lambda: saes.BatchTopKTrainingSAEConfig(**sizes, k=K)),
        "Matryoshka": (
            saes.MatryoshkaBatchTopKTrainingSAE,
            lambda: saes.MatryoshkaBatchTopKTrainingSAEConfig(**sizes, k=K, matryoshka_widths=prefixes),
        ),
        "L1": (saes.StandardTrainingSAE, lambda: saes.StandardTrainingSAEConfig(**sizes)),
        "JumpReLU": (saes.JumpReLUTrainingSAE, lambda: saes.JumpReLUTrainingSAEConfig(**sizes)),
    }
    cls, config = made[kind.split()[0]]
    sae = cls(config())
    settings = SAETrainerConfig(
        total_training_samples=STEPS * len(rows),
        train_batch_size_samples=len(rows),
        lr=LR,
        lr_end=LR,
        autocast="bf16" in kind,
    )
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=iter([rows]))

    def step(x: Tensor) -> object:
        if "AuxK" in kind:
            trainer.n_forward_passes_since_fired[: d_sae // 2] = 1e9
        out = trainer.step(x)
        trainer.n_training_steps += 1
        return out

    return step


def _sparsify(kind: str, d_in: int, d_sae: int, rows: Tensor) -> Step:
    from sparsify import SparseCoder, SparseCoderConfig

    torch.cuda.is_bf16_supported = lambda *_, **__: False  # its forward asks CUDA; there is none here
    sae = SparseCoder(d_in, SparseCoderConfig(num_latents=d_sae, k=K))
    sae.b_dec.data = rows.mean(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR)
    silent = torch.zeros(d_sae, dtype=torch.long)
    dead = torch.arange(d_sae) < d_sae // 2 if "AuxK" in kind else None

    def step(x: Tensor) -> object:  # as in sparsify/trainer.py
        sae.set_decoder_norm_to_unit_norm()
        out = sae(x, dead_mask=dead)
        loss = out.fvu + (out.auxk_loss / 32 if dead is not None else 0.0)
        loss.backward()
        fired = torch.zeros(d_sae, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        silent.add_(len(x))
        silent[fired] = 0
        return out

    return step


def _dictionary_learning(kind: str, d_in: int, d_sae: int, rows: Tensor) -> Step:
    # its package imports nnsight, which its trainers do not use and which may be missing
    if "nnsight" not in sys.modules and importlib.util.find_spec("nnsight") is None:
        sys.modules["nnsight"] = types.ModuleType("nnsight")
        sys.modules["nnsight"].LanguageModel = object
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    common: dict[str, Any] = {
        "steps": STEPS, "activation_dim": d_in, "dict_size": d_sae, "layer": 0, "lm_name": "none", "lr": LR,
        "device": "cpu",
    }  # fmt: skip
    architecture = kind.split()[0]
    trainer: Any
    if architecture in ("TopK", "BatchTopK"):
        trainer = (TopKTrainer if architecture == "TopK" else BatchTopKTrainer)(**common, k=K)
    elif architecture == "Matryoshka":
        trainer = MatryoshkaBatchTopKTrainer(**common, k=K, group_fractions=[1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32])
    else:
        trainer = (StandardTrainer if architecture == "L1" else JumpReluTrainer)(**common)
    trainer.update(0, rows)
    done = 1

    def step(x: Tensor) -> object:
        nonlocal done
        if "AuxK" in kind:
            trainer.num_tokens_since_fired[: d_sae // 2] = 1 << 40
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled="bf16" in kind):
            out = trainer.update(done, x)
        done += 1
        return out

    return step
