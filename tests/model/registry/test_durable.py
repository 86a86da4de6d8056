"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from model.registry.durable import SHARED_TRIES, atomic_write


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.rename"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_disk_that_refuses_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, shared: bool) -> None:
    """Nothing of the new content is there, under no name."""
    path = tmp_path / "file"
    atomic_write(path, b"before")
    with monkeypatch.context() as patched:
        patched.setattr(step, lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            atomic_write(path, b"after", shared=shared)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"before")]
    atomic_write(path, b"after", shared=shared)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"after")]


def test_what_a_crash_has_left_is_replaced(tmp_path: Path) -> None:
    """A pipe under the temporary name, which nobody would read from, too."""
    os.mkfifo(tmp_path / ".file.partial")
    atomic_write(tmp_path / "file", b"content")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_several_writers_of_one_file(tmp_path: Path) -> None:
    """Each writes the whole file, and one of them is the last."""
    path = tmp_path / "file"
    contents = [bytes([65 + writer]) * 10_000 for writer in range(8)]
    writers = [threading.Thread(target=atomic_write, args=(path, content), kwargs={"shared": True}) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in contents
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("removed", [SHARED_TRIES - 1, SHARED_TRIES])
def test_a_temporary_file_that_a_starting_member_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int) -> None:
    """It is written again, but not for ever."""
    real, renames = Path.rename, []

    def rename(path: Path, target: Path) -> Path:
        renames.append(path)
        if len(renames) <= removed:
            path.unlink()
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    if removed < SHARED_TRIES:
        atomic_write(tmp_path / "file", b"content", shared=True)
        assert (tmp_path / "file").read_bytes() == b"content"
    else:
        with pytest.raises(FileNotFoundError):
            atomic_write(tmp_path / "file", b"content", shared=True)
