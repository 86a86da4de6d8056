"""The report of a replay, and its tables for a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from daemon.commands.score import ByPhase, Found, why_nothing
from daemon.config.sections import NEVER
from daemon.operator.observer import Observer
from daemon.plain_text import plain
from daemon.wiring import Daemon
from features.telemetry import TARGETS

DEAD_LETTERS: Final = Path("state/events/dead_letters.ndjson")
"""Path below the folder that a replay keeps."""


def make_report(
    observer: Observer, score: ByPhase, events: list[dict[str, Any]], daemon: Daemon, *, trains: bool, merged: bool
) -> dict[str, Any]:  # fmt: skip
    """Return the document that --json prints. events: each with its name as "event". trains, merged: see score.Found."""

    def counted(name: str, **labels: str) -> int:
        return int(observer.registry.get_sample_value(name, labels) or 0)

    accepted = counted("dwcp_records_total", outcome="accepted")
    report: dict[str, Any] = {
        "interrupted": daemon.loop.stop_reason if daemon.loop.stop_reason in ("SIGTERM", "SIGINT") else None,
        "already_replayed": not counted("dwcp_records_total", outcome="consumed") and any(one.next_offset for one in daemon.parts.group),
        "records": {
            outcome: counted("dwcp_records_total", outcome=outcome) for outcome in ("consumed", "accepted", "rejected", "duplicate", "late")
        },
        "rejections": _rejections(events, lambda kind: counted("dwcp_records_rejected_total", kind=kind)),
        "state_problem": daemon.parts.keeper.problem,
        "links": daemon.parts.group.links,
        "missing": {metric: counted("dwcp_metrics_missing_total", metric=metric) for metric in TARGETS},
        "measured": {metric: accepted - counted("dwcp_metrics_missing_total", metric=metric) for metric in TARGETS},
        "versions": [event["version"] for event in events if event["event"] == "model_published"],
        "refused": [event["version"] for event in events if event["event"] == "model_refused"],
        "failed": [event["problem"] for event in events if event["event"] in ("training_failed", "publication_failed")],
        "drifts": [event["summary"] for event in events if event["event"] == "drift_opened"],
        "errors": score.phases["all"].rows() if "all" in score.phases else [],
        "ahead": observer.ahead_scores(),
    }
    nothing = not any(row["forecasts"] for row in report["errors"]) and not report["already_replayed"]
    return report | {"nothing_judged": why_nothing(_found(report, events, daemon, trains, merged)) if nothing else []}


def _found(report: dict[str, Any], events: list[dict[str, Any]], daemon: Daemon, trains: bool, merged: bool) -> Found:
    live = daemon.parts.models.live
    return Found(
        consumed=report["records"]["consumed"],
        accepted=report["records"]["accepted"],
        links=report["links"],
        longest_run=daemon.parts.group.longest_run,
        merged=merged,
        trains=trains,
        rows=daemon.parts.training.memory.rows,
        rows_min=daemon.parts.training.config.policy.rows_min,
        version=live.version if live is not None else None,
        published=tuple(report["versions"]),
        failed=tuple(report["failed"]),
        refused=tuple(reason for event in events if event["event"] == "model_refused" for reason in event["reasons"]),
        unusable=daemon.parts.models.problem,
    )


def _rejections(events: list[dict[str, Any]], counted: Callable[[str], int]) -> dict[str, dict[str, Any]]:
    """Return for each kind of rejection the number of records, and line and reason of the first one."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "record_rejected" and event["kind"] not in found:
            file, line = event["line"] or (None, None)
            found[event["kind"]] = {"count": counted(event["kind"]), "file": file, "line": line, "reason": event["reason"]}
    return found


def print_report(report: dict[str, Any], as_json: bool, keep: Path | None) -> None:
    """Print the report as JSON, or as text for a person. keep: the folder that is kept, with the dead letters."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console = Console(soft_wrap=True)
    records = report["records"]
    if report["interrupted"] is not None:
        console.print(f"[bold yellow]interrupted[/bold yellow] by {report['interrupted']}: the following covers a part of the recording")
    if report["already_replayed"]:
        console.print(f"[yellow]already replayed[/yellow]: {plain(str(keep))} has all of its records, so there was nothing to do")
    console.print(
        f"{records['consumed']:,} records of {report['links']:,} links: "
        f"{records['accepted']:,} accepted, {records['rejected']:,} rejected, "
        f"{records['duplicate']:,} duplicate, {records['late']:,} late; versions: {', '.join(report['versions']) or 'none'}; "
        f"{len(report['refused'])} refused; {len(report['drifts'])} drifts",
        highlight=False,
    )
    if report["adapted"]:
        changed = ", ".join(
            f"{name} {_setting(after)} instead of {_setting(before)}" for name, (before, after) in report["adapted"].items()
        )
        console.print(f"[dim]for a recording: {changed}; schedule and cool-down in recorded time[/dim]", highlight=False)
    for problem in report["failed"]:
        console.print(f"[red]training failed:[/red] {plain(problem, lines=True)}", highlight=False)
    if report["state_problem"] is not None:
        console.print(f"[red]the state was not written:[/red] {plain(report['state_problem'], lines=True)}", highlight=False)
    if report["rejections"]:
        _print_rejections(console, report["rejections"], keep)
    if not report["nothing_judged"]:
        console.print(_error_table(report))
        if report["ahead"]:
            console.print(_ahead_table(report["ahead"]))
    elif records["accepted"]:
        console.print(_measured_table(report))
    for reason in report["nothing_judged"]:
        console.print(f"[yellow]nothing was judged:[/yellow] {plain(reason)}", highlight=False)


def _setting(value: Any) -> str:
    return "never" if value == NEVER else f"{value:,}" if isinstance(value, int) else str(value)


def _print_rejections(console: Console, rejections: dict[str, dict[str, Any]], keep: Path | None) -> None:
    table = Table("rejected as", "records", "the first", "why", title="Records that were not accepted")
    for kind, found in rejections.items():
        where = "-" if found["line"] is None else f"{found['file']}, line {found['line']}"
        table.add_row(plain(kind), f"{found['count']:,}", plain(where), plain(found["reason"]))
    console.print(table)
    letters = "--keep FOLDER keeps all of them" if keep is None else f"all of them: {plain(str(keep / DEAD_LETTERS))}"
    console.print(f"{letters}, with reason, file and line", highlight=False)


def _measured_table(report: dict[str, Any]) -> Table:
    table = Table("target", "measured", "not measured", title="Accepted records")
    for target in TARGETS:
        table.add_row(target, f"{report['measured'][target]:,}", f"{report['missing'][target]:,}")
    return table


def _ahead_table(scores: list[dict[str, Any]]) -> Table:
    table = Table(
        "target", "rows ahead", "judged", "model", "in the interval", "published", "in the interval",
        title="The same further ahead, and what is published: a mixture of the model and simple forecasts",
    )  # fmt: skip
    for score in scores:
        of_model = (f"{score['mae']:.4g}", f"{score['coverage']:.1%}")
        of_mixture = (f"{score['published_mae']:.4g}", f"{score['published_coverage']:.1%}")
        table.add_row(score["target"], f"{score['rows']}", f"{score['forecasts']:,}", *of_model, *of_mixture)
    return table


def _error_table(report: dict[str, Any]) -> Table:
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
    return table
