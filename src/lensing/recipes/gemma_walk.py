"""The walk through Gemma 2 2B that the idea was first shown on, number by number: expected beside got.

The numbers are those of the notebook behind Welch Labs, "The Dark Matter of AI" (2024): Gemma 2 2B in
TransformerLens, and Gemma Scope's `layer_20/width_16k` of the MLP's output. Blocks are counted from 0 here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.configs import JumpReLU
from lensing.dictionary.load import load_dictionary
from lensing.dictionary.splice import Splice
from lensing.errors import LensingError, UsageError
from lensing.model.create import new_gemma2
from lensing.model.edit import Add, Apply, Edit
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.model.tokens import Tokens

MODEL, DICTIONARY = "google/gemma-2-2b", "gemma-scope-2b-pt-mlp-canonical/layer_20/width_16k/canonical"
SENTENCE, SITE, LAYERS, CHANNEL, LATENT = "The reliability of Wikipedia is very", "mlp_out.20", 26, 1393, 8249
WIDTH = 16_384

NEXT = {" important": 0.2021, " much": 0.1250, " high": 0.1116, " low": 0.1080, " questionable": 0.0948,
        " poor": 0.0547}  # fmt: skip
# where the stream is read (None: what enters the first block), the word, its probability
LENS = [
    ("embed", " very", 0.006), ("resid_mid.0", " very", 0.0117), ("resid_post.0", " very", 0.0161),
    ("resid_post.12", " very", 0.94), ("resid_post.16", " very", 0.55), ("resid_post.17", " well", 0.25),
    ("resid_post.19", " questionable", 0.018), ("resid_post.20", " questionable", 0.09),
]  # fmt: skip
CLAMPED = {
    -160.0: {" important": 0.2263, " questionable": 0.0757},
    160.0: {" much": 0.1862, " questionable": 0.1066, " low": 0.1136},
}
LATENTS = {7344: 46.0, 8353: 37.3, 8249: 30.4, 16286: 23.4, 13821: 19.7}
SPLICED = {" important": 0.1756, " much": 0.1351, " high": 0.1246, " low": 0.1001, " questionable": 0.0998}
STEERED = {
    100.0: {" much": 0.206, " important": 0.190, " questionable": 0.1835},
    500.0: {" question": 0.608, " questioned": 0.160},
}
PROBABILITY, ACTIVATION = 0.01, 0.02  # tolerances: of a probability, absolute; of an activation, relative


@dataclass(frozen=True)
class Check:
    """One number of the walk: what was expected, what came out (None without the weights), how far it may be off."""

    beat: str
    what: str
    expected: float
    got: float | None
    tolerance: float

    @property
    def good(self) -> bool | None:
        """Whether it came out as expected; None where nothing came out."""
        return None if self.got is None else abs(self.got - self.expected) <= self.tolerance


@dataclass(frozen=True)
class GemmaWalk:
    """All checks. `missing` says why the weights are not here: then the steps ran on a small stand-in alone."""

    model: str
    dictionary: str
    checks: tuple[Check, ...]
    missing: str | None

    @property
    def good(self) -> bool:
        """Whether every number came out as expected."""
        return all(check.good for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model, "dictionary": self.dictionary, "missing": self.missing, "good": self.good,
            "checks": [asdict(c) | {"good": c.good} for c in self.checks],
        }  # fmt: skip


def verify_gemma_walk(model: str | None = None, dictionary: str | None = None, **options: Any) -> GemmaWalk:
    """Run the walk on Gemma 2 2B and Gemma Scope, and compare each number with the published one.

    `model` and `dictionary` are folders or ids, the hub's by default; `options` go to `load_model`. Without the weights
    every step runs on a random Gemma 2 of as many blocks, so that what is broken shows, and no number is given.

    Raises: LensingError: a model or a dictionary that was named and cannot be loaded, or is another one.
    """
    missing = None
    try:
        loaded = load_model(model or MODEL, **options)
        sae = load_dictionary(dictionary or DICTIONARY, model=loaded)
    except LensingError as error:
        if model is not None or dictionary is not None:
            raise
        missing = str(error)
        loaded, sae = _stand_in()
    if loaded.n_layers != LAYERS or sae.site != SITE or sae.d_sae != WIDTH:
        raise UsageError(
            f"{loaded.name} has {loaded.n_layers} blocks, and {sae} reads {sae.site}. Give Gemma 2 2B ({LAYERS} "
            f"blocks) and a dictionary of {WIDTH:,} latents at {SITE}."
        )
    tokens = loaded.encode(SENTENCE if missing is None else list(range(2, 9)))
    word: Callable[[str], int] = _stand_in_word if missing is not None else lambda text: _token(loaded, text)
    found = list(_steps(loaded, sae, tokens, word))
    checks = (
        Check(beat, what, expected, None if missing is not None else got, tolerance)
        for beat, what, expected, got, tolerance in found
    )
    return GemmaWalk(loaded.name if missing is None else MODEL, dictionary or DICTIONARY, tuple(checks), missing)


Found = tuple[str, str, float, float, float]


@torch.no_grad()
def _steps(model: Model, sae: Dictionary, tokens: Tokens, word: Callable[[str], int]) -> Iterator[Found]:
    streams = [site for site, _, _ in LENS]
    logits, cache = model.run_with_cache(tokens, sites=[*streams, SITE])
    assert logits is not None
    yield from _words("next word", logits[0, -1], NEXT, word)
    for site, text, p in LENS:
        got = model.unembed(cache[site][0, -1]).double().softmax(-1)[word(text)]
        yield "logit lens", f"{text.strip()} at {site}", p, float(got), PROBABILITY
    for value, expected in CLAMPED.items():
        edit = Apply(SITE, lambda h, v=value: h.index_fill(-1, torch.tensor([CHANNEL % h.shape[-1]]).to(h.device), v))
        yield from _words(f"channel {CHANNEL} at {value:g}", _last(model, tokens, edit), expected, word)
    codes = sae.encode(cache[SITE][0, -1:]).dense()[0]
    for latent, activation in LATENTS.items():
        yield "latents", str(latent), activation, float(codes[latent]), ACTIVATION * activation
    spliced = _last(model, tokens, Splice(sae, include_special=True))
    yield from _words("splice", spliced, SPLICED, word)
    for amount, expected in STEERED.items():
        edit = Add(SITE, amount * sae.W_dec[LATENT].detach(), include_special=True)
        yield from _words(f"latent {LATENT} at {amount:g}", _last(model, tokens, edit), expected, word)


def _last(model: Model, tokens: Tokens, edit: Edit) -> Tensor:
    with model.edit(edit):
        return model.logits(tokens)[0, -1]


def _words(beat: str, logits: Tensor, expected: dict[str, float], word: Callable[[str], int]) -> Iterator[Found]:
    p = logits.double().softmax(-1)
    for text, value in expected.items():
        yield beat, text.strip(), value, float(p[word(text)]), PROBABILITY


def _token(model: Model, text: str) -> int:
    ids: Sequence[int] = model.encode(text, bos=False).ids[0].tolist()
    if len(ids) != 1:
        raise UsageError(f"{text!r} is {len(ids)} tokens of {model.name}, not one. Give the tokenizer of Gemma 2.")
    return ids[0]


def _stand_in_word(text: str) -> int:
    return sorted({*NEXT, *(w for _, w, _ in LENS), *STEERED[500.0]}).index(text) + 2


def _stand_in() -> tuple[Model, Dictionary]:
    hf = new_gemma2(
        d_vocab=64, d_model=64, n_layers=LAYERS, n_heads=8, n_kv_heads=4, d_mlp=96, context=64, window=32, bos_id=1,
        eos_id=0, pad_id=0,
    )  # fmt: skip
    sae = new_dictionary(JumpReLU(width=WIDTH, l0=100), 64)
    sae.site = SITE
    return Model(hf.requires_grad_(False), name="a random Gemma 2 of 26 blocks"), sae
