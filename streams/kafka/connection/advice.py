"""Advice on an error of the Kafka client: what to do, with the address, topic, group or option that is concerned.

The class of an exception is not specific: a KafkaConnectionError may be a name that cannot be resolved, a port at which nobody listens or a
certificate that does not match. Its text, and the address that the client spoke to, decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kafka import errors as kafka_errors

from streams.kafka.connection.options import KafkaOptions

REFUSALS: Final = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.AuthorizationError,
)
"""Errors of a broker that answers, but refuses this user."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a connection could not be made, or a request was refused.

    Args:
        error: The error.
        address: "host:port" that the client spoke to; "" means unknown.
        advertised: Whether the broker has named that address in an answer, and the configuration does not.
    """

    error: Exception
    address: str = ""
    advertised: bool = False

    def __str__(self) -> str:
        """Return what happened, and where."""
        arguments = self.error.args
        text = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], str) and arguments[0] else str(self.error)
        return f"{self.address}: {text or repr(self.error)}" if self.address else text or repr(self.error)


@dataclass(frozen=True, slots=True)
class Errand:
    """The purpose of a client.

    Args:
        options: How it reaches the cluster.
        topic: Name of the topic.
        group: Name of the group of a consumer; None for a producer.
    """

    options: KafkaOptions
    topic: str
    group: str | None = None

    def advice(self, failure: Failure) -> str:
        """Return what to do about a failure."""
        todo, named = self._advice(failure), {f"{host}:{port}" for host, port in self.options.addresses()}
        if not failure.advertised or failure.address in named or isinstance(failure.error, REFUSALS):
            return todo
        return (
            f"{todo}. The broker advertises the address {failure.address}, the configuration names {self.options.servers()}: set "
            "advertised.listeners of the broker to an address that this machine reaches"
        )

    def _advice(self, failure: Failure) -> str:
        options = self.options
        user = f"user {options.sasl_plain_username!r}" if options.sasl_plain_username else "this user"
        match failure.error:
            case kafka_errors.SaslAuthenticationFailedError():
                where = _where(failure, options)
                unknown = f"{where} does not know {user} with this password for {options.sasl_mechanism}"
                return f"check sasl_mechanism, sasl_plain_username and sasl_plain_password: {unknown}"
            case kafka_errors.UnsupportedSaslMechanismError():
                where = _where(failure, options)
                return f"sasl_mechanism {options.sasl_mechanism} is not enabled at {where}: use one of its sasl.enabled.mechanisms"
            case kafka_errors.TopicAuthorizationFailedError():
                operations = "READ" if self.group is not None else "WRITE"
                return f"give {user} the right to {operations} topic {self.topic}, and to DESCRIBE it ({ACLS})"
            case kafka_errors.GroupAuthorizationFailedError():
                return f"give {user} the right to READ the consumer group {self.group} ({ACLS}), or choose another one as kafka.group_id"
            case kafka_errors.ClusterAuthorizationFailedError():
                return f"give {user} the right to IDEMPOTENT_WRITE on the cluster ({ACLS})"
            case kafka_errors.FencedInstanceIdError():
                twin = f"another daemon has joined group {self.group} under the same name: it runs on a copy of this state directory"
                return f"{twin}; stop one of them, and give it a state directory of its own, or delete the file instance-* in its copy"
            case kafka_errors.InconsistentGroupProtocolError():
                return f"consumers of another kind are in group {self.group}: choose a group of its own as kafka.group_id"
            case kafka_errors.KafkaTimeoutError() | kafka_errors.RequestTimedOutError():
                return f"{_where(failure, options)} accepts connections and does not answer: {_listener(options)}"
            case kafka_errors.BrokerResponseError():
                return f"see the log of the broker about topic {self.topic}" + (f" and group {self.group}" if self.group else "")
        return _of_connection(failure, options)


ACLS: Final = "commands: systemd/README.md, and `dwcp-learner check-config`"


def _of_connection(failure: Failure, options: KafkaOptions) -> str:
    text, where = str(failure), _where(failure, options)
    for pattern, advise in _CONNECTION:
        if re.search(pattern, text):
            return advise(where, options)
    return f"{where} closes the connection: {_listener(options)}"


def _listener(options: KafkaOptions) -> str:
    protocol = options.security_protocol
    return f"check that security_protocol ({protocol}), ssl_cafile, sasl_mechanism and the port are those of this listener of the broker"


def _where(failure: Failure, options: KafkaOptions) -> str:
    return failure.address or options.servers()


def _file(name: str, options: KafkaOptions) -> str:
    path = getattr(options, name)
    return f"{name} ({path})" if path is not None else f"{name} (not set)"


_CONNECTION: Final[tuple[tuple[str, Callable[[str, KafkaOptions], str]], ...]] = (
    (
        r"DNS|Name or service not known|name resolution|nodename nor servname",
        lambda where, _: f"this machine cannot resolve the name in {where}: correct it, or its name server or /etc/hosts",
    ),
    (
        r"refused|ECONNREFUSED",
        lambda where, _: f"nobody listens at {where}: see that the broker runs, and that this is the port of its listener",
    ),
    (
        r"unreachable|No route|timed out|E(HOST|NET)UNREACH|ETIMEDOUT",
        lambda where, options: (
            f"nothing answers at {where}: see that the broker runs and that no firewall is in between; then check that security_protocol "
            f"({options.security_protocol}) is that of this listener"
        ),
    ),
    (
        r"[Hh]ostname mismatch|IP address mismatch|doesn't match",
        lambda where, _: f"the certificate of {where} is for another name: use the name in it, or have one made for this one",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED.*expired",
        lambda where, _: f"the certificate of {where}, or of its authority, has expired: renew it (or set this machine's clock)",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        lambda where, options: (
            f"the certificate of {where} is not signed by an authority in {_file('ssl_cafile', options)}: set it to one that is"
        ),
    ),
    (
        r"(?i)alert.*(unknown ca|bad certificate|certificate (required|expired|unknown))|handshake.failure",
        lambda where, options: (
            f"{where} rejects this client's certificate: set {_file('ssl_certfile', options)} and ssl_keyfile to one "
            "signed by an authority that it trusts"
        ),
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER|UNEXPECTED_EOF|unexpected eof|PACKET_LENGTH",
        lambda where, options: (
            f"{where} does not speak TLS: security_protocol is {options.security_protocol}; use that of the listener, or another port"
        ),
    ),
    (
        r"NO_CERTIFICATE|X509|PEM|Permission denied|No such file",
        lambda _, options: (
            f"a TLS file cannot be used any more: check {_file('ssl_cafile', options)}, {_file('ssl_certfile', options)} and "
            f"{_file('ssl_keyfile', options)} with `dwcp-learner check-config`"
        ),
    ),
)
"""Patterns of the text of a connection error, and what to do about it. The first match counts."""
