"""The fleet of a demo: straight into the loop, or through a Kafka topic that a thread writes."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

from daemon.config.load import Config
from daemon.errors import DaemonError
from daemon.operator.observer import Observer
from daemon.wiring import kafka_source
from streams.kafka.connection.client import unreachable
from streams.kafka.connection.options import Backoff, KafkaOptions
from streams.simulator.dataset import messages
from streams.simulator.fleet import FleetSpec
from streams.simulator.source import SimulatorSource
from streams.source import SourceError

PARTITIONS = 4


class LocalFleet:
    """A fleet in memory."""

    def __init__(self, spec: FleetSpec, duration_s: float, history_s: float, speed: float) -> None:
        self.source = SimulatorSource(spec, duration_s, history_s, speed, partitions=PARTITIONS, hold_live=True)

    def go_live(self) -> None:
        """Begin the live part of the telemetry."""
        self.source.go_live()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        """Nothing: the loop closes its source."""


def await_broker(options: KafkaOptions, observer: Observer, limit_s: float) -> float:
    """Wait for a broker, up to limit_s seconds, and report each attempt.

    Returns:
        The seconds that are left.

    Raises:
        SourceError: no broker answered.
    """
    until_s, backoff = time.monotonic() + limit_s, Backoff()
    while (reason := unreachable(options)) is not None:
        delay_s = min(backoff.next_s(), until_s - time.monotonic())
        if delay_s <= 0:
            raise SourceError(
                f"{options.servers()}: no broker within {limit_s:.0f} s ({reason}); start one with make kafka, or correct --kafka"
            )
        observer.emit("kafka_unreachable", servers=options.servers(), error=reason, retry_in_s=round(delay_s, 1))
        time.sleep(delay_s)
    return max(1.0, until_s - time.monotonic())


class KafkaFleet:
    """A fleet through a Kafka topic of its own. The history is produced at once, the rest at `speed` after go_live.

    Raises:
        SourceError: no broker answers within limit_s.
        DaemonError: the cluster refuses the topics.
    """

    def __init__(
        self, spec: FleetSpec, duration_s: float, history_s: float, speed: float, config: Config, observer: Observer, limit_s: float
    ) -> None:
        self._spec, self._duration_s, self._history_s, self._speed = spec, duration_s, history_s, speed
        self._kafka = config.kafka
        self._live, self._closed = threading.Event(), threading.Event()
        topics = (config.kafka.topic, config.events.drift_topic, config.events.models_topic, config.events.dead_letter_topic)
        left_s = await_broker(config.kafka.client_options(), observer, limit_s)
        try:
            admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap_servers, bootstrap_timeout_ms=int(left_s * 1000))
            missing = set(topics) - set(admin.list_topics())
            admin.create_topics([NewTopic(name, PARTITIONS if name == config.kafka.topic else 1, 1) for name in sorted(missing)])
            admin.close()
        except (KafkaConnectionError, KafkaTimeoutError) as error:
            raise SourceError(f"{config.kafka.bootstrap_servers}: no Kafka broker answers there ({error}); correct --kafka") from error
        except KafkaError as error:
            raise DaemonError(
                f"{config.kafka.bootstrap_servers}: the topics cannot be created there ({error}); start a broker with make kafka"
            ) from error
        self.source = kafka_source(config, observer)
        self._thread = threading.Thread(target=self._produce, name="fleet", daemon=True)

    def go_live(self) -> None:
        """Begin the live part of the telemetry."""
        self._live.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self._closed.set()
        self._live.set()
        self._thread.join(10.0)

    def _produce(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._kafka.bootstrap_servers, compression_type="lz4", linger_ms=20, acks="all")
        live_from_s = self._spec.start_s + self._history_s
        began_s = 0.0
        for key, value, time_s in messages(self._spec, self._duration_s):
            if time_s >= live_from_s:
                if not began_s:
                    producer.flush()
                    self._live.wait()
                    began_s = time.monotonic()
                ahead_s = (time_s - live_from_s) / self._speed - (time.monotonic() - began_s)
                if ahead_s > 0 and self._closed.wait(ahead_s):
                    break
            if self._closed.is_set():
                break
            producer.send(self._kafka.topic, key=key, value=value)
        producer.close(5)
