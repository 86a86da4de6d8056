"""Brokers and topics fail while a real daemon reads from three real brokers: it goes on, or stops and reports why.

No valid record is lost without a report, and none counts twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from testkit.scene import PARTITIONS, Scene, Writer


@pytest.fixture(scope="module")
def flows(kafka_cluster: Any, tmp_path_factory: pytest.TempPathFactory, renewed: Any) -> Iterator[Any]:
    @contextmanager
    def start() -> Iterator[Any]:
        topic = _topic(kafka_cluster)
        with Scene(tmp_path_factory.mktemp("flowing"), kafka_cluster.bootstrap, topic, f"{topic}.flowing") as scene:
            scene.start()
            scene.daemon.until(scene.ready)
            yield scene, Writer(kafka_cluster.bootstrap, topic)

    with renewed(start) as made:
        yield made


@pytest.fixture
def whole_cluster(kafka_cluster: Any) -> Any:
    """The cluster, with brokers started again that an earlier test has stopped or killed."""
    kafka_cluster.start()
    return kafka_cluster


@pytest.fixture
def flowing(flows: Any, whole_cluster: Any, request: pytest.FixtureRequest) -> Iterator[Any]:  # noqa: ARG001 - it comes first
    """A daemon that runs through all faults that it has to survive, and its writer. A new one after a failed test."""
    with flows.of(request.node, lambda made: made[0].daemon.process.poll() is None) as made:
        yield made


@pytest.fixture
def twins(whole_cluster: Any, tmp_path: Path) -> Iterator[Any]:
    """Two daemons of one topic, each in a group of its own, and the writer. One runs during the fault, the other is stopped."""
    topic = _topic(whole_cluster)
    groups = [f"{topic}.{name}" for name in ("running", "stopped")]
    with ExitStack() as stack:
        made = [stack.enter_context(Scene(tmp_path / group, whole_cluster.bootstrap, topic, group)) for group in groups]
        yield *made, Writer(whole_cluster.bootstrap, topic)


def _topic(cluster: Any) -> str:
    topic = f"test.{uuid.uuid4().hex[:8]}"
    cluster.create(topic, PARTITIONS)
    return topic


def settled(scene: Any, writer: Any) -> None:
    """Check that all acknowledged records are in the buffer once, nothing was read twice, and the daemon is ready."""
    scene.until_it_holds(writer.sent)
    scene.daemon.until(scene.ready)
    counted = scene.counted()
    assert (counted["accepted"], counted["duplicate"], counted["late"]) == (len(writer.sent), 0, 0)
    assert not scene.daemon.reported("records_lost")


def test_an_aborted_transaction(flowing: Any) -> None:
    """Records of an aborted transaction never enter the buffer, committed ones do."""
    scene, writer = flowing
    for commit in (True, False, True):
        writer.transaction(30, commit)
    settled(scene, writer)


def test_a_broker_that_is_restarted_in_order(kafka_cluster: Any, flowing: Any) -> None:
    """One of three brokers stops and returns while records flow: the daemon goes on."""
    scene, writer = flowing
    with writer:
        kafka_cluster.stop(2)
        writer.flow(200)
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
            writer.flow(60)
    settled(scene, writer)


def test_a_leader_that_is_killed(kafka_cluster: Any, flowing: Any) -> None:
    """The leading broker dies as in a power cut: another one leads, and the daemon goes on."""
    scene, writer = flowing
    kafka_cluster.await_replicas(scene.topic)
    with writer:
        leader = kafka_cluster.await_leader(scene.topic)
        kafka_cluster.kill(leader)
        kafka_cluster.await_leader(scene.topic, other_than=leader)
    kafka_cluster.start(leader)
    settled(scene, writer)


def test_all_brokers_that_are_down(kafka_cluster: Any, flowing: Any) -> None:
    """No broker answers for a while: the daemon reports that it is not ready, and goes on when they are back."""
    scene, writer = flowing
    kafka_cluster.await_replicas(scene.topic)
    with writer:
        writer.flow(100)
        kafka_cluster.kill()
        scene.daemon.until(lambda: not scene.ready())
        scene.daemon.until(lambda: scene.daemon.reported("kafka_unreachable"))
        assert scene.daemon.get("/livez")[0] == 200
        kafka_cluster.start()
    writer.write(200)
    settled(scene, writer)


def stopped(cluster: Any, scene: Any) -> str:
    """Wait until the daemon has ended with the exit code of a failed source, and return its last message.

    It has left its group, so that the next start does not wait for a session time-out.
    """
    code, words = scene.ended()
    assert code == 5, words
    assert "accept_lost_records = true" in words
    with cluster.admin() as admin:
        assert admin.describe_groups([scene.group])[scene.group]["members"] == []
    return str(words)


def go_on(scenes: list[Any], rows: list[Any]) -> Iterator[list[tuple[Any, ...]]]:
    """Start both daemons as an operator who accepts the loss, and yield what each reports when exactly these rows are in its buffer."""
    for scene in scenes:
        scene.start(accept_lost_records=True)
    for scene in scenes:
        scene.until_it_holds(rows)
        reported = scene.daemon.reported("records_lost")
        assert f'dwcp_events_total{{event="records_lost"}} {len(reported)}.0\n' in scene.daemon.get("/metrics")[1]
        scene.stop()
        yield sorted((gap["partition"][-2:], gap["wanted_offset"], gap["next_offset"], gap["cause"]) for gap in reported)


def test_records_that_retention_has_deleted(kafka_cluster: Any, twins: Any) -> None:
    """The next records were deleted while the daemon was away.

    It stops, and names the offset that it wants and the first that exists. It goes on there when that is accepted.
    """
    _, scene, writer = twins
    scene.start()
    rows = list(writer.write(240))
    scene.until_it_holds(rows)
    scene.stop()
    rows += writer.write(240)[120:]
    with kafka_cluster.admin() as admin:
        admin.delete_records({TopicPartition(scene.topic, 0): 180, TopicPartition(scene.topic, 1): 180})
    scene.start()
    words = stopped(kafka_cluster, scene)
    assert f"offset 120 of {scene.topic}-" in words
    assert "holds 180 to 240 now (deleted by retention)" in words
    assert list(go_on([scene], rows)) == [[(f"-{partition}", 120, 180, "deleted by retention") for partition in (0, 1)]]


def test_a_topic_that_was_created_anew(kafka_cluster: Any, twins: Any) -> None:
    """The topic is deleted and created again under its name, and already holds more records than were read.

    The daemon does not go on in the middle, whether it was running or not. When that is accepted, it reads the new topic from its first
    record, and keeps what it has of the old one.
    """
    running, away, writer = twins
    scenes = [running, away]
    for scene in scenes:
        scene.start()
    rows = list(writer.write(240))
    for scene in scenes:
        scene.until_it_holds(rows)
    away.stop()
    with kafka_cluster.admin() as admin:
        admin.delete_topics([running.topic])
    kafka_cluster.create_when_gone(running.topic, 2)
    rows += writer.write(480)
    away.start()
    for scene in scenes:
        assert f"topic {scene.topic} was created anew" in stopped(kafka_cluster, scene)
    for reported in go_on(scenes, rows):
        assert reported == [(f"-{partition}", 120, 0, "the topic was created anew") for partition in (0, 1)]


def test_a_log_that_was_cut_back(kafka_cluster: Any, twins: Any) -> None:
    """An unclean leader election makes a replica without the last records the leader, and more records are written at their offsets.

    The daemon notices it by the leader epoch, whether it was running or not. When that is accepted, it reads the new records too.
    """
    running, away, writer = twins
    scenes = [running, away]
    kafka_cluster.alter(running.topic, {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"})
    for scene in scenes:
        scene.start()
    rows = list(writer.write(120))
    kafka_cluster.await_replicas(running.topic)
    for partition in (0, 1):
        kafka_cluster.move_leader(running.topic, partition, 1)
    kafka_cluster.kill(2, 3)
    rows += writer.write(120)
    for scene in scenes:
        scene.until_it_holds(rows)
    away.stop()
    kafka_cluster.kill(1)
    kafka_cluster.start(2, 3)
    kafka_cluster.elect_unclean(running.topic)
    rows += writer.write(240)
    kafka_cluster.start(1)
    away.start()
    for scene in scenes:
        assert "was cut back to offset 60: it was read to 120" in stopped(kafka_cluster, scene)
    for reported in go_on(scenes, rows):
        assert reported == [(f"-{partition}", 120, 60, "the log was cut back") for partition in (0, 1)]
