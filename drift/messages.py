"""What the link stage tells the region stage, and what the region stage tells the world. All are small and plain: data, not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from features.telemetry import CATEGORIES, NUMERIC

SIGNALS: Final = (*NUMERIC, *CATEGORIES, "timestamp")
"""What can change: the columns of a record that are watched. The first of them are TARGETS, of which there are residuals."""

Scope = Literal["link", "region", "fleet"]
Group = Literal["network", "data"]
"""Whether the network has changed, or what the producers make of it."""
Aspect = Literal["level", "spread", "missing", "constant", "unit", "category", "clock"]
"""What an alarm is about. Of a residual: its mean, or its size. Of a column: it is not there any more; it has one value only; it is some
power of ten off; it has a value that the model does not know; the producer's clock is off."""
Change = Literal["shift", "ramp", "spread", "model_error", "missing", "constant", "unit", "category", "clock"]
"""What is told to have changed: a metric's level, at once or slowly; its spread; only how well the model forecasts it, the metric being as
before; or one of the faults of the data."""


@dataclass(frozen=True, slots=True)
class LinkAlarm:
    """A detector of one link fired.

    signal: index into SIGNALS. detector: "cusum" (the level moved), "cusum_spread" (the residuals spread), "adwin" (their mean moved
    slowly, or by little) or "data". direction: 1 up, or a fault has begun; -1 down, or it has ended. certain: whether it is worth telling
    by itself. since_s: the likeliest time of the change, UTC seconds. size_sigma, size: of the change, in standard deviations of the
    residual and in the metric's unit; for a spread the factor by which it grew, and the new mean absolute residual; for a unit the factor.
    shown: how much of it the metric itself shows, 1: all, 0: nothing, so that the model is wrong. growth: how it went on since it began,
    0: a step, 2: a ramp. interval_s: between the link's rows. epoch: which model went live, counted up from 1. over: it takes back one that
    was not certain, of the other direction: that change has ended, and nothing has come of it; its size is how far the metric has gone
    nevertheless, for the model has followed it.
    """

    time_s: float
    region: str
    link: str
    link_type: str
    signal: int
    aspect: Aspect
    detector: str
    direction: int
    certain: bool
    since_s: float
    size_sigma: float
    size: float
    shown: float
    growth: float
    interval_s: float
    offset: int
    epoch: int
    over: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the detector has taken the change for the new level: only then a way back is a change, and alarms."""
        return self.certain or self.detector == "adwin"

    @property
    def group(self) -> Group:
        return "network" if self.aspect in ("level", "spread") else "data"


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A watched link has a residual: it counts as watched for some of its intervals from here on. Told once in a while."""

    time_s: float
    region: str
    link: str
    interval_s: float
    epoch: int


@dataclass(frozen=True, slots=True)
class SignalChange:
    """How one signal changed, over the `links` that alarmed in this direction: the medians of their LinkAlarms."""

    signal: str
    change: Change
    direction: int
    links: int
    size_sigma: float
    size: float
    detectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """One incident was opened, updated or closed. `id` stays the same for all changes of an incident.

    region: "" for the whole fleet. since_s: the likeliest time of the change, UTC seconds. regions, links: those that alarmed, the first
    NAMED of them by name; affected_regions, affected_links: how many they are, watched_links: of how many. outcome: how a closed one
    ended: "settled" (it is the new level: no new evidence, or the
    model follows), "recovered" (back at the old one), "model_replaced", or "region" or "fleet" (it became one of
    those).
    """

    kind: Literal["opened", "updated", "closed"]
    id: str
    sequence: int
    scope: Scope
    group: Group
    region: str
    time_s: float
    opened_s: float
    since_s: float
    signals: tuple[SignalChange, ...]
    link_types: tuple[str, ...]
    regions: tuple[str, ...]
    affected_regions: int
    links: tuple[str, ...]
    affected_links: int
    watched_links: int
    outcome: str
