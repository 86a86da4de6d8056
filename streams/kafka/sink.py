"""Events to a Kafka topic: queued at once, sent in order by a thread, and kept until every in-sync replica has them."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import Final

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from streams.events import CONTENT_TYPE, Event
from streams.kafka.connection.advice import REFUSALS, Errand, Failure
from streams.kafka.connection.client import BrokerClient, NotConnectedError, unreachable
from streams.kafka.connection.options import Backoff, EventHandler, KafkaOptions
from streams.kafka.faults import GRACE_S, Faults
from streams.kafka.outbox import Outbox
from streams.kafka.producer import close_producer, open_producer
from streams.sinks import NotSentError, Sink

CLOSE_TIMEOUT_S: Final = 5.0
TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class SinkError(Exception):
    """A sink cannot accept events, and waiting would not help. The message has the problem, the place and what to do."""


class KafkaSink(Sink):
    """Write events to one topic. Nothing connects before the first send.

    The key of a record is the subject of its event, so that the events of one subject stay in order. Its headers are content-type and those
    of the event. After a failure an event may arrive twice, with the same id.

    Args:
        topic: Name of the topic.
        options: How to reach the cluster.
        on_event: Is called with name and fields of operational events, on the thread of the caller, within send, flush and close:
            `kafka_connected`, `kafka_unreachable`, `kafka_refused`, `kafka_error`, `topic_missing`, `event_refused` (too large for the
            topic: the only case in which an event is given up) and, at close, `events_unsent`.
    """

    def __init__(self, topic: str, options: KafkaOptions, on_event: EventHandler) -> None:
        self._topic = topic
        self._options = options
        self._errand = Errand(options, topic)
        self._on_event = on_event
        self._reports: deque[tuple[str, dict[str, object]]] = deque()
        self._faults = Faults()
        self._trouble: tuple[str, str] | None = None  # why events cannot be sent, and what to do
        self._outbox = Outbox()
        self._changed = self._outbox.changed  # guards the four below as well
        self._failure: Exception | None = None  # ends the producer; the next one goes on
        self._fatal: Exception | None = None  # ends the sink
        self._producers = 0  # how many there have been: answers of an earlier one do not count
        self._one_by_one_to = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kafka-{topic}", daemon=True)
        self._client: BrokerClient | None = None
        self._producer: KafkaProducer | None = None
        self._backoff = Backoff()
        self._linked_at_s = 0.0

    # --- the caller's thread ---

    def send(self, event: Event) -> None:
        """Queue one event.

        Raises:
            ValueError: The sink is closed.
            SinkError: The options cannot work.
        """
        self._raise_fatal()
        if self._closing.is_set():
            raise ValueError(f"send to topic {self._topic} after close")
        self._outbox.put(event)
        if not self._thread.is_alive():
            self._thread.start()
        self._emit_events()

    def flush(self, timeout_s: float) -> None:
        """Wait up to timeout_s until every in-sync replica has all events that were sent so far.

        Raises:
            TimeoutError: Events are not acknowledged; they stay queued. A NotSentError has the reason.
            SinkError: The options cannot work.
        """
        with self._changed:
            last = self._outbox.last()
            acknowledged = self._changed.wait_for(lambda: self._outbox.settled_to(last) or self._fatal, timeout_s)
        self._emit_events()
        self._raise_fatal()
        if not acknowledged:
            where = f"topic {self._topic} at {self._options.servers()}"
            what = f"{self.pending()} events for {where} are not acknowledged after {timeout_s:g} s; they stay queued"
            if self._trouble:
                raise NotSentError(f"{what} ({self._trouble[0]})", self._trouble[1])
            raise TimeoutError(what)

    def pending(self) -> int:
        """Return how many events are not acknowledged yet."""
        return self._outbox.pending()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Flush for up to timeout_s, then drop the rest and report that (`events_unsent`)."""
        if self._closing.is_set():
            return
        try:
            self.flush(timeout_s)
        except (TimeoutError, SinkError) as error:
            self._reports.append(("events_unsent", {"topic": self._topic, "events": self.pending(), "error": str(error)}))
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._emit_events()

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            todo = "correct the Kafka options and start again"
            raise SinkError(f"events cannot be sent to topic {self._topic}: {self._fatal!r}; {todo}") from self._fatal

    def _emit_events(self) -> None:
        while self._reports:
            self._on_event(*self._reports.popleft())

    # --- the thread of the sink ---

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whatever ends this thread is raised by the next send or flush
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
        """Return False if there is no broker, after waiting for the time of the next try."""
        if self._producer is not None:
            return True
        if (reason := unreachable(self._options)) is not None:
            todo = f"see that a broker of {self._options.servers()} runs and answers"
            self._retry_later("kafka_unreachable", {"error": reason, "todo": todo})
            return False
        try:
            self._producer, self._client = open_producer(self._options)
        except NotConnectedError as error:
            self._failed_with("kafka_unreachable", error.failure)
            return False
        self._linked_at_s = time.monotonic()
        self._report_connected()
        return True

    def _hand_over(self) -> None:
        """Pass the oldest queued event to the client, which buffers it. Blocks for 2 s while the topic is unknown."""
        assert self._producer is not None
        number, event = self._outbox.next_event()
        headers = [("content-type", CONTENT_TYPE), *event.headers]
        try:
            future = self._producer.send(self._topic, value=event.encode(), key=event.subject.encode(), headers=headers)
        except TOO_LARGE as error:  # by the limit of the client: no other event is concerned
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
        """Handle a topic that the client does not know: it is missing, or the broker has gone.

        What is under way goes out again in both cases, so that the order holds.
        """
        assert self._client is not None
        if self._client.linked():
            todo = (
                f"create topic {self._topic}, or correct its name (`dwcp-learner check-config` prints the command); the events wait for it"
            )
            self._retry_later("topic_missing", {"error": f"topic {self._topic} does not exist", "todo": todo})
        with self._changed:
            self._failure = self._failure or error

    def _watch(self) -> None:
        """Notice a lost connection while events wait for their acknowledgement."""
        if self._client is None or self._producer is None:
            return
        now_s = time.monotonic()
        if self._client.linked():
            self._linked_at_s = now_s
            if self._faults.reported("kafka_unreachable"):
                self._report_connected()
        elif self.pending() and now_s - self._linked_at_s > GRACE_S:
            retry_in_s = round(self._client.least_loaded_node_refresh_ms() / 1000, 1)
            failure = self._client.failure or Failure(kafka_errors.KafkaConnectionError("connection lost"))
            name = "kafka_refused" if isinstance(failure.error, REFUSALS) else "kafka_unreachable"
            self._report(name, {"error": str(failure), "todo": self._errand.advice(failure), "retry_in_s": retry_in_s})

    def _start_over(self) -> None:
        """End the producer after a failed event. All that it still had goes out again, in the old order, by the next producer."""
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
        self._report(name, fields | {"retry_in_s": round(delay_s, 1)})
        self._closing.wait(delay_s)

    def _report(self, name: str, fields: dict[str, object]) -> None:
        """Report a fault, and again only if it has lasted for REPEAT_AFTER_S."""
        self._trouble = (str(fields["error"]), str(fields["todo"])) if "todo" in fields else None
        if self._faults.is_due(name):
            self._reports.append((name, {"servers": self._options.servers(), "topic": self._topic} | fields))

    def _report_connected(self) -> None:
        self._faults.clear()
        self._report("kafka_connected", {})
        self._faults.clear()

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)

    # --- the client's thread ---

    def _acknowledged(self, producer: int, number: int, _metadata: object) -> None:
        with self._changed:
            if producer == self._producers:
                self._trouble = None
                self._backoff.reset()
                self._outbox.settle(number)

    def _failed(self, producer: int, number: int, event: Event, error: Exception) -> None:
        """Handle an event that failed.

        After one event that is too large for the topic, an idempotent producer fails all others with the same error. So the events that
        were under way go out again one by one, and the one that fails alone is given up.
        """
        with self._changed:
            if producer != self._producers or self._failure is not None:
                return  # a consequence of another failure: it goes out again with all that is under way
            self._failure = error
            if isinstance(error, TOO_LARGE) and number <= self._one_by_one_to:
                self._give_up(number, event, error)
            elif isinstance(error, TOO_LARGE):
                self._one_by_one_to = self._outbox.last()
            self._changed.notify_all()

    def _give_up(self, number: int, event: Event, error: Exception) -> None:
        todo = f"raise max.message.bytes of topic {self._topic}; the event is given up"
        self._reports.append(("event_refused", {"topic": self._topic, "id": event.id, "error": str(error), "todo": todo}))
        self._outbox.settle(number)
