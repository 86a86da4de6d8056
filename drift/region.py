"""The region stage: joins the links of a region in event-time buckets of one minute, and decides when the region drifts.

A bucket closes when the watermark, the least event time over the partitions, has passed it; its messages are then taken in the order
of their links. So the result depends on neither the batches nor the interleaving of partitions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from drift.incident import Incident
from drift.link import ADWIN_DELTA, CLIP_SIGMA, adwin_state, restored_adwin
from drift.messages import IncidentChange, LinkAlarm, RegionSample
from drift.river_detectors import ADWIN
from features.telemetry import TARGETS

BUCKET_S: Final = 60.0
CALIBRATION_BUCKETS: Final = 60
REGIONS_MAX: Final = 20_000
"""Some 2 kB each. A link may name another region in each of its records, so the number of watched links is no limit."""


@dataclass(frozen=True, slots=True)
class QuorumPolicy:
    """When alarms of single links become one incident of their region."""

    links_min: int = 3
    links_share: float = 0.02
    window_s: float = 1800.0
    quiet_s: float = 3600.0
    """An incident closes after this long without new evidence."""

    def quorum(self, watched: int) -> int:
        return max(self.links_min, math.ceil(self.links_share * watched))


@dataclass(slots=True)
class _Level:
    """The mean absolute residual of one metric over the links of one region: calibration (Welford), then River's ADWIN."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    adwin: ADWIN = field(default_factory=lambda: ADWIN(delta=ADWIN_DELTA))

    def fired(self, level: float) -> bool:
        if self.count < CALIBRATION_BUCKETS:
            self.count += 1
            step = level - self.mean
            self.mean += step / self.count
            self.squares += step * (level - self.mean)
            return False
        scale = max(math.sqrt(self.squares / (CALIBRATION_BUCKETS - 1)), 1e-6)
        before = self.adwin.estimation
        self.adwin.update(max(-CLIP_SIGMA, min(CLIP_SIGMA, (level - self.mean) / scale)))
        # A level that falls is a model that fits better than before: nothing to alert anybody about.
        return bool(self.adwin.drift_detected) and self.adwin.estimation > before


@dataclass(slots=True)
class _Region:
    epoch: int = 0
    levels: list[_Level] = field(default_factory=lambda: [_Level() for _ in TARGETS])
    watched: dict[str, float] = field(default_factory=dict)  # link -> time of its last sample
    alarms: list[LinkAlarm] = field(default_factory=list)  # of the last window_s
    incident: Incident | None = None

    @property
    def seen_s(self) -> float:
        """Time of its newest message, as far as it is remembered."""
        return max([*self.watched.values(), *(alarm.time_s for alarm in self.alarms)], default=-math.inf)


class RegionDrift:
    """Region detectors, quorum and incidents of one process."""

    def __init__(self, policy: QuorumPolicy | None = None) -> None:
        self.policy = policy or QuorumPolicy()
        self.closed_through = -(2**62)
        """The last closed bucket (its start divided by 60 s); what comes for it or an earlier one is late."""
        self.late = 0
        self.forgotten = 0
        """Regions that were forgotten since the start because there were too many."""
        self._buckets: defaultdict[int, tuple[list[LinkAlarm], list[RegionSample]]] = defaultdict(lambda: ([], []))
        self._regions: dict[str, _Region] = {}

    @property
    def open_incidents(self) -> int:
        return sum(region.incident is not None for region in self._regions.values())

    def observe(self, alarms: Sequence[LinkAlarm], samples: Sequence[RegionSample]) -> None:
        """Keeps messages of the link stage until their bucket closes. Late ones are counted and left out."""
        for alarm in alarms:
            if (bucket := _bucket(alarm.time_s)) > self.closed_through:
                self._buckets[bucket][0].append(alarm)
            else:
                self.late += 1
        for sample in samples:
            if (bucket := _bucket(sample.time_s)) > self.closed_through:
                self._buckets[bucket][1].append(sample)
            else:
                self.late += 1

    def advance(self, watermark_s: float) -> list[IncidentChange]:
        """Closes every bucket that ends at or before the watermark (UTC seconds), oldest first, and says what changed."""
        if not math.isfinite(watermark_s):
            return []
        through = _bucket(watermark_s) - 1
        changes: list[IncidentChange] = []
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= through):
            changes += self._close(bucket, *self._buckets.pop(bucket))
        if through > self.closed_through:
            self.closed_through = through
            changes += self._close_quiet((through + 1) * BUCKET_S)
        return changes

    def _close(self, bucket: int, alarms: list[LinkAlarm], samples: list[RegionSample]) -> list[IncidentChange]:
        now_s = (bucket + 1) * BUCKET_S
        by_region: defaultdict[str, tuple[list[LinkAlarm], list[RegionSample]]] = defaultdict(lambda: ([], []))
        for alarm in _sorted_alarms(alarms):
            by_region[alarm.region][0].append(alarm)
        for sample in _sorted_samples(samples):
            by_region[sample.region][1].append(sample)
        # Whoever is quiet long enough closes before new evidence could keep an incident open that had ended.
        changes = self._close_quiet(now_s)
        for name in sorted(by_region):
            region = self._regions.setdefault(name, _Region())
            if change := self._judge(name, region, now_s, *by_region[name]):
                changes.append(change)
        self._forget()
        return changes

    def _forget(self) -> None:
        """Of too many regions those go whose last message is the oldest, an eighth of them; one with an open incident stays longer."""
        going = len(self._regions) - REGIONS_MAX
        if going > 0:
            oldest_first = sorted(self._regions.items(), key=lambda one: (one[1].incident is not None, one[1].seen_s, one[0]))
            for name, _ in oldest_first[: going + REGIONS_MAX // 8]:
                del self._regions[name]
                self.forgotten += 1

    def _judge(
        self, name: str, region: _Region, now_s: float, alarms: list[LinkAlarm], samples: list[RegionSample]
    ) -> IncidentChange | None:
        """Takes one bucket of one region, and opens or updates its incident."""
        newest = max(region.epoch, *(alarm.epoch for alarm in alarms), *(sample.epoch for sample in samples), 0)
        if newest > region.epoch:  # another model went live: its residuals have another level
            region.epoch, region.alarms, region.levels = newest, [], [_Level() for _ in TARGETS]
        alarms = [alarm for alarm in alarms if alarm.epoch == region.epoch]
        samples = [sample for sample in samples if sample.epoch == region.epoch]
        for sample in samples:
            region.watched[sample.link] = sample.time_s
        region.watched = {link: at_s for link, at_s in region.watched.items() if at_s > now_s - self.policy.window_s}
        region.alarms = [alarm for alarm in region.alarms if alarm.time_s > now_s - self.policy.window_s] + alarms
        levels = {metric for metric, level in enumerate(region.levels) if _level_fired(level, metric, samples)}
        quorum = self.policy.quorum(len(region.watched))
        links_of: defaultdict[int, set[str]] = defaultdict(set)
        for alarm in region.alarms:
            links_of[alarm.metric].add(alarm.link)
        drifting = {metric for metric, links in links_of.items() if len(links) >= quorum}
        if not drifting and not levels:
            return None
        if region.incident is None:
            cause = "quorum" if drifting else "adwin"
            region.incident = Incident.opened(name, now_s, region.alarms, drifting | levels, len(region.watched), cause)
            return region.incident.change("opened", now_s)
        # An old alarm that is still in the window is no new evidence.
        if alarms or levels:
            return region.incident.take(now_s, region.alarms, drifting | levels, len(region.watched))
        return None

    def _close_quiet(self, now_s: float) -> list[IncidentChange]:
        changes = []
        for name in sorted(self._regions):
            region = self._regions[name]
            incident = region.incident
            if incident is not None and now_s - incident.evidence_s >= self.policy.quiet_s:
                region.incident = None
                changes.append(incident.closed(incident.evidence_s + self.policy.quiet_s))
        return changes

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists, strings and bytes."""
        return {
            "closed_through": self.closed_through,
            "late": self.late,
            "buckets": [
                [bucket, [asdict(alarm) for alarm in _sorted_alarms(alarms)], [asdict(sample) for sample in _sorted_samples(samples)]]
                for bucket, (alarms, samples) in sorted(self._buckets.items())
            ],
            "regions": {
                name: {
                    "epoch": region.epoch,
                    "levels": [[level.count, level.mean, level.squares, adwin_state(level.adwin)] for level in region.levels],
                    "watched": region.watched,
                    "alarms": [asdict(alarm) for alarm in region.alarms],
                    "incident": region.incident.state() if region.incident else None,
                }
                for name, region in sorted(self._regions.items())
            },
        }

    @classmethod
    def restored(cls, state: dict[str, Any], policy: QuorumPolicy | None = None) -> RegionDrift:
        drift = cls(policy)
        drift.closed_through, drift.late = state["closed_through"], state["late"]
        for bucket, alarms, samples in state["buckets"]:
            drift._buckets[bucket] = (
                [LinkAlarm(**alarm) for alarm in alarms],
                [RegionSample(**{**sample, "absolute": tuple(sample["absolute"])}) for sample in samples],
            )
        for name, kept in state["regions"].items():
            drift._regions[name] = _Region(
                epoch=kept["epoch"],
                levels=[_Level(count, mean, squares, restored_adwin(adwin)) for count, mean, squares, adwin in kept["levels"]],
                watched=kept["watched"],
                alarms=[LinkAlarm(**alarm) for alarm in kept["alarms"]],
                incident=Incident.restored(kept["incident"]) if kept["incident"] else None,
            )
        return drift


def _sorted_alarms(alarms: Sequence[LinkAlarm]) -> list[LinkAlarm]:
    """In an order that does not depend on the interleaving of partitions."""
    return sorted(alarms, key=lambda alarm: (alarm.link, alarm.time_s, alarm.metric))


def _sorted_samples(samples: Sequence[RegionSample]) -> list[RegionSample]:
    return sorted(samples, key=lambda sample: (sample.link, sample.time_s))


def _bucket(time_s: float) -> int:
    return math.floor(time_s / BUCKET_S)


def _level_fired(level: _Level, metric: int, samples: Sequence[RegionSample]) -> bool:
    values = [value for sample in samples if (value := sample.absolute[metric]) is not None]
    return bool(values) and level.fired(math.fsum(values) / len(values))
