"""What probes found: which concepts a model has at which site, by class and by decade of frequency."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from lensing.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class ProbeRow:
    """One concept at one site, scored on documents that its probe was not fitted on.

    `positives` (tokens) and `documents` hold the concept; `last_token` and `last_three` are the AUROCs of the baselines
    that see only tokens; `margin` is the probe's AUROC less the better one's and `se` its standard error over
    documents. `null_margin`, `null_se` and `null_had` are the same for labels shuffled across documents.
    """

    concept: str
    cls: str
    positives: int
    documents: int
    site: str
    auroc: float
    average_precision: float
    last_token: float
    last_three: float
    margin: float
    se: float
    null_margin: float
    null_se: float
    null_had: bool
    had: bool

    @property
    def baseline(self) -> float:
        """AUROC of the better baseline."""
        return max(self.last_token, self.last_three)


@dataclass(frozen=True)
class ProbeGroup:
    """Concepts of one class or decade at one site: how many were tried and had, with median AUROCs."""

    group: str
    tried: int
    had: int
    auroc: float
    baseline: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class ProbeReport:
    """Probes of every concept of a text at every site asked for; `refused` says why a concept could not be probed."""

    model: str
    documents: int
    tokens: int
    sites: tuple[str, ...]
    rows: tuple[ProbeRow, ...]
    refused: dict[str, str]
    min_auroc: float
    seed: int

    def at(self, site: str) -> list[ProbeRow]:
        """Rows of one site, by concept; UnknownNameError for a site that was not probed."""
        if site not in self.sites:
            raise UnknownNameError("probed site", site, self.sites)
        return [row for row in self.rows if row.site == site]

    def had(self, site: str) -> list[str]:
        """Concepts that the model has at a site."""
        return [row.concept for row in self.at(site) if row.had]

    def missing(self, site: str) -> list[str]:
        """Concepts that were probed at a site and are not had there."""
        return [row.concept for row in self.at(site) if not row.had]

    def null_share(self, site: str) -> float:
        """Share of concepts that would be had if their labels were shuffled across documents."""
        rows = self.at(site)
        return sum(row.null_had for row in rows) / len(rows)

    def null_beyond(self, site: str) -> float:
        """Share of concepts with shuffled labels whose margin lies beyond two standard errors, whatever the AUROC."""
        rows = self.at(site)
        return sum(row.null_margin > 2 * row.null_se for row in rows) / len(rows)

    def by_class(self, site: str) -> list[ProbeGroup]:
        """Concepts tried and had at a site, by class."""
        return _grouped(self.at(site), lambda row: row.cls)

    def by_decade(self, site: str, planted: Mapping[str, float]) -> list[ProbeGroup]:
        """Concepts tried and had at a site by decade of planted frequency per token, commonest first.

        Decade "1e-3" holds frequencies from 1e-3 up to 1e-2. Raises: UsageError: a concept without a frequency.
        """
        for row in self.at(site):
            if not planted.get(row.concept, 0) > 0:
                raise UsageError(f"{row.concept} has no planted frequency. Give one above 0 for every probed concept.")
        groups = _grouped(self.at(site), lambda row: f"1e{math.floor(math.log10(planted[row.concept]) + 1e-9)}")
        return sorted(groups, key=lambda group: -float(group.group))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def first_layer(report: ProbeReport) -> dict[str, str]:
    """Return for each concept that is had anywhere the first probed site at which it is had."""
    return {concept: site for site in reversed(report.sites) for concept in report.had(site)}


def first_revision(reports: Mapping[str, ProbeReport], site: str) -> dict[str, str]:
    """Return for each concept the first revision at which it is had at a site; reports in order of training tokens."""
    return {concept: revision for revision in reversed(list(reports)) for concept in reports[revision].had(site)}


def _grouped(rows: Iterable[ProbeRow], key: Callable[[ProbeRow], str]) -> list[ProbeGroup]:
    groups: dict[str, list[ProbeRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [
        ProbeGroup(
            name,
            len(found),
            sum(row.had for row in found),
            median(row.auroc for row in found),
            median(row.baseline for row in found),
        )
        for name, found in sorted(groups.items())
    ]
