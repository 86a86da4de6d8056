"""Events that were sent, read again for a person: from an NDJSON file that may still grow, or from a Kafka topic. Repeats are left out."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from streams.kafka_options import KafkaOptions
from streams.ndjson_sink import rotated
from streams.source import SourceError

REMEMBERED: Final = 100_000
"""Ids by which repeats are known."""
LINE_BYTES_MAX: Final = 16 << 20
_POLL_S: Final = 0.5

EventData = dict[str, Any]


def events_in_file(path: Path, follow: bool, from_start: bool = True) -> Iterator[EventData]:
    """The events of a file, and with follow those that are appended, for ever. What is no event is skipped.

    A file that is not there yet is waited for; one that was replaced or cut is read anew. Raises OSError where it cannot be read.
    """
    return _fresh(_lines(path, follow, from_start))


def events_of_topic(topic: str, options: KafkaOptions, follow: bool, from_start: bool = True) -> Iterator[EventData]:
    """The events of a topic, outside of any group. Raises SourceError where there is no broker or no such topic."""
    return _fresh(_values(topic, options, follow, from_start))


def _fresh(values: Iterator[bytes]) -> Iterator[EventData]:
    seen: OrderedDict[str, None] = OrderedDict()
    for value in values:
        event = _event(value)
        if event is None or event["id"] in seen:
            continue
        seen[event["id"]] = None
        if len(seen) > REMEMBERED:
            seen.popitem(last=False)
        yield event


def _event(value: bytes) -> EventData | None:
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if isinstance(event, dict) and all(isinstance(event.get(name), str) for name in ("id", "type", "time")):
        return event if isinstance(event.get("data"), dict) else None
    return None


class _Lines:
    """The whole lines of a file that grows, from where it was read to."""

    def __init__(self) -> None:
        self.at, self.rest = 0, b""

    def more(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(self.at)
            while chunk := file.read(1 << 20):
                self.at += len(chunk)
                *whole, self.rest = (self.rest + chunk).split(b"\n")
                yield from whole
                self.rest = self.rest if len(self.rest) <= LINE_BYTES_MAX else b""


def _lines(path: Path, follow: bool, from_start: bool) -> Iterator[bytes]:
    lines, inode, before = _Lines(), 0, rotated(path)
    if from_start and before.exists():
        yield from _Lines().more(before)
    while True:
        if path.exists():
            status = path.stat()
            if not from_start:
                lines.at = status.st_size
            elif status.st_ino != inode or status.st_size < lines.at:
                if inode and before.exists() and before.stat().st_ino == inode:
                    yield from lines.more(before)  # what came between the last look and its other name
                lines = _Lines()
            inode = status.st_ino
            yield from lines.more(path)
        elif not follow:
            raise FileNotFoundError(2, "there is no file of alerts", str(path))
        from_start = True
        if not follow:
            yield lines.rest  # the last line of a file that somebody has cut by hand
            return
        time.sleep(_POLL_S)


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
                for records in consumer.poll(timeout_ms=int(_POLL_S * 1000)).values():
                    yield from (record.value for record in records if record.value is not None)
                if not follow and consumer.assignment():
                    ends = ends or consumer.end_offsets(list(consumer.assignment()))
                    if all(consumer.position(partition) >= end for partition, end in ends.items()):
                        return
    except (kafka_errors.KafkaError, OSError) as error:
        raise SourceError(f"reading topic {topic} from {options.servers()}: {error}") from error
