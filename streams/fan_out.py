"""One sink that stands for several, such as a Kafka topic and a file."""

from __future__ import annotations

import time
from collections.abc import Sequence

from streams.events import Event
from streams.sinks import Sink


class FanOutSink:
    """Gives every event to every one of its sinks. A sink that fails does not keep the others from their work."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def send(self, event: Event) -> None:
        for sink in self._sinks:
            sink.send(event)

    def flush(self, timeout_s: float) -> None:
        """Flushes all within timeout_s together, then raises the first error there was; the next call repeats only what failed."""
        deadline_s = time.monotonic() + timeout_s
        errors: list[OSError] = []
        for sink in self._sinks:
            try:
                sink.flush(max(0.0, deadline_s - time.monotonic()))
            except OSError as error:  # TimeoutError is one
                errors.append(error)
        if errors:
            raise errors[0]

    def pending(self) -> int:
        return max((sink.pending() for sink in self._sinks), default=0)

    def close(self) -> None:
        errors: list[OSError] = []
        for sink in self._sinks:
            try:
                sink.close()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]
