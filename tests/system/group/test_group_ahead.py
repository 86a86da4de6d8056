"""A partition that returns to a member with an old checkpoint of it, because a member with another state directory has read on.

Nothing is read twice, and it is reported. A state that is old for another reason is read again, as it has to be.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from daemon.state.instance import state_id

START_S = 1_790_000_000.0
Daemon = Callable[[str], Any]


@pytest.fixture
def topic(kafka_topic: Callable[..., str]) -> str:
    """A topic of one partition."""
    return kafka_topic()


@pytest.fixture
def write(kafka_broker: str, topic: str) -> Callable[[], None]:
    """Write the next hundred rows of one link."""
    minutes = iter(range(10_000))

    def produce() -> None:
        producer = KafkaProducer(bootstrap_servers=kafka_broker)
        for _ in range(100):
            row = {"timestamp": START_S + 60 * next(minutes), "node_id": "a", "peer_id": "b", "rtt_ms": 20.0}
            producer.send(topic, json.dumps(row).encode(), key=b"a")
        producer.flush()
        producer.close()

    return produce


@pytest.fixture
def member(run: Callable[..., Any], kafka_broker: str, topic: str, tmp_path: Path) -> Daemon:
    """member("one"): start a daemon of the group with a state directory of this name."""
    logs = iter(range(100))

    def start(name: str) -> Any:
        more = f"[state]\ndirectory = '{tmp_path / name}'\n[models]\ndirectory = '{tmp_path / name}/models'\n"
        return run(kafka_broker, log=f"{name}-{next(logs)}", topic=topic, kafka_more=f"group_id = '{topic}'", more=more)

    return start


def takes(daemon: Any, rows: int) -> None:
    """Wait until it has read exactly this many records, and stop it in order."""
    wanted = f'dwcp_records_total{{outcome="accepted"}} {rows}.0'
    daemon.until(lambda: daemon.reported("daemon_ready"))
    daemon.until(lambda: wanted in daemon.get("/metrics")[1] and "\ndwcp_lag_records 0.0\n" in daemon.get("/metrics")[1])
    assert daemon.stop() == 0


def committed(admin: KafkaAdminClient, topic: str) -> int:
    return int(admin.list_group_offsets({topic: None})[topic][TopicPartition(topic, 0)].offset)


def test_records_of_another_state_directory_are_not_read_twice(
    member: Daemon, write: Callable[[], None], topic: str, kafka_admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """The returning member goes on where the other one ended, and names it.

    Its own checkpoints do not go back: a restart goes on there.
    """
    for name in ("one", "other"):
        write()
        takes(member(name), 100)
    write()
    back = member("one")
    takes(back, 100)
    (reported,) = back.reported("group_ahead")
    assert (reported["checkpoint_offset"], reported["committed_offset"], reported["next_offset"]) == (100, 200, 200)
    assert reported["committed_by"] == f"state directory {state_id(tmp_path / 'other')}"
    assert "share one state directory" in reported["todo"]
    assert committed(kafka_admin, topic) == 300
    write()
    again = member("one")
    takes(again, 100)
    assert not again.reported("group_ahead")


def test_a_state_that_comes_from_a_copy_is_read_again(
    member: Daemon, write: Callable[[], None], topic: str, kafka_admin: KafkaAdminClient, tmp_path: Path
) -> None:
    """Its own later checkpoints are gone with their rows: they are read again, and the reason is reported."""
    write()
    takes(member("one"), 100)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    write()
    takes(member("one"), 100)
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "copy").rename(tmp_path / "one")
    back = member("one")
    takes(back, 100)
    (reported,) = back.reported("group_ahead")
    assert (reported["committed_by"], reported["next_offset"]) == ("this state directory", 100)
    assert committed(kafka_admin, topic) == 200


def test_offsets_that_somebody_has_set_forward(
    member: Daemon, write: Callable[[], None], topic: str, kafka_admin: KafkaAdminClient
) -> None:
    """The checkpoint counts, as before. It is reported, with what to do if that was not intended."""
    write()
    takes(member("one"), 100)
    write()
    kafka_admin.alter_group_offsets(topic, {TopicPartition(topic, 0): OffsetAndMetadata(150, "", -1)})
    back = member("one")
    takes(back, 100)
    (reported,) = back.reported("group_ahead")
    assert (reported["committed_by"], reported["next_offset"]) == ("an unknown member", 100)
    assert "empty state directory" in reported["todo"]


def test_the_name_of_a_state_directory(tmp_path: Path) -> None:
    """It stays, all members of the directory have it, and a damaged one is made anew."""
    name = state_id(tmp_path / "state")
    assert state_id(tmp_path / "state") == name
    assert state_id(tmp_path / "other") != name
    (tmp_path / "state" / "name").write_bytes(b"\xff")
    assert state_id(tmp_path / "state") not in (name, "")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["name"]
