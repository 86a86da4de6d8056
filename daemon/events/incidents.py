"""The region stage of the daemon: incidents that open, grow and close, and the events about buckets and regions."""

from __future__ import annotations

from daemon.ingest.group import Group
from daemon.ingest.ingested import Ingested
from daemon.ingest.room import NAMED_MAX
from daemon.operator.observer import Observer
from drift.messages import IncidentChange
from drift.region.buckets import BUCKET_S
from drift.region.stage import RegionDrift


class Incidents:
    """Follows event time over all partitions of this process."""

    def __init__(self, regions: RegionDrift, observer: Observer) -> None:
        self.regions, self._observer = regions, observer

    def advance(self, ingested: Ingested, group: Group) -> list[IncidentChange]:
        """Close the one-minute buckets that every partition has passed, and return the changes of incidents.

        If a partition's event time was in the future, its buckets are opened again here, once every partition has been corrected.
        """
        self.regions.observe(ingested.alarms, ingested.seen, ingested.late)
        self.undo(group)
        known, strictness = self.regions.forgotten, self.regions.strictness
        with self._observer.stage("regions"):
            changes = self.regions.advance(group.watermark_s)
        if self.regions.strictness != strictness:
            self._observer.emit(
                "alerts_judged_anew", strictness=self.regions.strictness, before=strictness, opened_in_a_week=self.regions.opened_in_a_week,
                remedy="see which alerts they are; raise drift.false_alerts_per_week if all of them are true",
            )  # fmt: skip
        if forgotten := self.regions.forgotten - known:
            self._observer.regions_forgotten.inc(forgotten)
            links = self.regions.forgotten_links
            most, remedy = dict(links.most_common(NAMED_MAX)), "find out why those links send ever new names of regions"
            self._observer.emit("regions_forgotten", regions=forgotten, senders=len(links), most_from=most, remedy=remedy)
        return changes

    def undo(self, group: Group) -> None:
        """Open buckets again that were closed for times in the future."""
        if self.regions.go_back(group.begun_through_s, group.limit_s):
            self._observer.emit("buckets_undone", closed_through_s=self.regions.closed_through * BUCKET_S)

    def end(self, group: Group) -> list[IncidentChange]:
        """Close all buckets of a finite source that has ended, and return the changes of incidents."""
        return self.regions.advance(group.end_s)
