"""What the benchmark of alerts simulates: fleets, and the changes that are planted in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from streams.simulator.fleet import DEFAULT_REGIONS, Region
from streams.simulator.planted import Kind

DAY_H: Final = 24.0
FIRST_DAY_H: Final = 8.0
FIFTH_DAY_H: Final = 100.0
"""Hours after the first version at which changes are planted."""


@dataclass(frozen=True, slots=True)
class Change:
    """A planted change.

    Args:
        share: of the region's links; 0: one link.
        hours: how long it lasts.
    """

    name: str
    kind: Kind
    size_sd: float
    share: float
    metrics: tuple[str, ...] = ("rtt_ms",)
    hours: float = 10.0
    ramp_h: float = 6.0

    def share_of(self, links: int) -> float:
        return self.share or 1.0 / links


CHANGES: Final = (
    *(Change(f"{size}s_{share}", "step", float(size), share / 100) for size in (1, 2, 4) for share in (5, 20, 80)),
    Change("reroute_80", "reroute", 3.0, 0.8, ("throughput_mbps", "rtt_ms", "jitter_ms")),
    Change("spread_80", "variance", 2.0, 0.8),
    Change("ramp_80", "ramp", 3.0, 0.8),
    Change("loss_burst_80", "loss_burst", 3.0, 0.8, ("packet_loss",), hours=0.5),
    Change("outage_80", "step", 30.0, 0.8, ("throughput_mbps",), hours=0.5),
    Change("one_link", "step", 4.0, 0.0),
)
"""A step of throughput by 30 standard deviations is an outage: next to nothing gets through."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A simulated fleet.

    Args:
        links: of each region.
        first_h: hours before the first training.
        hours: of the whole run.
        changes: index of the first planted change, -1: nothing is planted. Each region gets one in the first day of the first version and
            another on the fifth, in turn.
        busy: restarts, new links, models that are replaced, a deploy and a doubled sampling rate.
    """

    seed: int
    links: int
    regions: int = 4
    first_h: float = 36.0
    hours: float = 276.0
    changes: int = -1
    busy: bool = False

    @property
    def region_list(self) -> tuple[Region, ...]:
        return DEFAULT_REGIONS[: self.regions]


def planted_at(fleet: Fleet) -> Iterator[tuple[Region, Change, float]]:
    """Yield region, change and hour of each planted change of a fleet."""
    if fleet.changes < 0:
        return
    number = fleet.changes
    for hour in (FIRST_DAY_H, FIFTH_DAY_H):
        for region in fleet.region_list:
            yield region, CHANGES[number % len(CHANGES)], fleet.first_h + hour
            number += 1
