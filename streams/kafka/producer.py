"""Build a Kafka producer, and close it."""

from __future__ import annotations

from typing import Final

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from streams.kafka.connection.client import BrokerClient, connecting
from streams.kafka.connection.options import KafkaOptions

NEVER_MS: Final = 2**31 - 1  # 25 days: the client retries through any outage, instead of failing a batch in the middle of an order

DEFAULTS: Final = {
    "bootstrap_timeout_ms": 5_000,  # a TCP connection is there already; this covers TLS, SASL and the first answer
    "linger_ms": 5,  # dead letters come in bursts: a few batches instead of a request each
    "max_request_size": 32_000_000,  # a dead letter holds the original record; the limit of the topic decides
    "metrics_enabled": False,
    "reconnect_backoff_ms": 500,
    "reconnect_backoff_max_ms": 10_000,  # a broker that is back is noticed within ten seconds
}
"""Options of a producer, which those of the operator override."""


def open_producer(options: KafkaOptions) -> tuple[KafkaProducer, BrokerClient]:
    """Return a producer that has met its cluster, and the client under it. Blocks for a few seconds at most.

    Args:
        options: How to reach the cluster.

    Raises:
        KafkaConfigurationError: An option cannot work.
        NotConnectedError: It does not connect. The message has the reason.
    """
    ours = {"acks": "all", "enable_idempotence": True, "delivery_timeout_ms": NEVER_MS, "max_block_ms": 2_000}
    with connecting() as maker:
        return KafkaProducer(**DEFAULTS | options.producer_config() | ours, kafka_client=maker), maker.client


def close_producer(producer: KafkaProducer) -> None:
    """Close a producer, with or without a broker, within seconds."""
    try:
        producer.close(timeout=0.5)
    except kafka_errors.KafkaError:
        # close() of 3.0.12 stops at its failed flush and would leave its thread running, with our records.
        producer._sender.force_close()
        producer._sender.join(1.0)
