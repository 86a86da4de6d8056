"""Operational events and metrics. Each event is defined once, in this file, and is logged and counted together."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from features.telemetry import TARGETS

EVENTS: Final[dict[str, tuple[str, str]]] = {
    # The process.
    "daemon_started": ("info", "the main loop begins"),
    "daemon_ready": ("info", "the source is connected, and the first poll has returned"),
    "daemon_not_ready": ("warning", "/readyz has changed to 503, with the reasons and what to do"),
    "daemon_ready_again": ("info", "/readyz is back to 200"),
    "daemon_stopping": ("info", "a signal was received, or a finite source has ended"),
    "daemon_stopped": ("info", "the state is written, and everything is closed"),
    "config_reloaded": ("info", "SIGHUP: the settings that can change while the daemon runs have changed"),
    "config_rejected": ("error", "SIGHUP: the new configuration is not valid, and the old one stays"),
    "state_closed": ("warning", "other users could read or change the state directory; now they cannot"),
    # Partitions and records.
    "partition_assigned": ("info", "this member reads a partition from now on, from this offset"),
    "partition_released": ("info", "a partition's state is written for its next owner"),
    "partition_lost": ("warning", "another member owns a partition already, and its state here is dropped"),
    "records_passed_over": ("warning", "a partition without state: reading starts at the group's committed offset, or at the first record"),
    "group_ahead": ("warning", "the group has committed beyond this member's checkpoint: where reading goes on, who has the rest"),
    "record_rejected": ("warning", "records were refused, and are in the dead letters; one event for each kind in a batch"),
    "records_lost": ("error", "the next records were deleted or have changed; reading goes on, as kafka.accept_lost_records permits"),
    "records_held": ("warning", "an open transaction of a producer has held back the records behind it for more than 60 s"),
    "records_without_key": ("warning", "the topic has several partitions, and its records have no key that keeps a link in one of them"),
    "source_paused": ("warning", "unsealed rows, or events that are not delivered, have reached their limit"),
    "source_resumed": ("info", "rows are sealed, or events are delivered, again"),
    "catching_up": ("info", "many records behind for a while, as after a start; logged again when it has lasted twice as long"),
    "caught_up": ("info", "not many records behind any more"),
    # Links, regions and categories.
    "links_evicted": ("warning", "a partition has more links than links.max: those not seen for longest are forgotten"),
    "links_split": ("warning", "records of the same link come in several partitions at once: the topic is not keyed by link"),
    "links_moved": ("warning", "links come in another partition now: their windows and detectors start anew"),
    "watch_reviewed": ("info", "monitored links that were silent for a day have lost their places to others"),
    "names_forgotten": ("warning", "a category has too many names: those not seen for longest are forgotten; which links send most"),
    "alerts_judged_anew": ("warning", "incidents of the last week are many times the budget, or no more: see strictness"),
    "regions_forgotten": ("warning", "there are too many regions: those not seen for longest are forgotten"),
    # Time.
    "clock_behind": ("error", "nearly all records are of the future by this machine's clock, but not by Kafka's: they wait for it"),
    "clock_right": ("info", "the records that waited for this machine's clock are read"),
    "clock_believed": ("warning", "nobody has set the clock in time: records with timestamps in the future are refused again"),
    "clock_ahead": ("warning", "this machine's clock is ahead of the times at which records are written now"),
    "event_time_undone": ("warning", "event time was in the future because a clock was wrong: it has been reset"),
    "buckets_undone": ("warning", "one-minute buckets were closed for times in the future: they are open again"),
    # State on disk.
    "checkpoint_failed": ("error", "the state could not be written; nothing is lost, and it is tried again"),
    "checkpoint_slow": ("warning", "a checkpoint takes long; after a minute the daemon is not ready"),
    "checkpoint_unsound": ("error", "a checkpoint on disk is damaged, and an older one is used"),
    "segment_unsound": ("error", "a file of the training buffer is missing or damaged; the stream goes on without it"),
    "cleaning_failed": ("warning", "files that are not needed any more could not be deleted; it is tried again"),
    # Models.
    "model_missing": ("info", "there is no version yet: the first is trained when there are enough rows"),
    "model_live": ("info", "forecasts come from this version from now on"),
    "model_unusable": ("error", "a version cannot be loaded, or must not be live; the one before stays"),
    "model_rolled_back": ("warning", "a person went back to this version: it is pinned, and no training starts until `models unpin`"),
    "version_behind": ("warning", "the live version is worse than what is published, beyond chance: a training is asked for"),
    "version_proved": ("info", "a new version was not worse than the one before on later rows of the same links: what it has brought"),
    "version_withdrawn": ("warning", "a new version was worse than the one before on later rows: that one is live again"),
    "version_worse": ("warning", "a new version was worse than the one before, and stays, with the reason"),
    "model_pinned": ("info", "a person has pinned this version: it stays live, and no training starts until `models unpin`"),
    "model_unpinned": ("info", "the version stays live until a training publishes another one"),
    "choice_ignored": ("error", "CHOICE in the models folder is damaged, or not signed by the key: it has no effect"),
    "forecasts_shed": ("warning", "the stream is too far behind: no forecasts until it has caught up"),
    "forecasts_resumed": ("info", "the stream has caught up, and forecasts are made again"),
    # Incidents.
    "drift_opened": ("warning", "an incident has opened, and an alert was sent"),
    "drift_updated": ("warning", "an open incident has grown, and an alert was sent"),
    "drift_closed": ("info", "an incident has ended, and an alert was sent"),
    # Trainings.
    "training_waits": ("info", "there is no version yet: what its training waits for, and how much of that there is"),
    "training_due": ("info", "a training is due, with the reason; it starts after a checkpoint"),
    "features_changed": ("warning", "the live version reads other features than this release; the next one is trained without it"),
    "training_started": ("info", "the child process runs"),
    "training_progress": ("info", "how far a running training is, every 30 s: stage, epoch, losses, and seconds left of its time limit"),
    "training_finished": ("info", "the child process has ended, with its result"),
    "training_failed": ("error", "the child process failed, crashed or ran out of time; the stream goes on"),
    "training_cancelled": ("info", "a training was ended because the daemon stops"),
    "model_published": ("info", "a candidate was verified, renamed, named by CURRENT and announced"),
    "model_refused": ("warning", "a candidate is not better, and is kept with the reasons"),
    "publication_slow": ("warning", "verifying and writing a candidate takes long; forecasts come from the version before"),
    "publication_failed": ("error", "a candidate could not be verified or written"),
    # Events to subscribers.
    "event_refused": ("error", "an event is too large for its topic, and was given up"),
    "events_unsent": ("error", "events were not acknowledged before the end; the records they come from are read again"),
    "events_rotated": ("warning", "a file of events was full, and is NAME.1 now; the one before of that name is deleted, with its size"),
    # The Kafka client.
    "kafka_connected": ("info", "connected"),
    "kafka_joining": ("warning", "connected, but the group has not assigned partitions to this member for 10 s"),
    "kafka_unreachable": ("warning", "no broker can be reached; it is tried again, less and less often"),
    "kafka_refused": ("error", "the broker answers, but refuses this user, or answers in a way that the client cannot read"),
    "kafka_error": ("error", "any other error from which the Kafka client cannot recover by itself; it is tried again"),
    "kafka_commit_failed": ("warning", "an offset was not committed: lag monitors show an old one, and the checkpoint is what counts"),
    "kafka_close_failed": ("warning", "this member has not left the group: its partitions are free after the session time-out"),
    "topic_missing": ("warning", "the topic does not exist; the daemon looks for it until it does"),
    "partitions_added": ("warning", "the topic has more partitions than before: keys are assigned to others, and links move"),
    "kafka_event": ("warning", "any other condition that the Kafka client reports"),
}
"""Each operational event: its log level and its meaning."""

RECENT_ALERTS: Final = 50
"""Alerts that the page shows."""


class Observer:
    """Logs and counts events, and keeps the metrics of one process."""

    def __init__(self, listen: Callable[[str, dict[str, Any]], None] | None = None, unlogged: Collection[str] = ()) -> None:
        """Create the metrics.

        Args:
            listen: is called with the name and the fields of every event (the demo's screen).
            unlogged: events that are not logged, because `listen` shows them to a person.
        """
        self._listen, self._unlogged = listen, unlogged
        self._log = structlog.get_logger("dwcp-learner")
        self._alerts: deque[tuple[str, dict[str, Any]]] = deque(maxlen=RECENT_ALERTS)
        self._keyless = 0
        self.registry = CollectorRegistry()
        self._counter, self._gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        self.events = self._counter("dwcp_events", "Operational events by name", ["event"])
        self.stage_s = self._counter("dwcp_stage_seconds", "CPU seconds of the loop's thread by stage", ["stage"])
        self.checkpoint_s = Histogram("dwcp_checkpoint_seconds", "Time to write a checkpoint", registry=self.registry)
        self.checkpoint_time = self._gauge("dwcp_checkpoint_time_seconds", "When the last checkpoint was completed")
        self.live = self._gauge("dwcp_live", "0 if the loop makes no progress and a restart is called for")
        self.ready = self._gauge("dwcp_ready", "0 if /readyz reports what is wrong")
        self._add_record_metrics()
        self._add_link_metrics()
        self._add_model_metrics()
        for gauge in (self.lag, self.event_time, self.clock_ahead):  # unknown is not 0
            gauge.set(math.nan)

    def _add_record_metrics(self) -> None:
        self.records = self._counter("dwcp_records", "Telemetry records by outcome", ["outcome"])
        self.rejected = self._counter("dwcp_records_rejected", "Dead letters by kind", ["kind"])
        self.missing = self._counter("dwcp_metrics_missing", "Accepted records without a primary metric", ["metric"])
        self.keyless = self._counter("dwcp_records_without_key", "Records without a key, of a topic with several partitions")
        self.lag = self._gauge("dwcp_lag_records", "Records behind the end of the assigned partitions")
        self.held = self._gauge("dwcp_lag_held_records", "Those of dwcp_lag_records that an open transaction holds back")
        self.buffer_rows = self._gauge("dwcp_buffer_rows", "Rows in sealed segments")
        self.open_rows = self._gauge("dwcp_buffer_open_rows", "Rows not sealed yet")
        self.event_time = self._gauge("dwcp_event_time_seconds", "Newest event time of any partition")
        self.time_undone = self._counter("dwcp_event_time_undone", "How often an event time that ran away was reset")
        self.clock_ahead = self._gauge("dwcp_clock_ahead_seconds", "This machine's clock less the time at which records are written now")
        self.clock_waits = self._gauge("dwcp_clock_waits", "Partitions that wait for this machine's clock")

    def _add_link_metrics(self) -> None:
        self.links = self._gauge("dwcp_links", "Links known")
        self.watched_links = self._gauge("dwcp_watched_links", "Monitored links: forecast, and inspected for drift")
        self.split_links = self._gauge("dwcp_links_split", "Links whose records come in several partitions at once")
        self.moved_links = self._gauge("dwcp_links_moved", "Links that moved to another partition, since the start")
        self.evicted = self._counter("dwcp_links_evicted", "Links forgotten because there were more than links.max")
        self.window_restarts = self._counter("dwcp_window_restarts", "Windows restarted after a gap")
        self.names_forgotten = self._counter("dwcp_names_forgotten", "Values forgotten because there were too many", ["category"])
        self.regions_forgotten = self._counter("dwcp_regions_forgotten", "Regions forgotten because there were too many")
        self.alerts = self._counter("dwcp_alerts", "Alerts by kind of change, scope and group", ["kind", "scope", "group"])
        self.incidents = self._gauge("dwcp_incidents_open", "Open drift incidents")
        self.strictness = self._gauge("dwcp_alerts_strictness", "How much stricter than usual incidents are opened, 0 to 3: too many had")
        self.alerts_in_a_week = self._gauge("dwcp_alerts_in_a_week", "Incidents opened in the last week of event time")
        self.alerts_budget = self._gauge("dwcp_alerts_budget_per_week", "Budget of false alerts (drift.false_alerts_per_week)")
        self.late_samples = self._gauge("dwcp_region_samples_late", "Messages that came after their bucket had closed")

    def _add_model_metrics(self) -> None:
        self.model = self._gauge("dwcp_model_live", "1 for the live version", ["version"])
        self.model_pinned = self._gauge("dwcp_model_pinned", "1 while the live version is pinned: no training starts")
        self.training = self._gauge("dwcp_training_running", "1 while a training runs")
        self.forecasts = self._counter("dwcp_forecasts", "Forecasts made for monitored links")
        self.shed = self._counter("dwcp_forecasts_shed", "Rows of monitored links without a forecast, while catching up")
        self.error_sum = self._counter("dwcp_forecast_error_sum", "Absolute error, in the target's unit", ["target", "by"])
        counted = partial(self._counter, labelnames=["target", "rows"])
        self.ahead = {
            "count": counted("dwcp_forecast_ahead_count", "Forecasts further ahead that met their row"),
            "covered": counted("dwcp_forecast_ahead_covered", "Those of dwcp_forecast_ahead_count whose row lay in the version's interval"),
            "error": counted("dwcp_forecast_ahead_error_sum", "Absolute error of the version's median, in the target's unit"),
            "published_covered": counted("dwcp_published_ahead_covered", "Those whose row lay in the interval that is published"),
            "published_error": counted("dwcp_published_ahead_error_sum", "Absolute error of what is published, in the target's unit"),
        }
        """What became of forecasts, see `measured_ahead`."""
        self.trust = self._gauge("dwcp_version_trust_ratio", "Mean weight of the version in what is published", ["region"])
        self.error_count = self._counter("dwcp_forecast_error_count", "Forecasts that were compared with their measurement", ["target"])

    def watch(self, not_live: Callable[[], list[str]], not_ready: Callable[[], list[str]]) -> None:
        """Compute dwcp_live and dwcp_ready by these functions at every scrape: a loop that hangs cannot set its gauges."""
        self.live.set_function(lambda: not not_live())
        self.ready.set_function(lambda: not not_ready())

    def emit(self, event: str, **fields: Any) -> None:
        """Log and count one event.

        Raises:
            KeyError: the event is not in EVENTS.
        """
        level, _ = EVENTS[event]
        self.events.labels(event).inc()
        if event.startswith("drift_"):
            self._alerts.append((event, fields))
        if event not in self._unlogged:
            self._log.log(getattr(logging, level.upper()), event, **fields)
        if self._listen is not None:
            self._listen(event, fields)

    def emit_kafka(self, event: str, fields: dict[str, object]) -> None:
        """Log and count an event of the Kafka client, under its own name if EVENTS has it."""
        if event in EVENTS:
            self.emit(event, **fields)
        else:
            self.emit("kafka_event", condition=event, **fields)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the CPU time of a `with` block to its stage."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            self.stage_s.labels(name).inc(time.thread_time() - began_s)

    def count_keyless(self, records: int) -> None:
        """Count records without a key. records: their number since the start."""
        self.keyless.inc(max(0, records - self._keyless))
        self._keyless = max(records, self._keyless)

    def recent_alerts(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the last changes of incidents, oldest first: event and fields. Any thread may call this."""
        return list(self._alerts)

    def went_live(self, version: str) -> None:
        """Show a version as the live one."""
        self.model.clear()
        self.model.labels(version).set(1)

    def trusted(self, trust: Mapping[str, float]) -> None:
        """Show how much the version is trusted. trust: by region, 0 to 1."""
        self.trust.clear()
        for region, share in trust.items():
            self.trust.labels(region).set(share)

    def pin(self, version: str | None) -> None:
        """Show whether a version is pinned; None: no version is."""
        self.model_pinned.set(version is not None)

    def measured(self, target: int, error: float, persistence_error: float, count: int) -> None:
        """Add up the errors of forecasts of one target.

        Args:
            target: index into TARGETS.
            error, persistence_error: sums of the absolute errors of the model and of persistence, in the target's unit.
            count: number of forecasts.
        """
        name = TARGETS[target]
        self.error_sum.labels(name, "model").inc(error)
        self.error_sum.labels(name, "persistence").inc(persistence_error)
        self.error_count.labels(name).inc(count)

    def measured_ahead(self, rows: int, target: int, sums: Mapping[str, float]) -> None:
        """Add up what became of forecasts of one target at one horizon.

        Args:
            rows: of the horizon.
            target: index into TARGETS.
            sums: "count", forecasts that met their row; "covered", those of the version whose row lay in its interval; "error", sum of the
                absolute errors of its median, in the target's unit; and "published_covered" and "published_error".
        """
        for name, metric in self.ahead.items():
            metric.labels(TARGETS[target], str(rows)).inc(sums[name])

    def ahead_scores(self) -> list[dict[str, Any]]:
        """Return what became of all forecasts: of the version and of what is published; by target, then by rows."""
        sums: dict[tuple[str, int], dict[str, float]] = {}
        for key, metric in self.ahead.items():
            for sample in (sample for family in metric.collect() for sample in family.samples if sample.name.endswith("_total")):
                sums.setdefault((sample.labels["target"], int(sample.labels["rows"])), {})[key] = sample.value
        order = sorted(sums, key=lambda pair: (TARGETS.index(pair[0]), pair[1]))
        return [
            {
                "target": target,
                "rows": rows,
                "forecasts": int(found["count"]),
                "mae": found["error"] / found["count"],
                "coverage": found["covered"] / found["count"],
                "published_mae": found["published_error"] / found["count"],
                "published_coverage": found["published_covered"] / found["count"],
            }
            for target, rows in order
            if (found := sums[target, rows])["count"]
        ]
