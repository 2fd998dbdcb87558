"""Every architecture, in every wiring: its formula, the folding of scales, files, and what its config refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lensing as ln
from lensing.config import from_mapping, to_mapping
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, UsageError

D, F = 10, 48
CONFIGS: dict[str, Any] = {
    "topk": ln.TopK(width=F, k=4),
    "batchtopk": ln.BatchTopK(width=F, k=4),
    "matryoshka": ln.Matryoshka(width=F, k=4),
    "relu": ln.ReLU(width=F, sparsity=1.0),
    "gated": ln.Gated(width=F, sparsity=1.0),
    "jumprelu": ln.JumpReLU(width=F, sparsity=1.0, threshold=0.4),
}
WIRINGS: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "crosscoder": {"parts": (4, 6)},
    "transcoder": {"d_out": 7},
    "skip": {"d_out": 7, "skip": True},
}


def make(architecture: str, wiring: str = "autoencoder") -> Dictionary:
    """A dictionary whose every weight is different from where training starts it."""
    sae = new_dictionary(CONFIGS[architecture], D, **WIRINGS[wiring], seed=1)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name != "threshold":
                parameter += 0.3 * torch.randn(parameter.shape, generator=g)
        if architecture == "jumprelu":
            sae.get_parameter("threshold").copy_(0.2 + torch.rand(F, generator=g))
    if architecture in ("batchtopk", "matryoshka"):
        sae.load_extra_tensors({"threshold": torch.tensor([0.8], dtype=torch.float64)})
    return sae.requires_grad_(False)


def rows(n: int = 60) -> torch.Tensor:
    """Rows that reach no threshold by a hair."""
    return torch.randn(n, D, generator=torch.Generator().manual_seed(7))


def formula(sae: Any, x: torch.Tensor) -> torch.Tensor:
    """Dense activations, written out from the papers' equations."""
    pre = (x - sae.b_dec if sae.centred else x) @ sae.W_enc + sae.b_enc
    match sae.architecture:
        case "topk":
            return torch.zeros_like(pre).scatter(-1, pre.topk(4).indices, pre.topk(4).values.relu())
        case "batchtopk" | "matryoshka":
            return torch.where(pre > 0.8, pre, 0.0)
        case "relu":
            return pre.relu()
        case "gated":
            return (pre > 0) * ((pre - sae.b_enc) * sae.r_mag.exp() + sae.b_mag).relu()
        case "jumprelu":
            return torch.where(pre > sae.threshold, pre, 0.0)
    raise AssertionError(sae.architecture)


every = pytest.mark.parametrize("architecture", CONFIGS)
wired = pytest.mark.parametrize("wiring", WIRINGS)


@every
@wired
def test_codes_and_output_are_their_formulas(architecture: str, wiring: str) -> None:
    sae, x = make(architecture, wiring), rows()
    f = formula(sae, x)
    assert 0 < (f > 0).double().mean() < 0.9
    assert torch.allclose(sae.encode(x).dense(), f, atol=1e-5)
    y = f @ sae.W_dec + sae.b_dec + (x @ sae.W_skip if sae.W_skip is not None else 0)
    assert torch.allclose(sae.reconstruct(x), y, atol=1e-5)
    assert sae.reconstruct(x).shape == (60, 7 if "d_out" in WIRINGS[wiring] else D)


@every
@wired
def test_folding_scales_in_changes_no_meaning(architecture: str, wiring: str) -> None:
    sae, x = make(architecture, wiring).double(), rows().double()
    g = torch.Generator().manual_seed(5)
    scale_in = (0.5 + torch.rand(D, generator=g)).double()
    scale_out = (0.5 + torch.rand(sae.d_out, generator=g)).double() if sae.is_transcoder else scale_in
    active, rebuilt = sae.encode(x * scale_in).dense() > 0, sae.reconstruct(x * scale_in) / scale_out
    sae.fold_(scale_in, scale_out)
    assert torch.equal(sae.encode(x).dense() > 0, active)
    assert torch.allclose(sae.reconstruct(x), rebuilt, atol=1e-6)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(F, dtype=torch.float64), atol=1e-12)


@every
@wired
def test_files_hold_all_of_it(architecture: str, wiring: str, tmp_path: Path) -> None:
    sae, x = make(architecture, wiring), rows()
    g = torch.Generator().manual_seed(5)
    scale = 0.5 + torch.rand(D, generator=g)
    sae.fold_(scale, 0.5 + torch.rand(sae.d_out, generator=g) if sae.is_transcoder else scale)
    sae.site, sae.target = "mlp_in.1", "mlp_out.1" if sae.is_transcoder else None
    again = load_dictionary(sae.save(tmp_path / "sae"))
    assert torch.equal(again.reconstruct(x), sae.reconstruct(x))
    assert again.wiring() == sae.wiring()
    assert (again.config, again.site, again.target) == (sae.config, sae.site, sae.target)


@every
def test_configs_go_through_plain_values(architecture: str) -> None:
    config = CONFIGS[architecture]
    assert from_mapping(type(config), to_mapping(config)) == config


@every
def test_an_untrained_transcoder_writes_its_bias(architecture: str) -> None:
    sae = new_dictionary(CONFIGS[architecture], D, d_out=3, seed=0)
    assert torch.equal(sae.reconstruct(rows()), torch.zeros(60, 3))


def test_prefixes_of_a_matryoshka_default_to_halvings() -> None:
    assert ln.Matryoshka(width=64, k=2).prefixes == (2, 6, 14, 30)
    assert ln.Matryoshka(width=64, k=2, prefixes=(10, 20)).prefixes == (10, 20)
    assert ln.Matryoshka(width=1, k=1).prefixes == ()


def test_k_falls_over_the_first_tenth() -> None:
    config = ln.TopK(width=100, k=10, k_start=50)
    assert [config.k_at(p) for p in (0.0, 0.05, 0.1, 1.0)] == [50, 30, 10, 10]
    assert ln.TopK(width=100, k=10).k_at(0.0) == 10


@pytest.mark.parametrize(
    ("kind", "setting", "words"),
    [
        (ln.TopK, {"k": 4, "prefixes": (8, 8)}, "do not rise"),
        (ln.TopK, {"k": 4, "prefixes": (48,)}, "do not rise"),
        (ln.TopK, {"k": 4, "k_start": 2}, "k_start is 2"),
        (ln.ReLU, {}, "Give one of them"),
        (ln.ReLU, {"sparsity": 1.0, "l0": 5.0}, "Give one of them"),
        (ln.ReLU, {"sparsity": -1.0}, "zero or more"),
        (ln.ReLU, {"sparsity": 1.0, "resample_every": 0}, "resample_every is 0"),
        (ln.Gated, {"l0": 100.0}, "outside 0 to the width"),
        (ln.Gated, {"sparsity": 1.0, "ramp": 2.0}, "ramp is 2.0"),
        (ln.JumpReLU, {"sparsity": 1.0, "penalty": "quadratic"}, "Give both"),
        (ln.JumpReLU, {"sparsity": 1.0, "penalty": "cubic"}, "'cubic'"),
        (ln.JumpReLU, {"sparsity": 1.0, "bandwidth": 0.0}, "bandwidth"),
    ],
)
def test_configs_refuse_what_cannot_be(kind: Any, setting: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        kind(width=48, **setting)


def test_a_skip_connection_needs_a_target() -> None:
    with pytest.raises(DictionaryError, match="skip connection"):
        new_dictionary(CONFIGS["topk"], D, skip=True)


@pytest.mark.parametrize("wiring", ["crosscoder", "transcoder"])
def test_what_writes_elsewhere_is_neither_spliced_nor_steered(wiring: str) -> None:
    sae = make("topk", wiring)
    sae.site, sae.target = "mlp_in.1", "mlp_out.1" if wiring == "transcoder" else None
    with pytest.raises(DictionaryError, match=f"is a {wiring}.*cannot be spliced"):
        ln.splice(sae)
    with pytest.raises(DictionaryError, match=f"is a {wiring}.*cannot be steered"):
        ln.steer(sae, 0, unit="raw")
