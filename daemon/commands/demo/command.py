"""dwcp-learner demo: the whole loop on a simulated fleet, with a live screen, and a table of what really happened."""

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
"""Simulated seconds of telemetry before the live part, which begins with the first version."""
DRIFT_AFTER_S: Final = 2 * 3600.0
"""Simulated seconds of the live part before the drift: an hour to calibrate the detectors, and one that shows that they are quiet."""
AFTER_S: Final = 3600.0
"""Simulated seconds on the new version before the demo ends: enough to judge it."""
DURATION_S: Final = 30 * 3600.0
"""Simulated seconds of telemetry: far more than a slow machine needs. The demo ends by itself."""
SPEED: Final = 90.0
"""Simulated seconds a second."""
BROKER_LIMIT_S: Final = 60.0
"""Seconds without a broker after which the demo ends: a person waits for it, and has read the reason by then."""
MARKER: Final = ".dwcp-demo"
"""File that marks a folder as a demo's, which the next demo may empty."""


def demo_spec(seed: int) -> FleetSpec:
    """Return a fleet of 240 links in four regions, one row a minute; 60 % of one region's links are re-routed for good."""
    drift_s = DEFAULT_START_S + HISTORY_S + DRIFT_AFTER_S
    return FleetSpec(
        seed=seed, links_per_region=60, events=(PlantedEvent("reroute", drift_s, REGION, links_share=0.6, size_sd=2.0),)
    )  # fmt: skip


def demo_config(folder: Path, kafka: str | None) -> Config:
    """Return a configuration with which five minutes are enough: smaller epochs, and no schedule.

    The environment is not read. It may be that of a real daemon, whose state, models and topics must not receive simulated links.
    """
    name = f"dwcp.demo.{int(time.time())}"  # a group of its own too: that of an earlier demo would wait for its dead member
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
            "expert": {"epoch_windows_max": 3072, "recent_windows_max": 60_000, "replay_windows": 512, "patience": 3},
        },
        state={"directory": folder / "state", "checkpoint_interval_s": 5.0},
        models={"directory": folder / "models", "follow_interval_s": 0.5},
        http={"port": 0},
    )


def run_demo(folder: Path, *, seed: int, kafka: str | None, as_json: bool) -> int:
    """Run the demo and print its report.

    Args:
        folder: for state, models and events.
        seed: of the simulated fleet.
        kafka: servers of a cluster to stream through; None: in memory.
        as_json: print JSON instead of text.

    Returns:
        The exit code. 0 only if first model, alert, fine-tuned version and gate all really happened.

    Raises:
        SourceError: there was no broker for BROKER_LIMIT_S.
        DaemonError: the folder or the cluster cannot be used.
    """
    _empty(folder)
    configure_logging("error", "console", sys.stderr)
    spec, config = demo_spec(seed), demo_config(folder, kafka)
    story = Story(spec.events[0].start_s)
    score = ByPhase(lambda _time_s: story.phase if story.phase != "history" else None, _affected(spec))
    console = Console(stderr=True)
    screen = Screen(story, spec, console)
    observer = Observer(screen.on_event)
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
    report = make_report(story, score, spec, folder, time.monotonic() - began_s, interrupted, observer.ahead_scores())
    print_report(report, as_json)
    if interrupted is not None:
        return 128 + signal.Signals[interrupted]
    return 0 if report["happened"] else 1


def _fleet(spec: FleetSpec, config: Config | None, observer: Observer) -> LocalFleet | KafkaFleet:
    """Return the fleet in memory, or with a config through Kafka."""
    if config is None:
        return LocalFleet(spec, DURATION_S, HISTORY_S, SPEED)
    return KafkaFleet(spec, DURATION_S, HISTORY_S, SPEED, config, observer, BROKER_LIMIT_S)


def _advance(story: Story, daemon: Daemon, fleet: LocalFleet | KafkaFleet, screen: Screen, polled: Polled) -> None:
    """Advance the story after each pass of the loop, and end the loop when the story is complete."""
    screen.records += sum(map(len, polled.batches))
    screen.tick()
    live, now_s = daemon.parts.models.live, daemon.parts.group.event_time_s
    if live is not None and story.first_version is None:
        story.first_version = live.version
        fleet.go_live()
    story.advance(now_s, live.version if live is not None else None)
    if story.new_live_s is not None and now_s >= story.new_live_s + AFTER_S:
        daemon.loop.stop("the demo is complete")
    elif story.problems or len(story.refused) >= 2:
        daemon.loop.stop("the demo cannot be completed")
    elif story.without_broker(daemon.parts.source.healthy(), BROKER_LIMIT_S):
        daemon.loop.stop("there is no broker")


def _affected(spec: FleetSpec) -> Any:
    names = {link_name(key) for event in ground_truth(spec)["events"] for key in event["links"]}
    return names.__contains__


def _empty(folder: Path) -> None:
    """Empty a folder that an earlier demo has made. The folder itself stays: it may be the working directory."""
    try:
        content = list(folder.iterdir()) if folder.exists() else []
        if content and not (folder / MARKER).exists():
            raise DaemonError(f"{folder}: is not empty and was not made by a demo; give another folder with --folder")
        for path in content:
            if path.name != MARKER:  # stays: a folder that is half emptied is still a demo's
                remove_whatever(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    except OSError as error:
        raise DaemonError(f"{folder}: cannot be emptied and used ({error.strerror}); give another folder with --folder") from error
