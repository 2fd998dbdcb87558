"""The tuned lens: for each layer the affine map whose guess is closest to the model's own (Belrose et al. 2023)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.errors import FileFormatError, UsageError
from lensing.files import atomic_folder
from lensing.lens.lens import Lens
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.registry import shipped_lenses

# Belrose et al. 2023: SGD with Nesterov momentum, clipped, the rate falling to zero; weight decay pulls A, b to zero.
MOMENTUM, WEIGHT_DECAY, CLIP = 0.9, 1e-3, 1.0
CONFIG, PARAMS = "config.json", "params.pt"
TYPE = "linear_tuned_lens"


@dataclass(frozen=True)
class LensQuality:
    """KL(model || lens) at each layer, in nats a token, with its standard error over documents."""

    layers: list[int]
    kl: list[float]
    se: list[float]
    bias: list[float]
    """KL(mean of the model's distributions || mean of the lens's): what is wrong on average (Belrose et al. 2023)."""
    tokens: int


def train_tuned_lens(
    model: Model,
    documents: Sequence[Sequence[int]],
    *,
    steps: int = 250,
    batch_tokens: int = 2**14,
    lr: float = 1.0,
    seed: int = 0,
    quiet: bool = False,
) -> Lens:
    """Train h -> h + A h + b of every layer on KL(model || lens) over all tokens that are not special.

    `lr` is the paper's 1.0, times 1 - momentum (0.1 in the update). Adapters begin at zero, the logit lens. Documents
    longer than the context are cut; they are read in a shuffled order, again when they are used up.
    """
    if not documents:
        raise UsageError("There is no text to train a lens on. Give at least one document.")
    d, layers = model.d_model, range(-1, model.n_layers - 1)
    dtype = torch.promote_types(model.dtype, torch.float32)
    maps = {
        layer: (torch.zeros(d, d, dtype=dtype, device=model.device), torch.zeros(d, dtype=dtype, device=model.device))
        for layer in layers
    }
    for pair in maps.values():
        for tensor in pair:
            tensor.requires_grad_()
    parameters = [tensor for pair in maps.values() for tensor in pair]
    optimizer = torch.optim.SGD(
        parameters, lr=lr * (1 - MOMENTUM), momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    source = _batches(model, documents, batch_tokens, seed)
    with Meter("training the tuned lens", total=steps, unit="steps", quiet=quiet) as meter:
        for _ in range(steps):
            total = 0.0
            parts = next(source)
            tokens = sum(len(p) for p in parts)
            for part in _runs(model, parts):
                for layer, (weight, bias) in maps.items():
                    h = part.streams[layer].to(dtype)
                    logp = model.unembed((h + h @ weight.T + bias).to(model.dtype)).float().log_softmax(-1)
                    loss = (part.final.exp() * (part.final - logp)).sum() / tokens
                    loss.backward()
                    total += float(loss.detach())
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            meter.advance(note=f"KL {total / len(maps):.3f}")
    eye = torch.eye(d, dtype=dtype, device=model.device)
    return Lens(
        "tuned", {k: (eye + w).detach() for k, (w, _) in maps.items()}, {k: b.detach() for k, (_, b) in maps.items()},
        model.name,
    )  # fmt: skip


@torch.no_grad()
def lens_quality(model: Model, lens: Lens, documents: Sequence[Sequence[int]]) -> LensQuality:
    """Measure a lens on documents that it was not trained on, in float64 sums over tokens that are not special."""
    lens.check(model)
    layers = list(range(-1, model.n_layers))
    sums: dict[int, list[float]] = {layer: [] for layer in layers}
    counts: list[int] = []
    mean_final: Tensor | None = None
    mean_lens = {layer: torch.zeros(model.d_vocab, dtype=torch.float64, device=model.device) for layer in layers}
    for document in documents:
        for part in _runs(model, [_cut(model, document)]):
            counts.append(len(part.final))
            p = part.final.exp().double()
            mean_final = p.sum(0) if mean_final is None else mean_final + p.sum(0)
            for layer in layers:
                logp = lens.logits(model, layer, part.streams[layer]).float().log_softmax(-1).double()
                sums[layer].append(float((p * (part.final.double() - logp)).sum()))
                mean_lens[layer] += logp.exp().sum(0)
    n = sum(counts)
    if mean_final is None or not n:
        raise UsageError("There is no token to measure a lens on. Give at least one document with a word.")
    count = torch.tensor(counts, dtype=torch.float64)
    kl, se, bias = [], [], []
    for layer in layers:
        each = torch.tensor(sums[layer], dtype=torch.float64)
        mean = float(each.sum() / n)
        kl.append(mean)
        spread = ((each - mean * count) / n).square().sum() * len(counts) / max(len(counts) - 1, 1)
        se.append(float(spread.sqrt()))
        p, q = mean_final / n, mean_lens[layer] / n
        bias.append(float(torch.special.xlogy(p, p / q.clamp(min=1e-300)).sum()))
    return LensQuality(layers, kl, se, bias, n)


@dataclass(frozen=True, eq=False)
class _Part:
    streams: dict[int, Float[Tensor, "rows d_model"]]
    final: Float[Tensor, "rows vocab"]


def _cut(model: Model, document: Sequence[int]) -> list[int]:
    ids = list(document)[: model.context]
    return ids if model.bos_id is None or (ids and ids[0] == model.bos_id) else [model.bos_id, *ids][: model.context]


def _batches(model: Model, documents: Sequence[Sequence[int]], tokens: int, seed: int) -> Iterator[list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    found: list[list[int]] = []
    size = 0
    while True:
        for i in torch.randperm(len(documents), generator=generator).tolist():
            found.append(_cut(model, documents[i]))
            size += len(found[-1])
            if size >= tokens:
                yield found
                found, size = [], 0


def _runs(model: Model, documents: Sequence[Sequence[int]], rows: int = 2048) -> Iterator[_Part]:
    """Streams and final distributions of documents, some at a time; special tokens are left out."""
    ordered = sorted(documents, key=len)
    while ordered:
        some = [ordered.pop()]
        while ordered and len(some[0]) * (len(some) + 1) <= rows:
            some.append(ordered.pop())
        tokens = model.encode(some, bos=False)
        _, cache = model.run_with_cache(tokens, sites=["embed", "resid_post.*"], stop=True)
        seen = ~tokens.special
        streams = {-1: cache["embed"][seen], **{i: cache["resid_post", i][seen] for i in range(model.n_layers)}}
        with torch.no_grad():
            final = model.unembed(streams[model.n_layers - 1]).float().log_softmax(-1)
        yield _Part(streams, final)


def save_lens(lens: Lens, folder: Path | str, model: Model) -> Path:
    """Write a tuned lens as the hub's space AlignmentResearch/tuned-lens has them: config.json and params.pt.

    Its layer i reads the input of block i, which is our layer i - 1, and stores A and b of h + A h + b.
    """
    if lens.kind != "tuned":
        raise UsageError(f"A {lens.kind} lens has no place in the tuned lens's files. Save a tuned one.")
    d = model.d_model
    params: dict[str, Tensor] = {}
    for layer in sorted(lens.matrices):
        params[f"{layer + 1}.weight"] = (lens.matrices[layer].cpu() - torch.eye(d)).contiguous()
        params[f"{layer + 1}.bias"] = lens.biases[layer].cpu().contiguous()
    config = {
        "base_model_name_or_path": model.name, "base_model_revision": None, "d_model": d,
        "num_hidden_layers": model.n_layers, "bias": True, "unembed_hash": None, "lens_type": TYPE,
    }  # fmt: skip
    with atomic_folder(Path(folder)) as temporary:
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        torch.save(params, temporary / PARAMS)
    return Path(folder)


def load_lens(folder: Path | str) -> Lens:
    """Read a tuned lens in the hub's layout, or the one that is shipped with a model ("almanac").

    Nothing in the file can run code (weights only).

    Raises: FileFormatError: a file is missing, damaged, or of another kind of lens.
    """
    home = shipped_lenses().get(str(folder), Path(folder))
    for name in (CONFIG, PARAMS):
        if not (home / name).is_file():
            raise FileFormatError(f"{home} holds no {name}. Give the folder of a tuned lens (config.json, params.pt).")
    try:
        config: dict[str, Any] = json.loads((home / CONFIG).read_text("utf-8"))
        params = torch.load(home / PARAMS, map_location="cpu", weights_only=True)
        d, n = int(config["d_model"]), int(config["num_hidden_layers"])
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        raise FileFormatError(f"{home} is no tuned lens that can be read: {error}. Copy it again.") from error
    except Exception as error:  # pickle.UnpicklingError: something else than tensors
        raise FileFormatError(f"{home / PARAMS} holds more than tensors, or is damaged. Copy it again.") from error
    if config.get("lens_type", TYPE) != TYPE:
        raise FileFormatError(f"{home} holds a {config['lens_type']}, which is not read. Give a {TYPE}.")
    matrices, biases = {}, {}
    for i in range(n):
        weight, bias = params.get(f"{i}.weight"), params.get(f"{i}.bias")
        if weight is None or tuple(weight.shape) != (d, d):
            shape = "nothing" if weight is None else list(weight.shape)
            raise FileFormatError(
                f"{home / PARAMS} has {shape} under {i}.weight. Give a file with {[d, d]} for {n} layers."
            )
        matrices[i - 1] = torch.eye(d, dtype=weight.dtype) + weight
        biases[i - 1] = torch.zeros(d, dtype=weight.dtype) if bias is None else bias
    return Lens("tuned", matrices, biases, config.get("base_model_name_or_path"))
