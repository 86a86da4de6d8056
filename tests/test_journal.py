"""The journal: entries are durable before they take effect, and take effect at the same records again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import StateError
from daemon.journal import Entry, Forecasting, Idle, Journal, ModelLive, Resumed, Told
from features.telemetry import Partition

ENTRIES: tuple[Entry, ...] = (
    ModelLive(1, "v20260101_000000", {"t-0": 0, "t-1": 0}),
    Idle({"t-1": 40}),
    Told({"t-0": 90, "t-1": 40}, 29_000_000),
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
    assert (journal.last, journal.told_through) == (5, 29_000_000)


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
    with pytest.raises(StateError, match=r"journal, line 6: is no journal entry .*restore the file from a copy"):
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
