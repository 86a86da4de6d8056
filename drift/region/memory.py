"""The state of one region in the region stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from drift.messages import Group, LinkAlarm
from drift.region.evidence import ChangeKey, change_key
from drift.region.incident import Incident
from drift.region.recovery import Remaining


@dataclass(slots=True)
class CoolDown:
    """Alarms that a link may still send about a closed incident.

    >>> cool_down = CoolDown(until_s=9000.0, latest_s=2400.0, recoveries={(1, -1, "level"): Remaining(-18.0, 4.5)}, small={1: 2.0})
    >>> CoolDown.restored(cool_down.state()) == cool_down
    True

    Args:
        until_s: end of the cool-down, event time, UTC seconds.
        latest_s: changes after this time are new ones, UTC seconds.
        recoveries: the recoveries that are still to come.
        small: for each signal the size (standard deviations) by which its detectors may be off: they have learnt its level from a few rows.
    """

    until_s: float
    latest_s: float
    recoveries: dict[ChangeKey, Remaining]
    small: dict[int, float]

    def claims(self, alarm: LinkAlarm) -> bool:
        """Return whether an alarm belongs to the closed incident. It can claim each confirmed recovery once, in one piece or in several."""
        key = change_key(alarm)
        if alarm.since_s > self.latest_s:
            return False
        if key not in self.recoveries and not (alarm.aspect == "level" and abs(alarm.size_sigma) <= self.small.get(alarm.signal, 0.0)):
            return False
        if alarm.confirmed and key in self.recoveries and (left := self.recoveries.pop(key).less(alarm)) is not None:
            self.recoveries[key] = left
        return True

    def state(self) -> dict[str, Any]:
        """Return everything as plain numbers, lists and strings."""
        back = [[*key, one.size, one.tolerance] for key, one in self.recoveries.items()]
        return {"until_s": self.until_s, "latest_s": self.latest_s, "back": back, "small": list(self.small.items())}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> CoolDown:
        """Return the cool-down of a `state`."""
        back = {(signal, direction, aspect): Remaining(*one) for signal, direction, aspect, *one in state["back"]}
        return cls(state["until_s"], state["latest_s"], back, dict(map(tuple, state["small"])))


@dataclass(slots=True)
class RegionMemory:
    """The state of one region.

    >>> RegionMemory(monitored={"a|b": 600.0, "a|c": 900.0}).monitors(now_s=700.0)
    1

    Args:
        monitored: for each link the event time until which it counts as monitored, UTC seconds.
        alarms: alarms that still count, withdrawn ones as well.
        incidents: open incidents of the whole region.
        links: open incidents of single links.
        cool_downs: cool-downs of links.
        seen_s: event time of the last bucket with a message of the region, UTC seconds.
    """

    monitored: dict[str, float] = field(default_factory=dict)
    alarms: list[LinkAlarm] = field(default_factory=list)
    incidents: dict[Group, Incident] = field(default_factory=dict)
    links: dict[tuple[Group, str], Incident] = field(default_factory=dict)
    cool_downs: dict[str, CoolDown] = field(default_factory=dict)
    seen_s: float = -math.inf

    def all(self) -> list[Incident]:
        """Return all open incidents."""
        return [*self.incidents.values(), *self.links.values()]

    def monitors(self, now_s: float) -> int:
        """Return how many links count as monitored at an event time."""
        return sum(until_s > now_s for until_s in self.monitored.values())

    def drop(self, incident: Incident) -> None:
        """Forget a closed incident and its alarms: the next one needs evidence of its own."""
        self.forget_alarms(incident)
        self.incidents = {group: known for group, known in self.incidents.items() if known is not incident}
        self.links = {key: known for key, known in self.links.items() if known is not incident}

    def forget_alarms(self, incident: Incident) -> None:
        """Forget the alarms of an incident's changes, and of the recoveries of its links."""
        self.alarms = [alarm for alarm in self.alarms if not incident.concerns(alarm)]

    def claims(self, alarm: LinkAlarm) -> bool:
        """Return whether an alarm belongs to a closed incident of its link, see `CoolDown.claims`."""
        cool_down = self.cool_downs.get(alarm.link)
        return cool_down is not None and cool_down.claims(alarm)

    def go_back(self, limit_s: float, window_s: float) -> None:
        """Drop state with times in the future.

        Args:
            limit_s: latest possible time, UTC seconds.
            window_s: time for which a message of now counts, seconds.
        """
        self.monitored = {link: min(until_s, limit_s + window_s) for link, until_s in self.monitored.items()}
        self.alarms = [alarm for alarm in self.alarms if alarm.time_s <= limit_s]
        self.cool_downs = {link: one for link, one in self.cool_downs.items() if one.latest_s <= limit_s}
        for incident in self.all():
            incident.evidence_s = min(incident.evidence_s, limit_s)
        self.seen_s = min(self.seen_s, limit_s)

    def state(self) -> dict[str, Any]:
        """Return everything as plain numbers, lists and strings."""
        return {
            "watched": dict(self.monitored),
            "alarms": [alarm.state() for alarm in self.alarms],
            "incidents": [incident.state() for incident in self.incidents.values()],
            "links": [[link, incident.state()] for (_, link), incident in self.links.items()],
            "aftermath": [[link, one.state()] for link, one in self.cool_downs.items()],
            "seen_s": self.seen_s,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> RegionMemory:
        """Return the region of a `state`."""
        of_region = [Incident.restored(incident) for incident in state["incidents"]]
        of_links = [(link, Incident.restored(incident)) for link, incident in state["links"]]
        return cls(
            monitored=dict(state["watched"]),
            alarms=[LinkAlarm.restored(alarm) for alarm in state["alarms"]],
            incidents={incident.group: incident for incident in of_region},
            links={(incident.group, link): incident for link, incident in of_links},
            cool_downs={link: CoolDown.restored(one) for link, one in state["aftermath"]},
            seen_s=state["seen_s"],
        )
