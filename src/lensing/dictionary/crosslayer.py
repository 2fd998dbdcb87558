"""Cross-layer transcoders: latents that read one layer and write that layer and all after it (Ameisen et al. 2025)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.config import to_mapping
from lensing.data.rows import mix_seed
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.configs import JOIN
from lensing.dictionary.joint import joint_top_patterns
from lensing.dictionary.kernels import Pattern, sparse_mix
from lensing.dictionary.statistics import Sample
from lensing.errors import DictionaryError
from lensing.files import explained, sha256, write_json

FORMAT = "lensing-cross-layer"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CrossStatistics:
    """Numbers over the `n` held-out rows (from `documents` documents) of a corpus named `corpus`.

    `fvu` is of all written vectors end to end, `fvus` of each written site; `l0` the mean number of active latents a
    row over all layers together, `l0s` of each layer; `dead_share` and `dead_shares` likewise.
    """

    corpus: str
    n: int
    documents: int
    fvu: float
    fvus: tuple[float, ...]
    l0: float
    l0s: tuple[float, ...]
    dead_share: float
    dead_shares: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@final
class CrossLayer(nn.Module):
    """Transcoders of L layers that rebuild L sites together: y_j = b_j + sum over i <= j of f_i W_dec[i -> j].

    Layer i reads the vectors of one site, x_i, by an encoder of its own, f_i = act(x_i W_enc_i + b_enc_i), and is an
    ordinary transcoder (`layers[i]`) that writes the sites i to L - 1 end to end; so one of them can be loaded, encoded
    with and looked at alone. The bias of site i is the first part of layer i's b_dec, whose other parts are zero; with
    a skip connection x_i W_skip is added at site i alone. Any architecture but gated will do; numbers in its config
    (width, k, l0) are of each layer; BatchTopK takes the largest latents of all layers together.
    """

    is_transcoder = True

    def __init__(self, layers: Sequence[Dictionary]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        first = layers[0]
        self.config, self.architecture = first.config, first.architecture
        self.parts = tuple(layer.d_in for layer in layers)
        ends = [*(layer.d_out for layer in layers), 0]
        self.out_parts = tuple(a - b for a, b in itertools.pairwise(ends))
        if min(self.out_parts) < 1 or len({layer.d_sae for layer in layers}) != 1:
            raise DictionaryError(
                f"Layers that write {ends[:-1]} numbers with {[layer.d_sae for layer in layers]} latents do not make a "
                "cross-layer transcoder: each must write what the next one writes and a site more. Load a whole one."
            )
        self.site: str | None = None  # what is read, and what is written, joined by +
        self.target: str | None = None
        self.model_name: str | None = None
        self.id: str | None = None
        self.statistics: CrossStatistics | None = None
        self.sample: Sample | None = None
        self.report: Any = None
        self.stored_dtype = torch.float32

    # --- sizes ---

    @property
    def d_in(self) -> int:
        """Numbers read, all layers together."""
        return sum(self.parts)

    @property
    def d_out(self) -> int:
        """Numbers written, all sites together."""
        return sum(self.out_parts)

    @property
    def d_sae(self) -> int:
        """Latents, all layers together."""
        return sum(layer.d_sae for layer in self)

    @property
    def reads(self) -> tuple[str, ...]:
        """The sites that are read, one a layer."""
        return tuple(self.site.split(JOIN)) if self.site else ()

    @property
    def writes(self) -> tuple[str, ...]:
        """The sites that are written."""
        return tuple(self.target.split(JOIN)) if self.target else ()

    @property
    def has_skip(self) -> bool:
        """Whether a linear map goes round the latents of each layer."""
        return self[0].W_skip is not None

    @property
    def whole_batch(self) -> bool:
        """Whether a row's latents in training depend on the other rows."""
        return self[0].whole_batch

    @property
    def quick(self) -> bool:
        """While training, look for the active latents with bfloat16 products."""
        return self[0].quick

    @quick.setter
    def quick(self, on: bool) -> None:
        for layer in self:
            layer.quick = on

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Dictionary:
        layer = self.layers[i]
        assert isinstance(layer, Dictionary)
        return layer

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        name = self.id or f"{self.model_name or '?'}/{self.site or '?'} -> {self.target or '?'}"
        return f"CrossLayer({name}, layers={len(self)}, d_sae={self[0].d_sae} each)"

    # --- what it does ---

    def encode(self, x: Sequence[Float[Tensor, "*leading _"]] | Mapping[str, Tensor]) -> list[Codes]:
        """Sparse activations of every layer, from one tensor a layer, or from what holds them by the sites' names."""
        return [layer.encode(part) for layer, part in zip(self, self._inputs(x), strict=True)]

    def decode(self, codes: Sequence[Codes]) -> list[Float[Tensor, "*leading _"]]:
        """What the latents and the biases write at every site; a skip connection is left out."""
        if len(codes) != len(self):
            raise DictionaryError(f"Codes of {len(codes)} layers do not fit {len(self)}. Decode what encode gave.")
        values = [c.value.to(layer.W_dec.dtype) for c, layer in zip(codes, self, strict=True)]
        mixed = self.mix(values, [c.pattern for c in codes])
        found = [part[0] + bias for part, bias in zip(mixed, self.biases(), strict=True)]
        return [part.view(*codes[0].leading, -1) for part in found]

    def reconstruct(self, x: Sequence[Float[Tensor, "*leading _"]] | Mapping[str, Tensor]) -> list[Tensor]:
        """decode(encode(x)), and x_i W_skip at site i where there is a skip connection."""
        x = self._inputs(x)
        return [a + b for a, b in zip(self.decode(self.encode(x)), self.skipped(x), strict=True)]

    forward = reconstruct

    def decoder(self, i: int, j: int) -> Float[Tensor, "d_sae d_out"]:
        """What the latents of layer `i` write at site number `j`; zero before it. Rows end to end have length 1."""
        if j < i:
            return self[i].W_dec.new_zeros(self[i].d_sae, self.out_parts[j])
        return self[i].W_dec.split(self.out_parts[i:], dim=1)[j - i]

    def mix(
        self, values: Sequence[Tensor], patterns: Sequence[Pattern], prefixes: tuple[int, ...] = ()
    ) -> list[Float[Tensor, "prefixes1 rows _"]]:
        """What active latents write at every site, first those of each layer below a prefix, then all."""
        sums: list[Any] = [0] * len(self)
        for i, (layer, value, pattern) in enumerate(zip(self, values, patterns, strict=True)):
            rows = pattern.rows
            if prefixes:
                pattern, order = pattern.stacked(prefixes)
                value = value[order]
            written = sparse_mix(value, layer.W_dec, pattern).view(len(prefixes) + 1, rows, -1)
            for j, part in enumerate(written.split(self.out_parts[i:], dim=2), start=i):
                sums[j] = sums[j] + part
        return [part.cumsum(0) if prefixes else part for part in sums]

    def biases(self) -> list[Float[Tensor, " _"]]:
        """The bias of every site."""
        return [layer.b_dec[:width] for layer, width in zip(self, self.out_parts, strict=True)]

    def skipped(self, x: Sequence[Tensor]) -> list[Tensor | float]:
        """What goes round the latents of each layer to its own site, 0 without a skip connection."""
        return [
            part.to(layer.W_dec.dtype) @ layer.W_skip[:, :width] if layer.W_skip is not None else 0.0
            for layer, part, width in zip(self, x, self.out_parts, strict=True)
        ]

    def _inputs(self, x: Sequence[Tensor] | Mapping[str, Tensor]) -> list[Tensor]:
        if isinstance(x, Mapping):
            return [x[site] for site in self.reads]
        if len(x) != len(self):
            raise DictionaryError(f"{self} reads {len(self)} sites, not {len(x)}. Give one tensor for each layer.")
        return list(x)

    # --- what training asks for ---

    def active_in_training(self, x: Sequence[Float[Tensor, "rows _"]]) -> list[Pattern]:
        """Which latents of each layer take part in a training batch."""
        if not self.whole_batch:
            return [layer.active_in_training(part) for layer, part in zip(self, x, strict=True)]
        first: Any = self[0]
        patterns, least = joint_top_patterns(
            x, [layer.encoder for layer in self], [layer.b_enc for layer in self], first.k, first.guess,
            quick=self.quick,
        )  # fmt: skip
        for layer in self:
            layer.settle(least)
        return patterns

    def begin_step(self, progress: float) -> None:
        """Tell every layer how far the training is."""
        for layer in self:
            layer.begin_step(progress)

    def end_step(self) -> None:
        """Let every layer bring its parameters back to where they may be."""
        for layer in self:
            layer.end_step()

    @torch.no_grad()
    def begin_(self, x: Float[Tensor, "rows d_in"], mean: Float[Tensor, " d_out"]) -> None:
        """Before training: biases are the written vectors' `mean`, latents begin centred on the rows `x` (scaled)."""
        starts = mean.split(self.out_parts)
        for layer, part, bias, width in zip(self, x.split(self.parts, dim=1), starts, self.out_parts, strict=True):
            layer.b_dec[:width].copy_(bias)
            layer.b_enc.copy_(-part.mean(0) @ layer.encoder.t())

    @torch.no_grad()
    def fold_(self, scale_in: Float[Tensor, " d_in"], scale_out: Float[Tensor, " d_out"]) -> None:
        """Fold input and output scalings in, as `Dictionary.fold_` does: decoder rows, end to end, have length 1."""
        first = 0
        for layer, scale, width in zip(self, scale_in.split(self.parts), self.out_parts, strict=True):
            layer.fold_(scale, scale_out[first:])
            first += width

    def weights(self) -> dict[str, Tensor]:
        """The tensors that are rounded to the stored type."""
        return {f"{i}.{name}": tensor for i, layer in enumerate(self) for name, tensor in layer.weights().items()}

    # --- files ---

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write `layer_0`, `layer_1`, ... (each a transcoder's folder) and config.json, config.json last."""
        folder = Path(folder)
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").unlink(missing_ok=True)
        hashes = {}
        for i, layer in enumerate(self):
            layer.site, layer.target = (self.reads[i], JOIN.join(self.writes[i:])) if self.site else (None, None)
            layer.model_name, layer.sample, layer.stored_dtype = self.model_name, self.sample, self.stored_dtype
            layer.id = f"{self.id}/layer_{i}" if self.id else None
            written = layer.save(folder / f"layer_{i}", dtype=dtype)
            for path in sorted(written.iterdir()):
                if path.name == "config.json" or path.suffix == ".safetensors":
                    hashes[f"layer_{i}/{path.name}"] = sha256(path)
        record = {
            "format": FORMAT, "version": FORMAT_VERSION, "architecture": self.architecture,
            "config": to_mapping(self.config), "layers": len(self), "d_in": list(self.parts),
            "d_out": list(self.out_parts), "d_sae": self.d_sae, "reads": list(self.reads), "writes": list(self.writes),
            "skip": self.has_skip, "model": self.model_name, "id": self.id,
            "dtype": str(dtype or self.stored_dtype).removeprefix("torch."),
            "statistics": self.statistics.to_json() if self.statistics else None,
            "training": self.report.summary() if self.report is not None else None, "sha256": hashes,
        }  # fmt: skip
        write_json(folder / "config.json", record)
        return folder


def new_cross_layer(
    config: Any, reads: Sequence[int], writes: Sequence[int], *, skip: bool = False, seed: int = 0
) -> CrossLayer:
    """An untrained cross-layer transcoder of sites of these widths: random unit encoders, decoders of zero.

    Raises: DictionaryError: another number of sites is read than written, or an architecture that cannot be one.
    """
    if len(reads) != len(writes) or not reads:
        raise DictionaryError(
            f"A cross-layer transcoder of {len(reads)} sites read and {len(writes)} written cannot be. "
            "Give as many of the one as of the other, in the order of the layers."
        )
    refuse_gated(config)
    layers = [
        new_dictionary(config, d_in, d_out=sum(writes[i:]), skip=skip, seed=mix_seed(seed, i))
        for i, d_in in enumerate(reads)
    ]
    return CrossLayer(layers)


def refuse_gated(config: Any) -> None:
    """Raise DictionaryError for gated latents, whose gates would have to rebuild alone at every layer."""
    if config.architecture == "gated":
        raise DictionaryError("Gated latents cannot be cross-layer. Use jumprelu, topk, batchtopk, matryoshka or relu.")
