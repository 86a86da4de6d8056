"""Whether a consumer can give records now, how far it is behind, and what to tell when it cannot."""

from __future__ import annotations

import math
import time
from typing import Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.structs import MemberState

from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import BrokerClient
from streams.kafka.connection.options import EventHandler
from streams.kafka.lag import KafkaLag
from streams.kafka.records import Keys

LOOK_EVERY_S: Final = 1.0
GRACE_S: Final = 3.0  # a connection that is replaced, or metadata on the way, is no fault
REPEAT_AFTER_S: Final = 30.0  # a fault that lasts is told again
JOIN_GRACE_S: Final = 10.0  # a join takes a second; one that waits for a member who has died, up to its session time-out
JOIN_REPEAT_S: Final = 60.0
HELD_REPEAT_S: Final = 300.0
KEYLESS_TODO: Final = (
    "have the producers use a record key that is the same for all records of a link (links.key), or see that they choose the partition by "
    "link in another way: else each link is split into one series a partition, whose windows restart and whose forecasts are not made"
)
ADDED_TODO: Final = (
    "nothing, if that was meant: keys hash to other partitions now, so that many links move once, and their windows and detectors begin "
    "anew; producers that have not heard of the new partitions yet (metadata.max.age.ms, 5 min) split links until then"
)


class KafkaWatch:
    """Looks at a connected consumer after its turns. healthy is what the last look saw."""

    def __init__(self, errand: Errand, tell: EventHandler) -> None:
        self.healthy = False
        self.keys = Keys()
        self._lag = KafkaLag()
        self._why = "no broker has answered yet"
        self._errand = errand
        self._topic = errand.topic
        self._options = errand.options
        self._greeted = False
        self._partitions = 0
        self._keyless_told = False
        self._tell = tell
        self._next_look_s = 0.0
        self._since_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}

    @property
    def lag(self) -> int | None:
        """Records between the next one to poll and the end, over the assignment; None while one of its ends is unknown."""
        return self._lag.records if self.healthy else None

    @property
    def held(self) -> int:
        """Records that are written and that an open transaction of a producer keeps from every reader of committed ones."""
        return self._lag.held

    @property
    def keyless(self) -> int:
        """Records that came without a key; 0 for a topic of one partition, which needs none."""
        return self.keys.without if self._partitions > 1 else 0

    def troubles(self) -> list[str]:
        """Why there are no records, or not all of them, each with what to do."""
        return self._lag.troubles() if self.healthy else [f"the source is not connected: {self._why}"]

    def unreachable(self, why: str, todo: str) -> None:
        """No broker takes a connection, or the one that does gives no answer."""
        self.healthy = False
        self._lag.forget()
        self._why = f"{why}; {todo}; it is tried again"

    def begin(self) -> None:
        """A new consumer is there. It counts as connected when an address that the cluster itself names has answered: the one of the
        configuration need not be among them."""
        self._greeted = False

    def _connected(self) -> None:
        self._greeted = True
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
        partitions = len(client.cluster.partitions_for_topic(self._topic) or ())
        known = partitions > 0
        state = consumer.group_metadata().state
        self.healthy = there and known and state == MemberState.STABLE
        if there and (not self._greeted or "kafka_unreachable" in self._told_s):
            self._connected()
        if there:
            self._since_s.pop("kafka_unreachable", None)
        if not there:
            self._not_linked(client, now_s)
        elif self._topic in client.cluster.unauthorized_topics:
            self.refused(Failure(kafka_errors.TopicAuthorizationFailedError({self._topic})))
        elif not known:
            self._topic_missing(client, now_s)
        if self._fault("kafka_joining", there and known and not self.healthy, now_s, JOIN_GRACE_S, JOIN_REPEAT_S):
            self._joining(consumer, str(state).strip("<>"), now_s)
        self._look_at_lag(consumer, client, there and known)
        self._look_at_keys(partitions)

    def _look_at_keys(self, partitions: int) -> None:
        """Reports what splits links or moves them: records that no key puts into one partition, and partitions that are new."""
        if 0 < self._partitions < partitions:
            self._tell("partitions_added", {"topic": self._topic, "before": self._partitions, "now": partitions, "todo": ADDED_TODO})
        self._partitions = max(partitions, self._partitions)
        keys = self.keys
        if keys.without and partitions > 1 and not self._keyless_told:
            self._keyless_told = True
            counted: dict[str, object] = {"records": keys.without, "of": keys.without + keys.with_key, "partitions": partitions}
            self._tell("records_without_key", {"topic": self._topic} | counted | {"todo": KEYLESS_TODO})

    def _look_at_lag(self, consumer: KafkaConsumer, client: BrokerClient, connected: bool) -> None:
        if self.healthy:
            self._lag.look(consumer, self._options.servers(), client.leader_of)
            self._tell_held()
            return
        self._lag.forget()
        if connected:
            self._why = "the group has not given this member its partitions yet; if that lasts, see the broker's log about the group"

    def _tell_held(self) -> None:
        """Reports partitions that an open transaction holds, and again while it lasts; a later transaction is another fault."""
        holds = {f"records_held {held.partition.partition}": held for held in self._lag.holds}
        for name in [name for name in self._told_s if name.startswith("records_held") and name not in holds]:
            del self._told_s[name]
        for name, held in holds.items():
            if self._due(name, time.monotonic(), HELD_REPEAT_S):
                where: dict[str, object] = {"partition": f"{held.partition.topic}-{held.partition.partition}", "offset": held.offset}
                todo = held.todo(self._options.servers())
                self._tell("records_held", where | {"records": held.records, "held_s": round(held.seconds), "todo": todo})

    def _not_linked(self, client: BrokerClient, now_s: float) -> None:
        failure = client.failure
        if failure is not None and isinstance(failure.error, REFUSALS):
            self.refused(failure)
            return
        why = str(failure or "connection lost")
        todo = self._errand.advice(failure) if failure is not None else f"see that a broker of {self._options.servers()} runs and answers"
        self.unreachable(why, todo)
        if self._fault("kafka_unreachable", True, now_s):
            retry_in_s = round(client.least_loaded_node_refresh_ms() / 1000, 1)
            found: dict[str, object] = {"servers": self._options.servers(), "error": why, "todo": todo, "retry_in_s": retry_in_s}
            self._tell("kafka_unreachable", found)

    def _topic_missing(self, client: BrokerClient, now_s: float) -> None:
        client.cluster.request_update()
        how = f"create topic {self._topic}, or correct its name (`dwcp-learner check-config` prints the command)"
        todo = f"{how}; it is looked for until it is there"
        self._why = todo
        if self._fault("topic_missing", True, now_s):
            self._tell("topic_missing", {"topic": self._topic, "servers": self._options.servers(), "todo": todo})

    def refused(self, failure: Failure) -> None:
        """The broker answers, but not to this user."""
        self.healthy = False
        self._lag.forget()
        todo = self._errand.advice(failure)
        self._why = f"the broker refuses it ({failure}); {todo}"
        if self._due("kafka_refused", time.monotonic()):
            who: dict[str, object] = {"servers": self._options.servers(), "topic": self._topic, "group": self._errand.group}
            self._tell("kafka_refused", who | {"error": str(failure), "todo": todo})

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
