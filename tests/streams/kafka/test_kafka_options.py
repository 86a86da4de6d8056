"""Kafka options: what is refused before anything connects, and what reaches the client."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.connection.options import Backoff, KafkaOptions

SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "secret-p"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at least one broker"),
        ({"bootstrap_servers": "http://k:9092"}, "'http://k:9092' is not host:port"),
        ({"bootstrap_servers": "k:0"}, "'k:0' is not host:port"),
        ({"bootstrap_servers": "k:port"}, "'k:port' is not host:port"),
        ({"bootstrap_servers": "[::1:9092"}, "'[::1:9092' has one bracket"),
        ({"bootstrap_servers": "kafka..example.net:9092"}, "'kafka..example.net' cannot be the name of a host"),
        ({"bootstrap_servers": ".k:9092"}, "'.k' cannot be the name of a host"),
        ({"bootstrap_servers": f"{'k' * 64}:9092"}, "a part between dots is empty or too long"),
        ({"bootstrap_servers": "k", "security_protocol": "TLS"}, "'TLS' is unknown: use one of PLAINTEXT"),
        ({"bootstrap_servers": "k", "security_protocol": "SASL_SSL"}, "needs sasl_mechanism"),
        ({"bootstrap_servers": "k", **SASL, "sasl_plain_password": ""}, "sasl_plain_password is empty: give a value"),
        ({"bootstrap_servers": "k", "sasl_mechanism": "PLAIN"}, "has no effect with security_protocol PLAINTEXT"),
        ({"bootstrap_servers": "k", "security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"}, "ssl_cafile: there is no file /nowhere"),
        ({"bootstrap_servers": "k", "sesion_timeout_ms": 1}, "unknown Kafka option 'sesion_timeout_ms'; did you mean 'session_timeout_ms'"),
        ({"bootstrap_servers": "k", "enable_auto_commit": True}, "'enable_auto_commit' cannot be set"),
        ({"bootstrap_servers": "k", "acks": 1}, "'acks' cannot be set"),
        ({"bootstrap_servers": "k", "client": {}}, "'client' is a setting of its own"),
        ({"bootstrap_servers": "k", **SASL, "sasl_plain_password": 12345678}, "sasl_plain_password is a number: write it in quotes"),
        ({"bootstrap_servers": "k", **SASL, "sasl_plain_username": True}, "sasl_plain_username is true: write it in quotes"),
        ({"bootstrap_servers": "k", "security_protocol": ["SSL"]}, "security_protocol is a list: write it in quotes"),
        ({"bootstrap_servers": "k", "client_id": 7}, "client_id is a number: write it in quotes"),
        ({"bootstrap_servers": "k", "ssl_check_hostname": "no"}, "ssl_check_hostname is a text: write true or false"),
        ({"bootstrap_servers": "k", "session_timeout_ms": "30 s"}, "session_timeout_ms is a text: write a whole number"),
        ({"bootstrap_servers": "k", "session_timeout_ms": 30.5}, "session_timeout_ms is a number: write a whole number"),
        ({"bootstrap_servers": "k", "session_timeout_ms": True}, "session_timeout_ms is true: write a whole number"),
        ({"bootstrap_servers": "k", "session_timeout_ms": 0}, "session_timeout_ms is 0: it has to be from 1 to"),
        ({"bootstrap_servers": "k", "fetch_max_bytes": 2**31}, "fetch_max_bytes is 2147483648: it has to be from 1 to"),
        ({"bootstrap_servers": "k", "session_timeout_ms": 900}, "heartbeat_interval_ms (1000) has to be less than session_timeout_ms"),
        ({"bootstrap_servers": "k", "request_timeout_ms": 400}, "fetch_max_wait_ms (500) has to be less than request_timeout_ms (400)"),
        ({"bootstrap_servers": "k", "receive_buffer_bytes": "1 MB"}, "receive_buffer_bytes is a text: write a whole number"),
        ({"bootstrap_servers": "k", "max_in_flight_requests_per_connection": 6}, "has to be from 1 to 5"),
        ({"bootstrap_servers": "k", "compression_type": "middle-out"}, "compression_type is 'middle-out': use one of gzip"),
        ({"bootstrap_servers": "k", "isolation_level": "serializable"}, "isolation_level is 'serializable': use one of read_committed"),
        ({"bootstrap_servers": "k", "client_dns_lookup": "default"}, "client_dns_lookup is 'default': use one of use_all_dns_ips"),
        ({"bootstrap_servers": "k", "proxy_url": "proxy:3128"}, "proxy_url is not the address of a proxy: write it as http://host:port"),
        ({"bootstrap_servers": "k", "api_version": "latest"}, "api_version is 'latest': write the version of the broker"),
        ({"bootstrap_servers": "k", "api_version": 3.9}, "api_version is a number: write it in quotes"),
        ({"bootstrap_servers": "k", "group_instance_id": "a b"}, "group_instance_id is 'a b': use 1 to 249 letters"),
        ({"bootstrap_servers": "k", "metric_reporters": "mine"}, "metric_reporters needs a Python object"),
        ({"bootstrap_servers": "k", "ssl_ciphers": "HIGH"}, "ssl_ciphers cannot work: kafka-python 3.0.12 does not pass it on"),
        ({"bootstrap_servers": "k", "sasl_plain_username": "u"}, "sasl_plain_username has no effect with security_protocol PLAINTEXT"),
        ({"bootstrap_servers": "k", **SASL, "sasl_mechanism": "OAUTHBEARER"}, "OAUTHBEARER needs a token provider"),
    ],
)
def test_what_cannot_work_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    """Each mistake in the options is an error that names the option and what to do."""
    with pytest.raises(ValueError, match=re.escape(message)):
        KafkaOptions.from_mapping(values)


def test_an_unused_certificate_is_refused(tmp_path: Path) -> None:
    """A CA file beside PLAINTEXT means that somebody believes the connection is encrypted."""
    ca = tmp_path / "ca.pem"
    ca.touch()
    with pytest.raises(ValueError, match="ssl_cafile has no effect with security_protocol PLAINTEXT"):
        KafkaOptions(("k",), ssl_cafile=str(ca))


@pytest.mark.parametrize(
    ("servers", "addresses"),
    [
        ("a, b:9093,", [("a", 9092), ("b", 9093)]),
        (["[::1]:9094", "[fe80::1]"], [("::1", 9094), ("fe80::1", 9092)]),
    ],
)
def test_servers_are_a_list_or_a_string_with_commas(servers: Any, addresses: list[tuple[str, int]]) -> None:
    """Both forms of a configuration file give the same addresses; a missing port is 9092."""
    assert KafkaOptions.from_mapping({"bootstrap_servers": servers}).addresses() == addresses


def test_client_options_go_to_the_clients_that_know_them() -> None:
    """A consumer is not given a producer's option, and the other way round; what both know goes to both."""
    options = KafkaOptions.from_mapping(
        {"bootstrap_servers": "k", **SASL, "fetch_min_bytes": 9, "linger_ms": 7, "request_timeout_ms": 5000}
    )
    consumer, producer = options.consumer_config(), options.producer_config()
    assert (consumer["fetch_min_bytes"], "linger_ms" in consumer, consumer["request_timeout_ms"]) == (9, False, 5000)
    assert (producer["linger_ms"], "fetch_min_bytes" in producer, producer["request_timeout_ms"]) == (7, False, 5000)
    assert consumer["sasl_plain_password"] == producer["sasl_plain_password"] == "secret-p"


def test_a_password_is_not_shown() -> None:
    """Options may be logged: their text has neither password."""
    values = {"bootstrap_servers": "k", **SASL, "client_rack": "secret-q"}  # any further option may hold one
    shown = repr(KafkaOptions.from_mapping(values))
    assert "secret" not in shown
    assert "sasl_plain_username='u'" in shown


def test_delays_grow_to_a_limit_and_never_agree() -> None:
    """Retries come after 0.5 s, doubling to 30 s, each shortened by chance by up to a half; success starts over."""
    backoff = Backoff()
    delays_s = [backoff.next_s() for _ in range(10)]
    full_s = [min(30.0, 0.5 * 2**n) for n in range(10)]
    assert all(full / 2 <= delay <= full for delay, full in zip(delays_s, full_s, strict=True))
    assert all(one != other for one, other in pairwise(delays_s))
    backoff.reset()
    assert backoff.next_s() <= 0.5
