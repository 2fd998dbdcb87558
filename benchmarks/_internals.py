"""One tool's job on one model, run by `internals.py` in the interpreter of that tool; prints figures as JSON.

Each job is a function of the Hugging Face model and token ids, so that the plain forward and the tool's take turns in
one process and their ratio does not depend on what else the machine does.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Any]
KINDS = ("resid_pre", "resid_mid", "resid_post")


def load(folder: Path) -> Any:
    """Read the checkpoint with plain attention, as patterns need it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval().requires_grad_(False)


def lensing(hf: Any, folder: Path) -> dict[str, Run]:
    """Residual sites, and every site there is."""
    from lensing.model.run import Model

    model = Model(hf)
    every = model.sites()
    some = [site for site in every if site.split(".")[0] in KINDS]
    return {
        "residuals": lambda ids: model.run_with_cache(model.encode(ids, bos=False), sites=some),
        "all": lambda ids: model.run_with_cache(model.encode(ids, bos=False), sites=every),
    }


def transformerlens(hf: Any, folder: Path) -> dict[str, Run]:
    """The bridge: three names a layer, and all that it keeps by default."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(folder), hf_model=hf, tokenizer=None)
    ends = tuple(f"hook_{kind}" for kind in KINDS)
    return {
        "residuals": lambda ids: bridge.run_with_cache(ids, names_filter=lambda name: name.endswith(ends)),
        "all": lambda ids: bridge.run_with_cache(ids),
    }


def nnsight(hf: Any, folder: Path) -> dict[str, Run]:
    """Outputs of norms' inputs and blocks saved in one trace; it has no list of all."""
    from nnsight import NNsight

    model = NNsight(hf)
    layers = model.transformer.h if hasattr(hf, "transformer") else model.model.layers
    mid = "ln_2" if hasattr(hf, "transformer") else "pre_feedforward_layernorm"

    def residuals(ids: Tensor) -> Any:
        kept: list[Any] = []
        with model.trace(input_ids=ids, use_cache=False):
            for layer in layers:
                kept += [layer.input.save(), getattr(layer, mid).input.save(), layer.output.save()]
        return kept

    return {"residuals": residuals}


def interp_engine(hf: Any, folder: Path) -> dict[str, Run]:
    """Its points: three a layer, and all that the model serves."""
    from interp_engine import capture
    from interp_engine.model import EagerModel
    from interp_engine.points import POINTS

    model = EagerModel(str(folder), hf_model=hf, tokenizer=object(), device="cpu", attn_implementation="eager")
    layers = range(hf.config.num_hidden_layers)
    some = [f"{kind}.{layer}" for layer in layers for kind in KINDS]
    every = []
    for point in POINTS:
        names = [f"{point.name}.{i}" for i in layers] if point.scope.name.lower().startswith("l") else [point.name]
        for name in names:
            try:
                capture(model, torch.tensor([[1, 2, 3]]), [name])
            except Exception:  # each point that the model cannot give is refused in its own way
                continue
            every.append(name)
    return {
        "residuals": lambda ids: capture(model, ids, some),
        "all": lambda ids: capture(model, ids, every),
        "names": lambda _: every,
    }


TOOLS = {"lensing": lensing, "TransformerLens": transformerlens, "nnsight": nnsight, "interp-engine": interp_engine}


def times(tool: str, folder: Path, shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    """CPU seconds of the plain forward and of the tool's jobs, in turns."""
    hf = load(folder)
    ids = torch.randint(1, hf.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # the bridge rewrites the model that it is given, so its plain forward is that of another copy
        plain = load(folder) if tool == "TransformerLens" else hf
        jobs = {"plain": lambda ids: plain(input_ids=ids, use_cache=False), **TOOLS[tool](hf, folder)}
        jobs.pop("names", None)
        for run in jobs.values():
            for _ in range(3):
                run(ids)
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        order = random.Random(0)
        for _ in range(rounds):
            # what ran before leaves its memory behind, so the order is drawn
            for name in order.sample(list(jobs), len(jobs)):
                began = time.process_time()
                held = jobs[name](ids)
                seconds[name].append(time.process_time() - began)
                del held
    return {name: statistics.median(found) for name, found in seconds.items()}


def memory(tool: str, folder: Path, shape: tuple[int, int]) -> dict[str, Any]:
    """Peak megabytes of a capture of all sites above those of the plain forward, the capture held."""
    hf = load(folder)
    ids = torch.randint(1, hf.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        jobs = TOOLS[tool](hf, folder)
        run = jobs.get("all", jobs["residuals"])
        run(ids[:, :2])
        hf(input_ids=ids, use_cache=False)
        before = _peak()
        held = run(ids)
        above = _peak() - before
        del held
    return {"megabytes": above}


def sweep(tool: str, folder: Path, length: int) -> dict[str, Any]:
    """CPU seconds of patching the stream at every layer and position, and the numbers."""
    hf = load(folder)
    g = torch.Generator().manual_seed(1)
    clean, corrupt = (torch.randint(1, hf.config.vocab_size, (1, length), generator=g) for _ in range(2))

    def difference(logits: Tensor) -> Tensor:
        return (logits[:, -1, 5] - logits[:, -1, 7]).mean()

    with torch.no_grad():
        if tool == "lensing":
            import lensing as ln
            from lensing.causal.metrics import LogitDifference
            from lensing.model.run import Model

            model = Model(hf)
            metric = LogitDifference((5,), (7,))
            a, b = (model.encode(ids, bos=False) for ids in (clean, corrupt))
            ln.patch(model, a, b, metric, layers=[0], positions=[0])
            began = time.process_time()
            found = ln.patch(model, a, b, metric).raw
        else:
            from transformer_lens import patching
            from transformer_lens.model_bridge import TransformerBridge

            bridge = TransformerBridge.boot_transformers(str(folder), hf_model=hf, tokenizer=None)
            bridge.enable_compatibility_mode(no_processing=True)
            bridge(clean)
            began = time.process_time()
            _, cache = bridge.run_with_cache(clean)
            found = patching.get_act_patch_resid_pre(bridge, corrupt, cache, difference)
    return {"seconds": time.process_time() - began, "effects": found.double().tolist()}


def values(tool: str, folder: Path, out: Path) -> dict[str, Any]:
    """Write everything that the tool captures on one text, by the tool's own names."""
    from safetensors.torch import save_file

    hf = load(folder)
    ids = torch.arange(2, 14)[None]
    with torch.no_grad():
        jobs = TOOLS[tool](hf, folder)
        found = jobs.get("all", jobs["residuals"])(ids)
        if tool == "nnsight":
            kept = {
                f"{kind}.{i // 3}": value[0] if isinstance(value, tuple) else value
                for i, value in enumerate(found)
                for kind in [KINDS[i % 3]]
            }
        elif tool == "interp-engine":
            kept = {name: found[name] for name in jobs["names"](ids)}
        else:
            kept = dict(found[1].items())
        extra = {}
        if tool == "TransformerLens":
            # of layers before the last: layer 1's heads are what layer 2 has more than layer 1
            stacks = [found[1].stack_head_results(layer=layer).sum(0) for layer in (1, 2)]
            extra["heads.1"] = stacks[1] - stacks[0]
    tensors = {name: value.detach().float().contiguous().clone() for name, value in {**kept, **extra}.items()}
    save_file({name: t for name, t in tensors.items() if t.is_floating_point()}, out)
    return {"names": len(tensors)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the job that the arguments name."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    job, tool, folder, *rest = sys.argv[1:]
    where = Path(folder)
    if job == "times":
        print(json.dumps(times(tool, where, (int(rest[0]), int(rest[1])), int(rest[2]))))
    elif job == "memory":
        print(json.dumps(memory(tool, where, (int(rest[0]), int(rest[1])))))
    elif job == "sweep":
        print(json.dumps(sweep(tool, where, int(rest[0]))))
    else:
        print(json.dumps(values(tool, where, Path(rest[0]))))


if __name__ == "__main__":
    main()
