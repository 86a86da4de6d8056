"""dwcp-learner demo: the whole loop on a simulated fleet, with something to look at all the time, and a table of what really happened."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.cli_signals import stop_on_signals
from daemon.clock import StreamClock
from daemon.config import Config, FixedConfig
from daemon.demo_stream import KafkaFleet, LocalFleet
from daemon.errors import DaemonError
from daemon.logs import configure_logging
from daemon.observe import Observer
from daemon.score import ByPhase
from daemon.wiring import Daemon, build
from features.store import link_name
from features.telemetry import TARGETS
from streams.fleet import DEFAULT_START_S, FleetSpec
from streams.planted import PlantedEvent, ground_truth
from streams.source import Polled

REGION: Final = "eu-west-1"
HISTORY_S: Final = 5 * 3600.0
DRIFT_AFTER_S: Final = 2 * 3600.0
"""Live before the drift: an hour for the links' detectors to calibrate, and one to show that they are quiet."""
AFTER_S: Final = 3600.0
"""Live on the new version before the demo ends: enough to judge it."""
DURATION_S: Final = 30 * 3600.0
"""Far more than a slow machine needs; the demo ends by itself."""
SPEED: Final = 90.0
MARKER: Final = ".dwcp-demo"


@dataclass
class Story:
    """What has happened so far. Event times are UTC seconds of the simulation, wall times monotonic seconds."""

    drift_s: float
    phase: str = "history"
    first_version: str | None = None
    detected_s: float | None = None
    detected_wall_s: float | None = None
    new_version: str | None = None
    new_live_s: float | None = None
    new_live_wall_s: float | None = None
    refused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return None not in (self.first_version, self.detected_s, self.new_version, self.new_live_s)


def demo_spec(seed: int) -> FleetSpec:
    """240 links in four regions, one row a minute; 60 % of one region's links are re-routed for good."""
    drift_s = DEFAULT_START_S + HISTORY_S + DRIFT_AFTER_S
    return FleetSpec(
        seed=seed, links_per_region=60, events=(PlantedEvent("reroute", drift_s, REGION, links_share=0.6, size_sd=2.0),)
    )  # fmt: skip


def demo_config(folder: Path, kafka: str | None) -> Config:
    """Defaults but for what makes five minutes enough: smaller epochs, and no waiting for a schedule. The environment does not count: it
    may well be that of a real daemon, whose state, models and topics are no place for simulated links."""
    return FixedConfig(
        kafka={"bootstrap_servers": kafka or "localhost:9092", "topic": f"dwcp.demo.{int(time.time())}", "group_id": "dwcp-demo"},
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
    """Gives the exit code: 0 only if the first model, the alert, the fine-tuned version and its gate all really happened."""
    _empty(folder)
    configure_logging("error", "console", sys.stderr)
    spec, config = demo_spec(seed), demo_config(folder, kafka)
    story = Story(spec.events[0].start_s)
    score = ByPhase(lambda _time_s: story.phase if story.phase != "history" else None, _affected(spec))
    screen = _Screen(story, spec)
    observer = Observer(screen.tell)
    fleet = KafkaFleet(spec, DURATION_S, HISTORY_S, SPEED, config, observer) if kafka else LocalFleet(spec, DURATION_S, HISTORY_S, SPEED)
    daemon = build(config, fleet.source, StreamClock(), observer, listener=score)
    screen.daemon = daemon
    stop_on_signals(daemon.loop.stop)
    daemon.loop.on_step = lambda polled: _advance(story, daemon, fleet, screen, polled)
    began_s = time.monotonic()
    with fleet, Live(screen, console=Console(stderr=True), refresh_per_second=4, transient=False) as live:
        screen.print = live.console.print
        daemon.run()
    report = _report(story, score, spec, folder, time.monotonic() - began_s)
    _print(report, as_json)
    return 0 if report["happened"] else 1


def _advance(story: Story, daemon: Daemon, fleet: LocalFleet | KafkaFleet, screen: _Screen, polled: Polled) -> None:
    """Follows the story after each pass of the loop, and ends it when it is told."""
    screen.records += sum(map(len, polled.batches))
    screen.progress.extend(daemon.loop.training.progress())
    live, now_s = daemon.loop.models.live, daemon.loop.partitions.event_time_s
    if live is not None and story.first_version is None:
        story.first_version = live.version
        fleet.go_live()
    if story.first_version is not None:
        after = story.new_version is not None and live is not None and live.version == story.new_version
        if after and story.new_live_s is None:
            story.new_live_s, story.new_live_wall_s = now_s, time.monotonic()
        story.phase = "after the new version" if after else "after the drift" if now_s >= story.drift_s else "before the drift"
    if story.new_live_s is not None and now_s >= story.new_live_s + AFTER_S:
        daemon.loop.stop("the demo is complete")
    elif story.problems or len(story.refused) >= 2:
        daemon.loop.stop("the demo cannot be completed")


class _Screen:
    """Story, stream and training at a glance; rich asks for it four times a second."""

    def __init__(self, story: Story, spec: FleetSpec) -> None:
        self.story, self.spec = story, spec
        self.daemon: Daemon | None = None
        self.records = 0
        self.progress: deque[dict[str, Any]] = deque(maxlen=1)
        self.print: Any = None
        self._began_s = time.monotonic()

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        """One event of the daemon: into the story, and for what a person wants to see, on the screen."""
        story = self.story
        if event == "drift_opened":
            if fields["region"] == REGION and fields["event_time_s"] >= story.drift_s and story.detected_s is None:
                story.detected_s, story.detected_wall_s = fields["event_time_s"], time.monotonic()
            elif fields["event_time_s"] < story.drift_s or fields["region"] != REGION:
                story.false_alarms.append(fields["summary"])
        elif event == "model_published" and fields["reason"] == "drift" and story.detected_s is not None:
            story.new_version = fields["version"]
        elif event == "model_refused":
            story.refused.append(f"{fields['version']}: {'; '.join(fields['reasons'])}")
        elif event in ("training_failed", "publication_failed"):
            story.problems.append(fields["problem"])
        if event in _LINES and self.print is not None:
            shown = {name: escape(value) if isinstance(value, str) else value for name, value in fields.items()}
            self.print(Text.from_markup(_LINES[event].format(**shown)), highlight=False)

    def __rich__(self) -> Panel:
        story, daemon = self.story, self.daemon
        lines = [f"{time.monotonic() - self._began_s:5.0f} s   {story.phase}"]
        if daemon is not None:
            partitions, training = daemon.loop.partitions, daemon.loop.training
            minutes = (partitions.event_time_s - story.drift_s) / 60 if partitions.rows else float("nan")
            lines.append(
                f"stream     {self.records:,} records, {partitions.links} links, {partitions.watched_links} watched, "
                f"simulated time {minutes:+.0f} min to the planted drift"
            )
            lines.append(f"model      {daemon.loop.models.live.version if daemon.loop.models.live else 'none yet'}")
            if training.trainer.running and self.progress:
                last = self.progress[-1]
                shown = ("stage", "epoch", "epochs", "step", "steps", "loss", "validation_loss", "seconds_left")
                told = ", ".join(f"{key} {_short(last[key])}" for key in shown if last.get(key) is not None)
                lines.append(f"training   {told}")
            else:
                lines.append(f"training   {'starting' if training.busy else 'waits for ' + (training.decision.waiting_for or '...')}")
            lines.append(f"incidents  {daemon.loop.regions.open_incidents} open")
        return Panel(Group(*(Text(line) for line in lines)), title="dwcp-learner", title_align="left")


_LINES: Final = {
    "training_started": "[cyan]training[/cyan] {version} ({reason}) on {rows:,} rows, in a process of its own",
    "training_finished": "[cyan]trained[/cyan] {version} in {seconds} s: {status}",
    "model_published": "[green]published[/green] {version} ({reason}), verified and named by CURRENT",
    "model_refused": "[yellow]refused[/yellow] {version}: {reasons}",
    "model_live": "[green]live[/green] forecasts come from {version}",
    "drift_opened": "[bold red]ALERT[/bold red] {summary}",
    "drift_closed": "[red]closed[/red] {summary}",
    "training_failed": "[red]training failed[/red] {problem}",
    "checkpoint_failed": "[red]checkpoint failed[/red] {problem}",
}


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _affected(spec: FleetSpec) -> Any:
    names = {link_name(key) for event in ground_truth(spec)["events"] for key in event["links"]}
    return names.__contains__


def _empty(folder: Path) -> None:
    """Only ever empties what an earlier demo has made."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise DaemonError(f"{folder}: is not empty and was not made by a demo; give another folder with --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _report(story: Story, score: ByPhase, spec: FleetSpec, folder: Path, seconds: float) -> dict[str, Any]:
    phases = {phase: {row["target"]: row for row in errors.rows()} for phase, errors in score.phases.items()}
    hit = spec.events[0].affected_metrics

    def mean_error(phase: str) -> float | None:
        """Mean absolute error over the metrics that the drift has hit, each in units of its error before the drift."""
        before, now = phases.get("before the drift"), phases.get(phase)
        if before is None or now is None or any(now[metric]["mae"] is None or not before[metric]["mae"] for metric in hit):
            return None
        return float(sum(now[metric]["mae"] / before[metric]["mae"] for metric in hit) / len(hit))

    after, new = mean_error("after the drift"), mean_error("after the new version")
    return {
        "happened": story.complete and after is not None and new is not None and new < after,
        "seconds": seconds,
        "first_version": story.first_version,
        "new_version": story.new_version,
        "refused": story.refused,
        "problems": story.problems,
        "alerts_without_planted_drift": story.false_alarms,
        "error_ratio_after_drift": after,
        "error_ratio_after_new_version": new,
        "errors": phases,
        "detection_delay_s": None if story.detected_s is None else story.detected_s - story.drift_s,
        "drift_to_new_version_wall_s": (
            None if story.new_live_wall_s is None or story.detected_wall_s is None else story.new_live_wall_s - story.detected_wall_s
        ),
        "files": {name: str(folder / name) for name in ("models", "state", "state/events/drift.ndjson", "state/events/models.ndjson")},
    }


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console = Console(soft_wrap=True)
    phases = ("before the drift", "after the drift", "after the new version")
    table = Table("mean absolute forecast error", *phases, title=f"On the re-routed links of {REGION}")
    for target in TARGETS:
        cells = [report["errors"].get(phase, {}).get(target, {}).get("mae") for phase in phases]
        table.add_row(target, *(f"{cell:.4g}" if cell is not None else "-" for cell in cells))
    ratios = (report["error_ratio_after_drift"], report["error_ratio_after_new_version"])
    table.add_row("hit metrics, relative", "1", *(f"{ratio:.2f}" if ratio is not None else "-" for ratio in ratios), style="bold")
    console.print(table)
    delay_s, wall_s = report["detection_delay_s"], report["drift_to_new_version_wall_s"]
    console.print(
        f"detected after           {delay_s / 60:.0f} simulated minutes" if delay_s is not None else "detected after           never"
    )
    console.print(f"from alert to new model  {wall_s:.0f} s of wall time" if wall_s is not None else "from alert to new model  never")
    console.print(f"versions                 {report['first_version']} → {report['new_version']}")
    console.print(f"other alerts             {len(report['alerts_without_planted_drift'])}")
    for name, path in report["files"].items():
        console.print(f"{name:<28}{path}", highlight=False)
    for problem in (*report["problems"], *report["refused"]):
        console.print(f"[red]{escape(problem)}[/red]", highlight=False)
    verdict = "[green]everything happened[/green]" if report["happened"] else "[red]not everything happened[/red]"
    console.print(f"{verdict} in {report['seconds']:.0f} s")
