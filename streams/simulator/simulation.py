"""The fleet simulator: daily and weekly load, autocorrelated noise with heavy tails, planted events, and imperfect delivery.

Pure and seeded. Each metric is exp(level ± (cycle + noise_sd * noise)). The noise is a sum of AR(1) processes of unit variance: the load of
the link, a small share of that of the region, and the metric's own. Random numbers are drawn per block of ticks, from separate streams for
the noise and for the delivery, and events draw none: what an event does not touch is the same to the bit with and without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np

from features.telemetry import TARGETS, Doubles, Flags, Floats, Longs
from streams.simulator.fleet import Fleet, FleetSpec, build_fleet
from streams.simulator.planted import affected_links, apply_event
from streams.simulator.records import COUNTERS, Records

_BLOCK_RECORDS: Final = 65_536  # 20 arrays of a block stay near the cache: 5 MB at 4 bytes
_LATENTS: Final = 1 + len(TARGETS)  # a link's load, then its own noise for each metric

# Autocorrelation from one sample to the next, per latent. Per sample, not per second: as predictable at any reporting interval.
_PHI: Final = np.array([0.90, 0.75, 0.70, 0.50, 0.60], np.float32)
_REGION_PHI: Final = np.float32(0.95)
# How much of a metric's standard deviation comes from the link's load and from its region; its own noise brings it to 1.
_LOAD_WEIGHT: Final = np.array([0.50, 0.60, 0.50, 0.55], np.float32)
_REGION_WEIGHT: Final = np.float32(0.20)
_OWN_WEIGHT: Final = np.sqrt(1 - _LOAD_WEIGHT**2 - _REGION_WEIGHT**2)
# How far the evening's peak moves each metric's logarithm, and which way is worse: less throughput, more of the others.
_CYCLE: Final = np.array([0.25, 0.20, 0.60, 0.35], np.float32)
_WORSE: Final = np.array([-1, 1, 1, 1], np.float32)

_BITS_PER_BYTE: Final = 8
_SEGMENT_BYTES: Final = 1460
_PROBED_SEGMENTS: Final = 1200  # retransmits are counted among as many segments of a record


@cache
def _heavy_tails() -> Floats:
    """Return equally likely values of Student's t with 4 degrees of freedom, scaled to unit variance: float32 (65536,).

    The quantile has a closed form (Shaw, 2006, "Sampling Student's t distribution"); a table of it is nine times faster than drawing
    t itself, and its largest value, 18 standard deviations, keeps every metric plausible.
    """
    p = (np.arange(65_536) + 0.5) / 65_536
    root = np.sqrt(4 * p * (1 - p))
    t = np.sign(p - 0.5) * 2 * np.sqrt(np.maximum(np.cos(np.arccos(root) / 3) / root - 1, 0))
    return np.asarray(t / t.std(), np.float32)


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return np.take(_heavy_tails(), rng.integers(0, 65_536, shape, np.uint16))


def simulate(spec: FleetSpec, duration_s: float) -> Iterator[Records]:
    """Yield the records of a run, a block at a time, in order of arrival. A shorter run is the start of a longer one."""
    ticks = spec.tick_count(duration_s)
    simulation = Simulation(spec)
    while simulation.next_tick < ticks:
        yield simulation.block().until_tick(ticks)


class Simulation:
    """The state of a run: its position, and the last values of its AR(1) processes."""

    def __init__(self, spec: FleetSpec, fleet: Fleet | None = None) -> None:
        self.fleet = fleet or build_fleet(spec)
        self.next_tick = 0
        self._spec = spec
        self._block_ticks = max(4, _BLOCK_RECORDS // spec.link_count)
        # Changes of variance first: they scale the noise, not what other events add to it.
        events = sorted(spec.events, key=lambda event: event.kind != "variance")
        self._events = [(event, affected_links(self.fleet, event)) for event in events]
        rng = np.random.default_rng([spec.seed, 1])
        self._last = _draw(rng, (_LATENTS, spec.link_count))
        self._region_last = _draw(rng, (len(spec.regions),))

    def block(self) -> Records:
        """Return the next block: T ticks of all L links."""
        first, fleet = self.next_tick, self.fleet
        tick_s = np.asarray(self._spec.start_s + np.arange(first, first + self._block_ticks) * self._spec.interval_s)
        time_s = np.round(tick_s[:, None] + fleet.phase_s, 3)
        load, noise = self._noise(np.random.default_rng([self._spec.seed, 2, first]))
        for event, links in self._events:
            apply_event(event, links, fleet, first, time_s, noise)
        cycle = daily_cycle(tick_s, [region.utc_offset_h for region in self._spec.regions])[:, fleet.region] * fleet.cycle
        columns = _metrics(fleet, cycle, load, noise)
        delivery = np.random.default_rng([self._spec.seed, 3, first])
        rows, slots = _deliver(self._spec, delivery, time_s.shape)
        self._punch_holes(delivery, columns)
        self.next_tick += self._block_ticks
        return Records(fleet, first, time_s.ravel(), {name: c.ravel() for name, c in columns.items()}, rows, slots)

    def _noise(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return the noise of the load (T, L) and of each metric (T, 4, L). Both have unit variance, and positive is worse."""
        latent = _draw(rng, (self._block_ticks, _LATENTS, len(self.fleet)))
        regional = _draw(rng, (self._block_ticks, len(self._spec.regions)))
        latent *= np.sqrt(1 - _PHI**2)[:, None]
        regional *= np.sqrt(1 - _REGION_PHI**2)
        latent[0] += _PHI[:, None] * self._last
        regional[0] += _REGION_PHI * self._region_last
        for before, now in pairwise(latent):
            now += _PHI[:, None] * before
        for before, now in pairwise(regional):
            now += _REGION_PHI * before
        self._last, self._region_last = latent[-1].copy(), regional[-1].copy()
        load, noise = latent[:, 0], latent[:, 1:] * _OWN_WEIGHT[:, None]
        noise += _LOAD_WEIGHT[:, None] * load[:, None]
        noise += _REGION_WEIGHT * regional[:, self.fleet.region][:, None]
        return load, noise

    def _punch_holes(self, rng: np.random.Generator, columns: dict[str, Floats]) -> None:
        """Replace a share of the measurements by NaN: each metric for itself, the counters together, never all four metrics."""
        if not self._spec.hole_share:
            return
        hole = _coin(rng, self._spec.hole_share, (len(TARGETS) + 1, *columns["rtt_ms"].shape))
        hole[TARGETS.index("rtt_ms")] &= ~hole[: len(TARGETS)].all(axis=0)
        for name, missing in zip(TARGETS, hole, strict=False):
            columns[name][missing] = np.nan
        for name in COUNTERS:
            columns[name][hole[-1]] = np.nan


def daily_cycle(tick_s: Doubles, utc_offset_h: list[float]) -> Floats:
    """Return the course of the load over day and week, about -0.8 to 1.2. The peak is at half past eight in the evening.

    Args:
        tick_s: float64 (T,), UTC seconds.
        utc_offset_h: Time zone of each region, hours.

    Returns:
        float32 (T, regions).
    """
    local_h = tick_s[:, None] / 3600 + np.array(utc_offset_h)
    evening = 2 * np.pi * (local_h - 20.5) / 24
    saturday = 2 * np.pi * (local_h / 24 - 2.5) / 7  # the epoch was a Thursday: Saturday noon is 2.5 days after it
    return np.asarray(0.8 * np.cos(evening) + 0.2 * np.cos(2 * evening) + 0.2 * np.cos(saturday), np.float32)


def _metrics(fleet: Fleet, cycle: Floats, load_noise: Floats, noise: Floats) -> dict[str, Floats]:
    """Return the measured columns, each (T, L), from the cycle (T, L), the load's noise (T, L) and the metrics' noise (T, 4, L)."""
    worse = noise * fleet.noise_sd + cycle[:, None] * _CYCLE[:, None]
    metric = np.exp(fleet.level + _WORSE[:, None] * worse)
    throughput, rtt, loss, jitter = (np.ascontiguousarray(metric[:, i]) for i in range(len(TARGETS)))
    np.minimum(loss, 1, out=loss)
    load = np.clip(fleet.load + 0.2 * cycle + 0.06 * load_noise, 0.02, 0.98)
    carried = throughput.astype(np.float64) * (1e6 / _BITS_PER_BYTE * fleet.spec.interval_s) * load
    in_flight = throughput * rtt * np.float32(1e6 / _BITS_PER_BYTE / 1000 / _SEGMENT_BYTES)  # bandwidth-delay product, in segments
    return {
        "throughput_mbps": throughput,
        "rtt_ms": rtt,
        "packet_loss": loss,
        "jitter_ms": jitter,
        "bytes_tx": np.rint(carried * fleet.sent),
        "bytes_rx": np.rint(carried * (1 - fleet.sent)),
        "retransmits": np.rint(_PROBED_SEGMENTS * loss * (0.7 + 0.6 * load)),
        "congestion_window": np.rint(np.maximum(in_flight * (1.3 - load) / (1 + 8 * np.sqrt(loss)), 4)),  # 4: the least a sender keeps
        "queue_depth": np.rint(np.minimum(40 * load / (1.05 - load) * np.exp(0.25 * noise[:, 3]), 10_000)),
        "dwcp_mode": np.digitize(load, (0.45, 0.7)),  # index into MODES
    }


def _coin(rng: np.random.Generator, share: float, shape: tuple[int, ...]) -> Flags:
    return np.asarray(rng.integers(0, 65_536, shape, np.uint16) < round(share * 65_536))


def _deliver(spec: FleetSpec, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Longs, Longs]:
    """Return which of T x L records arrive, in which order, and in whose place: rows and slots, int64, indices into (T, L) flattened.

    A late record comes after its link's next one, a repeat after itself. A record of the last tick of a block is never
    late, so that a block needs nothing of the next one. The others are late that much more often.
    """
    ticks, links = shape
    sent = ~_coin(rng, spec.gap_share, shape)
    late = _coin(rng, min(1.0, spec.late_share * ticks / (ticks - 1)), shape) & sent
    late[-1] = False
    late[:-1] &= sent[1:]
    for k in range(ticks - 2, -1, -1):
        late[k] &= ~late[k + 1]
    repeated = np.flatnonzero(_coin(rng, spec.duplicate_share, shape) & sent & ~late)
    on_time, delayed = np.flatnonzero(sent & ~late), np.flatnonzero(late)
    rows = np.concatenate((on_time, repeated, delayed))
    slots = np.concatenate((on_time, repeated, delayed + links))
    order = np.argsort(slots, kind="stable")  # of equal places: the record, its repeat, the late one
    return rows[order], slots[order]
