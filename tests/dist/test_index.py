"""An index that several processes make under torchrun is the one that a single process makes, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lensing as ln
from lensing.registry import shipped_dictionaries

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torchrun and gloo as on Linux")

SCRIPT = """
import sys
import lensing as ln
from lensing.world.shipped import shipped_text

out, name, dying = sys.argv[1], sys.argv[2], sys.argv[3] == "dying"
text = shipped_text("almanac")
documents = [text.ids[a:b].tolist() for a, b in zip(text.starts[:30], text.starts[1:31])]
if dying:
    import os
    from lensing.index import build
    real, made = build._chunk, []

    def chunk(*arguments):
        if os.environ["RANK"] == "1" and made:
            os._exit(0)  # killed between two chunks
        made.append(1)
        return real(*arguments)

    build._chunk = chunk
model = ln.load_model("almanac")
ln.build_index(model, ln.load_dictionary(name), documents, out=out, chunk_rows=400, quiet=True)
"""
NAME = next(name for name in shipped_dictionaries() if name.endswith("resid_post.5/w1024"))


def run(folder: Path, *words: str, processes: int) -> None:
    script = folder / "make.py"
    script.write_text(SCRIPT)
    source = Path(ln.__file__).parents[1]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), str(script), *words], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("how", ["living", "dying"])
def test_two_processes_make_the_same_index(tmp_path, how):
    run(tmp_path, str(tmp_path / "one"), NAME, "living", processes=1)
    run(tmp_path, str(tmp_path / "two"), NAME, how, processes=2)
    files = sorted(path.name for path in (tmp_path / "one").glob("*.npy"))
    assert len(files) > 30
    for name in [*files, "index.json"]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert not (tmp_path / "two" / "chunks.part").exists()
