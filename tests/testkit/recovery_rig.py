"""A daemon of real parts over a small fleet, run in a process of its own that can be killed at any point, and what it leaves on disk."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon.clock import StreamClock
from daemon.config.load import Config
from daemon.errors import DaemonError
from daemon.events.alerts import RETRAINING_TYPE
from daemon.ingest.journal import Entry, Journal
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.state.snapshot import Manifest, PartState, Restored, Snapshot
from daemon.state.state_file import read_state
from daemon.wiring import Daemon, build
from features.telemetry import Partition
from model.buffer.rows import BufferWriter, read_segments
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region
from streams.simulator.planted import PlantedEvent
from streams.simulator.source import SimulatorSource
from streams.source import ONLY_LOG, Log, Polled, RawBatch, Written

KILLED: Final = 137
FIRST: Final = "v20260101_000000"
"""The version that is live from the start."""
TOPIC: Final = "recovery"
PARTITIONS: Final = 4
TICKS: Final = 190
DRIFT_TICK: Final = 110
"""Rows 30 to 89 of each link calibrate its detectors; the drift comes 20 rows later and has 80 rows to be noticed."""


@lru_cache(maxsize=1)
def stream() -> dict[Partition, list[bytes]]:
    """All records of the run: two regions of six links, late and duplicate records and holes, and a re-route of one region."""
    event = PlantedEvent("reroute", DEFAULT_START_S + DRIFT_TICK * 60.0, "eu", links_share=0.9, size_sd=5.0)
    spec = FleetSpec(
        seed=3, regions=(Region("eu", 0.0), Region("us", -5.0)), links_per_region=7, late_share=0.01, duplicate_share=0.01, events=(event,)
    )
    source = SimulatorSource(spec, TICKS * 60.0)
    (only,) = source.poll(0.0).assigned
    source.seek(only, 0)
    records: dict[Partition, list[bytes]] = {Partition(TOPIC, number): [] for number in range(PARTITIONS)}
    links: dict[str, int] = {}
    while not (polled := source.poll(0.0)).ended:
        for value in (value for batch in polled.batches for value in batch.values if value is not None):
            node = json.loads(value)["node_id"]  # dealt out in turn: a hash leaves partitions of so small a fleet empty
            records[Partition(TOPIC, links.setdefault(node, len(links)) % PARTITIONS)].append(value)
    return records


@dataclass
class ScriptedSource:
    """A Source over recorded partitions, in batches and an interleaving that follow from a seed.

    records: those of `stream` unless others are given. ends: whether it says so at the last record, as a file does and a topic does not.
    written: when a record was written, as Kafka would say; then it says too that nothing else waits. None: it does not say.
    silent: (partition, offset, until): it brings nothing from that offset on until each other has given `until` records.
    on_poll: looks in before every batch. clock counts polls, so that idleness is a matter of the script.
    """

    seed: int
    batch_max: int = 64
    records: Mapping[Partition, Sequence[bytes | None]] = field(default_factory=lambda: stream())
    ends: bool = True
    silent: tuple[int, int, int] | None = None
    written: Callable[[bytes], Written] | None = None
    on_poll: Callable[[ScriptedSource], None] = lambda _source: None
    polls: int = 0
    positions: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    paused: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def clock(self) -> float:
        return float(self.polls)

    def poll(self, timeout_s: float) -> Polled:  # noqa: ARG002 - see Source
        self.polls += 1
        if self.polls == 1:
            return Polled(assigned=frozenset(self.records))
        self.on_poll(self)
        if self.paused:
            return Polled()
        records = self.records
        left = [part for part in sorted(self.positions, key=str) if self.positions[part] < len(records[part]) and not self._silent(part)]
        if not left:
            return Polled(ended=self.ends and self.exhausted())
        batches = []
        for partition in self._random.sample(left, self._random.randint(1, len(left))):
            begin = self.positions[partition]
            end = min(begin + self._random.randint(1, self.batch_max), len(records[partition]))
            if self.silent is not None and partition.number == self.silent[0] and begin < self.silent[1]:
                end = min(end, self.silent[1])
            self.positions[partition] = end
            values = records[partition][begin:end]
            written = None if self.written is None else [self.written(value or b"") for value in values]
            batches.append(RawBatch(partition, range(begin, end), values, written=written))
        return Polled(batches)

    def exhausted(self) -> bool:
        """Whether every record was given."""
        return all(self.positions[partition] == len(self.records[partition]) for partition in self.positions)

    def _silent(self, partition: Partition) -> bool:
        if self.silent is None or partition.number != self.silent[0] or self.positions[partition] != self.silent[1]:
            return False
        others = [self.positions[other] for other in self.positions if other != partition]
        return min(others) < self.silent[2]

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:  # noqa: ARG002 - see Source
        self.positions[partition] = self.positions.get(partition, 0) if offset is None else offset  # None does not go back, as in Kafka

    def release(self, partitions: frozenset[Partition]) -> None: ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed.update(offsets)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def lag(self) -> int | None:
        return None if self.written is None else 0

    def held(self) -> int:
        return 0

    def keyless(self) -> int:
        return 0

    def generation(self) -> int:
        return 0

    def healthy(self) -> bool:
        return True

    def troubles(self) -> list[str]:
        return []

    def close(self) -> None: ...


def config(folder: Path, **sections: dict[str, Any]) -> Config:
    """State, events and models under `folder`; checkpoints as often as they can be written, no training."""
    made: dict[str, dict[str, Any]] = {
        "events": {"to": "file"},
        "training": {"schedule": "", "rows_min": 2**62, "drift_rows_min": 2**62},
        "drift": {"idle_s": 2**40, "watched_per_region": 5},
        "state": {"directory": folder / "state", "checkpoint_interval_s": 1e-6},
        "models": {"directory": folder / "models", "follow_interval_s": 1e-6},
        "http": {"enabled": False},
        "log": {"format": "json"},
    }
    for section, values in sections.items():
        made[section] = made.get(section, {}) | values
    return Config(**made)  # type: ignore[arg-type]


def daemon_over(source: ScriptedSource, configuration: Config) -> Daemon:
    """A daemon that has its clock from the source, and starts a checkpoint at every pass: the next batch waits for the one before."""
    made = build(configuration, source, StreamClock(), Observer())
    made.loop.partitions._clock = source.clock
    before = source.on_poll

    def on_poll(source: ScriptedSource) -> None:
        running = made.loop.checkpointer._running
        if running is not None:
            running[1].exception()
        before(source)

    source.on_poll = on_poll
    return made


def in_child(run: Callable[[], None], log: Path) -> int:
    """The exit code of `run` in a forked process, which shares nothing with this one but the disk; its log goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # garbage of this process may own threads that the child does not have (an ONNX session): the child would wait for them
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = log.open("a", buffering=1)
            configure_logging("info", "json")
            run()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        except BaseException:  # noqa: BLE001 - nothing of the forked process may run on in its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    gc.unfreeze()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:  # the time limit of a test, or Ctrl-C
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def die() -> None:
    """As kill -9: nothing is flushed, closed or tidied up."""
    os._exit(KILLED)


def kill_when(owner: Any, name: str, wanted: Callable[..., bool], *, nth: int = 1, after: bool = False) -> Callable[[], None]:
    """For `prepare`: kills the process before or after the nth call of a function for whose arguments `wanted` holds."""

    def arm() -> None:
        original, calls = getattr(owner, name), 0

        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            hit = wanted(*args, **kwargs)
            calls += hit
            if hit and calls == nth and not after:
                die()
            result = original(*args, **kwargs)
            if hit and calls == nth:
                die()
            return result

        setattr(owner, name, counting)

    return arm


def kill_around(owner: Any, name: str, nth: int, *, after: bool) -> Callable[[], None]:
    """For `prepare`: kills the process before or after the nth call of a function."""
    return kill_when(owner, name, lambda *_args, **_kwargs: True, nth=nth, after=after)


def kill_after_calls(count: int) -> None:
    """To be called in the process: kills it at the count-th call of any function of the daemon, on whatever thread."""
    left = [count]
    roots = tuple(f"{os.sep}{package}{os.sep}" for package in ("daemon", "model", "drift"))

    def profile(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and any(root in frame.f_code.co_filename for root in roots) and "site-packages" not in frame.f_code.co_filename:
            left[0] -= 1
            if left[0] <= 0:
                die()

    threading.setprofile(profile)
    sys.setprofile(profile)


@dataclass(frozen=True)
class Outcome:
    """What a run has left, without what may differ between two runs of one stream: numbers of checkpoints and journal entries, segment
    borders."""

    offsets: dict[str, int | None]
    parts: dict[str, dict[str, bytes]]
    regions: bytes
    rows: int
    alerts: dict[str, str]
    buffer: tuple[Any, ...]


def checkpoints(state: Path) -> list[tuple[Path, Manifest]]:
    """All checkpoints of a state directory, of whichever member, newest first."""
    folders = [path for path in (state / "checkpoints").iterdir() if not path.name.startswith(".")]
    read = [(path, msgspec.json.decode((path / "MANIFEST.json").read_bytes(), type=Manifest)) for path in folders]
    return sorted(read, key=lambda one: one[1].sequence, reverse=True)


def newest(state: Path) -> tuple[Path, Manifest]:
    """The newest checkpoint of a state directory."""
    return checkpoints(state)[0]


def parts_of(path: Path, manifest: Manifest) -> dict[str, dict[str, bytes]]:
    """By partition everything that a checkpoint holds of it, but for the number of its last journal entry and its reading of the clock."""
    parts = {}
    for part in manifest.parts:
        document, arrays = read_state(path / part.file, part.sha256)
        parts[f"{part.topic}-{part.number}"] = {name: array.tobytes() for name, array in arrays.items()} | {
            name: msgspec.msgpack.encode(value) for name, value in document.items() if name not in ("journal_taken", "clock_s")
        }
    return parts


def newest_parts(state: Path) -> dict[str, dict[str, bytes]]:
    """The newest state of each partition, of whichever member."""
    found: dict[str, dict[str, bytes]] = {}
    for path, manifest in checkpoints(state):
        found = parts_of(path, manifest) | found
    return found


def outcome(folder: Path) -> Outcome:
    """Reads what a run has left on disk. Fails where an alert was told twice with other words."""
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
    """All rows of the segments that a checkpoint names, with names in place of codes."""
    table = read_segments([state / "buffer" / name for part in manifest.parts for name in part.segments])
    texts = tuple(
        tuple(values[code] if code >= 0 else None for code in table.codes[:, category].tolist())
        for category, values in enumerate(table.values)
    )
    links = tuple(table.links[link] for link in table.link.tolist())
    return links, table.time_s.tobytes(), table.numeric.tobytes(), texts


def run(
    home: Path,
    *,
    prepare: Callable[[], None] = lambda: None,
    idle_s: float = 2**40,
    sections: dict[str, dict[str, Any]] | None = None,
    **script: Any,
) -> int:
    """One process over the stream: its exit code. prepare: is called in the process before anything is built. idle_s: in polls."""

    def inside() -> None:
        prepare()
        made = config(home, **({"drift": {"idle_s": idle_s}} | (sections or {})))
        try:
            daemon_over(ScriptedSource(**({"seed": 1, "batch_max": 100} | script)), made).run()
        except DaemonError as error:
            print(json.dumps({"event": "ended", "problem": str(error)}))
            raise SystemExit(error.exit_code) from error

    return in_child(inside, home / "log")


def outcome_after(home: Path, **script: Any) -> Outcome:
    """What a last run to the end of the stream leaves."""
    assert run(home, **script) == 0, (home / "log").read_text()
    return outcome(home)


def same(left: Outcome, right: Outcome) -> None:
    """Compares part by part, so that a failure says what differs."""
    for name in ("offsets", "rows", "alerts", "regions", "buffer"):
        assert getattr(left, name) == getattr(right, name), name
    for partition, state in left.parts.items():
        differing = [name for name in state if state[name] != right.parts[partition][name]]
        assert not differing, f"{partition}: {differing}"


def told(home: Path, name: str) -> list[dict[str, Any]]:
    """The operational events of a name in the logs of all runs."""
    lines = [line for line in (home / "log").read_text().splitlines() if line.startswith("{")]
    return [event for line in lines if (event := json.loads(line)).get("event") == name]


def journal(home: Path) -> list[Entry]:
    """The entries of the journal."""
    return Journal(home / "state/journal-main.ndjson").entries


def snapshot_of(partition: Partition, restored: Restored, buffer: Path, generation: int) -> Snapshot:
    """A snapshot of one restored partition without new rows."""
    part = PartState(partition, restored.offset, restored.document, restored.arrays, BufferWriter(buffer, partition), None)
    return Snapshot((part,), {"regions": {}, "training": {}}, generation, created_at_s=1.0, now_s=0.0)
