"""What operators see: operational events, each defined once here, logged and counted together; and the metrics."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from features.telemetry import TARGETS

EVENTS: Final[dict[str, tuple[str, str]]] = {
    "daemon_started": ("info", "the loop begins"),
    "daemon_ready": ("info", "connected, and the first poll has returned"),
    "daemon_not_ready": ("warning", "/readyz has turned to 503, with the reasons and what to do"),
    "daemon_ready_again": ("info", "/readyz is back to 200"),
    "daemon_stopping": ("info", "a signal, or the end of a finite source"),
    "daemon_stopped": ("info", "state is written, everything is closed"),
    "config_reloaded": ("info", "SIGHUP: what can change while running has changed"),
    "config_rejected": ("error", "SIGHUP: the new configuration is not valid; the old one stays"),
    "partition_assigned": ("info", "with the offset at which it goes on"),
    "records_passed_over": ("warning", "no state of this partition: the group's committed offset, or the earliest record, is the start"),
    "group_ahead": (
        "warning",
        "the group has committed beyond this member's checkpoint: where it goes on, and whose the records between are",
    ),
    "partition_released": ("info", "its state is written for the next owner"),
    "partition_lost": ("warning", "another member owns it already; its state here is dropped"),
    "record_rejected": ("warning", "the first of its kind in a batch; the record is in the dead letters"),
    "links_evicted": ("warning", "a partition has more links than links.max: those not seen for longest are forgotten, from now on"),
    "links_split": ("warning", "records of the same link come in several partitions at once: the topic is not keyed by link"),
    "links_moved": ("warning", "links come in another partition from now on: their windows and detectors begin anew"),
    "watch_reviewed": ("info", "links that were silent for a day have given their places among the watched to others"),
    "names_forgotten": ("warning", "a category has more names than can be told apart: those not seen for longest go; who brings most"),
    "clock_behind": (
        "error",
        "by this machine's clock nearly all records are of the future, by Kafka's times they are not: they wait until it is set",
    ),
    "clock_right": ("info", "the records that waited for this machine's clock were taken"),
    "clock_believed": ("warning", "the wait for a corrected clock is over: records with timestamps in the future are refused again"),
    "clock_ahead": ("warning", "this machine's clock is ahead of the times at which records are written just now"),
    "event_time_undone": ("warning", "event time was in the future because a clock was wrong: it has been reset"),
    "buckets_undone": ("warning", "one-minute buckets had been closed for times in the future: they are open again"),
    "regions_forgotten": ("warning", "there are more regions than can be kept: those not heard of for longest have gone"),
    "forecasts_shed": ("warning", "the stream is too far behind: no forecasts until it has caught up"),
    "forecasts_resumed": ("info", "the stream has caught up"),
    "catching_up": ("info", "behind by many records for a while, as after a start; told again when it has lasted twice as long"),
    "caught_up": ("info", "no longer behind"),
    "state_closed": ("warning", "other users could read or change the state directory; now they cannot"),
    "checkpoint_failed": ("error", "the state could not be written; nothing is lost, it is tried again"),
    "checkpoint_slow": ("warning", "a checkpoint takes long; after a minute the daemon is not ready"),
    "checkpoint_unsound": ("error", "a checkpoint on disk is damaged; an older one is used"),
    "segment_unsound": ("error", "a file of the training buffer is missing or damaged; the stream goes on without it"),
    "cleaning_failed": ("warning", "files that nobody needs any more could not be deleted; it is tried again"),
    "source_paused": ("warning", "unsealed rows, or events that are not delivered, have reached their limit"),
    "source_resumed": ("info", "rows could be sealed, or events delivered, again"),
    "events_rotated": ("warning", "a file of events was full and is NAME.1 now; the older one of that name is gone, with so many bytes"),
    "model_missing": ("info", "no version yet: the first is trained when there are enough rows"),
    "model_live": ("info", "forecasts come from this version from now on"),
    "model_unusable": ("error", "a version cannot be loaded, or must not be live; the one before stays"),
    "model_rolled_back": ("warning", "a person went back to this version: it is pinned, and no training starts until `models unpin`"),
    "model_pinned": ("info", "a person has pinned this version: it stays live, and no training starts until `models unpin`"),
    "model_unpinned": ("info", "the version stays live until a training publishes another one"),
    "choice_ignored": ("error", "CHOICE in the models folder is damaged, or not signed by the key: it has no effect"),
    "drift_opened": ("warning", "a region drifts: an alert was sent"),
    "drift_updated": ("warning", "an open incident has grown"),
    "drift_closed": ("info", "an incident has ended"),
    "training_waits": ("info", "there is no version yet: what its training waits for, and how much of that is there"),
    "training_due": ("info", "and why; it starts after a checkpoint"),
    "training_started": ("info", "the child process runs"),
    "training_progress": ("info", "how far a running training is, every 30 s: stage, epoch, losses, and seconds left of its time limit"),
    "training_finished": ("info", "the child has ended, with its result"),
    "training_failed": ("error", "the child failed, crashed or ran out of time; the stream goes on"),
    "training_cancelled": ("info", "the daemon stops"),
    "model_published": ("info", "verified, renamed, named by CURRENT, announced"),
    "publication_slow": ("warning", "verifying and writing a candidate takes long; the previous version still forecasts"),
    "model_refused": ("warning", "the gate found the candidate no better; it is kept with the reasons"),
    "publication_failed": ("error", "the candidate did not verify or could not be written"),
    # From the Kafka client.
    "kafka_connected": ("info", "connected"),
    "kafka_unreachable": ("warning", "no broker; it is tried again with back-off"),
    "kafka_refused": ("error", "the broker answers, but not to this user, or not in a way that the client can read"),
    "kafka_error": ("error", "anything else that the Kafka client cannot go on from by itself; it is tried again"),
    "kafka_commit_failed": ("warning", "lag monitors see an old offset; the checkpoint is what counts"),
    "kafka_close_failed": ("warning", "the group was not left in order; its partitions are free after the session time-out"),
    "topic_missing": ("warning", "the topic is not there; it is looked for until it is"),
    "kafka_joining": ("warning", "connected, but the group has not given this member its partitions for 10 s"),
    "records_held": ("warning", "an open transaction of a producer keeps the records behind it from being read, for more than 60 s"),
    "records_without_key": ("warning", "the topic has several partitions, and its records no key that puts those of a link into one"),
    "partitions_added": ("warning", "the topic has more partitions than before: keys hash to others, and links move"),
    "records_lost": ("error", "the next records were deleted or are others now; it goes on, as kafka.accept_lost_records says"),
    "event_refused": ("error", "an event is too large for its topic, and was given up"),
    "events_unsent": ("error", "events were not acknowledged before the end; the records they come from are read again"),
    "kafka_event": ("warning", "any other condition that the Kafka client tells"),
}
"""Name of each event, its log level and what it means."""


RECENT_ALERTS: Final = 50


class Observer:
    """Tells events and keeps the metrics of one process."""

    def __init__(self, listen: Callable[[str, dict[str, Any]], None] | None = None, unlogged: Collection[str] = ()) -> None:
        """listen: is told every event too (the demo's screen). unlogged: events that it shows a person, so that the log need not."""
        self._listen, self._unlogged = listen, unlogged
        self._log = structlog.get_logger("dwcp-learner")
        self._alerts: deque[tuple[str, dict[str, Any]]] = deque(maxlen=RECENT_ALERTS)
        self.registry = CollectorRegistry()
        self.events = Counter("dwcp_events", "Operational events by name", ["event"], registry=self.registry)
        self.records = Counter("dwcp_records", "Telemetry records by what became of them", ["outcome"], registry=self.registry)
        self.rejected = Counter("dwcp_records_rejected", "Dead letters by kind", ["kind"], registry=self.registry)
        self.missing = Counter("dwcp_metrics_missing", "Accepted records without a primary metric", ["metric"], registry=self.registry)
        self.window_restarts = Counter("dwcp_window_restarts", "Windows restarted after a gap", registry=self.registry)
        self.forecasts = Counter("dwcp_forecasts", "Forecasts made for watched links", registry=self.registry)
        self.shed = Counter("dwcp_forecasts_shed", "Rows of watched links that got no forecast while catching up", registry=self.registry)
        self.error_sum = Counter(
            "dwcp_forecast_error_sum", "Absolute error, in the target's unit", ["target", "by"], registry=self.registry
        )
        self.error_count = Counter("dwcp_forecast_error_count", "Forecasts that met their measurement", ["target"], registry=self.registry)
        self.alerts = Counter(
            "dwcp_alerts", "Alerts by kind of change, scope and group", ["kind", "scope", "group"], registry=self.registry
        )
        self.alerts_in_a_week = Gauge("dwcp_alerts_in_a_week", "Incidents opened in the last week of event time", registry=self.registry)
        self.alerts_budget = Gauge(
            "dwcp_alerts_budget_per_week", "False alerts that are accepted (drift.false_alerts_per_week)", registry=self.registry
        )
        self.late_samples = Gauge("dwcp_region_samples_late", "Messages that came after their bucket had closed", registry=self.registry)
        self.stage_s = Counter("dwcp_stage_seconds", "CPU seconds of the loop's thread by stage", ["stage"], registry=self.registry)
        self.links = Gauge("dwcp_links", "Links known", registry=self.registry)
        self.split_links = Gauge("dwcp_links_split", "Links whose records come in several partitions at once", registry=self.registry)
        self.keyless = Counter(
            "dwcp_records_without_key", "Records without a key, of a topic of several partitions", registry=self.registry
        )
        self._keyless = 0
        self.moved_links = Gauge("dwcp_links_moved", "Links that moved to another partition, since the start", registry=self.registry)
        self.evicted = Counter("dwcp_links_evicted", "Links forgotten because there were more than links.max", registry=self.registry)
        self.names_forgotten = Counter(
            "dwcp_names_forgotten", "Values of categories forgotten because there were too many", ["category"], registry=self.registry
        )
        self.clock_ahead = Gauge(
            "dwcp_clock_ahead_seconds", "This machine's clock less the time at which records are written just now", registry=self.registry
        )
        self.clock_waits = Gauge("dwcp_clock_waits", "Partitions that wait for this machine's clock", registry=self.registry)
        self.time_undone = Counter("dwcp_event_time_undone", "How often an event time that ran away was undone", registry=self.registry)
        self.regions_forgotten = Counter("dwcp_regions_forgotten", "Regions forgotten: there were too many", registry=self.registry)
        self.watched_links = Gauge("dwcp_watched_links", "Links that are forecast and judged", registry=self.registry)
        self.buffer_rows = Gauge("dwcp_buffer_rows", "Rows in sealed segments", registry=self.registry)
        self.open_rows = Gauge("dwcp_buffer_open_rows", "Rows not sealed yet", registry=self.registry)
        self.lag = Gauge("dwcp_lag_records", "Records behind the end of the assigned partitions", registry=self.registry)
        self.held = Gauge(
            "dwcp_lag_held_records",
            "Those of dwcp_lag_records that cannot be read: a transaction is open before them",
            registry=self.registry,
        )
        self.event_time = Gauge("dwcp_event_time_seconds", "Newest event time of any partition", registry=self.registry)
        for gauge in (self.lag, self.event_time, self.clock_ahead):  # unknown is not 0
            gauge.set(math.nan)
        self.incidents = Gauge("dwcp_incidents_open", "Open drift incidents", registry=self.registry)
        self.checkpoint_s = Histogram("dwcp_checkpoint_seconds", "Time to write a checkpoint", registry=self.registry)
        self.checkpoint_time = Gauge("dwcp_checkpoint_time_seconds", "When the last checkpoint became true", registry=self.registry)
        self.training = Gauge("dwcp_training_running", "1 while a training runs", registry=self.registry)
        self.model = Gauge("dwcp_model_live", "1 for the live version", ["version"], registry=self.registry)
        self.model_pinned = Gauge("dwcp_model_pinned", "1 while the live version is pinned: no training starts", registry=self.registry)
        self.live = Gauge("dwcp_live", "0 where the loop makes no progress and a restart is called for", registry=self.registry)
        self.ready = Gauge("dwcp_ready", "0 where /readyz says what is wrong", registry=self.registry)

    def watch(self, not_live: Callable[[], list[str]], not_ready: Callable[[], list[str]]) -> None:
        """Asks these at every scrape: a loop that hangs could not set its gauges any more."""
        self.live.set_function(lambda: not not_live())
        self.ready.set_function(lambda: not not_ready())

    def tell(self, event: str, **fields: Any) -> None:
        """Logs and counts one event of EVENTS; KeyError for any other name."""
        level, _ = EVENTS[event]
        self.events.labels(event).inc()
        if event.startswith("drift_"):
            self._alerts.append((event, fields))
        if event not in self._unlogged:
            self._log.log(getattr(logging, level.upper()), event, **fields)
        if self._listen is not None:
            self._listen(event, fields)

    def tell_kafka(self, event: str, fields: dict[str, object]) -> None:
        """Events of the Kafka client, under their own name where EVENTS has it."""
        if event in EVENTS:
            self.tell(event, **fields)
        else:
            self.tell("kafka_event", condition=event, **fields)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the CPU time of the block to its stage."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            self.stage_s.labels(name).inc(time.thread_time() - began_s)

    def count_keyless(self, records: int) -> None:
        """records: without a key, since the start."""
        self.keyless.inc(max(0, records - self._keyless))
        self._keyless = max(records, self._keyless)

    def recent_alerts(self) -> list[tuple[str, dict[str, Any]]]:
        """The last changes of incidents that were told, oldest first: event and fields. For any thread."""
        return list(self._alerts)

    def went_live(self, version: str) -> None:
        """Show a version as the live one."""
        self.model.clear()
        self.model.labels(version).set(1)

    def pin(self, version: str | None) -> None:
        """Show whether a version is pinned; None: no version is."""
        self.model_pinned.set(version is not None)

    def measured(self, target: int, error: float, persistence_error: float, count: int) -> None:
        """Sums of absolute errors of `count` forecasts of one target."""
        name = TARGETS[target]
        self.error_sum.labels(name, "model").inc(error)
        self.error_sum.labels(name, "persistence").inc(persistence_error)
        self.error_count.labels(name).inc(count)
