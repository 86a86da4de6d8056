"""Looks after the topics that events go to: an event that comes once a month must not be the first to find its topic missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from streams.kafka.connection.client import NotConnectedError
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.connection.topics import Topic, TopicProblem, look_at_topics, not_looked_at

LOOK_EVERY_S: Final = 60.0
AGAIN_S: Final = 5.0
"""While something is wrong: its end is to be seen soon."""


class TopicWatch:
    """Asks a broker for the topics, on a thread of its own. troubles is what the last look found; where no broker answered it is as before:
    the source says that. All methods are called from the loop's thread."""

    def __init__(self, options: KafkaOptions, topics: Sequence[Topic], emit: Callable[..., None]) -> None:
        """emit: takes the name and the fields of one operational event (Observer.tell); called within report."""
        self._options, self._topics, self._emit = options, tuple(topics), emit
        self._found: list[TopicProblem] = []
        self._reported: set[str] = set()
        self._started = False
        self._closing, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="topics", daemon=True)

    @property
    def troubles(self) -> list[str]:
        """What is wrong with the topics now, and what to do."""
        return [str(problem) for problem in self._found]

    def report(self) -> None:
        """Reports what is new since the last call; the first one begins to look."""
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
        """Something could not be sent: it may be that a topic has gone."""
        self._wake.set()

    def close(self) -> None:
        """Ends it; a look that waits for a broker is not waited for."""
        self._closing.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._found = look_at_topics(self._options, self._topics)
            except NotConnectedError:  # the source, and a sink that has something to send, say so
                pass
            except Exception as error:  # noqa: BLE001 - an answer that the client cannot read, say: the next look may be better
                self._found = [not_looked_at(topic, error) for topic in self._topics]
            self._wake.wait(AGAIN_S if self._found else LOOK_EVERY_S)
            self._wake.clear()
