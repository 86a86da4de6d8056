"""The interface of every sink of events: a Kafka topic, an NDJSON file, or both.

A new sink is one file with a class that inherits from `Sink` and implements `send`. The other defaults are right for a sink whose `send`
makes an event durable.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from streams.events import Event


class NotSentError(TimeoutError):
    """Events are not durable yet. They stay queued.

    Args:
        what: The problem and its place.
        todo: What to do about it.
    """

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what)
        self.todo = todo


class Sink(Protocol):
    """A place for events."""

    @abstractmethod
    def send(self, event: Event) -> None:
        """Queue one event, without waiting for a broker or a disk."""
        ...

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002 - for sinks that override it
        """Return once every event that was sent so far is durable.

        Raises:
            TimeoutError: They are not durable after timeout_s. They are still queued: call again.
        """
        return

    def pending(self) -> int:
        """Return how many events were sent and are not durable yet."""
        return 0

    def close(self) -> None:
        """Close what the sink has open."""
        return
