"""Events that were sent, read again for a person: from an NDJSON file that may still grow, or from a Kafka topic. Repeats are left out."""

from __future__ import annotations

import errno
import json
import os
import time
from collections import OrderedDict
from collections.abc import Container, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from streams.files.sink import rotated
from streams.kafka.connection.options import KafkaOptions
from streams.source import SourceError

REMEMBERED: Final = 100_000
"""Ids by which repeats are known."""
LINE_BYTES_MAX: Final = 16 << 20
_POLL_S: Final = 0.5

EventData = dict[str, Any]


def events_in_file(path: Path, follow: bool, from_start: bool = True) -> Iterator[EventData]:
    """The events of a file, and with follow those that are appended, for ever. What is no event is skipped.

    With follow a file that is not there yet is waited for. One that was cut is read anew; one that has another name by now is read to its
    end, and those after it in their order. Raises OSError where it cannot be read.
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


class _File:
    """A file that grows, by its descriptor and whatever its name is by now: its whole lines from where it was read to."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        self._file = path.open("rb", buffering=0)
        self.rest = b""
        """The last line, as long as it has no end."""

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Which file it is, also after it was closed: another one may have its number then, but not its time too."""
        status = os.fstat(self._file.fileno())
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def is_one_of(self, *others: _File | None) -> bool:
        return any(other is not None and os.path.sameopenfile(self._file.fileno(), other._file.fileno()) for other in others)

    def skip(self) -> None:
        self._file.seek(0, os.SEEK_END)

    def more(self) -> Iterator[bytes]:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # cut in place: its lines are others
            self._file.seek(0)
            self.rest = b""
        while chunk := self._file.read(1 << 20):
            *whole, self.rest = (self.rest + chunk).split(b"\n")
            yield from whole
            self.rest = self.rest if len(self.rest) <= LINE_BYTES_MAX else b""

    def close(self) -> None:
        self._file.close()


def _lines(path: Path, follow: bool, from_start: bool) -> Iterator[bytes]:
    reading: _File | None = None
    following: list[_File] = []
    left: set[tuple[int, int, int]] = set()
    try:
        while True:
            following = _after(reading, path, left)
            if reading is not None:
                yield from reading.more()  # to its end, for nothing is written to it any more where another was there before this look
            elif not following and not follow:
                raise FileNotFoundError(errno.ENOENT, "there is no file of alerts", str(path))
            while following:
                if reading is not None:
                    yield reading.rest
                    left.add(reading.stamp)
                    reading.close()
                reading = following.pop(0)
                if from_start:
                    yield from reading.more()
                else:
                    reading.skip()
            from_start = True
            if not follow:
                assert reading is not None  # else there was none
                yield reading.rest  # the last line of a file that somebody has cut by hand
                return
            time.sleep(_POLL_S)
    finally:
        for file in (reading, *following):
            if file is not None:
                file.close()


def _after(reading: _File | None, path: Path, left: Container[tuple[int, int, int]]) -> list[_File]:
    """The files that were begun after the one that is read, oldest first: that of the path, and the one that it has replaced, if neither is
    known. The path is opened first: what is rotated meanwhile is found under its other name, and not missed."""
    newest = _opened(path)
    if newest is None and reading is not None:
        return []  # between two files
    if newest is not None and newest.is_one_of(reading):
        newest.close()
        return []
    before = _opened(rotated(path))
    if before is not None and (before.is_one_of(reading, newest) or before.stamp in left):
        before.close()
        before = None
    return [file for file in (before, newest) if file is not None]


def _opened(path: Path) -> _File | None:
    """None where there is no such file at the moment."""
    try:
        return _File(path)
    except FileNotFoundError:
        return None


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
