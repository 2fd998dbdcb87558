"""What one dictionary of a run reads and writes, and how its batch is cut from the source's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.config import to_mapping
from lensing.data.rows import Rows
from lensing.dictionary.configs import JOIN
from lensing.dictionary.crosslayer import refuse_gated
from lensing.errors import SiteError, UsageError


@dataclass(frozen=True, kw_only=True)
class Job:
    """One dictionary of several that are trained from one source: its architecture and what it reads and writes.

    `site` may join several sites with `+`: a crosscoder. With `target` it is a transcoder, which writes that site (or
    joined sites), and with `skip` a linear map goes round the latents. With `cross_layer` the joined sites that are
    read and written are those of as many layers, in order, and the latents of each write its own site and all after.
    """

    config: Any
    site: str | None = None
    target: str | None = None
    skip: bool = False
    cross_layer: bool = False
    lr: float | None = None
    seed: int = 0

    def resolved(self, source: Rows) -> Job:
        """The job with its site named; SiteError when the source does not give what is read or written."""
        site = self.site
        if site is None:
            if len(source.sites) > 1:
                raise SiteError(f"The source gives {', '.join(source.sites)}. Say which with site=.")
            site = source.sites[0]
        for name in (*site.split(JOIN), *(self.target or site).split(JOIN)):
            if name not in source.sites:
                raise SiteError(f"The source does not give {name!r} but {', '.join(source.sites)}. Name one of these.")
        if self.target == site:
            raise UsageError(f"A transcoder cannot write the site that it reads, {site}. Leave the target out.")
        if self.skip and self.target is None:
            raise UsageError("A skip connection goes to another site than is read. Give a target, or no skip.")
        if self.cross_layer:
            refuse_gated(self.config)
            read, written = len(site.split(JOIN)), len((self.target or "").split(JOIN)) if self.target else 0
            if read != written:
                raise UsageError(
                    f"A cross-layer transcoder reads as many sites as it writes, not {read} and {written}. Give both, "
                    "joined by + in the order of the layers."
                )
        return replace(self, site=site)

    def rows(
        self, batch: Mapping[str, Float[Tensor, "rows _"]]
    ) -> tuple[Float[Tensor, "rows d_in"], Float[Tensor, "rows d_out"] | None]:
        """What is read, and what is written where that is something else."""
        return joined(batch, str(self.site)), joined(batch, self.target) if self.target is not None else None

    def parts(self, batch: Mapping[str, Float[Tensor, "rows _"]]) -> tuple[int, ...]:
        """Widths of the sites that are joined; empty for one site."""
        names = str(self.site).split(JOIN)
        return tuple(batch[name].shape[1] for name in names) if len(names) > 1 else ()

    def writes(self, batch: Mapping[str, Float[Tensor, "rows _"]]) -> tuple[int, ...]:
        """Widths of the sites that a cross-layer transcoder writes; empty for anything else."""
        return tuple(batch[name].shape[1] for name in str(self.target).split(JOIN)) if self.cross_layer else ()

    def setting(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "architecture": self.config.architecture, "config": to_mapping(self.config), "site": self.site,
            "target": self.target, "skip": self.skip, "lr": self.lr, "seed": self.seed,
        } | ({"cross_layer": True} if self.cross_layer else {})  # fmt: skip


def joined(batch: Mapping[str, Float[Tensor, "rows _"]], site: str) -> Float[Tensor, "rows d"]:
    """The rows of one site, or of several joined by `+`, end to end."""
    names = site.split(JOIN)
    return batch[names[0]] if len(names) == 1 else torch.cat([batch[name] for name in names], dim=1)
