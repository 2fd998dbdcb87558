"""Do SAELens, sparsify and dictionary_learning and this package read each other's files alike?

Each peer runs in an interpreter of its own, given by path; both directions are tried on random weights with decoder
rows of unequal length, and the largest |difference| of codes and of rebuilt vectors is printed:

    python benchmarks/formats_vs_peers.py --saelens PYTHON --sparsify PYTHON --dictionary-learning PYTHON
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import lensing as ln
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.formats.table import write_dictionary

D, F, OUT, K, ROWS, LIMIT = 32, 96, 24, 6, 400, 1e-5

# What runs in a peer's interpreter: `read folder x.safetensors out.safetensors`, or `write kind folder x out`.
SAELENS = """
import sys, torch, warnings
from safetensors.torch import load_file, save_file
from sae_lens import SAE
from sae_lens.saes.sae import SAEConfig
from sae_lens.registry import get_sae_class
import sae_lens.saes
warnings.simplefilter("ignore")
D, F, OUT, K = 32, 96, 24, 6
def run(sae, x, out):
    f = sae.encode(x)
    save_file({"codes": f.to_dense() if f.is_sparse else f, "rebuilt": sae(x), "lengths": sae.W_dec.norm(dim=1)}, out)
with torch.no_grad():
    verb, *rest = sys.argv[1:]
    if verb == "read":
        folder, x, out = rest
        run(SAE.load_from_disk(folder), load_file(x)["x"], out)
    else:
        kind, folder, x, out = rest
        cls, config = get_sae_class(kind)
        more = {"k": K} if kind == "topk" else {"d_out": OUT, "apply_b_dec_to_input": False} if "trans" in kind else {}
        sae = cls(config(d_in=D, d_sae=F, **more))
        torch.manual_seed(0)
        for name, p in sae.named_parameters():
            p.copy_(0.5 + 0.5 * torch.rand(p.shape) if name == "threshold" else 0.3 * torch.randn(p.shape))
        sae.cfg.metadata.hook_name, sae.cfg.metadata.model_name = "blocks.1.mlp.hook_post", "peer"
        sae.save_model(folder)
        run(sae, load_file(x)["x"], out)
"""
SPARSIFY = """
import sys, torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig
D, F, K = 32, 96, 6
def run(sae, x, out):
    top = sae.encode(x)
    codes = torch.zeros(len(x), sae.num_latents).scatter(1, top.top_indices, top.top_acts)
    rebuilt = sae.decode(top.top_acts, top.top_indices)
    if sae.W_skip is not None:
        rebuilt = rebuilt + x @ sae.W_skip.mT
    save_file({"codes": codes, "rebuilt": rebuilt.contiguous(), "lengths": sae.W_dec.norm(dim=1)}, out)
with torch.no_grad():
    verb, *rest = sys.argv[1:]
    if verb == "read":
        folder, x, out = rest
        run(SparseCoder.load_from_disk(folder), load_file(x)["x"], out)
    else:
        kind, folder, x, out = rest
        skip, transcode = "skip" in kind, "transcoder" in kind
        sae = SparseCoder(D, SparseCoderConfig(expansion_factor=F // D, k=K, skip_connection=skip, transcode=transcode))
        torch.manual_seed(0)
        for p in sae.parameters():
            p.copy_(0.3 * torch.randn(p.shape))
        sae.save_to_disk(folder)
        run(sae, load_file(x)["x"], out)
"""
# Its package imports a language model library that plays no part here; a stand-in takes its place.
LEARNING = """
import sys, types, torch, json, os
from unittest.mock import MagicMock
for name in ("nnsight", "nnsight.intervention", "datasets", "zstandard", "wandb", "circuitsvis", "umap", "pandas",
             "plotly", "plotly.express", "transformers"):
    sys.modules.setdefault(name, MagicMock())
from safetensors.torch import load_file, save_file
from dictionary_learning import dictionary
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
D, F, K = 32, 96, 6
_, kind, folder, x, out = sys.argv[1:]
made = {
    "AutoEncoderTopK": lambda: AutoEncoderTopK(D, F, K), "BatchTopKSAE": lambda: BatchTopKSAE(D, F, K),
    "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(D, F, K, [16, 32, 48]),
}
with torch.no_grad():
    torch.manual_seed(0)
    sae = made.get(kind, lambda: getattr(dictionary, kind)(D, F))()
    for name, p in sae.named_parameters():
        p.copy_(0.5 + 0.5 * torch.rand(p.shape) if name == "threshold" else 0.3 * torch.randn(p.shape))
    for name, b in sae.named_buffers():
        if name == "threshold":
            b.fill_(0.7)
    os.makedirs(folder)
    torch.save(sae.state_dict(), folder + "/ae.pt")
    trainer = {"dict_class": kind, "activation_dim": D, "dict_size": F, "layer": 1, "lm_name": "peer"}
    json.dump({"trainer": trainer | ({"k": K} if "K" in kind else {})}, open(folder + "/config.json", "w"))
    x = load_file(x)["x"]
    f = sae.encode(x)
    rows = sae.W_dec if hasattr(sae, "W_dec") else sae.decoder.weight.T
    save_file({"codes": f.contiguous(), "rebuilt": sae.decode(f).contiguous(), "lengths": rows.norm(dim=1)}, out)
"""
THEIRS = {
    "saelens": ("standard", "topk", "jumprelu", "gated", "transcoder", "skip_transcoder", "jumprelu_transcoder",
                "jumprelu_skip_transcoder"),
    "sparsify": ("topk", "transcoder", "skip_transcoder"),
    "dictionary_learning": ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder",
                            "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"),
}  # fmt: skip
SCRIPTS = {"saelens": SAELENS, "sparsify": SPARSIFY, "dictionary_learning": LEARNING}


def ours(peer: str) -> Iterator[tuple[str, Dictionary]]:
    """Dictionaries of ours that the peer's format can express, as training leaves them, by name."""
    configs: dict[str, Any] = {"topk": ln.TopK(width=F, k=K)}
    if peer == "saelens":
        configs |= {"batchtopk": ln.BatchTopK(width=F, k=K), "relu": ln.ReLU(width=F, sparsity=1.0)}
        configs |= {"gated": ln.Gated(width=F, sparsity=1.0), "jumprelu": ln.JumpReLU(width=F, sparsity=1.0)}
    for name, config in configs.items():
        for wiring in ({}, {"d_out": D}, {"d_out": D, "skip": True}):
            if wiring and name in (("topk", "gated") if peer == "saelens" else ()):
                continue
            sae = new_dictionary(config, D, **wiring).requires_grad_(False)
            g = torch.Generator().manual_seed(1)
            for key, parameter in sae.named_parameters():
                parameter.copy_(0.4 if key == "threshold" else 0.3 * torch.randn(parameter.shape, generator=g))
            if name == "batchtopk":
                sae.load_extra_tensors({"threshold": torch.tensor([0.6], dtype=torch.float64)})
            sae.fold_(torch.ones(D), torch.ones(D))
            sae.site = "mlp_post.1"
            suffix = " skip transcoder" if "skip" in wiring else " transcoder" if wiring else ""
            yield name + suffix, sae


def run(python: str, script: str, *arguments: object) -> None:
    """Run a peer's script; what it says is shown if it fails."""
    done = subprocess.run([python, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr[-3000:]}")


def differences(sae: Dictionary, x: torch.Tensor, found: dict[str, torch.Tensor]) -> tuple[float, float, float]:
    """Largest |difference| of codes, in units of what a latent writes, and of rebuilt vectors; the peer's mean L0."""
    codes = sae.encode(x).dense() * sae.W_dec.norm(dim=1) - found["codes"] * found["lengths"]
    rebuilt, l0 = sae.reconstruct(x) - found["rebuilt"], (found["codes"] > 0).sum(1).double().mean()
    return float(codes.abs().max()), float(rebuilt.abs().max()), float(l0)


def compare(peer: str, python: str, folder: Path) -> bool:
    """Print both directions for one peer; whether all differences are below the limit."""
    x, fine = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(5)), True
    save_file({"x": x}, folder / "x.safetensors")
    results = []
    for name, sae in ours(peer) if peer != "dictionary_learning" else ():
        place = write_dictionary(sae, folder / f"ours {name}", peer)
        run(python, SCRIPTS[peer], "read", place, folder / "x.safetensors", folder / "out.safetensors")
        results.append(("reads ours", name, differences(sae, x, load_file(folder / "out.safetensors"))))
    for kind in THEIRS[peer]:
        place = folder / f"theirs {kind}"
        run(python, SCRIPTS[peer], "write", kind, place, folder / "x.safetensors", folder / "out.safetensors")
        sae = ln.load_dictionary(place, allow_pickle=True)
        results.append(("is read by us", kind, differences(sae, x, load_file(folder / "out.safetensors"))))
    for direction, name, (codes, rebuilt, l0) in results:
        fine = fine and max(codes, rebuilt) < LIMIT and l0 > 0
        print(f"{peer:20} {direction:14} {name:26} {codes:10.1e} {rebuilt:10.1e} {l0:6.1f}")
    return fine


def main() -> None:
    """Compare with every peer whose interpreter is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for peer in THEIRS:
        parser.add_argument(f"--{peer.replace('_', '-')}", help=f"a Python in which {peer} is installed")
    given = {peer: python for peer, python in vars(parser.parse_args()).items() if python}
    head = f"{'peer':20} {'direction':14} {'dictionary':26} {'codes':>10} {'rebuilt':>10} {'L0':>6}"
    print(f"{head}   (codes, rebuilt: largest |difference|)")
    fine = True
    for peer, python in given.items():
        with tempfile.TemporaryDirectory() as folder:
            fine = compare(peer, python, Path(folder)) and fine
    sys.exit(0 if fine else f"a difference is above {LIMIT}")


if __name__ == "__main__":
    main()
