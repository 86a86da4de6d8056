"""A transaction that a producer has left open holds a partition: readers of committed records stop there, and this is reported."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaProducer

from features.telemetry import Partition
from streams.kafka import lag as kafka_lag
from streams.kafka import watch as kafka_watch
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.lag import _Place
from streams.kafka.source import KafkaSource

Reported = list[tuple[str, dict[str, object]]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a partition is asked for soon, and a transaction is long after a moment."""
    for name in ("ASK_AFTER_S", "STALE_S", "LOOKUP_EVERY_S", "HELD_S"):
        monkeypatch.setattr(kafka_lag, name, 0.3)
    monkeypatch.setattr(kafka_watch, "LOOK_EVERY_S", 0.1)


@pytest.fixture
def source(kafka_broker: str, kafka_topic: Callable[..., str]) -> Iterator[tuple[KafkaSource, Partition, Reported]]:
    """A source of a topic of its own with one partition, and what it reports."""
    topic, reported = kafka_topic(), []  # type: str, Told
    made = KafkaSource(topic, f"group.{topic}", KafkaOptions((kafka_broker,)), lambda name, fields: reported.append((name, fields)))
    with closing(made):
        yield made, Partition(topic, 0), reported


def until(source: KafkaSource, condition: Callable[[], Any]) -> list[bytes | None]:
    """Polls until the condition holds; the values that came."""
    values: list[bytes | None] = []
    while not condition():
        polled = source.poll(0.1)
        for partition in polled.assigned:
            source.seek(partition, None)
        values += [value for batch in polled.batches for value in batch.values]
    return values


@pytest.mark.usefixtures("impatient")
def test_an_open_transaction_is_reported_until_it_ends(kafka_broker: str, source: tuple[KafkaSource, Partition, Reported]) -> None:
    """Event and troubles name partition, offset, how many records wait and what to do; the readable lag is 0. When the transaction ends,
    all of it comes, and there is no trouble any more. Another transaction is reported again."""
    reader, partition, reported = source
    plain = KafkaProducer(bootstrap_servers=kafka_broker)
    hanging = KafkaProducer(bootstrap_servers=kafka_broker, transactional_id=uuid.uuid4().hex, transaction_timeout_ms=600_000)
    with closing(plain), closing(hanging):
        plain.send(partition.topic, b"first").get(30)
        until(reader, lambda: reader.lag() == 0)
        hanging.init_transactions()
        for round_, first in enumerate((1, 53)):
            hanging.begin_transaction()
            hanging.send(partition.topic, b"held").get(30)
            for number in range(50):
                plain.send(partition.topic, b"%d" % number)
            plain.flush()
            until(reader, lambda: reader.troubles() and reader.held() == 51)
            found = [fields for name, fields in reported if name == "records_held"]
            assert len(found) == round_ + 1
            assert (found[-1]["partition"], found[-1]["offset"]) == (str(partition), first)
            assert f"abort --topic {partition.topic} --partition 0 --start-offset {first}" in str(found[-1]["todo"])
            assert reader.lag() == 0
            assert f"has held 51 records of {partition} from offset {first} on" in reader.troubles()[0]
            hanging.commit_transaction()
            values = until(reader, lambda: not reader.troubles() and not reader.held() and reader.lag() == 0)
            assert values == [b"held"] + [b"%d" % number for number in range(50)]


def test_transactions_that_come_and_go_hold_nothing() -> None:
    """Only a position that does not move counts as held, however many transactions are open."""
    place = _Place(position=10, since_s=0.0, heard_s=0.0, end=10, written=15)
    place.look(100.0)
    assert place.held_since_s == 100.0
    place.look(130.0)
    assert (place.held_since_s, place.held) == (100.0, 5)
    place.move(20, 131.0)
    place.end, place.written = 20, 22
    place.look(131.0)
    assert place.held_since_s == 131.0
    place.written = 20
    place.look(132.0)
    assert place.held_since_s is None


def test_a_reader_that_is_behind_is_not_held() -> None:
    """Records that can be read come first: as long as there are any, the transaction behind them keeps nobody waiting."""
    place = _Place(position=5, since_s=0.0, heard_s=0.0, end=10, written=15)
    place.look(100.0)
    assert (place.held_since_s, place.behind, place.held) == (None, 5, 5)
