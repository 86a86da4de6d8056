"""Brokers and topics fail while a real daemon reads from three real brokers: it goes on, or it stops and says why. No valid record is lost
without being told, and none counts twice."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

Scenes = Callable[..., Any]


@pytest.fixture(scope="module")
def flowing(kafka_cluster: Any, broker_faults: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A daemon that runs through all faults that it has to go on from, and its writer."""
    scene, writer = _scene(kafka_cluster, broker_faults, tmp_path_factory.mktemp("flowing"))
    scene.start()
    scene.daemon.until(scene.ready)
    yield scene, writer
    scene.daemon.process.kill()
    scene.daemon.process.wait()


@pytest.fixture
def scene(kafka_cluster: Any, broker_faults: Any, tmp_path: Path) -> Iterator[Any]:
    """A scene of its own, with its writer: scene, writer."""
    made, writer = _scene(kafka_cluster, broker_faults, tmp_path)
    yield made, writer
    if made.daemon is not None:
        made.daemon.process.kill()
        made.daemon.process.wait()


def _scene(cluster: Any, broker_faults: Any, folder: Path) -> tuple[Any, Any]:
    topic = f"test.{uuid.uuid4().hex[:8]}"
    cluster.create(topic, broker_faults.PARTITIONS)
    return broker_faults.Scene(folder, cluster.bootstrap, topic), broker_faults.Writer(cluster.bootstrap, topic)


def settled(scene: Any, writer: Any) -> None:
    """All that was acknowledged is in the buffer once, nothing was read twice, and the daemon is ready."""
    scene.until_it_holds(writer.sent)
    scene.daemon.until(scene.ready)
    counted = scene.counted()
    assert (counted["accepted"], counted["duplicate"], counted["late"]) == (len(writer.sent), 0, 0)
    assert not scene.daemon.told("records_lost")


def test_an_aborted_transaction(flowing: Any) -> None:
    """What a producer took back never enters the buffer; what it committed does."""
    scene, writer = flowing
    for commit in (True, False, True):
        writer.transaction(30, commit)
    settled(scene, writer)


def test_a_broker_that_is_restarted_in_order(kafka_cluster: Any, flowing: Any) -> None:
    """One of three is stopped and comes back while records flow: the daemon goes on."""
    scene, writer = flowing
    with writer:
        kafka_cluster.stop(2)
        time.sleep(1.0)
        kafka_cluster.start(2)
    settled(scene, writer)


def test_leaders_that_move(kafka_cluster: Any, flowing: Any) -> None:
    """The leaders of both partitions move to another broker and back while records flow: the daemon goes on."""
    scene, writer = flowing
    kafka_cluster.await_replicas(scene.topic)
    with writer:
        for to in (3, 2, 1):
            for partition in (0, 1):
                kafka_cluster.move_leader(scene.topic, partition, to)
            time.sleep(0.3)
    settled(scene, writer)


def test_a_leader_that_is_killed(kafka_cluster: Any, flowing: Any) -> None:
    """The broker that leads dies as in a power cut: another one takes over, and the daemon goes on."""
    scene, writer = flowing
    kafka_cluster.await_replicas(scene.topic)
    with writer:
        leader = kafka_cluster.await_leader(scene.topic)
        kafka_cluster.kill(leader)
        kafka_cluster.await_leader(scene.topic, other_than=leader)
    kafka_cluster.start(leader)
    settled(scene, writer)


def test_all_brokers_that_are_down(kafka_cluster: Any, flowing: Any) -> None:
    """No broker answers for a while: the daemon is not ready and says so, and goes on when they are back."""
    scene, writer = flowing
    kafka_cluster.await_replicas(scene.topic)
    with writer:
        kafka_cluster.kill()
        scene.daemon.until(lambda: not scene.ready())
        scene.daemon.until(lambda: scene.daemon.told("kafka_unreachable"))
        assert scene.daemon.get("/livez")[0] == 200
        kafka_cluster.start()
    settled(scene, writer)


def stopped(scene: Any) -> str:
    """What it said when it ended with the exit code of a source that cannot give records."""
    code, words = scene.ended()
    assert code == 5, words
    assert "accept_lost_records = true" in words
    return str(words)


def goes_on(scene: Any, rows: list[Any]) -> list[dict[str, Any]]:
    """Started again by an operator who accepts the loss; what it tells of that, when exactly these rows are in the buffer."""
    scene.start(accept_lost_records=True)
    scene.until_it_holds(rows)
    told = scene.daemon.told("records_lost")
    assert scene.daemon.get("/metrics")[1].count(f'dwcp_events_total{{event="records_lost"}} {len(told)}.0') == 1
    scene.stop()
    return list(told)


def read_once(scene: Any, writer: Any, count: int) -> list[Any]:
    """A first run that has all that is there in its checkpoint, and is stopped."""
    scene.start()
    rows = list(writer.write(count))
    scene.until_it_holds(rows)
    scene.stop()
    return rows


def test_records_that_retention_has_deleted(kafka_cluster: Any, scene: Any) -> None:
    """The next records were deleted while the daemon was away: it stops, names the offset that it wants and the first that is held, and
    goes on from there when that is accepted."""
    scene, writer = scene
    rows = read_once(scene, writer, 240)
    rows += writer.write(240)[120:]
    with kafka_cluster.admin() as admin:
        admin.delete_records({TopicPartition(scene.topic, 0): 180, TopicPartition(scene.topic, 1): 180})
    scene.start()
    words = stopped(scene)
    assert f"offset 120 of {scene.topic}-" in words
    assert "holds 180 to 240 now (deleted by retention)" in words
    told = goes_on(scene, rows)
    assert sorted((gap["partition"], gap["wanted_offset"], gap["next_offset"]) for gap in told) == [
        (f"{scene.topic}-{partition}", 120, 180) for partition in (0, 1)
    ]


@pytest.mark.parametrize("running", [True, False])
def test_a_topic_that_was_created_anew(kafka_cluster: Any, scene: Any, running: bool) -> None:
    """The topic is deleted and created again under its name, and already holds more records than were read: the daemon does not read on
    from the middle, whether it was running or not. When that is accepted it reads the new topic from its first record, and keeps what it
    has of the old one."""
    scene, writer = scene
    if running:
        scene.start()
        rows = list(writer.write(240))
        scene.until_it_holds(rows)
    else:
        rows = read_once(scene, writer, 240)
    with kafka_cluster.admin() as admin:
        admin.delete_topics([scene.topic])
    kafka_cluster.create_when_gone(scene.topic, 2)
    rows += writer.write(480)
    if not running:
        scene.start()
    assert f"topic {scene.topic} was created anew" in stopped(scene)
    told = goes_on(scene, rows)
    assert [(gap["wanted_offset"], gap["next_offset"], gap["cause"]) for gap in told] == [(120, 0, "the topic was created anew")] * 2


@pytest.mark.parametrize("running", [True, False])
def test_a_log_that_was_cut_back(kafka_cluster: Any, scene: Any, running: bool) -> None:
    """An unclean leader election makes a replica the leader that misses the last records, and others are written under their offsets,
    more than there were: the daemon notices it by the leader epoch. When that is accepted it reads the new ones too."""
    scene, writer = scene
    kafka_cluster.alter(scene.topic, {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"})
    scene.start()
    rows = list(writer.write(120))
    kafka_cluster.await_replicas(scene.topic)
    for partition in (0, 1):
        kafka_cluster.move_leader(scene.topic, partition, 1)
    kafka_cluster.kill(2, 3)
    rows += writer.write(120)
    scene.until_it_holds(rows)
    if not running:
        scene.stop()
    kafka_cluster.kill(1)
    kafka_cluster.start(2, 3)
    kafka_cluster.elect_unclean(scene.topic)
    rows += writer.write(240)
    kafka_cluster.start(1)
    if not running:
        scene.start()
    words = stopped(scene)
    assert "was cut back to offset 60: it was read to 120" in words
    told = goes_on(scene, rows)
    assert [(gap["wanted_offset"], gap["next_offset"], gap["cause"]) for gap in told] == [(120, 60, "the log was cut back")] * 2
