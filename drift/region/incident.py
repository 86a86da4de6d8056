"""One incident: a change that an operator is alerted to once, however many links alarm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Final, Literal

from drift.messages import Group, IncidentChange, LinkAlarm, Scope
from drift.region.evidence import LARGER, SHOWN_MIN, ChangeKey, change_key, in_order, is_minor, opposite, signal_change, size_sigma
from drift.region.recovery import Recovery, Remaining, ended, leads_back, tolerance

GROWTH: Final = 1.5
"""An update is sent when another signal joins, or the affected links have grown by this factor: all of them, or those of one signal."""
GROWTH_LINKS: Final = 3
"""Least number of links by which those of one signal must have grown."""
NAMED: Final = 100
"""Most regions, and most links, that a change names."""
_STORED: Final = {"reported": "told", "monitored": "watched", "recoveries": "back", "reported_of": "told_of"}
"""Names in checkpoints of the fields whose name there differs."""


@dataclass(slots=True)
class Incident:
    """An open incident.

    >>> alarm = LinkAlarm(
    ...     time_s=600.0, region="eu", link="a|b", link_type="metro", signal=1, aspect="level", detector="cusum", direction=1,
    ...     confirmed=True, since_s=300.0, size_sigma=4.0, size=18.0, shown=1.0, growth=0.0, interval_s=60.0, offset=7, epoch=1,
    ... )
    >>> incident = Incident.opened("link", "eu", now_s=660.0, alarms=[alarm], monitored=40, quiet_s=3600.0)
    >>> incident.note_recovery(replace(alarm, time_s=1200.0, direction=-1, size_sigma=-4.0, size=-18.0))
    True
    >>> incident.has_recovered, incident.recovery_outcome
    (True, 'recovered')

    Args:
        id: follows from the first alarm, so that a replay returns the same.
        evidence_s: event time of the newest evidence for it, UTC seconds.
        quiet_s: seconds after that, when the incident closes.
        reported: affected links at the last change that was sent.
        evidence: for each change the last alarm of each link.
        recoveries: for each change the recovery of each link's residual since then.
        reported_of: for each change its links and its size (standard deviations) when it was sent last.
        complete: whether all links that the change reached have had the time to show it.
    """

    id: str
    scope: Scope
    group: Group
    region: str
    opened_s: float
    evidence_s: float
    quiet_s: float
    sequence: int
    reported: int
    monitored: int
    evidence: dict[ChangeKey, dict[str, LinkAlarm]]
    recoveries: dict[ChangeKey, dict[str, Recovery]]
    reported_of: dict[ChangeKey, tuple[int, float]]
    complete: bool = False
    _since_s: float | None = field(default=None, init=False, compare=False)  # known until the evidence changes

    @classmethod
    def opened(cls, scope: Scope, region: str, now_s: float, alarms: Sequence[LinkAlarm], monitored: int, quiet_s: float) -> Incident:
        """Return a new incident of the alarms' changes. now_s: event time, UTC seconds. monitored: number of monitored links."""
        first = alarms[0]
        origin = (scope, region, f"{now_s:.0f}", first.link, first.signal, first.detector, first.offset)
        digest = hashlib.sha256("\x1f".join(map(str, origin)).encode()).hexdigest()[:32]
        incident = cls(digest, scope, first.group, region, now_s, now_s, quiet_s, 0, 0, monitored, {}, {}, {})
        incident.add(alarms)
        return incident

    @property
    def alarms(self) -> list[LinkAlarm]:
        """The last alarm of each change and link."""
        return [alarm for alarms in self.evidence.values() for alarm in alarms.values()]

    @property
    def affected(self) -> set[str]:
        """Links that have alarmed."""
        return {link for alarms in self.evidence.values() for link in alarms}

    def concerns(self, alarm: LinkAlarm) -> bool:
        """Return whether the alarm's link is affected in the signal and aspect of the alarm, in either direction."""
        key = change_key(alarm)
        return any(alarm.link in self.evidence.get(either, {}) for either in (key, opposite(key)))

    @property
    def since_s(self) -> float:
        """Likeliest time of the change, UTC seconds: the median over its alarms without those of partial recoveries. The time of opening if
        there are none."""
        if self._since_s is None:
            keys = list(self.evidence)
            began = [key for i, key in enumerate(keys) if opposite(key) not in keys[:i]]
            self._since_s = median([alarm.since_s for key in began for alarm in self.evidence[key].values()] or [self.opened_s])
        return self._since_s

    def ingest(self, now_s: float, alarms: Sequence[LinkAlarm], monitored: int) -> None:
        """Add new alarms that belong to it. now_s: event time, UTC seconds."""
        self.evidence_s, self.monitored = now_s, monitored
        self.add(alarms)

    def add(self, alarms: Sequence[LinkAlarm]) -> None:
        """Keep the last alarm of each link, which rests on most rows, with the first alarm's time of the change.

        After a confirmed alarm the detector has adopted the change as the new level. A later change is added once it is confirmed too.
        """
        self._since_s = None
        for alarm in alarms:
            key = change_key(alarm)
            of_key = self.evidence.setdefault(key, {})
            known, again = of_key.get(alarm.link), self.recoveries.get(key, {}).pop(alarm.link, None) is not None
            if known is None or again:
                of_key[alarm.link] = alarm
            elif known.confirmed and alarm.aspect == "level" and alarm.since_s >= known.time_s:
                if alarm.confirmed:
                    total, sigma = known.size + alarm.size, known.size_sigma + alarm.size_sigma
                    of_key[alarm.link] = replace(alarm, since_s=known.since_s, size=total, size_sigma=sigma, before=known.before)
            elif alarm.time_s >= known.time_s and (alarm.adopted or not known.adopted):
                of_key[alarm.link] = replace(alarm, since_s=known.since_s, also=tuple(sorted({*known.also, known.detector})))

    def absorb(self, other: Incident) -> None:
        """Add the evidence of a smaller incident, and the recoveries of its links, before this one is sent."""
        self.add(other.alarms)
        self.keep_recoveries(other)

    def keep_recoveries(self, other: Incident) -> None:
        """Copy the recoveries of another incident from changes that this one has evidence of too."""
        for key, recoveries in other.recoveries.items():
            for link, recovery in recoveries.items():
                if link in self.evidence.get(key, {}):
                    self.recoveries.setdefault(key, {}).setdefault(link, recovery)

    def note_recovery(self, alarm: LinkAlarm) -> bool:
        """Return whether an alarm is an affected link's recovery, and note it if so. Then it is not evidence of anything else.

        A link cannot recover from a level that the detector has not adopted. In that case the sum falls, which `withdrawn` reports, and an
        excess over the old level in the other direction is a separate change.
        """
        key, from_key = change_key(alarm), opposite(change_key(alarm))
        if alarm.withdrawn and self._withdraw(key, alarm.link):
            return True
        there = self.evidence.get(from_key, {}).get(alarm.link)
        if there is None or alarm.withdrawn == there.adopted or (alarm.withdrawn and alarm.time_s < there.time_s):
            return False
        if alarm.withdrawn:
            self.recoveries.setdefault(from_key, {})[alarm.link] = ended(there, alarm)
            return True
        other = self.evidence.get(key, {}).get(alarm.link)
        recovery = self.recoveries.get(from_key, {}).get(alarm.link, Recovery()).and_then(alarm, other)
        if alarm.group == "network" and not leads_back(there, recovery.size):
            if alarm.confirmed:  # it goes on, or does not go far enough: a change of its own
                self.recoveries.get(from_key, {}).pop(alarm.link, None)
            return False
        self.recoveries.setdefault(from_key, {})[alarm.link] = recovery
        if other is not None:
            self._drop(key, alarm.link)
        return True

    def note_withdrawn(self, alarms: Sequence[LinkAlarm]) -> None:
        """Mark the evidence that these alarms have withdrawn already."""
        for alarm in alarms:
            if alarm.withdrawn:
                self.note_recovery(alarm)

    def _drop(self, key: ChangeKey, link: str) -> None:
        """Drop an alarm that was assumed to be a change of a link, and is its recovery."""
        del self.evidence[key][link]
        self.recoveries.get(key, {}).pop(link, None)
        if not self.evidence[key]:
            del self.evidence[key]
            self.reported_of.pop(key, None)
        self._since_s = None

    def _withdraw(self, key: ChangeKey, link: str) -> bool:
        """Drop the part of a link's recovery that was not confirmed; False if there is none."""
        recovery = self.recoveries.get(key, {}).get(link)
        if recovery is None or recovery.size == recovery.confirmed_size:
            return False
        if recovery.confirmed:
            self.recoveries[key][link] = replace(recovery, size=recovery.confirmed_size, shown=recovery.confirmed_shown)
        else:
            del self.recoveries[key][link]
        return True

    @property
    def has_recovered(self) -> bool:
        """True if most links of each change have recovered, and that is confirmed: a dip does not count."""
        return self._most_recovered(lambda recovery: recovery.confirmed or recovery.slow)

    @property
    def may_have_recovered(self) -> bool:
        """True if most links of each change have recovered, counting recoveries that are not confirmed yet."""
        return self._most_recovered(lambda _: True)

    def _most_recovered(self, counts: Callable[[Recovery], bool]) -> bool:
        major = {key: alarms for key, alarms in self.evidence.items() if not is_minor(key, self.evidence)}
        recovered = {key: sum(map(counts, self.recoveries.get(key, {}).values())) for key in major}
        return bool(major) and all(2 * recovered[key] > len(alarms) for key, alarms in major.items())

    @property
    def recovery_outcome(self) -> Literal["recovered", "settled"]:
        """Outcome once it has recovered. "recovered": the network is as it was; "settled": the model has followed it to the new level."""
        as_before = [self._is_as_before(key, link, back) for key, of_key in self.recoveries.items() for link, back in of_key.items()]
        return "recovered" if 2 * sum(as_before) >= len(as_before) else "settled"

    def _is_as_before(self, key: ChangeKey, link: str, recovery: Recovery) -> bool:
        there = self.evidence.get(key, {}).get(link)
        return there is None or there.shown < SHOWN_MIN or abs(recovery.shown) >= SHOWN_MIN * abs(recovery.size)

    def remaining(self) -> dict[str, dict[ChangeKey, Remaining]]:
        """Return for each affected link the recoveries whose confirmed alarms are still to come."""
        left: dict[str, dict[ChangeKey, Remaining]] = {link: {} for link in sorted(self.affected)}  # the order of a set varies
        for key, alarms in self.evidence.items():
            for link, alarm in alarms.items():
                if alarm.adopted and not self.recoveries.get(key, {}).get(link, Recovery()).confirmed:
                    left[link][opposite(key)] = Remaining(-alarm.size, tolerance(alarm))
        return left

    def without_categories(self) -> bool:
        """Drop the changes of categories, which a new model knows. Return True if nothing is left."""
        self.evidence = {key: alarms for key, alarms in self.evidence.items() if key[2] != "category"} or self.evidence
        self._since_s = None
        return all(aspect == "category" for _, _, aspect in self.evidence)

    def sizes_of(self, link: str) -> dict[int, float]:
        """Return for each signal the largest change of a link's level, in standard deviations."""
        sizes: dict[int, float] = {}
        for (signal, _, aspect), alarms in self.evidence.items():
            if link in alarms and aspect == "level":
                sizes[signal] = max(sizes.get(signal, 0.0), abs(alarms[link].size_sigma))
        return sizes

    def update(self, now_s: float) -> IncidentChange | None:
        """Return the update to send: another signal, half as many links again, or a much larger change. None: there is nothing new."""
        grown = len(self.affected) >= GROWTH * self.reported
        for key, alarms in self.evidence.items():
            links, sigma = self.reported_of.get(key, (0, 0.0))
            more = not links or len(alarms) >= max(GROWTH * links, links + GROWTH_LINKS)
            grown = grown or (more and not is_minor(key, self.evidence)) or size_sigma(alarms.values()) >= LARGER * sigma > 0.0
        if not grown:
            return None
        self.sequence += 1
        return self.change("updated", now_s)

    def completed(self, now_s: float, after_s: float) -> IncidentChange | None:
        """Return, once, `after_s` seconds after the opening, the update with all links that changed, if they are more than were sent."""
        due_s = self.opened_s + after_s
        if self.complete or now_s < due_s or due_s >= self.evidence_s + self.quiet_s:
            return None
        self.complete = True
        if len(self.affected) <= self.reported:
            return None
        self.sequence += 1
        return self.change("updated", due_s)

    def closed(self, now_s: float, outcome: str) -> IncidentChange:
        """Return the last change. outcome: see `IncidentChange`."""
        self.sequence += 1
        return self.change("closed", now_s, outcome)

    def change(self, kind: Literal["opened", "updated", "closed"], now_s: float, outcome: str = "") -> IncidentChange:
        """Return the incident as it is now, as the change to send."""
        affected = self.affected
        self.reported = len(affected)
        self.reported_of = {key: (len(alarms), size_sigma(alarms.values())) for key, alarms in self.evidence.items()}
        regions = {alarm.region for alarm in self.alarms}
        return IncidentChange(
            kind, self.id, self.sequence, self.scope, self.group, self.region, now_s, self.opened_s, self.since_s,
            in_order(signal_change(key, list(self.evidence[key].values())) for key in sorted(self.evidence)),
            tuple(sorted({alarm.link_type for alarm in self.alarms})), tuple(sorted(regions)[:NAMED]), len(regions),
            tuple(sorted(affected)[:NAMED]), len(affected), self.monitored, outcome,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return everything as plain values, under the names that checkpoints have."""
        plain = {_STORED.get(name, name): getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        return plain | {
            "evidence": [[*key, [alarm.state() for alarm in alarms.values()]] for key, alarms in self.evidence.items()],
            "back": [[*key, {link: one.state() for link, one in of_key.items()}] for key, of_key in self.recoveries.items()],
            "told_of": [[*key, *sent] for key, sent in self.reported_of.items()],
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Incident:
        """Return the incident of a `state`."""
        older = {"complete": True}  # as an older release does not write it
        plain = {name: (older | state)[_STORED.get(name, name)] for name in cls.__slots__ if not name.startswith("_")}
        alarms = [((*key, aspect), map(LinkAlarm.restored, stored)) for *key, aspect, stored in state["evidence"]]
        plain["evidence"] = {key: {alarm.link: alarm for alarm in of_key} for key, of_key in alarms}
        plain["recoveries"] = {
            (*key, aspect): {link: Recovery.restored(one) for link, one in stored.items()} for *key, aspect, stored in state["back"]
        }
        plain["reported_of"] = {(*key, aspect): (links, sigma) for *key, aspect, links, sigma in state["told_of"]}
        return cls(**plain)
