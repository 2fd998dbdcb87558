"""How long a person waits for `lensing --help` and `import lensing`, and what loading a model takes beside its weights.

Memory: the highest resident memory while a model of GPT-2's size is loaded, above what a tiny model of the same kind
left resident, over the bytes of its weights (Linux).
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMITS_S = {
    "lensing --help": ([sys.executable, "-m", "lensing", "--help"], 0.4),
    "import lensing": ([sys.executable, "-c", "import lensing"], 0.1),
}
LOAD = 1.1  # times the weights
LOADER = """
import sys
import lensing as ln
def resident(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) * 1024
ln.load_model(sys.argv[1])
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model = ln.load_model(sys.argv[2])
weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
print((resident("VmHWM") - before) / weights, weights)
"""


def best(command: list[str], times: int = 7) -> float:
    """Return the shortest wall time in seconds of several runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - started)
    return min(found)


def load() -> tuple[float, float]:
    """Return the peak over the weights when a model is loaded, and the weights' bytes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        shapes = {"tiny": GPT2Config(n_embd=64, n_head=4, n_layer=2), "whole": GPT2Config()}
        for name, config in shapes.items():
            GPT2LMHeadModel(config).save_pretrained(Path(folder) / name)
        command = [sys.executable, "-c", LOADER, *(str(Path(folder) / name) for name in shapes)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), float(said[1])


if __name__ == "__main__":
    failed = False
    for name, (command, limit) in LIMITS_S.items():
        seconds = best(command)
        failed |= seconds > limit
        print(f"{name:16}{seconds:6.3f} s, {seconds / limit:4.2f} of its limit {limit} s")
    if Path("/proc/self/clear_refs").exists():
        ratio, weights = load()
        failed |= ratio > LOAD
        print(f"load of {weights / 1e6:.0f} MB of weights: peak {ratio:.2f} times the weights, limit {LOAD}")
    sys.exit(failed)
