"""Check the value of a Kafka option: its type, its range, and its relation to others.

The client itself finds most mistakes only in the middle of a connection, as an exception that names no option, and tries again for ever.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlparse

from kafka import KafkaConsumer, KafkaProducer

DEFAULTS: Final[dict[str, Any]] = KafkaProducer.DEFAULT_CONFIG | KafkaConsumer.DEFAULT_CONFIG
OBJECTS: Final = frozenset(("metric_reporters", "sasl_oauth_token_provider", "socket_options", "ssl_context"))
"""Options whose values are objects of Python: no configuration file can hold one."""
_WITHOUT_EFFECT: Final = {
    "ssl_ciphers": "kafka-python 3.0.12 does not pass it on: leave it out, and choose the ciphers at the broker",
    "ssl_crlfile": "kafka-python 3.0.12 cannot load one: leave it out, and renew the authority (ssl_cafile) of a revoked broker",
}
"""Options that the client has but ignores: they would suggest a protection that does not exist."""
_NUMBERS: Final = frozenset(("receive_buffer_bytes", "send_buffer_bytes"))
"""Numbers whose default is None, which does not show their type."""
_ZERO: Final = frozenset(("batch_size", "fetch_max_wait_ms", "fetch_min_bytes", "linger_ms", "metadata_max_age_ms", "reconnect_backoff_ms",
                          "retry_backoff_ms"))  # fmt: skip
"""Numbers that may be 0."""
_NUMBER_MAX: Final = 2**31 - 1
"""Largest number in the protocol."""
_IN_FLIGHT_MAX: Final = 5
"""More requests in flight would break the order of events (https://kafka.apache.org/documentation/#producerconfigs)."""
_CHOICES: Final = {
    "client_dns_lookup": ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
    "compression_type": tuple(name for name, (installed, _) in KafkaProducer._COMPRESSORS.items() if name is not None and installed()),
    "isolation_level": ("read_committed", "read_uncommitted"),
}
_ORDER: Final = (
    ("fetch_max_wait_ms", "request_timeout_ms"),
    ("request_timeout_ms", "connections_max_idle_ms"),
    ("heartbeat_interval_ms", "session_timeout_ms"),
)
"""Pairs of options of which the first has to be less than the second."""
_PROXIES: Final = ("http", "socks5", "socks5h")

_KINDS: Final[dict[type, str]] = {bool: "true or false", int: "a whole number", float: "a number"}


def typed(name: str, value: Any) -> Any:
    """Return the value of an option in its type. A variable is always a string, and the string "false" would count as true.

    Args:
        name: Name of the option.
        value: From a file or a variable.

    Raises:
        ValueError: The value has another type. The message begins with the name.
    """
    kind = kind_of(name)
    if not isinstance(value, str) or kind is None or kind is str:
        return value
    try:
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise ValueError(f"{name}: {value!r} is not {_KINDS[kind]}") from None


def kind_of(name: str) -> type[bool] | type[int] | type[float] | type[str] | None:
    """Return the type of the value of an option; None for one that needs an object, or that the client does not have."""
    if name in OBJECTS or name not in DEFAULTS:
        return None
    default = DEFAULTS[name]
    for kind in (bool, int, float):
        if isinstance(default, kind) or (kind is int and name in _NUMBERS):
            return kind
    return str


def check_value(name: str, value: Any) -> None:
    """Check one value. None is the client's own default.

    Args:
        name: Name of the option.
        value: Its value.

    Raises:
        ValueError: The client could not work with the value. The message begins with the name.
    """
    kind = kind_of(name)
    if value is None:
        return
    if (why := _WITHOUT_EFFECT.get(name)) is not None:
        raise ValueError(f"{name} cannot work: {why}")
    if name in OBJECTS and isinstance(value, str | int | float):
        raise ValueError(f"{name} needs a Python object and cannot be set in a configuration: remove it")
    if kind is str and not isinstance(value, str):
        raise ValueError(f"{name} is {_what(value)}: write it in quotes")
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{name} is {_what(value)}: write true or false, without quotes")
    if kind in (int, float):
        _check_number(name, value, whole=kind is int)
    if kind is str:
        _check_text(name, value)


def check_together(values: Mapping[str, Any]) -> None:
    """Check values that exclude each other.

    Args:
        values: All options of one client, with its defaults.

    Raises:
        ValueError: Two values exclude each other.
    """
    for less, more in _ORDER:
        if less in values and more in values and not values[less] < values[more]:
            raise ValueError(f"{less} ({values[less]}) has to be less than {more} ({values[more]}): lower {less} or raise {more}")


def check_mechanism(mechanism: str, client: Mapping[str, Any]) -> None:
    """Check the options that a SASL mechanism needs.

    Args:
        mechanism: Name of the mechanism.
        client: Further options by kafka-python's names.

    Raises:
        ValueError: Something is missing.
    """
    if mechanism == "GSSAPI" and importlib.util.find_spec("gssapi") is None:
        raise ValueError("sasl_mechanism GSSAPI needs the package gssapi, which is not installed: install it (pip install gssapi)")
    if mechanism == "OAUTHBEARER" and client.get("sasl_oauth_token_provider") is None:
        raise ValueError("sasl_mechanism OAUTHBEARER needs a token provider, a Python object that no configuration can hold: use SCRAM")


def _check_number(name: str, value: Any, *, whole: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {_what(value)}: write a {'whole number' if whole else 'number'}, without quotes")
    least = 0 if name in _ZERO else 1
    most = _IN_FLIGHT_MAX if name == "max_in_flight_requests_per_connection" else _NUMBER_MAX
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}: it has to be from {least} to {most}")


def _check_text(name: str, value: str) -> None:
    if not value.strip() and DEFAULTS[name] != "":
        raise ValueError(f"{name} is empty: give a value, or leave it out")
    if (choices := _CHOICES.get(name)) is not None and value not in choices:
        raise ValueError(f"{name} is {value!r}: use one of {', '.join(choices)}")
    if name in ("proxy_url", "socks5_proxy") and (urlparse(value).scheme not in _PROXIES or not urlparse(value).hostname):
        raise ValueError(f"{name} is not the address of a proxy: write it as {' or '.join(f'{scheme}://host:port' for scheme in _PROXIES)}")
    if name == "api_version" and value != "auto" and not re.fullmatch(r"\d{1,3}(\.\d{1,3}){1,3}", value, re.ASCII):
        raise ValueError(f'{name} is {value!r}: write the version of the broker in quotes, as "3.9", or leave it out')
    if name == "group_instance_id" and not re.fullmatch(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}", value, re.ASCII):
        raise ValueError(f"{name} is {value!r}: use 1 to 249 letters, digits, '.', '_' and '-'")


def _what(value: Any) -> str:
    match value:
        case bool():
            return f"{value}".lower()
        case int() | float():
            return "a number" if math.isfinite(value) else f"{value}"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"of type {type(value).__name__}"
