"""The operator's settings for incidents: when alarms of links become one of their region, which alarms join it, and how long it lasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from drift.link.fault_kernels import ADOPTED_S
from drift.messages import LinkAlarm
from drift.region.evidence import change_key
from drift.region.incident import Incident

WINDOW_ROWS: Final = 30
"""Least number of its link's rows for which an alarm counts."""
QUIET_ROWS: Final = 60
"""Least number of its links' rows without new evidence after which an incident closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumPolicy:
    """The rule by which alarms of single links become one incident of their region.

    >>> QuorumPolicy(links_min=3, links_share=0.02).quorum(monitored=400)
    8

    Args:
        links_min: at least this many links of a region.
        links_share: at least this share of its monitored links, 0 to 1.
        window_s: how long an alarm counts, seconds; WINDOW_ROWS rows of its link if that is longer.
        quiet_s: an incident closes after this long without new evidence, seconds; after QUIET_ROWS rows of its links if that is longer.
    """

    links_min: int = 3
    links_share: float = 0.02
    window_s: float = 1800.0
    quiet_s: float = 3600.0

    def quorum(self, monitored: int) -> int:
        """Return how many links make a quorum, of this many monitored ones."""
        return max(self.links_min, math.ceil(self.links_share * monitored))

    def met(self, alarms: Sequence[LinkAlarm], monitored: int) -> bool:
        """Return whether alarms of one key make an incident of their region.

        A region with fewer monitored links than a quorum needs all of them, each of them confirmed.
        """
        links = {alarm.link for alarm in alarms}
        if monitored >= self.links_min:
            return len(links) >= self.quorum(monitored)
        return 0 < monitored <= len({alarm.link for alarm in alarms if alarm.confirmed})

    def counts_until(self, alarm: LinkAlarm) -> float:
        """Return the event time until which an alarm counts, UTC seconds."""
        return alarm.time_s + self._window_s(alarm)

    def _window_s(self, alarm: LinkAlarm) -> float:
        return max(self.window_s, WINDOW_ROWS * alarm.interval_s)

    def covers(self, incident: Incident, alarm: LinkAlarm) -> bool:
        """Return whether an alarm belongs to an open incident of its region or fleet.

        Either its link is affected already, and goes on or recovers in part, or the change came at the same time.
        """
        return incident.concerns(alarm) or abs(alarm.since_s - incident.since_s) <= self._window_s(alarm)

    def joins(self, incident: Incident, alarm: LinkAlarm) -> bool:
        """Return whether an alarm is evidence of an open incident: of an affected link, or soon after an alarm of another.

        Otherwise links that change one after the other, for other reasons, would keep it open for days.
        """
        if self.covers(incident, alarm):
            return True
        newest_s = max((known.time_s for known in incident.evidence.get(change_key(alarm), {}).values()), default=-math.inf)
        return self.counts_until(alarm) - alarm.time_s >= alarm.time_s - newest_s

    def belongs(self, of_link: Incident, incident: Incident) -> bool:
        """Return whether a link's incident is part of one of its region: the same change, or one at the same time."""
        return bool(of_link.evidence.keys() & incident.evidence.keys()) or abs(of_link.since_s - incident.since_s) <= self.window_s

    def lasts_s(self, alarms: Sequence[LinkAlarm]) -> float:
        """Return how long an incident stays open without new evidence, seconds."""
        quiet_s = max(self.quiet_s, QUIET_ROWS * median(alarm.interval_s for alarm in alarms))
        return quiet_s if alarms[0].group == "network" else ADOPTED_S + quiet_s  # a fault is reported when it begins and when it ends
