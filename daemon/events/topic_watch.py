"""Watch over the topics that events are sent to: an event that comes once a month must not be the first to find its topic missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from streams.kafka.connection.client import NotConnectedError
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.connection.topics import Topic, TopicProblem, inspect_topics, not_inspected

LOOK_EVERY_S: Final = 60.0
"""Seconds between two looks."""
AGAIN_S: Final = 5.0
"""The same while something is wrong, so that its end is noticed soon."""


class TopicWatch:
    """Asks a broker for the topics, on a thread of its own. All methods are called from the loop's thread.

    If no broker answers, the result of the last look stays: the source reports that.
    """

    def __init__(self, options: KafkaOptions, topics: Sequence[Topic], emit: Callable[..., None]) -> None:
        """Prepare the thread, which `report` starts.

        Args:
            emit: logs one operational event, by name and fields (Observer.emit). Called within `report`.
        """
        self._options, self._topics, self._emit = options, tuple(topics), emit
        self._found: list[TopicProblem] = []
        self._reported: set[str] = set()
        self._started = False
        self._closing, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="topics", daemon=True)

    @property
    def troubles(self) -> list[str]:
        """Problems of the topics, each with what to do."""
        return [str(problem) for problem in self._found]

    def report(self) -> None:
        """Report the problems that are new since the last call. The first call starts the thread."""
        if not self._started:
            self._started = True
            self._thread.start()
        found = self._found
        for problem in found:
            if problem.topic.name not in self._reported:
                about = {"servers": self._options.servers(), "topic": problem.topic.name, "todo": problem.todo}
                self._emit("topic_missing" if problem.missing else "kafka_refused", error=problem.what, **about)
        self._reported = {problem.topic.name for problem in found}

    def look_soon(self) -> None:
        """Look now, because something could not be sent: a topic may be gone."""
        self._wake.set()

    def close(self) -> None:
        """End the thread, without waiting for a look that waits for a broker."""
        self._closing.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._found = inspect_topics(self._options, self._topics)
            except NotConnectedError:  # the source reports that, and a sink that has something to send
                pass
            except Exception as error:  # noqa: BLE001 - for example an answer that the client cannot read
                self._found = [not_inspected(topic, error) for topic in self._topics]
            self._wake.wait(AGAIN_S if self._found else LOOK_EVERY_S)
            self._wake.clear()
