"""Read a dictionary: a shipped id or a folder, safetensors only unless pickles are allowed by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import lensing.dictionary.batchtopk
import lensing.dictionary.topk  # noqa: F401  (both register their class)
from lensing.config import from_mapping
from lensing.dictionary.base import FORMAT, FORMAT_VERSION, Dictionary, config_class, new_dictionary
from lensing.dictionary.configs import JOIN
from lensing.dictionary.statistics import FACTS, TENSORS, Sample, Statistics
from lensing.errors import (
    DictionaryError,
    FileFormatError,
    SiteError,
    UnknownNameError,
    UnsafeFileError,
)
from lensing.files import sha256
from lensing.registry import shipped_dictionaries

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def load_dictionary(name: str | Path, *, model: Any = None, allow_pickle: bool = False) -> Dictionary:
    """Load a dictionary by shipped id (`almanac/mlp_out.2/w1024`) or from a folder; with `model`, check that it fits.

    A folder with its weights in a pickle is refused unless `allow_pickle`; unknown names, corrupt files and
    dictionaries of another width than the model's site each have their own error.
    """
    shipped = shipped_dictionaries()
    folder = shipped.get(str(name), Path(name))
    if not folder.exists():
        raise UnknownNameError("dictionary", str(name), shipped)
    if folder.is_file():
        folder = folder.parent if folder.name in ("config.json", "weights.safetensors") else folder
    dictionary = _read(folder, allow_pickle)
    if str(name) in shipped:
        dictionary.id = str(name)
    if model is not None:
        check_fits(dictionary, model)
    return dictionary


def check_fits(dictionary: Dictionary, model: Any, site: str | None = None) -> None:
    """Raise DictionaryError unless the dictionary's width is that of its site (or `site`) on the model."""
    site = site or dictionary.site
    if site is None:
        raise DictionaryError(f"{dictionary} names no site. Set dictionary.site to the site that it reads.")
    wanted = [(site, "reads", dictionary.d_in)]
    if dictionary.target is not None:
        wanted.append((dictionary.target, "writes", dictionary.d_out))
    for names, does, width in wanted:
        found = sum(site_width(model, name) for name in names.split(JOIN))
        if found != width:
            raise DictionaryError(
                f"{dictionary.id or 'The dictionary'} {does} vectors of {width} numbers, but {names} of "
                f"{model.name} has {found}. Use a dictionary that was trained on this model and site."
            )


def site_width(model: Any, site: str) -> int:
    """Length of the vectors at a site, found by running one token through the model."""
    token = model.bos_id if model.bos_id is not None else 0
    _, cache = model.run_with_cache([token], sites=[site], stop=True)
    names = list(cache.sites)
    if len(names) != 1:
        raise SiteError(f"{site!r} means {len(names)} sites. Give one site.")
    return int(cache[names[0]][0, 0].numel())


def _read(folder: Path, allow_pickle: bool) -> Dictionary:
    weights = folder / "weights.safetensors"
    if folder.is_file() or not weights.exists():
        pickles = [folder] if folder.is_file() else sorted(folder.iterdir())
        pickles = [path for path in pickles if path.suffix in PICKLES]
        if pickles and not allow_pickle:
            raise UnsafeFileError(
                f"{pickles[0]} is a pickle, which can run code when it is read. "
                "Convert it to safetensors, or pass --allow-pickle if you trust where it comes from."
            )
        if pickles:
            weights, folder = pickles[0], pickles[0].parent
        else:
            raise DictionaryError(
                f"{folder} holds no weights.safetensors. Give a folder that lensing saved a dictionary in."
            )
    record = _config(folder / "config.json")
    _check_hashes(folder, record)
    tensors = _unpickle(weights) if weights.suffix in PICKLES else read_tensors(weights)
    try:
        config = from_mapping(config_class(record["architecture"]), record["config"])
        wiring: dict[str, Any] = {"target": None, "d_out": None, "skip": False, "parts": [], **record.get("wiring", {})}
        dictionary = new_dictionary(
            config, int(record["d_in"]), d_out=wiring["d_out"], skip=wiring["skip"], parts=tuple(wiring["parts"])
        )
        dictionary.centred, dictionary.target = wiring.get("centred", dictionary.centred), wiring["target"]
        _fill(dictionary, tensors, weights)
        dictionary.site, dictionary.model_name, dictionary.id = record["site"], record["model"], record["id"]
        dictionary.stored_dtype = getattr(torch, record["dtype"])
        if record["statistics"] is not None:
            arrays = read_tensors(folder / "statistics.safetensors", TENSORS)
            facts: dict[str, Any] = {name: record["statistics"][name] for name in FACTS}
            facts.update(arrays)
            dictionary.statistics = Statistics(**facts)
        if (folder / "sample.safetensors").exists():
            dictionary.sample = Sample(**read_tensors(folder / "sample.safetensors", ("ids", "offsets")))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileFormatError(
            f"{folder / 'config.json'} is not what lensing writes: {error!r}. Save the dictionary again."
        ) from error
    return dictionary.requires_grad_(False).eval()


def _config(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DictionaryError(f"{path.parent} holds no config.json. Give a folder with a saved dictionary.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Fetch or save the dictionary again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DictionaryError(f"{path} does not describe a lensing dictionary. Give a folder that lensing saved.")
    if record.get("version") != FORMAT_VERSION:
        raise FileFormatError(
            f"{path} has format version {record.get('version')}, this lensing reads {FORMAT_VERSION}. Update lensing."
        )
    return record


def _check_hashes(folder: Path, record: dict[str, Any]) -> None:
    """Compare each file with the hash that was written beside it: flipped bits are numbers like any other."""
    for name, digest in record.get("sha256", {}).items():
        path = folder / name
        if path.is_file() and sha256(path) != digest:
            raise FileFormatError(
                f"{path} is truncated or corrupt: its hash is not the recorded one. Fetch or save it again."
            )


def read_tensors(path: Path, names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, all of it or the given names; truncated or corrupt files are FileFormatError."""
    try:
        tensors = load_file(str(path))
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing. Fetch or save the dictionary again.") from error
    except (SafetensorError, ValueError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Fetch or save it again.") from error
    if names is None:
        return tensors
    missing = [name for name in names if name not in tensors]
    if missing:
        raise FileFormatError(f"{path} lacks {', '.join(missing)}. Fetch or save it again.")
    return {name: tensors[name] for name in names}


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Fetch or save it again.") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise FileFormatError(f"{path} does not hold a table of named tensors. Save the dictionary as safetensors.")
    return tensors


def _fill(dictionary: Dictionary, tensors: dict[str, Tensor], path: Path) -> None:
    targets = {
        "W_enc": dictionary.W_enc,
        "W_dec": dictionary.W_dec,
        "b_enc": dictionary.b_enc,
        "b_dec": dictionary.b_dec,
    }
    if dictionary.W_skip is not None:
        targets["W_skip"] = dictionary.W_skip
    for name, target in targets.items():
        if name not in tensors:
            raise FileFormatError(f"{path} lacks {name}. Fetch or save it again.")
        if tensors[name].shape != target.shape:
            raise FileFormatError(
                f"{path}: {name} has shape {list(tensors[name].shape)}, config.json says {list(target.shape)}. "
                "Fetch or save it again."
            )
        if not bool(tensors[name].isfinite().all()):
            raise FileFormatError(f"{path}: {name} holds numbers that are not finite. Fetch or save it again.")
        with torch.no_grad():
            target.copy_(tensors[name])
    try:
        dictionary.load_extra_tensors(tensors)
    except (KeyError, RuntimeError) as error:
        raise FileFormatError(f"{path} lacks or mis-shapes {error}. Fetch or save it again.") from error


def refuse_unknown_latent(dictionary: Dictionary, latent: int) -> None:
    """Raise UnknownNameError unless `latent` is one of the dictionary's."""
    if not 0 <= latent < dictionary.d_sae:
        hint = f"{dictionary.id or 'This dictionary'} has latents 0 to {dictionary.d_sae - 1}."
        raise UnknownNameError("latent", str(latent), [], hint)


def refuse_other_wiring(dictionary: Dictionary, what: str) -> None:
    """Raise DictionaryError unless the dictionary writes the one site that it reads."""
    if dictionary.is_transcoder or dictionary.parts:
        kind = "a transcoder" if dictionary.is_transcoder else "a crosscoder"
        raise DictionaryError(
            f"{dictionary.id or dictionary.site or 'The dictionary'} is {kind}: it does not write the one site that it "
            f"reads, and cannot be {what}. Use a dictionary of one site."
        )
