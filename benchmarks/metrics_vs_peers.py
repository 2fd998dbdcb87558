"""Do the numbers that `lensing.measure.peers` gives under the names of other tools equal what those tools print?

A tiny random GPT-2, a random dictionary and texts that begin with a BOS token of large norm. SAELens, SAEBench,
sparsify, dictionary_learning and llamascopium run their own evaluation code, each in an interpreter of its own
(transformers is needed in it too, einops for SAEBench); of SAEBench and llamascopium only the functions themselves are
taken from the installed files, because the packages import what may be missing. The relative difference of every number
is printed: the tools sum in float32.

    python benchmarks/metrics_vs_peers.py --saelens PYTHON --saebench PYTHON --sparsify PYTHON \
        --dictionary-learning PYTHON --llamascopium PYTHON
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import lensing as ln
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.measure.fvu import fvu
from lensing.measure.peers import NAMES, PeerMetrics, splice_metrics

D, F, K, BATCHES, ROWS, LENGTH, VOCAB, BOS, LIMIT = 16, 40, 5, 3, 4, 12, 50, 1, 1e-4
SITE, BLOCK = "resid_post.1", 1

# Every script is given a folder and prints its numbers as JSON. Theirs is the model; `run` writes `edit` into a block.
COMMON = """
import ast, importlib.util, json, sys, types, typing
from collections.abc import Mapping
from functools import partial
from pathlib import Path
import torch
from safetensors.torch import load_file
folder = Path(sys.argv[1])
data = load_file(folder / "data.safetensors")
BLOCK, BOS = 1, 1
class Model:
    tokenizer = None
    def __init__(self):
        from transformers import GPT2LMHeadModel
        self.hf = GPT2LMHeadModel.from_pretrained(folder / "model").eval()
    def run(self, ids, edit=lambda x: x):
        found = []
        def hook(module, args, out):
            x = out[0] if isinstance(out, tuple) else out
            found.append(x)
            new = edit(x)
            return (new, *out[1:]) if isinstance(out, tuple) else new
        handle = self.hf.transformer.h[BLOCK].register_forward_hook(hook)
        with torch.no_grad():
            logits = self.hf(ids).logits
        handle.remove()
        return logits, found[0]
    def out(self, ids, logits):  # as a HookedTransformer returns both, a loss for each token but the last
        loss = -logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        return logits, loss
    def __call__(self, ids, **_):
        return self.out(ids, self.run(ids)[0])
    def run_with_hooks(self, ids, fwd_hooks, **_):
        fn = fwd_hooks[0][1]
        return self.out(ids, self.run(ids, lambda x: fn(x, hook=None))[0])
    def run_with_cache(self, ids, names_filter, **_):
        return None, {names_filter[0]: self.run(ids)[1]}
class Store:
    def __init__(self):
        self.left = list(data["ids"])
    def get_batch_tokens(self, n):
        return self.left.pop(0)
def functions(module, names, space):  # these functions of a package's file, without importing the package
    package, _, rest = module.partition(".")
    root = Path(importlib.util.find_spec(package).origin).parent
    tree = ast.parse(root.joinpath(*rest.split(".")).with_suffix(".py").read_text())
    kept = [n for n in tree.body if getattr(n, "name", None) in names]
    assert len(kept) == len(names), [n.name for n in kept]
    exec(compile(ast.Module(kept, []), module, "exec"), space)
    return space
"""
RELU = """
class Sae:
    cfg = types.SimpleNamespace(d_sae=data["W_dec"].shape[0], hook_name="h", hook_head_index=None, hook_layer=BLOCK,
                                metadata=types.SimpleNamespace(hook_name="h", hook_head_index=None))
    device = torch.device("cpu")
    def encode(self, x):
        return torch.relu((x - data["b_dec"]) @ data["W_enc"] + data["b_enc"])
    def decode(self, f):
        return f @ data["W_dec"] + data["b_dec"]
"""
SAELENS = """
import sae_lens.evals as evals
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.training.activation_scaler import ActivationScaler
evals.extract_stop_at_layer_from_tlens_hook_name = lambda name: None  # the model above stops nowhere
sae = StandardSAE(StandardSAEConfig(d_in=data["W_dec"].shape[1], d_sae=data["W_dec"].shape[0]))
sae.load_state_dict({k: data[k] for k in ("W_enc", "b_enc", "W_dec", "b_dec")})
sae.cfg.metadata.hook_name, sae.cfg.metadata.hook_head_index = "h", None
model, n = Model(), len(data["ids"])
with torch.no_grad():
    found, features = evals.get_sparsity_and_variance_metrics(
        sae, model, Store(), ActivationScaler(), n, True, True, True, True, 4, {}, ignore_tokens=[BOS])
    found |= evals.get_downstream_reconstruction_metrics(
        sae, model, Store(), ActivationScaler(), True, True, n, 4, ignore_tokens=[BOS])
found["n_alive"] = sum(f > 0 for f in features["feature_density"])  # as its run_evals counts them
print(json.dumps(found))
"""
SAEBENCH = """
import einops
space = functions("sae_bench.evals.core.main", ["get_downstream_reconstruction_metrics",
    "get_sparsity_and_variance_metrics", "get_recons_loss"], {
    "torch": torch, "einops": einops, "Any": typing.Any, "Mapping": Mapping, "partial": partial,
    "tqdm": lambda x, **_: x,
    "SAE": object, "HookedRootModule": object, "ActivationsStore": object})
model, n = Model(), len(data["ids"])
with torch.no_grad():
    found, _ = space["get_sparsity_and_variance_metrics"](
        Sae(), model, Store(), n, True, True, True, True, 4, {}, ignore_tokens={BOS})
    found |= space["get_downstream_reconstruction_metrics"](
        Sae(), model, Store(), True, True, n, 4, ignore_tokens={BOS})
print(json.dumps(found))
"""
SPARSIFY = """
torch.cuda.is_bf16_supported = lambda *_, **__: False  # its forward asks CUDA
from sparsify import SparseCoder, SparseCoderConfig
sae = SparseCoder(data["W_dec"].shape[1], SparseCoderConfig(num_latents=data["W_dec"].shape[0], k=int(data["k"])))
model = Model()
with torch.no_grad():
    sae.encoder.weight.copy_(data["W_enc"].T), sae.encoder.bias.copy_(data["b_enc"])
    sae.W_dec.copy_(data["W_dec"]), sae.b_dec.copy_(data["b_dec"])
    parts = [sae(model.run(ids)[1].flatten(0, 1)).fvu.item() for ids in data["ids"]]
print(json.dumps({"fvu": sum(parts) / len(parts)}))
"""
# A stand-in for nnsight's traces: what is asked for is filled in when the `with` ends, by running the model above.
LEARNING = """
nnsight = types.ModuleType("nnsight")
nnsight.LanguageModel = object
sys.modules.setdefault("nnsight", nnsight)
from dictionary_learning import evaluation
from dictionary_learning.buffer import ActivationBuffer
from dictionary_learning.dictionary import AutoEncoder
class Later:
    def __init__(self, traced):
        self.traced, self.shape, self.write = traced, torch.Size([1]), None
    def save(self):
        return self
    def __setitem__(self, at, value):
        self.write = value
class Traced:
    tokenizer = types.SimpleNamespace(pad_token_id=-100)
    dtype = torch.float32
    def __init__(self):
        self.model, self.inputs = Model(), types.SimpleNamespace(save=lambda: None)
    @property
    def output(self):  # the logits of the trace that is being made
        self.wanted = types.SimpleNamespace(value=None)
        return types.SimpleNamespace(save=lambda: self.wanted)
    def trace(self, text, **_):
        outer = self
        class Trace:
            def __enter__(self):
                outer.wanted = None
                if isinstance(text, str):
                    submodule.here = torch.zeros(1, 1, 1)
                    return
                submodule.write = None
                submodule.here = outer.model.run(text)[1]
            def __exit__(self, *_):
                if outer.wanted is not None:
                    write = submodule.write
                    logits = outer.model.run(text, (lambda x: x) if write is None else (lambda x: write))[0]
                    outer.wanted.value = logits
        return Trace()
class Out(torch.Tensor):
    def save(self):
        return self.as_subclass(torch.Tensor)
    def __setitem__(self, at, value):
        submodule.write = value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value
class Submodule:
    write, here = None, None
    @property
    def output(self):
        return self.here.as_subclass(Out)
submodule = Submodule()
class Buffer(ActivationBuffer):
    def __init__(self):
        self.model, self.submodule = Traced(), submodule
        self.rows, self.texts = list(data["ids"]), list(data["ids"])
    def __next__(self):
        return self.model.model.run(self.rows.pop(0))[1].flatten(0, 1)
    def text_batch(self, batch_size):
        return self.texts.pop(0)
sae = AutoEncoder(data["W_dec"].shape[1], data["W_dec"].shape[0])
with torch.no_grad():
    sae.encoder.weight.copy_(data["W_enc"].T), sae.encoder.bias.copy_(data["b_enc"])
    sae.decoder.weight.copy_(data["W_dec"].T), sae.bias.copy_(data["b_dec"])
found = evaluation.evaluate(sae, Buffer(), n_batches=len(data["ids"]))
print(json.dumps(found))
"""
LLAMASCOPIUM = """
class Metric:
    pass
class Record:
    def __init__(self, *_):
        self.values = []
    def update(self, value, *_):
        self.values.append(value)
    def compute(self):
        return torch.stack(self.values).mean(0)
def apply_token_mask(tensor, specs, mask, reduction):
    return getattr(tensor, reduction)(0), specs
space = functions("llamascopium.metrics", ["ExplainedVarianceMetric"], {
    "torch": torch, "Metric": Metric, "Record": Record, "apply_token_mask": apply_token_mask, "Tensor": torch.Tensor,
    "item": float, "SparseDictionary": object, "Number": float, "logger": None})
sae = types.SimpleNamespace(specs=types.SimpleNamespace(label=lambda x: ("batch", "d")))
metric, model = space["ExplainedVarianceMetric"](sae), Model()
for ids in data["ids"]:
    x = model.run(ids)[1][ids != BOS]
    metric.update({"label": x, "reconstructed": Sae().decode(Sae().encode(x))})
print(json.dumps({k.split("/")[1]: v for k, v in metric.compute().items()}))
"""
SCRIPTS = {
    "saelens": SAELENS, "saebench": RELU + SAEBENCH, "sparsify": SPARSIFY, "dictionary_learning": LEARNING,
    "llamascopium": RELU + LLAMASCOPIUM,
}  # fmt: skip


def make(folder: Path) -> tuple[Any, dict[str, Dictionary], Tensor]:
    """A model whose BOS vector is large, two dictionaries of one set of weights, and batches of token ids."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=32, n_embd=D, n_layer=3, n_head=2, bos_token_id=BOS, eos_token_id=2,
        initializer_range=0.4,
    )  # fmt: skip
    hf = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        hf.transformer.wte.weight[BOS] *= 6
    hf.save_pretrained(folder / "model")
    ids = torch.randint(3, VOCAB, (BATCHES, ROWS, LENGTH))
    ids[:, :, 0] = BOS
    g = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(F, D, generator=g), dim=1)
    weights = {
        "W_enc": 0.5 * directions.T.contiguous(), "b_enc": 0.1 * torch.randn(F, generator=g), "W_dec": directions,
        "b_dec": 0.1 * torch.randn(D, generator=g),
    }  # fmt: skip
    weights["b_enc"][:3] = -1e3  # three latents that are dead
    made = {}
    for name, config in {"relu": ln.ReLU(width=F, sparsity=1.0), "topk": ln.TopK(width=F, k=K)}.items():
        sae = new_dictionary(config, D)
        sae.centred = True
        with torch.no_grad():
            sae.encoder.copy_(weights["W_enc"].T)
            for key in ("b_enc", "W_dec", "b_dec"):
                sae.get_parameter(key).copy_(weights[key])
        sae.site = SITE
        made[name] = sae.requires_grad_(False)
    save_file({**weights, "ids": ids, "k": torch.tensor(K)}, folder / "data.safetensors")
    return ln.load_model(str(folder / "model")), made, ids


def ours(model: Any, made: dict[str, Dictionary], ids: Tensor) -> tuple[dict[str, float], list[float]]:
    """Every number of another tool, and four FVU of one dictionary on one text."""
    meters = {name: PeerMetrics() for name in ("masked", "all", "topk")}
    rows = []
    for batch in ids:
        _, cache = model.run_with_cache(model.encode(batch.tolist()), sites=[SITE])
        x = cache[SITE].flatten(0, 1)
        keep = (batch != BOS).flatten()
        rows.append((x, keep))
        for name, part, sae in (("masked", x[keep], made["relu"]), ("all", x, made["relu"]), ("topk", x, made["topk"])):
            codes = sae.encode(part)
            meters[name].add(part, sae.decode(codes), codes)
    where = {"sparsify": "topk", "dictionary_learning": "all"}
    found = {name: meters[where.get(name.split(".")[0], "masked")].value(name) for name in NAMES}
    texts = [row.tolist() for batch in ids for row in batch]
    found |= splice_metrics(model, made["relu"], texts)
    batches = [splice_metrics(model, made["relu"], batch.tolist()) for batch in ids]
    for name in batches[0]:  # it averages over batches
        if name.startswith("dictionary_learning"):
            found[name] = sum(batch[name] for batch in batches) / len(batches)
    x, keep = (torch.cat(part) for part in zip(*rows, strict=True))
    return found, [fvu(part, made["relu"].reconstruct(part)) for part in (x[keep], x)]


def main() -> None:
    """Compare with every tool whose interpreter is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for peer in SCRIPTS:
        parser.add_argument(f"--{peer.replace('_', '-')}", help=f"a Python in which {peer} is installed")
    given = {peer: python for peer, python in vars(parser.parse_args()).items() if python}
    worst = 0.0
    with tempfile.TemporaryDirectory() as place:
        model, made, ids = make(Path(place))
        found, (masked, whole) = ours(model, made, ids)
        print(f"FVU as defined here: {masked:.6f} without BOS, {whole:.6f} with it")
        print(f"{'number':52} {'of the tool':>14} {'here':>14} {'relative':>9}")
        for peer, python in given.items():
            done = subprocess.run(
                [python, "-c", COMMON + SCRIPTS[peer], place], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{python} failed:\n{done.stderr[-3000:]}")
            theirs = json.loads(done.stdout.strip().splitlines()[-1])
            names = [name for name in found if name.split(".")[0] == peer]
            for name in names:
                value = theirs[name.split(".")[1]]
                relative = abs(found[name] - value) / max(abs(value), 1e-3)
                worst = max(worst, relative)
                print(f"{name:52} {value:14.6f} {found[name]:14.6f} {relative:9.1e}")
    sys.exit(0 if worst < LIMIT else f"a difference is above {LIMIT}")


if __name__ == "__main__":
    main()
