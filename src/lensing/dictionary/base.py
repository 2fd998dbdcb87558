"""The one open base class: what every dictionary can do, however it chooses its active latents."""

from __future__ import annotations

import abc
import importlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.config import to_mapping
from lensing.dictionary.codes import Codes
from lensing.dictionary.configs import ARCHITECTURES
from lensing.dictionary.kernels import Pattern, sparse_dot, sparse_mix
from lensing.dictionary.rounding import pack
from lensing.dictionary.statistics import Sample, Statistics
from lensing.dictionary.tensors import write_tensors
from lensing.dist import ALONE, World
from lensing.errors import DictionaryError
from lensing.files import explained, sha256, write_json
from lensing.memory import refuse_too_large
from lensing.registry import Registry

FORMAT = "lensing-dictionary"
FORMAT_VERSION = 1

CLASSES: Registry[Any] = Registry("architecture")


class Dictionary(nn.Module, abc.ABC):
    """Vectors [.., d_in] as sparse sums of d_sae directions: codes = encode(x), y_hat = decode(codes).

    pre = (x - b_dec) W_enc + b_enc; f = max(pre, 0) at the active latents; x_hat = f W_dec + b_dec. With `d_out` it is
    a transcoder: it writes other vectors than it reads, x is not centred, and with `skip` x W_skip is added. With
    several `parts` it is a crosscoder: x are the vectors of several sites end to end, of these widths.

    A new architecture states which latents are active (`active`); it may say what an active latent's pre-activation
    becomes (`activate`), and both otherwise while training.
    """

    architecture: ClassVar[str]
    centres: ClassVar[bool] = True  # whether an autoencoder subtracts b_dec before it encodes
    whole_batch: ClassVar[bool] = False  # whether a row's latents in training depend on the other rows
    splits: ClassVar[bool] = False  # whether its choice is right where each process holds some of the latents only

    def __init__(
        self, config: Any, d_in: int, *, d_out: int | None = None, skip: bool = False, parts: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.site: str | None = None
        self.target: str | None = None  # the site that a transcoder writes
        self.parts = tuple(parts)
        self.is_transcoder = d_out is not None
        self.centred = self.centres and not self.is_transcoder
        self.model_name: str | None = None
        self.id: str | None = None
        self.statistics: Statistics | None = None
        self.sample: Sample | None = None
        self.report: Any = None  # set by training: lensing.training.report.TrainReport
        self.stored_dtype = torch.float32
        self.quick = False  # while training, look for the active latents with bfloat16 products
        self.world: World = ALONE  # while training: who holds the other latents, and reads the other rows
        directions = torch.randn(config.width, d_in, generator=torch.Generator().manual_seed(seed))
        directions /= directions.norm(dim=1, keepdim=True)
        # latents are rows here too: sparse gradients touch whole rows
        self.encoder = nn.Parameter(directions.clone())
        self.W_dec = nn.Parameter(directions if d_out is None else torch.zeros(config.width, d_out))
        self.b_enc = nn.Parameter(torch.zeros(config.width))
        self.b_dec = nn.Parameter(torch.zeros(self.W_dec.shape[1]))
        self.W_skip = nn.Parameter(torch.zeros(d_in, self.W_dec.shape[1])) if skip else None

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """Encoder directions, one column a latent."""
        return self.encoder.t()

    @property
    def d_in(self) -> int:
        """Length of the vectors that are encoded."""
        return self.encoder.shape[1]

    @property
    def d_out(self) -> int:
        """Length of the vectors that are written; of an autoencoder that is d_in."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    # --- what an architecture says ---

    @abc.abstractmethod
    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Which latents are active for rows as `centre` gives them."""

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Which latents take part in a training batch; by default those of `active`."""
        return self.active(centred)

    def activate(self, pre: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """Activations from pre-activations at the places of a pattern."""
        return pre.relu()

    def activate_in_training(self, pre: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """The same while training, where an architecture may have gradients of its own; by default `activate`."""
        return self.activate(pre, pattern)

    def begin_step(self, progress: float) -> None:
        """Told before each training step how far the training is, from 0 to 1."""

    @torch.no_grad()
    def end_step(self) -> None:
        """Told after each training step, to bring parameters back to where they may be."""

    def stretch_(self, factor: Float[Tensor, " d_sae"]) -> None:
        """Make every latent's activations `factor` times as large, and its decoder row as much shorter."""
        self.encoder.mul_(factor[:, None])
        self.b_enc.mul_(factor)
        self.W_dec.div_(factor[:, None])

    def weights(self) -> dict[str, Tensor]:
        """The tensors that are rounded to the stored type, by name, latents in rows."""
        found: dict[str, Tensor] = {
            "W_enc": self.encoder,
            "W_dec": self.W_dec,
            "b_enc": self.b_enc,
            "b_dec": self.b_dec,
        }
        return found | ({"W_skip": self.W_skip} if self.W_skip is not None else {})

    def extra_tensors(self) -> dict[str, Tensor]:
        """Further tensors that belong in the weights file, by name."""
        return {}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take what `extra_tensors` gave."""

    # --- what all of them do ---

    def centre(self, rows: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """What the encoder reads: x - b_dec, or x itself where this dictionary does not subtract it."""
        return rows - self.world.latents.enter(self.b_dec) if self.centred else rows

    def encode(self, x: Float[Tensor, "*leading d_in"]) -> Codes:
        """Sparse activations of the rows of x; differentiable where x or the weights ask for gradients."""
        centred = self.centre(self._rows(x))
        pattern = self.active(centred)
        value = self.activate(self.pre_at(centred, pattern), pattern)
        return self.codes(value, pattern, tuple(x.shape[:-1]))

    def pre_at(self, centred: Float[Tensor, "rows d_in"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """Pre-activations at the places of a pattern, differentiable."""
        return sparse_dot(centred, self.encoder, self.b_enc, pattern)

    def codes(self, value: Tensor, pattern: Pattern, leading: tuple[int, ...] | None = None) -> Codes:
        """Activations at the places of a pattern, as codes."""
        return Codes(pattern.indptr, pattern.index, value, (pattern.rows, self.d_sae), leading=leading, pattern=pattern)

    def decode(self, codes: Codes) -> Float[Tensor, "*leading d_out"]:
        """The sum of the active latents' directions, and b_dec."""
        if codes.d_sae != self.d_sae:
            raise DictionaryError(
                f"Codes of {codes.d_sae} latents do not fit a dictionary of {self.d_sae}. "
                "Decode with the dictionary that encoded."
            )
        value = codes.value.to(self.W_dec.dtype)
        return (self.mixed(value, codes.pattern) + self.b_dec).view(*codes.leading, self.d_out)

    def mixed(self, value: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, "rows d_out"]:
        """The sum of the active latents' directions, over all processes that hold some of them."""
        return self.world.latents.leave(sparse_mix(value, self.W_dec, pattern))

    def skipped(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_out"] | float:
        """What goes round the latents: x W_skip, or 0 without a skip connection."""
        return x.to(self.W_dec.dtype) @ self.W_skip if self.W_skip is not None else 0.0

    def reconstruct(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_out"]:
        """decode(encode(x)), and x W_skip where there is a skip connection."""
        return self.decode(self.encode(x)) + self.skipped(x)

    def forward(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_out"]:
        """The same as `reconstruct`."""
        return self.reconstruct(x)

    def pre_activations(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_sae"]:
        """(x - b_dec) W_enc + b_enc, dense: for few rows."""
        pre = torch.addmm(self.b_enc, self.centre(self._rows(x)), self.W_enc)
        return pre.view(*x.shape[:-1], self.d_sae)

    @torch.no_grad()
    def fold_(self, scale_in: Float[Tensor, " d_in"], scale_out: Float[Tensor, " d_out"]) -> None:
        """Fold input and output scalings in: after this, reconstruct(x) is what reconstruct(x * scale_in) / scale_out
        was, and decoder rows have unit length (rows of zeros stay)."""
        self.encoder.mul_(scale_in)
        self.W_dec.div_(scale_out)
        self.b_dec.div_(scale_out)
        if self.W_skip is not None:
            self.W_skip.mul_(scale_in[:, None]).div_(scale_out)
        norm = self.W_dec.norm(dim=1)
        self.stretch_(torch.where(norm > 0, norm, 1.0))

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write config.json and safetensors files into `folder`, config.json last; `dtype` None: as trained.

        int8 takes a quarter of float32's room: see `rounding.rounded`.
        """
        folder = Path(folder)
        dtype = dtype or self.stored_dtype
        stored = pack(self.weights(), dtype)
        stored["W_enc"] = stored["W_enc"].t().contiguous()
        stored |= {name: tensor.detach().cpu().contiguous() for name, tensor in self.extra_tensors().items()}
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": self.architecture,
            "config": to_mapping(self.config),
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "site": self.site,
            "wiring": self.wiring(),
            "model": self.model_name,
            "id": self.id,
            "dtype": str(dtype).removeprefix("torch."),
            "statistics": self.statistics.facts() if self.statistics else None,
            "training": self.report.summary() if self.report is not None else None,
            "sha256": {},
        }
        files: dict[str, dict[str, Tensor]] = {"weights": stored}
        if self.statistics is not None:
            files["statistics"] = {
                name: t.detach().to("cpu", torch.float32).contiguous() for name, t in self.statistics.tensors().items()
            }
        if self.sample is not None:
            files["sample"] = {"ids": self.sample.ids.contiguous(), "offsets": self.sample.offsets.contiguous()}
        # the folder may hold a run's other files, so it is not replaced; without config.json it is no dictionary
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").unlink(missing_ok=True)
        for name in ("weights", "statistics", "sample"):
            path = folder / f"{name}.safetensors"
            if name not in files:
                path.unlink(missing_ok=True)
                continue
            write_tensors(path, files[name])
            record["sha256"][path.name] = sha256(path)
        write_json(folder / "config.json", record)
        return folder

    def wiring(self) -> dict[str, Any]:
        """What it writes, and how: target site and its width, skip connection, widths of joined sites, centring."""
        return {
            "target": self.target, "d_out": self.d_out if self.is_transcoder else None,
            "skip": self.W_skip is not None, "parts": list(self.parts), "centred": self.centred,
        }  # fmt: skip

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise DictionaryError(
                f"Vectors of {x.shape[-1]} numbers do not fit a dictionary of width {self.d_in} "
                f"({self.id or self.site or 'no site given'}). Encode the site that it was trained on."
            )
        return x.reshape(-1, self.d_in).to(self.W_dec.dtype)

    def __repr__(self) -> str:
        name = self.id or f"{self.model_name or '?'}/{self.site or '?'}"
        return f"{type(self).__name__}({name}, d_in={self.d_in}, d_sae={self.d_sae})"


def new_dictionary(
    config: Any, d_in: int, *, d_out: int | None = None, skip: bool = False, parts: tuple[int, ...] = (), seed: int = 0
) -> Dictionary:
    """An untrained dictionary of the config's architecture: random unit directions, encoder the decoder's transpose.

    A transcoder's decoder (`d_out` given) is zero.
    """
    if skip and d_out is None:
        raise DictionaryError("A skip connection would copy what is to be rebuilt. Give a target site, or no skip.")
    refuse_too_large(
        f"A dictionary of width {config.width:,} on vectors of {d_in:,}", config.width * (d_in + (d_out or d_in)) * 4,
        "Give a smaller width.",
    )  # fmt: skip
    # The shipped architectures file themselves in CLASSES when they are imported.
    for name in ("batchtopk", "gated", "jumprelu", "relu", "topk"):
        importlib.import_module(f"lensing.dictionary.{name}")
    return CLASSES[config.architecture](config, d_in, d_out=d_out, skip=skip, parts=parts, seed=seed)


def config_class(architecture: str) -> Any:
    """The config class that a saved `architecture` name stands for."""
    return ARCHITECTURES[architecture]
