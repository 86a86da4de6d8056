"""The region stage: joins the links of a region in event-time buckets of one minute, and decides what is an incident, of whom.

A bucket closes when the watermark, the least event time over the partitions, has passed it; its messages are then taken in the order
of their links. So the result depends on neither the batches nor the interleaving of partitions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, Final

from drift.cusum import SEEN_EVERY_S
from drift.incident import BACK_MIN, Incident, Key, key_of
from drift.messages import Group, IncidentChange, LinkAlarm, LinkSeen
from drift.quorum import WINDOW_ROWS, QuorumPolicy
from drift.watched_region import Aftermath, WatchedRegion

BUCKET_S: Final = 60.0
REGIONS_MAX: Final = 20_000
"""Some 2 kB each. A link may name another region in each of its records, so the number of watched links is no limit."""
WEEK_S: Final = 7 * 86_400.0
AFTERMATH: Final = 4.0
"""Quiet times of an incident in which its links may tell late what belongs to it: a level that is a little off shows in hours."""
AFTERMATH_SIGMA: Final = 2.0
"""By so many standard deviations, and half of the change, a level is off at most that was learnt from the last rows of a large one."""
OPENED_MAX: Final = 10_000
FLEET_REGIONS_MIN: Final = 4
"""Fewer regions are not called a fleet; of more, most must have changed at the same time."""
TAKEN_OVER: Final = ("region", "fleet")
"""Outcomes of what became part of another incident."""
GROUPS: Final[tuple[Group, ...]] = ("network", "data")


class RegionDrift:
    """Quorum and incidents of one process."""

    def __init__(self, policy: QuorumPolicy | None = None) -> None:
        self.policy = policy or QuorumPolicy()
        self.closed_through = -(2**62)
        """The last closed bucket (its start divided by 60 s); what comes for it or an earlier one is late."""
        self.late = 0
        self.forgotten = 0
        """Regions that were forgotten since the start because there were too many."""
        self._buckets: defaultdict[int, tuple[list[LinkAlarm], list[LinkSeen]]] = defaultdict(lambda: ([], []))
        self._regions: dict[str, WatchedRegion] = {}
        self._fleet: Incident | None = None
        self._opened_s: list[float] = []
        self._epoch = 0

    @property
    def open_incidents(self) -> int:
        return sum(len(region.all()) for region in self._regions.values()) + (self._fleet is not None)

    @property
    def opened_in_a_week(self) -> int:
        """Incidents that opened in the last week of event time: what the budget of false alerts is held against. One that became part of a
        larger one counts as that."""
        return len(self._opened_s)

    def observe(self, alarms: Sequence[LinkAlarm], seen: Sequence[LinkSeen]) -> None:
        """Keeps messages of the link stage until their bucket closes. Late ones are counted and left out."""
        for alarm in alarms:
            if (bucket := _bucket(alarm.time_s)) > self.closed_through:
                self._buckets[bucket][0].append(alarm)
            else:
                self.late += 1
        for one in seen:
            if (bucket := _bucket(one.time_s)) > self.closed_through:
                self._buckets[bucket][1].append(one)
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
            week_s = (through + 1) * BUCKET_S - WEEK_S
            opened = self._opened_s + [change.time_s for change in changes if change.kind == "opened"]
            for change in changes:
                if change.outcome in TAKEN_OVER and change.opened_s in opened:
                    opened.remove(change.opened_s)
            self._opened_s = [at_s for at_s in opened if at_s > week_s][-OPENED_MAX:]
        return changes

    def _close(self, bucket: int, alarms: list[LinkAlarm], seen: list[LinkSeen]) -> list[IncidentChange]:
        now_s = (bucket + 1) * BUCKET_S
        by_region: defaultdict[str, tuple[list[LinkAlarm], list[LinkSeen]]] = defaultdict(lambda: ([], []))
        for alarm in _sorted_alarms(alarms):
            by_region[alarm.region][0].append(alarm)
        for one in _sorted_seen(seen):
            by_region[one.region][1].append(one)
        # Whoever is quiet long enough closes before new evidence could keep an incident open that had ended.
        changes = self._close_quiet(now_s)
        newest = max([0, *(alarm.epoch for alarm in alarms), *(one.epoch for one in seen)])
        if newest > self._epoch:
            changes += self._replaced(now_s) if self._epoch else []
            self._epoch = newest
        for name in sorted(by_region):
            changes += self._judge(name, self._regions.setdefault(name, WatchedRegion()), now_s, *by_region[name])
        if any(change.kind == "opened" and change.scope == "region" for change in changes):
            changes += self._judge_fleet(now_s)
        self._forget()
        larger = {change.id for change in changes if change.outcome in TAKEN_OVER}  # what became part of another one at once is not told
        at_once = {change.id for change in changes if change.kind == "opened" and change.id in larger}
        return [change for change in changes if change.id not in at_once]

    def _forget(self) -> None:
        """Of too many regions those go whose last message is the oldest, an eighth of them; one with an open incident stays longer."""
        going = len(self._regions) - REGIONS_MAX
        if going > 0:
            oldest_first = sorted(self._regions.items(), key=lambda one: (bool(one[1].all()), one[1].seen_s, one[0]))
            for name, _ in oldest_first[: going + REGIONS_MAX // 8]:
                del self._regions[name]
                self.forgotten += 1

    def _judge(
        self, name: str, region: WatchedRegion, now_s: float, alarms: list[LinkAlarm], seen: list[LinkSeen]
    ) -> list[IncidentChange]:  # fmt: skip
        """Takes one bucket of one region."""
        region.seen_s = now_s
        for one in seen:
            lasts_s = max(self.policy.window_s, SEEN_EVERY_S + WINDOW_ROWS * one.interval_s)
            region.watched[one.link] = max(one.time_s + lasts_s, region.watched.get(one.link, -math.inf))
        region.watched = {link: until_s for link, until_s in region.watched.items() if until_s > now_s}
        region.aftermath = {link: one for link, one in region.aftermath.items() if one.until_s > now_s}
        region.alarms = [alarm for alarm in region.alarms if self.policy.counts_until(alarm) > now_s]
        # A fault of the data is one whatever the model; what the model before had to say is over.
        alarms = [alarm for alarm in alarms if alarm.group == "data" or alarm.epoch == self._epoch]
        changes, alarms = self._recovered(region, alarms, now_s)
        region.alarms += alarms
        for group in GROUPS:
            of_group = [alarm for alarm in alarms if alarm.group == group]
            if of_group:
                changes += self._judge_region(name, region, now_s, group, of_group)
        return changes

    def _replaced(self, now_s: float) -> list[IncidentChange]:
        """Another model went live: closes, in all regions, what was of the residuals of the one before, or of what it did not know."""
        over = []
        for _, region in sorted(self._regions.items()):
            for incident in region.all():
                if incident.group == "network" or incident.without_categories():
                    over.append(incident)
                    region.drop(incident)
            region.alarms = [alarm for alarm in region.alarms if alarm.group != "network"]
            region.aftermath = {}
        if self._fleet is not None and (self._fleet.group == "network" or self._fleet.without_categories()):
            over.append(self._fleet)
            self._fleet = None
        return [incident.closed(now_s, "model_replaced") for incident in over]

    def _recovered(self, region: WatchedRegion, alarms: list[LinkAlarm], now_s: float) -> tuple[list[IncidentChange], list[LinkAlarm]]:
        """Closes incidents most of whose links have gone back. Gives the changes, and the alarms that have not told of a way back."""
        incidents, left = [*region.all(), *([self._fleet] if self._fleet is not None else [])], []
        touched: list[Incident] = []
        for alarm in alarms:
            noted = [incident for incident in incidents if incident.goes_back(alarm)]
            touched += [incident for incident in noted if all(incident is not one for one in touched)]
            if noted:  # what it was taken for at first, before it was certain
                first = (alarm.link, key_of(alarm))
                region.alarms = [one for one in region.alarms if (one.link, key_of(one)) != first]
            ends = alarm.group == "data" and alarm.direction < 0  # of a fault that nobody has heard of any more
            if not noted and not self._is_aftermath(region, alarm) and not ends:
                left.append(alarm)
        changes = []
        for incident in touched:
            if not incident.is_over:
                continue
            changes.append(incident.closed(now_s, incident.way_out))
            region_of = {alarm.link: alarm.region for alarm in incident.alarms}
            for link, keys in incident.still_to_come().items():
                if (other := self._regions.get(region_of[link])) is not None:
                    small = {signal: min(AFTERMATH_SIGMA, BACK_MIN * size) for signal, size in incident.sizes_of(link).items()}
                    other.aftermath[link] = Aftermath(now_s + AFTERMATH * incident.quiet_s, now_s + self.policy.window_s, keys, small)
            region.drop(incident)
            if incident is self._fleet:
                self._drop_fleet(incident)
        return changes, [alarm for alarm in left if not self._is_aftermath(region, alarm)] if changes else left

    def _drop_fleet(self, fleet: Incident) -> None:
        """Forgets the fleet's closed incident, and in all regions what it rested on."""
        self._fleet = None
        for region in self._regions.values():
            region.forget(fleet)

    def _is_aftermath(self, region: WatchedRegion, alarm: LinkAlarm) -> bool:
        """Whether the alarm is of an incident that is over; a way back is told for certain once."""
        after = region.aftermath.get(alarm.link)
        if after is None or not after.explains(alarm):
            return False
        if alarm.certain and key_of(alarm) in after.keys:
            after.keys.remove(key_of(alarm))
        return True

    def _judge_region(
        self, name: str, region: WatchedRegion, now_s: float, group: Group, alarms: list[LinkAlarm]
    ) -> list[IncidentChange]:  # fmt: skip
        """Opens or updates the incident of the whole region, or else those of single links."""
        watched, fleet = len(region.watched), self._fleet
        if group == "data":  # nobody is known to be watched in a region that has a new name
            watched = len(region.watched.keys() | {alarm.link for alarm in region.alarms})
        if fleet is not None and fleet.group == group and (covered := [alarm for alarm in alarms if self.policy.covers(fleet, alarm)]):
            update = fleet.take(now_s, covered, self._watched(now_s), self.policy.lasts_s(covered))
            left = _without(alarms, covered)
            more = self._judge_region(name, region, now_s, group, left) if left else []
            return [*([update] if update is not None else []), *more]
        by_key: defaultdict[Key, list[LinkAlarm]] = defaultdict(list)
        for alarm in region.alarms:
            if alarm.group == group and not (fleet is not None and fleet.group == group and self.policy.covers(fleet, alarm)):
                by_key[key_of(alarm)].append(alarm)
        moved = {key for key, own in by_key.items() if self.policy.met(own, watched)}
        if (incident := region.incidents.get(group)) is not None:
            # An old alarm that still counts is evidence of a change that joins, but nothing new of one that is known.
            joining = [alarm for key in moved - incident.evidence.keys() for alarm in by_key[key]]
            joined = [alarm for alarm in alarms if self.policy.joins(incident, alarm)]
            fresh = [alarm for alarm in joined if alarm.certain or key_of(alarm) in incident.evidence]
            known = _sorted_alarms({id(alarm): alarm for alarm in (*joining, *fresh)}.values())
            update = incident.take(now_s, known, watched, self.policy.lasts_s(known)) if known else None
            alarms = _without(alarms, known)
            return [*([update] if update is not None else []), *self._judge_links(name, region, now_s, group, alarms)]
        if not any(key_of(alarm) in moved for alarm in alarms):
            return self._judge_links(name, region, now_s, group, alarms)
        own = _sorted_alarms(alarm for key in moved for alarm in by_key[key])
        region.incidents[group] = incident = Incident.opened("region", name, now_s, own, watched, self.policy.lasts_s(own))
        return [*self._taken_over(region, incident, now_s), incident.change("opened", now_s)]

    def _taken_over(self, region: WatchedRegion, incident: Incident, now_s: float) -> list[IncidentChange]:
        """Closes the incidents of single links that are part of a larger one."""
        changes = []
        for of_link in list(region.links.values()):
            if of_link.group == incident.group and self.policy.belongs(of_link, incident):
                incident.absorb(of_link)
                changes.append(of_link.closed(now_s, incident.scope))
                region.drop(of_link)
        return changes

    def _judge_links(
        self, name: str, region: WatchedRegion, now_s: float, group: Group, alarms: list[LinkAlarm]
    ) -> list[IncidentChange]:  # fmt: skip
        """Opens or updates incidents of single links, of what no larger incident covers."""
        of_link: defaultdict[str, list[LinkAlarm]] = defaultdict(list)
        for alarm in alarms:
            if alarm.certain or (group, alarm.link) in region.links:
                of_link[alarm.link].append(alarm)
        changes = []
        for link, own in of_link.items():
            if (incident := region.links.get((group, link))) is None:
                incident = Incident.opened("link", name, now_s, own, len(region.watched), self.policy.lasts_s(own))
                region.links[group, link] = incident
                changes.append(incident.change("opened", now_s))
            elif update := incident.take(now_s, own, len(region.watched), self.policy.lasts_s(own)):
                changes.append(update)
        return changes

    def _judge_fleet(self, now_s: float) -> list[IncidentChange]:
        """Makes one incident of those of most regions, where they came at the same time."""
        if self._fleet is not None:
            return []
        watching = sum(any(until_s > now_s for until_s in region.watched.values()) for region in self._regions.values())
        for group in GROUPS:
            of_group = {
                name: region.incidents[group]
                for name, region in sorted(self._regions.items())
                if group in region.incidents and region.incidents[group].evidence  # one of an older release has none
            }
            middle_s = median([incident.since_s for incident in of_group.values()] or [0.0])
            own = {name: one for name, one in of_group.items() if abs(one.since_s - middle_s) <= self.policy.window_s}
            if len(own) < FLEET_REGIONS_MIN or 2 * len(own) <= watching:
                continue
            alarms = [alarm for incident in own.values() for alarm in incident.alarms]
            quiet_s = max(incident.quiet_s for incident in own.values())
            self._fleet = Incident.opened("fleet", "", now_s, _sorted_alarms(alarms), self._watched(now_s), quiet_s)
            changes = [incident.closed(now_s, "fleet") for incident in own.values()]
            for name in own:
                del self._regions[name].incidents[group]
            for _, region in sorted(self._regions.items()):
                changes += self._taken_over(region, self._fleet, now_s)
            return [*changes, self._fleet.change("opened", now_s)]
        return []

    def _watched(self, now_s: float) -> int:
        return sum(sum(until_s > now_s for until_s in region.watched.values()) for region in self._regions.values())

    def _close_quiet(self, now_s: float) -> list[IncidentChange]:
        """In the order in which they have ended, however far the watermark has come at once."""
        over = []
        for name, region in self._regions.items():
            for incident in region.all():
                if now_s - incident.evidence_s >= incident.quiet_s:
                    over.append((incident.evidence_s + incident.quiet_s, name, incident))
                    region.drop(incident)
        if (fleet := self._fleet) is not None and now_s - fleet.evidence_s >= fleet.quiet_s:
            over.append((fleet.evidence_s + fleet.quiet_s, "", fleet))
            self._drop_fleet(fleet)
        return [incident.closed(at_s, "settled") for at_s, _, incident in sorted(over, key=lambda one: one[:2])]

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and strings."""
        return {
            "closed_through": self.closed_through,
            "late": self.late,
            "epoch": self._epoch,
            "buckets": [
                [bucket, [asdict(alarm) for alarm in _sorted_alarms(alarms)], [asdict(one) for one in _sorted_seen(seen)]]
                for bucket, (alarms, seen) in sorted(self._buckets.items())
            ],
            "regions": {name: region.state() for name, region in sorted(self._regions.items())},
            "opened_s": self._opened_s,
            "fleet": self._fleet.state() if self._fleet is not None else None,
        }

    @classmethod
    def restored(cls, state: dict[str, Any], policy: QuorumPolicy | None = None) -> RegionDrift:
        drift = cls(policy)
        drift.closed_through, drift.late, drift._epoch = state["closed_through"], state["late"], state["epoch"]
        for bucket, alarms, seen in state["buckets"]:
            drift._buckets[bucket] = ([LinkAlarm(**alarm) for alarm in alarms], [LinkSeen(**one) for one in seen])
        for name, kept in state["regions"].items():
            drift._regions[name] = WatchedRegion.restored(kept)
        drift._opened_s = list(state["opened_s"])
        drift._fleet = Incident.restored(state["fleet"]) if state["fleet"] is not None else None
        return drift


def _sorted_alarms(alarms: Iterable[LinkAlarm]) -> list[LinkAlarm]:
    """In an order that does not depend on the interleaving of partitions."""

    def rank(alarm: LinkAlarm) -> tuple[object, ...]:
        return alarm.link, alarm.time_s, alarm.signal, alarm.detector, alarm.direction, alarm.region, alarm.link_type, alarm.offset

    return sorted(alarms, key=rank)


def _without(alarms: list[LinkAlarm], taken: Sequence[LinkAlarm]) -> list[LinkAlarm]:
    gone = {id(alarm) for alarm in taken}
    return [alarm for alarm in alarms if id(alarm) not in gone]


def _sorted_seen(seen: Sequence[LinkSeen]) -> list[LinkSeen]:
    return sorted(seen, key=lambda one: (one.link, one.time_s))


def _bucket(time_s: float) -> int:
    return math.floor(time_s / BUCKET_S)
