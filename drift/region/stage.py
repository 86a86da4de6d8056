"""The region stage: joins the links of a region in event-time buckets of one minute, and decides what is an incident, of whom."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from drift.link.cusum import SEEN_EVERY_S
from drift.messages import Group, IncidentChange, LinkAlarm, LinkSeen
from drift.region.buckets import BUCKET_S, Bucket, Buckets, sorted_alarms
from drift.region.evidence import Key, key_of
from drift.region.incident import Incident
from drift.region.memory import Aftermath, WatchedRegion
from drift.region.policy import WINDOW_ROWS, QuorumPolicy
from drift.region.recovery import BACK_MIN

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
        self.forgotten = 0
        """Regions that were forgotten since the start because there were too many."""
        self.forgotten_links: Counter[str] = Counter()
        """How many regions each link was seen in that were forgotten last: who brings them."""
        self._buckets = Buckets()
        self._regions: dict[str, WatchedRegion] = {}
        self._fleets: dict[Group, Incident] = {}
        self._opened_s: list[float] = []
        self._epoch = 0

    @property
    def open_incidents(self) -> int:
        return sum(len(region.all()) for region in self._regions.values()) + len(self._fleets)

    @property
    def opened_in_a_week(self) -> int:
        """Incidents that opened in the last week of event time: what the budget of false alerts is held against. One that became part of a
        larger one counts as that."""
        return len(self._opened_s)

    def observe(self, alarms: Sequence[LinkAlarm], seen: Sequence[LinkSeen], late: int = 0) -> None:
        """Keeps messages of the link stage until their bucket closes. Late ones are counted and left out, as `late` others were before."""
        self._buckets.observe(alarms, seen)
        self._buckets.late += late

    @property
    def closed_through(self) -> int:
        """The last closed bucket (its start divided by 60 s); what comes for it or an earlier one is late."""
        return self._buckets.closed_through

    @property
    def late(self) -> int:
        return self._buckets.late

    def advance(self, watermark_s: float) -> list[IncidentChange]:
        """Closes every bucket that ends at or before the watermark (UTC seconds), oldest first, and says what changed."""
        if not math.isfinite(watermark_s):
            return []
        changes: list[IncidentChange] = []
        now_s = -math.inf
        for now_s, (alarms, seen) in self._buckets.close(watermark_s):
            # Whoever is quiet long enough closes before new evidence could keep an incident open that had ended.
            changes += self._close_quiet(now_s)
            if alarms or seen:
                changes += self._judge(now_s, alarms, seen)
        if now_s == -math.inf:
            return []
        opened = self._opened_s + [change.time_s for change in changes if change.kind == "opened"]
        for change in changes:
            if change.outcome in TAKEN_OVER and change.opened_s in opened:
                opened.remove(change.opened_s)
        self._opened_s = [at_s for at_s in opened if at_s > now_s - WEEK_S][-OPENED_MAX:]
        return changes

    def go_back(self, watermark_s: float, limit_s: float) -> bool:
        """Undoes that time ran away: True if it had. watermark_s: up to where buckets can have been closed. limit_s: UTC seconds after
        which no record can be."""
        if self.closed_through * BUCKET_S <= limit_s:
            return False
        self._buckets.go_back(watermark_s, limit_s)
        for region in self._regions.values():
            region.go_back(limit_s, self.policy.window_s)
        for fleet in self._fleets.values():
            fleet.evidence_s = min(fleet.evidence_s, limit_s)
        self._opened_s = [at_s for at_s in self._opened_s if at_s <= limit_s]
        return True

    def _judge(self, now_s: float, alarms: list[LinkAlarm], seen: list[LinkSeen]) -> list[IncidentChange]:
        """Takes one bucket."""
        by_region: defaultdict[str, Bucket] = defaultdict(lambda: ([], []))
        for alarm in alarms:
            by_region[alarm.region][0].append(alarm)
        for one in seen:
            by_region[one.region][1].append(one)
        changes: list[IncidentChange] = []
        newest = max([0, *(alarm.epoch for alarm in alarms), *(one.epoch for one in seen)])
        if newest > self._epoch:
            changes += self._replaced(now_s) if self._epoch else []
            self._epoch = newest
        fresh: dict[str, list[LinkAlarm]] = {}
        for name in sorted(by_region):
            more, fresh[name] = self._heed(self._regions.setdefault(name, WatchedRegion()), now_s, *by_region[name])
            changes += more
        for fleet in list(self._fleets.values()):
            changes += self._judge_open_fleet(fleet, now_s, fresh)
        for name, of_region in fresh.items():
            for group in GROUPS:
                if own := [alarm for alarm in of_region if alarm.group == group]:
                    changes += self._judge_region(name, self._regions[name], now_s, group, own)
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
            self.forgotten_links.clear()
            for name, region in oldest_first[: going + REGIONS_MAX // 8]:
                self.forgotten_links.update(region.watched.keys())
                del self._regions[name]
                self.forgotten += 1

    def _heed(
        self, region: WatchedRegion, now_s: float, alarms: list[LinkAlarm], seen: list[LinkSeen]
    ) -> tuple[list[IncidentChange], list[LinkAlarm]]:  # fmt: skip
        """Takes one bucket of one region. Gives which incidents have gone back, and the alarms that may be of a change."""
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
        return changes, [alarm for alarm in alarms if not alarm.over]

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
        for group, fleet in list(self._fleets.items()):
            if group == "network" or fleet.without_categories():
                over.append(fleet)
                del self._fleets[group]
        return [incident.closed(now_s, "model_replaced") for incident in over]

    def _recovered(self, region: WatchedRegion, alarms: list[LinkAlarm], now_s: float) -> tuple[list[IncidentChange], list[LinkAlarm]]:
        """Closes incidents most of whose links have gone back. Gives the changes, and the alarms that have not told of a way back."""
        incidents, left = [*region.all(), *self._fleets.values()], []
        touched: list[Incident] = []
        back: set[tuple[str, Key]] = set()
        for alarm in alarms:
            noted = [incident for incident in incidents if incident.goes_back(alarm)]
            touched += [incident for incident in noted if all(incident is not one for one in touched)]
            if noted and not alarm.over:
                back.add((alarm.link, key_of(alarm)))
            ends = alarm.group == "data" and alarm.direction < 0  # of a fault that nobody has heard of any more
            if not noted and (alarm.over or not (self._is_aftermath(region, alarm) or ends)):
                left.append(alarm)
        # What a way back was taken for at first, before it was certain.
        region.alarms = [alarm for alarm in region.alarms if (alarm.link, key_of(alarm)) not in back]
        changes = []
        for incident in touched:
            if incident.may_be_over:  # it does not settle before that is certain, or is not so
                incident.evidence_s = now_s
            changes += self._end_if_over(incident, now_s)
        return changes, [alarm for alarm in left if not self._is_aftermath(region, alarm)] if changes else left

    def _end_if_over(self, incident: Incident, now_s: float) -> list[IncidentChange]:
        """Closes an incident most of whose links have gone back; the others may tell it yet."""
        if not incident.is_over:
            return []
        region_of = {alarm.link: alarm.region for alarm in incident.alarms}
        for link, back in incident.still_to_come().items():
            if (region := self._regions.get(region_of[link])) is not None:
                small = {signal: min(AFTERMATH_SIGMA, BACK_MIN * size) for signal, size in incident.sizes_of(link).items()}
                region.aftermath[link] = Aftermath(now_s + AFTERMATH * incident.quiet_s, now_s + self.policy.window_s, back, small)
        if incident.scope == "fleet":
            self._drop_fleet(incident)
        else:
            self._regions[incident.region].drop(incident)
        return [incident.closed(now_s, incident.way_out)]

    def _drop_fleet(self, fleet: Incident) -> None:
        """Forgets a closed incident of the fleet, and in all regions what it rested on."""
        del self._fleets[fleet.group]
        for region in self._regions.values():
            region.forget(fleet)

    def _is_aftermath(self, region: WatchedRegion, alarm: LinkAlarm) -> bool:
        """Whether the alarm is of an incident that is over; a way back is told for certain once."""
        after = region.aftermath.get(alarm.link)
        if after is None or not after.explains(alarm):
            return False
        after.take(alarm)
        return True

    def _judge_region(
        self, name: str, region: WatchedRegion, now_s: float, group: Group, alarms: list[LinkAlarm]
    ) -> list[IncidentChange]:  # fmt: skip
        """Opens or updates the incident of the whole region, or else those of single links."""
        watched, fleet = len(region.watched), self._fleets.get(group)
        if group == "data":  # nobody is known to be watched in a region that has a new name
            watched = len(region.watched.keys() | {alarm.link for alarm in region.alarms})
        by_key: defaultdict[Key, list[LinkAlarm]] = defaultdict(list)
        for alarm in region.alarms:
            if alarm.group == group and not alarm.over and not (fleet is not None and self.policy.covers(fleet, alarm)):
                by_key[key_of(alarm)].append(alarm)
        moved = [key for key, own in by_key.items() if self.policy.met(own, watched)]
        incident, own = region.incidents.get(group), list[LinkAlarm]()
        if opens := incident is None:
            if not any(key_of(alarm) in moved for alarm in alarms):
                return self._judge_links(name, region, now_s, group, alarms)
            own = sorted_alarms(alarm for key in moved for alarm in by_key[key])
            region.incidents[group] = incident = Incident.opened("region", name, now_s, own, watched, self.policy.lasts_s(own))
        # An old alarm that still counts is evidence of a change that joins, or of one that spreads, but nothing new of what is known.
        others = {key: [alarm for alarm in by_key[key] if alarm.link not in incident.evidence.get(key, {})] for key in moved}
        joining = [alarm for rest in others.values() if self.policy.met(rest, watched) for alarm in rest]
        joined = [alarm for alarm in _without(alarms, own) if self.policy.joins(incident, alarm)]
        fresh = [alarm for alarm in joined if alarm.certain or key_of(alarm) in incident.evidence]
        known = sorted_alarms({id(alarm): alarm for alarm in (*joining, *fresh)}.values())
        changes: list[IncidentChange] = []
        if opens or known:
            self._take(incident, now_s, known, watched)
            parts = self._taken_over(region, incident, now_s) if opens or joining else []
            self._note_what_is_over(incident, region)
            told = incident.change("opened", now_s) if opens else incident.update(now_s)
            changes = [*parts, *([told] if told is not None else []), *self._end_if_over(incident, now_s)]
        return [*changes, *self._judge_links(name, region, now_s, group, _without(alarms, [*own, *known]))]

    def _judge_open_fleet(self, fleet: Incident, now_s: float, fresh: dict[str, list[LinkAlarm]]) -> list[IncidentChange]:
        """Takes out of the regions' alarms what the fleet's incident covers."""
        covered = {
            name: [alarm for alarm in alarms if alarm.group == fleet.group and self.policy.covers(fleet, alarm)]
            for name, alarms in fresh.items()
        }
        for name, own in covered.items():
            fresh[name] = _without(fresh[name], own)
        alarms = [alarm for own in covered.values() for alarm in own]
        if not alarms:
            return []
        self._take(fleet, now_s, alarms, self._watched(now_s))
        for name in covered:
            self._note_what_is_over(fleet, self._regions[name])
        update = fleet.update(now_s)
        return [*([update] if update is not None else []), *self._end_if_over(fleet, now_s)]

    def _take(self, incident: Incident, now_s: float, alarms: Sequence[LinkAlarm], watched: int) -> None:
        """New evidence; a link that reports once in hours does not keep open what the others have closed."""
        incident.take(now_s, alarms, watched)
        incident.quiet_s = self.policy.lasts_s(incident.alarms)

    def _note_what_is_over(self, incident: Incident, region: WatchedRegion) -> None:
        """Of its evidence, what has fallen back already."""
        for alarm in region.alarms:
            if alarm.over:
                incident.goes_back(alarm)

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
            else:
                self._take(incident, now_s, own, len(region.watched))
                changes += [update] if (update := incident.update(now_s)) is not None else []
        return changes

    def _judge_fleet(self, now_s: float) -> list[IncidentChange]:
        """Makes one incident of those of most regions, where they came at the same time."""
        changes: list[IncidentChange] = []
        watching = sum(any(until_s > now_s for until_s in region.watched.values()) for region in self._regions.values())
        for group in GROUPS:
            if group in self._fleets:
                continue
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
            fleet = Incident.opened("fleet", "", now_s, sorted_alarms(alarms), self._watched(now_s), self.policy.lasts_s(alarms))
            self._fleets[group] = fleet
            for incident in own.values():
                fleet.keep_ways_back(incident)
            changes += [incident.closed(now_s, "fleet") for incident in own.values()]
            for name in own:
                del self._regions[name].incidents[group]
            for _, region in sorted(self._regions.items()):
                changes += self._taken_over(region, fleet, now_s)
            changes.append(fleet.change("opened", now_s))
        return changes

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
        for fleet in list(self._fleets.values()):
            if now_s - fleet.evidence_s >= fleet.quiet_s:
                over.append((fleet.evidence_s + fleet.quiet_s, "", fleet))
                self._drop_fleet(fleet)
        return [incident.closed(at_s, "settled") for at_s, _, incident in sorted(over, key=lambda one: one[:2])]

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and strings."""
        return self._buckets.state() | {
            "epoch": self._epoch,
            "regions": {name: region.state() for name, region in sorted(self._regions.items())},
            "opened_s": self._opened_s,
            "fleets": [fleet.state() for fleet in self._fleets.values()],
        }

    @classmethod
    def restored(cls, state: dict[str, Any], policy: QuorumPolicy | None = None) -> RegionDrift:
        """What `state` was taken from."""
        drift = cls(policy)
        drift._buckets, drift._epoch = Buckets.restored(state), state["epoch"]
        drift._regions = {name: WatchedRegion.restored(kept) for name, kept in state["regions"].items()}
        drift._opened_s = list(state["opened_s"])
        drift._fleets = {fleet.group: fleet for fleet in map(Incident.restored, state["fleets"])}
        return drift


def _without(alarms: list[LinkAlarm], taken: Sequence[LinkAlarm]) -> list[LinkAlarm]:
    gone = {id(alarm) for alarm in taken}
    return [alarm for alarm in alarms if id(alarm) not in gone]
