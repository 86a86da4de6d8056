"""Times at which lasting states are logged. Such a state is not a fault, but the log must not be silent for an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from daemon.operator.facts import Facts

AFTER_S: Final = {"catching_up": 10.0, "training_waits": 60.0, "checkpoint_slow": 15.0, "publication_slow": 30.0}
"""Seconds until a state is logged first, by its event: longer than a short lag after a start, and than a checkpoint or a publication takes
on an ordinary disk. It is logged again each time it has lasted twice as long."""
OVER: Final = {"catching_up": "caught_up"}
"""Event at the end of a state, if its end shows nowhere else."""
REPEAT_S: Final = 3600.0
"""Longest time between two events about one state, seconds."""
BEHIND_RECORDS: Final = 10_000
"""Lag from which the daemon is catching up: two polls. It has caught up at a tenth of that, so that a lag about this size is not logged
again and again."""


@dataclass(frozen=True)
class Lasting:
    """A state that lasts now.

    Args:
        fields: fields of its event.
        since_s: when it began, monotonic seconds; None: when it was first seen.
    """

    fields: Mapping[str, Any]
    since_s: float | None = None


class LongStates:
    """Start of each lasting state, and the time at which it is logged next."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}

    def note(self, now_s: float, lasting: Mapping[str, Lasting]) -> list[tuple[str, dict[str, Any]]]:
        """Return the events to log now, each with its fields.

        Args:
            now_s: monotonic seconds.
            lasting: each state that lasts now, by its event in AFTER_S.
        """
        events: list[tuple[str, dict[str, Any]]] = []
        for event in self._since_s.keys() - lasting.keys():
            lasted_s = now_s - self._since_s.pop(event)
            if self._due_s.pop(event) > AFTER_S[event] and event in OVER:
                events.append((OVER[event], {"seconds": round(lasted_s, 1)}))
        for event, state in lasting.items():
            since_s = self._since_s.get(event, now_s) if state.since_s is None else state.since_s
            if self._since_s.get(event) != since_s:  # another one than at the last call
                self._since_s[event], self._due_s[event] = since_s, AFTER_S[event]
            if (lasted_s := now_s - since_s) >= self._due_s[event]:
                self._due_s[event] = lasted_s + min(lasted_s, REPEAT_S)
                events.append((event, {**state.fields, "seconds": round(lasted_s, 1)}))
        return events

    def lasts(self, event: str) -> bool:
        """Return whether the state of this event lasted at the last call of `note`."""
        return event in self._since_s


def long_states(facts: Facts, states: LongStates) -> list[tuple[str, dict[str, Any]]]:
    """Return the events to log now, each with its fields. Call it whenever the gauges are set."""
    return states.note(facts.now_s, _lasting(facts, catching_up=states.lasts("catching_up")))


def _lasting(facts: Facts, *, catching_up: bool) -> dict[str, Lasting]:
    lasting: dict[str, Lasting] = {}
    if facts.lag is not None and facts.lag >= (BEHIND_RECORDS // 10 if catching_up else BEHIND_RECORDS):
        lasting["catching_up"] = Lasting({"lag": facts.lag})
    if facts.live_version is None and not facts.training_busy and facts.training_waits_for:
        lasting["training_waits"] = Lasting({"waits_for": facts.training_waits_for})
    if facts.checkpoint_since_s is not None:
        lasting["checkpoint_slow"] = Lasting({"open_rows": facts.open_rows}, facts.checkpoint_since_s)
    if facts.publication_since_s is not None:
        lasting["publication_slow"] = Lasting({"remedy": "see that the disk of models.directory answers"}, facts.publication_since_s)
    return lasting
