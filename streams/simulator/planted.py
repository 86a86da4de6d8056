"""Planted events: changes of a simulated fleet with known time, place, size and kind, so that detection can be scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from features.telemetry import DEFAULT_LINK_KEY, TARGETS, Doubles, Flags, Floats, Longs
from streams.simulator.fleet import Fleet, FleetSpec, build_fleet

Kind: TypeAlias = Literal["step", "ramp", "variance", "loss_burst", "reroute"]

DEFAULT_METRICS: Final[dict[Kind, tuple[str, ...]]] = {
    "step": ("rtt_ms",),
    "ramp": ("rtt_ms",),
    "variance": ("rtt_ms",),
    "loss_burst": ("packet_loss",),
    "reroute": ("throughput_mbps", "rtt_ms", "jitter_ms"),
}
REROUTE_HALF_GAP: Final = 0.75
"""Half the distance between the two paths after a reroute, as a share of the level's move: the nearer path is still worse than the old."""
BURST_TICKS: Final = 10
BURST_SHARE: Final = 0.4
"""Probability that a stretch of BURST_TICKS intervals of a link is a loss burst."""


@dataclass(frozen=True, slots=True)
class PlantedEvent:
    """One change of a share of a region's links.

    The kinds are: step, the level moves by size_sd. ramp, it moves there linearly over ramp_s, and stays. variance, the noise is size_sd
    times as large. loss_burst, bursts of size_sd above the level. reroute, the level moves by size_sd, and samples alternate between two
    load-balanced paths, x_t = level + (-1)^t d / 2 + noise with d / 2 = REROUTE_HALF_GAP * size_sd: what hashing flows over two unequal
    paths looks like to a prober. A model of the old dynamics stays wrong until it is trained again.

    Args:
        kind: See above.
        start_s: UTC seconds.
        region: Name of the region.
        duration_s: Seconds. None: for ever.
        links_share: Share of the region's links that change.
        size_sd: Size in standard deviations of each metric's noise. Positive is worse: less throughput, more of the others.
        metrics: Some of TARGETS. None given: those of DEFAULT_METRICS for the kind.
        ramp_s: Length of a ramp, seconds.

    Raises:
        ValueError: A value is out of range.
    """

    kind: Kind
    start_s: float
    region: str
    duration_s: float | None = None
    links_share: float = 0.5
    size_sd: float = 3.0
    metrics: tuple[str, ...] = ()
    ramp_s: float = 6 * 3600.0

    def __post_init__(self) -> None:
        if self.kind not in DEFAULT_METRICS:
            raise ValueError(f"kind {self.kind!r} is unknown: use one of {', '.join(DEFAULT_METRICS)}")
        if not set(self.metrics) <= set(TARGETS):
            raise ValueError(f"metrics {self.metrics}: use some of {', '.join(TARGETS)}")
        if not 0 < self.links_share <= 1:
            raise ValueError(f"links_share is {self.links_share}: use a share above 0, at most 1")
        if not math.isfinite(self.start_s) or self.ramp_s <= 0 or (self.duration_s is not None and self.duration_s <= 0):
            raise ValueError("start_s must be finite, ramp_s and duration_s above 0 (duration_s None: for ever)")
        if not math.isfinite(self.size_sd) or self.size_sd == 0 or (self.kind == "variance" and self.size_sd < 0):
            raise ValueError(f"size_sd is {self.size_sd}: use a finite number other than 0, above 0 for a change of variance")

    @property
    def end_s(self) -> float:
        """End of the event, UTC seconds; infinite if it does not end."""
        return math.inf if self.duration_s is None else self.start_s + self.duration_s

    @property
    def affected_metrics(self) -> tuple[str, ...]:
        """The metrics that change."""
        return self.metrics or DEFAULT_METRICS[self.kind]


def affected_links(fleet: Fleet, event: PlantedEvent) -> Longs:
    """Return the links of an event, int64, ascending. A stable hash ranks the links, so a larger share contains a smaller one."""
    names = [region.name for region in fleet.spec.regions]
    members = np.flatnonzero(fleet.region == names.index(event.region))
    ranked = members[np.argsort(fleet.hashes[members], kind="stable")]
    return np.sort(ranked[: max(1, round(event.links_share * len(members)))])


def apply_event(event: PlantedEvent, links: Longs, fleet: Fleet, first_tick: int, time_s: Doubles, noise: Floats) -> None:
    """Change the affected part of `noise` in place.

    What an event does follows from the time, the tick and the hash of the link. It draws no random numbers, so every other value of the
    fleet stays what it would be without the event.

    Args:
        event: The event.
        links: int64, from `affected_links`.
        fleet: The fleet of L links.
        first_tick: Number of the first of T ticks.
        time_s: float64 (T, L), UTC seconds.
        noise: float32 (T, 4, L), in standard deviations, positive is worse, metrics in the order of TARGETS.
    """
    if event.end_s <= time_s[0, 0] or event.start_s > time_s[-1, -1]:
        return
    at_s = time_s[:, links]
    active = (at_s >= event.start_s) & (at_s < event.end_s)
    ticks = np.arange(first_tick, first_tick + len(time_s))
    shift = _shift(event, fleet.hashes[links], ticks, at_s)
    for metric in event.affected_metrics:
        part = noise[:, TARGETS.index(metric), :]
        if event.kind == "variance":
            part[:, links] *= np.where(active, np.float32(event.size_sd), np.float32(1))
        else:
            part[:, links] += np.where(active, shift, 0).astype(np.float32)


def _shift(event: PlantedEvent, hashes: np.ndarray[Any, np.dtype[np.uint64]], ticks: Longs, at_s: Doubles) -> Doubles:
    """Return the value added to the noise during the event, in standard deviations: float64, broadcasts to (T, affected links)."""
    if event.kind == "ramp":
        return np.asarray(event.size_sd * np.clip((at_s - event.start_s) / event.ramp_s, 0, 1))
    if event.kind == "loss_burst":
        return np.asarray(event.size_sd * _in_burst(hashes, ticks))
    if event.kind == "reroute":
        path = 1.0 - 2.0 * ((ticks[:, None] + (hashes & np.uint64(1)).astype(np.int64)) % 2)
        return np.asarray(event.size_sd * (1 + REROUTE_HALF_GAP * path))
    return np.full((1, 1), event.size_sd)


def _in_burst(hashes: np.ndarray[Any, np.dtype[np.uint64]], ticks: Longs) -> Flags:
    """Toss a coin for each link and stretch of BURST_TICKS, with the finaliser of SplitMix64 (Steele et al., 2014). bool (T, links)."""
    mixed = hashes + (ticks // BURST_TICKS).astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.asarray(uniform < BURST_SHARE)


def ground_truth(spec: FleetSpec) -> dict[str, Any]:
    """Return the planted events, JSON-ready, with times in UTC seconds and RFC 3339, and links by their key."""
    fleet = build_fleet(spec)
    return {
        "seed": spec.seed,
        "start_s": spec.start_s,
        "interval_s": spec.interval_s,
        "regions": {region.name: spec.links_per_region for region in spec.regions},
        "link_key": list(DEFAULT_LINK_KEY),
        "events": [_event_truth(event, fleet) for event in spec.events],
    }


def _event_truth(event: PlantedEvent, fleet: Fleet) -> dict[str, Any]:
    links = affected_links(fleet, event)
    return {
        "kind": event.kind,
        "region": event.region,
        "start_s": event.start_s,
        "start": datetime.fromtimestamp(event.start_s, UTC).isoformat().replace("+00:00", "Z"),
        "end_s": None if event.duration_s is None else event.end_s,
        "ramp_s": event.ramp_s if event.kind == "ramp" else None,
        "size_sd": event.size_sd,
        "metrics": list(event.affected_metrics),
        "links_share": len(links) / fleet.spec.links_per_region,
        "links": [[fleet.names[column][link] for column in DEFAULT_LINK_KEY] for link in links],
    }
