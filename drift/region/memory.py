"""One region, as the region stage remembers it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from drift.messages import Group, LinkAlarm
from drift.region.evidence import Key, key_of
from drift.region.incident import Incident
from drift.region.recovery import ToCome


@dataclass(slots=True)
class Aftermath:
    """What a link whose incident is over may yet tell of it: until then, and of changes up to latest_s.

    back: that it has gone back, and how far is left. small: by signal, in standard deviations, by how little its detectors' idea of its
    level, which they had from a few rows, may be off.
    """

    until_s: float
    latest_s: float
    back: dict[Key, ToCome]
    small: dict[int, float]

    def explains(self, alarm: LinkAlarm) -> bool:
        if alarm.since_s > self.latest_s:
            return False
        return key_of(alarm) in self.back or (alarm.aspect == "level" and abs(alarm.size_sigma) <= self.small.get(alarm.signal, 0.0))

    def take(self, alarm: LinkAlarm) -> None:
        """One that it explains: a way back is told for certain once, in one piece or in several."""
        key = key_of(alarm)
        if alarm.certain and key in self.back and (left := self.back.pop(key).less(alarm)) is not None:
            self.back[key] = left

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and strings."""
        back = [[*key, one.size, one.tolerance] for key, one in self.back.items()]
        return {"until_s": self.until_s, "latest_s": self.latest_s, "back": back, "small": list(self.small.items())}

    @classmethod
    def restored(cls, kept: dict[str, Any]) -> Aftermath:
        """What `state` was taken from."""
        back = {(signal, direction, aspect): ToCome(*one) for signal, direction, aspect, *one in kept["back"]}
        return cls(kept["until_s"], kept["latest_s"], back, dict(map(tuple, kept["small"])))


@dataclass(slots=True)
class WatchedRegion:
    """What is known of one region: whom it watches, alarms that still count, and open incidents."""

    watched: dict[str, float] = field(default_factory=dict)  # link -> until when it counts as watched
    alarms: list[LinkAlarm] = field(default_factory=list)  # that count, and which of them are over
    incidents: dict[Group, Incident] = field(default_factory=dict)  # of the region
    links: dict[tuple[Group, str], Incident] = field(default_factory=dict)  # of single links
    aftermath: dict[str, Aftermath] = field(default_factory=dict)  # of links
    seen_s: float = -math.inf

    def all(self) -> list[Incident]:
        return [*self.incidents.values(), *self.links.values()]

    def drop(self, incident: Incident) -> None:
        """Forgets a closed incident, and what it rested on: the next one needs evidence of its own."""
        self.forget(incident)
        self.incidents = {group: one for group, one in self.incidents.items() if one is not incident}
        self.links = {key: one for key, one in self.links.items() if one is not incident}

    def forget(self, incident: Incident) -> None:
        """The alarms that an incident rested on, and those of its links' ways back."""
        self.alarms = [alarm for alarm in self.alarms if not incident.concerns(alarm)]

    def go_back(self, limit_s: float, window_s: float) -> None:
        """Takes back what rests on times after limit_s (UTC seconds), which cannot be. window_s: for how long what is seen now counts."""
        self.watched = {link: min(until_s, limit_s + window_s) for link, until_s in self.watched.items()}
        self.alarms = [alarm for alarm in self.alarms if alarm.time_s <= limit_s]
        self.aftermath = {link: one for link, one in self.aftermath.items() if one.latest_s <= limit_s}
        for incident in self.all():
            incident.evidence_s = min(incident.evidence_s, limit_s)
        self.seen_s = min(self.seen_s, limit_s)

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and strings."""
        return {
            "watched": dict(self.watched),
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "incidents": [incident.state() for incident in self.incidents.values()],
            "links": [[link, incident.state()] for (_, link), incident in self.links.items()],
            "aftermath": [[link, one.state()] for link, one in self.aftermath.items()],
            "seen_s": self.seen_s,
        }

    @classmethod
    def restored(cls, kept: dict[str, Any]) -> WatchedRegion:
        """What `state` was taken from."""
        of_region = [Incident.restored(incident) for incident in kept["incidents"]]
        of_links = [(link, Incident.restored(incident)) for link, incident in kept["links"]]
        return cls(
            watched=dict(kept["watched"]),
            alarms=[LinkAlarm(**alarm) for alarm in kept["alarms"]],
            incidents={incident.group: incident for incident in of_region},
            links={(incident.group, link): incident for link, incident in of_links},
            aftermath={link: Aftermath.restored(one) for link, one in kept["aftermath"]},
            seen_s=kept["seen_s"],
        )
