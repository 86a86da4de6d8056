"""What a member publishes of its progress, and what others of its group have published.

A checkpoint says where a member goes on, and the group's committed offset is for others to see. Where members have state directories of
their own, a partition may come back to one whose checkpoint of it is old: another has read on since, and has the rows. So each commit names
the state directory that it belongs to, and a member that takes up a partition looks whose the last one is.
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
    """The offsets of one member. `put` may be called from any thread, all else is called from the thread of the consumer's polls."""

    def __init__(self, topic: str, group: str, state_id: str, logs: KafkaLogs, tell: EventHandler) -> None:
        """state_id: names the state directory that the checkpoints are in; "": none."""
        self._topic, self._group, self._state_id, self._logs, self._tell = topic, group, state_id, logs, tell
        self._waiting: deque[dict[TopicPartition, int]] = deque()
        self._begun: dict[TopicPartition, int] = {}
        self._passed: dict[TopicPartition, int] = {}

    def put(self, offsets: dict[TopicPartition, int]) -> None:
        """Publishes these with the next `send`."""
        self._waiting.append(offsets)

    def send(self, consumer: KafkaConsumer) -> None:
        """Hands what waits to the client. A checkpoint that was written before it was known where to go on takes nothing back."""
        while self._waiting:
            offsets = {}
            for key, offset in self._waiting.popleft().items():
                own = self._logs.own_offset(key, max(offset, self._begun.get(key, offset)))
                offsets[key] = OffsetAndMetadata(own, self._state_id, -1)
            consumer.commit_async(offsets, callback=self._sent)

    def begin(self, consumer: KafkaConsumer, key: TopicPartition, offset: int | None, log: Log) -> None:
        """Seeks to where a checkpoint ends, or behind what another state directory has since; None: to where the group begins.

        A RetriableError says that nobody has answered: it is to be called again.
        """
        self._begun.pop(key, None)
        if offset is not None:
            offset = self._begin_at(consumer, key, offset, log)
        self._logs.begin(consumer, key, offset, log)

    def passed(self) -> dict[TopicPartition, int]:
        """Partitions that go on behind the offset that was asked for, each with its next one, since the last call."""
        passed, self._passed = self._passed, {}
        return passed

    def _begin_at(self, consumer: KafkaConsumer, key: TopicPartition, offset: int, log: Log) -> int:
        found = consumer.committed(key, metadata=True, timeout_ms=LOOKUP_TIMEOUT_MS)
        committed = found.offset + log.shift if found is not None else 0
        if found is None or committed <= offset:
            return offset
        whose = {"": "nobody who is known", self._state_id: "this state directory"}.get(found.metadata, f"state directory {found.metadata}")
        other = found.metadata not in ("", self._state_id) and bool(self._state_id)
        following = committed if other else offset
        if other:
            self._begun[key] = self._passed[key] = following
        where = {"partition": f"{key.topic}-{key.partition}", "checkpoint_offset": offset, "committed_offset": committed}
        self._tell("group_ahead", {**where, "committed_by": whose, "next_offset": following, "todo": _todo(other, found.metadata)})
        return following

    def _sent(self, _offsets: object, response: object) -> None:
        if isinstance(response, Exception):
            self._tell("kafka_commit_failed", {"topic": self._topic, "group": self._group, "error": repr(response)})


def _todo(other: bool, committed_by: str) -> str:
    if other:
        return (
            "nothing is read twice: the skipped records are in the other directory's buffer, and this member's state does not include "
            f"them; {SHARE}"
        )
    if committed_by:
        return "nothing: the state is older than what it has published (it came from a copy, or a checkpoint was damaged); it is read again"
    return (
        "the records between are read again. If the offsets were reset to pass over them, stop the daemon and start it with an empty state "
        f"directory; if another daemon has them: {SHARE}"
    )
