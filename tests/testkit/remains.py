"""The files that a run of the daemon has left on disk, in a form in which two runs of one stream can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from daemon.events.alerts import RETRAINING_TYPE
from daemon.ingest.entries import Entry
from daemon.ingest.journal import Journal
from daemon.state.snapshot import Manifest, PartState, Restored, Snapshot
from daemon.state.state_file import read_state
from features.telemetry import Partition
from model.buffer.rows import BufferWriter, read_segments


@dataclass(frozen=True)
class Outcome:
    """What a run has left.

    It lacks what may differ between two runs of one stream: numbers of checkpoints and journal entries, borders of segments.

    Args:
        offsets: next offset by partition.
        parts: by partition the fields of its state, as bytes.
        regions: state of the regions, as msgpack.
        rows: rows that trainings count.
        alerts: lines of the drift events by id.
        buffer: all rows of the buffer (see buffer_rows).
    """

    offsets: dict[str, int | None]
    parts: dict[str, dict[str, bytes]]
    regions: bytes
    rows: int
    alerts: dict[str, str]
    buffer: tuple[Any, ...]


def checkpoints(state: Path) -> list[tuple[Path, Manifest]]:
    """Return all checkpoints of a state directory, of any member, newest first."""
    folders = [path for path in (state / "checkpoints").iterdir() if not path.name.startswith(".")]
    read = [(path, msgspec.json.decode((path / "MANIFEST.json").read_bytes(), type=Manifest)) for path in folders]
    return sorted(read, key=lambda one: one[1].sequence, reverse=True)


def newest(state: Path) -> tuple[Path, Manifest]:
    """Return the newest checkpoint of a state directory."""
    return checkpoints(state)[0]


def parts_of(path: Path, manifest: Manifest) -> dict[str, dict[str, bytes]]:
    """Return by partition the fields of its state, but for the number of its last journal entry and its reading of the clock."""
    parts = {}
    for part in manifest.parts:
        document, arrays = read_state(path / part.file, part.sha256)
        parts[f"{part.topic}-{part.number}"] = {name: array.tobytes() for name, array in arrays.items()} | {
            name: msgspec.msgpack.encode(value) for name, value in document.items() if name not in ("journal_taken", "clock_s")
        }
    return parts


def newest_parts(state: Path) -> dict[str, dict[str, bytes]]:
    """Return the newest state of each partition, of any member."""
    found: dict[str, dict[str, bytes]] = {}
    for path, manifest in checkpoints(state):
        found = parts_of(path, manifest) | found
    return found


def outcome(folder: Path) -> Outcome:
    """Read what a run has left on disk. Raises AssertionError if an alert was sent twice with different content."""
    state = folder / "state"
    path, manifest = newest(state)
    parts = parts_of(path, manifest)
    process, _ = read_state(path / "process.npz", manifest.process_sha256)
    alerts: dict[str, str] = {}
    for line in (state / "events/drift.ndjson").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == RETRAINING_TYPE:  # when a training runs, and how it ends, is decided by the clock
            continue
        assert alerts.setdefault(event["id"], line) == line, f"alert {event['id']} was told twice, with other words"
    return Outcome(
        offsets={f"{part.topic}-{part.number}": part.offset for part in manifest.parts},
        parts=parts,
        regions=msgspec.msgpack.encode(process["regions"]),
        rows=process["training"]["rows"],
        alerts=alerts,
        buffer=buffer_rows(state, manifest),
    )


def buffer_rows(state: Path, manifest: Manifest) -> tuple[Any, ...]:
    """Return all rows of the segments that a checkpoint names, with names in place of codes."""
    table = read_segments([state / "buffer" / name for part in manifest.parts for name in part.segments])
    texts = tuple(
        tuple(values[code] if code >= 0 else None for code in table.codes[:, category].tolist())
        for category, values in enumerate(table.values)
    )
    links = tuple(table.links[link] for link in table.link.tolist())
    return links, table.time_s.tobytes(), table.numeric.tobytes(), texts


def same(left: Outcome, right: Outcome) -> None:
    """Compare two outcomes part by part, so that a failure shows the part."""
    for name in ("offsets", "rows", "alerts", "regions", "buffer"):
        assert getattr(left, name) == getattr(right, name), name
    for partition, state in left.parts.items():
        differing = [name for name in state if state[name] != right.parts[partition][name]]
        assert not differing, f"{partition}: {differing}"


def reported(home: Path, name: str) -> list[dict[str, Any]]:
    """Return the operational events of a name from the logs of all runs."""
    lines = [line for line in (home / "log").read_text().splitlines() if line.startswith("{")]
    return [event for line in lines if (event := json.loads(line)).get("event") == name]


def journal(home: Path) -> list[Entry]:
    """Return the entries of the journal."""
    return Journal(home / "state/journal-main.ndjson").entries


def snapshot_of(partition: Partition, restored: Restored, buffer: Path, generation: int) -> Snapshot:
    """Return a snapshot of one restored partition without new rows."""
    part = PartState(partition, restored.offset, restored.document, restored.arrays, BufferWriter(buffer, partition), None)
    return Snapshot((part,), {"regions": {}, "training": {}}, generation, created_at_s=1.0, now_s=0.0)
