"""One incident: what an operator hears about, once, however many links alarm."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Final, Literal

from drift.messages import SIGNALS, Aspect, Change, Group, IncidentChange, LinkAlarm, Scope, SignalChange

GROWTH: Final = 1.5
"""An update is worth telling when another signal joins, or the affected links have grown by half."""
NAMED: Final = 100
SHOWN_MIN: Final = 0.5
"""Of a change of the residual, the share that the metric itself must show; with less it is the model that is wrong."""
CERTAIN: Final = 1
FOLLOWED: Final = 2
RAMP_GROWTH: Final = 0.25
RAMP_ROWS: Final = 45.0
"""A step does not grow while the sums find it, and one of a standard deviation is found in some 30 rows. A ramp is found later, and of
what the sums see of it, the part above their slack, it has grown by half by then."""

Key = tuple[int, int, Aspect]
"""What alarms must have in common to be one change: signal, direction, aspect."""


def key_of(alarm: LinkAlarm) -> Key:
    return alarm.signal, alarm.direction, alarm.aspect


@dataclass(slots=True)
class Incident:
    """An open incident. evidence_s, quiet_s: event time of the newest evidence for it, and how long after it the incident closes.

    evidence: of each change the last alarm of each link. recovered: links whose residuals have gone back since, CERTAIN where that is, and
    FOLLOWED where the metric itself has not. told: affected links at the last change that was told.
    """

    id: str
    scope: Scope
    group: Group
    region: str
    opened_s: float
    evidence_s: float
    quiet_s: float
    sequence: int
    told: int
    watched: int
    evidence: dict[Key, dict[str, LinkAlarm]]
    recovered: dict[str, int]

    @classmethod
    def opened(
        cls, scope: Scope, region: str, now_s: float, alarms: Sequence[LinkAlarm], watched: int, quiet_s: float
    ) -> Incident:  # fmt: skip
        """An incident of the changes that these alarms have; its id follows from the first of them, so that a replay gives the same."""
        first = alarms[0]
        origin = (scope, region, f"{now_s:.0f}", first.link, first.signal, first.detector, first.offset)
        digest = hashlib.sha256("\x1f".join(map(str, origin)).encode()).hexdigest()[:32]
        incident = cls(digest, scope, first.group, region, now_s, now_s, quiet_s, 0, 0, watched, {}, {})
        incident._add(alarms)
        return incident

    @property
    def alarms(self) -> list[LinkAlarm]:
        """Of each change the last of each link."""
        return [alarm for own in self.evidence.values() for alarm in own.values()]

    @property
    def affected(self) -> set[str]:
        return {link for own in self.evidence.values() for link in own}

    @property
    def since_s(self) -> float:
        """The likeliest time of the change, the median over its alarms; when it was opened, where there are none."""
        return median([alarm.since_s for alarm in self.alarms] or [self.opened_s])

    def take(self, now_s: float, alarms: Sequence[LinkAlarm], watched: int, quiet_s: float) -> IncidentChange | None:
        """New alarms that belong to it. Gives an update where they tell an operator something new."""
        self.evidence_s, self.watched = now_s, watched
        self.quiet_s = max(self.quiet_s, quiet_s)
        new = {key_of(alarm) for alarm in alarms} - self.evidence.keys()
        self._add(alarms)
        if not new and len(self.affected) < GROWTH * self.told:
            return None
        self.sequence += 1
        return self.change("updated", now_s)

    def absorb(self, other: Incident) -> None:
        """Takes over the evidence of a smaller incident before it is told itself."""
        self.quiet_s = max(self.quiet_s, other.quiet_s)
        self._add(other.alarms)

    def goes_back(self, alarm: LinkAlarm) -> bool:
        """Whether an alarm is an affected link's way back; then it is noted, and is evidence of nothing else."""
        signal, direction, aspect = key_of(alarm)
        there = self.evidence.get((signal, -direction, aspect), {}).get(alarm.link)
        if there is None or key_of(alarm) in self.evidence:
            return False
        followed = there.shown >= SHOWN_MIN > alarm.shown
        certain = self.recovered.get(alarm.link, 0) & CERTAIN or alarm.certain
        self.recovered[alarm.link] = CERTAIN * certain | FOLLOWED * followed
        return True

    @property
    def is_over(self) -> bool:
        """Whether most of the affected links have gone back."""
        return 2 * len(self.recovered) > len(self.affected)

    @property
    def way_out(self) -> str:
        """How it ends once it is over: the network is as it was, or the model has followed it to where it is now."""
        followed = sum(back & FOLLOWED > 0 for back in self.recovered.values())
        return "settled" if 2 * followed > len(self.recovered) else "recovered"

    def still_to_come(self) -> dict[str, list[Key]]:
        """Of each link that will yet tell, for certain, that it has gone back, the ways back."""
        back: dict[str, list[Key]] = {}
        for (signal, direction, aspect), own in self.evidence.items():
            for link in own:
                if not self.recovered.get(link, 0) & CERTAIN:
                    back.setdefault(link, []).append((signal, -direction, aspect))
        return back

    def closed(self, now_s: float, outcome: str) -> IncidentChange:
        self.sequence += 1
        return self.change("closed", now_s, outcome)

    def change(self, kind: Literal["opened", "updated", "closed"], now_s: float, outcome: str = "") -> IncidentChange:
        affected = self.affected
        self.told = len(affected)
        regions = {alarm.region for alarm in self.alarms}
        return IncidentChange(
            kind, self.id, self.sequence, self.scope, self.group, self.region, now_s, self.opened_s, self.since_s,
            tuple(signal_change(key, list(self.evidence[key].values())) for key in sorted(self.evidence)),
            tuple(sorted({alarm.link_type for alarm in self.alarms})), tuple(sorted(regions)[:NAMED]), len(regions),
            tuple(sorted(affected)[:NAMED]), len(affected), self.watched, outcome,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        evidence = [[*key, [asdict(alarm) for alarm in own.values()]] for key, own in self.evidence.items()]
        return {name: getattr(self, name) for name in self.__slots__} | {"evidence": evidence, "recovered": dict(self.recovered)}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Incident:
        evidence = {
            (signal, direction, aspect): {alarm["link"]: LinkAlarm(**alarm) for alarm in own}
            for signal, direction, aspect, own in state["evidence"]
        }
        return cls(**{**state, "evidence": evidence, "recovered": dict(state["recovered"])})

    def _add(self, alarms: Sequence[LinkAlarm]) -> None:
        """Of each link the last alarm, which has seen most, and the first one's time of the change."""
        for alarm in alarms:
            own = self.evidence.setdefault(key_of(alarm), {})
            known = own.get(alarm.link)
            if known is None:
                own[alarm.link] = alarm
            elif alarm.time_s >= known.time_s:
                own[alarm.link] = replace(alarm, since_s=known.since_s)


def signal_change(key: Key, alarms: Sequence[LinkAlarm]) -> SignalChange:
    """What the alarms of one key have in common, one of each link."""
    return SignalChange(
        SIGNALS[key[0]],
        kind_of(key[2], alarms),
        key[1],
        len(alarms),
        median(alarm.size_sigma for alarm in alarms),
        median(alarm.size for alarm in alarms),
        tuple(sorted({alarm.detector for alarm in alarms})),
    )


def kind_of(aspect: Aspect, alarms: Sequence[LinkAlarm]) -> Change:
    if aspect != "level" and aspect != "spread":
        return aspect
    rows = median((alarm.time_s - alarm.since_s) / max(alarm.interval_s, 1e-3) for alarm in alarms)
    if aspect == "level" and rows > RAMP_ROWS and median(alarm.growth for alarm in alarms) > RAMP_GROWTH:
        return "ramp"  # whatever the metric shows: its own trend before the change is hardly another one
    if median(alarm.shown for alarm in alarms) < SHOWN_MIN:
        return "model_error"
    return "spread" if aspect == "spread" else "shift"
