"""Advice on errors of the Kafka client: it names the address, topic, group or option that failed."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from kafka import errors as kafka_errors

from streams.kafka.connection.advice import Errand, Failure
from streams.kafka.connection.options import KafkaOptions

SASL = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "ada", "sasl_plain_password": "p"}
READER = Errand(KafkaOptions.from_mapping({"bootstrap_servers": "boot:9092", **SASL}), "links", "learners")
WRITER = Errand(READER.options, "alerts")


def connection(text: str) -> Exception:
    return kafka_errors.KafkaConnectionError(text)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (connection("DNS Resolution failure"), ["cannot resolve the name in b:1"]),
        (connection("unable to connect: [Errno 111] Connection refused"), ["nobody listens at b:1"]),
        (connection("111 ECONNREFUSED"), ["nobody listens at b:1"]),
        (connection("113 EHOSTUNREACH"), ["nothing answers at b:1", "firewall"]),
        (connection("Connection timed out"), ["nothing answers at b:1", "firewall"]),
        (connection("unable to connect: [Errno 113] No route to host"), ["nothing answers at b:1", "firewall"]),
        (connection("Handshake failed: [SSL: WRONG_VERSION_NUMBER] wrong version number"), ["b:1 does not speak TLS", "SASL_PLAINTEXT"]),
        (
            connection(
                "Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate"
            ),
            ["the certificate of b:1", "ssl_cafile (not set)"],
        ),
        (
            connection("Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"),
            ["the certificate of b:1", "has expired"],
        ),
        (
            connection(
                "Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, certificate is not"
            ),
            ["the certificate of b:1 is for another name"],
        ),
        (
            connection("Handshake failed: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"),
            ["b:1 rejects this client's certificate", "ssl_certfile", "ssl_keyfile"],
        ),
        (ssl.SSLError(1, "[X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found"), ["ssl_cafile", "check-config"]),
        (connection("socket disconnected"), ["b:1 closes the connection", "security_protocol (SASL_PLAINTEXT)", "port"]),
        (kafka_errors.RequestTimedOutError(), ["b:1 accepts connections and does not answer", "security_protocol (SASL_PLAINTEXT)"]),
        (kafka_errors.SaslAuthenticationFailedError("no"), ["b:1 does not know user 'ada'", "SCRAM-SHA-512", "sasl_plain_password"]),
        (kafka_errors.UnsupportedSaslMechanismError(), ["sasl_mechanism SCRAM-SHA-512 is not enabled at b:1"]),
        (kafka_errors.TopicAuthorizationFailedError({"links"}), ["user 'ada'", "READ topic links", "DESCRIBE"]),
        (kafka_errors.GroupAuthorizationFailedError("learners"), ["user 'ada'", "READ the consumer group learners", "kafka.group_id"]),
        (kafka_errors.ClusterAuthorizationFailedError(), ["user 'ada'", "IDEMPOTENT_WRITE"]),
        (kafka_errors.FencedInstanceIdError(), ["group learners", "copy of this state directory"]),
        (kafka_errors.InconsistentGroupProtocolError(), ["group learners", "kafka.group_id"]),
        (kafka_errors.InvalidTopicError(), ["log of the broker", "topic links", "group learners"]),
    ],
)
def test_the_advice_names_what_failed(error: Exception, named: list[str]) -> None:
    """One exception class stands for many causes: the advice goes by what it says, and names whom the client spoke to."""
    advice = READER.advice(Failure(error, "b:1"))
    assert all(part in advice for part in named), advice


def test_what_a_writer_lacks_is_another_right() -> None:
    """A sink has to WRITE its topic, and has no group."""
    assert "WRITE topic alerts" in WRITER.advice(Failure(kafka_errors.TopicAuthorizationFailedError({"alerts"})))
    assert "group" not in WRITER.advice(Failure(kafka_errors.InvalidTopicError()))


def test_an_address_that_only_the_broker_names() -> None:
    """advertised.listeners is blamed where the broker has named the address, and never for one that the configuration names itself."""
    refused = connection("unable to connect: [Errno 111] Connection refused")
    advice = READER.advice(Failure(refused, "inside:9092", advertised=True))
    assert "nobody listens at inside:9092" in advice
    assert "advertised.listeners" in advice
    assert "boot:9092" in advice
    assert "advertised" not in READER.advice(Failure(refused, "boot:9092", advertised=True))
    assert "advertised" not in READER.advice(Failure(kafka_errors.SaslAuthenticationFailedError(), "inside:9092", advertised=True))


def test_a_broker_that_advertises_what_cannot_be_reached(kafka_module: ModuleType, run: Callable[..., Any], no_broker: str) -> None:
    """The bootstrap address answers, the one in its answer does not: event and /readyz name that one, and nothing says "connected"."""
    port = kafka_module.free_port()
    text = (kafka_module.SERVER_PROPERTIES + kafka_module.ALONE).format(
        port=port, controller_port=kafka_module.free_port(), folder="{folder}"
    )
    text = text.replace(f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}", f"advertised.listeners=PLAINTEXT://{no_broker}")
    node = kafka_module.Node(port, text)
    node.start()
    try:
        daemon = run(f"127.0.0.1:{port}")
        found = daemon.until(lambda: [line for line in daemon.reported("kafka_unreachable") if no_broker in line["error"]])[0]
        assert f"nobody listens at {no_broker}" in found["todo"]
        assert "advertised.listeners" in found["todo"]
        _, words = daemon.until(lambda: [answer for answer in [daemon.get("/readyz")] if no_broker in answer[1]])[0]
        assert "advertised.listeners" in words
        assert not daemon.reported("kafka_connected")
    finally:
        node.remove()
