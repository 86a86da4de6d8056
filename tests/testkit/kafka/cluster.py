"""Three brokers of Apache Kafka and a controller on loopback, for tests that stop, kill and damage single brokers.

Every topic has three replicas, of which two must have a record (min.insync.replicas), as in production. The controller is a process of its
own: otherwise two brokers that are down would stop the third one.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from testkit.kafka.broker import SERVER_PROPERTIES, Node, free_port, new_cluster_id

SIZE = 3
HEAP_MB = 256
PATIENCE_S = 300.0  # seconds for what takes a few on an idle machine
PREFERRED, UNCLEAN = 0, 1
CONTROLLER = """\
process.roles=controller
node.id={node}
controller.quorum.voters={voter}
listeners=CONTROLLER://127.0.0.1:{port}
broker.session.timeout.ms=3000
"""
"""A broker that was killed is noticed within 3 s."""
BROKER = """\
process.roles=broker
node.id={node}
controller.quorum.voters={voter}
listeners=PLAINTEXT://127.0.0.1:{port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
broker.heartbeat.interval.ms=500
auto.leader.rebalance.enable=false
auto.create.topics.enable=false
"""
"""Leaders move when a test says so, not by themselves."""


class Cluster:
    """Brokers 1 to 3. Their ports stay the same, and `bootstrap` names all three."""

    def __init__(self) -> None:
        cluster, port = new_cluster_id(), free_port()
        voter = f"100@127.0.0.1:{port}"
        text = (SERVER_PROPERTIES + CONTROLLER).replace("{folder}", "{{folder}}")
        self.controller = Node(port, text.format(node=100, voter=voter, port=port), cluster=cluster, heap_mb=HEAP_MB)
        text = (SERVER_PROPERTIES + BROKER).replace("{folder}", "{{folder}}")
        self.brokers: dict[int, Node] = {}
        for number in range(1, SIZE + 1):
            port = free_port()
            properties = text.format(node=number, voter=voter, port=port)
            self.brokers[number] = Node(port, properties, cluster=cluster, heap_mb=HEAP_MB)
        self.bootstrap = ",".join(f"127.0.0.1:{node.port}" for node in self.brokers.values())

    def start(self, *numbers: int) -> None:
        """Start brokers that are down (default: all) at the same time, and wait until they answer."""
        down = [self.brokers[number] for number in numbers or self.brokers if not self.brokers[number].running]
        if not self.controller.running:
            down.insert(0, self.controller)
        for node in down:
            node.launch()
        for node in down:
            node.await_start()

    def stop(self, *numbers: int) -> None:
        """Stop brokers in order: each hands its leaders over first, if another broker can have them."""
        for number in numbers or self.brokers:
            self.brokers[number].stop()

    def kill(self, *numbers: int) -> None:
        """Kill brokers at once, as a power cut does."""
        for number in numbers or self.brokers:
            self.brokers[number].kill()

    def create(self, topic: str, partitions: int = 1, configs: dict[str, str] | None = None, replicas: list[int] | None = None) -> None:
        """Create a topic. replicas: brokers of each partition, the first one its preferred leader; default: all, distributed."""
        order = [list(self.brokers)[number % SIZE :] + list(self.brokers)[: number % SIZE] for number in range(partitions)]
        assignment = {number: replicas or order[number] for number in range(partitions)}
        with self.admin() as admin:
            admin.create_topics({topic: {"assignments": assignment, "configs": configs or {}}}, wait_for_metadata=True)

    def create_when_gone(self, topic: str, partitions: int) -> None:
        """Create a topic again that is being deleted."""

        def gone() -> bool:
            with self.admin() as admin:
                return topic not in admin.list_topics()

        self._until(gone, f"{topic} is still there")
        self.create(topic, partitions)

    def alter(self, topic: str, configs: dict[str, str]) -> None:
        with self.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])

    def elect_unclean(self, topic: str) -> None:
        """Make replicas with missing records leaders, because the complete ones are down."""

        def elected() -> bool:
            with self.admin() as admin:
                admin.elect_leaders(UNCLEAN, {topic: list(self.leaders(topic))}, raise_errors=False)
            return all(leader != -1 for leader in self.leaders(topic).values())

        self._until(elected, f"{topic} has no leader")

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leading broker of each partition; -1 if there is none."""
        return {number: part["leader_id"] for number, part in self._partitions(topic).items()}

    def move_leader(self, topic: str, partition: int, to: int) -> None:
        """Make a replica the preferred leader of its partition, and wait until it leads."""
        replicas = self._partitions(topic)[partition]["replica_nodes"]
        order = [to, *(number for number in replicas if number != to)]
        with self.admin() as admin:
            admin.alter_partition_reassignments({TopicPartition(topic, partition): order})
            self._until(lambda: self._partitions(topic)[partition]["replica_nodes"][0] == to, f"broker {to} is not preferred")
            admin.elect_leaders(PREFERRED, {topic: [partition]}, raise_errors=False)
        self._until(lambda: self.leaders(topic)[partition] == to, f"broker {to} does not lead {topic}-{partition}")

    def await_replicas(self, topic: str, count: int = SIZE) -> None:
        """Wait until each partition has this many replicas in sync."""
        self._until(lambda: all(len(part["isr_nodes"]) >= count for part in self._partitions(topic).values()), f"{topic} lags behind")

    def await_leader(self, topic: str, partition: int = 0, other_than: int = -1) -> int:
        """Wait until a partition has a leader, other than `other_than`, and return it."""
        found = self._until(
            lambda: (leader := self.leaders(topic)[partition]) not in (-1, other_than) and leader, f"{topic}-{partition} has no leader"
        )
        return int(found)

    def delete_log(self, number: int, topic: str) -> None:
        """Delete the data of a topic on a broker that is down, as on a replaced disk."""
        assert not self.brokers[number].running
        for folder in (self.brokers[number].folder / "data").glob(f"{topic}-*"):
            shutil.rmtree(folder)

    def admin(self) -> Any:
        """Return an admin client as a context manager."""
        return _Admin(",".join(f"127.0.0.1:{node.port}" for node in self.brokers.values() if node.running))

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for node in (*self.brokers.values(), self.controller):
            node.remove()

    def _partitions(self, topic: str) -> dict[int, dict[str, Any]]:
        with self.admin() as admin:
            (found,) = admin.describe_topics([topic])
        return {part["partition_index"]: part for part in found["partitions"]}

    def _until(self, condition: Any, problem: str) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            with suppress(KafkaError):  # a broker that was killed is still asked for a while
                if value := condition():
                    return value
            assert time.monotonic() < deadline_s, problem
            time.sleep(0.1)


class _Admin:
    """An admin client for a few requests. Brokers come and go, and a new client knows the present ones."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def __enter__(self) -> KafkaAdminClient:
        self._client = KafkaAdminClient(bootstrap_servers=self._bootstrap)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
