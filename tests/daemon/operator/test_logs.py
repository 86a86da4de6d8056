"""Logs of libraries: a message passes once a minute, and events of ours always pass."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from daemon.operator.logs import Repeated, configure_logging
from daemon.operator.observer import Observer


@pytest.fixture(autouse=True)
def logging_put_back() -> Iterator[None]:
    """Restore the loggers after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def record(name: str, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "x.py", 1, message, arguments, None)


def test_a_library_repeats_itself() -> None:
    """The same message passes once in a minute, whatever its arguments; another message or another logger is another matter."""
    now_s = [100.0]
    repeated = Repeated(lambda: now_s[0])
    assert repeated.filter(record("kafka.cluster", "Topic %s not found", "a"))
    assert not repeated.filter(record("kafka.cluster", "Topic %s not found", "b"))
    assert repeated.filter(record("kafka.cluster", "Topic %s is not authorized", "a"))
    assert repeated.filter(record("kafka.conn", "Topic %s not found", "a"))
    now_s[0] += 59.0
    assert not repeated.filter(record("kafka.cluster", "Topic %s not found", "a"))
    now_s[0] += 2.0
    assert repeated.filter(record("kafka.cluster", "Topic %s not found", "a"))


def test_our_events_are_never_held_back() -> None:
    """Nor are those of a logger whose name only begins like a library's."""
    out = io.StringIO()
    configure_logging("info", "json", out)
    observer = Observer()
    for _ in range(3):
        observer.emit("topic_missing", topic="x")
        logging.getLogger("kafka.cluster").error("Topic %s not found in cluster metadata", "x")
        logging.getLogger("kafkaesque").error("not a library")
    reported = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert reported.count("topic_missing") == reported.count("not a library") == 3
    assert reported.count("Topic x not found in cluster metadata") == 1
