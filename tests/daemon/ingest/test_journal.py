"""The journal: entries are durable before they take effect, and take effect at the same records again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import daemon.ingest.journal
from daemon.errors import StateError
from daemon.ingest.entries import Alerted, Clock, Entry, Forecasting, Idle, ModelLive, Resumed, limit_of
from daemon.ingest.journal import Journal
from features.telemetry import Partition
from testkit import killing, remains, rig

ENTRIES: tuple[Entry, ...] = (
    ModelLive(1, "v20260101_000000", {"t-0": 0, "t-1": 0}),
    Idle({"t-1": 40}),
    Alerted({"t-0": 90, "t-1": 40}, 29_000_000),
    Resumed({"t-1": 40}, 29_000_003),
    Forecasting(False, {"t-0": 120}),
)


def filled(path: Path) -> Journal:
    journal = Journal(path)
    assert [journal.append(entry) for entry in ENTRIES] == [1, 2, 3, 4, 5]
    return journal


def test_entries_are_there_again_after_a_restart(tmp_path: Path) -> None:
    """Every kind of entry, in order, with the same numbers."""
    filled(tmp_path / "journal").close()
    journal = Journal(tmp_path / "journal")
    assert journal.entries == list(ENTRIES)
    assert (journal.last, journal.alerted_through()) == (5, 29_000_000)


def test_what_is_ahead_of_a_partition(tmp_path: Path) -> None:
    """Only entries that name the partition and come after the one that its state has taken, with offset and number."""
    journal = filled(tmp_path / "journal")
    numbered = [(offset, number) for offset, number, _ in journal.ahead(Partition("t", 1), 0)]
    assert numbered == [(0, 1), (40, 2), (40, 3), (40, 4)]
    assert [number for _, number, _ in journal.ahead(Partition("t", 1), 2)] == [3, 4]
    assert journal.ahead(Partition("t", 0), 3) == [(120, 5, ENTRIES[4])]
    assert journal.ahead(Partition("t", 2), 0) == []


@given(cut=st.integers(0, 400))
def test_a_kill_in_the_middle_of_an_append_cuts_off_that_line_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever the file ends, the whole lines are entries, and the next append goes right behind them."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    filled(path).close()
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    journal = Journal(path)
    assert journal.entries == list(ENTRIES[: content.count(b"\n")])
    journal.append(ENTRIES[0])
    journal.close()
    assert Journal(path).entries == [*ENTRIES[: content.count(b"\n")], ENTRIES[0]]


def test_nul_bytes_of_a_power_failure_are_cut_off(tmp_path: Path) -> None:
    """Some file systems leave them behind the last write."""
    filled(tmp_path / "journal").close()
    with (tmp_path / "journal").open("ab") as file:
        file.write(bytes(50))
    assert Journal(tmp_path / "journal").entries == list(ENTRIES)


@pytest.mark.parametrize("line", [b"{}\n", b"garbage\n", b'{"type":"unknown","offsets":{}}\n', b"\xff\xfe\n", b"\n"])
def test_a_line_that_is_no_entry_is_refused(tmp_path: Path, line: bytes) -> None:
    """A journal that is not understood is never half obeyed: the message names the line and says what to do."""
    filled(tmp_path / "journal").close()
    with (tmp_path / "journal").open("ab") as file:
        file.write(line)
    with pytest.raises(StateError, match=r"journal, line 6: is not a journal entry .*restore the file from a copy"):
        Journal(tmp_path / "journal")


@pytest.mark.parametrize("at", ["write", "half a write", "fsync"])
def test_an_append_that_fails_has_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Neither now nor with a later append: the entry is not in the file, and the numbers go on without it."""
    path = tmp_path / "journal"
    filled(path).close()
    with path.open("ab") as file:
        file.write(b'{"torn')
    journal = Journal(path)
    with monkeypatch.context() as patched:
        if at == "fsync":
            patched.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        else:
            patched.setattr(journal, "_file", Refusing(journal._file, half=at == "half a write"))
        with pytest.raises(OSError, match="the journal cannot be written"):
            journal.append(ENTRIES[1])
    assert journal.last == 5
    assert Journal(path).entries == list(ENTRIES)
    assert journal.append(ENTRIES[3]) == 6
    assert Journal(path).entries == [*ENTRIES, ENTRIES[3]]


class Refusing:
    """A raw file on a disk that is full, or becomes full in the middle of a line."""

    def __init__(self, file: object, *, half: bool) -> None:
        self._real, self._half = file, half

    def write(self, line: bytes) -> int:
        if not self._half:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._real.write(line[: len(line) // 2]))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.fixture
def dropping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are dropped as soon as there are three."""
    monkeypatch.setattr("daemon.ingest.journal.DROPPED_AT_ONCE", 3)


@pytest.mark.usefixtures("dropping")
def test_entries_that_nobody_needs_are_dropped(tmp_path: Path) -> None:
    """Up to the first that some state has yet to take; numbers, what is ahead and the last reported bucket stay, after a restart too."""
    path = tmp_path / "journal"
    journal = filled(path)
    journal.drop({"t-0": 4, "t-1": 4})
    for again in (journal, Journal(path)):
        assert again.entries == [ENTRIES[4]]
        assert again.live == ENTRIES[0]
        assert (again.last, again.alerted_through()) == (5, 29_000_000)
        assert again.ahead(Partition("t", 0), 3) == [(120, 5, ENTRIES[4])]
    assert journal.append(ENTRIES[1]) == 6
    assert Journal(path).ahead(Partition("t", 1), 4) == [(40, 6, ENTRIES[1])]
    journal.append(ENTRIES[1])
    journal.drop({"t-0": 7, "t-1": 7})
    assert Journal(path).entries == []
    assert (Journal(path).last, Journal(path).alerted_through()) == (7, 29_000_000)
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal"]


@pytest.mark.parametrize(
    "taken", [{"t-0": 5, "t-1": 0}, {"t-0": 0, "t-1": 5}, {"t-0": 2, "t-1": 5}, {"t-0": 5, "t-1": 2}], ids=lambda taken: str(taken)
)
@pytest.mark.usefixtures("dropping")
def test_entries_that_a_state_has_yet_to_take_stay(tmp_path: Path, taken: dict[str, int]) -> None:
    """And those behind them, so that the numbers go on without a hole; and a few needless ones, which are not worth a new file."""
    path = tmp_path / "journal"
    journal = filled(path)
    before = path.read_bytes()
    journal.drop(taken)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("dropping")
def test_a_disk_that_refuses_the_shorter_journal_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file stays and goes on; the next attempt succeeds."""
    path = tmp_path / "journal"
    journal = filled(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        journal.drop({"t-0": 5, "t-1": 5})
    assert journal.append(ENTRIES[1]) == 6
    assert Journal(path).entries == [*ENTRIES, ENTRIES[1]]
    journal.drop({"t-0": 6, "t-1": 6})
    assert Journal(path).entries == []
    assert journal.append(ENTRIES[2]) == Journal(path).last == 7


@pytest.mark.usefixtures("dropping")
def test_an_entry_has_no_effect_before_the_new_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut could bring the old file back, without what was appended to the new one: the append fails until the folder is synced."""
    journal = filled(tmp_path / "journal")
    refuse = [True]
    synced = daemon.ingest.journal.sync_folder

    def sync(folder: Path) -> None:
        if refuse:
            raise OSError(errno.EIO, "Input/output error")
        synced(folder)

    monkeypatch.setattr("daemon.ingest.journal.sync_folder", sync)
    journal.drop({"t-0": 5, "t-1": 5})
    with pytest.raises(OSError, match="cannot be written"):
        journal.append(ENTRIES[1])
    refuse.clear()
    assert journal.append(ENTRIES[1]) == 6
    assert Journal(tmp_path / "journal").entries == [ENTRIES[1]]


def test_a_partition_that_comes_with_another_members_state(tmp_path: Path) -> None:
    """Decisions made for it before are void; a second start from the same state finds the later ones."""
    path, partition = tmp_path / "journal", Partition("t", 1)
    journal = filled(path)
    number = journal.adopted(partition, 40)
    assert journal.ahead(partition, number) == []
    journal.append(Idle({"t-1": 70}))
    again = Journal(path)
    assert again.adopted(partition, 40) == number == 6
    assert [offset for offset, _, _ in again.ahead(partition, number)] == [70]
    assert again.adopted(partition, 90) == 8
    assert again.ahead(partition, 8) == []


def test_a_journal_that_is_dropped_all_the_time_changes_nothing(home: Path, uninterrupted: Any) -> None:
    """Killed before and after dropping, a run leaves what an undisturbed one leaves, and the journal ends short."""

    def prepare(nth: int, after: bool) -> Callable[[], None]:
        def arm() -> None:
            daemon.ingest.journal.DROPPED_AT_ONCE = 1  # type: ignore[misc]
            if nth:
                killing.kill_around(Path, "rename" if after else "unlink", nth, after=after)()

        return arm

    for nth, after in ((4, False), (30, True)):
        assert rig.run(home, prepare=prepare(nth, after)) == killing.KILLED
    remains.same(rig.outcome_after(home, prepare=prepare(0, False)), uninterrupted)
    assert (home / "state/journal-main.ndjson").read_text().startswith('{"type":"dropped"')


def test_a_journal_that_ends_before_its_checkpoint(home: Path) -> None:
    """Entries that a checkpoint has taken are gone: what came next would get their numbers, and no effect after a restart. It is refused,
    whether the cut is in a line or between two."""
    assert rig.run(home) == 0
    path = home / "state" / "journal-main.ndjson"
    content = path.read_bytes()
    for cut in (len(content) - 5, 0):
        path.write_bytes(content[:cut])
        assert rig.run(home) == StateError.exit_code
        assert "restore the file from a copy" in remains.reported(home, "ended")[-1]["problem"]
    path.write_bytes(content)
    assert rig.run(home) == 0


def test_every_altered_byte_is_noticed(tmp_path: Path) -> None:
    """A digit that becomes another one, a line that is gone or stands elsewhere, a sum that is cut off: refused, wherever it is."""
    path = tmp_path / "journal"
    journal = Journal(path)
    for at in range(4):
        journal.append(Clock(1_795_000_000.5 + at, {"t-0": 100 * at}))
    journal.close()
    content = path.read_bytes()
    assert len(Journal(path).entries) == 4
    lines = content.splitlines(keepends=True)
    damaged = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content) - 1)]
    damaged += [b"".join(lines[:1] + lines[2:]), b"".join([lines[1], lines[0], *lines[2:]])]
    damaged.append(content.replace(lines[2], lines[2][:-10] + b"\n"))
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(StateError, match="journal entry"):
            Journal(path)


def test_a_journal_of_an_older_release_goes_on_with_sums(tmp_path: Path) -> None:
    """Its lines have none; those that are appended have, and from then on each must."""
    path = tmp_path / "journal"
    path.write_bytes(msgspec.json.encode(Clock(1.0, {"t-0": 5})) + b"\n")
    journal = Journal(path)
    journal.append(Clock(2.0, {"t-0": 7}))
    journal.close()
    assert [entry.now_s for entry in Journal(path).entries] == [1.0, 2.0]
    with path.open("ab") as file:
        file.write(msgspec.json.encode(Clock(3.0, {"t-0": 9})) + b"\n")
    with pytest.raises(StateError, match="its checksum is missing"):
        Journal(path)


def test_what_was_told_of_a_time_that_was_undone_is_not_what_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert of a bucket in the far future, reported while the clock was wrong, goes with its entry: the last one before it counts."""
    monkeypatch.setattr(daemon.ingest.journal, "DROPPED_AT_ONCE", 1)
    now_s, year = 29_000_002 * 60.0, 525_600
    entries = [Alerted({}, 29_000_000), Alerted({}, 29_000_000 + year), Clock(now_s, {}, confirmed=True), Alerted({}, 29_000_001)]
    for count in range(1, len(entries) + 1):
        path = tmp_path / str(count)
        journal = Journal(path)
        for entry in entries[:count]:
            journal.append(entry)
        expected = journal.alerted_through(limit_of(now_s))
        last = journal.append(Idle({"t-0": 9}))
        journal.drop({"t-0": last})
        assert journal.entries == []
        if count != 2:  # else the clock is still wrong, and nothing is undone yet
            assert journal.alerted_through(limit_of(now_s)) == expected
        journal.close()
        assert Journal(path).alerted_through() == journal.alerted_through()
    assert expected == 29_000_001
