"""One dictionary on one text or one source of rows: every number of it, with the mask and the splice policy beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lensing.data.forward import activations
from lensing.data.pieces import read_pieces
from lensing.data.rows import Rows, TensorRows
from lensing.dictionary.base import Dictionary
from lensing.dictionary.configs import JOIN
from lensing.dictionary.load import check_fits
from lensing.errors import DictionaryError, UsageError
from lensing.measure.l0 import DENSITY_EDGES, Firing
from lensing.measure.peers import PeerMetrics, splice_metrics
from lensing.measure.reconstruction import Reconstruction
from lensing.measure.splice_cost import SpliceCost, splice_cost
from lensing.model.run import Model

PIECES = 256  # pieces of documents whose rows are held at once


@dataclass(frozen=True)
class Mask:
    """Which rows the sums run over: all but `left_out`, positions of the token ids `special` and of padding.

    `special` is empty where nothing was left out, and where rows came without tokens: `source` then says what they are.
    """

    source: str
    special: tuple[int, ...]
    rows: int
    left_out: int


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one dictionary (docs/definitions.md), over the rows that `mask` describes.

    `density_histogram` counts silent latents, then latents by the decades of `density_edges`. `splice` is None where
    there is no model, or no single site to splice (`not_spliced` says why). `peers` holds the numbers of other tools by
    name where they were asked for.
    """

    dictionary: str
    site: str | None
    target: str | None
    d_sae: int
    mask: Mask
    fvu: float
    uncentred_fvu: float
    mse: float
    cosine: float
    norm_ratio: float
    bias: float
    l0: float
    l1: float
    dead_share: float
    density_histogram: tuple[int, ...]
    splice: SpliceCost | None
    not_spliced: str | None = None
    density_edges: tuple[float, ...] = DENSITY_EDGES
    peers: dict[str, float] = field(default_factory=dict)

    @property
    def explained_variance(self) -> float:
        """1 - FVU."""
        return 1 - self.fvu

    @property
    def alive(self) -> int:
        """Latents that at least one row activates; it grows with the rows, whose number stands in the mask."""
        return self.d_sae - self.density_histogram[0]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        record = asdict(self) | {"explained_variance": self.explained_variance, "alive": self.alive}
        return record | {"splice": self.splice.to_json() if self.splice is not None else None}


@torch.no_grad()
def evaluate(
    dictionary: Dictionary,
    source: Rows | Tensor | Sequence[str | Sequence[int]],
    *,
    model: Model | None = None,
    include_special: bool = False,
    context: int | None = None,
    max_rows: int | None = None,
    peers: bool = False,
    batch_tokens: int = 4096,
) -> Evaluation:
    """Measure a dictionary: FVU, MSE, cosine, L0, L1, densities, dead share; with a model also losses and KL.

    `source` is documents (texts, or token ids) for a `model` to read, or held-out rows: a store, `ln.live(...)`, or a
    tensor [rows, d_in]. Sums are float64 over all rows. Special positions are left out of them, unless
    `include_special`, and are neither spliced nor ablated. With `peers` the numbers of other tools are added, the rows
    cut into batches of about 256 pieces of documents. `max_rows` stops after whole documents.

    Raises: UsageError: documents without a model, or no row. DictionaryError: a dictionary that does not fit.
    """
    documents = None if isinstance(source, Rows | Tensor) else source
    if (documents is None) != (model is None):
        given = "documents without a model" if model is None else "a model with rows instead of documents"
        raise UsageError(f"The source is {given}. Give documents with model=, or a store or a tensor without it.")
    numbers, firing, other = Reconstruction(), Firing(dictionary.d_sae), PeerMetrics()
    if model is not None and documents is not None:
        reader = _Reader(model, dictionary, documents, include_special, context, max_rows, batch_tokens)
        parts: Iterator[tuple[Tensor, Tensor]] = reader.rows()
    else:
        assert isinstance(source, Rows | Tensor)
        reader, parts = None, _held_out(dictionary, source, max_rows)
    for x, y in parts:
        if not len(x):
            continue
        codes = dictionary.encode(x)
        y_hat = dictionary.decode(codes) + dictionary.skipped(x)
        numbers.add(y, y_hat)
        firing.add(codes)
        if peers:
            other.add(y, y_hat, codes)
    if not numbers.rows:
        raise UsageError("There is no row to measure. Give text of at least one word, or rows that are held out.")
    if reader is None:
        assert isinstance(source, Rows | Tensor)
        corpus = source.corpus if isinstance(source, Rows) else TensorRows(source, held_out=0).corpus
        mask, cost, why = Mask(corpus, (), numbers.rows, 0), None, "there is no model"
    else:
        mask = reader.mask(numbers.rows)
        cost, why = reader.splice()
    foreign = other.to_json() if peers else {}
    if peers and reader is not None and cost is not None:
        foreign |= splice_metrics(reader.model, dictionary, reader.pieces)
    return Evaluation(
        dictionary=dictionary.id or str(dictionary), site=dictionary.site, target=dictionary.target,
        d_sae=dictionary.d_sae, mask=mask, fvu=numbers.fvu, uncentred_fvu=numbers.uncentred_fvu, mse=numbers.mse,
        cosine=numbers.cosine, norm_ratio=numbers.norm_ratio, bias=numbers.bias, l0=firing.l0, l1=firing.l1,
        dead_share=firing.dead_share, density_histogram=tuple(firing.histogram()), splice=cost, not_spliced=why,
        peers=foreign,
    )  # fmt: skip


class _Reader:
    """A model that reads documents for a dictionary."""

    def __init__(
        self, model: Model, dictionary: Dictionary, documents: Sequence[str | Sequence[int]], include_special: bool,
        context: int | None, max_rows: int | None, batch_tokens: int,
    ) -> None:  # fmt: skip
        if dictionary.site is None:
            raise DictionaryError(f"{dictionary} names no site. Set dictionary.site to the one that it reads.")
        self.model, self.dictionary, self.include_special = model, dictionary, include_special
        self.sites = list(dict.fromkeys([*dictionary.site.split(JOIN), *(dictionary.target or "").split(JOIN)]))
        self.sites = [site for site in self.sites if site]
        check_fits(dictionary, model)
        found = read_pieces(model, documents, context=context, keep_special=include_special)
        cut = len(found)
        if max_rows is not None:  # up to the end of the document in which the last row wanted stands
            last = found.parents[min(int((found.rows.cumsum() < max_rows).sum()), cut - 1)]
            cut = int((found.parents <= last).sum())
        self.pieces = [found[i].tolist() for i in range(cut)]
        self._arrays = [found[i] for i in range(cut)]
        self.batch_tokens = batch_tokens

    def rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is read and what is to be written, some pieces at a time."""
        for start in range(0, len(self._arrays), PIECES):
            found = activations(
                self.model, self._arrays[start : start + PIECES], self.sites, batch_tokens=self.batch_tokens,
                keep_special=self.include_special,
            )  # fmt: skip
            x = torch.cat([found[site] for site in str(self.dictionary.site).split(JOIN)], 1)
            target = self.dictionary.target
            yield x, x if target is None else torch.cat([found[site] for site in target.split(JOIN)], 1)

    def mask(self, rows: int) -> Mask:
        """What was left out."""
        tokens = sum(len(piece) for piece in self.pieces)
        bos = self.model.bos_id
        special = () if bos is None or self.include_special else (bos,)
        return Mask(f"{len(self.pieces)} pieces of text", special, rows, tokens - rows)

    def splice(self) -> tuple[SpliceCost | None, str | None]:
        """What the model loses, or why that cannot be said."""
        if self.dictionary.is_transcoder or len(self.sites) > 1:
            return None, "it does not write the one site that it reads"
        if max(len(piece) for piece in self.pieces) < 2:
            return None, "no text holds a word to predict"
        statistics = self.dictionary.statistics
        mean = statistics.mean if statistics is not None else self._mean()
        cost = splice_cost(self.model, self.dictionary, self.pieces, mean=mean, batch_tokens=self.batch_tokens)
        return cost, None

    def _mean(self) -> Tensor:
        # a dictionary of another tool brings no mu: that of these rows takes its place
        meter = Reconstruction()
        for x, _ in self.rows():
            meter.add(x, x)
        return meter.meter.mean.float()


def _held_out(dictionary: Dictionary, source: Rows | Tensor, max_rows: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(source, Tensor):
        if dictionary.target is not None:
            raise UsageError(f"{dictionary} writes {dictionary.target}, which one tensor does not give. Give a store.")
        for part in source[:max_rows].split(4096):
            yield part, part
        return
    site, names = dictionary.site or source.sites[0], source.sites
    if site not in names and len(names) == 1 and JOIN not in site and dictionary.target is None:
        site = names[0]  # rows of a tensor are called "rows"
    for part in source.held_out(max_rows if max_rows is not None else source.rows):
        for name in (*site.split(JOIN), *(dictionary.target or site).split(JOIN)):
            if name not in part:
                raise UsageError(f"The rows have no site {name} but {', '.join(names)}. Give a store that has it.")
        x = torch.cat([part[name] for name in site.split(JOIN)], 1)
        target = dictionary.target
        yield x, x if target is None else torch.cat([part[name] for name in target.split(JOIN)], 1)
