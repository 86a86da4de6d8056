"""The options that source and sink share to reach a Kafka cluster, checked before anything connects."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from streams.kafka.connection.option_values import check_mechanism, check_together, check_value
from streams.kafka.connection.tls import FILES, check_tls

EventHandler: TypeAlias = Callable[[str, dict[str, object]], None]
"""Logs one operational event, by name and fields."""

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER")
DEFAULT_PORT: Final = 9092
HEARTBEAT_INTERVAL_MS: Final = 1_000
"""Milliseconds within which a rebalance is noticed."""

# Options that exactly-once and order depend on: the source and the sink set them.
OURS: Final = frozenset(
    (
        "acks", "allow_auto_create_topics", "auto_commit_interval_ms", "auto_offset_reset", "consumer_timeout_ms",
        "default_offset_commit_callback", "delivery_timeout_ms", "enable_auto_commit", "enable_idempotence", "group_id",
        "kafka_client", "key_deserializer", "key_serializer", "max_block_ms", "max_poll_records", "partition_assignment_strategy",
        "partitioner", "retries", "selector", "transaction_timeout_ms", "transactional_id", "value_deserializer", "value_serializer",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """Addresses of the brokers, and the options for a connection.

    Args:
        bootstrap_servers: "host:port" each; the port may be left out (9092).
        client: Further options by kafka-python's names (https://kafka-python.readthedocs.io), such as
            {"session_timeout_ms": 30000, "compression_type": "lz4"}. Each goes to the consumer, the producer or both, as they know it.

    Raises:
        ValueError: Something cannot work. The message names the option to change.
    """

    bootstrap_servers: tuple[str, ...]
    security_protocol: str = "PLAINTEXT"
    client_id: str = "dwcp-learner"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: str | None = field(default=None, repr=False)
    ssl_check_hostname: bool = True
    sasl_mechanism: str | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: str | None = field(default=None, repr=False)
    client: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_servers(self.bootstrap_servers)
        settings = {
            option.name: getattr(self, option.name) for option in fields(self) if option.name not in ("bootstrap_servers", "client")
        }
        for name, value in settings.items():
            check_value(name, value)
        for name, value in self.client.items():
            _check_client_option(name, {"bootstrap_servers", "client", *settings})
            check_value(name, value)
        _check_security(self)
        ours = {"heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS}
        check_together(KafkaConsumer.DEFAULT_CONFIG | ours | self.consumer_config())
        check_together(KafkaProducer.DEFAULT_CONFIG | self.producer_config())

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> KafkaOptions:
        """Return the options of a flat table, such as a section of a configuration file.

        Args:
            values: By name. Servers are a list, or one string with commas.
        """
        settings = {option.name for option in fields(cls)} - {"client"}
        known = {name: value for name, value in values.items() if name in settings}
        servers = known.pop("bootstrap_servers", ())
        split = servers.split(",") if isinstance(servers, str) else servers
        more = {name: value for name, value in values.items() if name not in settings}
        return cls(bootstrap_servers=tuple(server.strip() for server in split if server.strip()), **known, client=more)

    def consumer_config(self) -> dict[str, Any]:
        """Return the arguments for a KafkaConsumer."""
        return self._config(KafkaConsumer.DEFAULT_CONFIG)

    def producer_config(self) -> dict[str, Any]:
        """Return the arguments for a KafkaProducer."""
        return self._config(KafkaProducer.DEFAULT_CONFIG)

    def admin_config(self) -> dict[str, Any]:
        """Return the arguments for a KafkaAdminClient."""
        return self._config(KafkaAdminClient.DEFAULT_CONFIG)

    def _config(self, known: Mapping[str, Any]) -> dict[str, Any]:
        settings = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "client"}
        settings["bootstrap_servers"] = list(self.bootstrap_servers)
        return settings | {name: value for name, value in self.client.items() if name in known}

    def servers(self) -> str:
        """Return the servers in one text, for messages."""
        return ",".join(self.bootstrap_servers)

    def addresses(self) -> list[tuple[str, int]]:
        """Return host and port of each server."""
        return [_host_and_port(server) for server in self.bootstrap_servers]


class Backoff:
    """Delays from 0.5 s, doubling to 30 s. Each is shortened by a random part of up to a half, so that clients do not return in step."""

    FIRST_S: Final = 0.5
    LIMIT_S: Final = 30.0

    def __init__(self) -> None:
        self._delay_s = self.FIRST_S

    def next_s(self) -> float:
        """Return the next delay, seconds."""
        delay_s = self._delay_s
        self._delay_s = min(self.LIMIT_S, 2 * delay_s)
        return delay_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._delay_s = self.FIRST_S


def _host_and_port(server: str) -> tuple[str, int]:
    """Return host and port of a server. Raises ValueError unless it is host, host:port or [IPv6]:port."""
    host, colon, port = server.rpartition(":") if not server.endswith("]") else (server, "", "")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = server, str(DEFAULT_PORT)
    if not host.strip("[]") or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise ValueError(f"bootstrap_servers: {server!r} is not host:port, such as kafka.example.net:9092")
    if host.startswith("[") != host.endswith("]"):
        raise ValueError(f"bootstrap_servers: {server!r} has one bracket; an IPv6 address is written as [::1]:9092")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"bootstrap_servers: {host!r} cannot be the name of a host: a part between dots is empty or too long") from error
    return host.strip("[]"), int(port)


def _check_servers(servers: tuple[str, ...]) -> None:
    if isinstance(servers, str) or not servers:
        raise ValueError(f"bootstrap_servers must name at least one broker as host:port, got {servers!r}")
    for server in servers:
        _host_and_port(server)


def _check_security(options: KafkaOptions) -> None:
    protocol = options.security_protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"security_protocol {protocol!r} is unknown: use one of {', '.join(PROTOCOLS)}")
    if protocol.startswith("SASL_"):
        _check_sasl(options)
    else:
        _refuse_unused(options, ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"), "SASL_SSL or SASL_PLAINTEXT")
    if not protocol.endswith("SSL"):
        _refuse_unused(options, FILES, "SSL or SASL_SSL")
    elif options.client.get("ssl_context") is None:
        check_tls(options)


def _check_sasl(options: KafkaOptions) -> None:
    protocol, mechanism = options.security_protocol, options.sasl_mechanism
    if mechanism not in MECHANISMS:
        raise ValueError(f"security_protocol {protocol} needs sasl_mechanism, one of {', '.join(MECHANISMS)}; got {mechanism!r}")
    if mechanism.startswith(("PLAIN", "SCRAM")) and not (options.sasl_plain_username and options.sasl_plain_password):
        raise ValueError(f"sasl_mechanism {mechanism} needs sasl_plain_username and sasl_plain_password")
    check_mechanism(mechanism, options.client)


def _refuse_unused(options: KafkaOptions, names: tuple[str, ...], use: str) -> None:
    """Refuse an option without effect: it suggests a protection that does not exist."""
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"{name} has no effect with security_protocol {options.security_protocol}: use {use}")


def _check_client_option(name: str, settings: set[str]) -> None:
    known = set(KafkaConsumer.DEFAULT_CONFIG) | set(KafkaProducer.DEFAULT_CONFIG)
    if name in settings:
        raise ValueError(f"Kafka option {name!r} is a setting of its own: give it there")
    if name in OURS:
        raise ValueError(f"Kafka option {name!r} cannot be set: delivery and order depend on it")
    if name not in known:
        near = difflib.get_close_matches(name, (known | settings) - OURS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown Kafka option {name!r}{hint} (names: https://kafka-python.readthedocs.io)")
