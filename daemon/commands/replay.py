"""dwcp-learner replay: run a recording through the daemon's own loop and score the forecasts."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from daemon.clock import StreamClock
from daemon.commands.replay_report import make_report, print_report
from daemon.commands.score import ByPhase, Listeners
from daemon.commands.signals import stop_on_signals
from daemon.config.load import Config
from daemon.config.sections import NEVER
from daemon.errors import EXIT_NOTHING, StateError
from daemon.ingest.ahead import Listener
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.plain_text import plain
from daemon.training.progress import Running
from daemon.wiring import build
from streams.files.source import FileSource
from streams.source import Polled, SourceError

FIRST_SHARE: Final = 0.4
"""Most rows before the first training, as a share: enough of every season in a short recording; most rows remain to be judged on."""
LATER_SHARE: Final = 0.1
"""Most rows between a drift and its training, and between two trainings, as a share."""
REPLAY_EPOCHS: Final = 6
"""Most epochs of a training: most of the gain over the linear path comes in the first ones, and a person waits for the replay."""
EPOCH_WINDOWS: Final = 4096
"""Most windows of an epoch, likewise."""
POLL_RECORDS: Final = 1_000
"""Most records of a poll. A training starts between two polls: 5,000 records would be a third of a short recording."""
POLLS_MIN: Final = 5
"""Least polls of a recording: if it were read in one, its first training would come after the last row."""
POLL_RECORDS_MIN: Final = 50
"""Least records of a poll: a recording shorter than POLLS_MIN of these has too few rows for a training anyway."""


def replay_file(
    path: Path, config: Config, *, speed: float | None, keep: Path | None, train: bool, merged: bool, as_json: bool
) -> int:  # fmt: skip
    """Replay a recording and print its report.

    Args:
        path: CSV or NDJSON file, a folder of them, or - for standard input.
        config: configuration, adapted for a recording.
        speed: multiple of recorded time; None: as fast as possible.
        keep: folder for state, models and dead letters; None: a temporary one.
        train: train versions on the way.
        merged: read the file as one series.
        as_json: print JSON instead of text.

    Returns:
        The exit code. 0: replayed to the end, and something was judged or, without training, accepted.

    Raises:
        SourceError: the file cannot be replayed.
        StateError: the state that should be kept could not be written.
    """
    source = FileSource("-" if str(path) == "-" else path, speed, max_records=POLL_RECORDS)
    rows = source.lag()
    if rows == 0:
        raise SourceError(f"{path}: holds no record, only a header; there is nothing to replay")
    if rows is not None:
        source.max_records = min(POLL_RECORDS, max(POLL_RECORDS_MIN, -(-rows // POLLS_MIN)))
    with tempfile.TemporaryDirectory(prefix="dwcp-replay-") if keep is None else nullcontext(keep) as kept:
        folder = Path(kept)
        configure_logging("warning", config.log.format, sys.stderr)
        clock = StreamClock(written_s(path))
        replayed = adapted(config, folder, rows or 0, train=train, merged=merged)
        report = run_replay(source, clock, replayed, as_json) | {"adapted": adaptations(config, replayed)}
    interrupted, records = report["interrupted"], report["records"]
    if str(path) == "-" and not records["consumed"] and interrupted is None:
        raise SourceError("standard input: is empty, or holds only a header; there is nothing to replay")
    print_report(report, as_json, keep)
    if keep is not None and report["state_problem"] is not None:
        raise StateError(f"{keep}: the state of this replay is not kept: {report['state_problem']}; free space there, and replay again")
    if interrupted is not None:
        return 128 + signal.Signals[interrupted]
    if records["rejected"] and not records["accepted"]:
        return 1
    return EXIT_NOTHING if report["nothing_judged"] and train else 0


def written_s(path: Path) -> float:
    """Return the UTC seconds at which a file, or the newest file of a folder, was written; -inf for standard input."""
    with suppress(OSError):
        files = [path, *path.iterdir()] if path.is_dir() else [path]
        return max(file.stat().st_mtime for file in files)
    return -math.inf


def run_replay(
    source: FileSource, clock: StreamClock, config: Config, quiet: bool, *, listener: Listener | None = None, stop_at: float = math.inf
) -> dict[str, Any]:  # fmt: skip
    """Run one replay and return its report.

    Args:
        quiet: no progress bar, and the daemon's events are logged.
        listener: receives forecasts beside the report's own score.
        stop_at: records after which the daemon is stopped, as by a signal.
    """
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
            bar.console.print(f"[dim]{plain(_SHOWN[event].format(**fields))}[/dim]", highlight=False)

    observer = Observer(listen, unlogged=() if quiet else _SHOWN)
    both = score if listener is None else Listeners((score, listener))
    daemon = build(config, source, clock, observer, listener=both, wait_for_training=True)
    trains = config.training.rows_min < NEVER
    stop_on_signals(daemon.loop.stop)
    with bar:

        def on_step(polled: Polled) -> None:
            training = daemon.parts.training
            _show(bar, task, polled, training.progress(), training.decision.waiting_for if trains else "")
            if bar.tasks[task].completed >= stop_at:
                daemon.loop.stop("enough records")

        daemon.loop.on_step = on_step
        daemon.run()
    return make_report(observer, score, events, daemon, trains=trains, merged=not config.links.key)


_SHOWN: Final = {
    "training_started": "training {version} ({reason})",
    "model_published": "published {version}",
    "model_refused": "refused {version}: {reasons}",
    "training_failed": "training failed: {problem}",
    "drift_opened": "drift: {summary}",
}


def adapted(config: Config, folder: Path, rows: int, *, train: bool = True, merged: bool = False) -> Config:
    """Return the configuration for a recording of `rows` rows (0: unknown).

    Schedule and cool-down stay, in recorded time. Less rows are waited for if the recording is too short for them, trainings are shorter,
    and nothing reaches outside: events go to files, no port is opened, no key is used.
    """
    expert, training = config.training.expert, config.training
    changed: dict[str, Any] = {
        "training": {
            "epochs": min(training.epochs, REPLAY_EPOCHS),
            "expert": expert.model_copy(update={"epoch_windows_max": min(expert.epoch_windows_max or EPOCH_WINDOWS, EPOCH_WINDOWS)}),
        },
        "events": {"to": "file", "folder": None},  # beside the state, not among those of a real daemon
        "http": {"enabled": False},
        "drift": {"shed_above_lag": 2**62},  # a recording is never too far behind
        "state": {"directory": folder / "state"},
        "models": {"directory": folder / "models", "signing_key": None, "verify_key": None},  # a replay's versions are not for readers
    } | ({"links": {"key": ()}} if merged else {})
    if rows and train:
        for name, share in (("rows_min", FIRST_SHARE), ("drift_rows_min", LATER_SHARE), ("new_rows_min", LATER_SHARE)):
            changed["training"][name] = min(getattr(training, name), max(1, int(share * rows)))
    if not train:
        changed["training"] |= dict.fromkeys(("rows_min", "drift_rows_min", "new_rows_min"), NEVER)
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values) for section, values in changed.items()})


def adaptations(config: Config, adapted_config: Config) -> dict[str, tuple[Any, Any]]:
    """Return the settings of training that differ from the configuration: by key, as configured and as replayed."""
    found: dict[str, tuple[Any, Any]] = {}
    for prefix, before, after in (
        ("training", config.training, adapted_config.training), ("training.expert", config.training.expert, adapted_config.training.expert),
    ):  # fmt: skip
        values, others = before.model_dump(exclude={"expert"}), after.model_dump(exclude={"expert"})
        found |= {f"{prefix}.{name}": (value, others[name]) for name, value in values.items() if others[name] != value}
    return found


def _show(bar: Progress, task: Any, polled: Polled, running: Running | None, waiting_for: str) -> None:
    bar.advance(task, sum(map(len, polled.batches)))
    if running is not None:
        bar.update(task, description="training" if running.progress is None else f"training: {running.progress.words()}")
    elif polled.batches:
        bar.update(task, description=f"waiting for {waiting_for}" if waiting_for else "streaming")
