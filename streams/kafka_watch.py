"""Whether a consumer can give records now, how far it is behind, and what to tell when it cannot."""

from __future__ import annotations

import math
import time
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState

from streams.kafka_client import REFUSALS, BrokerClient, advice
from streams.kafka_log import LOOKUP_TIMEOUT_MS
from streams.kafka_options import EventHandler, KafkaOptions

LOOK_EVERY_S: Final = 1.0
GRACE_S: Final = 3.0  # a connection that is replaced, or metadata on the way, is no fault
REPEAT_AFTER_S: Final = 30.0  # a fault that lasts is told again
JOIN_GRACE_S: Final = 10.0  # a join takes a second; one that waits for a member who has died, up to its session time-out
JOIN_REPEAT_S: Final = 60.0
LOOKUP_EVERY_S: Final = 5.0


class KafkaWatch:
    """Looks at a connected consumer after its turns. healthy and lag are what the last look saw."""

    def __init__(self, topic: str, options: KafkaOptions, tell: EventHandler) -> None:
        self.healthy = False
        self.lag: int | None = None
        self._topic = topic
        self._options = options
        self._tell = tell
        self._next_look_s = 0.0
        self._next_lookup_s = 0.0
        self._ends: dict[TopicPartition, int] = {}
        self._since_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}

    def connected(self) -> None:
        self._since_s.clear()
        self._told_s.clear()
        self._tell("kafka_connected", {"servers": self._options.servers(), "topic": self._topic})

    def look(self, consumer: KafkaConsumer, client: BrokerClient) -> None:
        """Once a second; at every turn while something is wrong, so that its end is seen at once."""
        now_s = time.monotonic()
        if self.healthy and now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        there = client.linked()
        known = client.cluster.partitions_for_topic(self._topic) is not None
        if not there and isinstance(client.last_error, REFUSALS):
            self.refused(client.last_error)
        elif self._fault("kafka_unreachable", not there, now_s):
            retry_in_s = round(client.least_loaded_node_refresh_ms() / 1000, 1)
            why = str(client.last_error or "connection lost")
            self._tell("kafka_unreachable", {"servers": self._options.servers(), "error": why, "retry_in_s": retry_in_s})
        if self._topic in client.cluster.unauthorized_topics:
            self.refused(kafka_errors.TopicAuthorizationFailedError({self._topic}))
        elif there and not known:
            client.cluster.request_update()
            if self._fault("topic_missing", True, now_s):
                todo = f"create topic {self._topic}, or correct its name; it is looked for until it is there"
                self._tell("topic_missing", {"topic": self._topic, "servers": self._options.servers(), "todo": todo})
        state = consumer.group_metadata().state
        self.healthy = there and known and state == MemberState.STABLE
        if self._fault("kafka_joining", there and known and not self.healthy, now_s, JOIN_GRACE_S, JOIN_REPEAT_S):
            self._joining(consumer, str(state).strip("<>"), now_s)
        if there and "kafka_unreachable" in self._told_s:
            self.connected()
        try:
            self.lag = self._records_behind(consumer, now_s)
        except kafka_errors.RetriableError:
            self.lag = None

    def _records_behind(self, consumer: KafkaConsumer, now_s: float) -> int | None:
        """Records between the next one to poll and the end, over the assignment; None while one of its ends is unknown."""
        paused = consumer.paused()
        if paused and now_s >= self._next_lookup_s:  # what is not fetched brings no news of its end
            self._next_lookup_s = now_s + LOOKUP_EVERY_S
            self._ends = consumer.end_offsets(list(paused), timeout_ms=LOOKUP_TIMEOUT_MS)
        behind = 0
        for partition in consumer.assignment():
            end = self._ends.get(partition) if partition in paused else consumer.highwater(partition)
            position = consumer.position(partition, timeout_ms=0)
            if end is None or position is None:
                return None
            behind += max(0, end - position)
        return behind

    def refused(self, error: Exception) -> None:
        """The broker answers, but not to this user."""
        self.healthy = False
        if self._due("kafka_refused", time.monotonic()):
            who: dict[str, object] = {"servers": self._options.servers(), "topic": self._topic}
            self._tell("kafka_refused", who | {"error": str(error), "todo": advice(error)})

    def _joining(self, consumer: KafkaConsumer, state: str, now_s: float) -> None:
        group, limit_s = consumer.config["group_id"], consumer.config["session_timeout_ms"] / 1000
        todo = (
            f"wait: a member that has died is out of the group after its session time-out ({limit_s:.0f} s here), and one that stays hands "
            "its partitions over first; if it lasts longer, see the broker's log about the group"
        )
        waited_s = round(now_s - self._since_s["kafka_joining"])
        self._tell("kafka_joining", {"topic": self._topic, "group": group, "state": state, "waited_s": waited_s, "todo": todo})

    def _fault(self, name: str, present: bool, now_s: float, grace_s: float = GRACE_S, repeat_s: float = REPEAT_AFTER_S) -> bool:
        """Whether a fault has lasted long enough to be told (again)."""
        if not present:
            self._since_s.pop(name, None)
            return False
        return now_s - self._since_s.setdefault(name, now_s) >= grace_s and self._due(name, now_s, repeat_s)

    def _due(self, name: str, now_s: float, repeat_s: float = REPEAT_AFTER_S) -> bool:
        due = now_s - self._told_s.get(name, -math.inf) >= repeat_s
        if due:
            self._told_s[name] = now_s
        return due
