"""Build an index: one sparse pass over text, then every latent's statistics, examples, words and neighbours."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensing.config import write_run
from lensing.data.claims import Claims
from lensing.data.forward import activations
from lensing.data.identity import dictionary_digest, tokenizer_digest, weights_digest
from lensing.data.pieces import Pieces, read_pieces
from lensing.data.text import Text as Source
from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import check_fits
from lensing.dist import join_world
from lensing.errors import DictionaryError, Interrupted, UsageError
from lensing.files import check_writable, sweep, write_json
from lensing.index.chunks import Chunk, Chunks
from lensing.index.collect import Text, collect, together
from lensing.index.index import Index, open_index
from lensing.index.layout import CHUNKS, NAME, PLAN, Facts, read_facts, write_arrays, write_facts
from lensing.index.neighbours import Neighbours, by_direction, by_firing
from lensing.index.neighbours import together as firing_together
from lensing.index.words import extremes, histogram
from lensing.lens.words import direct_words, speaks_in_stream
from lensing.model.run import Model
from lensing.progress import Meter

ENCODED = 1 << 22  # pre-activations made at once
LOGITS = 1 << 21  # held at once


def build_index(
    model: Model,
    dictionary: Dictionary,
    text: str | Path | Source | Iterable[str | Sequence[int]],
    *,
    out: str | Path,
    tokens: int | None = None,
    context: int | None = None,
    batch_tokens: int = 4096,
    chunk_rows: int = 1 << 16,
    top: int = 20,
    quantiles: int = 4,
    each: int = 5,
    before: int = 64,
    after: int = 32,
    neighbours: int = 32,
    words: int = 10,
    seed: int = 0,
    field: str = "text",
    skip_bad: bool = False,
    name: str | None = None,
    quiet: bool = False,
) -> Index:
    """Index what every latent of a dictionary does on a text, into the folder `out`.

    `text` is a file, a folder of files, a dataset, or documents (texts or token ids), called `name`; the first whole
    documents with at least `tokens` tokens are read (None: all), cut into pieces of `context` tokens (None: the model's
    own). BOS does not count. Examples are the `top` strongest distinct contexts and `each` of every one of `quantiles`
    parts of the rest, shown with `before` and `after` tokens; `neighbours` and `words` are how many of each are kept.
    The pass is written in chunks of about `chunk_rows` tokens: run the same command again to continue one that was
    stopped. Under torchrun the processes share the pass, and those that live make what a killed one left.

    Raises: UsageError: another index in the folder, or no token. DictionaryError: a dictionary that does not fit.
    """
    check_fits(dictionary, model)
    if dictionary.parts:
        raise DictionaryError(f"{dictionary} joins several sites and cannot be indexed. Give one of a single site.")
    for what, value, least in (
        ("top", top, 1),
        ("quantiles", quantiles, 1),
        ("each", each, 0),
        ("chunk_rows", chunk_rows, 1),
    ):
        if value < least:
            raise UsageError(f"{what} is {value}. Give {least} or more.")
    source = Source(text, field=field, skip_bad=skip_bad) if isinstance(text, (str, Path)) else text
    pieces = read_pieces(model, source, context=context, rows=tokens)
    name = name or (source.name if isinstance(source, Source) else "documents")
    facts = Facts(
        model={"name": model.name, "weights": weights_digest(model), "tokenizer": tokenizer_digest(model)},
        dictionary={
            "id": dictionary.id, "weights": dictionary_digest(dictionary.weights() | dictionary.extra_tensors()),
            "site": str(dictionary.site), "architecture": dictionary.architecture, "d_sae": dictionary.d_sae,
        },
        text={"name": name, "digest": pieces.digest(), "rows": int(pieces.rows.sum()), "pieces": len(pieces)},
        context=context, chunk_rows=chunk_rows, top=top, quantiles=quantiles, each=each, before=before, after=after,
        neighbours=neighbours, words=words, seed=seed,
    )  # fmt: skip
    out, everyone = Path(out), join_world().everyone
    if everyone.share(lambda: _prepare(out, facts)):
        return open_index(out)
    quiet = quiet or everyone.rank > 0
    work = _Pass(model, dictionary, pieces, out, facts, batch_tokens)
    if everyone.size == 1:
        work.alone(quiet)
        _finish(model, dictionary, pieces, work.chunks, out, facts, quiet)
        shutil.rmtree(out / CHUNKS, ignore_errors=True)
    else:
        work.together(quiet, lambda: _finish(model, dictionary, pieces, work.chunks, out, facts, quiet))
    return open_index(out)


def _prepare(out: Path, facts: Facts) -> bool:
    """Begin the folder, or go on with it; whether the index is finished."""
    check_writable(out)
    if _begun(out, facts):
        return True
    sweep(out)
    write_facts(out, facts, PLAN)
    (out / CHUNKS).mkdir(exist_ok=True)
    sweep(out / CHUNKS)
    return False


def _begun(out: Path, facts: Facts) -> bool:
    """Whether the index is finished; UsageError where the folder holds anything but this one, whole or begun."""
    there = next((name for name in (NAME, PLAN) if (out / name).is_file()), None)
    if there is None:
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out} holds other files and no index. Give a new folder with --out.")
        return False
    old, new = asdict(read_facts(out, there)), json.loads(json.dumps(asdict(facts)))
    changed = [key for key in new if old[key] != new[key]]
    if changed:
        said = "; ".join(f"{key}: {_short(old[key], new[key])}" for key in changed)
        raise UsageError(f"{out} holds another index ({said}). Give another folder with --out, or remove this one.")
    return there == NAME


def _short(old: Any, new: Any) -> str:
    if not isinstance(old, dict):
        return f"{old}, now {new}"
    return ", ".join(f"{key} {old.get(key)}, now {new[key]}" for key in new if old.get(key) != new[key])


class _Pass:
    """The model's reading of the text, kept a chunk at a time; chunks that are there are kept."""

    def __init__(
        self, model: Model, dictionary: Dictionary, pieces: Pieces, out: Path, facts: Facts, batch_tokens: int
    ) -> None:  # fmt: skip
        ends = np.cumsum(pieces.rows)
        number = (ends - pieces.rows) // facts.chunk_rows  # of the chunk that each piece stands in
        self.members = [np.flatnonzero(number == n) for n in np.unique(number)]
        paths = [out / CHUNKS / f"{i:05d}.safetensors" for i in range(len(self.members))]
        self.rows = [int(pieces.rows[m].sum()) for m in self.members]
        self.chunks = Chunks(paths, np.concatenate([[0], np.cumsum(self.rows)]).astype(np.int64))
        self.missing = [i for i, path in enumerate(paths) if not path.exists()]
        self.out, self._made_of = out, (model, dictionary, pieces, batch_tokens)

    def make(self, i: int, meter: Meter) -> None:
        """Read one chunk's text and write what fires."""
        model, dictionary, pieces, batch_tokens = self._made_of
        _chunk(model, dictionary, [pieces[int(m)] for m in self.members[i]], batch_tokens).write(self.chunks.paths[i])
        meter.advance(self.rows[i])

    def alone(self, quiet: bool) -> None:
        """Make all that is missing."""
        with Meter("reading the text", total=sum(self.rows), unit="tokens", quiet=quiet) as meter, _stopped(self.out):
            meter.resume(sum(self.rows) - sum(self.rows[i] for i in self.missing))
            for i in self.missing:
                self.make(i, meter)

    def together(self, quiet: bool, finish: Callable[[], None]) -> None:
        """Make what is missing with other processes; one of those that live at the end finishes.

        Nobody waits for a certain process: what a killed one claimed, another makes.
        """
        end = len(self.rows)  # the number under which finishing is claimed
        meter = Meter("reading the text (this process)", total=None, unit="tokens", quiet=quiet)
        with Claims(self.out / CHUNKS) as claims, meter, _stopped(self.out):
            for number in claims.take(self.missing):
                if number is not None:
                    self.make(number, meter)
                    claims.made(number, {})
            for turn in claims.take([end]):
                if turn is not None:
                    finish()
                    claims.made(end, {})
        if claims.clear():
            shutil.rmtree(self.out / CHUNKS, ignore_errors=True)


@contextlib.contextmanager
def _stopped(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"Stopped; what was read is in {out}. Run the same command to continue.") from error


@torch.no_grad()
def _chunk(model: Model, dictionary: Dictionary, pieces: list[np.ndarray], batch_tokens: int) -> Chunk:
    site, target = str(dictionary.site), dictionary.target or str(dictionary.site)
    found = activations(model, pieces, list(dict.fromkeys([site, target])), batch_tokens=batch_tokens)
    device = dictionary.W_dec.device
    parts: list[Codes] = []
    errors: list[Tensor] = []
    rows = max(ENCODED // dictionary.d_sae, 1)
    for x, y in zip(found[site].split(rows), found[target].split(rows), strict=True):
        x, y = x.to(device), y.to(device)
        codes = dictionary.encode(x)
        errors.append((y - dictionary.decode(codes) - dictionary.skipped(x)).norm(dim=1).cpu())
        parts.append(codes)
    counts = torch.cat([codes.counts().cpu() for codes in parts])
    joined = Codes(
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]), torch.cat([codes.index.cpu() for codes in parts]),
        torch.cat([codes.value.cpu() for codes in parts]), (len(counts), dictionary.d_sae),
    )  # fmt: skip
    norms = found[target].float().norm(dim=1)
    return Chunk.of(joined, torch.cat(errors).float().numpy(), norms.numpy())


def _finish(
    model: Model, dictionary: Dictionary, pieces: Pieces, chunks: Chunks, out: Path, facts: Facts, quiet: bool
) -> None:
    """Write all arrays, and last that the index is whole."""
    keep = [piece if model.bos_id is None else piece[piece != model.bos_id] for piece in pieces]
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in keep])]).astype(np.int64)
    text = Text(np.concatenate(keep).astype(np.int32), starts, model.d_vocab)
    rows, parts = len(text.tokens), []
    with Meter("latents", total=2 * dictionary.d_sae, unit="latents", quiet=quiet) as meter:
        for last, columns in collect(chunks, text, facts):
            parts.append(columns)
            meter.advance(last - meter.done)
        columns = together(parts)
        columns["density"] = (columns["count"] / rows).astype(np.float64)
        near: dict[str, list[Neighbours]] = {}
        sums = columns["count"], columns["total"], columns["square"]
        for part in firing_together(chunks):
            for name, found in by_firing(part, rows, *sums, facts.neighbours).items():
                near.setdefault(name, []).append(found)
            meter.advance(part.last - part.first)
    alive = columns["count"] > 0
    near["decoder"] = [by_direction(dictionary.W_dec, alive, facts.neighbours)]
    near["encoder"] = [by_direction(dictionary.W_enc.T, alive, facts.neighbours)]
    for name, some in near.items():
        columns[f"near_{name}"] = np.concatenate([n.index for n in some])
        columns[f"near_{name}_value"] = np.concatenate([n.value for n in some]).astype(np.float32)
    if speaks_in_stream(model, dictionary.target or str(dictionary.site)):
        columns |= _logits(model, dictionary.W_dec.detach(), facts.words)
    columns |= {
        "tokens": text.tokens, "starts": starts, "document": np.asarray(pieces.parents, dtype=np.int64),
        "row_error": chunks.whole("error"), "row_norm": chunks.whole("norm"),
    }  # fmt: skip
    write_arrays(out, columns)
    write_json(out / "strings.json", model.tok_str(range(model.d_vocab)) if model.tokenizer is not None else None)
    write_run(out, what="index", setting=facts.to_json())
    write_facts(out, facts)


def _logits(model: Model, directions: Tensor, k: int) -> dict[str, np.ndarray]:
    """The words that every latent speaks for and against, and the histogram over all words."""
    found: dict[str, list[np.ndarray]] = {}
    for some in directions.to(model.device).split(max(LOGITS // model.d_vocab, 1)):
        logits = direct_words(model, some).float().cpu().numpy()
        high, low = extremes(logits, k)
        for name, ids in (("promoted", high), ("suppressed", low)):
            found.setdefault(name, []).append(ids)
            found.setdefault(f"{name}_value", []).append(np.take_along_axis(logits, ids, 1))
        counts = [histogram(row) for row in logits]
        found.setdefault("logit_histogram", []).append(np.stack([c for c, _, _ in counts]))
        found.setdefault("logit_histogram_edges", []).append(np.array([[a, b] for _, a, b in counts], dtype=np.float32))
    return {name: np.concatenate(parts) for name, parts in found.items()}
