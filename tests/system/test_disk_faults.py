"""The disk refuses, tears or loses, and the clock is set.

The stream waits rather than lose a row, and goes on by itself. Nothing is read from a file that is not what was written. A real full disk:
tests/daemon/state/test_checkpoint.py, test_a_full_disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import daemon.state.keeper
from daemon.clock import WallClock
from daemon.ingest.journal import Journal
from daemon.state.checkpoint import CheckpointStore
from features.telemetry import Partition
from model.registry.versions import Registry
from model.version.manifest import verify
from testkit import killing, remains, rig, scripted
from testkit.versions import make_version


def refusing(call: str, part: str, code: int, after: int, times: int) -> Callable[[], None]:
    """Return a function for `prepare`: the disk refuses some calls for paths with this part, after it has allowed some."""

    def path_of(argument: Any) -> str:
        return str(Path(f"/proc/self/fd/{argument}").readlink() if isinstance(argument, int) else argument)

    def arm() -> None:
        setattr(daemon.state.keeper, "RETRY_S", 0.001)  # noqa: B010 - it is Final
        owner: Any = os if call in ("fsync", "write") else Path
        original, calls = getattr(owner, call), 0

        def disk(argument: Any, *more: Any, **options: Any) -> Any:
            nonlocal calls
            reading = call == "open" and not {"w", "a", "x", "+"} & set("".join(map(str, more)))
            if not reading and part in path_of(argument):
                calls += 1
                if after < calls <= after + times:
                    raise OSError(code, os.strerror(code), path_of(argument))
            return original(argument, *more, **options)

        setattr(owner, call, disk)

    return arm


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("call", "part"),
    [
        ("mkdir", ".writing-"),
        ("open", ".npz"),
        ("fsync", "MANIFEST.json"),
        ("rename", ".writing-"),
        ("open", ".sealing-"),
        ("rename", ".sealing-"),
        ("fsync", "journal-"),
        ("fsync", "drift.ndjson"),
        ("write", "drift.ndjson"),
    ],
    ids=lambda value: value.strip(".-"),
)
def test_a_disk_that_refuses_for_a_while(home: Path, uninterrupted: Any, call: str, part: str, code: int) -> None:
    """Any durable write may fail: it is reported with reason and remedy, nothing is dropped, and the daemon goes on by itself."""
    after, times = {"journal-": (0, 4), "drift.ndjson": (0, 2)}.get(part, (9, 4))  # of the latter two there are few, and some come late
    refused = refusing(call, part, code, after, times)
    remains.same(rig.outcome_after(home, prepare=refused), uninterrupted)
    failed = remains.reported(home, "checkpoint_failed")
    assert os.strerror(code) in failed[0]["problem"], failed
    assert "it is tried again" in failed[0]["remedy"]
    assert remains.reported(home, "daemon_stopped")


@pytest.mark.parametrize("checkpoints", [True, False], ids=["with checkpoints", "without any"])
def test_a_disk_that_refuses_to_delete_at_the_start(home: Path, uninterrupted: Any, checkpoints: bool) -> None:
    """Segments without a checkpoint cannot be deleted, with or without older checkpoints.

    It is reported, and the daemon starts all the same, because nobody reads those segments.
    """
    assert rig.run(home, prepare=killing.kill_around(CheckpointStore, "_publish", 9, after=False)) == killing.KILLED
    if not checkpoints:
        shutil.rmtree(home / "state" / "checkpoints")
    refused = refusing("unlink", ".parquet", errno.EIO, 0, 3)
    remains.same(rig.outcome_after(home, prepare=refused, seed=5, batch_max=150), uninterrupted)
    assert remains.reported(home, "cleaning_failed")


def torn(content: bytes) -> dict[str, bytes]:
    """Return what a crash may leave of a file: cut anywhere, zeros in place of pages that were never written."""
    length = len(content)
    cuts = {f"cut at {at}": content[:at] for at in (0, 1, length // 3, length // 2, length - 1)}
    zeros = {f"zeros from {at}": content[:at] + bytes(length - at) for at in (0, length // 2, length - 64, length - 1)}
    return {name: left for name, left in (cuts | zeros).items() if left != content}


def store_of(state: Path, reported: list[tuple[str, dict[str, Any]]]) -> CheckpointStore:
    return CheckpointStore(state, "main", 2**62, 2**62, lambda event, **fields: reported.append((event, fields)))


def test_a_torn_file_of_a_checkpoint(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Damage to any file of the newest checkpoint, or to a segment that only it names.

    The checkpoint before is used for all partitions and the region stage, and an event names what was set aside.
    """
    assert rig.run(home, prepare=killing.kill_around(CheckpointStore, "_clean", 9, after=False)) == killing.KILLED
    newest, manifest = remains.newest(home / "state")
    before, older = sorted(path for path in newest.parent.iterdir())[-2], {}
    shutil.copytree(home / "state", scratch := tmp_path_factory.mktemp("before") / "state")
    shutil.rmtree(scratch / "checkpoints" / newest.name)
    _, manifest_before = remains.newest(scratch)
    older = {part.number: part.offset for part in manifest_before.parts}
    named_before = {name for part in manifest_before.parts for name in part.segments}
    only_newest = sorted({name for part in manifest.parts for name in part.segments} - named_before)
    files = [path.relative_to(home / "state") for path in sorted(newest.iterdir())]
    files += [Path("buffer") / name for name in only_newest]
    assert len(files) >= 2 + len(manifest.parts) + 1
    for file in files:
        for what, left in torn((home / "state" / file).read_bytes()).items():
            shutil.rmtree(scratch)
            shutil.copytree(home / "state", scratch)
            (scratch / file).write_bytes(left)
            reported: list[tuple[str, dict[str, Any]]] = []
            store = store_of(scratch, reported)
            store.open()
            found = {number: store.restore(Partition(scripted.TOPIC, number)) for number in older}
            assert {number: part.offset if part else None for number, part in found.items()} == older, (file, what)
            assert [(event, fields["checkpoint"]) for event, fields in reported] == [("checkpoint_unsound", newest.name)], (file, what)
            assert remains.newest(scratch)[0].name == before.name
            assert sorted(name for segments in store.segments.values() for name in segments) == sorted(named_before)


def test_a_torn_journal(home: Path, uninterrupted: Any) -> None:
    """Zeros at the end of the journal, and half an entry before them, never took effect: the decision is made again."""
    assert rig.run(home, prepare=killing.kill_around(Journal, "append", 1, after=True)) == killing.KILLED
    path = home / "state/journal-main.ndjson"
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    remains.same(rig.outcome_after(home), uninterrupted)


def refusal_of(act: Callable[[], None]) -> int | None:
    """Return the code with which the disk refused it; None if it did not."""
    try:
        act()
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_disk_that_refuses_a_publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int) -> None:
    """Whichever write of a publication is refused, CURRENT names a whole version, and the next attempt succeeds."""
    owner: Any = os if step == "fsync" else Path
    registry = Registry(tmp_path / "models")
    registry.recover()
    first = registry.new_version(0.0)
    registry.publish(make_version(registry.candidate_folder("first"), first), first)
    original, refused = getattr(owner, step), 0
    for nth in range(1, 20):
        calls = 0

        def disk(*arguments: Any, nth: int = nth) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(code, os.strerror(code))
            return original(*arguments)

        version = registry.new_version(0.0)
        candidate = make_version(registry.candidate_folder(f"job-{nth}"), version)
        before = registry.current()
        with monkeypatch.context() as patched:
            patched.setattr(owner, step, disk)
            if refusal_of(partial(registry.publish, candidate, version)) == code:
                refused += 1
        registry.recover()
        assert registry.current() in (before, version)
        assert verify(registry.folder(registry.current())) == []
        if calls < nth:
            break
    assert refused >= 1, "the disk was never asked"
    assert registry.current() == version, "the last attempt met no refusal"


def test_a_clock_that_is_set(home: Path, uninterrupted: Any) -> None:
    """The wall clock jumps back by days and forward by years while records flow: state, alerts and buffer are the same, bit by bit."""

    def inside() -> None:
        made = rig.daemon_over(scripted.ScriptedSource(seed=1, batch_max=100), rig.config(home), WallClock(lambda: time.time()))
        real, before = time.time, made.parts.source.on_poll

        def set_clock(source: Any) -> None:
            jump_s = (0.0, -86_400.0 * 400, 86_400.0 * 3000, -7200.0)[source.polls // 10 % 4]
            setattr(time, "time", lambda: real() + jump_s)  # noqa: B010 - of another type
            before(source)

        made.parts.source.on_poll = set_clock
        made.run()

    assert killing.in_child(inside, home / "log") == 0, (home / "log").read_text()
    remains.same(remains.outcome(home), uninterrupted)


def test_the_time_of_a_live_stream_never_goes_back() -> None:
    """A clock that is set back is replaced by the monotonic one until it has caught up; one that is set forward is followed."""
    wall_s, monotonic_s = 1000.0, 5.0
    clock = WallClock(lambda: wall_s, lambda: monotonic_s)
    seen = []
    for step_s, jump_s in ((1.0, 0.0), (1.0, -500.0), (1.0, 0.0), (2.0, 600.0), (1.0, 0.0)):
        wall_s, monotonic_s = wall_s + step_s + jump_s, monotonic_s + step_s
        seen.append(clock.now_s(0.0))
        assert clock.latest_record_s() == clock.now_s(0.0)
    assert seen == [1001.0, 1002.0, 1003.0, 1105.0, 1106.0]
