"""Whatever lies in a models folder: a start, a running daemon and its trainings go on, and what cannot be used is named."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.clock import StreamClock
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.wiring import build
from model.registry.candidates import ABANDONED_S, Recovered, is_abandoned
from model.registry.versions import Registry, RegistryError
from model.version.metadata import core_name, metadata_name
from streams.files.source import FileSource
from testkit import rig
from testkit.versions import make_version, publish

LIVE, NEXT = "v20260101_000000", "v20260101_000001"
NOW_S = 1_767_225_600.0


MAKERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_bytes(b"x"),
    "a huge file": lambda path: (path.touch(), os.truncate(path, 2**40)),
    "a folder": lambda path: (path / "inside").mkdir(parents=True),
    "a link to a folder": lambda path: path.symlink_to(path.parent.parent / "elsewhere"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
}
TEMPORARY = (".candidate-x", ".candidate-v20260101_000001", ".removing-x", ".CURRENT.x", ".CHOICE.partial")
NAMED = ("v99991231_235959", "v00000000_000000", "v20260230_000000", "v20200101_000000", "refused", "notes", "v2026", "CHOICE")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("of somebody else")
    publish(tmp_path, LIVE)
    return Registry(tmp_path / "models")


def works(registry: Registry) -> None:
    """Everything that a daemon does with its models folder."""
    assert registry.current() == LIVE
    assert registry.recover().problems == []
    candidate = registry.reserve(NOW_S)
    make_version(candidate.folder, candidate.version)
    registry.publish(candidate.folder, candidate.version)
    candidate.release()
    assert registry.current() == candidate.version
    assert registry.published() == [LIVE, candidate.version]
    assert registry.prune(1) == [LIVE]
    registry.pin_version()
    assert registry.live.pin() is not None
    assert (registry.root.parent / "elsewhere/precious").read_text() == "of somebody else"


@pytest.mark.parametrize("kind", MAKERS)
def test_what_has_a_temporary_name_is_removed(registry: Registry, kind: str) -> None:
    """Whatever it is; of a link only the link."""
    for name in TEMPORARY:
        MAKERS[kind](registry.root / name)
    assert registry.recover().removed == sorted(TEMPORARY)
    works(registry)


def deepen(folder: Path, levels: int = 2000) -> None:
    """Folders in each other, with a file and a link on each level: deeper than Python's stack and than the longest path."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        os.symlink("/", "link", dir_fd=at)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def test_deep_folders_are_removed(registry: Registry) -> None:
    """Each removal can do it: the cleaning at the start, the end of a candidate, the pruning of an old version that has such folders."""
    for name in TEMPORARY[:3]:
        (registry.root / name).mkdir()
        deepen(registry.root / name)
    assert registry.recover() == Recovered(sorted(TEMPORARY[:3]), [])
    candidate = registry.reserve(NOW_S)
    deepen(candidate.folder)
    registry.discard(candidate)
    assert not candidate.folder.exists()
    deepen(registry.root / LIVE)
    works(registry)
    assert not list(registry.root.glob(".removing-*"))


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_version_is_left_alone(registry: Registry, kind: str) -> None:
    """It is neither deleted nor live, gives no name to the next version, and holds nothing up."""
    names = [name for name in NAMED if name != "CHOICE" or kind != "a folder"]  # over a folder no choice can be written: the next test
    for name in names:
        MAKERS[kind](registry.root / name)
    works(registry)
    assert all(os.path.lexists(registry.root / name) for name in names)


def test_a_choice_that_cannot_be_written_is_an_error(registry: Registry) -> None:
    """A folder in its place is named; CURRENT stays."""
    (registry.root / "CHOICE").mkdir()
    with pytest.raises((RegistryError, OSError), match="CHOICE"):
        registry.rollback(LIVE)
    assert registry.current() == LIVE


def test_thousands_of_entries(registry: Registry) -> None:
    """Names of versions and others."""
    for number in range(3000):
        (registry.root / f"v20270101_{number:06}").mkdir()
        (registry.root / f"file-{number}").touch()
    assert registry.current() == LIVE
    assert registry.recover().problems == []
    candidate = registry.reserve(NOW_S)
    make_version(candidate.folder, candidate.version)
    registry.publish(candidate.folder, candidate.version)
    candidate.release()
    assert (registry.current(), registry.prune(1)) == (candidate.version, [])


@pytest.mark.parametrize("name", ["CURRENT", f"{LIVE}/{core_name(LIVE)}", f"{LIVE}/MANIFEST.json", f"{LIVE}/{metadata_name(LIVE)}"])
@pytest.mark.parametrize("kind", MAKERS)
def test_what_lies_where_a_file_belongs_is_refused(registry: Registry, tmp_path: Path, name: str, kind: str) -> None:
    """The thing and what to do are named, nothing is waited for, and the daemon goes on without a model."""
    (registry.root / name).unlink()
    MAKERS[kind](registry.root / name)
    reported: list[tuple[str, dict[str, Any]]] = []
    models = Models(registry, Journal(tmp_path / "journal"), Observer(lambda event, fields: reported.append((event, fields))), 0.0)
    assert models.follow(now=True) is None
    problems = [fields["problem"] for event, fields in reported if event == "model_unusable"]
    assert len(problems) == 1
    assert name.rpartition("/")[2] in problems[0]
    if kind not in ("a file", "a huge file"):
        assert "is not a regular file" in problems[0]
    assert "dwcp-learner models rollback" in problems[0] + reported[0][1]["remedy"]


def test_two_members_never_share_a_name(registry: Registry) -> None:
    """The same second, two members, one folder: each has a candidate and a name of its own, and neither deletes the other's."""
    other = Registry(registry.root)
    ours, theirs = registry.reserve(NOW_S), other.reserve(NOW_S)
    assert [ours.version, theirs.version] == [NEXT, "v20260101_000002"]
    (theirs.folder / "weights").write_bytes(b"x")
    assert registry.recover().removed == []
    assert (theirs.folder / "weights").exists()
    theirs.release()
    assert registry.recover().removed == [theirs.folder.name]
    assert ours.folder.exists()
    registry.discard(ours)
    assert not ours.folder.exists()


def test_a_candidate_that_another_member_is_about_to_remove(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making and locking a folder it looks abandoned: it is left to whoever has taken it for that, and the next name is tried."""
    flock, theirs = fcntl.flock, list[int]()

    def late(descriptor: int, how: int) -> None:
        if not theirs:  # the other member is faster by one call
            theirs.append(os.open(registry.root / f".candidate-{NEXT}", os.O_RDONLY))
            flock(theirs[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        flock(descriptor, how)

    monkeypatch.setattr("model.registry.candidates.fcntl.flock", late)
    ours = registry.reserve(NOW_S)
    os.close(theirs[0])
    assert ours.version == "v20260101_000002"
    assert registry.recover().removed == [f".candidate-{NEXT}"]
    ours.release()


def test_a_candidate_of_a_killed_member_is_removed(registry: Registry) -> None:
    """The lock goes with the process, however it ends."""
    child = os.fork()
    if child == 0:
        Registry(registry.root).reserve(NOW_S)
        signal.pause()
    try:
        while not (found := list(registry.root.glob(".candidate-*"))):
            time.sleep(0.01)
        while is_abandoned(found[0]):  # made, and locked a moment later
            time.sleep(0.01)
        assert registry.recover().removed == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert registry.recover().removed == [found[0].name]


def test_where_there_are_no_locks_the_age_counts(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses a lock: what was changed within a day is somebody's."""
    monkeypatch.setattr("model.registry.candidates.fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    candidate = registry.reserve(NOW_S)
    (candidate.folder / "weights").write_bytes(b"x")
    candidate.release()
    assert registry.recover().removed == []
    for path in (candidate.folder / "weights", candidate.folder):
        os.utime(path, (time.time() - ABANDONED_S - 1,) * 2)
    assert registry.recover().removed == [candidate.folder.name]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_daemon_starts_over_all_of_it(tmp_path: Path, registry: Registry, kind: str) -> None:
    """Junk under every name at once, and a pipe as CURRENT: it runs to the end of its stream, and says what it cannot use."""
    for name in (*TEMPORARY, *NAMED):
        MAKERS[kind](registry.root / name)
    (registry.root / "CURRENT").unlink()
    os.mkfifo(registry.root / "CURRENT")
    telemetry = tmp_path / "telemetry.csv"
    telemetry.write_text("timestamp,node_id,peer_id,rtt_ms\n1767571200,a,b,20.0\n")
    reported: list[str] = []
    build(rig.config(tmp_path), FileSource(telemetry), StreamClock(), Observer(lambda event, _fields: reported.append(event))).run()
    assert reported[-1] == "daemon_stopped"
    assert "model_unusable" in reported
    assert not any(os.path.lexists(registry.root / name) for name in TEMPORARY)
