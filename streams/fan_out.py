"""One sink that stands for several, such as a Kafka topic and a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from streams.events import Event
from streams.sinks import Sink


class FanOutSink(Sink):
    """Pass every event to each of several sinks. A sink that fails does not keep the others from their work."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def send(self, event: Event) -> None:
        """Queue one event in each sink."""
        for sink in self._sinks:
            sink.send(event)

    def flush(self, timeout_s: float) -> None:
        """Flush all sinks within timeout_s together, then raise the first error. The next call flushes only the sinks that failed."""
        deadline_s = time.monotonic() + timeout_s
        self._in_each(lambda sink: sink.flush(max(0.0, deadline_s - time.monotonic())))

    def pending(self) -> int:
        """Return how many events the slowest sink has not made durable yet."""
        return max((sink.pending() for sink in self._sinks), default=0)

    def close(self) -> None:
        """Close all sinks, then raise the first error."""
        self._in_each(lambda sink: sink.close())

    def _in_each(self, action: Callable[[Sink], None]) -> None:
        errors: list[OSError] = []
        for sink in self._sinks:
            try:
                action(sink)
            except OSError as error:  # TimeoutError is one
                errors.append(error)
        if errors:
            raise errors[0]
