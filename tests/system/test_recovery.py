"""Exactly once: a run that is killed at any point and started again leaves the same state, alerts and buffer as one that never stopped.

The daemon is made of its real parts, in a process of its own that ends with os._exit: see testkit.rig.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import daemon.state.checkpoint
from daemon.clock import StreamClock
from daemon.ingest.entries import Adopted, Alerted, Clock, Idle, ModelLive, Resumed
from daemon.ingest.journal import Journal
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from daemon.wiring import build
from drift.link.cusum import CALIBRATION_ROWS, STATS
from model.buffer.rows import BufferWriter
from streams.files.source import FileSource
from streams.simulator.fleet import DEFAULT_START_S
from streams.source import SourceError
from testkit import killing, remains, rig, scripted
from testkit.versions import publish

SECOND = "v20260102_000000"


def by_the_journal(home: Path, into: Path, **script: Any) -> Any:
    """Return what a run without a stop leaves that has topic and journal of another run, and no clock of its own."""
    shutil.copytree(home / "models", into / "models")
    (into / "state").mkdir(parents=True)
    shutil.copy(home / "state/journal-main.ndjson", into / "state")
    return rig.outcome_after(into, seed=99, batch_max=300, **script)


@pytest.mark.parametrize(("seed", "batch_max"), [(2, 40), (3, 900)])
def test_batches_and_interleavings_do_not_matter(home: Path, uninterrupted: Any, seed: int, batch_max: int) -> None:
    """Other batches and another order of the partitions leave the same state, alerts and rows, bit by bit."""
    remains.same(rig.outcome_after(home, seed=seed, batch_max=batch_max), uninterrupted)


POINTS = {
    "before the first model goes live": (Journal, "append", 1, False),
    "after the first model has gone live": (Journal, "append", 1, True),
    "after the journal knows of an alert": (Journal, "append", 2, True),
    "before a segment is sealed": (BufferWriter, "seal", 6, False),
    "after one of four segments was sealed": (BufferWriter, "seal", 21, True),
    "after the second state file of a checkpoint": (daemon.state.checkpoint, "write_state", 22, True),
    "before a file or checkpoint gets its name": (Path, "rename", 43, False),
    "after a file or checkpoint got its name": (Path, "rename", 44, True),
    "before a checkpoint is written": (CheckpointStore, "_publish", 9, False),
    "after a checkpoint, before cleaning": (CheckpointStore, "_clean", 12, False),
    "in the middle of cleaning": (daemon.state.checkpoint, "drop_unnamed", 15, True),
    "before a merged segment is named": (daemon.state.checkpoint, "compact", 2, True),
    "after old checkpoints were deleted": (daemon.state.checkpoint, "remove_whatever", 3, True),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_step(home: Path, uninterrupted: Any, point: str) -> None:
    """Killed between any two steps of checkpoint and journal, the next run goes on as if nothing had happened."""
    owner, name, nth, after = POINTS[point]
    killed = rig.run(home, prepare=killing.kill_around(owner, name, nth, after=after))
    assert killed == killing.KILLED, "the run ended before it came to this point"
    remains.same(rig.outcome_after(home, seed=5, batch_max=150), uninterrupted)


def test_killed_in_the_middle_of_a_journal_line(home: Path, uninterrupted: Any) -> None:
    """A torn last line of the journal never took effect; it is cut off, and the decision is made again."""

    def tear() -> None:
        def append(journal: Journal, _entry: object) -> int:
            os.write(journal._file.fileno(), b'{"type":"model_live","epoch":1,')
            killing.die()
            return 0

        setattr(Journal, "append", append)  # noqa: B010 - as a method of another signature

    assert rig.run(home, prepare=tear) == killing.KILLED
    remains.same(rig.outcome_after(home), uninterrupted)


@pytest.mark.parametrize("seed", range(4))
def test_killed_anywhere(home: Path, uninterrupted: Any, seed: int) -> None:
    """Killed twice at random function calls, on any thread: the same at the end."""
    chosen = random.Random(seed)
    kills = 0
    for attempt in range(2):
        calls, batch_max = int(10 ** chosen.uniform(3.0, 4.8)), chosen.choice((60, 150, 400))
        code = rig.run(home, prepare=partial(killing.kill_after_calls, calls), seed=10 * seed + attempt, batch_max=batch_max)
        assert code in (0, killing.KILLED), (home / "log").read_text()
        kills += code == killing.KILLED
    assert kills, "no run was killed: choose fewer calls"
    remains.same(rig.outcome_after(home, seed=seed), uninterrupted)


@pytest.mark.parametrize(
    ("name", "nth", "after"),
    [("_publish", 8, False), ("append", 2, True), ("append", 3, False), ("append", 3, True), ("_clean", 19, False)],
)
def test_a_model_that_went_live_in_the_middle_does_so_again_at_the_same_records(
    home: Path, tmp_path_factory: pytest.TempPathFactory, name: str, nth: int, after: bool
) -> None:
    """Another version goes live after the first alert. However the run is killed, the result follows from its journal."""
    publish(home, SECOND, seed=1)
    (home / "models/CURRENT").write_text(f"{rig.FIRST}\n")
    owner = Journal if name == "append" else CheckpointStore

    def swap(source: Any) -> None:
        if sum(source.positions.values()) > 2100:
            (home / "models/CURRENT").write_text(f"{SECOND}\n")

    assert rig.run(home, prepare=killing.kill_around(owner, name, nth, after=after), on_poll=swap) == killing.KILLED
    left = rig.outcome_after(home, seed=7, on_poll=swap)
    entries = remains.journal(home)
    assert [entry.version for entry in entries if isinstance(entry, ModelLive)] == [rig.FIRST, SECOND]
    remains.same(by_the_journal(home, tmp_path_factory.mktemp("replayed")), left)


def test_a_model_that_is_published_while_the_daemon_is_dead_takes_no_alert_back(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An alert was sent, the process dies before its checkpoint, and returns with another model.

    That model sees only what comes after the alert, so that the alert still holds for subscribers.
    """
    reported = killing.kill_when(CheckpointStore, "_publish", lambda *_: any(isinstance(entry, Alerted) for entry in remains.journal(home)))
    assert rig.run(home, prepare=reported) == killing.KILLED
    before = (home / "state/events/drift.ndjson").read_text().splitlines()
    assert before, "the alert was to be out before the checkpoint"
    publish(home, SECOND, seed=1)
    left = rig.outcome_after(home, seed=7)
    reported_at = next(entry for entry in remains.journal(home) if isinstance(entry, Alerted)).offsets
    live_at = next(entry for entry in remains.journal(home) if isinstance(entry, ModelLive) and entry.version == SECOND).offsets
    assert all(live_at[partition] >= offset for partition, offset in reported_at.items())
    assert {json.loads(line)["id"] for line in before} <= left.alerts.keys()
    remains.same(by_the_journal(home, tmp_path_factory.mktemp("replayed")), left)


def test_which_timestamps_lie_in_the_future_is_in_the_journal(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A clock that is behind rejects records, and after a kill it is right: what is read again is decided by the earlier clock."""

    def life(minutes: float, checkpoints: int) -> Callable[[], None]:
        def arm() -> None:
            setattr(StreamClock, "latest_record_s", lambda _clock: DEFAULT_START_S + 60.0 * minutes)  # noqa: B010 - of another type
            killing.kill_around(CheckpointStore, "_publish", checkpoints, after=False)()

        return arm

    for minutes, checkpoints in ((40, 5), (60, 4), (100, 4)):
        assert rig.run(home, prepare=life(minutes, checkpoints)) == killing.KILLED
    last = life(150, 10**6)
    left = rig.outcome_after(home, prepare=last, seed=7)
    assert remains.reported(home, "record_rejected")
    readings = [entry.now_s for entry in remains.journal(home) if isinstance(entry, Clock)]
    assert readings == [DEFAULT_START_S + 60.0 * minutes for minutes in (40, 60, 100, 150)]
    assert left.rows < sum(map(len, scripted.stream().values())) - 100, "nothing was refused"
    remains.same(by_the_journal(home, tmp_path_factory.mktemp("replayed"), prepare=last), left)


def test_a_partition_keeps_its_detectors_under_another_member(home: Path, uninterrupted: Any) -> None:
    """The first member has its second model when it dies. For the next one it is the first.

    Each link goes on calibrated, and the next member's decisions hold for its own restart too.
    """
    publish(home, SECOND, seed=1)
    (home / "models/CURRENT").write_text(f"{rig.FIRST}\n")
    second = {"state": {"member": "second"}}

    def swap(source: Any) -> None:
        if sum(source.positions.values()) > 300:
            (home / "models/CURRENT").write_text(f"{SECOND}\n")
        if sum(source.positions.values()) > 2100:
            killing.die()

    assert rig.run(home, on_poll=swap) == killing.KILLED
    assert rig.run(home, sections=second, prepare=killing.kill_around(CheckpointStore, "_publish", 1, after=False)) == killing.KILLED
    assert rig.run(home, sections=second, prepare=killing.kill_around(CheckpointStore, "_publish", 3, after=False)) == killing.KILLED
    left = rig.outcome_after(home, sections=second)
    for state in left.parts.values():
        drift = msgspec.msgpack.decode(state["drift"])
        assert drift["epoch"] == 1
        assert (np.frombuffer(state["drift_kept"], STATS)["count"] > CALIBRATION_ROWS).all()
    entries = Journal(home / "state/journal-second.ndjson").entries
    assert [entry.version for entry in entries if isinstance(entry, ModelLive)] == [SECOND]
    assert sum(isinstance(entry, Adopted) for entry in entries) == scripted.PARTITIONS
    assert left.buffer == uninterrupted.buffer


def test_a_source_that_gives_no_more(home: Path, uninterrupted: Any) -> None:
    """If the source ends with an error, all that was read is in a checkpoint: the next start does not need those records again."""

    def inside() -> None:
        made = rig.daemon_over(scripted.ScriptedSource(seed=1, batch_max=100), rig.config(home, state={"checkpoint_interval_s": 1e9}))

        def fail(source: Any) -> None:
            if sum(source.positions.values()) > 1200:
                print(json.dumps({"event": "failed", "taken": {str(key): offset for key, offset in source.positions.items()}}))
                raise SourceError("the next records are gone")

        made.parts.source.on_poll = fail
        with pytest.raises(SourceError, match="are gone"):
            made.run()

    assert killing.in_child(inside, home / "log") == 0, (home / "log").read_text()
    assert remains.outcome(home).offsets == remains.reported(home, "failed")[0]["taken"]
    remains.same(rig.outcome_after(home), uninterrupted)


SILENT, IDLE_POLLS = (2, 300, 560), 3.0
"""Partition 2 of the stream brings nothing after its record 300 until the others, which have 767, 767 and 575, have given 560 each."""


@pytest.mark.parametrize(
    ("killed_at", "still_silent"),
    [
        ("never", False),
        ("idle, before a checkpoint", True),
        ("idle, after a checkpoint", False),
        ("an alert was told without it", False),
        ("an alert was told without it", True),
        ("resumed", False),
        ("later", True),
    ],
)
def test_a_partition_that_was_idle(home: Path, tmp_path_factory: pytest.TempPathFactory, killed_at: str, still_silent: bool) -> None:
    """A silent partition stops to hold up the others, and resumes. However the run is killed, the result follows from its journal."""

    def has(kind: type) -> Callable[..., bool]:
        return lambda *_: any(isinstance(entry, kind) for entry in remains.journal(home))

    prepare = {
        "never": lambda: None,
        "idle, before a checkpoint": killing.kill_around(Journal, "append", 2, after=True),
        "idle, after a checkpoint": killing.kill_when(CheckpointStore, "_clean", has(Idle)),
        "an alert was told without it": killing.kill_when(CheckpointStore, "_publish", has(Alerted)),
        "resumed": killing.kill_when(Journal, "append", lambda _journal, entry: isinstance(entry, Resumed), after=True),
        "later": killing.kill_when(CheckpointStore, "_publish", has(Resumed), nth=3),
    }[killed_at]
    assert rig.run(home, prepare=prepare, silent=SILENT, idle_s=IDLE_POLLS) == (0 if killed_at == "never" else killing.KILLED)
    if killed_at != "never":
        assert rig.run(home, seed=7, silent=SILENT if still_silent else None, idle_s=IDLE_POLLS) == 0, (home / "log").read_text()
    left = remains.outcome(home)
    assert has(Idle)()
    assert has(Resumed)()
    remains.same(by_the_journal(home, tmp_path_factory.mktemp("replayed")), left)


def test_a_broker_that_is_gone_does_not_hold_up_the_end(home: Path, uninterrupted: Any) -> None:
    """SIGTERM while alerts, and a checkpoint behind them, wait for a broker.

    The daemon waits less than 10 s, and what could not be made durable is read again.
    """
    kafka = {"events": {"to": "kafka"}, "kafka": {"bootstrap_servers": "127.0.0.1:1"}}

    def inside() -> None:
        made = rig.daemon_over(scripted.ScriptedSource(seed=1, batch_max=100), rig.config(home, **kafka))

        def stop_with_an_alert(_polled: object) -> None:
            if made.parts.announcer.sinks.pending() and not signal.alarm(300):  # who waits for the broker would be killed
                made.loop.stop("SIGTERM")

        made.parts.source.on_poll = lambda _source: None  # does not wait for the checkpoint, which waits for the broker
        made.loop.on_step = stop_with_an_alert
        made.run()
        assert made.parts.announcer.sinks.pending()
        patience_s = made.parts.announcer.sinks.flush_s + 2 * made.parts.keeper.patience_s  # a checkpoint that runs, and the last one
        assert patience_s < 10.0

    assert killing.in_child(inside, home / "log") == 0, (home / "log").read_text()
    assert "not acknowledged" in remains.reported(home, "checkpoint_failed")[-1]["problem"]
    assert remains.reported(home, "daemon_stopped")
    remains.same(rig.outcome_after(home), uninterrupted)


def refuse_an_entry(monkeypatch: pytest.MonkeyPatch, nth: int, code: int) -> list[int]:
    """Let the nth entry of the journal fail. Returns the counter."""
    original, left = Journal.append, [nth]

    def append(journal: Journal, entry: Any) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(code, os.strerror(code))
        return original(journal, entry)

    monkeypatch.setattr(Journal, "append", append)
    return left


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_a_journal_that_cannot_be_written_costs_no_record_of_a_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """A poll of files of two forms has several batches: those after the refused one come again with it, not before it."""
    (tmp_path / "files").mkdir()
    times = [DEFAULT_START_S + 60.0 * at for at in range(40)]
    rows = [json.dumps({"timestamp": time_s, "node_id": "a", "peer_id": "b", "rtt_ms": 1.0}) + "\n" for time_s in times[::2]]
    (tmp_path / "files/a.ndjson").write_text("".join(rows))
    (tmp_path / "files/b.csv").write_text("timestamp,node_id,peer_id,rtt_ms\n" + "".join(f"{time_s},a,b,2\n" for time_s in times[1::2]))
    monkeypatch.setattr("daemon.state.keeper.RETRY_S", 0.01)
    monkeypatch.setattr("daemon.ingest.decisions.CLOCK_S", 0.0)  # every batch of a poll asks the journal
    left = refuse_an_entry(monkeypatch, refused, errno.ENOSPC)
    made = build(rig.config(tmp_path), FileSource(tmp_path / "files"), StreamClock(), Observer())
    made.run()
    assert left[0] <= 0, "nothing was refused"
    found = made.parts.observer.registry.get_sample_value
    assert [found("dwcp_records_total", {"outcome": outcome}) for outcome in ("accepted", "late", "duplicate")] == [40, 0, 0]


def test_a_journal_that_cannot_be_written_costs_no_record_of_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The last records come again, though a pipe cannot be rewound."""
    reading, writing = os.pipe()
    rows = [{"timestamp": DEFAULT_START_S + 60.0 * at, "node_id": "a", "peer_id": "b", "rtt_ms": 1.0} for at in range(40)]
    os.write(writing, "".join(json.dumps(row) + "\n" for row in rows).encode())
    os.close(writing)
    monkeypatch.setattr("daemon.state.keeper.RETRY_S", 0.01)
    left = refuse_an_entry(monkeypatch, 1, errno.EIO)
    observer = Observer()
    build(rig.config(tmp_path), FileSource("-", standard_input=reading), StreamClock(), observer).run()
    os.close(reading)
    assert left[0] <= 0, "nothing was refused"
    assert observer.registry.get_sample_value("dwcp_records_total", {"outcome": "accepted"}) == 40
