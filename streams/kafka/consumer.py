"""Building a Kafka consumer, or finding out why there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener

from streams.kafka.connection.advice import Failure
from streams.kafka.connection.client import BrokerClient, NotConnectedError
from streams.kafka.records import Keys, give_plain_records

METADATA_TIMEOUT_S: Final = 2.0


def open_consumer(
    topic: str, config: Mapping[str, Any], listener: AsyncConsumerRebalanceListener, keys: Keys
) -> tuple[KafkaConsumer, BrokerClient]:
    """A consumer that has met its cluster and subscribed, and the client under it. Blocks for a few seconds at most. keys: where records
    with and without a key are counted.

    KafkaConfigurationError: an option that cannot work. NotConnectedError: why it does not connect.
    """
    clients: list[BrokerClient] = []

    def make_client(**client_config: Any) -> BrokerClient:
        clients.append(BrokerClient(**client_config))
        return clients[0]

    try:
        consumer = KafkaConsumer(**config, kafka_client=make_client)
        give_plain_records(consumer, keys)
        consumer.subscribe([topic], listener=listener)
        _await_metadata(clients[0])
    except Exception as error:
        for client in clients:  # a consumer that could not be built leaves its client's thread behind
            client.close()
        if isinstance(error, kafka_errors.KafkaConfigurationError) or not isinstance(error, (kafka_errors.KafkaError, OSError)):
            raise
        cause = clients[0].failure if clients and isinstance(error, kafka_errors.KafkaTimeoutError) else None
        raise NotConnectedError(cause or Failure(error)) from error
    return consumer, clients[0]


def keep_joining(consumer: KafkaConsumer) -> None:
    """To be called between polls of a consumer whose group is rebalancing.

    kafka-python 3.0.12 joins again when metadata has changed since the last assignment, and takes note of the new metadata in the
    middle of that join. Where a poll's time is up before the join is complete, the next poll sees no reason for one any more: its
    outcome is never looked at, no heartbeat is sent, and the member stays without partitions until the metadata change again.
    The flag that an ordinary join has from its beginning to its end prevents that.
    """
    consumer._coordinator.request_rejoin()


def leave_at_close(consumer: KafkaConsumer) -> None:
    """To be called before the consumer is closed in order. A member with a name of its own (KIP-345) would stay in its group
    until the session time-out, for it might come back; its partitions are free at once so, and a restart finds them as well."""
    consumer._coordinator.is_dynamic_member = lambda: True


def tell_when_fenced(consumer: KafkaConsumer, tell: Callable[[Exception], None]) -> None:
    """Calls `tell`, on the client's thread, when another member has joined under this one's name (KIP-345).

    kafka-python 3.0.12 only logs it and sends no heartbeat any more: two members would go on with the same partitions.
    """
    coordinator = consumer._coordinator
    send = coordinator._send_heartbeat_request

    async def noticing() -> None:
        try:
            await send()
        except kafka_errors.FencedInstanceIdError as error:
            tell(error)
            raise

    coordinator._send_heartbeat_request = noticing


def _await_metadata(client: BrokerClient) -> None:
    """A member that joins before it knows the topic's partitions assigns none, and the group rebalances twice."""
    known = threading.Event()
    client.cluster.request_update().add_both(lambda _: known.set())
    known.wait(METADATA_TIMEOUT_S)
