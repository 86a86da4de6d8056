"""Events to a Kafka topic: queued at once, sent in order by a thread, kept until every in-sync replica has them."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import Any, Final

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from streams.events import CONTENT_TYPE, Event
from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import BrokerClient, unreachable
from streams.kafka.connection.options import Backoff, EventHandler, KafkaOptions
from streams.kafka.outbox import Outbox
from streams.kafka.watch import GRACE_S, REPEAT_AFTER_S
from streams.sinks import NotSentError

CLOSE_TIMEOUT_S: Final = 5.0
NEVER_MS: Final = 2**31 - 1  # 25 days: the client retries through any outage, instead of failing a batch in the middle of an order

DEFAULTS: Final = {
    "bootstrap_timeout_ms": 5_000,  # a TCP connection is there already; this covers TLS, SASL and the first answer
    "linger_ms": 5,  # dead letters come in bursts: a few batches instead of a request each
    "max_request_size": 32_000_000,  # a dead letter holds the original record; the topic's own limit decides
    "metrics_enabled": False,
    "reconnect_backoff_ms": 500,
    "reconnect_backoff_max_ms": 10_000,  # a broker that is back is seen within ten seconds
}
TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class SinkError(Exception):
    """A sink cannot take events, and waiting would not help: the message says what, where and what to do."""


class KafkaSink:
    """Writes events to one topic. Implements streams.sinks.Sink.

    The record's key is the event's subject, so that the events of one subject stay in order; its headers are content-type and
    those of the event. After a failure an event may arrive twice, with the same id.

    Nothing connects before the first send. on_event gets `kafka_connected`, `kafka_unreachable`, `kafka_refused`, `kafka_error`,
    `topic_missing`, `event_refused` (too large for the topic: the one case in which an event is given up) and, at close,
    `events_unsent`, on the caller's thread, within send, flush and close.
    """

    def __init__(self, topic: str, options: KafkaOptions, on_event: EventHandler) -> None:
        self._topic = topic
        self._options = options
        self._errand = Errand(options, topic)
        self._on_event = on_event
        self._told: deque[tuple[str, dict[str, object]]] = deque()
        self._told_at_s: dict[str, float] = {}
        self._trouble: tuple[str, str] | None = None  # what keeps events from being sent, and what to do
        self._outbox = Outbox()
        self._changed = self._outbox.changed  # guards the four below as well
        self._failure: Exception | None = None  # ends the producer; the next one goes on
        self._fatal: Exception | None = None  # ends the sink
        self._producers = 0  # how many there have been: an answer of an earlier one counts no more
        self._one_by_one_to = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kafka-{topic}", daemon=True)
        self._client: BrokerClient | None = None
        self._producer: KafkaProducer | None = None
        self._backoff = Backoff()
        self._linked_at_s = 0.0

    # --- the caller's thread ---

    def send(self, event: Event) -> None:
        """See Sink. ValueError after close; SinkError when the options cannot work."""
        self._raise_fatal()
        if self._closing.is_set():
            raise ValueError(f"send to topic {self._topic} after close")
        self._outbox.put(event)
        if not self._thread.is_alive():
            self._thread.start()
        self._tell_events()

    def flush(self, timeout_s: float) -> None:
        """See Sink. SinkError when the options cannot work."""
        with self._changed:
            last = self._outbox.last()
            acknowledged = self._changed.wait_for(lambda: self._outbox.settled_to(last) or self._fatal, timeout_s)
        self._tell_events()
        self._raise_fatal()
        if not acknowledged:
            where = f"topic {self._topic} at {self._options.servers()}"
            what = f"{self.pending()} events for {where} are not acknowledged after {timeout_s:g} s; they stay queued"
            if self._trouble:
                raise NotSentError(f"{what} ({self._trouble[0]})", self._trouble[1])
            raise TimeoutError(what)

    def pending(self) -> int:
        """Events that are not acknowledged yet."""
        return self._outbox.pending()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Flushes for up to timeout_s, then gives up what is left and tells so (`events_unsent`)."""
        if self._closing.is_set():
            return
        try:
            self.flush(timeout_s)
        except (TimeoutError, SinkError) as error:
            self._told.append(("events_unsent", {"topic": self._topic, "events": self.pending(), "error": str(error)}))
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._tell_events()

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            todo = "correct the Kafka options and start again"
            raise SinkError(f"events cannot be sent to topic {self._topic}: {self._fatal!r}; {todo}") from self._fatal

    def _tell_events(self) -> None:
        while self._told:
            self._on_event(*self._told.popleft())

    # --- the thread of the sink ---

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whatever ends this thread is raised by the caller's next send or flush
            with self._changed:
                self._fatal = error
                self._changed.notify_all()
        self._drop_producer()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._watch()
            if self._failure is not None:
                self._start_over()
            with self._changed:
                if not self._changed.wait_for(lambda: self._outbox.waiting() or self._closing.is_set() or self._failure, timeout=1.0):
                    continue
            if not self._closing.is_set() and self._failure is None and self._connected():
                self._hand_over()

    def _connected(self) -> bool:
        """False when there is no broker; the time until the next try has passed then."""
        if self._producer is not None:
            return True
        if (reason := unreachable(self._options)) is not None:
            todo = f"see that a broker of {self._options.servers()} runs and answers"
            self._retry_later("kafka_unreachable", {"error": reason, "todo": todo})
            return False
        try:
            self._producer = KafkaProducer(**self._config())
        except kafka_errors.KafkaConfigurationError:
            raise
        except (kafka_errors.KafkaError, OSError) as error:
            cause = (self._client and self._client.failure) or Failure(error)
            self._drop_client()
            self._failed_with("kafka_unreachable", cause)
            return False
        self._linked_at_s = time.monotonic()
        self._tell_connected()
        return True

    def _config(self) -> dict[str, Any]:
        def keep_client(**config: Any) -> BrokerClient:
            self._client = BrokerClient(**config)
            return self._client

        ours = {"acks": "all", "enable_idempotence": True, "delivery_timeout_ms": NEVER_MS, "max_block_ms": 2_000}
        return DEFAULTS | self._options.producer_config() | ours | {"kafka_client": keep_client}

    def _hand_over(self) -> None:
        """Gives the oldest queued event to the client, which buffers it; blocks for 2 s while the topic is not known."""
        assert self._producer is not None
        number, event = self._outbox.take()
        headers = [("content-type", CONTENT_TYPE), *event.headers]
        try:
            future = self._producer.send(self._topic, value=event.encode(), key=event.subject.encode(), headers=headers)
        except TOO_LARGE as error:  # for the client: nothing else is concerned
            self._give_up(number, event, error)
        except kafka_errors.KafkaTimeoutError as error:
            self._no_topic(error)
        except kafka_errors.KafkaError as error:
            self._failed(self._producers, number, event, error)
        else:
            future.add_callback(partial(self._acknowledged, self._producers, number))
            future.add_errback(partial(self._failed, self._producers, number, event))
            if number <= self._one_by_one_to:
                with self._changed:
                    self._changed.wait_for(lambda: not self._outbox.under_way(number) or self._failure or self._closing.is_set())

    def _no_topic(self, error: Exception) -> None:
        """The client knows nothing of the topic: it is missing, or the broker has gone. What is under way goes out again either way,
        so that the order holds."""
        assert self._client is not None
        if self._client.linked():
            todo = (
                f"create topic {self._topic}, or correct its name (`dwcp-learner check-config` prints the command); the events wait for it"
            )
            self._retry_later("topic_missing", {"error": f"topic {self._topic} is not there", "todo": todo})
        with self._changed:
            self._failure = self._failure or error

    def _watch(self) -> None:
        """Notices a lost connection while events wait for their acknowledgement."""
        if self._client is None or self._producer is None:
            return
        now_s = time.monotonic()
        if self._client.linked():
            self._linked_at_s = now_s
            if "kafka_unreachable" in self._told_at_s:
                self._tell_connected()
        elif self.pending() and now_s - self._linked_at_s > GRACE_S:
            retry_in_s = round(self._client.least_loaded_node_refresh_ms() / 1000, 1)
            failure = self._client.failure or Failure(kafka_errors.KafkaConnectionError("connection lost"))
            name = "kafka_refused" if isinstance(failure.error, REFUSALS) else "kafka_unreachable"
            self._tell(name, {"error": str(failure), "todo": self._errand.advice(failure), "retry_in_s": retry_in_s})

    def _start_over(self) -> None:
        """A failed event ends the producer: all that it still had goes out again, in the old order, by the next one."""
        with self._changed:
            error, self._failure = self._failure, None
            self._producers += 1
        self._drop_producer()
        self._outbox.put_back()
        if error is not None and not isinstance(error, (*TOO_LARGE, kafka_errors.KafkaTimeoutError)):
            self._failed_with("kafka_error", Failure(error))

    def _failed_with(self, name: str, failure: Failure) -> None:
        name = "kafka_refused" if isinstance(failure.error, REFUSALS) else name
        self._retry_later(name, {"error": str(failure), "todo": self._errand.advice(failure)})

    def _retry_later(self, name: str, fields: dict[str, object]) -> None:
        delay_s = self._backoff.next_s()
        self._tell(name, fields | {"retry_in_s": round(delay_s, 1)})
        self._closing.wait(delay_s)

    def _tell(self, name: str, fields: dict[str, object]) -> None:
        """Tells a fault, and again only when it has lasted."""
        self._trouble = (str(fields["error"]), str(fields["todo"])) if "todo" in fields else None
        now_s = time.monotonic()
        if now_s - self._told_at_s.get(name, -REPEAT_AFTER_S) >= REPEAT_AFTER_S:
            self._told_at_s[name] = now_s
            self._told.append((name, {"servers": self._options.servers(), "topic": self._topic} | fields))

    def _tell_connected(self) -> None:
        self._told_at_s.clear()
        self._tell("kafka_connected", {})
        self._told_at_s.clear()

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=0.5)
        except kafka_errors.KafkaError:
            # close() of 3.0.12 gives up at its flush and would leave its thread behind, with the records of ours.
            producer._sender.force_close()
            producer._sender.join(1.0)

    # --- the client's thread ---

    def _acknowledged(self, producer: int, number: int, _metadata: object) -> None:
        with self._changed:
            if producer == self._producers:
                self._trouble = None
                self._backoff.reset()
                self._outbox.settle(number)

    def _failed(self, producer: int, number: int, event: Event, error: Exception) -> None:
        """After one event that is too large for the topic an idempotent producer fails all others with the same error. So the
        events that were under way go out again one by one, and the one that fails alone is the one to give up."""
        with self._changed:
            if producer != self._producers or self._failure is not None:
                return  # a consequence: it goes out again with all that is under way
            self._failure = error
            if isinstance(error, TOO_LARGE) and number <= self._one_by_one_to:
                self._give_up(number, event, error)
            elif isinstance(error, TOO_LARGE):
                self._one_by_one_to = self._outbox.last()
            self._changed.notify_all()

    def _give_up(self, number: int, event: Event, error: Exception) -> None:
        todo = f"raise max.message.bytes of topic {self._topic}; the event is given up"
        self._told.append(("event_refused", {"topic": self._topic, "id": event.id, "error": str(error), "todo": todo}))
        self._outbox.settle(number)
