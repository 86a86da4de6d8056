"""The checkpoint as a unit on disk: damaged ones, segments that count and those that do not, retention, a full disk, foreign state."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import daemon.state.keeper
from daemon.errors import StateError
from daemon.state.checkpoint import CheckpointStore
from daemon.state.lock import StateLock
from daemon.state.snapshot import SCHEMA_VERSION
from features.telemetry import Partition
from model.buffer.rows import read_segments
from model.buffer.segments import SegmentName
from streams.source import SourceError
from testkit import killing, remains, rig, scripted


def interrupted(home: Path, checkpoints: int = 12) -> Path:
    """Ends a run after this many checkpoints, before the last one's cleaning; returns the state directory."""
    assert rig.run(home, prepare=killing.kill_around(CheckpointStore, "_clean", checkpoints, after=False)) == killing.KILLED
    return home / "state"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def segments_named(state: Path) -> list[set[str]]:
    """Return the names in each checkpoint, oldest first."""
    manifests = sorted((state / "checkpoints").glob("*/MANIFEST.json"))
    return [{name for part in json.loads(path.read_bytes())["parts"] for name in part["segments"]} for path in manifests]


def newest_segment(state: Path) -> Path:
    """A segment that the newest checkpoint names and no older one."""
    *older, newest = segments_named(state)
    return state / "buffer" / min(newest - set().union(*older))


def skip_a_record(newest: Path) -> None:
    """One more in the offset of the first partition."""
    path = newest / "MANIFEST.json"
    document = json.loads(path.read_bytes())
    document["parts"][0]["offset"] += 1
    path.write_text(json.dumps(document))


DAMAGE: dict[str, Callable[[ModuleType, Path, Path], object]] = {
    "a flipped bit in a partition": lambda _rig, newest, _state: flip(newest / "part-2.npz"),
    "a partition's file cut short": lambda _rig, newest, _state: cut(newest / "part-0.npz"),
    "no file of a partition": lambda _rig, newest, _state: (newest / "part-3.npz").unlink(),
    "a flipped bit in the region stage": lambda _rig, newest, _state: flip(newest / "process.npz"),
    "an empty manifest": lambda _rig, newest, _state: (newest / "MANIFEST.json").write_bytes(b""),
    "an altered offset in the manifest": lambda _rig, newest, _state: skip_a_record(newest),
    "no manifest": lambda _rig, newest, _state: (newest / "MANIFEST.json").unlink(),
    "a missing segment": lambda _rig, _newest, state: newest_segment(state).unlink(),
    "a segment cut short": lambda _rig, _newest, state: cut(newest_segment(state)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint(home: Path, uninterrupted: Any, damage: str) -> None:
    """The older sound one is used as a whole, an event says so once, and nothing is lost or doubled."""
    state = interrupted(home)
    newest, _ = remains.newest(state)
    DAMAGE[damage](rig, newest, state)
    remains.same(rig.outcome_after(home, batch_max=400), uninterrupted)
    (event,) = remains.reported(home, "checkpoint_unsound")
    assert event["checkpoint"] == newest.name
    assert event["problem"]
    assert "older" in event["remedy"]


def test_an_older_checkpoint_stays_whole_over_a_restart(home: Path, uninterrupted: Any) -> None:
    """A start deletes no segment that an older kept checkpoint names: the newest, which has merged them, may be damaged later."""

    def just_merged(_store: CheckpointStore) -> bool:
        *_, before, newest = [set(), *segments_named(home / "state")]
        return bool(before - newest)

    assert rig.run(home, prepare=killing.kill_when(CheckpointStore, "_clean", just_merged)) == killing.KILLED
    assert rig.run(home, prepare=killing.kill_around(CheckpointStore, "restore", 4, after=True)) == killing.KILLED
    flip(remains.newest(home / "state")[0] / "process.npz")
    remains.same(rig.outcome_after(home, batch_max=400), uninterrupted)
    assert not remains.reported(home, "segment_unsound")


def test_a_segment_that_every_checkpoint_misses(home: Path, uninterrupted: Any) -> None:
    """State and alerts are whole without it; only its rows are gone, an event names the file, and the next start is as any other."""
    state = interrupted(home, checkpoints=6)
    lost = state / "buffer" / min(set.intersection(*segments_named(state)))
    rows = len(read_segments([lost]))
    cut(lost)
    left = rig.outcome_after(home, batch_max=400)
    assert (left.parts, left.regions, left.alerts) == (uninterrupted.parts, uninterrupted.regions, uninterrupted.alerts)
    assert len(left.buffer[0]) == len(uninterrupted.buffer[0]) - rows
    (event,) = remains.reported(home, "segment_unsound")
    assert event["segment"] == lost.name
    rig.outcome_after(home)
    assert len(remains.reported(home, "segment_unsound")) == 1


@pytest.mark.parametrize("file", ["process.npz", "part-0.npz", "MANIFEST.json"])
def test_no_sound_checkpoint_is_left(home: Path, file: str) -> None:
    """The daemon does not begin from nothing, which would delete the buffer: it refuses, and says what to do."""
    state = interrupted(home)
    for checkpoint in (state / "checkpoints").glob("0*"):
        (checkpoint / file).write_bytes(b"\0" * 100)
    segments = sorted((state / "buffer").iterdir())
    assert rig.run(home) == StateError.exit_code
    (ended,) = remains.reported(home, "ended")
    assert "every checkpoint is damaged" in ended["problem"]
    assert "restore the state directory from a copy" in ended["problem"]
    assert sorted((state / "buffer").iterdir()) == segments


def test_what_no_checkpoint_names_is_deleted_at_the_start(home: Path, uninterrupted: Any) -> None:
    """Sealed segments, half a segment and half a checkpoint of a run that died go; files of other partitions and strangers stay."""
    state = interrupted(home)
    _, manifest = remains.newest(state)
    sealed = state / "buffer" / manifest.parts[0].segments[-1]
    name = SegmentName.parse(sealed.name)
    orphan = state / "buffer" / str(SegmentName(name.topic, name.number, name.last + 1, name.last + 9))
    half = state / "buffer" / f".sealing-{orphan.name}"
    other = state / "buffer" / str(SegmentName("another.topic", 0, 0, 9))
    for path in (orphan, half, other):
        shutil.copy(sealed, path)
    (state / "checkpoints/.writing-000000000099-main").mkdir()
    assert rig.run(home, prepare=killing.kill_around(CheckpointStore, "restore", 4, after=True)) == killing.KILLED
    assert not orphan.exists()
    assert not half.exists()
    assert other.exists()
    assert not (state / "checkpoints/.writing-000000000099-main").exists()
    remains.same(rig.outcome_after(home), uninterrupted)


def test_merging_and_retention_keep_the_right_rows(home: Path, uninterrupted: Any) -> None:
    """Every accepted record is one row of the buffer, in few files; with a limit, only newest rows stay, and never more than that."""
    assert len(uninterrupted.buffer[0]) == uninterrupted.rows
    left = rig.outcome_after(home, sections={"buffer": {"rows_max": 800}})
    assert (left.parts, left.alerts) == (uninterrupted.parts, uninterrupted.alerts)
    _, manifest = remains.newest(home / "state")
    kept = [path.name for path in (home / "state/buffer").iterdir()]
    assert {name for part in manifest.parts for name in part.segments} <= set(kept)
    rows, everything = sorted(zip(*left.buffer[:1], strict=True)), set(zip(*uninterrupted.buffer[:1], strict=True))
    assert 400 < len(rows) <= 800
    assert set(rows) <= everything
    for part in manifest.parts:
        names = sorted(SegmentName.parse(name) for name in part.segments)
        assert all(before.last < after.first for before, after in pairwise(names))
        assert part.offset is not None
        assert part.offset - names[-1].last < 10, "the newest rows of a partition have gone"  # late and duplicate records have no row


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """home/state on a file system of 3 MB of its own; skips where that may not be mounted."""
    state = home / "state"
    state.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", state], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield state
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)


class FullDisk:
    """For a source's on_poll: fills a disk to the last byte from one poll on, until the source has been paused for a while."""

    def __init__(self, state: Path, from_poll: int) -> None:
        self.ballast, self.from_poll, self.paused_polls = state / "ballast", from_poll, 0

    def __call__(self, source: Any) -> None:
        self.paused_polls += source.paused
        if source.polls < self.from_poll:
            return
        if self.paused_polls > 20:
            self.ballast.unlink(missing_ok=True)
            return
        with self.ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):  # no space left
                    while file.write(bytes(size)) == size:
                        pass


def retry_soon() -> None:
    setattr(daemon.state.keeper, "RETRY_S", 0.01)  # noqa: B010 - it is Final


@pytest.mark.parametrize("from_poll", [2, 9], ids=["before the first record", "in the middle"])
def test_a_full_disk(home: Path, small_disk: Path, uninterrupted: Any, from_poll: int) -> None:
    """Failed checkpoints are reported with their remedy, the source pauses before memory fills up, and nothing is lost once there is space.

    From the first record on, it is the journal that cannot say which model goes live: the records wait for that.
    """
    full = FullDisk(small_disk, from_poll)
    left = rig.outcome_after(home, prepare=retry_soon, on_poll=full, sections={"buffer": {"open_rows_max": 300}})
    remains.same(left, uninterrupted)
    failed = remains.reported(home, "checkpoint_failed")
    assert failed, "the disk was never full"
    assert "No space left" in failed[0]["problem"]
    assert "free space" in failed[0]["remedy"]
    assert len(remains.reported(home, "source_paused")) == len(remains.reported(home, "source_resumed")) >= 1
    assert remains.reported(home, "daemon_stopped")


def test_a_stream_that_catches_up_does_not_wait_for_the_interval(home: Path, uninterrupted: Any) -> None:
    """More rows between two checkpoints than may be open: the next one comes early, where the source would stand still until it is due."""
    paused = []

    def impatient(source: Any) -> None:
        paused.append(source.paused)
        if all(paused[-20:]) and len(paused) > 20:
            raise SourceError("the source is paused, and nothing is written that could end it")

    sections = {"buffer": {"open_rows_max": 300}, "state": {"checkpoint_interval_s": 2.0**40}}
    remains.same(rig.outcome_after(home, on_poll=impatient, sections=sections), uninterrupted)


def test_what_a_checkpoint_takes_is_in_the_metrics(home: Path) -> None:
    """Each one that has become true is counted with the seconds that it took."""
    made = rig.daemon_over(scripted.ScriptedSource(seed=1, batch_max=900), rig.config(home))
    made.run()
    count, seconds = (made.parts.observer.registry.get_sample_value(f"dwcp_checkpoint_seconds_{name}") for name in ("count", "sum"))
    assert count >= made.parts.keeper.store.sequence >= 2
    assert seconds > 0


@pytest.mark.parametrize("nth", [7, 20, 21, 30, 43])
def test_an_fsync_that_fails(home: Path, uninterrupted: Any, nth: int) -> None:
    """Wherever the disk refuses once, the checkpoint is tried again, and nothing is lost or doubled."""

    def prepare() -> None:
        retry_soon()
        original, calls = os.fsync, 0

        def fsync(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            original(descriptor)

        setattr(os, "fsync", fsync)  # noqa: B010 - of another type

    remains.same(rig.outcome_after(home, prepare=prepare), uninterrupted)
    assert remains.reported(home, "checkpoint_failed")


def test_cleaning_that_fails_is_no_failed_checkpoint(home: Path, uninterrupted: Any) -> None:
    """The checkpoint is true then: its rows must not be sealed again."""

    def prepare() -> None:
        def refuse(*_args: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        setattr(CheckpointStore, "_drop_unnamed", refuse)  # noqa: B010 - of another type

    left = rig.outcome_after(home, on_poll=lambda source: prepare() if source.polls == 5 else None)
    remains.same(left, uninterrupted)
    assert remains.reported(home, "cleaning_failed")
    assert not remains.reported(home, "checkpoint_failed")


def test_state_of_a_newer_release_is_refused(home: Path) -> None:
    """The message names the checkpoint and both versions, and says what to do; nothing is touched."""
    state = interrupted(home)
    newest, _ = remains.newest(state)
    manifest = json.loads((newest / "MANIFEST.json").read_bytes())
    (newest / "MANIFEST.json").write_text(json.dumps(manifest | {"schema_version": SCHEMA_VERSION + 1, "something_new": True}))
    before = sorted(state.rglob("*"))
    assert rig.run(home) == StateError.exit_code
    (ended,) = remains.reported(home, "ended")
    assert newest.name in ended["problem"]
    versions = f"(state version {SCHEMA_VERSION + 1}, this one reads {SCHEMA_VERSION})"
    assert f"newer release {versions}; install that release, or start with another" in ended["problem"]
    assert sorted(state.rglob("*")) == before


def test_another_link_key_is_refused(home: Path) -> None:
    """State that identifies links in another way would be misread: the message says how to go on."""
    interrupted(home)
    assert rig.run(home, sections={"links": {"key": ("node_id",)}}) == StateError.exit_code
    (ended,) = remains.reported(home, "ended")
    assert "links.key" in ended["problem"]
    assert "set it back, or start with another state directory" in ended["problem"]


def test_two_daemons_on_one_state_directory(home: Path) -> None:
    """The second is refused with what to do; under another member name it may run; the lock goes with its process."""
    (home / "state").mkdir()
    first = StateLock.acquire(home / "state", "main")
    assert rig.run(home) == StateError.exit_code
    (ended,) = remains.reported(home, "ended")
    assert "another dwcp-learner runs on this state directory as member 'main'" in ended["problem"]
    StateLock.acquire(home / "state", "second").release()
    first.release()
    StateLock.acquire(home / "state", "main").release()


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in its place is refused with what to check."""
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="the state directory cannot be written"):
        StateLock.acquire(tmp_path / "state", "main")


def test_a_member_that_lost_a_partition_cannot_overwrite_its_successor(home: Path) -> None:
    """A checkpoint of a newer group generation that owns the partition fences the older member off."""
    state = interrupted(home)
    newest, manifest = remains.newest(state)
    successor = newest.with_name(f"{manifest.sequence + 1:012d}-second")
    shutil.copytree(newest, successor)
    theirs = msgspec.structs.replace(manifest, member="second", generation=5, sequence=manifest.sequence + 1).sealed()
    (successor / "MANIFEST.json").write_bytes(msgspec.json.encode(theirs))
    store = CheckpointStore(state, "main", 10**6, 1e9, lambda *_args, **_fields: None)
    store.open()
    restored = store.restore(Partition(scripted.TOPIC, 0))
    assert restored is not None
    snapshot = remains.snapshot_of(Partition(scripted.TOPIC, 0), restored, store.buffer, generation=4)
    with pytest.raises(StateError, match=f"already owns {scripted.TOPIC}-0: this member has lost it"):
        store.write(snapshot, lambda: None)
    assert (
        store.write(remains.snapshot_of(Partition(scripted.TOPIC, 0), restored, store.buffer, generation=6), lambda: None).sequence
        > manifest.sequence
    )
