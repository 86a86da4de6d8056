"""Build a Kafka consumer, and add behaviour that kafka-python 3.0.12 lacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener

from streams.kafka.connection.client import BrokerClient, connecting
from streams.kafka.connection.options import HEARTBEAT_INTERVAL_MS
from streams.kafka.records import Keys, give_plain_records

METADATA_TIMEOUT_S: Final = 2.0
DEFAULTS: Final = {
    "bootstrap_timeout_ms": 5_000,  # a TCP connection is there already; this covers TLS, SASL and the first answer
    "heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS,
    "fetch_max_bytes": 50_000_000,
    "max_partition_fetch_bytes": 4_000_000,  # some 25,000 compressed records: few requests, and memory stays bounded
    "isolation_level": "read_committed",  # a record of an aborted transaction was never measured
    "metadata_max_age_ms": 60_000,  # new partitions are seen within a minute
    "metrics_enabled": False,  # 3 % of the time, and nobody reads them
    "reconnect_backoff_ms": 500,
    "reconnect_backoff_max_ms": 10_000,  # a broker that is back is seen within ten seconds
}
"""Options of a consumer, which those of the operator override."""


def open_consumer(
    topic: str, config: Mapping[str, Any], listener: AsyncConsumerRebalanceListener, keys: Keys
) -> tuple[KafkaConsumer, BrokerClient]:
    """Return a consumer that has met its cluster and subscribed, and the client under it. Blocks for a few seconds at most.

    Args:
        topic: Name of the topic.
        config: Options of the consumer.
        listener: Of its rebalances.
        keys: Counts records with and without a key.

    Raises:
        KafkaConfigurationError: An option cannot work.
        NotConnectedError: It does not connect. The message has the reason.
    """
    with connecting() as maker:
        consumer = KafkaConsumer(**config, kafka_client=maker)
        give_plain_records(consumer, keys)
        consumer.subscribe([topic], listener=listener)
        _await_metadata(maker.client)
        return consumer, maker.client


def keep_joining(consumer: KafkaConsumer) -> None:
    """Keep a join alive. Call it between polls of a consumer whose group is rebalancing.

    kafka-python 3.0.12 joins again when metadata has changed since the last assignment, and notes the new metadata in the middle of that
    join. If the time of a poll is up before the join is complete, the next poll sees no reason for one any more: its outcome is ignored, no
    heartbeat is sent, and the member stays without partitions until the metadata change again. The flag that an ordinary join has from its
    beginning to its end prevents that.
    """
    consumer._coordinator.request_rejoin()


def leave_at_close(consumer: KafkaConsumer) -> None:
    """Let a consumer leave its group when it is closed. Call it before an orderly close.

    A member with a name of its own (KIP-345) would stay in its group until the session time-out, as it might come back. If it leaves, its
    partitions are free at once, and a restart finds them as well.
    """
    consumer._coordinator.is_dynamic_member = lambda: True


def notice_fencing(consumer: KafkaConsumer, on_fenced: Callable[[Exception], None]) -> None:
    """Notice that another member has joined under this member's name (KIP-345).

    kafka-python 3.0.12 only logs it and stops the heartbeats: two members would go on with the same partitions.

    Args:
        consumer: A new consumer.
        on_fenced: Is called with the error on the thread of the client.
    """
    coordinator = consumer._coordinator
    send = coordinator._send_heartbeat_request

    async def noticing() -> None:
        try:
            await send()
        except kafka_errors.FencedInstanceIdError as error:
            on_fenced(error)
            raise

    coordinator._send_heartbeat_request = noticing


def _await_metadata(client: BrokerClient) -> None:
    """Wait for metadata. A member that joins before it knows the partitions of the topic assigns none, and the group rebalances twice."""
    known = threading.Event()
    client.cluster.request_update().add_both(lambda _: known.set())
    known.wait(METADATA_TIMEOUT_S)
