"""The simulated fleet: its regions and links, what each link is like, and when it reports."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

from features.telemetry import DEFAULT_LINK_KEY, TARGETS, Doubles, Floats, Longs

if TYPE_CHECKING:
    from streams.simulator.planted import PlantedEvent

DEFAULT_START_S: Final = 1_767_571_200.0
"""2026-01-05T00:00:00Z, a Monday: long before any present day, because the daemon refuses times in the future."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEVEL_SD: Final = (
    0.35,
    0.20,
    0.40,
    0.25,
)  # of the logarithm, by TARGETS: spread of the links of a class
_TIERS: Final = ("Standard", "Premium", "Economy")
_TRANSPORTS: Final = ("tcp", "quic", "udp")


@dataclass(frozen=True, slots=True)
class Region:
    """A region and its time zone, which decides when its evening is."""

    name: str
    utc_offset_h: float


@dataclass(frozen=True, slots=True)
class LinkClass:
    """The properties of links of one type.

    Args:
        level: Typical value of each target, in the order of TARGETS.
        noise_sd: Standard deviation of the logarithm, in the order of TARGETS.
        load: Mean utilisation, 0 to 1.
    """

    level: tuple[float, float, float, float]
    noise_sd: tuple[float, float, float, float]
    load: float


LINK_CLASSES: Final = {
    #                       Mbit/s    ms    loss   ms
    "metro": LinkClass((800.0, 6.0, 0.0010, 0.6), (0.08, 0.05, 0.50, 0.20), 0.45),
    "long-haul": LinkClass((400.0, 75.0, 0.0020, 1.5), (0.10, 0.04, 0.50, 0.20), 0.50),
    "satellite": LinkClass((150.0, 45.0, 0.0080, 8.0), (0.20, 0.12, 0.60, 0.30), 0.40),
    "mobile": LinkClass((60.0, 38.0, 0.0050, 6.0), (0.25, 0.15, 0.60, 0.30), 0.50),
}

DEFAULT_REGIONS: Final = (
    Region("us-east-1", -5.0),
    Region("us-west-2", -8.0),
    Region("eu-west-1", 0.0),
    Region("ap-southeast-1", 8.0),
)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Everything that a simulated stream follows from. Equal specs make equal bytes.

    Args:
        seed: Of all random numbers.
        regions: The regions.
        links_per_region: How many links each region has.
        link_types: Keys of LINK_CLASSES, which the links of a region have in turn.
        interval_s: Between two records of a link, seconds.
        start_s: Of the stream, UTC seconds.
        hole_share: Share of the measurements that is missing. All shares are in steps of 1/65,536.
        gap_share: Share of the records that is never sent.
        late_share: Share of the records that arrives after the next record of its link.
        duplicate_share: Share of the records that is sent twice.
        events: Planted changes.

    Raises:
        ValueError: A value is out of range, a name is repeated or not usable, or an event is in an unknown region.
    """

    seed: int = 42
    regions: tuple[Region, ...] = DEFAULT_REGIONS
    links_per_region: int = 50
    link_types: tuple[str, ...] = tuple(LINK_CLASSES)
    interval_s: float = 60.0
    start_s: float = DEFAULT_START_S
    hole_share: float = 0.01
    gap_share: float = 0.002
    late_share: float = 0.001
    duplicate_share: float = 0.001
    events: tuple[PlantedEvent, ...] = ()

    def __post_init__(self) -> None:
        names = [region.name for region in self.regions]
        if not names or len(set(names)) < len(names) or not all(_NAME.fullmatch(name) for name in names):
            raise ValueError(f"regions {names}: give at least one, each once, of letters, digits, '.', '_' and '-'")
        unknown = set(self.link_types) - LINK_CLASSES.keys()
        if unknown or not self.link_types:
            raise ValueError(f"link_types {sorted(self.link_types)}: use some of {', '.join(LINK_CLASSES)}")
        if self.seed < 0 or self.links_per_region < 1:
            raise ValueError("seed must be at least 0 and links_per_region at least 1")
        if not (math.isfinite(self.start_s) and math.isfinite(self.interval_s) and self.interval_s >= 0.1):
            raise ValueError(f"interval_s is {self.interval_s}, start_s {self.start_s}: use finite numbers, interval_s at least 0.1")
        for name in ("hole_share", "gap_share", "late_share", "duplicate_share"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ValueError(f"{name} is {getattr(self, name)}: use a share between 0 and 0.5")
        for event in self.events:
            if event.region not in names:
                raise ValueError(f"an event is planted in region {event.region!r}: the fleet has {', '.join(names)}")

    @property
    def link_count(self) -> int:
        """Number of links of the fleet."""
        return len(self.regions) * self.links_per_region

    def tick_count(self, duration_s: float) -> int:
        """Return how many whole intervals a duration has. Raises ValueError if it has none."""
        ticks = int(duration_s // self.interval_s) if math.isfinite(duration_s) else 0
        if ticks < 1:
            raise ValueError(f"duration_s is {duration_s}: use a finite number, at least one interval of {self.interval_s} s")
        return ticks


@dataclass(frozen=True, slots=True)
class Fleet:
    """The L links of a spec, in the order in which they report within an interval.

    Args:
        spec: What the fleet follows from.
        names: For each of node_id, peer_id, region, az, link_type, network_tier and transport_type an object array (L,) of str.
        region: int64 (L,), index into the regions of the spec.
        phase_s: float64 (L,), when a link reports within the interval, seconds.
        level: float32 (4, L), logarithm of the level of each of TARGETS.
        noise_sd: float32 (4, L), standard deviation of that logarithm.
        cycle: float32 (L,), how strongly a link follows the day.
        load: float32 (L,), mean utilisation, 0 to 1.
        sent: float32 (L,), share of the traffic that the node sends.
        hashes: uint64 (L,), depend on the seed and the key of the link alone.
    """

    spec: FleetSpec
    names: dict[str, np.ndarray[tuple[int], np.dtype[np.object_]]]
    region: Longs
    phase_s: Doubles
    level: Floats
    noise_sd: Floats
    cycle: Floats
    load: Floats
    sent: Floats
    hashes: np.ndarray[tuple[int], np.dtype[np.uint64]]

    def __len__(self) -> int:
        return len(self.region)

    def key(self, link: int) -> bytes:
        """Return the Kafka key of a link, which keeps its records in order, in one partition."""
        return "|".join(self.names[column][link] for column in DEFAULT_LINK_KEY).encode()


def build_fleet(spec: FleetSpec) -> Fleet:
    """Return the links of a spec. Events change nothing here: runs with and without them have the same links."""
    count = spec.link_count
    rng = np.random.default_rng([spec.seed, 0])
    region = np.repeat(np.arange(len(spec.regions)), spec.links_per_region)
    number = np.tile(np.arange(spec.links_per_region), len(spec.regions))
    kind = number % len(spec.link_types)
    classes = [LINK_CLASSES[spec.link_types[k]] for k in kind]
    spread = rng.standard_normal((len(TARGETS), count)) * np.array(_LEVEL_SD)[:, None]
    phase_s = np.floor(rng.random(count) * spec.interval_s * 1000) / 1000
    order = np.argsort(phase_s, kind="stable")
    names = _names(spec, region, number, kind, rng)
    hashes = np.array([_hash(spec.seed, *(names[c][i] for c in DEFAULT_LINK_KEY)) for i in range(count)], np.uint64)
    level = np.log(np.array([c.level for c in classes]).T) + spread
    load = np.clip(np.array([c.load for c in classes]) + 0.08 * rng.standard_normal(count), 0.1, 0.8)
    return Fleet(
        spec=spec,
        names={column: values[order] for column, values in names.items()},
        region=region[order],
        phase_s=phase_s[order],
        level=level[:, order].astype(np.float32),
        noise_sd=np.array([c.noise_sd for c in classes]).T[:, order].astype(np.float32),
        cycle=np.exp(0.2 * rng.standard_normal(count)).astype(np.float32)[order],
        load=load.astype(np.float32)[order],
        sent=rng.uniform(0.3, 0.7, count).astype(np.float32)[order],
        hashes=hashes[order],
    )


def _names(
    spec: FleetSpec, region: Longs, number: Longs, kind: Longs, rng: np.random.Generator
) -> dict[str, np.ndarray[tuple[int], np.dtype[np.object_]]]:
    regions = [spec.regions[r].name for r in region]
    columns = {
        "node_id": [f"{name}-node-{n // 4:04d}" for name, n in zip(regions, number, strict=True)],  # a node has four links
        "peer_id": [f"{name}-peer-{n:05d}" for name, n in zip(regions, number, strict=True)],
        "region": regions,
        "az": [f"{name}{'abc'[n // 4 % 3]}" for name, n in zip(regions, number, strict=True)],
        "link_type": [spec.link_types[k] for k in kind],
        "network_tier": [_TIERS[i] for i in rng.choice(3, len(regions), p=(0.5, 0.3, 0.2))],
        "transport_type": [_TRANSPORTS[i] for i in rng.choice(3, len(regions), p=(0.6, 0.3, 0.1))],
    }
    return {name: np.array(values, dtype=object) for name, values in columns.items()}


def _hash(*parts: object) -> int:
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "little")
