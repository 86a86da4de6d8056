"""One incident: what an operator hears about, once, however many links alarm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Final, Literal

from drift.messages import Group, IncidentChange, LinkAlarm, Scope
from drift.region.evidence import SHOWN_MIN, Key, key_of, opposite, signal_change, size_sigma
from drift.region.recovery import Back, ToCome, ended, leads_back, tolerance

GROWTH: Final = 1.5
"""An update is worth telling when another signal joins, or the affected links have grown by half: all of them, or those of one signal."""
GROWTH_LINKS: Final = 3
"""Of one signal, by so many at least."""
LARGER: Final = 2.0
"""Or when a signal's size has become so many times what was told of it."""
NAMED: Final = 100


@dataclass(slots=True)
class Incident:
    """An open incident. evidence_s, quiet_s: event time of the newest evidence for it, and how long after it the incident closes.

    evidence: of each change the last alarm of each link. back: of each change, how far each link's residual has gone back since. told:
    affected links at the last change that was told. told_of: of each change, its links and its size then, in standard deviations.
    """

    id: str
    scope: Scope
    group: Group
    region: str
    opened_s: float
    evidence_s: float
    quiet_s: float
    sequence: int
    told: int
    watched: int
    evidence: dict[Key, dict[str, LinkAlarm]]
    back: dict[Key, dict[str, Back]]
    told_of: dict[Key, tuple[int, float]]
    _since_s: float | None = field(default=None, init=False, compare=False)  # known until the evidence changes

    @classmethod
    def opened(
        cls, scope: Scope, region: str, now_s: float, alarms: Sequence[LinkAlarm], watched: int, quiet_s: float
    ) -> Incident:  # fmt: skip
        """An incident of the changes that these alarms have; its id follows from the first of them, so that a replay gives the same."""
        first = alarms[0]
        origin = (scope, region, f"{now_s:.0f}", first.link, first.signal, first.detector, first.offset)
        digest = hashlib.sha256("\x1f".join(map(str, origin)).encode()).hexdigest()[:32]
        incident = cls(digest, scope, first.group, region, now_s, now_s, quiet_s, 0, 0, watched, {}, {}, {})
        incident.add(alarms)
        return incident

    @property
    def alarms(self) -> list[LinkAlarm]:
        """Of each change the last of each link."""
        return [alarm for own in self.evidence.values() for alarm in own.values()]

    @property
    def affected(self) -> set[str]:
        return {link for own in self.evidence.values() for link in own}

    def concerns(self, alarm: LinkAlarm) -> bool:
        """Whether the alarm's link is affected in what has alarmed, whichever way it went."""
        key = key_of(alarm)
        return any(alarm.link in self.evidence.get(one, {}) for one in (key, opposite(key)))

    @property
    def since_s(self) -> float:
        """The likeliest time of the change, the median over its alarms, but for those of a part of the way back; when it was opened, where
        there are none."""
        if self._since_s is None:
            keys = list(self.evidence)
            began = [key for at, key in enumerate(keys) if opposite(key) not in keys[:at]]
            self._since_s = median([alarm.since_s for key in began for alarm in self.evidence[key].values()] or [self.opened_s])
        return self._since_s

    def take(self, now_s: float, alarms: Sequence[LinkAlarm], watched: int) -> None:
        """New alarms that belong to it."""
        self.evidence_s, self.watched = now_s, watched
        self.add(alarms)

    def update(self, now_s: float) -> IncidentChange | None:
        """What there is to tell an operator since the last time: another signal, half as many links again, or a change that has become much
        larger."""
        grown = len(self.affected) >= GROWTH * self.told
        for key, own in self.evidence.items():
            links, sigma = self.told_of.get(key, (0, 0.0))
            more = not links or len(own) >= max(GROWTH * links, links + GROWTH_LINKS)
            grown = grown or (more and not self._is_minor(key)) or size_sigma(own.values()) >= LARGER * sigma > 0.0
        if not grown:
            return None
        self.sequence += 1
        return self.change("updated", now_s)

    def absorb(self, other: Incident) -> None:
        """Takes over the evidence of a smaller incident before it is told itself, and what has gone back of it."""
        self.add(other.alarms)
        self.keep_ways_back(other)

    def keep_ways_back(self, other: Incident) -> None:
        """Of what both have evidence of."""
        for key, own in other.back.items():
            for link, back in own.items():
                if link in self.evidence.get(key, {}):
                    self.back.setdefault(key, {}).setdefault(link, back)

    def goes_back(self, alarm: LinkAlarm) -> bool:
        """Whether an alarm is an affected link's way back; then it is noted, and is evidence of nothing else.

        From a level that the detector has not accepted it is none: the sum falls, which is told by `over`, and what exceeds the old level
        in the other direction is a change of its own.
        """
        own, key = key_of(alarm), opposite(key_of(alarm))
        if alarm.over and self._takes_back(own, alarm.link):
            return True
        there = self.evidence.get(key, {}).get(alarm.link)
        if there is None or alarm.over == there.accepted or (alarm.over and alarm.time_s < there.time_s):
            return False
        if alarm.over:
            self.back.setdefault(key, {})[alarm.link] = ended(there, alarm)
            return True
        other = self.evidence.get(own, {}).get(alarm.link)
        back = self.back.get(key, {}).get(alarm.link, Back()).and_then(alarm, other)
        if alarm.group == "network" and not leads_back(there, back.size):
            if alarm.certain:  # it goes on, or does not go far enough: a change of its own
                self.back.get(key, {}).pop(alarm.link, None)
            return False
        self.back.setdefault(key, {})[alarm.link] = back
        if other is not None:  # what it was taken for at first
            del self.evidence[own][alarm.link]
            self.back.get(own, {}).pop(alarm.link, None)
            if not self.evidence[own]:
                del self.evidence[own]
                self.told_of.pop(own, None)
            self._since_s = None
        return True

    def _takes_back(self, key: Key, link: str) -> bool:
        """Drops what of a link's way back was not certain, and was none. False where there is nothing of the kind."""
        went = self.back.get(key, {}).get(link)
        if went is None or went.size == went.sure:
            return False
        if went.certain:
            self.back[key][link] = replace(went, size=went.sure, shown=went.sure_shown)
        else:
            del self.back[key][link]
        return True

    @property
    def is_over(self) -> bool:
        """Whether of each change most links have gone back, for certain: a dip is no end."""
        return self._most_are_back(lambda back: back.certain or back.slow)

    @property
    def may_be_over(self) -> bool:
        """Whether they have, if what is not certain yet becomes so."""
        return self._most_are_back(lambda _: True)

    def _most_are_back(self, counts: Callable[[Back], bool]) -> bool:
        judged = {key: own for key, own in self.evidence.items() if not self._is_minor(key)}
        back = {key: sum(map(counts, self.back.get(key, {}).values())) for key in judged}
        return bool(judged) and all(2 * back[key] > len(own) for key, own in judged.items())

    def _is_minor(self, key: Key) -> bool:
        """Whether most links of a change are among those of another one of the same signal, with more links and not much smaller: they
        stopped half way back, or have a spread that is the level's, or levels that are the spread's. Each fault of the data is its own."""
        if self.group == "data":
            return False

        def weight(one: Key) -> tuple[int, bool]:
            return len(self.evidence[one]), one[2] != "spread"

        most_sigma = size_sigma(self.evidence[key].values()) / LARGER
        heavier = [own for one, own in self.evidence.items() if one[0] == key[0] and weight(one) > weight(key)]
        larger = [own for own in heavier if size_sigma(own.values()) > most_sigma]
        return 2 * sum(any(link in other for other in larger) for link in self.evidence[key]) > len(self.evidence[key])

    @property
    def way_out(self) -> str:
        """How it ends once it is over: the network is as it was, or the model has followed it to where it is now."""
        judged = [self._is_as_before(key, link, back) for key, own in self.back.items() for link, back in own.items()]
        return "recovered" if 2 * sum(judged) >= len(judged) else "settled"

    def _is_as_before(self, key: Key, link: str, back: Back) -> bool:
        there = self.evidence.get(key, {}).get(link)
        return there is None or there.shown < SHOWN_MIN or abs(back.shown) >= SHOWN_MIN * abs(back.size)

    def still_to_come(self) -> dict[str, dict[Key, ToCome]]:
        """Of each affected link, the ways back that it will yet tell for certain."""
        ways: dict[str, dict[Key, ToCome]] = {link: {} for link in sorted(self.affected)}  # a set's order is another in each process
        for key, own in self.evidence.items():
            for link, alarm in own.items():
                back = self.back.get(key, {}).get(link, Back())
                if alarm.accepted and not back.certain:
                    ways[link][opposite(key)] = ToCome(-alarm.size, tolerance(alarm))
        return ways

    def without_categories(self) -> bool:
        """Drops what a new model is said to know now. True where nothing is left."""
        self.evidence = {key: own for key, own in self.evidence.items() if key[2] != "category"} or self.evidence
        self._since_s = None
        return all(aspect == "category" for _, _, aspect in self.evidence)

    def sizes_of(self, link: str) -> dict[int, float]:
        """By signal, the largest change of a link, in standard deviations."""
        sizes: dict[int, float] = {}
        for (signal, _, aspect), own in self.evidence.items():
            if link in own and aspect == "level":
                sizes[signal] = max(sizes.get(signal, 0.0), abs(own[link].size_sigma))
        return sizes

    def closed(self, now_s: float, outcome: str) -> IncidentChange:
        self.sequence += 1
        return self.change("closed", now_s, outcome)

    def change(self, kind: Literal["opened", "updated", "closed"], now_s: float, outcome: str = "") -> IncidentChange:
        affected = self.affected
        self.told = len(affected)
        self.told_of = {key: (len(own), size_sigma(own.values())) for key, own in self.evidence.items()}
        regions = {alarm.region for alarm in self.alarms}
        return IncidentChange(
            kind, self.id, self.sequence, self.scope, self.group, self.region, now_s, self.opened_s, self.since_s,
            tuple(signal_change(key, list(self.evidence[key].values())) for key in sorted(self.evidence)),
            tuple(sorted({alarm.link_type for alarm in self.alarms})), tuple(sorted(regions)[:NAMED]), len(regions),
            tuple(sorted(affected)[:NAMED]), len(affected), self.watched, outcome,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        evidence = [[*key, [asdict(alarm) for alarm in own.values()]] for key, own in self.evidence.items()]
        back = [[*key, {link: asdict(one) for link, one in own.items()}] for key, own in self.back.items()]
        told_of = [[*key, *told] for key, told in self.told_of.items()]
        plain = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        return plain | {"evidence": evidence, "back": back, "told_of": told_of}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Incident:
        evidence = {
            (signal, direction, aspect): {alarm["link"]: LinkAlarm(**alarm) for alarm in own}
            for signal, direction, aspect, own in state["evidence"]
        }
        back = {
            (signal, direction, aspect): {link: Back(**one) for link, one in own.items()}
            for signal, direction, aspect, own in state["back"]
        }
        told_of = {(signal, direction, aspect): (links, sigma) for signal, direction, aspect, links, sigma in state["told_of"]}
        return cls(**{**state, "evidence": evidence, "back": back, "told_of": told_of})

    def add(self, alarms: Sequence[LinkAlarm]) -> None:
        """Of each link the last alarm, which has seen most, and the first one's time of the change.

        What comes after a certain one, whose change the detector has taken for the new level, is added to it once it is certain too.
        """
        self._since_s = None
        for alarm in alarms:
            key = key_of(alarm)
            own = self.evidence.setdefault(key, {})
            known, again = own.get(alarm.link), self.back.get(key, {}).pop(alarm.link, None) is not None
            if known is None or again:
                own[alarm.link] = alarm
            elif known.certain and alarm.aspect == "level" and alarm.since_s >= known.time_s:
                if alarm.certain:
                    total, sigma = known.size + alarm.size, known.size_sigma + alarm.size_sigma
                    own[alarm.link] = replace(alarm, since_s=known.since_s, size=total, size_sigma=sigma)
            elif alarm.time_s >= known.time_s and (alarm.accepted or not known.accepted):
                own[alarm.link] = replace(alarm, since_s=known.since_s)
