"""Folders in other tools' layouts, with random weights, and what a reader's result is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.table import find_format, write_dictionary
from lensing.dictionary.load import load_dictionary

D, F, OUT = 8, 24, 6


def weights(d_out: int = D, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random float32 tensors, decoder rows of unequal length; W_enc [d, F], W_dec [F, d_out]."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    return {
        "W_enc": 0.5 * draw(D, F), "W_dec": draw(F, d_out) * (0.5 + torch.rand(F, 1, generator=g)),
        "b_enc": 0.2 * draw(F), "b_dec": 0.3 * draw(d_out), "threshold": 0.2 + torch.rand(F, generator=g),
        "W_skip": 0.3 * draw(d_out, D), "r_mag": 0.3 * draw(F), "b_mag": 0.2 * draw(F),
    }  # fmt: skip


def rows(d_in: int = D) -> torch.Tensor:
    """Some vectors."""
    return torch.randn(50, d_in, generator=torch.Generator().manual_seed(3))


def keep_top(pre: torch.Tensor, k: int, by: torch.Tensor | None = None) -> torch.Tensor:
    """The k largest of every row, rectified; `by` ranks in their stead."""
    index = (pre if by is None else by).topk(k).indices
    return torch.zeros_like(pre).scatter(-1, index, pre.gather(-1, index).relu())


def write_folder(
    folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], names: tuple[str, str]
) -> Path:
    """A folder with a JSON config and a safetensors file of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(json.dumps(config))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / names[1])
    return folder


def check(sae: Dictionary, codes: torch.Tensor, rebuilt: torch.Tensor, lengths: torch.Tensor) -> None:
    """Codes are the tool's times the length of its decoder rows in raw space, rebuilt vectors the tool's, to 1e-5."""
    assert 0.02 < (codes > 0).double().mean() < 0.95
    assert (sae.encode(rows()).dense() - codes * lengths).abs().max() < 1e-5
    assert (sae.reconstruct(rows()) - rebuilt).abs().max() < 1e-5
    assert (sae.W_dec.norm(dim=1) - 1).abs().max() < 1e-6
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    assert {parameter.dtype for parameter in sae.parameters()} == {torch.float32}


def round_trip(sae: Dictionary, folder: Path, name: str) -> Dictionary:
    """What comes back of a dictionary, as training leaves it, that was written in another format."""
    with torch.no_grad():  # as training leaves them: decoder rows of length 1
        sae.fold_(torch.ones(sae.d_in), torch.ones(sae.d_out))
    sae.site, sae.target, sae.model_name = "mlp_in.1", "mlp_out.1" if sae.is_transcoder else None, "tiny"
    write_dictionary(sae, folder, name)
    assert find_format(folder) == name
    return load_dictionary(folder)
