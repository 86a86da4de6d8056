"""Events between a sender and a destination that answers later: kept, in their order, until each is settled."""

from __future__ import annotations

import heapq
import threading
from collections import deque

from streams.events import Event


class Outbox:
    """Numbers events in the order of `put`. Each is waiting, then under way (`take`), then settled; what could not be
    delivered is put back and is taken before all later ones again. Safe for threads; `changed` is notified of every change."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._waiting: list[tuple[int, Event]] = []  # a heap; a number is in it at most once
        self._under_way: dict[int, Event] = {}
        self._unsettled: deque[int] = deque()  # from the oldest unsettled number on
        self._settled: set[int] = set()  # numbers behind it that are settled
        self._last = 0

    def put(self, event: Event) -> None:
        with self.changed:
            self._last += 1
            heapq.heappush(self._waiting, (self._last, event))
            self._unsettled.append(self._last)
            self.changed.notify_all()

    def take(self) -> tuple[int, Event]:
        """The oldest waiting event and its number, which is under way from now on. IndexError when none waits."""
        with self.changed:
            number, event = heapq.heappop(self._waiting)
            self._under_way[number] = event
            return number, event

    def put_back(self) -> None:
        """All that is under way waits again."""
        with self.changed:
            for entry in self._under_way.items():
                heapq.heappush(self._waiting, entry)
            self._under_way.clear()
            self.changed.notify_all()

    def settle(self, number: int) -> None:
        """This event is delivered, or given up. Of a number that is not under way nothing is known: it stays as it is."""
        with self.changed:
            if self._under_way.pop(number, None) is None:
                return
            self._settled.add(number)
            while self._unsettled and self._unsettled[0] in self._settled:
                self._settled.remove(self._unsettled.popleft())
            self.changed.notify_all()

    def waiting(self) -> bool:
        """Whether there is an event to take."""
        return bool(self._waiting)

    def under_way(self, number: int) -> bool:
        return number in self._under_way

    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def settled_to(self, number: int) -> bool:
        """Whether the event of this number and all before it are settled."""
        return not self._unsettled or self._unsettled[0] > number

    def pending(self) -> int:
        """Events that are not settled."""
        with self.changed:
            return len(self._unsettled) - len(self._settled)
