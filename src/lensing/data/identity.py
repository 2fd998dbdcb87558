"""What a model is, in a few digits: weights and tokenizer changed under an old name show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from lensing.model.matrices import parameters
from lensing.model.run import Model

AT_ONCE = 1 << 24  # numbers


def weights_digest(model: Model) -> str:
    """A digest of each parameter's sum and beginning: a model trained anew under its old name is another one."""
    found = hashlib.sha256()
    for name, parameter in parameters(model.hf):
        # a few at a time: a large embedding in float64 would be four times the model
        total = sum(part.double().sum().item() for part in parameter.flatten().split(AT_ONCE))
        found.update(f"{name} {tuple(parameter.shape)} {total!r} {parameter.flatten()[:8].tolist()}".encode())
    return found.hexdigest()[:16]


def tokenizer_digest(model: Model) -> str | None:
    """A digest of the tokenizer's whole definition, or of its vocabulary where it has no other; None without one."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        definition = repr(sorted(tokenizer.get_vocab().items()))
    else:
        # how the last call padded and cut stands in it too
        parts = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")}
        definition = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


def dictionary_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of a dictionary's tensors, every number of them."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        for part in tensor.detach().flatten().split(AT_ONCE):
            found.update(part.float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
