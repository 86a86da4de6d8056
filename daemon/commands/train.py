"""dwcp-learner train: one training on a recording, judged on its last rows, and the files that it leaves.

The recording is read and examined here. A child process trains (`python -m model.run`), so that the daemon's packages stay free of
TensorFlow. The files appear all at once, by one rename.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from daemon.commands.train_options import TrainError, TrainOptions
from daemon.commands.train_report import print_quality, print_report
from daemon.failures import wants_traceback
from daemon.training.command import command, environment
from features.definition import SHORT_ROWS
from features.offline import RawTable, compute
from features.telemetry import DEFAULT_LINK_KEY, Partition
from features.vocabulary import Vocabulary
from model.buffer.rows import BufferRows, BufferWriter
from model.registry.removal import remove_if_possible
from model.spec.job import EXIT_DONE, EXIT_FAILED
from model.spec.run import INTERRUPTED, RunSpec
from model.version.documents import read_document
from model.version.manifest import MANIFEST_NAME
from model.version.metadata import VERSION_FORMAT
from model.windows.index import build_windows, split_by_time
from model.windows.quality import DataQuality, Finding, examine
from streams.files.recording import Recording, read_recording
from streams.source import SourceError

EXIT_INTERRUPTED: Final = 130
LONG_ENOUGH_RATIO: Final = 0.5
"""Share of the rows that must lie in links long enough for a window. Below it the file is read as one merged series."""
REPORT_NAME: Final = "TRAINING_REPORT.json"
_LAST_LINES: Final = 8
"""Lines of the child's log that are shown if it was killed."""


def train_file(options: TrainOptions, as_json: bool) -> int:
    """Train, write the output folder and print what was reached.

    Args:
        as_json: Print the report as JSON instead of tables.

    Returns:
        The exit code.

    Raises:
        TrainError: There must be no training on this data, it failed, or the folder cannot be written.
        SourceError: The recording cannot be read.
    """
    console = Console(stderr=True, quiet=as_json)
    _require_output(options.output_dir)
    recording, quality = examined(options)
    print_quality(quality, console)
    if quality.errors:
        what = "; ".join(f"{finding.what}: {finding.action}" for finding in quality.errors)
        raise TrainError(f"{options.data_path}: cannot train on this data: {what}")
    with _work_folder(options.output_dir) as work:
        spec = _spec(options, recording.table, quality, work)
        result = _run(work, console)
        _replace(options.output_dir, Path(spec.folder))
    report = read_document(options.output_dir / REPORT_NAME)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, options.output_dir)
    return EXIT_INTERRUPTED if result.get("status") == INTERRUPTED else EXIT_DONE


def examined(options: TrainOptions) -> tuple[Recording, DataQuality]:
    """Return the recording, by links or merged into one series, and its quality. Raise SourceError if it cannot be read."""
    key = DEFAULT_LINK_KEY if options.link_key is None else options.link_key
    recording = read_recording(options.data_path, key)
    if not len(recording.table):
        refused = "; ".join(record.reason for record in recording.examples)
        raise SourceError(
            f"{options.data_path}: none of its {recording.records:,} records is valid telemetry{': ' if refused else ''}{refused}"
        )
    found: list[Finding] = []
    # Windows of short runs are only for networks that are trained on windows cut short.
    span = (SHORT_ROWS if options.architecture.ahead.horizons else options.architecture.window_rows) + options.horizon_rows
    if options.link_key is None and _rows_in_long_links(recording.table, span) < LONG_ENOUGH_RATIO:
        links = len(recording.table.links)
        recording = read_recording(options.data_path, ())
        found.append(
            Finding("warning", f"most of the {links:,} links have less than the {span} rows of a window", "read as one merged series")
        )
    horizons = options.architecture.ahead.horizons
    features = compute(recording.table, Vocabulary.empty(), options.gap_multiple)
    window_rows = options.architecture.window_rows
    index = build_windows(features, recording.table, options.horizon_rows, window_rows, horizons)
    split = split_by_time(index, recording.table, options.shares)
    windows = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    return recording, examine(recording.table, features, windows, (*found, *_of_the_file(recording)))


def _rows_in_long_links(table: RawTable, span: int) -> float:
    """Share of the rows in links of at least `span` rows."""
    per_link = np.bincount(table.link)
    return float(per_link[per_link >= span].sum() / len(table))


def _of_the_file(recording: Recording) -> Iterator[Finding]:
    if recording.rejected:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(recording.rejected.items()))
        first = recording.examples[0]
        where = f"{first.line[0]}, line {first.line[1]}: " if first.line else ""
        yield Finding("warning", f"{sum(recording.rejected.values()):,} records are not valid ({kinds}; {where}{first.reason})", "left out")
    if recording.duplicates:
        yield Finding("warning", f"{recording.duplicates:,} rows repeat a time of their link", "left out")
    if recording.backwards:
        yield Finding("note", f"{recording.backwards:,} rows come after a later one of their link", "sorted by time")


def _require_output(folder: Path) -> None:
    """Raise TrainError if the folder holds anything but an earlier run, or cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"{folder} is a file; give --output-dir a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST_NAME).is_file():
        raise TrainError(f"{folder} holds files that no training wrote; give --output-dir a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{folder.parent} cannot be made ({error.strerror}); give --output-dir a folder that can be written") from error
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise TrainError(f"{folder.parent} cannot be written; give --output-dir another folder")


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output, on its file system, that is removed afterwards."""
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent.absolute()))
    except OSError as error:
        raise TrainError(f"{output.parent} cannot be written ({error.strerror}); give --output-dir another folder") from error
    try:
        yield work
    finally:
        remove_if_possible(work)


def _spec(options: TrainOptions, table: RawTable, quality: DataQuality, work: Path) -> RunSpec:
    """Write the run file, and the recording beside it as a sealed segment."""
    now = datetime.now(UTC)
    snapshot = work / "snapshot"
    snapshot.mkdir()
    writer = BufferWriter(snapshot, Partition("recording", 0))
    writer.append(BufferRows(np.arange(len(table), dtype=np.int64), table.time_s, table.numeric, table.codes, table.link))
    rows = writer.detach(table.links, table.values)
    assert rows is not None  # an empty table has been refused
    writer.seal(rows)
    spec = RunSpec(
        version=now.strftime(VERSION_FORMAT),
        created_at_s=now.timestamp(),
        source=options.data_path.name,
        snapshot=str(snapshot),
        folder=str(work / "files"),
        data_quality=asdict(quality),
        settings=options.settings,
        architecture=options.architecture,
        gap_multiple=options.gap_multiple,
        local_time=options.local_time,
        horizon_rows=options.horizon_rows,
        shares=options.shares,
    )
    (work / "run.json").write_bytes(spec.to_json())
    return spec


def _run(work: Path, console: Console) -> dict[str, Any]:
    """Run the child to its end, show its progress, and return its last message. Ctrl-C reaches the child, which ends its training."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    log = work / "child.log"
    last: dict[str, Any] = {}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Progress(*columns, console=console) as bar, log.open("wb") as errors:
            process = subprocess.Popen(
                command("model.run", str(work / "run.json"), str(os.getpid())),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment(), cwd=work,
            )  # fmt: skip
            task = bar.add_task("starting", total=None)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    last = _message(line) or last
                    _show(bar, task, last)
                code = process.wait()
            finally:
                process.kill()
    finally:
        signal.signal(signal.SIGINT, before)
    if code != EXIT_DONE:
        words = log.read_text("utf-8", "replace").strip().splitlines()
        words = words if wants_traceback() else words[-1:] if code == EXIT_FAILED else words[-_LAST_LINES:]  # its last line says why
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise TrainError("\n".join((f"the training {how}, and nothing was written; the end of its log:", *words)))
    return last


def _message(line: bytes) -> dict[str, Any] | None:
    """Return the message in a line; None for a line that is not a JSON object, which comes from a library."""
    try:
        document = msgspec.json.decode(line)
    except (ValueError, RecursionError):  # from msgspec, or bytes that are not UTF-8
        return None
    return document if isinstance(document, dict) else None


def _show(bar: Progress, task: Any, message: dict[str, Any]) -> None:
    if "epoch" not in message:
        bar.update(task, description=str(message.get("stage", "starting")))
        return
    losses = [f"{name} {message[key]:.4f}" for name, key in (("loss", "loss"), ("validation", "validation_loss")) if message.get(key)]
    description = ", ".join((f"epoch {message['epoch']}/{message['epochs']}", *losses))
    bar.update(task, description=description, total=message["steps"], completed=message["step"])
    if message.get("epoch_ended"):
        bar.console.print(f"[dim]{description}[/dim]", highlight=False)


def _replace(output: Path, made: Path) -> None:
    """Put the new files in place of an earlier run's: a reader finds the one or the other."""
    doomed = made.with_name("replaced")
    if output.exists():
        output.rename(doomed)
    made.rename(output)
