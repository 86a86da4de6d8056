"""The network client under a consumer or producer, with what an operator needs to know when it does not connect."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streams.kafka_options import KafkaOptions

PROBE_TIMEOUT_S: Final = 3.0  # one TCP connection, on a thread that nobody waits for
TIMEOUTS: Final = (kafka_errors.KafkaTimeoutError, kafka_errors.RequestTimedOutError)
REFUSALS: Final = (kafka_errors.SaslAuthenticationFailedError, kafka_errors.AuthorizationError)


class BrokerClient(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no type information
    """What kafka-python's KafkaConsumer and KafkaProducer take as `kafka_client`. The consumer or producer that is given it
    raises only a time-out when it cannot connect; `last_error` says why."""

    def __init__(self, **config: Any) -> None:
        net = NetworkSelector(**config)
        self._noting = _NotingManager(net, **config)
        super().__init__(net=net, manager=self._noting)
        # Asking for a topic must not create it; version 3.0.12 does not hand this option on from the consumer or producer.
        self.cluster.config["allow_auto_create_topics"] = False

    @property
    def last_error(self) -> Exception | None:
        """Why the last connection could not be made; None once one was."""
        return self._noting.last_error

    def linked(self) -> bool:
        """Whether there is a connection to any broker of the cluster."""
        return any(self.connected(broker.node_id) for broker in self.cluster.brokers())


class _NotingManager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no type information
    """Keeps the error of the last connection that was tried: its base only logs it."""

    last_error: Exception | None = None

    def get_connection(self, node_id: Any, **options: Any) -> KafkaConnection:
        known = node_id in self._conns
        connection = super().get_connection(node_id, **options)
        if not known:
            connection.init_future.add_both(self._note)
        return connection

    def _note(self, result: object) -> None:
        if not isinstance(result, Exception):
            self.last_error = None
        # A refusal says more than the disconnections that follow it, and a time-out says nothing.
        elif self.last_error is None or not (isinstance(self.last_error, REFUSALS) or isinstance(result, TIMEOUTS)):
            self.last_error = result


def unreachable(options: KafkaOptions, before_each: Callable[[], None] = lambda: None) -> str | None:
    """Why none of the bootstrap servers takes a TCP connection; None when one does, or when a proxy stands between.

    Tried before a consumer or producer is built: it says at once what those would only show as a time-out, seconds later.
    before_each: is called before each server, which may take half a minute where no name server answers.
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


def advice(error: Exception) -> str:
    """What to do about an error of the client."""
    match error:
        case kafka_errors.SaslAuthenticationFailedError() | kafka_errors.UnsupportedSaslMechanismError():
            return "check sasl_mechanism, sasl_plain_username and sasl_plain_password against the users the broker knows"
        case kafka_errors.TopicAuthorizationFailedError():
            return "give this user the right to READ (source) or WRITE (sink) the topic, and to DESCRIBE it"
        case kafka_errors.GroupAuthorizationFailedError():
            return "give this user the right to READ the consumer group, or choose another group"
        case kafka_errors.FencedInstanceIdError():
            return (
                "another daemon has joined the group under this one's name: it runs on a copy of this state directory; stop one of "
                "them, and give it a state directory of its own, or delete the file instance-* in its copy"
            )
        case kafka_errors.InconsistentGroupProtocolError():
            return "consumers of another kind are in this group: choose a group of its own"
        case kafka_errors.KafkaConnectionError() | kafka_errors.KafkaTimeoutError() | kafka_errors.RequestTimedOutError():
            return "check that security_protocol, ssl_cafile, sasl_mechanism and the port are those of this listener of the broker"
        case _:
            return "see the log of the broker"
