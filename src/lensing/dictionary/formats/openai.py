"""OpenAI's sparse_autoencoder (Gao et al. 2024): one pickle a layer, `<layer>.pt`, read.

pre = (x - pre_bias) encoder.weight.T + latent_bias, y = f decoder.weight.T + pre_bias. The file names its activation:
ReLU (releases v1 and v4) is read. TopK (v5) implies a LayerNorm of every input, which no weights can hold.
"""

from __future__ import annotations

import re
from pathlib import Path

from lensing.dictionary.base import Dictionary
from lensing.dictionary.formats.foreign import Foreign, build, refuse_architecture, take
from lensing.dictionary.tensors import unpickle
from lensing.errors import DictionaryError

# their word for a place, as folders of the release are named
_SITES = {
    "mlp_post_act": "mlp_post",
    "resid_delta_mlp": "mlp_out",
    "resid_delta_attn": "attn_out",
    "resid_post_attn": "resid_mid",
    "resid_post_mlp": "resid_post",
}


def detect(path: Path) -> bool:
    """Whether `path` is a pickle on its own, without a config beside it."""
    return path.is_file() and path.suffix == ".pt" and not (path.parent / "config.json").exists()


def read(path: Path, *, allow_pickle: bool = False) -> Dictionary:
    """Read one file; UnsafeFileError without `allow_pickle`, DictionaryError for a TopK release."""
    tensors = unpickle(path, allow_pickle=allow_pickle)
    name = str(tensors.get("activation", "ReLU"))
    if name == "TopK":
        raise DictionaryError(
            f"{path} normalises every vector (LayerNorm), which cannot be folded into weights. "
            "Use a release with ReLU, or another tool's dictionary."
        )
    if name != "ReLU":
        refuse_architecture(name, "OpenAI", ["ReLU"])
    tied = "decoder.weight" not in tensors and "decoder.linear.weight" in tensors
    encoder, decoder, b_enc, b_dec = take(
        tensors, path, "encoder.weight", "encoder.weight" if tied else "decoder.weight", "latent_bias", "pre_bias"
    )
    text = path.absolute().as_posix()
    place = next((ours for theirs, ours in _SITES.items() if f"/{theirs}/" in text or f"/{theirs}_v" in text), None)
    layer = re.fullmatch(r"\d+", path.stem)
    found = Foreign(
        architecture="relu", W_enc=encoder.t(), W_dec=decoder if tied else decoder.t(), b_enc=b_enc, b_dec=b_dec,
        centred=True, site=f"{place}.{layer[0]}" if place and layer else None,
        model="gpt2" if "/gpt2-small/" in text else None,
    )  # fmt: skip
    return build(found, path)
