"""Faults of brokers and topics, the long form of tests/system/test_broker_faults.py: what became of the records after each of them.

    make bench-broker_faults        (or: python benchmarks/broker_faults.py --quick)

Three brokers of Apache Kafka with three replicas of every topic, `dwcp-learner run` as a process, and a producer that keeps writing. After
each fault all acknowledged rows are looked up in the segments that the newest checkpoint names. One line for each fault shows whether the
daemon went on, or stopped (exit code 5, with a message that names what to do) and went on after the loss was accepted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from kafka import TopicPartition

from harness import Bar, arguments, report, say
from testkit.kafka.cluster import SIZE, Cluster
from testkit.scene import PARTITIONS, Scene, Writer

BROKERS: Final = tuple(range(1, SIZE + 1))


@dataclass(frozen=True)
class Length:
    """Length of the faults.

    Args:
        down_s: seconds for which brokers are down.
        rounds: repetitions.
    """

    down_s: float
    rounds: int


@dataclass(frozen=True)
class Outcome:
    """What became of the records after a fault.

    Args:
        lost: acknowledged rows that are missing without a report.
        duplicated: rows that are in the buffer twice, or were read twice.
    """

    fault: str
    outcome: str
    rows: int
    lost: int
    duplicated: int
    seconds: float


def goes_on(cluster: Cluster, folder: Path, length: Length) -> list[Outcome]:
    """Run the faults that the daemon survives by itself, one after another while it runs."""
    topic = "goes-on"
    cluster.create(topic, PARTITIONS)
    with Scene(folder, cluster.bootstrap, topic, topic) as scene:
        writer = Writer(cluster.bootstrap, topic)
        daemon = scene.start()
        daemon.until(scene.ready)
        faults: dict[str, Callable[[], None]] = {
            "transactions that are aborted": lambda: _transactions(writer, length),
            "every broker restarted in order": lambda: _restarts(cluster, writer, topic, length),
            "leaders that move": lambda: _moves(cluster, writer, topic, length),
            "leaders that are killed": lambda: _kills(cluster, writer, topic, length),
            f"all brokers down for {length.down_s:g} s": lambda: _all_down(cluster, scene, writer, length),
        }
        found = []
        for name, fault in faults.items():
            began_s = time.monotonic()
            fault()
            missing, extra = scene.settled(writer.sent)
            counted = scene.counted()
            twice = max(0, counted["consumed"] - len(writer.sent))
            unready = "" if scene.ready() else ", and is not ready"
            found.append(_logged(Outcome(name, f"goes on{unready}", len(writer.sent), missing, extra + twice, time.monotonic() - began_s)))
        scene.stop()
    return found


def _transactions(writer: Writer, length: Length) -> None:
    for at in range(5 * length.rounds):
        writer.transaction(50, commit=at % 2 == 0)


def _restarts(cluster: Cluster, writer: Writer, topic: str, length: Length) -> None:
    with writer:
        for number in BROKERS * length.rounds:
            cluster.stop(number)
            time.sleep(2.0)
            cluster.start(number)
            cluster.await_replicas(topic)


def _moves(cluster: Cluster, writer: Writer, topic: str, length: Length) -> None:
    with writer:
        for to in BROKERS * 2 * length.rounds:
            for partition in range(PARTITIONS):
                cluster.move_leader(topic, partition, to)


def _kills(cluster: Cluster, writer: Writer, topic: str, length: Length) -> None:
    with writer:
        for _ in range(2 * length.rounds):
            leader = cluster.await_leader(topic)
            cluster.kill(leader)
            cluster.await_leader(topic, other_than=leader)
            time.sleep(2.0)
            cluster.start(leader)
            cluster.await_replicas(topic)


def _all_down(cluster: Cluster, scene: Scene, writer: Writer, length: Length) -> None:
    daemon = scene.daemon
    assert daemon is not None
    with writer:
        time.sleep(1.0)
        cluster.kill()
        time.sleep(length.down_s)
        assert not scene.ready(), "it is ready without a broker"
        assert daemon.get("/livez")[0] == 200
        cluster.start()
        began_s = time.monotonic()
        daemon.until(scene.ready)
        say(f"ready again {time.monotonic() - began_s:.1f} s after the brokers")
        time.sleep(1.0)
    writer.write(500)


def stops(cluster: Cluster, folder: Path, fault: str, break_it: Callable[[Scene, Writer], list[Any]], running: bool) -> Outcome:
    """Run a fault that removes or replaces the next records: the daemon stops, and goes on when the loss is accepted.

    Args:
        break_it: causes the fault and returns the rows that can be read after it.
        running: whether the daemon runs during the fault.
    """
    began_s = time.monotonic()
    topic = f"stops-{folder.name}"
    cluster.create(topic, PARTITIONS, {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"})
    with Scene(folder, cluster.bootstrap, topic, topic) as scene:
        writer = Writer(cluster.bootstrap, topic)
        scene.start()
        rows = list(writer.write(1_200))
        scene.until_it_holds(rows)
        if not running:
            scene.stop()
        rows += break_it(scene, writer)
        if not running:
            scene.start()
        code, words = scene.ended()
        stopped = code == 5 and "accept_lost_records = true" in words
        daemon = scene.start(accept_lost_records=True)
        missing, extra = scene.settled(rows)
        reported = bool(daemon.reported("records_lost"))
        scene.stop()
    outcome = "stops and says why, goes on when accepted" if stopped and reported else f"exit code {code}: {words}"
    return _logged(
        Outcome(f"{fault}, {'running' if running else 'stopped'}", outcome, len(rows), missing, extra, time.monotonic() - began_s)
    )


def _retention(cluster: Cluster, scene: Scene, writer: Writer) -> list[Any]:
    rows = writer.write(1_200)
    with cluster.admin() as admin:
        admin.delete_records({TopicPartition(scene.topic, partition): 900 for partition in range(PARTITIONS)})
    return rows[600:]


def _created_anew(cluster: Cluster, scene: Scene, writer: Writer) -> list[Any]:
    with cluster.admin() as admin:
        admin.delete_topics([scene.topic])
    cluster.create_when_gone(scene.topic, PARTITIONS)
    return writer.write(2_400)


def _cut_back(cluster: Cluster, scene: Scene, writer: Writer) -> list[Any]:
    """Broker 1 has records that the others miss. It leaves, and the others write other records at the same offsets."""
    cluster.await_replicas(scene.topic)
    for partition in range(PARTITIONS):
        cluster.move_leader(scene.topic, partition, 1)
    cluster.kill(2, 3)
    rows = writer.write(600)
    if scene.daemon is not None and scene.daemon.process.poll() is None:
        scene.settled(writer.sent)
    else:  # it has to have read them
        scene.start()
        scene.settled(writer.sent)
        scene.stop()
    cluster.kill(1)
    cluster.start(2, 3)
    cluster.elect_unclean(scene.topic)
    rows += writer.write(1_200)
    cluster.start(1)
    return rows


def _logged(outcome: Outcome) -> Outcome:
    what = f"{outcome.rows} rows, {outcome.lost} lost, {outcome.duplicated} duplicated"
    say(f"{outcome.fault}: {outcome.outcome} ({what}, {outcome.seconds:.0f} s)")
    return outcome


def main() -> int:
    options = arguments(__doc__)
    length = Length(down_s=5.0, rounds=1) if options.quick else Length(down_s=60.0, rounds=options.rounds)
    with Cluster() as cluster, tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        found = goes_on(cluster, Path(name) / "goes-on", length)
        faults = {"records deleted by retention": _retention, "topic created anew": _created_anew, "log cut back": _cut_back}
        for at, (fault, break_it) in enumerate(faults.items()):
            for running in (False,) if break_it is _retention else (False, True):
                found.append(stops(cluster, Path(name) / f"{at}-{running}", fault, partial(break_it, cluster), running))
    defined = sum(outcome.outcome.startswith(("goes on", "stops and says why")) for outcome in found)
    figures = {
        "faults": len(found),
        "undefined": len(found) - defined,
        "lost": sum(outcome.lost for outcome in found),
        "duplicated": sum(outcome.duplicated for outcome in found),
        "rows": sum(outcome.rows for outcome in found),
        "outcomes": [{"fault": outcome.fault, "outcome": outcome.outcome} for outcome in found],
    }
    return report("broker_faults", figures, [Bar(name, figures[name], "<=", 0) for name in ("undefined", "lost", "duplicated")])


if __name__ == "__main__":
    sys.exit(main())
