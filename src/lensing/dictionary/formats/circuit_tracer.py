"""circuit-tracer: `config.yaml` and `layer_<i>.safetensors`, one transcoder a layer, read one layer at a time.

pre = x W_enc.T + b_enc with latents in rows of both matrices, y = f W_dec + b_dec (+ x W_skip.T); f is relu(pre), pre
above `activation_function.threshold` where there is one, or the k largest where config.yaml says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import Foreign, build, refuse_architecture, setting, take
from lensing.dictionary.formats.hooks import site_of_hook
from lensing.dictionary.formats.table import refuse_many
from lensing.dictionary.tensors import read_tensors
from lensing.errors import DictionaryError, FileFormatError, UsageError

CONFIG = "config.yaml"
THRESHOLD = "activation_function.threshold"
_FILE = re.compile(r"layer_(\d+)\.safetensors")


def detect(path: Path) -> bool:
    """Whether `path` is a folder with config.yaml, or one layer's file beside it."""
    if path.is_file():
        return bool(_FILE.fullmatch(path.name)) and (path.parent / CONFIG).is_file()
    return (path / CONFIG).is_file()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read one layer's transcoder: `folder/layer_3.safetensors`, or a folder that holds a single layer."""
    folder = path.parent if path.is_file() else path
    config = read_config(folder / CONFIG)
    kind = config.get("model_kind", "transcoder_set")
    if kind == "cross_layer_transcoder" or (folder / "W_enc_0.safetensors").is_file():
        raise DictionaryError(
            f"{folder} is a cross-layer transcoder, which writes several layers. Load it with ln.load_cross_layer."
        )
    if kind != "transcoder_set":
        refuse_architecture(str(kind), "circuit-tracer", ["transcoder_set"])
    where = path if path.is_file() else _only_layer(folder)
    match = _FILE.fullmatch(where.name)
    layer = int(match[1]) if match else None
    tensors = read_tensors(where)
    encoder, W_dec, b_enc, b_dec = take(tensors, where, "W_enc", "W_dec", "b_enc", "b_dec")
    if len(b_enc) == encoder.shape[-1] == len(encoder):
        raise FileFormatError(
            f"{where} has as many latents as its vectors have numbers ({len(b_enc)}), so that nothing shows which way "
            "its matrices lie. Use a wider one."
        )
    optional: dict[str, Any] = {}
    architecture = "relu"
    activation = str(config.get("activation", "relu"))
    if THRESHOLD in tensors:
        (threshold,) = take(tensors, where, THRESHOLD)
        if bool((threshold < 0).any()):
            raise FileFormatError(f"{where} has thresholds below zero. Fetch or save it again.")
        architecture, optional["threshold"] = "jumprelu", threshold
    elif activation == "topk":
        architecture, optional["k"] = "topk", int(setting(config, "k", folder / CONFIG))
    elif activation != "relu":
        refuse_architecture(activation, "circuit-tracer", ["relu", "topk", f"jump_relu with {THRESHOLD}"])
    if "W_skip" in tensors:
        (W_skip,) = take(tensors, where, "W_skip")
        optional["W_skip"] = W_skip.t()
    found = Foreign(
        architecture=architecture, W_enc=encoder.t(), W_dec=W_dec, b_enc=b_enc, b_dec=b_dec, is_transcoder=True,
        site=site_of_hook(config.get("feature_input_hook"), layer), model=config.get("model_name"),
        target=site_of_hook(config.get("feature_output_hook"), layer), **optional,
    )  # fmt: skip
    return build(found, where)


def _only_layer(folder: Path) -> Path:
    layers = sorted((p for p in folder.iterdir() if _FILE.fullmatch(p.name)), key=lambda p: int(p.stem[6:]))
    if len(layers) > 1:
        refuse_many(folder, [p.name for p in layers])
    if not layers:
        raise FileFormatError(f"{folder} has a {CONFIG} but no layer_<i>.safetensors. Fetch a layer.")
    return layers[0]


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in config.yaml; FileFormatError where there is none, UsageError without a reader of YAML."""
    try:
        import yaml
    except ImportError as error:
        raise UsageError(f"{path} is YAML, which needs a package more. Install it: pip install pyyaml.") from error
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not YAML: {str(error).splitlines()[0]}. Fetch it again.") from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} does not hold a mapping. Fetch it again.")
    return found
