"""The story of a demo (what really happened), its report, and the table for a person."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.commands.score import ByPhase
from daemon.plain_text import plain
from features.telemetry import TARGETS
from streams.simulator.fleet import FleetSpec


@dataclass
class Story:
    """The events of a demo so far. `_s`: UTC seconds of the simulation. `_wall_s`: monotonic seconds of this process."""

    drift_s: float
    phase: str = "history"
    first_version: str | None = None
    drift_wall_s: float | None = None
    """Time at which the stream reached the planted drift, monotonic seconds."""
    detected_s: float | None = None
    detected_wall_s: float | None = None
    new_version: str | None = None
    new_live_s: float | None = None
    new_live_wall_s: float | None = None
    refused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)
    no_broker: bool = False
    _connected_s: float = field(default_factory=time.monotonic)

    def advance(self, now_s: float, live: str | None) -> None:
        """Note that the stream has reached now_s, and that forecasts come from version `live`."""
        if now_s >= self.drift_s and self.drift_wall_s is None:
            self.drift_wall_s = time.monotonic()
        if self.first_version is None:
            return
        after = self.new_version is not None and live == self.new_version
        if after and self.new_live_s is None:
            self.new_live_s, self.new_live_wall_s = now_s, time.monotonic()
        self.phase = "after the new version" if after else "after the drift" if now_s >= self.drift_s else "before the drift"

    def without_broker(self, healthy: bool, limit_s: float) -> bool:
        """Return whether the source has been unhealthy for limit_s seconds. healthy: whether it is now."""
        if healthy:
            self._connected_s = time.monotonic()
        self.no_broker = time.monotonic() - self._connected_s > limit_s
        return self.no_broker

    def times(self) -> dict[str, float | None]:
        """Return seconds between events, simulated and wall ones; None if one of the events did not happen."""
        return {
            "detection_delay_s": _between(self.drift_s, self.detected_s),
            "drift_to_new_version_s": _between(self.drift_s, self.new_live_s),
            "drift_to_new_version_wall_s": _between(self.drift_wall_s, self.new_live_wall_s),
            "alert_to_new_version_wall_s": _between(self.detected_wall_s, self.new_live_wall_s),
        }

    def lacking(self) -> list[str]:
        """Return the parts of the story that have not happened, in its order."""
        parts = {
            "no first version was published": self.first_version,
            "the stream did not reach the planted drift": self.drift_wall_s,
            "the planted drift was not noticed": self.detected_s,
            "no version that has learnt the drift was published": self.new_version,
            "no forecast came from the new version": self.new_live_s,
        }
        return [problem for problem, happened in parts.items() if happened is None]


def _between(begin_s: float | None, end_s: float | None) -> float | None:
    return None if begin_s is None or end_s is None else end_s - begin_s


def make_report(
    story: Story,
    score: ByPhase,
    spec: FleetSpec,
    folder: Path,
    seconds: float,
    interrupted: str | None,
    ahead: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the document that --json prints.

    Args:
        interrupted: name of the signal that ended the demo, if one did.
        ahead: what became of forecasts further ahead, see `Observer.ahead_scores`.
    """
    phases = {phase: {row["target"]: row for row in errors.rows()} for phase, errors in score.phases.items()}
    hit = spec.events[0].affected_metrics

    def mean_error(phase: str) -> float | None:
        """Return the mean absolute error over the metrics that the drift has changed, each in units of its error before the drift."""
        before, now = phases.get("before the drift"), phases.get(phase)
        if before is None or now is None or any(now[metric]["mae"] is None or not before[metric]["mae"] for metric in hit):
            return None
        return float(sum(now[metric]["mae"] / before[metric]["mae"] for metric in hit) / len(hit))

    after, new = mean_error("after the drift"), mean_error("after the new version")
    lacking = story.lacking()
    if not lacking and (after is None or new is None):
        lacking.append("there are no forecasts to compare before and after the new version")
    elif after is not None and new is not None and new >= after:
        lacking.append("forecasts of the new version are not better than those after the drift")
    return {
        "happened": not lacking,
        "lacking": lacking,
        "interrupted": interrupted,
        "seconds": seconds,
        "region": spec.events[0].region,
        "first_version": story.first_version,
        "new_version": story.new_version,
        "refused": story.refused,
        "problems": story.problems,
        "alerts_without_planted_drift": story.false_alarms,
        "error_ratio_after_drift": after,
        "error_ratio_after_new_version": new,
        "errors": phases,
        "ahead": list(ahead),
        **story.times(),
        "files": {name: str(folder / name) for name in ("models", "state", "state/events/drift.ndjson", "state/events/models.ndjson")},
    }


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """Print the report as JSON, or as text for a person."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console = Console(soft_wrap=True)
    phases = ("before the drift", "after the drift", "after the new version")
    table = Table("mean absolute forecast error", *phases, title=f"On the re-routed links of {report['region']}")
    for target in TARGETS:
        cells = [report["errors"].get(phase, {}).get(target, {}).get("mae") for phase in phases]
        table.add_row(target, *(f"{cell:.4g}" if cell is not None else "-" for cell in cells))
    ratios = (report["error_ratio_after_drift"], report["error_ratio_after_new_version"])
    table.add_row("hit metrics, relative", "1", *(f"{ratio:.2f}" if ratio is not None else "-" for ratio in ratios), style="bold")
    console.print(table)
    for line in _furthest(report["ahead"]):
        console.print(line, highlight=False)
    detected, drift, alert = (report[f"{name}_s"] for name in ("detection_delay", "drift_to_new_version_wall", "alert_to_new_version_wall"))
    simulated = report["drift_to_new_version_s"]
    console.print(f"from drift to alert        {_minutes(detected)}")
    console.print(f"from drift to new version  {_minutes(simulated)}" + (f", {drift:.0f} s of wall time" if drift is not None else ""))
    console.print("from alert to new version  " + (f"{alert:.0f} s of wall time" if alert is not None else "never"))
    console.print(f"versions                   {report['first_version']} → {report['new_version']}")
    console.print(f"other alerts               {len(report['alerts_without_planted_drift'])}")
    for name, path in report["files"].items():
        console.print(f"{name:<28}{path}", highlight=False)
    if report["interrupted"] is not None:
        console.print(f"[yellow]interrupted[/yellow] by {report['interrupted']}")
    for problem in (*report["problems"], *report["refused"], *report["lacking"]):
        console.print(f"[red]{plain(problem, lines=True)}[/red]", highlight=False)
    verdict = "[green]everything happened[/green]" if report["happened"] else "[red]not everything happened[/red]"
    console.print(f"{verdict} in {report['seconds']:.0f} s")


def _minutes(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds / 60:.0f} simulated minutes"


def _furthest(ahead: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line about the forecasts of the furthest horizon, of all links and the whole run; empty without any."""
    rows = max((score["rows"] for score in ahead), default=1)
    found = [
        f"{score['target']} {score['mae']:.4g} ({score['coverage']:.0%} within the interval)" for score in ahead if score["rows"] == rows
    ]
    return [f"mean error {rows} rows ahead   {', '.join(found)}"] if rows > 1 else []
