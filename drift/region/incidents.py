"""Incidents of links, regions and the fleet: opened, updated and closed from the alarms of one bucket at a time.

This file is long because the order in which incidents of links, regions and the fleet take their alarms is one decision.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from drift.link.cusum import SEEN_EVERY_S
from drift.messages import Group, IncidentChange, LinkAlarm, LinkSeen
from drift.region.buckets import Bucket, sorted_alarms
from drift.region.evidence import ChangeKey, change_key, without
from drift.region.incident import Incident
from drift.region.memory import CoolDown, RegionMemory
from drift.region.policy import WINDOW_ROWS, QuorumPolicy
from drift.region.recovery import BACK_MIN

COOL_DOWN: Final = 4.0
"""Quiet times of an incident for which its links may report late what belongs to it: an error of a level shows within hours."""
COOL_DOWN_SIGMA: Final = 2.0
"""Largest error of a level re-learnt from the last rows of a large change: this many sigma, or half the change if that is smaller."""
FLEET_REGIONS_MIN: Final = 4
"""Least number of regions that can be a fleet. Most regions must have changed at the same time."""
ABSORBED: Final = ("region", "fleet")
"""Outcomes of incidents that became part of another one."""
GROUPS: Final[tuple[Group, ...]] = ("network", "data")


class Incidents:
    """Open incidents of all regions and of the fleet. See `RegionDrift`, which also waits for late partitions.

    >>> Incidents(QuorumPolicy()).detect(now_s=660.0, alarms=[], seen=[LinkSeen(600.0, "eu", "a|b", interval_s=60.0, epoch=1)])
    []
    """

    def __init__(self, policy: QuorumPolicy) -> None:
        """Start without regions."""
        self.policy = policy
        self.regions: dict[str, RegionMemory] = {}
        self.fleets: dict[Group, Incident] = {}
        self.epoch = 0
        """Number of the live model, counted from 1."""
        self.strictness = 0
        """See `QuorumPolicy.strictness`."""

    def count(self) -> int:
        """Return how many incidents are open."""
        return sum(len(region.all()) for region in self.regions.values()) + len(self.fleets)

    def _open(self) -> list[Incident]:
        return [incident for region in self.regions.values() for incident in region.all()] + list(self.fleets.values())

    def detect(self, now_s: float, alarms: list[LinkAlarm], seen: list[LinkSeen]) -> list[IncidentChange]:
        """Return the changes of incidents by one bucket.

        Args:
            now_s: end of the bucket, event time, UTC seconds.
            alarms, seen: its messages, sorted.
        """
        by_region: defaultdict[str, Bucket] = defaultdict(lambda: ([], []))
        for alarm in alarms:
            by_region[alarm.region][0].append(alarm)
        for message in seen:
            by_region[message.region][1].append(message)
        changes: list[IncidentChange] = []
        newest = max([0, *(alarm.epoch for alarm in alarms), *(message.epoch for message in seen)])
        if newest > self.epoch:
            changes += self._close_replaced(now_s) if self.epoch else []
            self.epoch = newest
        fresh: dict[str, list[LinkAlarm]] = {}
        for name in sorted(by_region):
            more, fresh[name] = self._observe(self.regions.setdefault(name, RegionMemory()), now_s, *by_region[name])
            changes += more
        for fleet in list(self.fleets.values()):
            changes += self._join_fleet(fleet, now_s, fresh)
        for name, of_region in fresh.items():
            for group in GROUPS:
                if of_group := [alarm for alarm in of_region if alarm.group == group]:
                    changes += self._detect_region(name, now_s, group, of_group)
        if any(change.kind == "opened" and change.scope == "region" for change in changes):
            changes += self._detect_fleets(now_s)
        absorbed = {change.id for change in changes if change.outcome in ABSORBED}  # one that is absorbed at once is not reported
        at_once = {change.id for change in changes if change.kind == "opened" and change.id in absorbed}
        return [change for change in changes if change.id not in at_once]

    def _observe(
        self, region: RegionMemory, now_s: float, alarms: list[LinkAlarm], seen: list[LinkSeen]
    ) -> tuple[list[IncidentChange], list[LinkAlarm]]:  # fmt: skip
        """Add the messages of one bucket to a region. Return which incidents have recovered, and the alarms that may be of a change."""
        region.seen_s = now_s
        for message in seen:
            lasts_s = max(self.policy.window_s, SEEN_EVERY_S + WINDOW_ROWS * message.interval_s)
            region.monitored[message.link] = max(message.time_s + lasts_s, region.monitored.get(message.link, -math.inf))
        region.monitored = {link: until_s for link, until_s in region.monitored.items() if until_s > now_s}
        region.cool_downs = {link: cool_down for link, cool_down in region.cool_downs.items() if cool_down.until_s > now_s}
        region.alarms = self.policy.that_count(region.alarms, now_s)
        # A fault of the data does not depend on the model. An alarm about the residuals of the model before is out of date.
        alarms = [alarm for alarm in alarms if alarm.group == "data" or alarm.epoch == self.epoch]
        changes, alarms = self._note_recoveries(region, alarms, now_s)
        region.alarms += alarms
        return changes, [alarm for alarm in alarms if not alarm.withdrawn]

    def _close_replaced(self, now_s: float) -> list[IncidentChange]:
        """Close, in all regions, incidents of the residuals of the model before, or of categories that it did not know."""
        closing = []
        for _, region in sorted(self.regions.items()):
            for incident in region.all():
                if incident.group == "network" or incident.without_categories():
                    closing.append(incident)
                    region.drop(incident)
            region.alarms = [alarm for alarm in region.alarms if alarm.group != "network"]
            region.cool_downs = {}
        for group, fleet in list(self.fleets.items()):
            if group == "network" or fleet.without_categories():
                closing.append(fleet)
                del self.fleets[group]
        return [incident.closed(now_s, "model_replaced") for incident in closing]

    def _note_recoveries(
        self, region: RegionMemory, alarms: list[LinkAlarm], now_s: float
    ) -> tuple[list[IncidentChange], list[LinkAlarm]]:  # fmt: skip
        """Close incidents most of whose links have recovered. Return the changes, and the alarms that are not a recovery."""
        incidents, left = [*region.all(), *self.fleets.values()], []
        touched: list[Incident] = []
        recovered: set[tuple[str, ChangeKey]] = set()
        for alarm in alarms:
            noted = [incident for incident in incidents if incident.note_recovery(alarm)]
            touched += [incident for incident in noted if all(incident is not other for other in touched)]
            if noted and not alarm.withdrawn:
                recovered.add((alarm.link, change_key(alarm)))
            ends = alarm.group == "data" and alarm.direction < 0  # of a fault that no incident has any more
            if not noted and (alarm.withdrawn or not (region.claims(alarm) or ends)):
                left.append(alarm)
        # What a recovery was assumed to be before it was confirmed.
        region.alarms = [alarm for alarm in region.alarms if (alarm.link, change_key(alarm)) not in recovered]
        changes = []
        for incident in touched:
            if incident.may_have_recovered:  # it stays open until that is confirmed, or is not so
                incident.evidence_s = now_s
            changes += self._close_recovered(incident, now_s)
        return changes, [alarm for alarm in left if not region.claims(alarm)] if changes else left

    def _close_recovered(self, incident: Incident, now_s: float) -> list[IncidentChange]:
        """Close an incident if most of its links have recovered. The others have a cool-down, in which they may recover too."""
        if not incident.has_recovered:
            return []
        region_of = {alarm.link: alarm.region for alarm in incident.alarms}
        for link, remaining in incident.remaining().items():
            if (region := self.regions.get(region_of[link])) is not None:
                small = {signal: min(COOL_DOWN_SIGMA, BACK_MIN * size) for signal, size in incident.sizes_of(link).items()}
                until_s = now_s + COOL_DOWN * incident.quiet_s
                region.cool_downs[link] = CoolDown(until_s, now_s + self.policy.window_s, remaining, small)
        self._drop(incident)
        return [incident.closed(now_s, incident.recovery_outcome)]

    def _drop(self, incident: Incident) -> None:
        """Forget a closed incident and its alarms: in all regions if it was an incident of the fleet."""
        if incident.scope != "fleet":
            self.regions[incident.region].drop(incident)
            return
        del self.fleets[incident.group]
        for region in self.regions.values():
            region.forget_alarms(incident)

    def _detect_region(self, name: str, now_s: float, group: Group, alarms: list[LinkAlarm]) -> list[IncidentChange]:
        """Open or update the incident of the whole region, and those of single links."""
        region, fleet = self.regions[name], self.fleets.get(group)
        monitored, strictness = len(region.monitored), self.strictness if group == "network" else 0
        if group == "data":  # in a region that has a new name no link is known to be monitored
            monitored = len(region.monitored.keys() | {alarm.link for alarm in region.alarms})
        by_key: defaultdict[ChangeKey, list[LinkAlarm]] = defaultdict(list)
        for alarm in region.alarms:
            if alarm.group == group and not alarm.withdrawn and not (fleet is not None and self.policy.covers(fleet, alarm)):
                by_key[change_key(alarm)].append(alarm)
        moved = [key for key, of_key in by_key.items() if self.policy.met(of_key, monitored, strictness)]
        incident, opening = region.incidents.get(group), list[LinkAlarm]()
        if opens := incident is None:
            if not any(change_key(alarm) in moved for alarm in alarms):
                return self._detect_links(name, now_s, group, alarms)
            opening = sorted_alarms(alarm for key in moved for alarm in by_key[key])
            incident = Incident.opened("region", name, now_s, opening, monitored, self.policy.lasts_s(opening))
            region.incidents[group] = incident
        # An old alarm that still counts is evidence of a change that joins, or of one that spreads. It adds nothing to a known one.
        others = {key: [alarm for alarm in by_key[key] if alarm.link not in incident.evidence.get(key, {})] for key in moved}
        joining = [alarm for rest in others.values() if self.policy.met(rest, monitored, strictness) for alarm in rest]
        joined = [alarm for alarm in without(alarms, opening) if self.policy.joins(incident, alarm)]
        fresh = [alarm for alarm in joined if alarm.confirmed or change_key(alarm) in incident.evidence]
        added = sorted_alarms({id(alarm): alarm for alarm in (*joining, *fresh)}.values())
        changes: list[IncidentChange] = []
        if opens or added:
            self._ingest(incident, now_s, added, monitored)
            parts = self._absorb_links(region, incident, now_s) if opens or joining else []
            incident.note_withdrawn(region.alarms)
            change = incident.change("opened", now_s) if opens else incident.update(now_s)
            changes = [*parts, *([change] if change is not None else []), *self._close_recovered(incident, now_s)]
        return [*changes, *self._detect_links(name, now_s, group, without(alarms, [*opening, *added]))]

    def _join_fleet(self, fleet: Incident, now_s: float, fresh: dict[str, list[LinkAlarm]]) -> list[IncidentChange]:
        """Move the alarms that the fleet's incident covers from the regions to it."""
        covered = {
            name: [alarm for alarm in alarms if alarm.group == fleet.group and self.policy.covers(fleet, alarm)]
            for name, alarms in fresh.items()
        }
        for name, alarms in covered.items():
            fresh[name] = without(fresh[name], alarms)
        joining = [alarm for alarms in covered.values() for alarm in alarms]
        if not joining:
            return []
        self._ingest(fleet, now_s, joining, self._monitored(now_s))
        for name in covered:
            fleet.note_withdrawn(self.regions[name].alarms)
        update = fleet.update(now_s)
        return [*([update] if update is not None else []), *self._close_recovered(fleet, now_s)]

    def _ingest(self, incident: Incident, now_s: float, alarms: Sequence[LinkAlarm], monitored: int) -> None:
        """Add evidence. A link that reports once in hours does not keep an incident open that the others have closed."""
        incident.ingest(now_s, alarms, monitored)
        incident.quiet_s = self.policy.lasts_s(incident.alarms)

    def _absorb_links(self, region: RegionMemory, incident: Incident, now_s: float) -> list[IncidentChange]:
        """Close the incidents of single links that are part of a larger one."""
        changes = []
        for of_link in list(region.links.values()):
            if of_link.group == incident.group and self.policy.belongs(of_link, incident):
                incident.absorb(of_link)
                changes.append(of_link.closed(now_s, incident.scope))
                region.drop(of_link)
        return changes

    def _detect_links(self, name: str, now_s: float, group: Group, alarms: list[LinkAlarm]) -> list[IncidentChange]:
        """Open or update incidents of single links, from alarms that no larger incident covers."""
        region = self.regions[name]
        of_link: defaultdict[str, list[LinkAlarm]] = defaultdict(list)
        known: dict[str, list[LinkAlarm]] = {alarm.link: [] for alarm in alarms}
        for alarm in region.alarms:
            if alarm.link in known:
                known[alarm.link].append(alarm)
        for alarm in alarms:
            sure = alarm.confirmed and not alarm.small and (group == "data" or not self.strictness)
            if sure or (group, alarm.link) in region.links:
                of_link[alarm.link].append(alarm)
            elif agreeing := self.policy.agreeing(alarm, known[alarm.link]):
                of_link[alarm.link] += agreeing
        changes = []
        for link, evidence in of_link.items():
            if (incident := region.links.get((group, link))) is None:
                incident = Incident.opened("link", name, now_s, evidence, len(region.monitored), self.policy.lasts_s(evidence))
                region.links[group, link] = incident
                changes.append(incident.change("opened", now_s))
            else:
                self._ingest(incident, now_s, evidence, len(region.monitored))
                changes += [update] if (update := incident.update(now_s)) is not None else []
        return changes

    def _detect_fleets(self, now_s: float) -> list[IncidentChange]:
        """Join the incidents of most regions into one if they came at the same time."""
        changes: list[IncidentChange] = []
        monitoring = sum(region.monitors(now_s) > 0 for region in self.regions.values())
        for group in GROUPS:
            if group in self.fleets:
                continue
            of_group = {
                name: region.incidents[group]
                for name, region in sorted(self.regions.items())
                if group in region.incidents and region.incidents[group].evidence  # one of an older release has none
            }
            middle_s = median([incident.since_s for incident in of_group.values()] or [0.0])
            parts = {name: one for name, one in of_group.items() if abs(one.since_s - middle_s) <= self.policy.window_s}
            if len(parts) >= FLEET_REGIONS_MIN and 2 * len(parts) > monitoring:
                changes += self._open_fleet(group, now_s, parts)
        return changes

    def _open_fleet(self, group: Group, now_s: float, parts: dict[str, Incident]) -> list[IncidentChange]:
        """Open the incident of the fleet from those of its regions, by region."""
        alarms = [alarm for incident in parts.values() for alarm in incident.alarms]
        fleet = Incident.opened("fleet", "", now_s, sorted_alarms(alarms), self._monitored(now_s), self.policy.lasts_s(alarms))
        self.fleets[group] = fleet
        for incident in parts.values():
            fleet.keep_recoveries(incident)
        changes = [incident.closed(now_s, "fleet") for incident in parts.values()]
        for name in parts:
            del self.regions[name].incidents[group]
        for _, region in sorted(self.regions.items()):
            changes += self._absorb_links(region, fleet, now_s)
        return [*changes, fleet.change("opened", now_s)]

    def _monitored(self, now_s: float) -> int:
        return sum(region.monitors(now_s) for region in self.regions.values())

    def complete(self, now_s: float) -> list[IncidentChange]:
        """Return updates of incidents whose links have all had the time to show the change, if there are more of them than were sent."""
        larger = [incident for incident in self._open() if incident.scope != "link" and not incident.complete]
        larger.sort(key=lambda incident: incident.region)
        changes = [incident.completed(now_s, self.policy.complete_after_s(incident.alarms)) for incident in larger]
        return [change for change in changes if change is not None]

    def close_quiet(self, now_s: float) -> list[IncidentChange]:
        """Close incidents without new evidence, in the order in which they have ended, however far the watermark has come at once."""
        closing = []
        for incident in self._open():
            if now_s - incident.evidence_s >= incident.quiet_s:
                closing.append((incident.evidence_s + incident.quiet_s, incident.region, incident))
                self._drop(incident)
        return [incident.closed(ended_s, "settled") for ended_s, _, incident in sorted(closing, key=lambda entry: entry[:2])]

    def go_back(self, limit_s: float) -> None:
        """Drop alarms and evidence with times after limit_s (UTC seconds), which are in the future."""
        for region in self.regions.values():
            region.go_back(limit_s, self.policy.window_s)
        for fleet in self.fleets.values():
            fleet.evidence_s = min(fleet.evidence_s, limit_s)

    def restore(self, epoch: int, regions: dict[str, Any], fleets: list[dict[str, Any]]) -> None:
        """Restore the incidents of these states."""
        self.epoch = epoch
        self.regions = {name: RegionMemory.restored(region) for name, region in regions.items()}
        self.fleets = {fleet.group: fleet for fleet in map(Incident.restored, fleets)}
