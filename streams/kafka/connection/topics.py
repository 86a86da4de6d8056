"""The topics that the daemon needs: whether they exist and may be used, and the commands that create them.

A broker is asked about the topics and about this user's rights to them. Nothing is created here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors

from streams.kafka.connection.advice import Failure
from streams.kafka.connection.client import NotConnectedError, connecting, unreachable
from streams.kafka.connection.options import KafkaOptions

CONNECT_TIMEOUT_S: Final = 5.0
"""Seconds for TLS, SASL and the first answer. There is a TCP connection already."""
_DAY_MS: Final = 86_400_000
_REPLICAS: Final = 3
"""Copies of a partition, so that one broker may fail while another is restarted. A smaller cluster has as many as brokers."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, the right that is needed, and how to create it.

    Args:
        name: Of the topic.
        right: What this user must be allowed to do.
        partitions: At most this many daemons can share telemetry. Events are few, and in order in one partition.
        configs: Of the topic, if the defaults of the cluster are not right.
    """

    name: str
    right: Literal["READ", "WRITE"]
    partitions: int = 1
    configs: Mapping[str, str] = field(default_factory=dict)

    def create_command(self, servers: str, replicas: int = _REPLICAS) -> str:
        """Return the command that creates the topic.

        Args:
            servers: Addresses of the cluster.
            replicas: Copies of each partition.
        """
        configs = "".join(f" --config {name}={value}" for name, value in self.configs.items())
        how = f"--partitions {self.partitions} --replication-factor {replicas}{configs}"
        return f"kafka-topics.sh --bootstrap-server {shlex.quote(servers)} --create --topic {self.name} {how}"


@dataclass(frozen=True, slots=True)
class TopicProblem:
    """The problem of a topic.

    Args:
        topic: The topic.
        missing: True if it does not exist, False if this user may not use it.
        what: What is wrong.
        todo: What to do.
    """

    topic: Topic
    missing: bool
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.what}: {self.todo}"


def needed_topics(telemetry: str, drift: str, models: str, dead_letters: str, *, events: bool) -> tuple[Topic, ...]:
    """Return the topics of a configuration.

    Args:
        telemetry: Name of the topic of telemetry.
        drift: Name of the topic of drift alerts.
        models: Name of the topic of announcements.
        dead_letters: Name of the topic of refused records.
        events: Whether alerts, announcements and dead letters go to Kafka.
    """
    read = Topic(telemetry, "READ", 12, {"retention.ms": str(7 * _DAY_MS)})
    written = (
        Topic(drift, "WRITE", 1, {"retention.ms": str(90 * _DAY_MS)}),
        Topic(models, "WRITE", 1, {"retention.ms": str(90 * _DAY_MS)}),
        Topic(dead_letters, "WRITE", 1, {"retention.ms": str(14 * _DAY_MS)}),
    )
    return (read, *(written if events else ()))


def acl_commands(topics: Sequence[Topic], group: str, servers: str, user: str) -> list[str]:
    """Return the commands that give a user the rights that the daemon needs, and no more.

    Args:
        topics: What is needed.
        group: Name of the consumer group.
        servers: Addresses of the cluster.
        user: Name of the user.
    """
    begin = f"kafka-acls.sh --bootstrap-server {shlex.quote(servers)} --add --allow-principal {shlex.quote(f'User:{user}')}"
    ours = [f"{begin} --operation {topic.right.capitalize()} --operation Describe --topic {topic.name}" for topic in topics]
    ours.append(f"{begin} --operation Read --group {shlex.quote(group)}")
    if any(topic.right == "WRITE" for topic in topics):
        ours.append(f"{begin} --operation IdempotentWrite --cluster   # brokers before Kafka 3.0")
    return ours


def inspect_topics(options: KafkaOptions, topics: Sequence[Topic]) -> list[TopicProblem]:
    """Ask a broker about problems of the topics, within seconds.

    Args:
        options: How to reach the cluster.
        topics: What is needed.

    Raises:
        NotConnectedError: No broker answers.
    """
    if (reason := unreachable(options)) is not None:
        raise NotConnectedError(Failure(kafka_errors.KafkaConnectionError(reason)))
    limits = {"bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000), "request_timeout_ms": int(CONNECT_TIMEOUT_S * 1000)}
    with connecting() as maker, closing(KafkaAdminClient(**options.admin_config() | limits, kafka_client=maker)) as admin:
        found = {topic["name"]: topic for topic in admin.describe_topics([topic.name for topic in topics])}
        replicas = min(_REPLICAS, max(1, len(admin.describe_cluster()["brokers"])))
    problems = (_problem(topic, found.get(topic.name, {}), options, replicas) for topic in topics)
    return [problem for problem in problems if problem is not None]


def not_inspected(topic: Topic, error: Exception) -> TopicProblem:
    """Return the problem of a topic for which `inspect_topics` raised an unexpected error."""
    what = f"topic {topic.name} could not be looked at ({type(error).__name__}: {' '.join(str(error).split()) or 'without a message'})"
    return TopicProblem(topic, False, what, "report this as a fault of dwcp-learner, with the version of the broker; check that it exists")


def _problem(topic: Topic, found: Mapping[str, Any], options: KafkaOptions, replicas: int) -> TopicProblem | None:
    servers, user = options.servers(), options.sasl_plain_username or "NAME"
    error = kafka_errors.for_code(found.get("error_code", kafka_errors.UnknownTopicOrPartitionError.errno))
    rights = acl_commands([topic], "", servers, user)[0]
    if error is kafka_errors.UnknownTopicOrPartitionError:
        todo = f"create it, or correct its name: {topic.create_command(servers, replicas)}"
        return TopicProblem(topic, True, f"topic {topic.name} does not exist", todo)
    if issubclass(error, kafka_errors.AuthorizationError):
        return TopicProblem(topic, False, f"this user may not see topic {topic.name}, or it does not exist", f"create it, and: {rights}")
    if error is kafka_errors.NoError and topic.right not in (found.get("authorized_operations") or [topic.right]):
        return TopicProblem(topic, False, f"this user may not {topic.right} topic {topic.name}", rights)
    return None
