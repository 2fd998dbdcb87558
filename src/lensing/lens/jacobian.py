"""The Jacobian lens: what a layer's stream does to the last one on average, now and at all later tokens.

J_l is the mean over texts and over tokens t of the sum over t' >= t of d x_L(t') / d x_l(t), x_L the last stream before
the final norm; the lens reads norm(J_l h). "J-lens" (anthropics/jacobian-lens, 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lensing.errors import FileFormatError, UsageError
from lensing.files import atomic_file
from lensing.lens.lens import Lens
from lensing.model.run import Model
from lensing.progress import Meter


def jacobian_lens(
    model: Model, documents: Sequence[Sequence[int]], *, layers: Sequence[int] | None = None, quiet: bool = False
) -> Lens:
    """Compute the Jacobian lens on documents (BOS is neither read nor counted), d_model backward passes for each.

    `layers` are those to read, -1 the embedding; all but the last if not given. Sums are in float64.
    """
    last = model.n_layers - 1
    wanted = list(range(-1, last)) if layers is None else list(layers)
    if not documents:
        raise UsageError("There is no text to take Jacobians on. Give at least one document.")
    if any(not -1 <= layer < last for layer in wanted):
        raise UsageError(f"Jacobians go from layers -1 to {last - 1} to the last one. Give some of these.")
    names = ["embed" if layer < 0 else f"resid_post.{layer}" for layer in wanted]
    total = {layer: torch.zeros(model.d_model, model.d_model, dtype=torch.float64) for layer in wanted}
    texts = 0
    with Meter("taking Jacobians", total=len(documents), unit="documents", quiet=quiet) as meter:
        for document in documents:
            tokens = model.encode(list(document)[: model.context])
            seen = ~tokens.special[0]
            if bool(seen.any()):
                _, cache = model.run_with_cache(tokens, sites=[*names, f"resid_post.{last}"], grad=True, stop=True)
                streams = [cache[name] for name in names]
                out = (cache[f"resid_post.{last}"][0] * seen[:, None]).sum(0)
                for i in range(model.d_model):
                    rows = torch.autograd.grad(out[i], streams, retain_graph=True)
                    for layer, row in zip(wanted, rows, strict=True):
                        total[layer][i] += row[0][seen].double().mean(0).cpu()
                texts += 1
            meter.advance()
    if not texts:
        raise UsageError("The documents hold no token that is not special. Give text.")
    dtype = torch.promote_types(model.dtype, torch.float32)
    return Lens("jacobian", {k: (v / texts).to(dtype).to(model.device) for k, v in total.items()}, {}, model.name)


def save_jacobian_lens(lens: Lens, path: Path | str, *, n_prompts: int) -> Path:
    """Write a Jacobian lens as its own tool has it: one .pt file with J by layer in half precision."""
    if lens.kind != "jacobian":
        raise UsageError(f"A {lens.kind} lens has no place in the Jacobian lens's file. Save a Jacobian one.")
    record = {
        "J": {layer: matrix.half().cpu() for layer, matrix in lens.matrices.items()}, "n_prompts": n_prompts,
        "source_layers": sorted(lens.matrices), "d_model": next(iter(lens.matrices.values())).shape[0],
        "metadata": {"model": lens.model_name},
    }  # fmt: skip
    with atomic_file(path) as temporary:
        torch.save(record, temporary)
    return Path(path)


def load_jacobian_lens(path: Path | str) -> Lens:
    """Read a Jacobian lens from its .pt file; nothing in it can run code (weights only)."""
    try:
        record: Any = torch.load(path, map_location="cpu", weights_only=True)
        matrices: dict[int, Tensor] = {int(layer): matrix.float() for layer, matrix in record["J"].items()}
        d = int(record["d_model"])
    except Exception as error:  # a missing file, a damaged one, something else than tensors
        raise FileFormatError(f"{path} is no Jacobian lens that can be read ({type(error).__name__}).") from error
    if any(tuple(m.shape) != (d, d) for m in matrices.values()):
        raise FileFormatError(f"{path} holds matrices that are not {[d, d]}. Copy it again.")
    return Lens("jacobian", matrices, {}, (record.get("metadata") or {}).get("model"))
