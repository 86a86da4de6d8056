"""A daemon that was killed is known to its group: it goes on at once, and does not wait until the dead one's session ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from daemon.errors import StateError
from daemon.state.instance import instance_id

FIFTEEN_MINUTES = "[kafka.options]\nsession_timeout_ms = 900000\n"
"""Longer than any test may take (the broker allows no more than 30): whoever waits for it is never done."""


def record(second: int) -> bytes:
    return json.dumps({"timestamp": 1_764_000_000 + second, "node_id": "a", "peer_id": "b", "rtt_ms": 1.0}).encode()


def test_a_killed_daemon_has_its_partitions_again_at_once(
    run: Callable[..., Any], kafka_broker: str, kafka_topic: Callable[..., str]
) -> None:
    """Kill -9, and the next start does not wait for the session time-out of the dead member."""
    topic = kafka_topic(partitions=2)
    for _ in range(2):
        daemon = run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'", more=FIFTEEN_MINUTES)
        daemon.until(lambda daemon=daemon: daemon.reported("daemon_ready"))
        assert len(daemon.reported("partition_assigned")) == 2
        daemon.process.kill()
        daemon.process.wait()


def test_a_daemon_that_stops_leaves_its_group(
    run: Callable[..., Any], kafka_broker: str, kafka_topic: Callable[..., str], tmp_path: Path
) -> None:
    """After SIGTERM another daemon, with a state directory of its own, has the partitions at once."""
    topic = kafka_topic(partitions=2)
    daemon = run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'", more=FIFTEEN_MINUTES)
    daemon.until(lambda: len(daemon.reported("partition_assigned")) == 2)
    assert daemon.stop() == 0
    shutil.rmtree(tmp_path / "state")
    other = run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'", more=FIFTEEN_MINUTES)
    other.until(lambda: len(other.reported("partition_assigned")) == 2)


def test_a_daemon_whose_state_is_gone_says_where_it_goes_on(
    run: Callable[..., Any], kafka_broker: str, kafka_topic: Callable[..., str], tmp_path: Path
) -> None:
    """Only the committed offset of the group is left: earlier records are in no buffer any more, and that is reported."""
    topic = kafka_topic(partitions=1)
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for minute in range(20):
        producer.send(topic, record(minute))
    producer.flush()
    first = run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'")
    first.until(lambda: first.reported("daemon_ready"))
    first.until(lambda: 'dwcp_records_total{outcome="consumed"} 20.0' in first.get("/metrics")[1])
    assert first.stop() == 0
    assert not first.reported("records_passed_over")
    shutil.rmtree(tmp_path / "state")
    producer.send(topic, record(20))
    producer.close()
    second = run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'")
    second.until(lambda: second.reported("daemon_ready"))
    second.until(lambda: 'dwcp_records_total{outcome="consumed"} 1.0' in second.get("/metrics")[1])
    (passed,) = second.reported("records_passed_over")
    assert passed["before"] == 20


def test_a_copy_of_the_state_directory_is_noticed(
    run: Callable[..., Any], kafka_broker: str, kafka_topic: Callable[..., str], tmp_path: Path
) -> None:
    """Two daemons under one name: the group keeps one of them, and the other one reports whose name it has and what to do."""
    topic = kafka_topic(partitions=1)
    first = run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'")
    first.until(lambda: first.reported("partition_assigned"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "instance-main").write_text((tmp_path / "state" / "instance-main").read_text())
    run(kafka_broker, topic=topic, kafka_more=f"group_id = '{topic}'", more=f"[state]\ndirectory = '{tmp_path / 'copy'}'\n", log="second")
    assert first.ended() == 5
    assert "copy of this state directory" in first.log.read_text()


def test_the_name_is_kept_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    """The same name at every start; a torn file is a new name, not an error."""
    name = instance_id(tmp_path / "state", "main")
    assert instance_id(tmp_path / "state", "main") == name
    assert instance_id(tmp_path / "state", "other") != name
    (tmp_path / "state" / "instance-main").write_bytes(b"dwcp-main-\xff\x00")
    assert instance_id(tmp_path / "state", "main") not in (name, "")


def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="cannot be written"):
        instance_id(tmp_path / "state", "main")
