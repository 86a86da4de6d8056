"""The region stage: joins the links of a region in event-time buckets of one minute, and returns the changes of incidents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from drift.messages import IncidentChange, LinkAlarm, LinkSeen
from drift.region.buckets import BUCKET_S, Buckets
from drift.region.incidents import ABSORBED, Incidents
from drift.region.policy import STRICTER_FROM, QuorumPolicy

REGIONS_MAX: Final = 20_000
"""Most regions that are remembered, some 2 kB each. A link may name another region in each of its records, so the number of monitored links
is not a limit."""
WEEK_S: Final = 7 * 86_400.0
OPENED_MAX: Final = 10_000
"""Most incidents of a week that are counted."""


class RegionDrift:
    """Quorum and incidents of one process.

    >>> def alarm(minute, link):
    ...     return LinkAlarm(
    ...         time_s=60.0 * minute, region="eu", link=link, link_type="metro", signal=1, aspect="level", detector="cusum", direction=1,
    ...         confirmed=True, since_s=60.0 * minute - 300, size_sigma=4.0, size=18.0, shown=1.0, growth=0.0, interval_s=60.0, offset=0,
    ...         epoch=1,
    ...     )
    >>> drift = RegionDrift(QuorumPolicy(links_min=3))
    >>> drift.observe([alarm(10, link) for link in ("a", "b", "c")], [LinkSeen(540.0, "eu", link, 60.0, 1) for link in "abcdefgh"])
    >>> [(change.kind, change.scope, change.affected_links, change.watched_links) for change in drift.advance(watermark_s=660.0)]
    [('opened', 'region', 3, 8)]
    >>> [(change.kind, change.outcome) for change in drift.advance(watermark_s=7200.0)]
    [('closed', 'settled')]
    """

    def __init__(self, policy: QuorumPolicy | None = None) -> None:
        """Start without regions. policy: None: the default."""
        self.incidents = Incidents(policy or QuorumPolicy())
        self.open_incidents = 0
        self.forgotten = 0
        """Regions that were forgotten since the start because there were too many."""
        self.forgotten_links: Counter[str] = Counter()
        """For each link the number of its regions among those forgotten last: it shows which links send too many."""
        self._buckets = Buckets()
        self._opened_s: list[float] = []

    @property
    def opened_in_a_week(self) -> int:
        """Incidents that opened in the last week of event time, to compare with the budget of false alerts. One that became part of a
        larger one is counted as that."""
        return len(self._opened_s)

    @property
    def strictness(self) -> int:
        """How much stricter than usual incidents are opened, 0 to 3, because there were far more than the budget has."""
        return self.incidents.strictness

    @property
    def closed_through(self) -> int:
        """The last closed bucket (its start divided by BUCKET_S). A message for it, or for an earlier one, is late."""
        return self._buckets.closed_through

    @property
    def late(self) -> int:
        """Messages that came after their bucket had closed."""
        return self._buckets.late

    def observe(self, alarms: Sequence[LinkAlarm], seen: Sequence[LinkSeen], late: int = 0) -> None:
        """Keep messages of the link stage until their bucket closes. Late ones are counted and left out.

        Args:
            late: messages that were left out before, and are counted as well.
        """
        self._buckets.observe(alarms, seen)
        self._buckets.late += late

    def advance(self, watermark_s: float) -> list[IncidentChange]:
        """Close every bucket that ends at or before the watermark (UTC seconds), oldest first, and return the changes."""
        if not math.isfinite(watermark_s):
            return []
        changes: list[IncidentChange] = []
        for now_s, (alarms, seen) in self._buckets.close(watermark_s):
            # An incident that has been quiet for long enough closes before new evidence could keep it open.
            due = self.incidents.complete(now_s) + self.incidents.close_quiet(now_s)
            of_bucket = sorted(due, key=lambda change: change.time_s)
            if alarms or seen:
                self._judge_strictly(now_s)
                of_bucket += self.incidents.detect(now_s, alarms, seen)
                self._forget_regions()
            self._count(of_bucket, now_s)
            changes += of_bucket
        self.open_incidents = self.incidents.count()
        return changes

    def _count(self, changes: Sequence[IncidentChange], now_s: float) -> None:
        """Count the incidents that have opened in the last week."""
        opened = self._opened_s + [change.time_s for change in changes if change.kind == "opened"]
        for change in changes:
            if change.outcome in ABSORBED and change.opened_s in opened:
                opened.remove(change.opened_s)
        self._opened_s = [opened_s for opened_s in opened if opened_s > now_s - WEEK_S][-OPENED_MAX:]

    def _judge_strictly(self, now_s: float) -> None:
        """Open fewer incidents if there were far more in the last week than the budget has."""
        opened = sum(opened_s > now_s - WEEK_S for opened_s in self._opened_s)
        if opened > STRICTER_FROM[0]:
            monitored = sum(region.monitors(now_s) for region in self.incidents.regions.values())
            self.incidents.strictness = self.incidents.policy.strictness(opened, monitored)
        else:
            self.incidents.strictness = 0

    def _forget_regions(self) -> None:
        """If there are too many regions, forget those whose last message is the oldest, an eighth of them. Those with an open incident go
        last."""
        regions = self.incidents.regions
        going = len(regions) - REGIONS_MAX
        if going > 0:
            oldest_first = sorted(regions.items(), key=lambda item: (bool(item[1].all()), item[1].seen_s, item[0]))
            self.forgotten_links.clear()
            for name, region in oldest_first[: going + REGIONS_MAX // 8]:
                self.forgotten_links.update(region.monitored.keys())
                del regions[name]
                self.forgotten += 1

    def go_back(self, watermark_s: float, limit_s: float) -> bool:
        """Undo the effects of event time in the future, and return whether there were any.

        Args:
            watermark_s: time up to which buckets may stay closed, UTC seconds.
            limit_s: latest time that a record can have, UTC seconds.
        """
        if self.closed_through * BUCKET_S <= limit_s:
            return False
        self._buckets.go_back(watermark_s, limit_s)
        self.incidents.go_back(limit_s)
        self._opened_s = [opened_s for opened_s in self._opened_s if opened_s <= limit_s]
        return True

    def state(self) -> dict[str, Any]:
        """Return everything as plain numbers, lists and strings."""
        incidents = self.incidents
        return self._buckets.state() | {
            "epoch": incidents.epoch,
            "regions": {name: region.state() for name, region in sorted(incidents.regions.items())},
            "opened_s": self._opened_s,
            "fleets": [fleet.state() for fleet in incidents.fleets.values()],
        }

    @classmethod
    def restored(cls, state: dict[str, Any], policy: QuorumPolicy | None = None) -> RegionDrift:
        """Return the stage of a `state`."""
        drift = cls(policy)
        drift._buckets, drift._opened_s = Buckets.restored(state), list(state["opened_s"])
        drift.incidents.restore(state["epoch"], state["regions"], state["fleets"])
        drift.open_incidents = drift.incidents.count()
        return drift
