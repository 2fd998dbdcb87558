"""The walk as one result: one sentence through a model in nine beats, from tokens to what stays dark."""

from __future__ import annotations

import copy
import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensing.causal.ablate import Effect, Effects, effects
from lensing.causal.dose import DoseResponse, dose_response
from lensing.causal.steer import unit_of
from lensing.data.forward import activations
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits, load_dictionary, refuse_unknown_latent
from lensing.draw.walkhtml import walk_html
from lensing.errors import DictionaryError, UsageError
from lensing.lens.lens import LensGrid, logit_lens
from lensing.lens.words import direct_words, speaks_in_stream
from lensing.measure.contexts import Context, latent_columns, read_columns, strongest
from lensing.measure.gauges import gauges
from lensing.measure.neuron import Neuron, choose_neuron
from lensing.measure.reading import Reading, reading
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens
from lensing.registry import shipped_dictionaries
from lensing.training.finish import measure_statistics
from lensing.world.shipped import Aids, shipped_labels, ships, steering_aids

SCHEMA = 1
TEXT_TOKENS = 24_000  # of the text that contexts are looked for in
BATCH_TOKENS = 4096  # of the passes that statistics are measured in, where a dictionary brings none
SHOWN, CONTEXTS, WORDS = 6, 8, 10  # latents by each order, contexts of each, words of each sign
STEERED_TOKENS = 32  # of the continuations that the coherence cost is defined on
UNRELATED, UNRELATED_TOKENS = 8, 64  # texts that the side effect is measured on, and tokens of each
DEFAULT = "resid_post.5/w1024"
FULL_CUT = ("embed", "resid_pre", "resid_mid", "resid_post")


@dataclass(frozen=True)
class Token:
    """A token of the prompt; `special` is True for BOS, which no number counts."""

    id: int
    text: str
    special: bool


@dataclass(frozen=True)
class Latent:
    """One latent: its label (`f1` on text not used to choose it), activation and effect at the last token, and words.

    `effect` is the change of log p of the likeliest next word in nats when the latent is taken out (None: not active).
    """

    id: int
    label: str | None
    f1: float | None
    value: float
    max: float
    density: float
    effect: float | None
    examples: tuple[Context, ...]
    positive_logits: tuple[tuple[str, float], ...]
    negative_logits: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Shift:
    """A next word's probability before and after."""

    id: int
    word: str
    before: float
    after: float


@dataclass(frozen=True)
class Spliced:
    """The model on the dictionary's output: likeliest words of both runs, KL at the last token and its mean, losses.

    `loss` is the mean nats a token of the text itself, NaN for a text of one word.
    """

    words: tuple[Shift, ...]
    kl: float
    kl_mean: float
    loss: float
    loss_spliced: float


@dataclass(frozen=True)
class Entry:
    """One token of the ledger: share of its vector not reconstructed, and KL of the splice; None for BOS."""

    token: str
    not_reconstructed: float | None
    kl: float | None


@dataclass(frozen=True)
class Beyond:
    """Beats 4 to 9, which need a dictionary; `text` names what contexts come from, `follow` why this latent."""

    dictionary: str
    site: str
    text: str
    text_tokens: int
    labelled: bool
    latent: int
    follow: dict[str, Any]
    neuron: Neuron | None
    effects: Effects
    latents: tuple[Latent, ...]
    splice: Spliced
    steering: DoseResponse
    ledger: tuple[Entry, ...]
    not_reconstructed: float
    corpus: float
    corpus_name: str
    says: str

    @property
    def followed(self) -> Latent:
        """The latent that beats 6 and 8 follow."""
        return next(x for x in self.latents if x.id == self.latent)


@dataclass(frozen=True, eq=False)
class Walk:
    """One sentence through one model; `vectors` has a row a token; `beyond` is None without a dictionary."""

    model: str
    prompt: str
    tokens: tuple[Token, ...]
    vectors: dict[str, Tensor]
    lens: LensGrid
    text: str
    continuation: str
    beyond: Beyond | None
    missing: str | None
    seed: int

    @property
    def lead_layer(self) -> int:
        """The layer from which the final word leads, at the last token; -1 is what enters the first block."""
        return self.lens.lead_layer()

    def _repr_html_(self) -> str:
        # a frame, so that neither its styles nor its names meet those of the notebook
        return f'<iframe srcdoc="{html.escape(walk_html(self))}" width="100%" height="800" title="the walk"></iframe>'

    def to_json(self) -> dict[str, Any]:
        """Plain values; without a dictionary the keys of beats 4 to 9 hold None or nothing."""
        b = self.beyond
        lens = [[{"word": w, "p": p} for w, p in self.lens.top(layer)] for layer in self.lens.layers]
        return {
            "schema": SCHEMA, "model": self.model, "dictionary": b and b.dictionary, "prompt": self.prompt,
            "tokens": [asdict(t) for t in self.tokens],
            "vectors": {s: [[round(v, 4) for v in row] for row in rows.tolist()] for s, rows in self.vectors.items()},
            "lens": lens, "lens_layers": self.lens.layers, "lead_layer": self.lead_layer,
            "continuation": self.continuation, "missing": self.missing, "seed": self.seed,
            "unit": b and b.neuron and {"kind": "neuron", **asdict(b.neuron)},
            "latents": [asdict(x) for x in b.latents] if b else [],
            "splice": b and asdict(b.splice),
            "steering": [asdict(d) for d in b.steering.doses] if b else [],
            "ledger": [asdict(e) | {"corpus": b.corpus} for e in b.ledger] if b else [],
            "site": b and b.site, "latent": b and b.latent, "follow": b and b.follow,
            "text": b and {"name": b.text, "tokens": b.text_tokens, "labelled": b.labelled},
            "effects": b and b.effects.to_json(),
            "beside": [asdict(d) for d in b.steering.directions[1:]] if b else [],
            "steering_settings": b and {k: v for k, v in asdict(b.steering).items() if k != "directions"},
            "not_reconstructed": b and {"prompt": b.not_reconstructed, "corpus": b.corpus, "name": b.corpus_name},
            "says": b and b.says,
        }  # fmt: skip


def walk(
    prompt: Prompt,
    *,
    model: str | Model = "almanac",
    dictionary: str | Dictionary | None = None,
    latent: int | None = None,
    strengths: Sequence[float] | None = None,
    new_tokens: int = 32,
    seed: int = 0,
    text: Sequence[str] | None = None,
) -> Walk:
    """Walk one sentence through a model; beats 4 to 9 need a dictionary, and a shipped model comes with one.

    `latent` is the one to follow: if not given, the one that ships as found, else the one whose removal changes the
    next word most. `strengths` of steering are those of `dose_response` if not given. `text` is where contexts are
    looked for, if not the shipped text or the dictionary's own sample; a dictionary that brings no statistics (other
    tools' do not) is measured on it first. A continuation ends where the context does.

    Raises: PromptError, UnknownNameError, ModelError, DictionaryError: what cannot be read, does not exist, or does not
    fit. UsageError: a latent without a dictionary, or one that was silent on the dictionary's corpus.
    """
    model = load_model(model) if isinstance(model, str) else model
    tokens = model.encode(prompt)
    if len(tokens.ids) != 1:
        raise UsageError(f"{len(tokens.ids)} prompts cannot be walked at once. Give one sentence.")
    if bool(tokens.special.all()):
        raise UsageError("The prompt holds no word. Give at least one.")
    found = _dictionary(model, dictionary)
    read = None
    if found is not None and latent is not None:
        refuse_unknown_latent(found, latent)
    if found is not None:
        if found.statistics is None and not text:
            raise DictionaryError(
                f"{found} brings no statistics (mean, maxima). Give a text to measure them on: --text FILE."
            )
        read = reading(model, found, text, tokens=TEXT_TOKENS)
        found = found if found.statistics is not None else _measured(model, found, read)
        if latent is not None:
            unit_of(found, latent)
    elif latent is not None:
        raise UsageError(f"Latent {latent} belongs to no dictionary here. Give --dictionary with it.")
    room = new_tokens if model.context is None else min(new_tokens, model.context - tokens.ids.shape[1] + 1)
    _, cache = model.run_with_cache(tokens, sites=["embed", "resid_post.*"])
    made = model.generate(tokens, max_new_tokens=room).text[0]
    missing = None
    if found is None:
        source = getattr(model.hf.config, "_name_or_path", "") or model.name
        missing = (
            f"Beats 4 to 9 need a dictionary: train one with `lensing train topk --model {source} "
            f"--site resid_post.{model.n_layers // 2} --sample 200000 --width {8 * model.d_model} --k 16 --out runs/a` "
            "and give it with --dictionary runs/a."
        )
    return Walk(
        model=model.name, prompt=prompt if isinstance(prompt, str) else model.decode(tokens.ids[0]),
        tokens=tuple(
            Token(i, s, special)
            for i, s, special in zip(tokens.ids[0].tolist(), tokens.strings[0], tokens.special[0].tolist(), strict=True)
        ),
        vectors={site: cache[site][0].float().cpu() for site in cache.sites},
        lens=logit_lens(model, cache, top=min(WORDS, model.d_vocab)), text=model.decode(tokens.ids[0]) + made,
        continuation=made, missing=missing, seed=seed,
        beyond=None if found is None or read is None else _beyond(
            model, found, tokens, latent, strengths, min(room, STEERED_TOKENS), seed, read
        ),
    )  # fmt: skip


def _dictionary(model: Model, given: str | Dictionary | None) -> Dictionary | None:
    """Return the dictionary that was asked for, or the one that ships and knows which latent to follow."""
    if given is None:
        ids = [i for i in shipped_dictionaries() if i.startswith(f"{model.name}/")]
        if not ids or not ships(model):
            return None
        ids.sort(key=lambda i: i != f"{model.name}/{DEFAULT}")
        ready = (d for d in map(load_dictionary, ids) if (shipped_labels(d) or {}).get("follow"))
        given = next(ready, None) or load_dictionary(ids[0])
    found = given if isinstance(given, Dictionary) else load_dictionary(given, model=model)
    check_fits(found, model)
    return found


def _measured(model: Model, sae: Dictionary, read: Reading) -> Dictionary:
    """The dictionary with statistics over the text that is read; the one given stays as it is."""
    site, text = str(sae.site), read.text
    pieces = [np.asarray(text.document(i)) for i in range(text.documents)]
    rows = activations(model, pieces, [site], batch_tokens=BATCH_TOKENS)[site]
    found = copy.copy(sae)
    found.statistics = measure_statistics(
        sae, rows.to(sae.W_dec.device).split(BATCH_TOKENS), corpus=text.name, documents=text.documents
    )
    return found


def _beyond(
    model: Model, sae: Dictionary, tokens: Tokens, latent: int | None, strengths: Sequence[float] | None,
    new_tokens: int, seed: int, read: Reading,
) -> Beyond:  # fmt: skip
    statistics, site = sae.statistics, str(sae.site)
    assert statistics is not None
    known = shipped_labels(sae) or {}
    parts = effects(model, sae, tokens.ids[0])
    latent, why = follow(sae, parts, known, latent)
    shown = dict.fromkeys(e.latent for order in (parts.by_activation(), _of_latents(parts)) for e in order[:SHOWN])
    numbers = [latent, *(i for i in shown if i is not None and i != latent)]
    neuron = choose_neuron(model, site, tokens, seed)
    reads = [(site, latent_columns(sae, numbers))] + ([neuron.read] if neuron else [])
    columns = read_columns(model, read.text, reads)
    words = direct_words(model, sae.W_dec[numbers]) if speaks_in_stream(model, site) else None
    values = {e.latent: e for e in parts.latents}
    latents = tuple(
        _latent(
            model, i, known, values.get(i), statistics.max_activation[i], statistics.density[i],
            strongest(model, read.text, columns[0][:, n], CONTEXTS), None if words is None else words[n],
        )
        for n, i in enumerate(numbers)
    )  # fmt: skip
    unit = neuron.shown(model, read, columns[1], columns[0][:, 0]) if neuron else None
    g = gauges(model, sae, tokens)
    unrelated = [read.text.document(i)[:UNRELATED_TOKENS] for i in range(min(read.text.documents, UNRELATED))]
    contrast = why.pop("difference_of_means", None)
    aids = steering_aids(model, sae)
    return Beyond(
        dictionary=sae.id or str(sae), site=site, text=read.text.name, text_tokens=int(read.text.counted.sum()),
        labelled=read.labelled, latent=latent, follow=why, neuron=unit, effects=parts, latents=latents,
        splice=Spliced(
            _shifts(model, g.clean, g.spliced), float(g.kl[-1]), float(g.kl[g.counted].mean()),
            g.loss, g.loss_spliced,
        ),
        steering=dose_response(
            model, sae, latent, tokens.ids[0], strengths=strengths, new_tokens=new_tokens, seed=seed,
            watch=_watch(aids, g.clean),
            contrast=None if contrast is None else torch.tensor(contrast), unrelated=unrelated,
            impossible=aids.impossible if aids else None,
        ),
        ledger=tuple(
            Entry(t, float(v) if c else None, float(k) if c else None)
            for t, v, k, c in zip(tokens.strings[0], g.vector, g.kl, g.counted, strict=True)
        ),
        not_reconstructed=g.vector_all, corpus=statistics.fvu, corpus_name=statistics.corpus,
        says=_says(model, site, g.vector_all, statistics.fvu, float(g.kl[g.counted].mean()), read.labelled),
    )  # fmt: skip


def follow(sae: Dictionary, parts: Effects, known: dict[str, Any], latent: int | None) -> tuple[int, dict[str, Any]]:
    """Return the latent to follow and why: as asked, as shipped, or by effect among those whose maximum is known."""
    record = known.get("follow") or {}
    for concept, facts in record.items():
        if latent is None or latent == facts["latent"]:
            return facts["latent"], {"why": "found by contrast", "concept": concept, **facts}
    if latent is not None:
        return latent, {"why": "as asked"}
    assert sae.statistics is not None
    heard = sae.statistics.max_activation > 0
    usable = [e.latent for e in _of_latents(parts) if e.latent is not None and heard[e.latent]]
    if not usable:
        raise UsageError("No latent is active at the last token that the dictionary's corpus knows. Give --latent.")
    return usable[0], {"why": "largest effect on the next word"}


def _of_latents(parts: Effects) -> list[Effect]:
    return [e for e in parts.by_effect() if e.kind == "latent"]


def _latent(
    model: Model, i: int, known: dict[str, Any], effect: Effect | None, largest: Tensor, density: Tensor,
    examples: tuple[Context, ...], words: Tensor | None,
) -> Latent:  # fmt: skip
    label = known.get("latents", {}).get(str(i), {})
    signed: list[tuple[tuple[str, float], ...]] = [(), ()]
    if words is not None:
        for n, side in enumerate((words.topk(min(WORDS, len(words))), (-words).topk(min(WORDS, len(words))))):
            texts = model.tok_str(side.indices)
            signed[n] = tuple(zip(texts, words[side.indices].tolist(), strict=True))
    return Latent(
        id=i, label=label.get("concept"), f1=label.get("f1"), value=(effect.activation or 0.0) if effect else 0.0,
        max=float(largest), density=float(density), effect=effect.effect if effect else None, examples=examples,
        positive_logits=signed[0], negative_logits=signed[1],
    )  # fmt: skip


def _shifts(model: Model, clean: Tensor, spliced: Tensor) -> tuple[Shift, ...]:
    """The likeliest words of both runs, those of the first in front."""
    before, after = (logits.double().softmax(-1) for logits in (clean, spliced))
    ids = list(dict.fromkeys(i for p in (before, after) for i in p.topk(min(SHOWN, len(p))).indices.tolist()))
    rows = zip(ids, model.tok_str(ids), before[ids].tolist(), after[ids].tolist(), strict=True)
    return tuple(Shift(*row) for row in rows)


def _watch(aids: Aids | None, clean: Tensor) -> dict[str, list[int]]:
    """Words of doubt and trust on the invented world; elsewhere the likeliest next words before steering."""
    if aids is not None:
        return aids.watch
    n = min(5, len(clean))
    return {f"likeliest {n}": clean.topk(n).indices.tolist()}


def _says(model: Model, site: str, missed: float, corpus: float, kl: float, labelled: bool) -> str:
    """The plain sentence of the ledger."""
    said = (
        f"On this sentence the dictionary misses {missed:.0%} of the variance at {site} ({corpus:.0%} on its corpus), "
        f"and running on its output moves the next word by {kl:.2f} nats a token. "
    )
    if model.resolve(site).kind not in FULL_CUT:
        said += f"The splice speaks only of what {site} itself adds: the stream carries the rest past it. "
    said += "This does not say which concepts it misses, nor that those it has are the ones the model uses"
    return said + (": labels are true of the text, not of the model's features." if labelled else ".")
