"""One region, as the region stage remembers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from drift.incident import Incident, Key
from drift.messages import Group, LinkAlarm


@dataclass(slots=True)
class WatchedRegion:
    """What is known of one region: whom it watches, alarms that still count, and open incidents."""

    watched: dict[str, float] = field(default_factory=dict)  # link -> until when it counts as watched
    alarms: list[LinkAlarm] = field(default_factory=list)  # that count
    incidents: dict[Group, Incident] = field(default_factory=dict)  # of the region
    links: dict[tuple[Group, str], Incident] = field(default_factory=dict)  # of single links
    expected: dict[str, tuple[float, float, list[Key]]] = field(default_factory=dict)
    """Of links that will yet tell that they have gone back: until when, up to which time of the change, and how."""
    seen_s: float = -math.inf

    def all(self) -> list[Incident]:
        return [*self.incidents.values(), *self.links.values()]

    def drop(self, incident: Incident) -> None:
        self.incidents = {group: one for group, one in self.incidents.items() if one is not incident}
        self.links = {key: one for key, one in self.links.items() if one is not incident}

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and strings."""
        return {
            "watched": self.watched,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "incidents": [incident.state() for incident in self.incidents.values()],
            "links": [[link, incident.state()] for (_, link), incident in self.links.items()],
            "expected": [
                [link, until_s, latest_s, [list(key) for key in keys]] for link, (until_s, latest_s, keys) in self.expected.items()
            ],
            "seen_s": self.seen_s,
        }

    @classmethod
    def restored(cls, kept: dict[str, Any]) -> WatchedRegion:
        """What `state` was taken from."""
        of_region = [Incident.restored(incident) for incident in kept["incidents"]]
        of_links = [(link, Incident.restored(incident)) for link, incident in kept["links"]]
        return cls(
            watched=kept["watched"],
            alarms=[LinkAlarm(**alarm) for alarm in kept["alarms"]],
            incidents={incident.group: incident for incident in of_region},
            links={(incident.group, link): incident for link, incident in of_links},
            expected={link: (until_s, latest_s, [_key(key) for key in keys]) for link, until_s, latest_s, keys in kept["expected"]},
            seen_s=kept["seen_s"],
        )


def _key(kept: Sequence[Any]) -> Key:
    signal, direction, aspect = kept
    return signal, direction, aspect
