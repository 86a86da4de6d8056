"""dwcp-learner alerts: follow drift alerts, and explain one with the telemetry behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption
from daemon.config import load as configuration
from daemon.config.load import Config
from daemon.errors import EXIT_CODES, DaemonError
from daemon.plain_text import plain
from streams.events import EventData
from streams.files.read_events import events_in_file
from streams.kafka.read_events import events_of_topic

app = typer.Typer(no_args_is_help=True, help="Follow drift alerts, and explain one.", epilog=EXIT_CODES)
FileOption = Annotated[Path | None, typer.Option("--file", help="NDJSON file of alerts, instead of the configuration's file or topic.")]
LATEST_S: Final = 2.0**33
"""Largest UTC seconds that are accepted as a date: the year 2242."""


class _Signal(msgspec.Struct, frozen=True):
    signal: str
    change: str
    size: float
    size_sigma: float
    links: int
    unit: str = ""
    detectors: list[str] = []
    before: float | None = None
    after: float | None = None


class _Alert(msgspec.Struct, frozen=True):
    """The data of an event, as far as they are shown. An event of another form was not written by a daemon."""

    incident: str
    summary: str = ""
    severity: str = ""
    since_s: Annotated[float, msgspec.Meta(ge=0, le=LATEST_S)] = 0.0
    opened_s: Annotated[float, msgspec.Meta(ge=0, le=LATEST_S)] = 0.0
    signals: list[_Signal] = []
    links: list[str] = []
    watched_links: int = 0
    retraining: str = ""
    version: str = ""


_COLOURS: Final = {"info": "green", "warning": "yellow", "critical": "bold red"}


@app.command(epilog=EXIT_CODES)
def follow(
    config: ConfigOption = None,
    file: FileOption = None,
    once: Annotated[bool, typer.Option("--once", help="Show the alerts that exist and end.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Show only alerts that come from now on.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show alerts as they come, one line each, without repeats. Ctrl-C ends it."""
    if once and new:
        raise typer.BadParameter("--once shows alerts that exist, --new those that come later; use one of them")
    console, shown, loaded = Console(soft_wrap=True), 0, configuration.load(config)
    try:
        for event in _events(loaded, file, follow=not once, from_start=not new):
            shown += 1
            if as_json:
                print(json.dumps(event), flush=True)
            else:
                console.print(_line(event), highlight=False)
    except KeyboardInterrupt:
        pass
    if once and not shown:
        Console(stderr=True, soft_wrap=True).print(f"there is no alert in {plain(_place(loaded, file))}", highlight=False)


@app.command(epilog=EXIT_CODES)
def explain(
    incident: Annotated[str, typer.Argument(help="Id of the incident, or its beginning.")],
    config: ConfigOption = None,
    file: FileOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write an HTML page with the curves instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show an incident from its beginning to its end, with the telemetry of its links from the training buffer."""
    from daemon.commands.alerts.evidence import evidence_of, page, plot

    if as_json and html is not None:
        raise typer.BadParameter("--json and --html are two forms of the same; use one of them")
    loaded = configuration.load(config)
    found = _story(list(_events(loaded, file, follow=False, from_start=True)), incident)
    beside = _state_beside(file)
    models = beside.parent / "models" if beside is not None and (beside.parent / "models").is_dir() else None
    evidence = evidence_of(found, beside or loaded.state.directory, loaded, models)
    if html is not None:
        text = page(found, evidence)
        try:
            html.write_text(text, "utf-8", "replace")
        except OSError as error:
            raise DaemonError(f"{html}: cannot be written ({error.strerror}); name another file with --html") from error
        print(html)
    elif as_json:
        print(json.dumps({"events": found, "evidence": [curve.to_json() for curve in evidence]}, indent=2))
    else:
        console = Console(soft_wrap=True)
        for event in found:
            console.print(_line(event), highlight=False)
        console.print(_table(found))
        for curve in evidence:
            print(plot(curve, console.width, colours=console.is_terminal))
        if not evidence:
            console.print("[dim]the training buffer has no telemetry of these links at that time (any more)[/dim]")


def _alerts_file(config: Config, file: Path | None) -> Path | None:
    """Return the file that alerts are read from; None: they are in the topic."""
    if file is None and config.events.to == "kafka":
        return None
    return file or (config.events.folder or config.state.directory / "events") / "drift.ndjson"


def _place(config: Config, file: Path | None) -> str:
    return str(_alerts_file(config, file) or f"topic {config.events.drift_topic}")


def _events(config: Config, file: Path | None, *, follow: bool, from_start: bool) -> Iterator[EventData]:
    """Read the events of the drift topic or file, without those that no daemon writes."""
    path = _alerts_file(config, file)
    if path is None:
        found = events_of_topic(config.events.drift_topic, config.kafka.client_options(), follow, from_start)
    else:
        found = events_in_file(path, follow, from_start)
    return (event for event in found if _fits(event))


def _state_beside(file: Path | None) -> Path | None:
    """Return the state directory that a file of alerts lies in, as `replay --keep` leaves it."""
    state = file.resolve().parent.parent if file is not None else None
    return state if state is not None and (state / "checkpoints").is_dir() else None


def _fits(event: EventData) -> bool:
    try:
        msgspec.convert(event["data"], _Alert)
    except msgspec.ValidationError:
        return False
    return True


def _story(events: list[EventData], incident: str) -> list[EventData]:
    """Return the events of one incident, oldest first. Raises DaemonError if the id matches none or several."""
    ids = dict.fromkeys(event["data"].get("incident", "") for event in events)
    matching = [name for name in ids if name.startswith(incident)]
    if len(matching) != 1 or not incident:
        if not ids:
            raise DaemonError(f"there is no incident {incident!r}: no alert was sent yet, or they are elsewhere (--file, --config)")
        known = ", ".join(name[:8] for name in list(ids)[-5:])
        problem = f"there is no incident {incident!r}" if not matching else f"{len(matching)} incidents begin with {incident!r}"
        raise DaemonError(f"{problem}; the last ones are {known} (see `alerts follow --once`)")
    return [event for event in events if event["data"].get("incident") == matching[0]]


def _line(event: EventData) -> str:
    alert = msgspec.convert(event["data"], _Alert)
    colour = "cyan" if alert.retraining else _COLOURS.get(alert.severity, "white")
    kind = event["type"].rpartition(".")[2]
    return f"[dim]{plain(event['time'])}[/dim] {plain(alert.incident[:8])} [{colour}]{plain(kind):<10}[/{colour}] {plain(in_words(event))}"


def in_words(event: EventData) -> str:
    """Return what an event says: the summary of an alert, or how the training went that an incident asked for."""
    data = event["data"]
    if answer := data.get("retraining"):
        return f"retraining {answer}: {data.get('version', '')}"
    return str(data.get("summary") or event["type"])


def _table(events: list[EventData]) -> Table:
    """Return a table of the signals of the last change."""
    changes = [msgspec.convert(event["data"], _Alert) for event in events]
    last = next((change for change in reversed(changes) if change.signals), None)
    table = Table("signal", "change", "before", "after", "size", "deviations", "links", "detectors")
    if last is None:
        return table
    for signal in last.signals:
        size, links = f"{signal.size:+.4g} {signal.unit}".rstrip(), f"{signal.links} of {last.watched_links}"
        before, after = ("" if level is None else f"{level:.4g}" for level in (signal.before, signal.after))
        cells = (signal.signal, signal.change, before, after, size, f"{signal.size_sigma:.2f}", links, ", ".join(signal.detectors))
        table.add_row(*(plain(cell) for cell in cells))
    table.caption = f"since {_time(last.since_s)}, opened {_time(last.opened_s)}"
    return table


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
