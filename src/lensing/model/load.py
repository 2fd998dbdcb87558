"""Load a model: one that the package ships, a folder, or an id on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from lensing.errors import (
    FileFormatError,
    LensingError,
    ModelError,
    UnknownNameError,
    UnsafeFileError,
    UsageError,
    suggest,
)
from lensing.memory import refuse_too_large
from lensing.model.create import quiet, untrained
from lensing.model.large import DeviceMap, Quantize, loading, quantised_bytes, room
from lensing.model.run import Model
from lensing.model.weigh import in_memory, refuse_own_code, weight_bytes
from lensing.registry import revisions, shipped_models

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
REACH_SECONDS = 3.0
RANDOM = "random"  # the revision of a shipped model that was never trained


def load_model(
    name: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: DeviceMap | None = None,
    quantize: Quantize | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Model:
    """Load a causal language model by shipped id, folder or hub id, in evaluation mode, its weights without gradient.

    `revision` (also as name@revision) is a branch, tag or commit on the hub; of a shipped model it is `random` (its
    twin with untrained weights), or a snapshot or seed that `make world` left under `runs/`. `dtype` None keeps the
    checkpoint's own (float32 for a shipped model), `device` None takes CUDA where there is one. `device_map` ("auto",
    or a mapping) spreads the blocks over devices, memory and disk (accelerate), `quantize` ("int8", "nf4", "fp4") packs
    the weights (bitsandbytes).

    Raises: UnknownNameError, with the nearest names. ModelError: a folder that holds no model. FileFormatError: a
    broken file. UnsafeFileError: weights that are a pickle, which `allow_pickle=True` (`--allow-pickle`) reads, or a
    model with code of its own, which `trust_remote_code=True` runs. UsageError: weights larger than the memory of the
    device, before any is read, or an option that is not there.
    """
    shipped = shipped_models()
    name = str(name)
    if revision is None and not Path(name).expanduser().exists() and "@" in name:
        name, _, revision = name.rpartition("@")
    target, number, label = _device(device), _dtype(dtype), name
    if name in shipped:
        source: str = str(shipped[name])
        # What ships is small, and exactness is what it is for.
        number = torch.float32 if dtype is None else number
        if revision not in (None, RANDOM):
            source = str(_snapshot(name, str(revision)))
        label = name if revision is None else f"{name}@{revision}"
    elif Path(name).expanduser().exists():
        source = str(Path(name).expanduser())
        label = Path(source).resolve().name
    else:
        source = _hub(name, revision, list(shipped))
        label = name if revision is None else f"{name}@{revision}"
    folder = Path(source)
    local = folder.is_dir()
    if local:
        _check_folder(folder, allow_pickle)
        refuse_own_code(folder / "config.json", label, trust_remote_code)
    elif folder.exists():
        raise ModelError(f"{name} is a file, not a model. Give the folder that holds config.json.")
    more = loading(device_map, quantize, target, number)
    with quiet():
        if name in shipped and revision == RANDOM:
            hf = untrained(source, number if isinstance(number, torch.dtype) else torch.float32)
        else:
            weights = weight_bytes(folder, number) if local else _hub_bytes(source, revision, number)
            refuse_too_large(
                f"To hold the weights of {label}", quantised_bytes(weights, quantize),
                "Give dtype='bfloat16', quantize='nf4', device_map='auto', a smaller model, or a machine with more.",
                room=room(target, device_map),
            )  # fmt: skip
            hf = _load_weights(
                source, label, None if local else revision, number, allow_pickle, trust_remote_code,
                more,
            )  # fmt: skip
        tokenizer = _load_tokenizer(source, label, None if local else revision)
    hf.requires_grad_(False)
    try:
        hf = hf.to(target) if device_map is None and quantize is None else hf
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device {str(target)!r} cannot be used here: {_first_line(error)}. Give 'cpu'."
        ) from error
    return Model(hf, tokenizer, name=label)


def is_at_hand(name: str) -> bool:
    """Whether `load_model` can load a name without a network: it ships, is a folder, or was downloaded before."""
    repo, _, revision = name.partition("@")
    if repo in shipped_models() or Path(name).expanduser().is_dir():
        return True
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(repo, "config.json", revision=revision or None), str)
    except errors.HFValidationError:
        return False


def _snapshot(name: str, revision: str) -> Path:
    found = revisions(name)
    if revision not in found:
        raise UnknownNameError(
            f"revision of {name}",
            revision,
            [RANDOM, *found],
            f"Give one of: {', '.join([RANDOM, *found])}. `make world ARGS=--fresh` makes others.",
        )
    return found[revision]


def _check_folder(folder: Path, allow_pickle: bool) -> None:
    """Say what is wrong with a folder before anything heavy is imported."""
    config = _read_json(
        folder / "config.json", f"{folder} is not a model: it has no config.json. Give a model's folder."
    )
    if "model_type" not in config:
        raise ModelError(f"{folder} is not a model: its config.json names no model_type. Give a model's folder.")
    weights = _weight_files(folder)
    if weights:
        for path in weights:
            check_safetensors(path)
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if not pickles:
        raise ModelError(f"{folder} is not a model: it holds no weights. Give a folder with model.safetensors.")
    if not allow_pickle:
        raise UnsafeFileError(
            f"{folder / pickles[0]} is a pickle, which can run code when it is read. Convert it to safetensors, or "
            "give --allow-pickle if you trust it."
        )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        mapping = _read_json(index, "").get("weight_map", {})
        return [folder / str(name) for name in sorted(set(mapping.values()))]
    return sorted(folder.glob("*.safetensors"))


def check_safetensors(path: Path) -> None:
    """Read a safetensors file's header; FileFormatError if the file is missing, truncated or corrupt."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt"):
            pass
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing though the index names it. Copy the folder again.") from error
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path} is truncated or corrupt: {_first_line(error)}. Copy or download it again."
        ) from error


def _read_json(path: Path, absent: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(absent) from error
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Copy or download it again.") from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{path} does not hold a JSON object. Copy or download it again.")
    return value


def _load_weights(
    source: str,
    label: str,
    revision: str | None,
    dtype: Any,
    allow_pickle: bool,
    trust_remote_code: bool,
    more: dict[str, Any],
) -> Any:
    import transformers
    from safetensors import SafetensorError

    # A pickle is only ever looked at when the folder holds nothing else, and even then by the weights-only reader.
    options: dict[str, Any] = {
        "dtype": dtype,
        "output_loading_info": True,
        "use_safetensors": None if allow_pickle else True,
        **more,
    }
    try:
        config = transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
        names = config.architectures or []
        if trust_remote_code:
            options["trust_remote_code"] = True
        # The class by its own name imports one modelling file; the automatic classes import a table of all.
        known = [n for n in names if "CausalLM" in n or "LMHead" in n]
        cls = getattr(transformers, known[0], None) if known else None
        cls = cls or transformers.AutoModelForCausalLM
        hf, info = cls.from_pretrained(source, config=config, revision=revision, **options)
    except SafetensorError as error:
        raise FileFormatError(f"{label}: a weight file is corrupt: {_first_line(error)}. Download it again.") from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        if "safetensors" in str(error) and not allow_pickle and not Path(source).is_dir():
            raise UnsafeFileError(
                f"{label} has no safetensors weights, and a pickle can run code when it is read. "
                "Choose another revision, or give --allow-pickle if you trust it."
            ) from error
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise UnsafeFileError(
                f"{label} brings code of its own, which would run here. Read it, and give "
                "ln.load_model(..., trust_remote_code=True) if you trust it."
            ) from error
        raise ModelError(
            f"{label} cannot be loaded as a causal language model: {_first_line(error)}. Give another model."
        ) from error
    # transformers fills missing weights with random numbers and goes on; a random model is not what was asked for.
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{label} lacks {len(missing)} of its weights ({missing[0]} for one). Give a complete checkpoint."
        )
    return hf


def _load_tokenizer(source: str, label: str, revision: str | None) -> Any:
    folder = Path(source)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "vocab.txt")
    if folder.is_dir() and not any((folder / n).exists() for n in names):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise FileFormatError(
            f"The tokenizer of {label} cannot be read: {_first_line(error)}. Copy or download it again."
        ) from error


def _hub(name: str, revision: str | None, shipped: list[str]) -> str:
    """Make sure that a hub id exists, quickly: without a network only what was downloaded before is looked at."""
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    near = suggest(name, shipped) if shipped else ""
    if looks_like_path:
        raise UnknownNameError("model", name, shipped, f"There is no such folder. {near}".strip())
    # `huggingface_hub.constants` is no attribute until somebody imports it.
    from huggingface_hub import constants, errors, hf_hub_download

    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    try:
        config = hf_hub_download(name, "config.json", revision=revision, local_files_only=offline)
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        gated = isinstance(error, errors.GatedRepoError)
        why = "The hub asks you to accept its terms first." if gated else "The hub does not have it either."
        raise UnknownNameError("model", name, shipped, f"{why} {near}".strip()) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{name} has no revision {revision!r}. Look its revisions up on the hub.") from error
    except errors.LocalEntryNotFoundError as error:
        hint = f"It is not shipped, no folder, not downloaded before, and the hub cannot be reached. {near}"
        raise UnknownNameError("model", name, shipped, hint.strip()) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{name} has no config.json on the hub. Give a model's id.") from error
    except (errors.HFValidationError, OSError) as error:
        raise UnknownNameError("model", name, shipped, near or "Give a folder or a hub id.") from error
    # Without a network everything else must come from the same snapshot, without a question to the hub.
    return str(Path(config).parent) if offline else name


def _hub_bytes(name: str, revision: str | None, dtype: Any) -> int:
    """How many bytes the weights of a repository on the hub take in memory; 0 where the hub does not say."""
    import huggingface_hub as hub

    try:
        found = hub.get_safetensors_metadata(name, revision=revision).parameter_count
    except Exception:  # no safetensors, no network, an older hub: loading says what is wrong
        return 0
    return in_memory({str(kind): n for kind, n in found.items()}, dtype)


def fetch_files(repo: str, choose: Callable[[list[str]], list[str]]) -> Path:
    """Fetch from a hub repository the files that `choose` picks from the list of all, and return their root folder.

    Without a network only what was fetched before is looked at. UnknownNameError for a repository that is not there,
    LensingError in one sentence where the hub cannot be reached or does not give a file.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    # The library that the hub's client speaks with differs from version to version; its own error is one of that's.
    network: tuple[type[BaseException], ...] = (*errors.HfHubHTTPError.__bases__, OSError)
    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    try:
        if offline:
            root = Path(hub.snapshot_download(repo, local_files_only=True))
            choose(sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()))
            return root
        chosen = choose(list(hub.list_repo_files(repo)))
        paths = [Path(hub.hf_hub_download(repo, name)) for name in chosen]
    except (errors.GatedRepoError, errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        gated = isinstance(error, errors.GatedRepoError)
        why = "The hub asks you to accept its terms first." if gated else "Nor is there such a folder here."
        raise UnknownNameError("repository on the hub", repo, [], why) from error
    except errors.LocalEntryNotFoundError as error:
        raise LensingError(
            f"{repo} was not fetched before, and the hub cannot be reached. Fetch it where there is a network, or give "
            "a folder."
        ) from error
    except network as error:
        raise LensingError(
            f"The hub does not give {repo}: {_first_line(error)}. Try again, or give a folder."
        ) from error
    return paths[0].parents[chosen[0].count("/")]


def _reachable(endpoint: str) -> bool:
    """Whether the hub, or the proxy before it, takes a connection; asked once, so that nobody waits for retries."""
    if any(os.environ.get(k) for k in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    parts = urlsplit(endpoint)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=REACH_SECONDS):
            return True
    except OSError:
        return False


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"There is no device {str(device)!r}. Give 'cpu', 'cuda', 'cuda:0' or 'mps'.") from error


def _dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    if dtype is None:
        return "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"There is no number format {dtype!r} for weights. Give 'float32', 'bfloat16' or 'float16'.")
    return found


def _first_line(error: BaseException) -> str:
    """The first sentence of a library's message, without a full stop."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")[:200]
