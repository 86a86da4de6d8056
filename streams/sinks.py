"""Where events go: a Kafka topic, an NDJSON file, or both. Sending never blocks; `flush` says when they are durable."""

from __future__ import annotations

from typing import Protocol

from streams.events import Event


class NotSentError(TimeoutError):
    """Events are not durable yet; they stay queued. todo: what to do about it."""

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what)
        self.todo = todo


class Sink(Protocol):
    """A place for events."""

    def send(self, event: Event) -> None:
        """Queues one event; never waits for a broker or a disk."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Returns once every event sent so far is durable. TimeoutError: they are still queued, call again."""
        ...

    def pending(self) -> int:
        """Events that were sent and are not durable yet."""
        ...

    def close(self) -> None: ...
