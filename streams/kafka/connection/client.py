"""The network client under a consumer or producer, which remembers why it does not connect."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streams.kafka.connection.advice import REFUSALS, Failure
from streams.kafka.connection.options import KafkaOptions

PROBE_TIMEOUT_S: Final = 3.0  # one TCP connection, on a thread that nobody waits for
TIMEOUTS: Final = (kafka_errors.KafkaTimeoutError, kafka_errors.RequestTimedOutError)


class NotConnectedError(Exception):
    """There is no connection to any broker.

    Args:
        failure: Why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class BrokerClient(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no type information
    """The `kafka_client` of a KafkaConsumer or KafkaProducer, which itself raises only a time-out if it cannot connect.

    Args:
        config: Options of kafka-python's client.
    """

    def __init__(self, **config: Any) -> None:
        net = NetworkSelector(**config)
        self._noting = _NotingManager(net, **config)
        super().__init__(net=net, manager=self._noting)
        # Asking for a topic must not create it; version 3.0.12 does not hand this option on from the consumer or producer.
        self.cluster.config["allow_auto_create_topics"] = False

    @property
    def failure(self) -> Failure | None:
        """Reason why the last connection, or one to a broker of the cluster, could not be made; None if none has failed."""
        of_brokers = (self.failure_of(broker.node_id) for broker in self.cluster.brokers())
        return self._noting.last or next((failure for failure in of_brokers if failure is not None), None)

    def failure_of(self, node_id: object) -> Failure | None:
        """Return why the last connection to one broker could not be made; None if it was made."""
        return self._noting.by_node.get(node_id)

    def leader_of(self, part: TopicPartition) -> str:
        """Return the leader of a partition with its address and failure, for a message."""
        node_id = self.cluster.leader_for_partition(part)
        node, failure = self.cluster.broker_metadata(node_id), self.failure_of(node_id)
        if node is None:
            return "its leader (it has none now)"
        return f"its leader {node.host}:{node.port}" + (f" ({failure.error})" if failure is not None else "")

    def linked(self) -> bool:
        """Return whether there is a connection to any broker of the cluster."""
        return any(self.connected(broker.node_id) for broker in self.cluster.brokers())


class ClientMaker:
    """Makes the client under a consumer, producer or admin client: their option `kafka_client`."""

    client: BrokerClient

    def __call__(self, **config: Any) -> BrokerClient:
        self.client = BrokerClient(**config)
        return self.client


@contextmanager
def connecting() -> Iterator[ClientMaker]:
    """Yield the maker of a client for as long as a consumer, producer or admin client is built on it.

    Raises:
        KafkaConfigurationError: An option cannot work.
        NotConnectedError: It does not connect. The message has the reason.
    """
    maker = ClientMaker()
    try:
        yield maker
    except Exception as error:
        client: BrokerClient | None = getattr(maker, "client", None)
        if client is not None:  # a consumer or producer that could not be built leaves a client with a thread
            client.close()
        if isinstance(error, kafka_errors.KafkaConfigurationError) or not isinstance(error, (kafka_errors.KafkaError, OSError)):
            raise
        raise NotConnectedError((client and client.failure) or Failure(error)) from error


class _NotingManager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no type information
    """Remembers the error of the last connection that was tried. Its base only logs it."""

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self.last: Failure | None = None
        self.by_node: dict[object, Failure] = {}

    def get_connection(self, node_id: Any, **options: Any) -> KafkaConnection:
        known = node_id in self._conns
        connection = super().get_connection(node_id, **options)
        if not known:
            connection.init_future.add_both(partial(self._note, node_id))
        return connection

    def _note(self, node_id: Any, result: object) -> None:
        if not isinstance(result, Exception):
            self.last = None
            self.by_node.pop(node_id, None)
            return
        node = self.cluster.broker_metadata(node_id)
        address = f"{node.host}:{node.port}" if node is not None else ""
        failure = Failure(result, address, advertised=not self.cluster.is_bootstrap(node_id))
        self.last = _more_telling(self.last, failure)
        self.by_node[node_id] = _more_telling(self.by_node.get(node_id), failure)


def _more_telling(before: Failure | None, now: Failure) -> Failure:
    """Return the more informative failure: a refusal over the disconnections that follow it, anything over a time-out."""
    if before is None or not (isinstance(before.error, REFUSALS) or isinstance(now.error, TIMEOUTS)):
        return now
    return before


def unreachable(options: KafkaOptions, before_each: Callable[[], None] = lambda: None) -> str | None:
    """Return why no bootstrap server accepts a TCP connection; None if one does, or if a proxy is in between.

    Call it before a consumer or producer is built: it reports at once a problem that those show only as a time-out, seconds later.

    Args:
        options: How to reach the cluster.
        before_each: Is called before each server. One server may need half a minute if no name server answers.
    """
    if options.client.get("proxy_url"):
        return None
    reasons = []
    for host, port in options.addresses():
        before_each()
        try:
            with socket.create_connection((host, port), PROBE_TIMEOUT_S):
                return None
        except OSError as error:
            reasons.append(f"{host}:{port}: {error.strerror or error}")
    return "; ".join(reasons)
