"""The training buffer: sealing, reading back, snapshots, and what an interrupted or refused write leaves."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.telemetry import CATEGORIES, NUMERIC, Partition
from model.buffer.folder import drop_unnamed, snapshot
from model.buffer.retention import compact
from model.buffer.rows import BufferRows, BufferWriter, read_segments
from model.buffer.segments import SegmentError, describe
from testkit.paths import ROOT

PARTITION = Partition("dwcp.telemetry", 3)
LINKS = ["a|b|fibre", "b|c|fibre", "a|c|radio"]
VALUES = [["eu-1", "us-2"], [], ["fibre", "radio"], ["auto"], ["tier-1", "tier-2", "tier-3"], []]


def rows_of(first_offset: int, count: int, start_s: float = 1_000.0, seed: int = 0) -> BufferRows:
    """Rows of three links in turn, one second apart, a third of the values missing."""
    rng = np.random.default_rng([seed, first_offset])
    numeric = rng.gamma(2.0, 50.0, (count, len(NUMERIC))).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.3] = np.nan
    codes = np.stack([rng.integers(-1, len(values), count) for values in VALUES], axis=1).astype(np.int16)
    offsets = first_offset + np.arange(count, dtype=np.int64)
    return BufferRows(offsets, start_s + offsets.astype(np.float64), numeric, codes, (offsets % 3).astype(np.int32))


def sealed(folder: Path, first_offset: int, count: int, partition: Partition = PARTITION, start_s: float = 1_000.0, seed: int = 0) -> Path:
    writer = BufferWriter(folder, partition)
    writer.append(rows_of(first_offset, count, start_s, seed))
    taken = writer.detach(LINKS, VALUES)
    assert taken is not None
    return folder / str(writer.seal(taken).name)


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    """Every number, missing value, category and link of the appended rows is read back, sorted by link and time."""
    writer = BufferWriter(tmp_path, PARTITION)
    parts = [rows_of(0, 40), rows_of(40, 1), rows_of(41, 19)]
    for part in parts:
        writer.append(part)
    assert writer.open_rows == 60
    taken = writer.detach(LINKS, VALUES)
    assert taken is not None
    assert writer.open_rows == 0
    segment = writer.seal(taken)
    assert (segment.rows, segment.first_time_s, segment.last_time_s) == (60, 1_000.0, 1_059.0)
    assert describe(tmp_path / str(segment.name)) == segment

    table = read_segments([tmp_path / str(segment.name)])
    slots, times = np.concatenate([p.slots for p in parts]), np.concatenate([p.time_s for p in parts])
    numeric, codes = np.concatenate([p.numeric for p in parts]), np.concatenate([p.codes for p in parts])
    assert table.links == tuple(sorted(LINKS))
    order = np.lexsort((times, np.array([sorted(LINKS).index(name) for name in LINKS])[slots]))
    np.testing.assert_array_equal(table.time_s, times[order])
    np.testing.assert_array_equal(table.numeric, numeric[order])
    assert [table.links[at] for at in table.link] == [LINKS[slot] for slot in slots[order]]
    for category in range(len(CATEGORIES)):
        wanted = [None if code < 0 else VALUES[category][code] for code in codes[order, category]]
        assert [None if code < 0 else table.values[category][code] for code in table.codes[:, category]] == wanted
    assert [column.dtype.name for column in (table.link, table.numeric, table.codes)] == ["int32", "float32", "int32"]


def test_nothing_to_take_is_none(tmp_path: Path) -> None:
    """Without rows there is nothing to seal, and empty appends do not count as rows."""
    writer = BufferWriter(tmp_path, PARTITION)
    writer.append(rows_of(0, 0))
    assert writer.detach(LINKS, VALUES) is None


@given(cuts=st.lists(st.integers(1, 59), max_size=4), moved=st.booleans())
def test_the_cut_into_segments_does_not_matter(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], moved: bool) -> None:
    """However the same rows are cut into appends and segments, compacted or not, the table that a training reads is the same."""
    folder = tmp_path_factory.mktemp("buffer")
    whole = sealed(tmp_path_factory.mktemp("whole"), 0, 60)
    rows = rows_of(0, 60)
    edges = [0, *sorted(set(cuts)), 60]
    writer = BufferWriter(folder, PARTITION)
    names = []
    for first, last in pairwise(edges):
        part = slice(first, last)
        writer.append(BufferRows(rows.offsets[part], rows.time_s[part], rows.numeric[part], rows.codes[part], rows.slots[part]))
        taken = writer.detach(LINKS, VALUES)
        assert taken is not None
        if moved:
            writer.put_back(taken)
            taken = writer.detach(LINKS, VALUES)
            assert taken is not None
        names.append(writer.seal(taken).name)
    table, expected = read_segments([folder / str(name) for name in reversed(names)]), read_segments([whole])
    merged = compact(folder, names)
    assert merged.rows == 60
    for other in (table, read_segments([folder / str(merged.name)])):
        assert other.links == expected.links
        assert [[other.values[c][k] if k >= 0 else None for k in other.codes[:, c]] for c in range(6)] == [
            [expected.values[c][k] if k >= 0 else None for k in expected.codes[:, c]] for c in range(6)
        ]
        np.testing.assert_array_equal(other.link, expected.link)
        np.testing.assert_array_equal(other.time_s, expected.time_s)
        np.testing.assert_array_equal(other.numeric, expected.numeric)


def test_a_refusing_disk_loses_nothing(tmp_path: Path) -> None:
    """When the file system refuses the write, no file is left, the rows can be given back, and the next sealing has all of them."""
    writer = BufferWriter(tmp_path, PARTITION)
    writer.append(rows_of(0, 5_000))
    taken = writer.detach(LINKS, VALUES)
    assert taken is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))  # a real refusal by the kernel, as a full disk gives
    try:
        with pytest.raises(OSError, match=r"[Ff]ile too large|error"):
            writer.seal(taken)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    writer.append(rows_of(5_000, 10))
    writer.put_back(taken)
    assert writer.open_rows == 5_010
    again = writer.detach(LINKS, VALUES)
    assert again is not None
    assert writer.seal(again).rows == 5_010


def test_a_kill_while_sealing_leaves_no_segment(tmp_path: Path) -> None:
    """A process that dies before the rename leaves a temporary file only, and the next start removes it."""
    code = f"""
        import os, pathlib, sys
        sys.path.insert(0, {str(ROOT)!r})
        import pyarrow as pa
        from model.buffer import segments
        os.fsync = lambda descriptor: os._exit(9)
        name = segments.SegmentName("dwcp.telemetry", 3, 0, 0)
        columns = {{field.name: pa.array([None], field.type) for field in segments.SCHEMA}} | {{"time_s": pa.array([1.0])}}
        segments.write_segment(pathlib.Path({str(tmp_path)!r}), name, pa.table(columns, segments.SCHEMA))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 9
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".sealing-")
    assert drop_unnamed(tmp_path, [PARTITION], list) == left
    assert list(tmp_path.iterdir()) == []


def test_drop_unnamed_touches_only_its_partition(tmp_path: Path) -> None:
    """At start, exactly the segments of the partition that the checkpoint does not name go; strangers and other partitions stay."""
    kept, gone = sealed(tmp_path, 0, 10), sealed(tmp_path, 10, 10)
    other = sealed(tmp_path, 10, 10, Partition("dwcp.telemetry", 33))
    stranger = tmp_path / "notes.txt"
    stranger.write_text("mine")
    assert drop_unnamed(tmp_path, [PARTITION], lambda: {kept.name}) == [gone.name]
    assert set(tmp_path.iterdir()) == {kept, other, stranger}


def test_a_snapshot_outlives_its_segments(tmp_path: Path) -> None:
    """A training's snapshot still reads after retention has deleted the segments, and costs no second copy of the bytes."""
    path = sealed(tmp_path, 0, 30)
    (linked,) = snapshot([path], tmp_path / "jobs" / "1")
    assert linked.samefile(path)
    path.unlink()
    assert len(read_segments([linked])) == 30
    with pytest.raises(SegmentError, match="missing"):
        snapshot([path], tmp_path / "jobs" / "2")


def test_a_snapshot_across_file_systems_is_a_copy(tmp_path: Path) -> None:
    """If a hard link is refused, the snapshot holds a copy."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to copy to")
    path = sealed(tmp_path, 0, 30)
    into = other / f"snapshot-{os.getpid()}"
    (copied,) = snapshot([path], into)
    try:
        assert copied.read_bytes() == path.read_bytes()
    finally:
        copied.unlink()
        into.rmdir()


def test_repeated_rows_are_refused(tmp_path: Path) -> None:
    """Overlapping segments and rows of a link that go back a little cannot come from this program, and are named, not learnt from."""
    first, overlapping = sealed(tmp_path, 0, 40), sealed(tmp_path, 30, 40)
    with pytest.raises(SegmentError, match=f"{overlapping.name}: overlaps"):
        read_segments([overlapping, first])
    earlier = sealed(tmp_path, 40, 10, start_s=990.0)
    with pytest.raises(SegmentError, match=rf"{earlier.name}: has a row of link 'a.b.fibre' that is not after"):
        read_segments([first, earlier])


@pytest.mark.parametrize("ahead", [range(12, 15), range(10, 20), range(3)])
def test_rows_of_a_time_that_could_not_be_are_not_read(tmp_path: Path, ahead: range) -> None:
    """They were taken while a clock was a day ahead, and their links began anew: all other rows are read, in order of time."""
    writer = BufferWriter(tmp_path, PARTITION)
    rows = rows_of(0, 40)
    time_s = rows.time_s.copy()
    time_s[list(ahead)] += 86_400.0
    writer.append(replace(rows, time_s=time_s))
    taken = writer.detach(LINKS, VALUES)
    assert taken is not None
    table = read_segments([tmp_path / str(writer.seal(taken).name)])
    assert sorted(table.time_s.tolist()) == [1_000.0 + at for at in range(40) if at not in ahead]


def test_rows_up_to_a_time_are_read(tmp_path: Path) -> None:
    """since_s and until_s are of the rows that are read, both included."""
    table = read_segments([sealed(tmp_path, 0, 40)], since_s=1_010.0, until_s=1_020.0)
    assert sorted(table.time_s.tolist()) == [1_000.0 + at for at in range(10, 21)]


def test_a_link_that_moved_is_one_link(tmp_path: Path) -> None:
    """Rows of a link from two partitions merge by time; of two rows at one time the first partition's stays."""
    one = sealed(tmp_path, 0, 30)
    other = sealed(tmp_path, 0, 60, Partition("dwcp.telemetry", 4), seed=1)
    table, alone = read_segments([one, other]), read_segments([one])
    assert len(table) == 60
    assert np.array_equal(table.numeric[table.time_s < 1_030], alone.numeric, equal_nan=True)


def test_since_reads_only_newer_rows(tmp_path: Path) -> None:
    """since_s keeps rows at or after it, also when it leaves a file or everything out."""
    paths = [sealed(tmp_path, 0, 30), sealed(tmp_path, 30, 30)]
    assert len(read_segments(paths, since_s=1_020.0)) == 40
    assert len(read_segments(paths, since_s=1_040.0)) == 20
    assert len(read_segments(paths, since_s=2_000.0)) == 0
    assert len(read_segments([])) == 0
