"""Steering: write more or less of a latent, or of any direction, into its site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import refuse_other_wiring, refuse_unknown_latent
from lensing.errors import DictionaryError, UnknownNameError, UsageError
from lensing.model.edit import At, Edit, EditContext, where

if TYPE_CHECKING:
    from lensing.model.sites import Site

Mode = Literal["add", "clamp", "scale", "ablate"]
Unit = Literal["max", "raw", "norm"]
MODES: tuple[Mode, ...] = ("add", "clamp", "scale", "ablate")
UNITS: tuple[Unit, ...] = ("max", "raw", "norm")
Strength = float | Tensor  # a number for all rows, or [batch]: each row its own


def steer(
    dictionary: Dictionary,
    latent: int | Mapping[int, Strength],
    strength: Strength = 1.0,
    unit: Unit = "max",
    mode: Mode = "add",
    at: At = "all",
    include_special: bool = False,
) -> Edit:
    """Return the edit that steers one latent, or several (`{latent: strength}`, each times `strength`).

    With u the unit, f_i(h) the latent's activation before the edit, and what the dictionary misses left alone:
    add: h += s u W_dec[i]. clamp: h += (s u - f_i(h)) W_dec[i]. scale: h += (s - 1) f_i(h) W_dec[i].
    ablate: h -= s f_i(h) W_dec[i], the strength 1 taking it out whole. The unit "max" is the latent's largest
    activation on the dictionary's statistics corpus, "raw" is 1, "norm" the mean |h| there; scale and ablate need none.
    `at`: "all", "prompt", "generated", a slice, a position, or a role of a chat. BOS and padding are left alone unless
    `include_special`.

    Raises: UsageError: no such latent, unit or mode, a strength that is not finite or is outside 0 to 1 under ablate,
    a silent latent under "max", or a dictionary without statistics.
    """
    strengths = latent if isinstance(latent, Mapping) else {latent: 1.0}
    return Steer(
        dictionary, {i: s * strength for i, s in strengths.items()}, unit=unit, mode=mode, at=at,
        include_special=include_special,
    )  # fmt: skip


@final
class Steer(Edit):
    """See `steer`; a strength may be a tensor `[batch]`, and `along` writes the same amounts of another direction.

    `along`, `[d_in]` or `[batch, d_in]`, stands in for W_dec[i] of the one latent, scaled to its length.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        strengths: Mapping[int, Strength],
        *,
        unit: Unit = "max",
        mode: Mode = "add",
        at: At = "all",
        include_special: bool = False,
        along: Float[Tensor, "... d_in"] | None = None,
    ) -> None:
        if mode not in MODES:
            raise UnknownNameError("mode", str(mode), MODES)
        if not strengths:
            raise UsageError("There is no latent to steer. Give at least one.")
        if dictionary.site is None:
            raise DictionaryError(f"{dictionary} names no site. Set dictionary.site to the site that it reads.")
        refuse_other_wiring(dictionary, "steered")
        self.site, self.dictionary, self.mode = dictionary.site, dictionary, mode
        self.at, self.include_special = at, include_special
        self.latents = [_latent(dictionary, i) for i in strengths]
        units = torch.tensor([unit_of(dictionary, i, unit, mode) for i in self.latents])
        self.target = _stack(strengths, mode) * units  # [latents] or [batch, latents]
        self.directions = dictionary.W_dec.detach()[self.latents]
        self.along = None
        if along is not None:
            if len(self.latents) != 1:
                raise UsageError(f"{len(self.latents)} latents cannot share one direction. Give one latent.")
            self.along = unit_vectors(along) * self.directions.norm()
        # The place of every latent in `latents`, -1 where it is not steered: finds them in sparse codes.
        self._place = torch.full((dictionary.d_sae,), -1, dtype=torch.long)
        self._place[self.latents] = torch.arange(len(self.latents))

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        if self.target.dim() == 2 and len(self.target) != h.shape[0]:
            raise UsageError(
                f"{len(self.target)} strengths do not fit {h.shape[0]} rows. Give one number, or one for each row."
            )
        amounts = self.amounts(h)
        if self.along is None:
            delta = amounts @ self.directions.to(amounts)
        else:
            along = self.along.to(amounts)
            delta = amounts * (along if along.dim() == 1 else along[:, None])
        chosen = where(at, self.at, self.include_special)
        chosen = chosen.reshape(*chosen.shape, *[1] * (h.dim() - 2))
        return torch.where(chosen, h + delta.to(h.dtype).reshape(delta.shape[:-1] + h.shape[2:]), h)

    def amounts(self, h: Float[Tensor, "batch pos ..."]) -> Float[Tensor, "batch pos latents"]:
        """Return how much of every steered latent's direction the edit would add to h, in activation units."""
        target = self.target.to(h.device, torch.float32)
        target = target if target.dim() == 1 else target[:, None]
        if self.mode == "add":
            return target.expand(*h.shape[:2], -1)
        own = self.activations(h)
        return {"clamp": target - own, "scale": (target - 1) * own, "ablate": -target * own}[self.mode]

    def activations(self, h: Float[Tensor, "batch pos ..."]) -> Float[Tensor, "batch pos latents"]:
        """Return f_i(h) of every steered latent, from sparse codes."""
        codes = self.dictionary.encode(h.flatten(2).to(self.dictionary.W_dec.device))
        place = self._place.to(codes.index.device)[codes.index.long()]
        kept = place >= 0
        found = codes.value.new_zeros(codes.rows, len(self.latents))
        found = found.index_put((codes.pattern.row_of[kept], place[kept]), codes.value[kept])
        return found.to(h.device, torch.float32).view(*h.shape[:2], -1)


@final
class OnRows(Edit):
    """Another edit, in force in some rows of the batch only (`rows`, their numbers); the others stay as they are."""

    def __init__(self, edit: Edit, rows: Sequence[int]) -> None:
        self.edit, self.site, self.rows = edit, edit.site, list(rows)

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        chosen = torch.zeros(len(h), dtype=torch.bool, device=h.device)
        chosen[self.rows] = True
        return torch.where(chosen.reshape(-1, *[1] * (h.dim() - 1)), self.edit.apply(h, at), h)


@final
class SteerVector(Edit):
    """Add a plain direction, `[d]` or `[batch, d]`, scaled to the length `size` (a number or `[batch]`)."""

    def __init__(
        self,
        site: str | tuple[str, int] | Site,
        direction: Float[Tensor, "... d"],
        size: Strength,
        *,
        at: At = "all",
        include_special: bool = False,
    ) -> None:
        self.site, self.at, self.include_special = site, at, include_special
        length = torch.as_tensor(size, dtype=torch.float32)
        self.vector = unit_vectors(direction) * (length[:, None] if length.dim() else length)

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        chosen = where(at, self.at, self.include_special)
        chosen = chosen.reshape(*chosen.shape, *[1] * (h.dim() - 2))
        vector = self.vector if self.vector.dim() == 1 else self.vector[:, None]
        if vector.shape[-1] != h[0, 0].numel() or (vector.dim() == 3 and len(vector) not in (1, len(h))):
            raise UsageError(
                f"A direction of shape {list(self.vector.shape)} does not fit {list(h.shape)} at {self.site}. "
                "Give one of the site's width, for all rows or one a row."
            )
        return torch.where(chosen, h + vector.to(h).reshape(*vector.shape[:-1], *h.shape[2:]), h)


def unit_of(dictionary: Dictionary, latent: int, unit: Unit = "max", mode: Mode = "add") -> float:
    """Return what strength 1 of a latent is in activation units; 1 under scale and ablate, which have no unit."""
    if unit not in UNITS:
        raise UnknownNameError("unit", str(unit), UNITS)
    if unit == "raw" or mode in ("scale", "ablate"):
        return 1.0
    name = dictionary.id or "The dictionary"
    if dictionary.statistics is None:
        raise UsageError(f"{name} holds no statistics, so the unit {unit!r} is unknown. Give unit='raw'.")
    if unit == "norm":
        return dictionary.statistics.mean_norm / float(dictionary.W_dec[latent].norm())
    largest = float(dictionary.statistics.max_activation[latent])
    if not largest > 0:
        raise UsageError(
            f"Latent {latent} of {name} was silent on its statistics corpus, so its maximum is 0. "
            "Choose another latent, or give unit='norm' or 'raw'."
        )
    return largest


def unit_vectors(vectors: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Return vectors scaled to length 1; UsageError where one has no direction."""
    vectors = vectors.detach().float()
    lengths = vectors.norm(dim=-1, keepdim=True)
    if not bool((lengths > 0).all() and lengths.isfinite().all()):
        raise UsageError("A vector of length 0 or with infinite numbers has no direction. Give another one.")
    return vectors / lengths


def _latent(dictionary: Dictionary, latent: int) -> int:
    if isinstance(latent, bool) or not isinstance(latent, int):
        raise UsageError(f"{latent!r} is not a latent's number. Give a whole number from 0 to {dictionary.d_sae - 1}.")
    refuse_unknown_latent(dictionary, latent)
    return latent


def _stack(strengths: Mapping[int, Strength], mode: Mode) -> Float[Tensor, "... latents"]:
    columns = [torch.as_tensor(s, dtype=torch.float32).detach().cpu() for s in strengths.values()]
    for column in columns:
        if column.dim() > 1 or not bool(column.isfinite().all()):
            raise UsageError(f"There is no strength {column.tolist()}. Give a finite number, or one for each row.")
        if mode == "ablate" and bool(((column < 0) | (column > 1)).any()):
            raise UsageError(f"{column.tolist()} is no share to ablate. Give 0 to 1 (all of it), or mode='scale'.")
    return torch.stack(torch.broadcast_tensors(*columns), -1)
