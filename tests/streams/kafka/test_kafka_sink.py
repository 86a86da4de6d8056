"""The Kafka sink, and both ends through an outage and an encrypted listener, against Apache Kafka."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from streams.events import CONTENT_TYPE, Event
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.sink import KafkaSink, SinkError
from streams.kafka.source import KafkaSource

PATIENCE_S = 300.0  # nothing here is a measurement: a busy machine may take its time

Reported = list[tuple[str, dict[str, object]]]


@pytest.fixture
def open_sink(kafka_broker: str) -> Iterator[Callable[..., tuple[KafkaSink, Reported]]]:
    """open_sink(topic, options=None) -> the sink and the list that its operational events go to; closed at the end."""
    sinks = []

    def make(topic: str, options: KafkaOptions | None = None) -> tuple[KafkaSink, Reported]:
        reported: Reported = []
        sink = KafkaSink(topic, options or KafkaOptions((kafka_broker,)), lambda name, fields: reported.append((name, fields)))
        sinks.append(sink)
        return sink, reported

    yield make
    for sink in sinks:
        sink.close(timeout_s=0.2)


@pytest.fixture
def open_source() -> Iterator[Callable[..., tuple[KafkaSource, Reported]]]:
    """The same for a source in a group of its own."""
    sources = []

    def make(topic: str, options: KafkaOptions) -> tuple[KafkaSource, Reported]:
        reported: Reported = []
        source = KafkaSource(topic, f"group.{uuid.uuid4().hex[:8]}", options, lambda name, fields: reported.append((name, fields)))
        sources.append(source)
        return source, reported

    yield make
    for source in sources:
        source.close()


def event(number: int, subject: str = "link-1", size: int = 10) -> Event:
    return Event(f"id-{number}", "dwcp.test", "/test", subject, 0.0, {"n": number, "pad": "x" * size}, (("reason", b"because"),))


def read_all(bootstrap: str, topic: str, count: int) -> list[Any]:
    """The records of a topic, each partition in its order; fails when they are not `count`, also when they are more."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=200)
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    records = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for batch in consumer.poll(timeout_ms=1000).values():
            records.extend(batch)
    consumer.close()
    assert len(records) == count
    return records


def numbers(records: list[Any]) -> list[int]:
    return [json.loads(record.value)["data"]["n"] for record in records]


def poll_until(source: KafkaSource, condition: Callable[[], Any]) -> list[bytes | None]:
    """Polls, seeking each new partition to its start, until the condition holds; returns the values that came."""
    values: list[bytes | None] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"it did not happen within {PATIENCE_S:g} s"
        polled = source.poll(0.2)
        for partition in polled.assigned:
            source.seek(partition, None)
        for batch in polled.batches:
            values.extend(batch.values)
    return values


def test_events_arrive_in_order_with_key_and_headers(
    kafka_broker: str, kafka_topic: Callable[..., str], open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """After flush every event is in the topic: the subject is its key, its own headers follow the content type, subjects keep order."""
    topic = kafka_topic(partitions=3)
    sink, reported = open_sink(topic)
    for number in range(2000):
        sink.send(event(number, f"link-{number % 7}"))
    sink.flush(PATIENCE_S)
    assert sink.pending() == 0
    records = read_all(kafka_broker, topic, 2000)
    for link in range(7):
        of_link = [record for record in records if record.key == b"link-%d" % link]
        assert len({record.partition for record in of_link}) == 1
        assert numbers(of_link) == list(range(link, 2000, 7))
    assert records[0].headers == [("content-type", CONTENT_TYPE), ("reason", b"because")]
    assert [name for name, _ in reported] == ["kafka_connected"]
    sink.close()
    with pytest.raises(ValueError, match="after close"):
        sink.send(event(1))


def test_events_wait_for_a_missing_topic(
    kafka_broker: str, kafka_admin: KafkaAdminClient, open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """The topic is not created by sending to it. The events stay queued, the fault is reported, and then they go out in order."""
    topic = f"test.{uuid.uuid4().hex[:12]}"
    sink, reported = open_sink(topic)
    for number in range(5):
        sink.send(event(number))
    with pytest.raises(TimeoutError, match=f"5 events for topic {topic} at .* they stay queued"):
        sink.flush(4.0)
    assert topic not in kafka_admin.list_topics()
    assert f"create topic {topic}" in str(dict(reported)["topic_missing"]["todo"])
    kafka_admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
    sink.flush(PATIENCE_S)
    assert numbers(read_all(kafka_broker, topic, 5)) == list(range(5))


def test_an_event_that_can_never_be_written_does_not_hold_up_the_others(
    kafka_broker: str, kafka_topic: Callable[..., str], open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """The broker's limit and the client's: such an event is given up, by name, and all around it arrive, in order and once, though
    the client fails the innocent ones together with it."""
    topic = kafka_topic(configs={"max.message.bytes": "100000"})
    sink, reported = open_sink(topic)
    too_large = {20: 200_000, 40: 40_000_000, 60: 200_000}
    for number in range(100):
        sink.send(event(number, f"link-{number % 2}", too_large.get(number, 10)))
    sink.flush(PATIENCE_S)
    assert sorted(str(fields["id"]) for name, fields in reported if name == "event_refused") == ["id-20", "id-40", "id-60"]
    arrived = numbers(read_all(kafka_broker, topic, 97))
    assert arrived == [number for number in range(100) if number not in too_large]


def test_options_that_cannot_work_are_raised_by_the_sink(
    kafka_broker: str, kafka_topic: Callable[..., str], open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """A value that only the client can judge does not end in a silent thread: the next call says what is wrong."""
    sink, _ = open_sink(kafka_topic(), KafkaOptions((kafka_broker,), client={"api_version": "0.10"}))
    sink.send(event(0))
    with pytest.raises(SinkError, match=r"producer requires broker >= 0\.11.*correct the Kafka options"):
        sink.flush(PATIENCE_S)
    with pytest.raises(SinkError):
        sink.send(event(1))


def test_a_server_that_never_answers_is_unreachable(
    open_source: Callable[..., tuple[KafkaSource, Reported]], open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """A port that accepts and stays silent (another protocol, a firewall) is reported as such, and delays neither polls nor close."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        options = KafkaOptions((f"127.0.0.1:{silent.getsockname()[1]}",), client={"bootstrap_timeout_ms": 500})
        source, reported = open_source("t", options)
        poll_until(source, lambda: reported)
        assert reported[0][0] == "kafka_unreachable"
        assert options.servers() in str(reported[0][1]["error"])
        assert "check that security_protocol (PLAINTEXT)" in str(reported[0][1]["todo"])
        assert not source.healthy()
        assert source.lag() is None
        source.close()
        sink, _ = open_sink("t", options)
        sink.send(event(0))
        with pytest.raises(TimeoutError):
            sink.flush(0.1)


def test_both_ends_outlive_their_broker(
    kafka_module: ModuleType, open_source: Callable[..., tuple[KafkaSource, Reported]], open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """Started without a broker, they connect when it comes; when it goes, events are kept and say so; when it is back, all arrive
    in order, once, and records are read again. A source closes at once though its broker is gone."""
    broker = kafka_module.Broker()
    try:
        options = KafkaOptions((broker.bootstrap,))
        (source, source_reported), (sink, sink_reported) = open_source("t", options), open_sink("t", options)
        for number in range(10):
            sink.send(event(number))
        with pytest.raises(TimeoutError, match="10 events"):
            sink.flush(0.5)
        poll_until(source, lambda: len(source_reported) >= 2)
        assert {name for name, _ in source_reported + sink_reported} == {"kafka_unreachable"}
        assert "Connection refused" in str(source_reported[0][1]["error"])

        broker.start()
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics({"t": {"num_partitions": 1}}, wait_for_metadata=True)
        admin.close()
        sink.flush(PATIENCE_S)
        poll_until(source, source.healthy)

        broker.stop()
        for number in range(10, 200):
            sink.send(event(number))
        with pytest.raises(TimeoutError, match="190 events"):
            sink.flush(0.5)
        poll_until(source, lambda: not source.healthy())
        assert sink.pending() == 190

        broker.start()
        sink.flush(PATIENCE_S)
        assert numbers(read_all(broker.bootstrap, "t", 200)) == list(range(200))
        poll_until(source, source.healthy)
        assert [name for name, _ in source_reported][-1] == "kafka_connected"

        broker.stop()
        sink.send(event(200))
        sink.close(timeout_s=0.5)
        source.close()
        assert [(name, fields["events"]) for name, fields in sink_reported if name == "events_unsent"] == [("events_unsent", 1)]
    finally:
        broker.remove()


def test_sasl_over_tls(
    kafka_module: ModuleType, open_source: Callable[..., tuple[KafkaSource, Reported]], open_sink: Callable[..., tuple[KafkaSink, Reported]]
) -> None:
    """The options reach the client: the right password and CA work, a wrong password and an unknown CA are different faults."""
    with kafka_module.Broker(secure=True) as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics({"t": {"num_partitions": 1}}, wait_for_metadata=True)
        admin.close()
        values = {
            "bootstrap_servers": broker.secure_bootstrap,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": kafka_module.USER,
            "sasl_plain_password": kafka_module.PASSWORD,
            "ssl_cafile": str(broker.ca_file),
            "bootstrap_timeout_ms": 2000,
        }
        right = KafkaOptions.from_mapping(values)
        sink, _ = open_sink("t", right)
        sink.send(event(0))
        sink.flush(PATIENCE_S)
        source, reported = open_source("t", right)
        values_read: list[bytes | None] = []
        while not values_read:
            values_read = poll_until(source, lambda: source.lag() == 0)
        assert values_read == [event(0).encode()]

        wrong_password = KafkaOptions.from_mapping(values | {"sasl_plain_password": "guess"})
        source, reported = open_source("t", wrong_password)
        # At times the client sees the connection close before it has read why: the next try sees it.
        poll_until(source, lambda: "kafka_refused" in dict(reported))
        todo = str(dict(reported)["kafka_refused"]["todo"])
        assert "check sasl_mechanism, sasl_plain_username and sasl_plain_password" in todo
        assert f"{broker.secure_bootstrap} does not know user 'dwcp'" in todo

        wrong_mechanism = KafkaOptions.from_mapping(values | {"sasl_mechanism": "SCRAM-SHA-256"})
        source, reported = open_source("t", wrong_mechanism)
        poll_until(source, lambda: "kafka_refused" in dict(reported))
        wanted = f"sasl_mechanism SCRAM-SHA-256 is not enabled at {broker.secure_bootstrap}"
        assert wanted in str(dict(reported)["kafka_refused"]["todo"])

        unknown_ca = KafkaOptions.from_mapping({name: value for name, value in values.items() if name != "ssl_cafile"})
        source, reported = open_source("t", unknown_ca)
        poll_until(source, lambda: "certificate verify failed" in str(reported))  # a slow handshake is no answer yet
        assert {name for name, _ in reported} == {"kafka_unreachable"}
        assert f"the certificate of {broker.secure_bootstrap} is not signed by an authority in ssl_cafile (not set)" in str(reported)

        plain = KafkaOptions.from_mapping({**values, "bootstrap_servers": broker.bootstrap})
        source, reported = open_source("t", plain)
        poll_until(source, lambda: f"{broker.bootstrap} does not speak TLS: security_protocol is SASL_SSL" in str(reported))
