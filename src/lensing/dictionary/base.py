"""The one open base class: what every dictionary can do, however it chooses its active latents."""

from __future__ import annotations

import abc
import importlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from lensing.config import to_mapping
from lensing.dictionary.codes import Codes
from lensing.dictionary.configs import ARCHITECTURES
from lensing.dictionary.kernels import Pattern, sparse_dot, sparse_mix
from lensing.dictionary.statistics import Sample, Statistics
from lensing.errors import DictionaryError
from lensing.files import atomic_file, explained, sha256, write_json
from lensing.registry import Registry

FORMAT = "lensing-dictionary"
FORMAT_VERSION = 1

CLASSES: Registry[Any] = Registry("architecture")


class Dictionary(nn.Module, abc.ABC):
    """Vectors [.., d_in] as sparse sums of d_sae directions: codes = encode(x), x_hat = decode(codes).

    pre = (x - b_dec) W_enc + b_enc; the active latents have f = max(pre, 0); x_hat = f W_dec + b_dec. A new
    architecture states which latents are active (`active`) and perhaps which while training (`active_in_training`).
    """

    architecture: ClassVar[str]

    def __init__(self, config: Any, d_in: int, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.site: str | None = None
        self.model_name: str | None = None
        self.id: str | None = None
        self.statistics: Statistics | None = None
        self.sample: Sample | None = None
        self.report: Any = None  # set by training: lensing.training.report.TrainReport
        self.stored_dtype = torch.float32
        directions = torch.randn(config.width, d_in, generator=torch.Generator().manual_seed(seed))
        directions /= directions.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(directions)
        # latents are rows here too: sparse gradients touch whole rows
        self.encoder = nn.Parameter(directions.clone())
        self.b_enc = nn.Parameter(torch.zeros(config.width))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """Encoder directions, one column a latent."""
        return self.encoder.t()

    @property
    def d_in(self) -> int:
        """Length of the vectors that are encoded."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @abc.abstractmethod
    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Which latents are active for rows x - b_dec."""

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Which latents are active for a training batch; by default those of `active`."""
        return self.active(centred)

    def scale_(self, factor: float) -> None:
        """Fold an input scaling in: after this, encode(x) is what encode(x * factor) was, divided by `factor`."""
        with torch.no_grad():
            self.b_enc.div_(factor)
            self.b_dec.div_(factor)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Further tensors that belong in the weights file, by name."""
        return {}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take what `extra_tensors` gave."""

    def encode(self, x: Float[Tensor, "*leading d_in"]) -> Codes:
        """Sparse activations of the rows of x; differentiable where x or the weights ask for gradients."""
        rows = self._rows(x)
        centred = rows - self.b_dec
        pattern = self.active(centred)
        return self.encode_at(centred, pattern, tuple(x.shape[:-1]))

    def encode_at(self, centred: Tensor, pattern: Pattern, leading: tuple[int, ...] | None = None) -> Codes:
        """Activations of rows x - b_dec at given places."""
        value = sparse_dot(centred, self.encoder, self.b_enc, pattern).relu()
        return Codes(pattern.indptr, pattern.index, value, (pattern.rows, self.d_sae), leading=leading, pattern=pattern)

    def decode(self, codes: Codes) -> Float[Tensor, "*leading d_in"]:
        """The sum of the active latents' directions, and b_dec."""
        if codes.d_sae != self.d_sae:
            raise DictionaryError(
                f"Codes of {codes.d_sae} latents do not fit a dictionary of {self.d_sae}. "
                "Decode with the dictionary that encoded."
            )
        value = codes.value.to(self.W_dec.dtype)
        return (sparse_mix(value, self.W_dec, codes.pattern) + self.b_dec).view(*codes.leading, self.d_in)

    def reconstruct(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_in"]:
        """decode(encode(x))."""
        return self.decode(self.encode(x))

    def forward(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_in"]:
        """The same as `reconstruct`."""
        return self.reconstruct(x)

    def pre_activations(self, x: Float[Tensor, "*leading d_in"]) -> Float[Tensor, "*leading d_sae"]:
        """(x - b_dec) W_enc + b_enc, dense: for few rows."""
        pre = torch.addmm(self.b_enc, self._rows(x) - self.b_dec, self.W_enc)
        return pre.view(*x.shape[:-1], self.d_sae)

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write config.json and safetensors files into `folder`, config.json last; `dtype` None: as trained."""
        folder = Path(folder)
        dtype = dtype or self.stored_dtype
        weights = {"W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc, "b_dec": self.b_dec}
        stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}
        stored |= {name: tensor.detach().cpu().contiguous() for name, tensor in self.extra_tensors().items()}
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": self.architecture,
            "config": to_mapping(self.config),
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "site": self.site,
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
            with atomic_file(path) as temporary:
                save_file(files[name], str(temporary))
            record["sha256"][path.name] = sha256(path)
        write_json(folder / "config.json", record)
        return folder

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


def new_dictionary(config: Any, d_in: int, *, seed: int = 0) -> Dictionary:
    """An untrained dictionary of the config's architecture: random unit directions, encoder the decoder's transpose."""
    # The shipped architectures file themselves in CLASSES when they are imported.
    importlib.import_module("lensing.dictionary.batchtopk")
    importlib.import_module("lensing.dictionary.topk")
    return CLASSES[config.architecture](config, d_in, seed=seed)


def config_class(architecture: str) -> Any:
    """The config class that a saved `architecture` name stands for."""
    return ARCHITECTURES[architecture]
