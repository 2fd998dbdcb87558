"""Training a small language model on a corpus: Muon for matrices, AdamW for the rest, checkpoints, one process."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lensing.errors import Interrupted, TrainingError
from lensing.files import atomic_file
from lensing.progress import Meter
from lensing.world.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Settings of one training run; learning rates are peaks."""

    tokens: int = 30_000_000
    batch_tokens: int = 4096
    lr_matrix: float = 0.02
    lr_embedding: float = 0.005
    lr_scalar: float = 0.005
    warmup: float = 0.01
    decay: float = 0.4
    weight_decay: float = 0.01
    seed: int = 0
    checkpoint_minutes: float = 5.0
    bf16: bool = True


def batches(corpus: Corpus, batch_tokens: int, *, seed: int, pad_id: int) -> Iterator[torch.Tensor]:
    """Yield padded batches of whole documents for ever, a new order each epoch; documents of like length together.

    Each is `[documents, longest]` int64 with at most `batch_tokens` entries.
    """
    lengths = np.diff(corpus.starts)
    for epoch in range(10**9):
        order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(corpus))
        for pool in np.array_split(order, max(1, len(order) // 8192)):
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            groups, start = [], 0
            for end in range(1, len(pool) + 1):
                if end == len(pool) or (end + 1 - start) * lengths[pool[end]] > batch_tokens:
                    groups.append(pool[start:end])
                    start = end
            mixed = np.random.Generator(np.random.PCG64([seed, epoch, int(pool[0])])).permutation(len(groups))
            for g in mixed:
                rows = groups[g]
                batch = np.full((len(rows), int(lengths[rows].max())), pad_id, dtype=np.int64)
                for i, document in enumerate(rows):
                    batch[i, : lengths[document]] = corpus[document]
                yield torch.from_numpy(batch)


def next_token_loss(model: Any, batch: torch.Tensor, pad_id: int, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy in nats of each next token, padding left out."""
    logits = model(input_ids=batch, use_cache=False).logits
    targets = batch[:, 1:].masked_fill(batch[:, 1:] == pad_id, -100)
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return torch.nn.functional.cross_entropy(flat, targets.reshape(-1), ignore_index=-100, reduction=reduction)


def optimizers(model: Any, config: Pretraining) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    embeddings = [p for n, p in model.named_parameters() if "embed" in n]
    scalars = [p for p in model.parameters() if p.ndim < 2]
    return [
        torch.optim.Muon(matrices, lr=config.lr_matrix, weight_decay=config.weight_decay, momentum=0.95),
        torch.optim.AdamW(
            [{"params": embeddings, "lr": config.lr_embedding}, {"params": scalars, "lr": config.lr_scalar}],
            betas=(0.9, 0.95),
            weight_decay=0.0,
        ),
    ]


def pretrain(
    model: Any,
    corpus: Corpus,
    config: Pretraining,
    folder: str | Path,
    *,
    pad_id: int,
    revisions: Sequence[int] = (),
    on_revision: Callable[[int], None] = lambda tokens: None,
) -> list[dict[str, float]]:
    """Train until `config.tokens` tokens were read; continue from the folder's checkpoint where there is one.

    The learning rate warms up, stays, and falls linearly to zero over the last `decay` of the tokens. Losses go to
    `log.jsonl`; `on_revision(t)` is called before the first step after `t` tokens, for each `t` of `revisions`.
    Returns the log. Raises TrainingError when the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    opts = optimizers(model, config)
    for opt in opts:
        for group in opt.param_groups:
            group["peak"] = group["lr"]
    step, seen = _resume(model, opts, folder)
    due = sorted(t for t in revisions if t >= seen)

    def snapshots() -> None:
        """Take those that are due: before the next step, and before a checkpoint beyond which they could not be."""
        while due and seen >= due[0]:
            on_revision(due[0])
            due.pop(0)

    log: list[dict[str, float]] = []
    stream = batches(corpus, config.batch_tokens, seed=config.seed, pad_id=pad_id)
    for _ in range(step):
        next(stream)
    saved, smooth = time.monotonic(), None
    model.train()
    try:
        with (
            Meter("training the model", total=config.tokens, unit="tokens") as meter,
            (folder / "log.jsonl").open("a") as out,
        ):
            meter.resume(seen)
            while seen < config.tokens:
                snapshots()
                batch = next(stream)
                share = seen / config.tokens
                factor = min(1.0, share / config.warmup if config.warmup else 1.0, (1 - share) / config.decay)
                for opt in opts:
                    for group in opt.param_groups:
                        group["lr"] = group["peak"] * max(factor, 1e-3)
                with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
                    loss = next_token_loss(model, batch, pad_id)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for opt in opts:
                    opt.step()
                    opt.zero_grad(set_to_none=True)
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The loss is {value} at step {step}. The last good state is in {folder}; lower the rates."
                    )
                n = int((batch != pad_id).sum())
                step, seen = step + 1, seen + n
                smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
                meter.advance(n, f"loss {smooth:.3f}")
                if step % 50 == 0:
                    log.append({"step": step, "tokens": seen, "loss": smooth})
                    print(json.dumps(log[-1]), file=out, flush=True)
                if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    snapshots()
                    _save(model, opts, folder, step, seen, config)
                    saved = time.monotonic()
    except KeyboardInterrupt as error:
        snapshots()
        _save(model, opts, folder, step, seen, config)
        raise Interrupted(
            f"Stopped at {seen:,} tokens. The checkpoint is in {folder}; run the same command to go on."
        ) from error
    for tokens in due:
        on_revision(tokens)
    _save(model, opts, folder, step, seen, config)
    return log


def _save(
    model: Any, opts: list[torch.optim.Optimizer], folder: Path, step: int, seen: int, config: Pretraining
) -> None:
    tensors = {f"model.{n}": p.detach().clone() for n, p in model.named_parameters()}
    for o, opt in enumerate(opts):
        for i, state in opt.state_dict()["state"].items():
            tensors |= {f"opt.{o}.{i}.{k}": torch.as_tensor(v).clone().contiguous() for k, v in state.items()}
    meta = {"step": str(step), "tokens": str(seen), "config": json.dumps(asdict(config))}
    with atomic_file(folder / "checkpoint.safetensors") as temporary:
        save_file(tensors, temporary, metadata=meta)


def _resume(model: Any, opts: list[torch.optim.Optimizer], folder: Path) -> tuple[int, int]:
    from safetensors import safe_open

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0, 0
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    tensors = load_file(path)
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(tensors[f"model.{n}"])
    for o, opt in enumerate(opts):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"opt.{o}."):
                _, _, i, key = name.split(".", 3)
                state.setdefault(int(i), {})[key] = tensor
        opt.load_state_dict({"state": state, "param_groups": opt.state_dict()["param_groups"]})
    return int(meta["step"]), int(meta["tokens"])
