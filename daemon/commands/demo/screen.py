"""The screen of a running demo."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from daemon.commands.demo.report import Story
from daemon.plain_text import plain
from daemon.wiring import Daemon
from streams.simulator.fleet import FleetSpec

TICK_S: Final = 10.0
"""Seconds between two lines of progress if standard error is not a terminal: a training prints nothing for minutes."""


class Screen:
    """Story, stream and training at a glance. On a terminal, rich renders it four times a second."""

    def __init__(self, story: Story, spec: FleetSpec, console: Console) -> None:
        self.story, self.spec, self.console = story, spec, console
        self.daemon: Daemon | None = None
        self.records = 0
        self._began_s = self._ticked_s = time.monotonic()

    def on_event(self, event: str, fields: dict[str, Any]) -> None:
        """Add an event of the daemon to the story, and print those that interest a person."""
        story = self.story
        if event == "drift_opened":
            region = self.spec.events[0].region
            planted = fields["region"] == region and fields["event_time_s"] >= story.drift_s
            if planted and fields["scope"] == "region" and story.detected_s is None:
                story.detected_s, story.detected_wall_s = fields["event_time_s"], time.monotonic()
            elif not planted:
                story.false_alarms.append(fields["summary"])
        elif event == "model_published" and fields["reason"] == "drift" and story.detected_s is not None:
            story.new_version = fields["version"]
        elif event == "model_refused":
            story.refused.append(f"{fields['version']}: {'; '.join(fields['reasons'])}")
        elif event in ("training_failed", "publication_failed"):
            story.problems.append(fields["problem"])
        if event in _LINES:
            shown = {name: plain(value) if isinstance(value, str) else value for name, value in fields.items()}
            self.console.print(Text.from_markup(_LINES[event].format(**shown)), highlight=False)

    def tick(self) -> None:
        """Print a line of progress every TICK_S if standard error is not a terminal. Called after every pass of the loop."""
        if not self.console.is_terminal and time.monotonic() - self._ticked_s >= TICK_S:
            self._ticked_s = time.monotonic()
            self.console.print(Text("; ".join(" ".join(line.split()) for line in self._lines())), soft_wrap=True)

    def __rich__(self) -> Panel:
        return Panel(Group(*(Text(line) for line in self._lines())), title="dwcp-learner", title_align="left")

    def _lines(self) -> list[str]:
        story, daemon = self.story, self.daemon
        lines = [f"{time.monotonic() - self._began_s:5.0f} s   {story.phase}"]
        if daemon is not None:
            group, training = daemon.parts.group, daemon.parts.training
            minutes = (group.event_time_s - story.drift_s) / 60 if group.rows else float("nan")
            lines.append(
                f"stream     {self.records:,} records, {group.links} links, {group.monitored_links} monitored, "
                f"simulated time {minutes:+.0f} min to the planted drift"
            )
            lines.append(f"model      {daemon.parts.models.live.version if daemon.parts.models.live else 'none yet'}")
            running = training.progress()
            if running is not None and running.progress is not None:
                lines.append(f"training   {running.progress.words()}")
            else:
                lines.append(f"training   {'starting' if training.busy else 'waits for ' + (training.decision.waiting_for or '...')}")
            lines.append(f"incidents  {daemon.parts.incidents.regions.open_incidents} open")
        return lines


_LINES: Final = {
    "training_started": "[cyan]training[/cyan] {version} ({reason}) on {rows:,} rows, in a process of its own",
    "training_finished": "[cyan]trained[/cyan] {version} in {seconds} s: {status}",
    "model_published": "[green]published[/green] {version} ({reason}), verified and named by CURRENT",
    "model_refused": "[yellow]refused[/yellow] {version}: {reasons}",
    "model_live": "[green]live[/green] forecasts come from {version}",
    "drift_opened": "[bold red]ALERT[/bold red] {summary}",
    "drift_closed": "[red]closed[/red] {summary}",
    "training_failed": "[red]training failed[/red] {problem}",
    "kafka_unreachable": "[red]no broker[/red] at {servers}: {error}; it is tried again",
    "kafka_refused": "[red]refused[/red] by {servers}: {error}; {todo}",
    "topic_missing": "[red]no topic[/red] {topic} at {servers}; {todo}",
    "kafka_joining": "[yellow]waiting[/yellow] for the consumer group {group}; {todo}",
    "checkpoint_failed": "[red]checkpoint failed[/red] {problem}",
}
