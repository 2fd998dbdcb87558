"""What does reading the inside of a model cost, beside the plain forward and beside the peers; and do they read alike?

Speed: CPU time of one thread, every tool in an interpreter of its own, its runs and the plain Hugging Face forward
taking turns in a drawn order; ratios of medians. "residuals" are resid_pre, resid_mid and resid_post of every layer,
"all" is all that the tool gives. Memory: the peak of keeping all sites of 4 x 256 tokens above the plain forward's;
beside it what the distinct tensors of these sites hold. Sweep: the stream patched at 12 layers x 12 positions. Values:
every site that two tools share, on a model of GPT-2's and of Gemma 2's making, largest difference; and whether heads
sum to what attention adds.

    python benchmarks/internals.py --transformerlens PYTHON --nnsight PYTHON --interp-engine PYTHON
    python benchmarks/internals.py --rounds 5      ours alone, quickly

Limits: GPT-2's size residuals 1.03 and all 1.10 times the plain forward; 12 layers of d_model 64 and 16 tokens, where
only overhead counts, 1.15 and 1.45; memory a third of TransformerLens'; sweep a fifth of its time; values 1e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

LIMITS = {"small": (1.03, 1.10), "tiny": (1.15, 1.45)}
MEMORY, SWEEP, VALUES = 1 / 3, 5.0, 1e-5
CHILD = Path(__file__).with_name("_internals.py")


def build(folder: Path) -> None:
    """Write the random models of all jobs."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder / "small")
    shape: dict[str, Any] = {"n_embd": 64, "n_head": 4, "vocab_size": 200, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(n_layer=12, **shape)).save_pretrained(folder / "tiny")
    GPT2LMHeadModel(GPT2Config(n_layer=3, **shape)).save_pretrained(folder / "gpt2")
    gemma = Gemma2Config(
        num_hidden_layers=3, hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=200, sliding_window=8, query_pre_attn_scalar=16,
    )  # fmt: skip
    Gemma2ForCausalLM(gemma).save_pretrained(folder / "gemma2")


def child(python: str, *arguments: object) -> dict[str, Any] | None:
    """Run one job in an interpreter of its own; None where the tool cannot."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, str(CHILD), *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        print(f"    {' '.join(map(str, arguments[:2]))}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def distinct(folder: Path, shape: tuple[int, int]) -> float:
    """Megabytes of the distinct tensors behind all of our sites."""
    import lensing as ln

    model = ln.load_model(str(folder), dtype="float32")
    ids = torch.randint(1, model.d_vocab, shape)
    _, cache = model.run_with_cache(model.encode(ids, bos=False), sites="*")
    return sum({s.data_ptr(): s.nbytes() for v in cache.values() for s in [v.untyped_storage()]}.values()) / 2**20


def compare(tool: str, python: str, folder: Path, kind: str) -> tuple[int, float, list[str]] | None:
    """How many sites are shared with a tool, the largest difference, and which sites differ."""
    import lensing as ln
    from lensing.errors import UsageError

    out = folder / f"{tool}-{kind}.safetensors"
    if child(python, "values", tool, folder / kind, out) is None:
        return None
    theirs = load_file(out)
    model = ln.load_model(str(folder / kind), dtype="float32")
    _, cache = model.run_with_cache(model.encode(torch.arange(2, 14)[None], bos=False), sites="*")
    shared: dict[str, float] = {}
    for name, value in theirs.items():
        # interp-engine's plain names of the modules' raw outputs are ours of what they add
        ours = name.replace("attn_out.", "attn_out_raw.").replace("mlp_out.", "mlp_out_raw.")
        ours = ours if tool == "interp-engine" else name
        try:
            mine = cache.get(ours.replace("_raw_post", ""))
        except UsageError:
            continue
        if mine is not None and mine.numel() == value.numel():
            shared[name] = float((mine.reshape(value.shape).float() - value).abs().nan_to_num().max())
    if tool == "TransformerLens":
        heads = float((theirs["heads.1"].reshape(-1) - cache["attn_out.1"].reshape(-1)).abs().max())
        print(f"    {kind}: its heads of layer 1 miss what attention adds by {heads:.2g}, ours by {_heads(model):.2g}")
    return len(shared), max(shared.values(), default=0.0), [n for n, gap in shared.items() if gap > VALUES]


def _heads(model: Any) -> float:
    # of a logit: z W_O of every head, through the post-norm with its scale held, against what attention adds
    from lensing.lens.prism import direct_logit_attribution

    tokens = model.encode(torch.arange(2, 14)[None], bos=False)
    heads, parts = (direct_logit_attribution(model, tokens, 5, by=by) for by in ("head", "component"))

    def added(found: Any) -> float:
        return sum(p.value for p in found.parts if p.layer == 1 and p.kind in ("attn", "head", "bias"))

    return abs(added(heads) - added(parts)) * parts.scale


def main() -> int:
    """Print the tables; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformerlens", help="interpreter with transformer-lens 4")
    parser.add_argument("--nnsight", help="interpreter with nnsight")
    parser.add_argument("--interp-engine", help="interpreter with interp-engine")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON to this file")
    options = parser.parse_args()
    given = {
        "lensing": sys.executable, "TransformerLens": options.transformerlens, "nnsight": options.nnsight,
        "interp-engine": options.interp_engine,
    }  # fmt: skip
    tools = {tool: python for tool, python in given.items() if python}
    record: dict[str, Any] = {}
    missed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        for size, shape in (("small", (1, 64)), ("tiny", (1, 16))):
            print(f"\n{size}: {shape[1]} tokens; CPU milliseconds, and over the tool's own plain forward")
            for tool, python in tools.items():
                rounds = options.rounds if size == "small" else 4 * options.rounds
                found = child(python, "times", tool, folder / size, *shape, rounds)
                if found is None:
                    continue
                record[f"{size} {tool}"] = found
                ratios = {job: found[job] / found["plain"] for job in found if job != "plain"}
                said = ", ".join(f"{job} {found[job] * 1e3:.1f} ({ratio:.2f})" for job, ratio in ratios.items())
                print(f"    {tool:16} plain {found['plain'] * 1e3:.1f}, {said}")
                if tool == "lensing":
                    for job, limit in zip(("residuals", "all"), LIMITS[size], strict=True):
                        missed += [f"{size} {job}: {ratios[job]:.2f} (limit {limit})"] if ratios[job] > limit else []
        print("\nmemory of all sites, 4 x 256 tokens, megabytes above the plain forward")
        able = {tool: python for tool, python in tools.items() if tool != "nnsight"}
        peaks = {tool: found["megabytes"] for tool, python in able.items()
                 if (found := child(python, "memory", tool, folder / "small", 4, 256))}  # fmt: skip
        own = distinct(folder / "small", (4, 256))
        print("    " + ", ".join(f"{tool} {mb:.0f}" for tool, mb in peaks.items()) + f"; tensors alone {own:.0f}")
        record["memory"] = peaks | {"distinct": own}
        if "TransformerLens" in peaks and peaks["lensing"] > MEMORY * peaks["TransformerLens"]:
            missed.append(f"memory: {peaks['lensing'] / peaks['TransformerLens']:.2f} (limit {MEMORY:.2f})")
        print("\npatching sweep, GPT-2's size, 12 tokens, CPU seconds")
        sweeps = {tool: found for tool, python in tools.items() if tool in ("lensing", "TransformerLens")
                  and (found := child(python, "sweep", tool, folder / "small", 12))}  # fmt: skip
        print("    " + ", ".join(f"{tool} {found['seconds']:.2f}" for tool, found in sweeps.items()))
        if len(sweeps) == 2:
            ours, theirs = (sweeps[tool] for tool in ("lensing", "TransformerLens"))
            gap = float((torch.tensor(ours["effects"]) - torch.tensor(theirs["effects"])).abs().max())
            ratio = theirs["seconds"] / ours["seconds"]
            print(f"    ratio {ratio:.1f}, largest difference of an effect {gap:.1e}")
            missed += [f"sweep: {ratio:.1f} (limit {SWEEP})"] if ratio < SWEEP else []
        record["sweep"] = {tool: found["seconds"] for tool, found in sweeps.items()}
        print("\nvalues")
        for kind in ("gpt2", "gemma2"):
            for tool, python in tools.items():
                if tool != "lensing" and (shared := compare(tool, python, folder, kind)) is not None:
                    record[f"values {kind} {tool}"] = {"sites": shared[0], "largest": shared[1], "differ": shared[2]}
                    print(f"    {kind} {tool}: {shared[0]} sites shared, largest difference {shared[1]:.1e}")
                    if shared[2]:
                        print(f"        differ: {', '.join(shared[2])}")
    if options.out:
        options.out.write_text(json.dumps({"figures": record, "missed": missed}, indent=1) + "\n")
    print("\n" + (f"missed: {'; '.join(missed)}" if missed else "all limits met"))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
