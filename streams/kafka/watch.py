"""Watch a consumer: its readiness to deliver records, its lag, and the faults to report."""

from __future__ import annotations

import time
from typing import Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.structs import MemberState

from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import BrokerClient
from streams.kafka.connection.options import EventHandler
from streams.kafka.faults import Faults
from streams.kafka.lag import KafkaLag
from streams.kafka.records import Keys

LOOK_EVERY_S: Final = 1.0
JOIN_GRACE_S: Final = 10.0  # a join takes a second, or up to the session time-out of a member that has died
JOIN_REPEAT_S: Final = 60.0
HELD_REPEAT_S: Final = 300.0
KEYLESS_TODO: Final = (
    "have the producers use a record key that is the same for all records of a link (links.key), or let them choose the partition by link "
    "in another way: else each link is split into one series a partition, whose windows restart and whose forecasts are not made"
)
ADDED_TODO: Final = (
    "nothing, if that was meant: keys hash to other partitions now, so that many links move once, and their windows and detectors begin "
    "anew; producers that do not know the new partitions yet (metadata.max.age.ms, 5 min) split links until then"
)


class KafkaWatch:
    """Looks at a connected consumer after its turns.

    Args:
        errand: What the consumer is for.
        emit: Is called with name and fields of each operational event.
    """

    def __init__(self, errand: Errand, emit: EventHandler) -> None:
        self.healthy = False
        """True if records could come at the last look."""
        self.keys = Keys()
        self._lag = KafkaLag()
        self._why = "no broker has answered yet"
        self._errand = errand
        self._topic = errand.topic
        self._options = errand.options
        self._greeted = False
        self._partitions = 0
        self._keyless_reported = False
        self._emit = emit
        self._next_look_s = 0.0
        self._faults = Faults()

    @property
    def lag(self) -> int | None:
        """Records between the next one to poll and the end, over the assignment; None while an end is unknown."""
        return self._lag.records if self.healthy else None

    @property
    def held(self) -> int:
        """Records that are written, but that an open transaction of a producer hides from readers of committed records."""
        return self._lag.held

    @property
    def keyless(self) -> int:
        """Records that came without a key; 0 for a topic of one partition, which needs none."""
        return self.keys.without if self._partitions > 1 else 0

    def troubles(self) -> list[str]:
        """Return why there are no records, or not all of them, each with what to do."""
        return self._lag.troubles() if self.healthy else [f"the source is not connected: {self._why}"]

    def unreachable(self, why: str, todo: str) -> None:
        """Note that no broker accepts a connection, or that the one that does sends no answer."""
        self.healthy = False
        self._lag.forget()
        self._why = f"{why}; {todo}; it is tried again"

    def begin(self) -> None:
        """Begin to watch a new consumer.

        It counts as connected once an address has answered that the cluster itself names: the configured one need not be among them.
        """
        self._greeted = False

    def _connected(self) -> None:
        self._greeted = True
        self._faults.clear()
        self._emit("kafka_connected", {"servers": self._options.servers(), "topic": self._topic})

    def look(self, consumer: KafkaConsumer, client: BrokerClient) -> None:
        """Look at the consumer, once a second. While something is wrong, look at every turn, so that its end is seen at once.

        Args:
            consumer: The consumer.
            client: The client under it.
        """
        now_s = time.monotonic()
        if self.healthy and now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        linked = client.linked()
        partitions = len(client.cluster.partitions_for_topic(self._topic) or ())
        known = partitions > 0
        state = consumer.group_metadata().state
        self.healthy = linked and known and state == MemberState.STABLE
        if linked and (not self._greeted or self._faults.reported("kafka_unreachable")):
            self._connected()
        if linked:
            self._faults.end("kafka_unreachable")
        if not linked:
            self._not_linked(client, now_s)
        elif self._topic in client.cluster.unauthorized_topics:
            self.refused(Failure(kafka_errors.TopicAuthorizationFailedError({self._topic})))
        elif not known:
            self._topic_missing(client, now_s)
        if not linked or not known or self.healthy:
            self._faults.end("kafka_joining")
        elif self._faults.lasts("kafka_joining", now_s, JOIN_GRACE_S, JOIN_REPEAT_S):
            self._joining(consumer, str(state).strip("<>"), now_s)
        self._look_at_lag(consumer, client, linked and known)
        self._look_at_keys(partitions)

    def _look_at_keys(self, partitions: int) -> None:
        """Report what splits or moves links: records without a key, which lie in any partition, and new partitions."""
        if 0 < self._partitions < partitions:
            self._emit("partitions_added", {"topic": self._topic, "before": self._partitions, "now": partitions, "todo": ADDED_TODO})
        self._partitions = max(partitions, self._partitions)
        keys = self.keys
        if keys.without and partitions > 1 and not self._keyless_reported:
            self._keyless_reported = True
            counted: dict[str, object] = {"records": keys.without, "of": keys.without + keys.with_key, "partitions": partitions}
            self._emit("records_without_key", {"topic": self._topic} | counted | {"todo": KEYLESS_TODO})

    def _look_at_lag(self, consumer: KafkaConsumer, client: BrokerClient, connected: bool) -> None:
        if self.healthy:
            self._lag.look(consumer, self._options.servers(), client.leader_of)
            self._report_held()
            return
        self._lag.forget()
        if connected:
            self._why = "the group has not assigned partitions to this member yet; if that lasts, see the broker's log about the group"

    def _report_held(self) -> None:
        """Report partitions that an open transaction holds, again while it lasts. A later transaction is another fault."""
        holds = {f"records_held {held.partition.partition}": held for held in self._lag.holds}
        for name in set(self._faults.reported("records_held")) - holds.keys():
            self._faults.forget(name)
        for name, held in holds.items():
            if self._faults.is_due(name, HELD_REPEAT_S):
                where: dict[str, object] = {"partition": f"{held.partition.topic}-{held.partition.partition}", "offset": held.offset}
                todo = held.todo(self._options.servers())
                self._emit("records_held", where | {"records": held.records, "held_s": round(held.seconds), "todo": todo})

    def _not_linked(self, client: BrokerClient, now_s: float) -> None:
        failure = client.failure
        if failure is not None and isinstance(failure.error, REFUSALS):
            self.refused(failure)
            return
        why = str(failure or "connection lost")
        todo = self._errand.advice(failure) if failure is not None else f"see that a broker of {self._options.servers()} runs and answers"
        self.unreachable(why, todo)
        if self._faults.lasts("kafka_unreachable", now_s):
            retry_in_s = round(client.least_loaded_node_refresh_ms() / 1000, 1)
            found: dict[str, object] = {"servers": self._options.servers(), "error": why, "todo": todo, "retry_in_s": retry_in_s}
            self._emit("kafka_unreachable", found)

    def _topic_missing(self, client: BrokerClient, now_s: float) -> None:
        client.cluster.request_update()
        how = f"create topic {self._topic}, or correct its name (`dwcp-learner check-config` prints the command)"
        todo = f"{how}; it is looked for until it is there"
        self._why = todo
        if self._faults.lasts("topic_missing", now_s):
            self._emit("topic_missing", {"topic": self._topic, "servers": self._options.servers(), "todo": todo})

    def refused(self, failure: Failure) -> None:
        """Note that the broker answers, but refuses this user."""
        self.healthy = False
        self._lag.forget()
        todo = self._errand.advice(failure)
        self._why = f"the broker refuses it ({failure}); {todo}"
        if self._faults.is_due("kafka_refused"):
            who: dict[str, object] = {"servers": self._options.servers(), "topic": self._topic, "group": self._errand.group}
            self._emit("kafka_refused", who | {"error": str(failure), "todo": todo})

    def _joining(self, consumer: KafkaConsumer, state: str, now_s: float) -> None:
        group, limit_s = consumer.config["group_id"], consumer.config["session_timeout_ms"] / 1000
        todo = (
            f"wait: a member that has died is out of the group after its session time-out ({limit_s:.0f} s here), and one that stays hands "
            "its partitions over first; if it lasts longer, see the broker's log about the group"
        )
        waited_s = round(self._faults.seconds("kafka_joining", now_s))
        self._emit("kafka_joining", {"topic": self._topic, "group": group, "state": state, "waited_s": waited_s, "todo": todo})
