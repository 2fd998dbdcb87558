"""What does an index cost a latent, beside SAEDashboard on the same model, dictionary and prompts?

Random two-layer models of GPT-2's making (vocabulary 8,192), dictionaries with about 16 active latents a token, 512
prompts of 128 tokens; one thread, CPU time without imports and loading, each in an interpreter of its own. SAEDashboard
makes some hundreds of latents (its cost a latent does not depend on how many), lensing all of them. Memory is the peak
above that after loading; disk is what is kept a latent: SAEDashboard's JSON, not the activations that it also writes.

    python benchmarks/index.py --saedashboard PYTHON         about ten minutes
    python benchmarks/index.py                                ours alone

Limits: a fifteenth of the CPU time at d_model 256 with 4,096 TopK latents, an eighth at 64 with 1,024 ReLU latents, a
tenth of the disk, 300 MB above the imports, and a cost a latent that falls with width.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import lensing as ln
from lensing.dictionary.base import new_dictionary
from lensing.dictionary.formats.saelens import write
from lensing.index.imports import import_index

VOCAB, CONTEXT, PROMPTS, L0 = 8192, 128, 512, 16
CASES = {"d64, 1,024 ReLU": (64, 1024, "relu", 8.0), "d256, 1,024 TopK": (256, 1024, "topk", 0.0),
         "d256, 4,096 TopK": (256, 4096, "topk", 15.0)}  # fmt: skip
DISK, MEMORY = 10.0, 300.0


def build(folder: Path, d: int, width: int, kind: str) -> None:
    """Write the model, the dictionary in both forms, and the prompts."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(
            n_layer=2, n_embd=d, n_head=4, vocab_size=VOCAB, n_positions=CONTEXT, bos_token_id=None, eos_token_id=None
        )
    ).save_pretrained(folder / "model")  # fmt: skip
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB, (PROMPTS, CONTEXT), generator=draw)
    save_file({"ids": ids.int()}, folder / "tokens.safetensors")
    sae = new_dictionary(ln.TopK(width=width, k=L0) if kind == "topk" else ln.ReLU(width=width, l0=L0), d, seed=0)
    sae.site, sae.model_name, sae.id = "resid_pre.1", "gpt2", "random"
    if kind == "relu":  # the bias that leaves 16 latents a token active
        model = ln.load_model(str(folder / "model"))
        _, cache = model.run_with_cache(ids[:32], sites=["resid_pre.1"], stop=True)
        with torch.no_grad():
            pre = cache["resid_pre.1"].flatten(0, 1) @ sae.W_enc
            sae.b_enc -= pre.flatten().kthvalue(int(pre.numel() * (1 - L0 / width))).values
    sae.requires_grad_(False)
    sae.save(folder / "dictionary")
    write(sae, folder / "sae")


def ours(folder: Path) -> dict[str, float]:
    """The whole index."""
    model = ln.load_model(str(folder / "model"))
    sae = ln.load_dictionary(folder / "dictionary")
    from safetensors.torch import load_file

    ids = load_file(folder / "tokens.safetensors")["ids"].tolist()
    began, base = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index = ln.build_index(model, sae, ids, out=folder / "index", quiet=True)
    seconds = time.process_time() - began
    size = sum(path.stat().st_size for path in index.folder.iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    l0 = float(index.array("count").sum() / index.rows)
    return {"cpu": seconds, "base": base / 1024, "peak": peak / 1024, "bytes": size, "l0": l0}


def child(*command: object) -> dict[str, Any]:
    """Run one tool and read what it measured."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr[-1500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    """Print a row for each case; return 1 when a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saedashboard", help="the Python of an environment with sae-dashboard 0.8.0, pyarrow<21")
    parser.add_argument("--features", type=int, default=256, help="how many latents SAEDashboard makes")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours is not None:
        torch.set_num_threads(1)
        print(json.dumps(ours(options.ours)))
        return 0
    good, cost = True, {}
    heads = ("ms a latent", "peak MB", "KB a latent", "theirs: ms", "peak MB", "KB", "CPU", "disk")
    print(f"{'case':20}" + "".join(f"{head:>13}" for head in heads))
    for name, (d, width, kind, least) in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            build(folder, d, width, kind)
            mine = child(sys.executable, __file__, "--ours", folder)
            cost[name] = 1e3 * mine["cpu"] / width
            memory = mine["peak"] - mine["base"]
            row = f"{name:20}{cost[name]:13.2f}{memory:13.0f}{mine['bytes'] / width / 1024:13.1f}"
            good &= memory <= MEMORY
            if options.saedashboard:
                n = min(options.features, width)
                peer = child(options.saedashboard, Path(__file__).with_name("_index_peer.py"), folder, n)
                theirs, kept = 1e3 * peer["cpu"] / n, peer["bytes"] / n / (mine["bytes"] / width)
                row += f"{theirs:13.1f}{peer['peak'] - peer['base']:13.0f}{peer['bytes'] / n / 1024:13.1f}"
                row += f"{theirs / cost[name]:12.1f}x{kept:12.1f}x"
                good &= theirs / cost[name] >= least and kept >= DISK
                model = ln.load_model(str(folder / "model"))
                taken = import_index(model, ln.load_dictionary(folder / "dictionary"), folder / "dashboards",
                                     out=folder / "imported")  # fmt: skip
                shown = sum(bool(taken.latent(i).groups) for i in range(n))
                row += f"   {shown} of its {n} latents imported with their contexts"
                good &= shown >= 0.9 * n  # a latent that never fires has none
            print(row, flush=True)
    falls = cost["d256, 4,096 TopK"] < cost["d256, 1,024 TopK"]
    print(f"{'found  ' if falls else 'MISSING'} the cost a latent falls with width")
    print(f"{'found  ' if good else 'MISSING'} all limits" + ("" if options.saedashboard else " (ours alone)"))
    return int(not (good and falls))


if __name__ == "__main__":
    sys.exit(main())
