"""dwcp-learner replay: a recording through the daemon's own loop, and what its forecasts were worth."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from daemon.cli_signals import stop_on_signals
from daemon.clock import StreamClock
from daemon.config import Config
from daemon.logs import configure_logging
from daemon.observe import Observer
from daemon.score import ByPhase
from daemon.wiring import build
from features.telemetry import TARGETS
from streams.file_source import FileSource
from streams.source import Polled

FIRST_SHARE: Final = 0.4
"""Of the rows the first version is trained on: enough of every season in a short recording, and most of it is left to be judged on."""
REPLAY_EPOCHS: Final = 6
"""From Ridge on, most of what there is to gain comes in the first epochs; a replay is read by somebody who waits for it."""
POLL_RECORDS: Final = 1_000
"""A training starts between two polls: in a short recording 5,000 records would be a third of it."""
LATER_SHARE: Final = 0.1
"""Rows after a drift before it is trained on."""


def replay_file(
    path: Path, config: Config, *, speed: float | None, keep: Path | None, train: bool, merged: bool, as_json: bool
) -> None:  # fmt: skip
    """Raises SourceError for a file that cannot be replayed."""
    source = FileSource("-" if str(path) == "-" else path, speed, max_records=POLL_RECORDS)
    with tempfile.TemporaryDirectory(prefix="dwcp-replay-") as temporary:
        folder = keep or Path(temporary)
        configure_logging("warning", config.log.format, sys.stderr)
        print_report(run_replay(source, _adapted(config, folder, source.lag() or 0, train, merged), as_json), as_json)


def run_replay(source: FileSource, config: Config, quiet: bool) -> dict[str, Any]:
    """The report of one replay."""
    score = ByPhase(lambda _time_s: "all")
    console = Console(stderr=True, quiet=quiet)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )  # fmt: skip
    task = bar.add_task("starting", total=source.lag())
    events: list[dict[str, Any]] = []

    def listen(event: str, fields: dict[str, Any]) -> None:
        events.append({"event": event, **fields})
        if event in _SHOWN:
            bar.console.print(f"[dim]{escape(_SHOWN[event].format(**fields))}[/dim]", highlight=False)

    observer = Observer(listen)
    daemon = build(config, source, StreamClock(), observer, listener=score, wait_for_training=True)
    stop_on_signals(daemon.loop.stop)
    with bar:
        daemon.loop.on_step = lambda polled: _show(
            bar, task, polled, daemon.loop.training.progress(), daemon.loop.training.decision.waiting_for
        )
        daemon.run()
    return _report(observer, score, events, daemon.loop.partitions.links)


_SHOWN: Final = {
    "training_started": "training {version} ({reason})",
    "model_published": "published {version}",
    "model_refused": "refused {version}: {reasons}",
    "training_failed": "training failed: {problem}",
    "drift_opened": "drift: {summary}",
}


def _adapted(config: Config, folder: Path, rows: int, train: bool, merged: bool) -> Config:
    """The configuration for a recording of so many rows (0: not known): events to files, nothing that waits for the wall clock."""
    training = {"schedule": "", "interval_s": None, "cooldown_s": 0.0, "epochs": REPLAY_EPOCHS, "epoch_windows_max": 4096}
    if rows:
        training |= {
            "rows_min": max(1, int(FIRST_SHARE * rows)),
            "drift_rows_min": max(1, int(LATER_SHARE * rows)),
            "new_rows_min": max(1, int(LATER_SHARE * rows)),
        }
    if not train:
        training |= {"rows_min": 2**62}
    changed: dict[str, Any] = {
        "training": training,
        "events": {"to": "file"},
        "http": {"enabled": False},
        "drift": {"shed_above_lag": 2**62},  # a recording is never too far behind
        "state": {"directory": folder / "state"},
        "models": {"directory": folder / "models", "signing_key": None, "verify_key": None},  # nobody is to serve a replay's versions
    } | ({"links": {"key": ()}} if merged else {})
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values) for section, values in changed.items()})


def _show(bar: Progress, task: Any, polled: Polled, progress: list[dict[str, Any]], waiting_for: str) -> None:
    bar.advance(task, sum(map(len, polled.batches)))
    if progress:
        last = progress[-1]
        told = " ".join(f"{key} {last[key]}" for key in ("stage", "epoch", "epochs") if key in last)
        bar.update(task, description=f"training: {told}")
    elif polled.batches:
        bar.update(task, description=f"waiting for {waiting_for}" if waiting_for else "streaming")


def _report(observer: Observer, score: ByPhase, events: list[dict[str, Any]], links: int) -> dict[str, Any]:
    def counted(name: str, **labels: str) -> int:
        return int(observer.registry.get_sample_value(name, labels) or 0)

    accepted = counted("dwcp_records_total", outcome="accepted")
    return {
        "records": {
            outcome: counted("dwcp_records_total", outcome=outcome) for outcome in ("consumed", "accepted", "rejected", "duplicate", "late")
        },
        "links": links,
        "missing": {metric: counted("dwcp_metrics_missing_total", metric=metric) for metric in TARGETS},
        "measured": {metric: accepted - counted("dwcp_metrics_missing_total", metric=metric) for metric in TARGETS},
        "versions": [event["version"] for event in events if event["event"] == "model_published"],
        "refused": [event["version"] for event in events if event["event"] == "model_refused"],
        "failed": [event["problem"] for event in events if event["event"] in ("training_failed", "publication_failed")],
        "drifts": [event["summary"] for event in events if event["event"] == "drift_opened"],
        "errors": score.phases["all"].rows() if "all" in score.phases else [],
    }


def print_report(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console = Console()
    records = report["records"]
    console.print(
        f"{records['consumed']:,} records of {report['links']:,} links: "
        f"{records['accepted']:,} accepted, {records['rejected']:,} rejected, "
        f"{records['duplicate']:,} duplicate, {records['late']:,} late; versions: {', '.join(report['versions']) or 'none'}; "
        f"{len(report['refused'])} refused; {len(report['drifts'])} drifts",
        highlight=False,
    )
    for problem in report["failed"]:
        console.print(f"[red]training failed:[/red] {escape(problem)}", highlight=False)
    table = Table(
        "target",
        "not measured",
        "judged",
        "model",
        "persistence",
        "skill",
        title="Mean absolute error of forecasts made before their row was read",
    )
    errors = {row["target"]: row for row in report["errors"]}
    for target in TARGETS:
        row = errors.get(target, {"forecasts": 0, "mae": None, "persistence_mae": None, "skill": None})
        numbers = (f"{row[key]:.4g}" if row[key] is not None else "-" for key in ("mae", "persistence_mae"))
        skill = f"{row['skill']:+.1%}" if row["skill"] is not None else "-"
        table.add_row(target, f"{report['missing'][target]:,}", f"{row['forecasts']:,}", *numbers, skill)
    console.print(table)
