"""What a dictionary is to be: one frozen config per architecture, free of torch, named in one registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from lensing.errors import UsageError
from lensing.registry import Registry

C = TypeVar("C", bound=type)

ARCHITECTURES: Registry[Any] = Registry("architecture")


def _architecture(name: str) -> Callable[[C], C]:
    def file(cls: C) -> C:
        ARCHITECTURES.register(name)(cls)
        return cls

    return file


@dataclass(frozen=True, kw_only=True)
class _Sparse:
    """What TopK and BatchTopK share: how many latents there are, how many are active, and AuxK against dead ones."""

    width: int
    """How many latents (d_sae)."""
    k: int
    """Active latents a row."""
    k_aux: int | None = None
    """Dead latents that may rebuild the error; the power of two nearest below d_in / 2 if not given, 0 for none."""
    aux_coef: float = 1 / 32
    """Weight of that rebuilding in the loss."""
    dead_after_tokens: int | None = None
    """Rows of silence that make a latent dead; a twentieth of the token budget, at most ten million, if not given."""

    architecture: ClassVar[str]

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(f"A dictionary cannot have width {self.width}. Give a width of at least 1.")
        if not 1 <= self.k <= self.width:
            raise UsageError(f"k is {self.k}, outside 1 to the width {self.width}. Give fewer active latents.")
        if self.k_aux is not None and self.k_aux < 0:
            raise UsageError(f"k_aux is {self.k_aux}. Give 0 to switch AuxK off, or a positive number.")
        if self.aux_coef < 0:
            raise UsageError(f"aux_coef is {self.aux_coef}. Give 0 to switch AuxK off, or a positive number.")
        if self.dead_after_tokens is not None and self.dead_after_tokens < 1:
            raise UsageError(f"dead_after_tokens is {self.dead_after_tokens}. Give at least 1.")

    def dead_latents_used(self, d_in: int) -> int:
        """How many dead latents AuxK may use on vectors of `d_in` numbers."""
        if self.k_aux is not None:
            return self.k_aux
        return 1 << max((d_in // 2).bit_length() - 1, 0)


@_architecture("topk")
@dataclass(frozen=True, kw_only=True)
class TopK(_Sparse):
    """The k largest latents of every row (Gao et al. 2024), with AuxK against dead latents."""

    architecture: ClassVar[str] = "topk"


@_architecture("batchtopk")
@dataclass(frozen=True, kw_only=True)
class BatchTopK(_Sparse):
    """The k times rows largest latents of a whole batch (Bussmann et al. 2024); one threshold at inference."""

    architecture: ClassVar[str] = "batchtopk"
