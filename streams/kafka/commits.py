"""The progress that a member publishes, and that others of its group have published.

A checkpoint decides where a member goes on. The committed offset of the group informs other members and lag monitors. If members have
separate state directories, a partition may come back to one whose checkpoint is old: another member has read on since, and has the rows. So
each commit names the state directory that it belongs to, and a member that gets a partition checks whose the last commit is.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from streams.kafka.connection.options import EventHandler
from streams.kafka.log import LOOKUP_TIMEOUT_MS, KafkaLogs
from streams.source import Log

SHARE: Final = "let the members of a group share one state directory (docs/reliability.md): then state moves with its partition"


class KafkaCommits:
    """The offsets of one member. `put` may be called from any thread, all else is called from the thread of the consumer's polls.

    Args:
        topic: Name of the topic.
        group: Name of the consumer group.
        state_id: Name of the state directory that the checkpoints are in; "" means none.
        logs: The logs that the consumer reads.
        emit: Is called with name and fields of each operational event.
    """

    def __init__(self, topic: str, group: str, state_id: str, logs: KafkaLogs, emit: EventHandler) -> None:
        self._topic, self._group, self._state_id, self._logs, self._emit = topic, group, state_id, logs, emit
        self._waiting: deque[dict[TopicPartition, int]] = deque()
        self._begun: dict[TopicPartition, int] = {}
        self._passed: dict[TopicPartition, int] = {}

    def put(self, offsets: dict[TopicPartition, int]) -> None:
        """Publish offsets with the next `send`."""
        self._waiting.append(offsets)

    def send(self, consumer: KafkaConsumer) -> None:
        """Commit the waiting offsets. A checkpoint that was written before the begin was known never moves a commit back."""
        while self._waiting:
            offsets = {}
            for key, offset in self._waiting.popleft().items():
                own = self._logs.own_offset(key, max(offset, self._begun.get(key, offset)))
                offsets[key] = OffsetAndMetadata(own, self._state_id, -1)
            consumer.commit_async(offsets, callback=self._sent)

    def begin(self, consumer: KafkaConsumer, key: TopicPartition, offset: int | None, log: Log) -> None:
        """Seek to the end of a checkpoint, or to a later offset that another state directory has committed since.

        Args:
            consumer: The consumer.
            key: The partition.
            offset: End of the checkpoint; None: the group's begin.
            log: In which the offset counts.

        Raises:
            RetriableError: Nobody has answered: call again.
        """
        self._begun.pop(key, None)
        if offset is not None:
            offset = self._begin_at(consumer, key, offset, log)
        self._logs.begin(consumer, key, offset, log)

    def passed(self) -> dict[TopicPartition, int]:
        """Return the next offset of the partitions that go on behind the sought offset, since the last call."""
        passed, self._passed = self._passed, {}
        return passed

    def _begin_at(self, consumer: KafkaConsumer, key: TopicPartition, offset: int, log: Log) -> int:
        found = consumer.committed(key, metadata=True, timeout_ms=LOOKUP_TIMEOUT_MS)
        committed = found.offset + log.shift if found is not None else 0
        if found is None or committed <= offset:
            return offset
        whose = {"": "an unknown member", self._state_id: "this state directory"}.get(found.metadata, f"state directory {found.metadata}")
        other = found.metadata not in ("", self._state_id) and bool(self._state_id)
        following = committed if other else offset
        if other:
            self._begun[key] = self._passed[key] = following
        where = {"partition": f"{key.topic}-{key.partition}", "checkpoint_offset": offset, "committed_offset": committed}
        self._emit("group_ahead", {**where, "committed_by": whose, "next_offset": following, "todo": _todo(other, found.metadata)})
        return following

    def _sent(self, _offsets: object, response: object) -> None:
        if isinstance(response, Exception):
            self._emit("kafka_commit_failed", {"topic": self._topic, "group": self._group, "error": repr(response)})


def _todo(other: bool, committed_by: str) -> str:
    if other:
        return (
            "nothing is read twice: the skipped records are in the other directory's buffer, and this member's state does not include "
            f"them; {SHARE}"
        )
    if committed_by:
        return "nothing: the state is older than what it has published (from a copy, or after a damaged checkpoint); they are read again"
    return (
        "the records between are read again. If the offsets were reset to skip them, stop the daemon and start it with an empty state "
        f"directory; if another daemon has them: {SHARE}"
    )
