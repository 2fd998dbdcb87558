"""Each of these libraries has one home, so that one file has to change when it does."""

from __future__ import annotations

import pytest
from rules.house import MODULES, SOURCE, imports

# library: the files and folders that may import it
HOMES = {
    "torch.distributed": ["dist.py"],
    "sqlite3": ["db.py"],
    "transformers": ["model/"],
    "fastapi": ["server/"],
    "starlette": ["server/"],
    "uvicorn": ["server/"],
    "http.server": ["server/"],
    "huggingface_hub": ["model/load.py"],
    "requests": ["model/load.py", "index/endpoint.py"],
    "httpx": ["model/load.py", "index/endpoint.py"],
    "urllib.request": ["model/load.py", "index/endpoint.py"],
    "http.client": ["model/load.py", "index/endpoint.py"],
    "socket": ["dist.py", "server/", "model/load.py"],
    "matplotlib": ["plots.py"],
    "cyclopts": ["cli/"],
    "pickle": ["model/load.py", "dictionary/tensors.py"],  # behind --allow-pickle
    "tqdm": [],
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_libraries_stay_at_home(path):
    here = path.relative_to(SOURCE).as_posix()
    strays = [
        f"{here}:{line} imports {name}, which belongs in {homes or 'no file'}"
        for line, name in imports(path)
        for library, homes in HOMES.items()
        if f"{name}.".startswith(f"{library}.") and not any(here == home or here.startswith(home) for home in homes)
    ]
    assert not strays


def test_bytes_of_shards_stay_in_one_file():
    readers = [
        path.name for path in (SOURCE / "data").rglob("*.py") for _, name in imports(path) if "safetensors" in name
    ]
    assert not readers, "lensing.shards reads and writes them"
