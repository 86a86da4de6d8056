"""States that are in order and may last: what is told of them, when, and how often, so that no log is silent for an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from daemon.loop import Loop

AFTER_S: Final = {"catching_up": 10.0, "training_waits": 60.0, "checkpoint_slow": 15.0, "publication_slow": 30.0}
"""Seconds until each is told first, by its event. After a start with a short lag, and while a checkpoint or a publication takes as long as
it does on an ordinary disk, there is nothing to tell. Each is told again when it has lasted twice as long."""
OVER: Final = {"catching_up": "caught_up"}
"""Events that tell the end of those whose end shows nowhere else."""
REPEAT_S: Final = 3600.0
"""Longest time between two events about one state."""
BEHIND_RECORDS: Final = 10_000
"""Lag that counts as behind: two polls. The end of it is a tenth of that, so that a stream about this size is not told again and again."""


@dataclass(frozen=True)
class Lasting:
    """A state that lasts now. fields: of its event. since_s: when it has begun, monotonic; None: when it was first seen."""

    fields: Mapping[str, Any]
    since_s: float | None = None


class LongStates:
    """Remembers since when each state lasts."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}

    def note(self, now_s: float, lasting: Mapping[str, Lasting]) -> list[tuple[str, dict[str, Any]]]:
        """Return the events to tell now, each with its fields.

        Args:
            now_s: monotonic seconds.
            lasting: each state that lasts now, by its event in AFTER_S.
        """
        told: list[tuple[str, dict[str, Any]]] = []
        for event in [event for event in self._since_s if event not in lasting]:
            lasted_s = now_s - self._since_s.pop(event)
            if self._due_s.pop(event) > AFTER_S[event] and event in OVER:
                told.append((OVER[event], {"seconds": round(lasted_s, 1)}))
        for event, state in lasting.items():
            since_s = self._since_s.get(event, now_s) if state.since_s is None else state.since_s
            if self._since_s.get(event) != since_s:  # another one than at the last look
                self._since_s[event], self._due_s[event] = since_s, AFTER_S[event]
            if (lasted_s := now_s - since_s) >= self._due_s[event]:
                self._due_s[event] = lasted_s + min(lasted_s, REPEAT_S)
                told.append((event, {**state.fields, "seconds": round(lasted_s, 1)}))
        return told

    def lasts(self, event: str) -> bool:
        return event in self._since_s


def tell_long_states(loop: Loop, states: LongStates, now_s: float) -> None:
    """Tells what has lasted for long in a loop. To be called at each look at its gauges."""
    for event, fields in states.note(now_s, _lasting(loop, states)):
        loop.observer.tell(event, **fields)


def _lasting(loop: Loop, states: LongStates) -> dict[str, Lasting]:
    lasting: dict[str, Lasting] = {}
    lag, training = loop.source.lag(), loop.training
    if lag is not None and lag >= (BEHIND_RECORDS // 10 if states.lasts("catching_up") else BEHIND_RECORDS):
        lasting["catching_up"] = Lasting({"lag": lag})
    if loop.models.live is None and not training.busy and training.decision.waiting_for:
        lasting["training_waits"] = Lasting({"waits_for": training.decision.waiting_for})
    if loop.checkpointer.busy:  # at every look there may be another one under way
        lasting["checkpoint_slow"] = Lasting({"open_rows": loop.open_rows}, loop.checkpointer.began_s)
    if training.publication_s:
        lasting["publication_slow"] = Lasting({"remedy": "see that the disk of models.directory answers"}, training.publishing_since_s)
    return lasting
