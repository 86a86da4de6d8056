"""Builds the parts of a daemon and puts them together. No other module does."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from daemon.clock import Clock, StreamClock
from daemon.config.keys import registry_with_keys
from daemon.config.load import Config
from daemon.config.usable import local_time_of
from daemon.errors import DaemonError, EventsError, StateError
from daemon.events.announcer import Announced, Announcer
from daemon.events.incidents import Incidents
from daemon.events.sinks import Sinks
from daemon.events.topic_check import topics_of
from daemon.events.topic_watch import TopicWatch
from daemon.ingest.ahead import Listener
from daemon.ingest.group import Group, journal_path
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.ingest.pressure import Pressure
from daemon.ingest.settings import PipelineSettings
from daemon.loop import Loop
from daemon.operator.health import Health
from daemon.operator.http import HttpServer
from daemon.operator.notify import Notifier
from daemon.operator.observer import Observer
from daemon.operator.readiness import Readiness
from daemon.parts import Parts
from daemon.state.checkpoint import CheckpointStore
from daemon.state.instance import instance_id, state_id
from daemon.state.keeper import Keeper
from daemon.state.lock import StateLock
from daemon.training.child import Trainer
from daemon.training.cycle import Training
from daemon.training.ledger import NAME, Ledger
from daemon.training.memory import Memory
from daemon.training.proving import Proving
from daemon.training.publisher import Publisher
from daemon.training.schedule import Schedule, StreamSchedule, WallSchedule
from daemon.training.settings import TrainingConfig
from daemon.training.triggers import TrainingPolicy
from drift.link.monitored import MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from drift.region.policy import QuorumPolicy
from drift.region.stage import RegionDrift
from model.registry.versions import Registry
from model.spec.architecture import ARCHITECTURES, forecasting
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy
from streams.fan_out import FanOutSink
from streams.files.sink import NdjsonSink
from streams.kafka.sink import KafkaSink
from streams.kafka.source import KafkaSource
from streams.sinks import Sink
from streams.source import Source

T = TypeVar("T")
WATCHDOG_FALLBACK_S = 60.0
"""Seconds without progress after which /livez is not OK, if systemd has no watchdog."""


@dataclass
class Daemon:
    """A loop, its parts, and the objects that run beside it."""

    loop: Loop
    parts: Parts
    schedule: Schedule
    http: HttpServer | None
    lock: StateLock
    journal: Journal

    @property
    def hangs(self) -> bool:
        """True if, after `run`, a thread still waits for a disk and would keep the process from ending."""
        return self.parts.keeper.busy or self.parts.training.hangs or self.parts.models.loader.busy

    def run(self) -> None:
        """Run until the loop ends.

        Raises:
            DaemonError, SourceError: the daemon cannot go on.
        """
        self.schedule.start()
        if self.http is not None:
            self.http.start()
        try:
            self.loop.run()
        finally:
            self.schedule.close()
            if self.http is not None:
                self.http.close()
            self.journal.close()
            self.lock.release()


def kafka_source(config: Config, observer: Observer) -> KafkaSource:
    """Return the Kafka source.

    Raises:
        StateError: the state directory, which names this member of the group, cannot be used.
    """
    kafka, state = config.kafka, config.state
    return KafkaSource(
        kafka.topic, kafka.group_id, kafka.client_options(), observer.emit_kafka, instance_id=instance_id(state.directory, state.member),
        max_records=kafka.max_records, accept_lost_records=kafka.accept_lost_records, state_id=state_id(state.directory),
    )  # fmt: skip


def build(
    config: Config,
    source: Source,
    clock: Clock,
    observer: Observer,
    *,
    listener: Listener | None = None,
    wait_for_training: bool = False,
) -> Daemon:
    """Build a daemon over any source.

    Args:
        listener: receives every forecast that met its measurement.
        wait_for_training: see Loop.

    Raises:
        StateError: the state directory cannot be used.
        ConfigError: a key or a calendar file cannot be used.
        DaemonError: another folder or the HTTP address cannot be used; the message names the setting.
    """
    notifier = Notifier(clock=clock.monotonic_s)
    notifier.status("starting")
    registry = registry_with_keys(config)
    state = config.state.directory
    lock = StateLock.acquire(state, config.state.member)
    if lock.closed:
        observer.emit("state_closed", folder=str(state), remedy="to let others read events, name a folder of their own as events.folder")
    store = CheckpointStore(state, config.state.member, config.buffer.rows_max, config.buffer.age_max_s, observer.emit, clock.monotonic_s)
    store.open()
    process = store.restore_process() or {"regions": None, "training": {}}
    journal = Journal(journal_path(state, config.state.member))
    journal.require(store.journal_applied)
    _prepare(registry)
    health = Health(notifier.watchdog_s or WATCHDOG_FALLBACK_S, clock.monotonic_s)
    observer.watch(health.not_live, health.not_ready)
    observer.alerts_budget.set(config.drift.false_alerts_per_week)
    cron, interval_s = config.training.schedule, config.training.interval_s
    schedule = StreamSchedule(cron, interval_s) if isinstance(clock, StreamClock) else WallSchedule(cron, interval_s, clock)
    readiness = Readiness(health, notifier, observer)
    parts = _make_parts(config, source, clock, observer, listener, registry, store, journal, schedule, readiness, process)
    return Daemon(Loop(parts, wait_for_training=wait_for_training), parts, schedule, make_http(config, observer, health), lock, journal)


def _make_parts(
    config: Config, source: Source, clock: Clock, observer: Observer, listener: Listener | None, registry: Registry, store: CheckpointStore,
    journal: Journal, schedule: Schedule, readiness: Readiness, process: dict[str, Any],
) -> Parts:  # fmt: skip
    """Return the parts. process: state of the region stage and of training, as the last checkpoint has it."""
    models = Models(registry, journal, observer, config.models.follow_interval_s, clock.monotonic_s)
    regions, policy = process["regions"], quorum_policy(config)
    sinks = make_sinks(config, observer, clock)
    trainer = _trainer(config.state.directory / f"training-{config.state.member}", config.training.time_limit_s, clock)
    publisher = Publisher(registry, observer, clock.monotonic_s)
    memory, ledger = _restored(Memory, process["training"]), Ledger(config.state.directory / NAME.format(config.state.member))
    return Parts(
        source=source,
        group=Group(
            source, pipeline_settings(config), store, journal, models, observer, clock,
            idle_s=config.drift.idle_s, shed_above_lag=config.drift.shed_above_lag, listener=listener,
        ),
        incidents=Incidents(RegionDrift(policy) if regions is None else RegionDrift.restored(regions, policy), observer),
        announcer=Announcer(
            sinks, registry, observer, clock, f"dwcp-learner/{config.kafka.group_id}", _restored(Announced, process["training"])
        ),
        keeper=Keeper(store, sinks, observer, clock, config.state.checkpoint_interval_s),
        training=Training(training_config(config), trainer, publisher, models, schedule, observer, memory, ledger),
        proving=Proving(registry, ledger, memory, observer),
        models=models,
        pressure=Pressure(source, observer, config.buffer.open_rows_max),
        readiness=readiness,
        observer=observer,
        clock=clock,
    )  # fmt: skip


def _restored(kind: type[T], document: dict[str, Any]) -> T:
    """Return a dataclass made from those fields of a document that it has: in a checkpoint, training and announcer share one document."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in document.items() if name in names})


def pipeline_settings(config: Config) -> PipelineSettings:
    drift = config.drift
    watch = MonitoringPolicy(links_per_region=drift.watched_per_region, links_max=drift.watched_max, always=drift.watched_always)
    sensitivity = Sensitivity.for_budget(drift.false_alerts_per_week)
    return PipelineSettings(
        config.links.key, config.links.gap_multiple, config.links.max, watch, sensitivity, drift.lateness_s,
        local_time=local_time_of(config).local_time(),
    )  # fmt: skip


def quorum_policy(config: Config) -> QuorumPolicy:
    drift = config.drift
    return QuorumPolicy(links_min=drift.quorum_links, links_share=drift.quorum_share, false_alerts_per_week=drift.false_alerts_per_week)


def training_config(config: Config) -> TrainingConfig:
    training = config.training
    expert = training.expert.model_dump(exclude={"gate_windows_min"})
    settings = TrainingSettings(epochs=training.epochs, threads=training.threads, **expert)
    policy = TrainingPolicy(training.rows_min, training.new_rows_min, training.drift_rows_min, training.cooldown_s)
    return TrainingConfig(
        policy=policy,
        settings=settings,
        gate=GatePolicy(min_windows=training.expert.gate_windows_min),
        gap_multiple=config.links.gap_multiple,
        drift_time_budget_s=training.drift_time_budget_s,
        architecture=forecasting(ARCHITECTURES[training.architecture], config.forecast.horizons_rows, config.forecast.coverage),
        keep_versions=config.models.keep,
        local_time=local_time_of(config),
    )


def make_sinks(config: Config, observer: Observer, clock: Clock) -> Sinks:
    """Return the sinks of alerts, announcements and dead letters: Kafka topics, NDJSON files, or both."""
    events = config.events
    folder = events.folder or config.state.directory / "events"

    def sink(topic: str, file: str) -> Sink:
        parts: list[Sink] = []
        if events.to in ("kafka", "both"):
            parts.append(KafkaSink(topic, config.kafka.client_options(), observer.emit_kafka))
        if events.to in ("file", "both"):
            parts.append(_file_sink(folder / file, events.file_mb_max << 20, observer))
        return parts[0] if len(parts) == 1 else FanOutSink(parts)

    return Sinks(
        alerts=sink(events.drift_topic, "drift.ndjson"),
        models=sink(events.models_topic, "models.ndjson"),
        dead_letters=sink(events.dead_letter_topic, "dead_letters.ndjson"),
        topics=TopicWatch(config.kafka.client_options(), topics_of(config)[1:], observer.emit) if events.to != "file" else None,
        clock=clock.monotonic_s,
    )


def _prepare(registry: Registry) -> None:
    """Make the models folder. Files that a crash has left there are removed later (see Training.recover)."""
    try:
        registry.root.mkdir(parents=True, exist_ok=True)
        os.scandir(registry.root).close()
    except OSError as error:
        problem = f"models.directory {registry.root}: cannot be used as a folder ({error.strerror})"
        raise DaemonError(f"{problem}; name another one, or mend its owner and permissions") from error


def _trainer(work: Path, time_limit_s: float, clock: Clock) -> Trainer:
    try:
        return Trainer(work, time_limit_s, clock.monotonic_s)
    except OSError as error:
        raise StateError(f"{work}: cannot be made as a folder ({error.strerror}); remove it, or mend the state directory") from error


def _file_sink(path: Path, bytes_max: int, observer: Observer) -> NdjsonSink:
    def report(file: Path, gone_bytes: int) -> None:
        observer.emit("events_rotated", file=str(file), gone_bytes=gone_bytes)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return NdjsonSink(path, bytes_max, report)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        todo = "name another folder as events.folder (default: events/ in state.directory), or mend this one"
        raise EventsError(f"{path}: events cannot be written there ({problem}); {todo}") from error


def make_http(config: Config, observer: Observer, health: Health) -> HttpServer | None:
    if not config.http.enabled:
        return None
    return HttpServer(config.http.host, config.http.port, observer, health.not_live, health.not_ready, lambda: health.facts)
