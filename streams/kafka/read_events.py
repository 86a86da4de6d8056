"""Read events from a Kafka topic, outside of any consumer group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from streams.events import EventData, fresh_events
from streams.kafka.connection.options import KafkaOptions
from streams.source import SourceError

_POLL_MS: Final = 500


def events_of_topic(topic: str, options: KafkaOptions, follow: bool, from_start: bool = True) -> Iterator[EventData]:
    """Yield the events of a topic, each id once. What is not an event is skipped.

    Args:
        topic: Name of the topic.
        options: How to reach the cluster.
        follow: Go on with the events that come, for ever.
        from_start: Begin with the first event; otherwise with the next one.

    Raises:
        SourceError: There is no broker, or no such topic.
    """
    return fresh_events(_values(topic, options, follow, from_start))


def _values(topic: str, options: KafkaOptions, follow: bool, from_start: bool) -> Iterator[bytes]:
    ours = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "earliest" if from_start else "latest"}
    try:
        consumer = KafkaConsumer(**options.consumer_config() | ours)
        with closing(consumer):
            if topic not in consumer.topics():
                raise SourceError(f"there is no topic {topic} on {options.servers()}; see events.drift_topic")
            consumer.subscribe([topic])
            ends: dict[Any, int] | None = None
            while True:
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    yield from (record.value for record in records if record.value is not None)
                if not follow and consumer.assignment():
                    ends = ends or consumer.end_offsets(list(consumer.assignment()))
                    if all(consumer.position(partition) >= end for partition, end in ends.items()):
                        return
    except (kafka_errors.KafkaError, OSError) as error:
        raise SourceError(f"reading topic {topic} from {options.servers()}: {error}") from error
