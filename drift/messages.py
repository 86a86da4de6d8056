"""Messages from the link stage to the region stage, and the changes that the region stage returns. All are small and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from features.telemetry import CATEGORIES, NUMERIC

SIGNALS: Final = (*NUMERIC, *CATEGORIES, "timestamp")
"""Signals that can change: the monitored columns of a record. The first of them are TARGETS, which have residuals."""

Scope = Literal["link", "region", "fleet"]
Group = Literal["network", "data"]
"""network: the network itself has changed. data: only what its producers report about it."""
Aspect = Literal["level", "spread", "missing", "constant", "unit", "category", "clock"]
"""Subject of an alarm. level, spread: mean and size of a residual. missing: the column has no values. constant: it has only one value.
unit: it is off by some power of ten. category: its value is not known to the model. clock: the producer's clock is off."""
Change = Literal["shift", "ramp", "spread", "model_error", "missing", "constant", "unit", "category", "clock"]
"""Kind of a change. shift, ramp: the metric's level, at once or slowly. spread: its spread. model_error: the metric is as before, but the
model forecasts it worse. The others are faults of the data."""
_STORED: Final = {"confirmed": "certain", "withdrawn": "over"}
"""Names in checkpoints of the fields whose name there differs."""
_FIELD: Final = {stored: field for field, stored in _STORED.items()}


@dataclass(frozen=True, slots=True)
class LinkAlarm:
    """A detector of one link fired.

    >>> alarm = LinkAlarm(
    ...     time_s=600.0, region="eu", link="a|b", link_type="metro", signal=1, aspect="level", detector="cusum", direction=1,
    ...     confirmed=True, since_s=300.0, size_sigma=4.0, size=18.0, shown=1.0, growth=0.0, interval_s=60.0, offset=7, epoch=1,
    ... )
    >>> alarm.group, SIGNALS[alarm.signal]
    ('network', 'rtt_ms')
    >>> LinkAlarm.restored(alarm.state()) == alarm
    True

    Args:
        time_s: event time of the row, UTC seconds.
        signal: index into SIGNALS.
        detector: "cusum" (residuals moved), "cusum_spread" (they spread), "adwin" (their mean moved slowly, or by little), "level" (the
            metric moved away from earlier forecasts) or "data".
        direction: 1: up, or a fault has begun; -1: down, or it has ended.
        confirmed: the change is large enough for an alert by itself.
        since_s: likeliest time of the change, UTC seconds.
        size_sigma: size of the change in standard deviations of the residual; of a spread the factor by which it grew.
        size: size of the change in the metric's unit; of a spread the new mean absolute residual; of a unit the factor.
        shown: share of the change that the metric itself shows. 1: all of it; 0: nothing, so that the model is wrong.
        growth: how the change went on since it began. 0: a step; 2: a ramp.
        interval_s: between the link's rows, seconds.
        offset: offset of the row in its partition.
        epoch: which model is live, counted from 1.
        withdrawn: cancels an earlier, unconfirmed alarm of the opposite direction, because its sum fell back to zero. Its size is the part
            of the change that the metric has kept, because the model has followed it.
        noticed: the change is so small, or so new, that only many links together are evidence of it.
        small: the change is so small that neither one link nor a few of a region are an incident by it alone.
        before: level of the metric before the change, in its unit; of a spread the mean absolute residual; None if it is not known.
        also: detectors that have reported the same change of the link before.
    """

    time_s: float
    region: str
    link: str
    link_type: str
    signal: int
    aspect: Aspect
    detector: str
    direction: int
    confirmed: bool
    since_s: float
    size_sigma: float
    size: float
    shown: float
    growth: float
    interval_s: float
    offset: int
    epoch: int
    withdrawn: bool = False
    noticed: bool = False
    small: bool = False
    before: float | None = None
    also: tuple[str, ...] = ()

    @property
    def adopted(self) -> bool:
        """True if the detector has adopted the change as the new level. Only then a recovery is a change of its own, with alarms."""
        return self.detector == "adwin" or (self.confirmed and self.detector != "level")

    @property
    def group(self) -> Group:
        """Group of the change: the network itself, or only the data about it."""
        return "network" if self.aspect in ("level", "spread") else "data"

    def state(self) -> dict[str, Any]:
        """Return the alarm as plain values, under the names that checkpoints have."""
        return {_STORED.get(field, field): getattr(self, field) for field in self.__slots__}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> LinkAlarm:
        """Return the alarm of a `state`."""
        fields = {_FIELD.get(name, name): value for name, value in state.items()}
        return cls(**fields | {"also": tuple(fields.get("also", ()))})


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A monitored link has a residual, and counts as monitored for some of its intervals. Sent once in SEEN_EVERY_S.

    >>> LinkSeen(time_s=600.0, region="eu", link="a|b", interval_s=60.0, epoch=1).link
    'a|b'

    Args:
        time_s: event time of the row, UTC seconds.
        interval_s: between the link's rows, seconds.
        epoch: which model is live, counted from 1.
    """

    time_s: float
    region: str
    link: str
    interval_s: float
    epoch: int


@dataclass(frozen=True, slots=True)
class SignalChange:
    """The change of one signal in one direction: medians over the LinkAlarms of its links.

    >>> SignalChange("rtt_ms", "shift", direction=1, links=37, size_sigma=4.0, size=18.0, detectors=("cusum",)).size
    18.0

    Args:
        direction: 1: up; -1: down.
        links: how many links alarmed.
        size_sigma, size: see `LinkAlarm`.
        detectors: those that fired, sorted.
        before, after: level of the metric before the change and after it, in its unit, the median over the links; of a spread the mean
            absolute residual; None if it is not known.
    """

    signal: str
    change: Change
    direction: int
    links: int
    size_sigma: float
    size: float
    detectors: tuple[str, ...]
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """An incident was opened, updated or closed. See `RegionDrift`, which returns them.

    >>> closed = IncidentChange(
    ...     kind="closed", id="c0ffee", sequence=2, scope="region", group="network", region="eu", time_s=9000.0, opened_s=600.0,
    ...     since_s=300.0, signals=(), link_types=("metro",), regions=("eu",), affected_regions=1, links=("a|b",), affected_links=1,
    ...     watched_links=40, outcome="recovered",
    ... )
    >>> closed.outcome
    'recovered'

    Args:
        id: the same for all changes of an incident.
        sequence: 0 for the opening, and one more for each update.
        region: "" for the whole fleet.
        time_s, opened_s: event time of this change, and of the opening, UTC seconds.
        since_s: likeliest time of the change in the network, UTC seconds.
        regions, links: those that alarmed, the first NAMED by name.
        affected_regions, affected_links: how many have alarmed.
        watched_links: how many links are monitored.
        outcome: the end of a closed incident: "settled" (it is the new level: no new evidence, or the model follows), "recovered" (back at
            the old level), "model_replaced", or "region" or "fleet" (it became part of one of those). "" while it is open.
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
