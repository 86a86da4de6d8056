"""Reading what somebody else may have put there: a regular file of bounded size, or an error that says what it is; and never a wait."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config.load import MOST_BYTES, ConfigError, load, reload
from daemon.errors import StateError
from daemon.ingest.journal import Journal
from daemon.state.state_file import check_state, read_state
from model.buffer.segments import SegmentError, describe
from model.registry.plain_file import folders_in, is_folder, open_plain, read_plain_bytes, reason_of, sha256_of
from model.version.documents import read_document
from model.version.predictor import read_graph
from streams.files.read_events import events_in_file
from streams.files.sink import NdjsonSink

LEAST_BYTES = 100


KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to(__file__),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [read_plain_bytes, sha256_of, lambda path, most: open_plain(path, most).close()])
def test_what_is_not_a_regular_file_is_refused(tmp_path: Path, read: Callable[[Path, int], object], kind: str) -> None:
    """It is refused at once, with a sentence: nothing is opened that would wait or act on it."""
    KINDS[kind](tmp_path / "it")
    with pytest.raises(OSError, match="is not a regular file") as refusal:
        read(tmp_path / "it", LEAST_BYTES)
    assert reason_of(refusal.value) == "is not a regular file"


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a folder", "a link to a device"])
def test_a_link_that_may_be_followed_leads_to_a_regular_file(tmp_path: Path, kind: str) -> None:
    """A secret is often mounted as a link; what it leads to is held to the same."""
    KINDS[kind](tmp_path / "it")
    (tmp_path / "link").symlink_to(tmp_path / "it")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "good").symlink_to("file")
    with pytest.raises(OSError, match="is not a regular file"):
        read_plain_bytes(tmp_path / "link", LEAST_BYTES, follow_link=True)
    assert read_plain_bytes(tmp_path / "good", LEAST_BYTES, follow_link=True) == b"x"


def test_a_file_is_bounded(tmp_path: Path) -> None:
    """A file of the largest size is read; one more byte, or a sparse terabyte, is refused before it is read."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * LEAST_BYTES)
    assert read_plain_bytes(path, LEAST_BYTES) == b"x" * LEAST_BYTES
    for size in (LEAST_BYTES + 1, 2**40):
        os.truncate(path, size)
        for read in (read_plain_bytes, sha256_of):
            with pytest.raises(OSError, match=f"has {size:,} bytes or more"):
                read(path, LEAST_BYTES)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    """The usual errors stay what they are."""
    with pytest.raises(FileNotFoundError):
        read_plain_bytes(tmp_path / "none", LEAST_BYTES)
    with pytest.raises(NotADirectoryError):
        read_plain_bytes(Path(__file__) / "none", LEAST_BYTES)


def test_only_real_folders_are_folders(tmp_path: Path) -> None:
    """Links to folders are links."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "file").touch()
    assert list(folders_in(tmp_path)) == ["folder"]
    assert [is_folder(tmp_path / name) for name in ("folder", "link", "file", "none")] == [True, False, False, False]
    assert list(folders_in(tmp_path / "none")) == list(folders_in(tmp_path / "file")) == []


def read_journal(folder: Path) -> None:
    Journal(folder / "it")


def read_segment(folder: Path) -> None:
    (folder / "it").rename(folder / "t-0-00000000000000000000-00000000000000000001.parquet")
    describe(folder / "t-0-00000000000000000000-00000000000000000001.parquet")


READERS: dict[str, Callable[[Path], object]] = {
    "journal": read_journal,
    "state": lambda folder: read_state(folder / "it", ""),
    "state's sum": lambda folder: check_state(folder / "it", ""),
    "segment": read_segment,
    "event file": lambda folder: NdjsonSink(folder / "it"),
    "events": lambda folder: next(events_in_file(folder / "it", follow=False)),
    "document": lambda folder: read_document(folder / "it"),
    "graph": lambda folder: read_graph(folder / "it"),
    "configuration, again": lambda folder: reload(folder / "it"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["a pipe", "a link to a device"])
def test_nothing_that_the_daemon_reads_is_waited_for(tmp_path: Path, reader: str, kind: str) -> None:
    """A pipe or a device where a file of the state, an event file or a document belongs: an error at once, of the reader's own kind."""
    KINDS[kind](tmp_path / "it")
    with pytest.raises((OSError, ValueError, StateError, SegmentError, ConfigError), match="regular file"):
        READERS[reader](tmp_path)


def test_a_configuration_may_come_through_a_pipe_once(tmp_path: Path) -> None:
    """It works with --config /dev/stdin; more bytes than any configuration has are refused."""
    os.mkfifo(tmp_path / "pipe")
    for content in (b"[kafka]\ntopic = 'x'\n", b"#" * (MOST_BYTES + 1)):
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
        writer.start()
        if len(content) < MOST_BYTES:
            assert load(tmp_path / "pipe", {}).kafka.topic == "x"
        else:
            with pytest.raises(ConfigError, match="is not a configuration"):
                load(tmp_path / "pipe", {})
        writer.join()
