"""The operator's settings for incidents: when alarms of links become one of their region, which alarms join it, and how long it lasts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from drift.link.cusum import NOTICE_ROWS
from drift.link.fault_kernels import ADOPTED_S
from drift.messages import LinkAlarm
from drift.region.evidence import change_key, opposite
from drift.region.incident import Incident

WINDOW_ROWS: Final = 30
"""Least number of its link's rows for which an alarm counts."""
AT_ONCE_ROWS: Final = 7
"""Rows within which detectors date a step that comes at once."""
LASTING: Final = 3.0
"""Times as long for which an alarm counts with others of changes at the same time, unless it is withdrawn: links notice one change at very
different times."""
SHARE_OF_SMALL: Final = 0.07
"""Least share of a region's links if their changes are small: links of a region move together a little, and forecasts of one version are
biased together."""
SHARE_OF_NOTICES: Final = 0.25
SHARE_AT_ONCE: Final = 0.08
"""Least share of a region's links that notice something within WINDOW_ROWS, and within AT_ONCE_ROWS."""
CHANCE: Final = 1e-6
"""Probability of as many notices at a time by chance. A week of a fleet has some 50,000 such times for each signal and direction."""
TOGETHER: Final = 3.0
"""Times by which notices come more often than if the links of a region knew nothing of each other."""
QUIET_ROWS: Final = 60
"""Least number of its links' rows without new evidence after which an incident closes."""
BUDGET_LINKS: Final = 2000
"""Monitored links of the fleet that the budget of false alerts is for."""
STRICTER_FROM: Final = (10, 30, 100)
"""Incidents of a week (and as many budgets of the fleet) from which quorums are larger, and a link needs two detectors that agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumPolicy:
    """The rule by which alarms of single links become one incident of their region.

    >>> QuorumPolicy(links_min=3, links_share=0.02).quorum(monitored=400)
    8

    Args:
        links_min: at least this many links of a region.
        links_share: at least this share of its monitored links, 0 to 1.
        window_s: how long an alarm counts, seconds; WINDOW_ROWS rows of its link if that is longer.
        false_alerts_per_week: budget of false alerts for BUDGET_LINKS monitored links.
        quiet_s: an incident closes after this long without new evidence, seconds; after QUIET_ROWS rows of its links if that is longer.
    """

    links_min: int = 3
    links_share: float = 0.02
    window_s: float = 1800.0
    quiet_s: float = 3600.0
    false_alerts_per_week: float = 1.0

    def strictness(self, opened: int, monitored: int) -> int:
        """Return how much stricter than usual incidents are opened, 0 to 3, after this many of a week with this many monitored links.

        What was really there counts too, so it takes many times the budget.
        """
        budget = self.false_alerts_per_week * monitored / BUDGET_LINKS
        return sum(opened > most * (1.0 + budget) for most in STRICTER_FROM)

    def quorum(self, monitored: int, strictness: int = 0) -> int:
        """Return how many links make a quorum, of this many monitored ones: never more than there are, but links_min."""
        usual = max(self.links_min, math.ceil(self.links_share * monitored))
        return min(math.ceil(usual * (1.0 + 0.5 * strictness)), max(monitored, self.links_min))

    def met(self, alarms: Sequence[LinkAlarm], monitored: int, strictness: int = 0) -> bool:
        """Return whether alarms of one key make an incident of their region.

        Either a quorum of links, or so many that have only noticed something, at about the same time, that it is no chance. A region with
        fewer monitored links than a quorum needs all of them, each of them confirmed. A value of a category that is new on fewer links than
        a quorum is theirs in any case: a phone that comes to another cell is not its region.
        """
        if monitored >= self.links_min:
            sure = [alarm for alarm in alarms if not alarm.noticed]
            newest_s = max((alarm.time_s for alarm in sure), default=0.0)
            quorum = self.quorum(monitored, strictness)
            large = [alarm for alarm in sure if not alarm.small]
            for found, least in ((sure, max(quorum, SHARE_OF_SMALL * monitored)), (large, quorum)):
                recent = {alarm.link for alarm in found if newest_s - alarm.time_s < self._window_s(alarm)}
                if max(len(recent), len({alarm.link for alarm in in_time(found, WINDOW_ROWS)})) >= least:
                    return True
            return any(
                len({alarm.link for alarm in in_time(alarms, rows)}) >= self.quorum_of_notices(monitored, rows, share, strictness)
                for rows, share in ((WINDOW_ROWS, SHARE_OF_NOTICES), (AT_ONCE_ROWS, SHARE_AT_ONCE))
            )
        if any(alarm.aspect == "category" for alarm in alarms):
            return False
        return 0 < monitored <= len({alarm.link for alarm in alarms if alarm.confirmed and not alarm.small})

    def quorum_of_notices(self, monitored: int, rows: int, share: float, strictness: int = 0) -> int:
        """Return how many links that notice something within so many rows make a quorum, of this many monitored ones.

        So many do so by a chance of CHANCE or less (Poisson); and they are a share (0 to 1) of the region, because a shock that all links
        have a little of makes those notice it which are near their threshold.
        """
        expected = monitored * rows * TOGETHER / NOTICE_ROWS
        count, probability = 0, math.exp(-expected)
        left = 1.0 - probability
        while left > CHANCE * 0.01**strictness:
            count += 1
            probability *= expected / count
            left -= probability
        return max(self.links_min + 1, count + 1, math.ceil(share * monitored))

    def agreeing(self, alarm: LinkAlarm, others: Sequence[LinkAlarm]) -> list[LinkAlarm]:
        """Return the alarms of one change of one link if two detectors have found it, else none.

        Args:
            others: alarms of its link that still count.
        """
        half_s = 0.5 * WINDOW_ROWS * alarm.interval_s if not alarm.noticed else -1.0
        same = [
            one for one in others
            if change_key(one) == change_key(alarm) and not one.noticed and not one.withdrawn
            and abs(one.since_s - alarm.since_s) <= half_s
        ]  # fmt: skip
        return same if len({one.detector for one in same}) > 1 else []

    def that_count(self, alarms: Sequence[LinkAlarm], now_s: float) -> list[LinkAlarm]:
        """Return the alarms that still count at an event time (UTC seconds).

        An alarm counts for window_s, or WINDOW_ROWS rows of its link; LASTING times as long if it is more than a notice and was not
        withdrawn. A notice that was withdrawn counts no more.
        """
        gone_s = {(one.link, one.detector, opposite(change_key(one))): one.time_s for one in alarms if one.withdrawn}

        def counts(alarm: LinkAlarm) -> bool:
            gone = gone_s.get((alarm.link, alarm.detector, change_key(alarm)), -math.inf) >= alarm.time_s
            if alarm.noticed and gone:
                return False
            lasts = LASTING if not alarm.noticed and (alarm.confirmed or not gone) else 1.0
            return alarm.time_s + lasts * self._window_s(alarm) > now_s

        return [alarm for alarm in alarms if counts(alarm)]

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
        return self._window_s(alarm) >= alarm.time_s - newest_s

    def belongs(self, of_link: Incident, incident: Incident) -> bool:
        """Return whether a link's incident is part of one of its region: the same change, or one at the same time."""
        return bool(of_link.evidence.keys() & incident.evidence.keys()) or abs(of_link.since_s - incident.since_s) <= self.window_s

    def complete_after_s(self, alarms: Sequence[LinkAlarm]) -> float:
        """Return how long after its opening an incident has found all its links, seconds."""
        return median([self._window_s(alarm) for alarm in alarms] or [self.window_s])

    def lasts_s(self, alarms: Sequence[LinkAlarm]) -> float:
        """Return how long an incident stays open without new evidence, seconds."""
        quiet_s = max(self.quiet_s, QUIET_ROWS * median(alarm.interval_s for alarm in alarms))
        return quiet_s if alarms[0].group == "network" else ADOPTED_S + quiet_s  # a fault is reported when it begins and when it ends


def in_time(alarms: Sequence[LinkAlarm], rows: int) -> list[LinkAlarm]:
    """Return the alarms of the most links whose changes are within so many rows of each other."""
    if not alarms:
        return []
    span_s = rows * median(alarm.interval_s for alarm in alarms)
    ordered = sorted(alarms, key=lambda alarm: alarm.since_s)
    within: Counter[str] = Counter()
    most, best, first = 0, (0, 0), 0
    for last, alarm in enumerate(ordered):
        within[alarm.link] += 1
        while alarm.since_s - ordered[first].since_s > span_s:
            gone = ordered[first].link
            within[gone] -= 1
            if not within[gone]:
                del within[gone]
            first += 1
        if len(within) > most:
            most, best = len(within), (first, last + 1)
    return ordered[slice(*best)]
