"""dwcp-learner demo: the whole loop on a simulated fleet, with something to look at all the time, and a table of what really happened."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from daemon.clock import StreamClock
from daemon.commands.demo.report import Story, make_report, print_report
from daemon.commands.demo.screen import Screen
from daemon.commands.demo.stream import KafkaFleet, LocalFleet
from daemon.commands.score import ByPhase
from daemon.commands.signals import stop_on_signals
from daemon.config.load import Config, FixedConfig
from daemon.errors import DaemonError
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.wiring import Daemon, build
from features.store import link_name
from model.registry.removal import remove_whatever
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec
from streams.simulator.planted import PlantedEvent, ground_truth
from streams.source import Polled, SourceError

REGION: Final = "eu-west-1"
HISTORY_S: Final = 5 * 3600.0
DRIFT_AFTER_S: Final = 2 * 3600.0
"""Live before the drift: an hour for the links' detectors to calibrate, and one to show that they are quiet."""
AFTER_S: Final = 3600.0
"""Live on the new version before the demo ends: enough to judge it."""
DURATION_S: Final = 30 * 3600.0
"""Far more than a slow machine needs; the demo ends by itself."""
SPEED: Final = 90.0
BROKER_LIMIT_S: Final = 60.0
"""Without a broker: somebody waits for the demo, and has seen by then that there is none."""
MARKER: Final = ".dwcp-demo"


def demo_spec(seed: int) -> FleetSpec:
    """240 links in four regions, one row a minute; 60 % of one region's links are re-routed for good."""
    drift_s = DEFAULT_START_S + HISTORY_S + DRIFT_AFTER_S
    return FleetSpec(
        seed=seed, links_per_region=60, events=(PlantedEvent("reroute", drift_s, REGION, links_share=0.6, size_sd=2.0),)
    )  # fmt: skip


def demo_config(folder: Path, kafka: str | None) -> Config:
    """Defaults but for what makes five minutes enough: smaller epochs, and no waiting for a schedule. The environment does not count: it
    may well be that of a real daemon, whose state, models and topics are no place for simulated links."""
    name = f"dwcp.demo.{int(time.time())}"  # its own group too: one of an earlier demo may have a dead member, who would be waited for
    return FixedConfig(
        kafka={"bootstrap_servers": kafka or "localhost:9092", "topic": name, "group_id": name},
        events={"to": "both" if kafka else "file"},
        drift={"watched_per_region": 7, "shed_above_lag": 2**62},
        training={
            "schedule": "",
            "rows_min": int(0.95 * HISTORY_S / 60 * 240),
            "drift_rows_min": 240 * 45,
            "cooldown_s": 0.0,
            "epochs": 6,
            "epoch_windows_max": 3072,
            "recent_windows_max": 60_000,
            "replay_windows": 512,
            "patience": 3,
        },
        state={"directory": folder / "state", "checkpoint_interval_s": 5.0},
        models={"directory": folder / "models", "follow_interval_s": 0.5},
        http={"port": 0},
    )


def run_demo(folder: Path, *, seed: int, kafka: str | None, as_json: bool) -> int:
    """Gives the exit code: 0 only if the first model, the alert, the fine-tuned version and its gate all really happened.

    Raises SourceError where there is no broker for BROKER_LIMIT_S, DaemonError where the folder or the cluster cannot be used.
    """
    _empty(folder)
    configure_logging("error", "console", sys.stderr)
    spec, config = demo_spec(seed), demo_config(folder, kafka)
    story = Story(spec.events[0].start_s)
    score = ByPhase(lambda _time_s: story.phase if story.phase != "history" else None, _affected(spec))
    console = Console(stderr=True)
    screen = Screen(story, spec, console)
    observer = Observer(screen.tell)
    fleet = _fleet(spec, config if kafka else None, observer)
    daemon = build(config, fleet.source, StreamClock(), observer, listener=score)
    screen.daemon = daemon
    stop_on_signals(daemon.loop.stop)
    daemon.loop.on_step = lambda polled: _advance(story, daemon, fleet, screen, polled)
    began_s = time.monotonic()
    with fleet, Live(screen, console=console, refresh_per_second=4, transient=False):
        daemon.run()
    if story.no_broker:
        raise SourceError(f"{kafka}: no broker for {BROKER_LIMIT_S:.0f} s; start one with make kafka, or correct --kafka")
    ended = daemon.loop.stop_reason
    interrupted = ended if ended in ("SIGTERM", "SIGINT") else None
    report = make_report(story, score, spec, folder, time.monotonic() - began_s, interrupted)
    print_report(report, as_json)
    if interrupted is not None:
        return 128 + signal.Signals[interrupted]
    return 0 if report["happened"] else 1


def _fleet(spec: FleetSpec, config: Config | None, observer: Observer) -> LocalFleet | KafkaFleet:
    """config: for a fleet that comes through Kafka."""
    if config is None:
        return LocalFleet(spec, DURATION_S, HISTORY_S, SPEED)
    return KafkaFleet(spec, DURATION_S, HISTORY_S, SPEED, config, observer, BROKER_LIMIT_S)


def _advance(story: Story, daemon: Daemon, fleet: LocalFleet | KafkaFleet, screen: Screen, polled: Polled) -> None:
    """Follows the story after each pass of the loop, and ends it when it is told."""
    screen.records += sum(map(len, polled.batches))
    screen.tick()
    live, now_s = daemon.loop.models.live, daemon.loop.partitions.event_time_s
    if live is not None and story.first_version is None:
        story.first_version = live.version
        fleet.go_live()
    story.reach(now_s, live.version if live is not None else None)
    if story.new_live_s is not None and now_s >= story.new_live_s + AFTER_S:
        daemon.loop.stop("the demo is complete")
    elif story.problems or len(story.refused) >= 2:
        daemon.loop.stop("the demo cannot be completed")
    elif story.without_broker(daemon.loop.source.healthy(), BROKER_LIMIT_S):
        daemon.loop.stop("there is no broker")


def _affected(spec: FleetSpec) -> Any:
    names = {link_name(key) for event in ground_truth(spec)["events"] for key in event["links"]}
    return names.__contains__


def _empty(folder: Path) -> None:
    """Only ever empties what an earlier demo has made; the folder itself stays, for it may be the working directory."""
    try:
        content = list(folder.iterdir()) if folder.exists() else []
        if content and not (folder / MARKER).exists():
            raise DaemonError(f"{folder}: is not empty and was not made by a demo; give another folder with --folder")
        for path in content:
            if path.name != MARKER:  # last of all: what is half emptied is still a demo's
                remove_whatever(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    except OSError as error:
        raise DaemonError(f"{folder}: cannot be emptied and used ({error.strerror}); give another folder with --folder") from error
