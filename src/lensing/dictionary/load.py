"""Read a dictionary: a shipped id, a folder or a hub id; safetensors only unless pickles are allowed by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lensing.dictionary.batchtopk
import lensing.dictionary.topk  # noqa: F401  (both register their class)
from lensing.config import from_mapping
from lensing.dictionary.base import FORMAT, FORMAT_VERSION, Dictionary, config_class, new_dictionary
from lensing.dictionary.configs import JOIN
from lensing.dictionary.formats.hub import fetch_dictionary
from lensing.dictionary.formats.table import OURS, find_format, read_foreign
from lensing.dictionary.rounding import unpack
from lensing.dictionary.statistics import FACTS, TENSORS, Sample, Statistics
from lensing.dictionary.tensors import PICKLES, read_tensors, refuse_pickle, unpickle
from lensing.errors import DictionaryError, FileFormatError, SiteError, UnknownNameError
from lensing.files import sha256
from lensing.registry import shipped_dictionaries


def load_dictionary(
    name: str | Path, *, model: Any = None, allow_pickle: bool = False, format: str | None = None
) -> Dictionary:
    """Load a dictionary by shipped id (`almanac/mlp_out.2/w1024`), from a folder of ours or of another tool, or from
    the hub (`gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`, or `owner/repository/folder`).

    The format is found by the files' names unless `format` names it; with `model`, it is checked that it fits. A
    pickle is refused unless `allow_pickle`; unknown names, corrupt files, what cannot be expressed and dictionaries of
    another width than the model's site each have their own error.
    """
    shipped, text = shipped_dictionaries(), str(name)
    local = shipped.get(text, Path(name).expanduser())
    path = local if local.exists() else fetch_dictionary(text, shipped)
    if path.is_file() and path.name in ("config.json", "weights.safetensors"):
        path = path.parent
    foreign = format or (None if (path / "weights.safetensors").is_file() else find_format(path))
    if foreign in (None, OURS):
        dictionary = _read(path, allow_pickle)
    else:
        dictionary = read_foreign(path, foreign, allow_pickle=allow_pickle)
    if text in shipped or path is not local:
        dictionary.id = text
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
        if not pickles and (folder / "layer_0" / "weights.safetensors").is_file():
            raise DictionaryError(
                f"{folder} is a cross-layer transcoder. Load it with ln.load_cross_layer, or one layer: "
                f"{folder / 'layer_0'}."
            )
        if not pickles:
            raise DictionaryError(
                f"{folder} holds no weights.safetensors, nor the files of another tool. "
                "Give a folder that holds a dictionary."
            )
        refuse_pickle(pickles[0], allow_pickle)
        weights, folder = pickles[0], pickles[0].parent
    record = _config(folder / "config.json")
    _check_hashes(folder, record)
    tensors = unpickle(weights, allow_pickle=allow_pickle) if weights.suffix in PICKLES else read_tensors(weights)
    try:
        config = from_mapping(config_class(record["architecture"]), record["config"])
        wiring: dict[str, Any] = {"target": None, "d_out": None, "skip": False, "parts": [], **record.get("wiring", {})}
        dictionary = new_dictionary(
            config, int(record["d_in"]), d_out=wiring["d_out"], skip=wiring["skip"], parts=tuple(wiring["parts"])
        )
        dictionary.centred, dictionary.target = wiring.get("centred", dictionary.centred), wiring["target"]
        _fill(dictionary, unpack(tensors), weights)
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
