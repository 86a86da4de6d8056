"""What an operator sets of incidents: when alarms of links are one of their region, what belongs to one, and how long one lasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from drift.link.faults import ACCEPTED_S
from drift.messages import LinkAlarm
from drift.region.evidence import key_of
from drift.region.incident import Incident

WINDOW_ROWS: Final = 30
"""A link's alarm counts for so many of its own rows at least."""
QUIET_ROWS: Final = 60


@dataclass(frozen=True, slots=True)
class QuorumPolicy:
    """When alarms of single links become one incident of their region."""

    links_min: int = 3
    links_share: float = 0.02
    window_s: float = 1800.0
    """How long an alarm counts, or for WINDOW_ROWS rows of its link where that is longer."""
    quiet_s: float = 3600.0
    """An incident closes after this long without new evidence, or after QUIET_ROWS rows of its links where that is longer."""

    def quorum(self, watched: int) -> int:
        return max(self.links_min, math.ceil(self.links_share * watched))

    def met(self, alarms: Sequence[LinkAlarm], watched: int) -> bool:
        """Whether alarms of one key make an incident of their region. A region with fewer watched links than a quorum needs all of them,
        and each worth telling by itself."""
        links = {alarm.link for alarm in alarms}
        if watched >= self.links_min:
            return len(links) >= self.quorum(watched)
        return 0 < watched <= len({alarm.link for alarm in alarms if alarm.certain})

    def counts_until(self, alarm: LinkAlarm) -> float:
        return alarm.time_s + max(self.window_s, WINDOW_ROWS * alarm.interval_s)

    def covers(self, incident: Incident, alarm: LinkAlarm) -> bool:
        """Whether an alarm belongs to an open incident of its region or fleet: its link is affected already, and goes on or part of the way
        back; or the change came at the same time."""
        if incident.concerns(alarm):
            return True
        return abs(alarm.since_s - incident.since_s) <= max(self.window_s, WINDOW_ROWS * alarm.interval_s)

    def joins(self, incident: Incident, alarm: LinkAlarm) -> bool:
        """Whether an alarm is evidence of an open incident: of an affected link, or soon after one of another; else links that change one
        after the other, for other reasons, would keep it open for days."""
        if self.covers(incident, alarm):
            return True
        newest_s = max((one.time_s for one in incident.evidence.get(key_of(alarm), {}).values()), default=-math.inf)
        return self.counts_until(alarm) - alarm.time_s >= alarm.time_s - newest_s

    def belongs(self, of_link: Incident, incident: Incident) -> bool:
        """Whether a link's incident is part of one of its region: the same change, or one at the same time."""
        return bool(of_link.evidence.keys() & incident.evidence.keys()) or abs(of_link.since_s - incident.since_s) <= self.window_s

    def lasts_s(self, alarms: Sequence[LinkAlarm]) -> float:
        """How long an incident stays open without new evidence."""
        quiet_s = max(self.quiet_s, QUIET_ROWS * median(alarm.interval_s for alarm in alarms))
        return quiet_s if alarms[0].group == "network" else ACCEPTED_S + quiet_s  # a fault is told when it begins and when it ends
