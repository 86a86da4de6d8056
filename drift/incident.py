"""One incident of one region: what an operator hears about, once, however many links alarm."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, Literal

from drift.messages import IncidentChange, LinkAlarm, MetricChange
from features.telemetry import TARGETS

GROWTH: Final = 1.5
"""An update is worth telling when another metric joins, or the affected links have grown by half."""


@dataclass(slots=True)
class Incident:
    """An open incident. evidence_s: event time of the newest evidence for it."""

    id: str
    region: str
    opened_s: float
    evidence_s: float
    cause: str
    sequence: int
    metrics: tuple[MetricChange, ...]
    link_types: tuple[str, ...]
    affected: int
    watched: int

    @classmethod
    def opened(
        cls, region: str, now_s: float, alarms: Sequence[LinkAlarm], drifting: set[int], watched: int, cause: str
    ) -> Incident:  # fmt: skip
        """An incident whose id follows from what opened it, so that a replay gives the same."""
        first = alarms[0] if alarms else None
        origin = (region, f"{now_s:.0f}", cause, *((first.link, first.metric, first.detector, first.offset) if first else ()))
        digest = hashlib.sha256("\x1f".join(map(str, origin)).encode()).hexdigest()[:32]
        incident = cls(digest, region, now_s, now_s, cause, 0, (), (), 0, watched)
        incident._describe(alarms, drifting)
        return incident

    def take(self, now_s: float, alarms: Sequence[LinkAlarm], drifting: set[int], watched: int) -> IncidentChange | None:
        """New evidence. Gives an update where it tells an operator something new."""
        self.evidence_s, self.watched = now_s, watched
        known = {change.metric for change in self.metrics}
        affected = len({alarm.link for alarm in alarms if alarm.metric in drifting})
        if {TARGETS[metric] for metric in drifting} <= known and affected < GROWTH * max(1, self.affected):
            return None
        self._describe(alarms, drifting | {TARGETS.index(metric) for metric in known})
        self.sequence += 1
        return self.change("updated", now_s)

    def closed(self, now_s: float) -> IncidentChange:
        self.sequence += 1
        return self.change("closed", now_s)

    def change(self, kind: Literal["opened", "updated", "closed"], now_s: float) -> IncidentChange:
        return IncidentChange(
            kind, self.id, self.sequence, self.region, now_s, self.opened_s, self.metrics, self.link_types, self.affected, self.watched,
            self.cause,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Incident:
        metrics = tuple(MetricChange(**{**change, "detectors": tuple(change["detectors"])}) for change in state["metrics"])
        return cls(**{**state, "metrics": metrics, "link_types": tuple(state["link_types"])})

    def _describe(self, alarms: Sequence[LinkAlarm], drifting: set[int]) -> None:
        earlier = {change.metric: change for change in self.metrics}
        changes = []
        for metric in sorted(drifting):
            own = [alarm for alarm in alarms if alarm.metric == metric]
            if not own:  # the region's level fired, no link did; or the links' alarms have left the window
                changes.append(earlier.get(TARGETS[metric], MetricChange(TARGETS[metric], 0, 0.0, 0.0, ())))
                continue
            changes.append(
                MetricChange(
                    TARGETS[metric],
                    len({alarm.link for alarm in own}),
                    median(alarm.size_sigma for alarm in own),
                    median(alarm.size for alarm in own),
                    tuple(sorted({alarm.detector for alarm in own})),
                )
            )
        self.metrics = tuple(changes)
        self.affected = max(self.affected, len({alarm.link for alarm in alarms if alarm.metric in drifting}))
        self.link_types = tuple(sorted({alarm.link_type for alarm in alarms if alarm.metric in drifting}))
