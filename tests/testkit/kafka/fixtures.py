"""Fixtures of brokers and topics. A pytest plugin."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from kafka.admin import KafkaAdminClient

from testkit.kafka import broker
from testkit.kafka.broker import Broker
from testkit.kafka.cluster import Cluster


@pytest.fixture(scope="session")
def kafka_module() -> ModuleType:
    """testkit.kafka.broker, for tests that start brokers of their own. Skips the test if Java or Maven is missing."""
    try:
        broker.resolve_jars()
    except broker.UnavailableError as reason:
        if os.environ.get("CI") == "true":  # there, a test that silently does not run is a defect
            raise
        pytest.skip(str(reason))
    return broker


@pytest.fixture(scope="module")
def kafka_cluster(kafka_module: ModuleType) -> Iterator[Cluster]:  # noqa: ARG001 - skips without Java
    """Three brokers that the tests of a file share: each test leaves them running."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_broker(kafka_module: ModuleType) -> Iterator[Broker]:  # noqa: ARG001 - skips without Java
    """One Apache Kafka broker that all tests of a run share."""
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_broker(shared_broker: Broker) -> str:
    """Address of the shared broker. Each test uses topics and groups of its own."""
    return str(shared_broker.bootstrap)


@pytest.fixture(autouse=True)
def _broker_that_runs(request: pytest.FixtureRequest) -> None:
    """Start the shared broker again if it has died, so that only one test fails."""
    if "kafka_broker" in request.fixturenames and not (shared := request.getfixturevalue("shared_broker")).running:
        shared.start()


@pytest.fixture(scope="session")
def kafka_admin(kafka_broker: str) -> Iterator[KafkaAdminClient]:
    """An admin client of the shared broker."""
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    yield admin
    admin.close()


@pytest.fixture
def kafka_topic(kafka_admin: KafkaAdminClient) -> Callable[..., str]:
    """kafka_topic(partitions=1, configs={...}): create a topic on the shared broker and return its name, which no other test has."""

    def create(partitions: int = 1, configs: dict[str, str] | None = None) -> str:
        name = f"test.{uuid.uuid4().hex[:12]}"
        kafka_admin.create_topics({name: {"num_partitions": partitions, "configs": configs or {}}}, wait_for_metadata=True)
        return name

    return create


@pytest.fixture
def no_broker() -> Iterator[str]:
    """An address at which every connection is refused: bound and not listening, so that nobody else takes the port."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"
