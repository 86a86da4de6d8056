"""Events between a sender and a destination that answers later. They stay here, in their order, until each is settled."""

from __future__ import annotations

import heapq
import threading
from collections import deque

from streams.events import Event


class Outbox:
    """A queue that numbers events in the order of `put`.

    Each event is waiting, then under way (`next_event`), then settled. What could not be delivered is put back, and goes before all later
    events again. Safe for threads; `changed` is notified of every change.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._waiting: list[tuple[int, Event]] = []  # a heap; a number is in it at most once
        self._under_way: dict[int, Event] = {}
        self._unsettled: deque[int] = deque()  # from the oldest unsettled number on
        self._settled: set[int] = set()  # numbers behind it that are settled
        self._last = 0

    def put(self, event: Event) -> None:
        """Append one event."""
        with self.changed:
            self._last += 1
            heapq.heappush(self._waiting, (self._last, event))
            self._unsettled.append(self._last)
            self.changed.notify_all()

    def next_event(self) -> tuple[int, Event]:
        """Return the oldest waiting event and its number. It is under way from now on. Raises IndexError if no event waits."""
        with self.changed:
            number, event = heapq.heappop(self._waiting)
            self._under_way[number] = event
            return number, event

    def put_back(self) -> None:
        """Let all that is under way wait again."""
        with self.changed:
            for entry in self._under_way.items():
                heapq.heappush(self._waiting, entry)
            self._under_way.clear()
            self.changed.notify_all()

    def settle(self, number: int) -> None:
        """Note that an event is delivered or given up. A number that is not under way stays as it is."""
        with self.changed:
            if self._under_way.pop(number, None) is None:
                return
            self._settled.add(number)
            while self._unsettled and self._unsettled[0] in self._settled:
                self._settled.remove(self._unsettled.popleft())
            self.changed.notify_all()

    def waiting(self) -> bool:
        """Return whether any event waits."""
        return bool(self._waiting)

    def under_way(self, number: int) -> bool:
        """Return whether the event of this number is under way."""
        return number in self._under_way

    def last(self) -> int:
        """Return the number of the newest event."""
        return self._last

    def settled_to(self, number: int) -> bool:
        """Return whether the event of this number and all before it are settled."""
        return not self._unsettled or self._unsettled[0] > number

    def pending(self) -> int:
        """Return how many events are not settled."""
        with self.changed:
            return len(self._unsettled) - len(self._settled)
