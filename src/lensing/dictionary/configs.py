"""What a dictionary is to be: one frozen config per architecture, free of torch, named in one registry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from lensing.errors import UsageError
from lensing.registry import Registry

C = TypeVar("C", bound=type)

ARCHITECTURES: Registry[Any] = Registry("architecture")
JOIN = "+"  # resid_post.1+resid_post.2: the vectors of both sites end to end, for a crosscoder


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an architecture is optimised where the caller does not say otherwise, as its paper does.

    `scale` fixes what coefficients and thresholds mean: inputs are multiplied by one number such that the mean of
    |x - mu|^2 ("variance") or |x| squared ("norm") is d, or that of |x|^2 is 1 ("unit"). `share`: the squared error is
    divided by the variance, else it is the plain mean over rows. `warmup_from` is the share of the rate at which a
    cosine warm-up begins, None a linear one from zero; `decay` is the share of steps over which the rate falls. An `l0`
    to be reached is aimed at from `l0_start` of it, rising over the first half of the steps.
    """

    scale: Literal["variance", "norm", "unit"]
    share: bool
    lr: float | None  # None: 2e-4 / sqrt(width / 2**14), the field's rule for TopK (Gao et al. 2024)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = 1.0
    unit_rows: bool = True  # decoder rows are held at length 1 (not of transcoders, whose decoder begins at zero)
    rows: float = 1.0  # length of decoder rows at the start
    warmup_from: float | None = None
    decay: float = 0.2
    l0_start: float = 1.0


def _architecture(name: str) -> Callable[[C], C]:
    def file(cls: C) -> C:
        ARCHITECTURES.register(name)(cls)
        return cls

    return file


@dataclass(frozen=True, kw_only=True)
class _Latents:
    """What every architecture has: how many latents there are, and which prefixes of them must rebuild alone."""

    width: int
    """How many latents (d_sae)."""
    prefixes: tuple[int, ...] = ()
    """Numbers of first latents that must rebuild alone as well (Matryoshka), ascending; give the flag for each."""
    dead_after_tokens: int | None = None
    """Rows of silence that make a latent dead; a twentieth of the token budget, at most ten million, if not given."""

    architecture: ClassVar[str]
    recipe: ClassVar[Recipe]

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", tuple(self.prefixes))  # a list, when read from JSON or TOML
        if self.width < 1:
            raise UsageError(f"A dictionary cannot have width {self.width}. Give a width of at least 1.")
        if any(a >= b for a, b in itertools.pairwise((0, *self.prefixes, self.width))):
            raise UsageError(
                f"The prefixes {list(self.prefixes)} do not rise from 1 to below the width {self.width}. "
                "Leave the width itself out."
            )
        if self.dead_after_tokens is not None and not 1 <= self.dead_after_tokens < 1 << 63:
            raise UsageError(f"dead_after_tokens is {self.dead_after_tokens}. Give 1 to 2**63 - 1.")


@dataclass(frozen=True, kw_only=True)
class _KSparse(_Latents):
    """What TopK and BatchTopK share: how many latents are active, and AuxK against dead ones."""

    k: int
    """Active latents a row."""
    k_start: int | None = None
    """Active latents a row at the start, falling evenly to k over the first tenth of the steps; k if not given."""
    k_aux: int | None = None
    """Dead latents that may rebuild the error; the power of two nearest below d_in / 2 if not given, 0 for none."""
    aux_coef: float = 1 / 32
    """Weight of that rebuilding in the loss."""

    recipe: ClassVar[Recipe] = Recipe(scale="variance", share=True, lr=None, eps=6.25e-10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.width:
            raise UsageError(f"k is {self.k}, outside 1 to the width {self.width}. Give fewer active latents.")
        if self.k_start is not None and not self.k <= self.k_start <= self.width:
            raise UsageError(
                f"k_start is {self.k_start}, outside k, {self.k}, to the width {self.width}. "
                "Begin with more active latents than you end with."
            )
        if self.k_aux is not None and self.k_aux < 0:
            raise UsageError(f"k_aux is {self.k_aux}. Give 0 to switch AuxK off, or a positive number.")
        if not 0 <= self.aux_coef < math.inf:
            raise UsageError(f"aux_coef is {self.aux_coef}. Give 0 to switch AuxK off, or a positive number.")

    def dead_latents_used(self, d_in: int) -> int:
        """How many dead latents AuxK may use on vectors of `d_in` numbers."""
        if self.k_aux is not None:
            return self.k_aux
        return 1 << max((d_in // 2).bit_length() - 1, 0)

    def k_at(self, progress: float) -> int:
        """Active latents a row at a point of the training, 0 its start and 1 its end."""
        if self.k_start is None:
            return self.k
        return max(round(self.k_start + (self.k - self.k_start) * min(10 * progress, 1.0)), self.k)


@_architecture("topk")
@dataclass(frozen=True, kw_only=True)
class TopK(_KSparse):
    """The k largest latents of every row (Gao et al. 2024), with AuxK against dead latents."""

    architecture: ClassVar[str] = "topk"


@_architecture("batchtopk")
@dataclass(frozen=True, kw_only=True)
class BatchTopK(_KSparse):
    """The k times rows largest latents of a whole batch (Bussmann et al. 2024); one threshold at inference."""

    architecture: ClassVar[str] = "batchtopk"


@_architecture("matryoshka")
@dataclass(frozen=True, kw_only=True)
class Matryoshka(_KSparse):
    """BatchTopK in nested prefixes (Bussmann et al. 2025): 1/32, 3/32, 7/32, 15/32 of the width, if none are given."""

    architecture: ClassVar[str] = "matryoshka"

    def __post_init__(self) -> None:
        if not self.prefixes:
            shares = {self.width * n // 32 for n in (1, 3, 7, 15)} - {0, self.width}
            object.__setattr__(self, "prefixes", tuple(sorted(shares)))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class _Penalised(_Latents):
    """What ReLU, gated and JumpReLU share: a penalty on activity, by its coefficient or by the L0 to be reached."""

    sparsity: float | None = None
    """Coefficient of the penalty, on inputs scaled as the recipe says; either this or l0."""
    l0: float | None = None
    """Active latents a row to reach: the coefficient is steered there; either this or sparsity."""
    ramp: float = 0.05
    """Share of the steps over which the penalty rises from nothing."""

    @property
    def is_steered(self) -> bool:
        """Whether the coefficient is steered towards l0."""
        return self.l0 is not None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_steered == (self.sparsity is not None):
            raise UsageError(
                f"sparsity is {self.sparsity} and l0 is {self.l0}. Give one of them: a coefficient, or an L0 to reach."
            )
        if self.sparsity is not None and not 0 <= self.sparsity < math.inf:
            raise UsageError(f"sparsity is {self.sparsity}. Give zero or more.")
        if self.l0 is not None and not 0 < self.l0 <= self.width:
            raise UsageError(f"l0 is {self.l0}, outside 0 to the width {self.width}. Give fewer active latents.")
        if not 0 <= self.ramp <= 1:
            raise UsageError(f"ramp is {self.ramp}. Give a share of the steps, 0 to 1.")


@_architecture("relu")
@dataclass(frozen=True, kw_only=True)
class ReLU(_Penalised):
    """Rectified latents under an L1 penalty: Conerly et al. 2024, or with `unit_rows` Bricken et al. 2023."""

    unit_rows: bool = False
    """Hold decoder rows at length 1, with the L1 of the activations alone, as in 2023."""
    resample_every: int | None = None
    """Give dead latents new directions, those of badly rebuilt rows, every so many steps (2023); never if not given."""

    architecture: ClassVar[str] = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resample_every is not None and self.resample_every < 1:
            raise UsageError(f"resample_every is {self.resample_every}. Give at least 1 step.")

    @property
    def recipe(self) -> Recipe:  # type: ignore[override]
        """Conerly et al. 2024, as SAELens trains it; Bricken et al. 2023, as dictionary_learning does."""
        if self.unit_rows:
            return Recipe(scale="unit", share=False, lr=1e-3, clip=None)
        return Recipe(scale="norm", share=False, lr=5e-5, unit_rows=False, rows=0.1)


@_architecture("gated")
@dataclass(frozen=True, kw_only=True)
class Gated(_Penalised):
    """A gate that says which latents are active, and magnitudes (Rajamanoharan et al. 2024)."""

    architecture: ClassVar[str] = "gated"
    # the paper's Adam has no momentum: at rates that suit short runs most latents die of that
    recipe: ClassVar[Recipe] = Recipe(scale="unit", share=False, lr=5e-5, l0_start=0.1)


@_architecture("jumprelu")
@dataclass(frozen=True, kw_only=True)
class JumpReLU(_Penalised):
    """A learnt threshold for every latent under an L0 penalty (Rajamanoharan et al. 2024; Gemma Scope)."""

    penalty: Literal["linear", "quadratic", "tanh"] = "linear"
    """Linear in L0; or sparsity times 2 / l0 times (L0 - l0) squared, which needs both, as in Gemma Scope 2; or the sum
    of tanh(steepness f |W_dec|), as in Anthropic's cross-layer transcoders, where ramp is 1."""
    threshold: float | None = None
    """Thresholds at the start, on inputs scaled as the recipe says; 0.001, with tanh 0.03, if not given."""
    bandwidth: float | None = None
    """Width of the window about a threshold in which it learns, on the same scale; 0.01 (Gemma Scope had 0.001 and a
    thousand times the rows), with tanh 1, if not given."""
    steepness: float = 4.0
    """How quickly the tanh penalty saturates."""
    pre_act: float = 3e-6
    """With tanh: weight of a penalty on the distance of dead latents' pre-activations below their thresholds."""
    frequency: float = 0.0
    """Weight of a penalty on latents that are active in more than a tenth of the rows (Gemma Scope 2)."""

    architecture: ClassVar[str] = "jumprelu"

    @property
    def recipe(self) -> Recipe:  # type: ignore[override]
        """Gemma Scope's, but with momentum, clipping and a rate that falls at the end: in runs of thousands of steps
        they take a quarter off the FVU. With the tanh penalty that of Conerly et al. 2025."""
        if self.penalty == "tanh":
            return Recipe(scale="norm", share=False, lr=2e-4, unit_rows=False, rows=0.1)
        return Recipe(scale="unit", share=False, lr=7e-5, warmup_from=0.1, l0_start=0.25)

    @property
    def is_steered(self) -> bool:
        """Whether the coefficient is steered towards l0; the quadratic penalty aims by itself."""
        return self.l0 is not None and self.penalty != "quadratic"

    def __post_init__(self) -> None:
        if self.penalty not in ("linear", "quadratic", "tanh"):
            raise UsageError(f"penalty is {self.penalty!r}. Give 'linear', 'quadratic' or 'tanh'.")
        for name, small, large in (("threshold", 0.001, 0.03), ("bandwidth", 0.01, 1.0)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, large if self.penalty == "tanh" else small)
        assert self.threshold is not None
        assert self.bandwidth is not None
        if self.penalty == "quadratic" and (self.l0 is None or self.sparsity is None):
            raise UsageError(
                f"The quadratic penalty needs an L0 to aim at and a weight; l0 is {self.l0} and sparsity is "
                f"{self.sparsity}. Give both."
            )
        super().__post_init__()
        numbers = (self.threshold, self.frequency, self.pre_act, self.bandwidth, self.steepness)
        if min(numbers[:3]) < 0 or min(numbers[3:]) <= 0 or not all(map(math.isfinite, numbers)):
            raise UsageError(
                f"threshold {self.threshold}, bandwidth {self.bandwidth}, frequency {self.frequency}, steepness "
                f"{self.steepness} and pre_act {self.pre_act} do not go together. Give thresholds and weights of zero "
                "or more, and a bandwidth and a steepness above zero."
            )
