"""What the link stage tells the region stage, and what the region stage tells the world. All are small and plain: data, not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LinkAlarm:
    """A detector of one link fired.

    metric: index into TARGETS. detector: "adwin", "page_hinkley" (both on the residual: its mean moved) or "adwin_abs" (on its
    absolute value: it spread). size_sigma: recent mean of the standardised residual, in standard deviations of its calibration.
    size: the same in the metric's own units. epoch: which model went live, counted up from 1.
    """

    time_s: float
    region: str
    link: str
    link_type: str
    metric: int
    detector: str
    size_sigma: float
    size: float
    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class RegionSample:
    """The absolute standardised residuals of one row of a watched link, one for each of TARGETS, None where not measured."""

    time_s: float
    region: str
    link: str
    absolute: tuple[float | None, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class MetricChange:
    """How one metric of a region changed: over the `links` that alarmed, the median of their LinkAlarms."""

    metric: str
    links: int
    size_sigma: float
    size: float
    detectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """One incident was opened, updated or closed. `id` stays the same for all changes of an incident."""

    kind: Literal["opened", "updated", "closed"]
    id: str
    sequence: int
    region: str
    time_s: float
    opened_s: float
    metrics: tuple[MetricChange, ...]
    link_types: tuple[str, ...]
    affected_links: int
    watched_links: int
    cause: str
    """What opened it: "quorum" of link alarms, or the region's own "adwin"."""
