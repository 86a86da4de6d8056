"""Replay of files, folders and pipes: order, offsets, pace, and messages about files that are not telemetry."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.clock import StreamClock
from daemon.operator.observer import Observer
from daemon.wiring import build
from features.telemetry import COLUMNS, Partition
from streams.files import index as file_index
from streams.files.source import FileSource
from streams.files.standard_input import StandardInput
from streams.records.decode import decode
from streams.source import ONLY_LOG, Log, RawBatch, SourceError
from testkit import rig

T0 = 1_700_000_000
HEADER = "timestamp,node_id,peer_id,rtt_ms"


def row(second: float, node: str = "n") -> str:
    return f"{T0 + second},{node},p,1"


def json_row(second: float, node: str = "n") -> str:
    return json.dumps({"timestamp": T0 + second, "node_id": node, "peer_id": "p", "rtt_ms": 1})


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Read and write end; the test closes the write end."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def begin(source: FileSource, offset: int | None = None, log: Log = ONLY_LOG) -> FileSource:
    """Accept the assignment and seek, as the loop does."""
    (partition,) = source.poll(0).assigned
    source.seek(partition, offset, log)
    return source


def batches_of(source: FileSource) -> list[RawBatch]:
    """All that a source gives until it has ended."""
    batches = []
    while not (polled := source.poll(1)).ended:
        batches += polled.batches
    source.close()
    return batches


def records_of(path: Path, offset: int | None = None, **options: Any) -> list[tuple[int, bytes | None, tuple[str, int]]]:
    """(offset, value, (file, line)) of every record."""
    records = []
    for batch in batches_of(begin(FileSource(path, **options), offset)):
        assert batch.lines is not None
        assert len(batch.lines) == len(batch.values) == len(batch)
        records += list(zip(batch.offsets, batch.values, batch.lines, strict=True))
    return records


def test_links_are_interleaved_by_time(tmp_path: Path) -> None:
    """A file that holds one link after the other is replayed as it would have arrived, equal times in the order of the lines."""
    path = write(tmp_path / "telemetry.csv", HEADER, row(0, "a"), row(60, "a"), row(120, "a"), row(0, "b"), row(59.5, "b"), row(120, "b"))
    assert records_of(path) == [
        (0, row(0, "a").encode(), ("telemetry.csv", 2)),
        (1, row(0, "b").encode(), ("telemetry.csv", 5)),
        (2, row(59.5, "b").encode(), ("telemetry.csv", 6)),
        (3, row(60, "a").encode(), ("telemetry.csv", 3)),
        (4, row(120, "a").encode(), ("telemetry.csv", 4)),
        (5, row(120, "b").encode(), ("telemetry.csv", 7)),
    ]


def test_records_come_after_the_assignment_and_the_seek(tmp_path: Path) -> None:
    """The first poll names the partition; nothing comes before the caller has said from where; the end is said again and again."""
    path = write(tmp_path / "a.ndjson", json_row(0), json_row(1))
    slept: list[float] = []
    source = FileSource(path, sleep=slept.append)
    polled = source.poll(0.5)
    assert polled.assigned == {Partition("a.ndjson", 0)}
    assert not polled.batches
    assert source.poll(0.5) == source.poll(0.5)
    assert slept == [0.5, 0.5]
    assert source.lag() == 2
    source.seek(Partition("a.ndjson", 0), None)
    (batch,) = source.poll(0.5).batches
    assert (batch.form, batch.columns, list(batch.offsets)) == ("json", (), [0, 1])
    assert source.lag() == 0
    assert source.poll(0.5).ended
    assert source.poll(0.5).ended
    assert source.healthy()
    source.close()
    assert not source.healthy()


def test_a_poll_has_no_more_bytes_than_fit_into_memory(tmp_path: Path, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Records may be of any length: a poll ends before its bytes are too many, and has one record at least."""
    for module in ("index", "standard_input"):
        monkeypatch.setattr(f"streams.files.{module}.POLL_BYTES", 4000)
    sizes = [1000, 1000, 2000, 100, 4000, 9000, 500, 500]
    lines = [json_row(second).ljust(size) for second, size in enumerate(sizes)]
    write(tmp_path / "a.ndjson", *lines[::2])
    write(tmp_path / "b.ndjson", *lines[1::2])
    polls = [[1000, 1000, 2000], [100], [4000], [9000], [500, 500]]
    assert [[len(value or b"") for value in batch.values] for batch in batches_of(begin(FileSource(tmp_path)))] == polls
    os.write(pipe[1], "".join(line + "\n" for line in lines).encode())
    os.close(pipe[1])
    monkeypatch.setattr("streams.files.standard_input._READ_BYTES", 1500)
    source = begin(FileSource("-", standard_input=pipe[0]))
    found = []
    while not (polled := source.poll(1)).ended:
        found += [[len(value or b"") for value in batch.values] for batch in polled.batches]
        assert isinstance(source._records, StandardInput)
        assert len(source._records._records) < 3, "no more was read ahead than one poll and a read"
    assert found == polls


def test_a_pause_stops_records(tmp_path: Path) -> None:
    """No record comes until it is over; nothing is lost."""
    slept: list[float] = []
    source = begin(FileSource(write(tmp_path / "a.ndjson", json_row(0)), sleep=slept.append))
    source.pause()
    assert not source.poll(2).batches
    assert slept == [2]
    source.resume()
    assert len(source.poll(2).batches) == 1


def test_a_folder_is_merged(tmp_path: Path) -> None:
    """CSV with different headers, NDJSON and gzip in one order; other files are left alone; batches keep the form of their records."""
    folder = tmp_path / "site"
    folder.mkdir()
    write(folder / "a.csv", HEADER, row(0, "a"), row(3, "a"))
    write(folder / "b.csv", "peer_id,node_id,timestamp,latency_ms", f"p,b,{T0 + 1},1", f"p,b,{T0 + 4},1")
    (folder / "c.ndjson.gz").write_bytes(gzip.compress((json_row(2, "c") + "\n" + json_row(5, "c") + "\n").encode()))
    write(folder / "d.jsonl", json_row(2.5, "d"))
    write(folder / "empty.csv")
    write(folder / "notes.txt", "not telemetry")
    write(folder / ".hidden.csv", "not telemetry")
    source = begin(FileSource(folder))
    assert source.partition == Partition("site", 0)
    batches = batches_of(source)
    nodes, offsets = [], []
    for batch in batches:
        decoded = decode(batch, None)
        assert decoded.rejected == []
        nodes += decoded.batch.node_id
        offsets += decoded.batch.offsets.tolist()
    assert nodes == ["a", "b", "c", "d", "a", "b", "c"]
    assert offsets == list(range(7))
    assert [len(batch) for batch in batches] == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "unreadable", ["soon,n,p,1", ",n,p,1", "1700000000000,n,p,1", "0,n,p,1", "nan,n,p,1", "garbage", '"1700000000,n,p,1']
)
def test_a_record_without_a_readable_time_keeps_its_place(tmp_path: Path, unreadable: str) -> None:
    """It stays behind its predecessor in the file, so that it is refused in order and moves no other record."""
    path = write(tmp_path / "a.csv", HEADER, unreadable, row(10), unreadable, row(20), row(5))
    assert [line for _, _, (_, line) in records_of(path)] == [6, 2, 3, 4, 5]


@pytest.mark.parametrize("unreadable", ['{"timestamp": "soon"}', '{"timestamp": null}', "{}", "[" * 5000, "\x00", '{"timestamp": 0}'])
def test_the_same_in_ndjson(tmp_path: Path, unreadable: str) -> None:
    """This holds for any content of the line."""
    path = write(tmp_path / "a.ndjson", json_row(10), unreadable, json_row(20), json_row(5))
    assert [line for _, _, (_, line) in records_of(path)] == [4, 1, 2, 3]


def test_rfc_3339_and_quoted_times_are_ordered_too(tmp_path: Path) -> None:
    """They are read as the decoder reads them."""
    path = write(tmp_path / "a.csv", HEADER, "2023-11-14T22:13:30Z,n,p,1", f'"{T0 + 5}","n,1",p,1', row(20))
    assert [line for _, _, (_, line) in records_of(path)] == [3, 2, 4]
    path = write(tmp_path / "a.jsonl", '{"timestamp": "2023-11-14T22:13:30Z"}', json_row(5), json_row(20))
    assert [line for _, _, (_, line) in records_of(path)] == [2, 1, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_blank_lines_and_byte_order_marks_are_no_part_of_a_record(tmp_path: Path, start: str, end: str) -> None:
    """Files come from all systems; line numbers count every line; the last line needs no newline."""
    path = tmp_path / "a.csv"
    path.write_bytes(end.join([start + HEADER, row(0), "", row(1), "", "", row(2)]).encode())
    assert [(value, line) for _, value, (_, line) in records_of(path)] == [
        (row(0).encode(), 2), (row(1).encode(), 4), (row(2).encode(), 7),
    ]  # fmt: skip
    path = tmp_path / "a.ndjson"
    path.write_bytes(end.join([start + json_row(0), "", json_row(1)]).encode())
    assert [(value, line) for _, value, (_, line) in records_of(path)] == [(json_row(0).encode(), 1), (json_row(1).encode(), 3)]


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("timestamp,node_id,rtt_ms", "misses peer_id"),
        ("time,node,peer,rtt", "misses timestamp, node_id, peer_id; it has none of throughput_mbps"),
        ("timestamp,node_id,peer_id,region", "has none of throughput_mbps, rtt_ms, packet_loss, jitter_ms"),
        ("timestamp,node_id,peer_id,rtt_ms,color,taste", "unknown columns 'color', 'taste'"),
        ("timestamp,node_id,peer_id,rtt_ms,rtt_ms", "names 'rtt_ms' twice"),
        (HEADER.replace(",", ";"), "comma-separated"),
        (",".join(f"x{i}" for i in range(1000)), "and 995 more"),
        ('"timestamp,node_id', "not a CSV header"),
        ("\x00\x01", "misses timestamp"),
    ],
)
def test_a_wrong_header_is_refused_with_what_is_wrong(tmp_path: Path, header: str, complaint: str) -> None:
    """The message names the columns, so that they can be corrected at once."""
    path = write(tmp_path / "a.csv", header, row(0))
    with pytest.raises(SourceError) as error:
        FileSource(path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_header_may_be_whole_in_another_order_and_quoted(tmp_path: Path) -> None:
    """The 22 names may come in any order."""
    columns = tuple(reversed(COLUMNS))
    path = write(tmp_path / "a.csv", ", ".join(f'"{name}"' for name in columns).replace(", ", ","), ",".join(["1"] * 21 + [str(T0)]))
    (batch,) = batches_of(begin(FileSource(path)))
    assert batch.columns == columns
    assert decode(batch, None).batch.time_s.tolist() == [T0]


@pytest.mark.parametrize(
    "header", ['timestamp, "node_id" ,peer_id\t, rtt_ms', '"timestamp","node_id"\t, " peer_id" ,"rtt_ms"', f"\n \n{HEADER}"]
)
def test_white_space_is_no_part_of_names_and_cells(tmp_path: Path, pipe: tuple[int, int], header: str) -> None:
    """It holds in a file and through a pipe; lines are counted from the first one, blank or not."""
    path = write(tmp_path / "a.csv", header, f'{T0}, n, "p" ,1', f"{T0 + 1}, n, p, ", f" {T0 + 2}, n,p ,2")
    os.write(pipe[1], path.read_bytes())
    os.close(pipe[1])
    first = header.count("\n") + 2
    for source in (FileSource(path), FileSource("-", standard_input=pipe[0])):
        (batch,) = batches_of(begin(source))
        assert batch.columns == tuple(HEADER.split(","))
        decoded = decode(batch, None)
        assert (decoded.batch.node_id, decoded.batch.peer_id) == (["n", "n"], ["p", "p"])
        assert decoded.batch.time_s.tolist() == [T0, T0 + 2]
        assert [rejected.kind for rejected in decoded.rejected] == ["missing_field"]  # a cell of white space is empty
        assert batch.lines is not None
        assert [number for _, number in batch.lines] == [first, first + 1, first + 2]


def nothing(path: Path) -> None:
    assert not path.exists()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("name", "make", "complaint"),
    [
        ("absent.csv", nothing, "no such file or folder"),
        ("empty.csv", lambda path: path.touch(), "is empty"),
        ("empty.ndjson", lambda path: path.touch(), "is empty"),
        ("empty.csv.gz", lambda path: path.write_bytes(gzip.compress(b"")), "is empty"),
        ("torn.csv.gz", lambda path: path.write_bytes(gzip.compress(HEADER.encode() * 99)[:-9]), "not a whole gzip file"),
        ("no.csv.gz", lambda path: path.write_bytes(b"plain"), "not a whole gzip file"),
        ("folder", lambda path: path.mkdir(), "no file in this folder ends in .csv, .ndjson"),
        ("garbage.csv", lambda path: path.write_bytes(bytes(range(256)) * 10), "wrong CSV header: it misses timestamp"),
        ("garbage", lambda path: path.write_bytes(b"\xff\xfe" * 100), "not a CSV header in UTF-8"),
        ("array.json", lambda path: path.write_text('\n [{"timestamp": 1}]'), "one JSON array"),
        ("pipe.csv", fifo, "not a regular file: pipe it to standard input"),
        ("socket", unix_socket, "not a regular file"),
        ("long.csv", lambda path: path.open("wb").truncate(file_index.LONGEST_LINE_BYTES + 2), "line of more than 64 MiB"),
    ],
)
def test_a_path_that_is_no_telemetry_is_refused(tmp_path: Path, name: str, make: Callable[[Path], object], complaint: str) -> None:
    """The message says what, where and what to do, before anything else has happened."""
    make(tmp_path / name)
    with pytest.raises(SourceError) as error:
        FileSource(tmp_path / name)
    assert complaint in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """The message has the reason of the system. (The error is injected: root, as whom tests often run, may read everything.)"""
    path = write(tmp_path / "a.csv", HEADER)
    with (
        mock.patch.object(Path, "open", side_effect=PermissionError(13, "Permission denied")),
        pytest.raises(SourceError, match="cannot be read: Permission denied"),
    ):
        FileSource(path)


def test_a_folder_of_empty_files_is_refused(tmp_path: Path) -> None:
    """There is nothing to replay."""
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv")
    with pytest.raises(SourceError, match="every telemetry file in this folder is empty"):
        FileSource(tmp_path)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_speed_has_to_be_above_zero(tmp_path: Path, speed: float) -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="speed is"):
        FileSource(write(tmp_path / "a.csv", HEADER), speed)


@pytest.mark.parametrize(("lines", "expected"), [([HEADER], 0), ([HEADER, row(0)], 1)])
def test_a_header_alone_or_one_row_is_a_short_replay(tmp_path: Path, lines: list[str], expected: int) -> None:
    """It ends at once."""
    assert len(records_of(write(tmp_path / "a.csv", *lines))) == expected


def test_binary_garbage_in_ndjson_is_refused_line_by_line(tmp_path: Path) -> None:
    """The file says by its name that it is telemetry: its lines become dead letters with their numbers."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\xff\x00\n" + json_row(0).encode() + b"\n\x89PNG\n")
    (batch,) = batches_of(begin(FileSource(path)))
    decoded = decode(batch, None)
    assert len(decoded.batch) == 1
    assert [(rejected.line, rejected.kind) for rejected in decoded.rejected] == [
        (("a.ndjson", 1), "not_json"),
        (("a.ndjson", 3), "not_json"),
    ]


@pytest.mark.parametrize("name", ["telemetry", "telemetry.txt"])
@pytest.mark.parametrize(("lines", "form"), [([HEADER, row(0)], "csv"), ([json_row(0)], "json")])
def test_a_file_of_another_name_is_recognised_by_its_first_byte(tmp_path: Path, name: str, lines: list[str], form: str) -> None:
    """A name without an ending says nothing."""
    (batch,) = batches_of(begin(FileSource(write(tmp_path / name, *lines))))
    assert (batch.form, len(batch)) == (form, 1)


@pytest.mark.parametrize("offset", [0, 1, 7, 10])
@pytest.mark.parametrize("max_records", [1, 3, 100])
def test_a_replay_goes_on_at_any_offset(tmp_path: Path, offset: int, max_records: int) -> None:
    """Offsets are the same in every run, whatever the size of the polls."""
    path = write(tmp_path / "a.csv", HEADER, *[row(second) for second in (5, 3, 8, 1, 9, 2, 7, 0, 6, 4)])
    assert records_of(path, offset, max_records=max_records) == records_of(path)[offset:]


def test_an_offset_beyond_the_end_tells_that_the_files_have_changed(tmp_path: Path) -> None:
    """Going on would skip records in silence."""
    source = FileSource(write(tmp_path / "a.csv", HEADER, row(0)))
    (partition,) = source.poll(0).assigned
    with pytest.raises(SourceError, match="the files have changed since the checkpoint"):
        source.seek(partition, 2)
    with pytest.raises(SourceError, match="b-0 is not a partition of this source"):
        source.seek(Partition("b", 0), 0)


OTHER_HEADER = "timestamp,peer_id,node_id,rtt_ms"
CHANGES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "nothing": ((HEADER, *map(row, range(10))), None),
    "grown at its end": ((HEADER, *map(row, range(20))), None),
    "another first record": ((HEADER, *map(row, range(1, 11))), "the first record, or its columns, are not those that it began with"),
    "another header": ((OTHER_HEADER, *map(row, range(10))), "the first record, or its columns, are not those that it began with"),
    "a record more in the middle": (
        (HEADER, *map(row, sorted([2.5, *range(10)]))),
        "the record before it has changed, so the files have changed",
    ),
    "a record less in the middle": ((HEADER, *map(row, [0, *range(2, 11)])), "the record before it has changed, so the files have changed"),
    "fewer records": ((HEADER, *map(row, range(5))), "cannot go on at record 6: there are 5 records"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_files_of_the_same_name_are_not_gone_on_in(tmp_path: Path, change: str) -> None:
    """They hold other records under the same numbers. One that has grown at its end is the same."""
    path = write(tmp_path / "a.csv", HEADER, *map(row, range(10)))
    (batch,) = begin(FileSource(path, max_records=6)).poll(0).batches
    lines, complaint = CHANGES[change]
    write(path, *lines)
    if complaint is None:
        begin(FileSource(path), 6, batch.log_at_end)
    else:
        with pytest.raises(SourceError, match=f"{complaint}.*; put the old files back, or start with an empty state directory"):
            begin(FileSource(path), 6, batch.log_at_end)
    begin(FileSource(path), 0, batch.log_at_end)  # nothing was taken of the one before


def test_a_file_of_a_folder_that_has_grown_in_the_past_is_noticed(tmp_path: Path) -> None:
    """Its new records lie before those that were taken of the others, and would never be read."""
    write(tmp_path / "a.csv", HEADER, *map(row, range(0, 20, 2)))
    write(tmp_path / "b.ndjson", *map(json_row, range(1, 11, 2)))
    batches = batches_of(begin(FileSource(tmp_path)))
    write(tmp_path / "b.ndjson", *map(json_row, range(1, 19, 2)))
    with pytest.raises(SourceError, match="the files have changed"):
        begin(FileSource(tmp_path), 15, batches[-1].log_at_end)


def test_what_older_state_knows_of_files_is_enough(tmp_path: Path) -> None:
    """Nothing, or a digest of the first record alone."""
    path = write(tmp_path / "a.csv", HEADER, row(0), row(1))
    for log in (ONLY_LOG, Log(hashlib.sha256(row(0).encode()).hexdigest()[:32])):
        begin(FileSource(path), 1, log)
    with pytest.raises(SourceError, match="these are other files"):
        begin(FileSource(path), 1, Log(hashlib.sha256(row(1).encode()).hexdigest()[:32]))


def test_a_replay_that_is_kept_refuses_files_that_have_changed(tmp_path: Path) -> None:
    """The state remembers the record before the next one, and goes on where there are more behind it."""
    path = write(tmp_path / "a.csv", HEADER, *map(row, range(10)))

    def replay() -> float | None:
        made = build(rig.config(tmp_path), FileSource(path), StreamClock(), Observer())
        made.run()
        return made.parts.observer.registry.get_sample_value("dwcp_records_total", {"outcome": "accepted"})

    assert replay() == 10
    write(path, HEADER, *map(row, range(12)))
    assert replay() == 2
    write(path, HEADER, *map(row, sorted([0.5, *range(15)])))
    with pytest.raises(SourceError, match="the files have changed"):
        replay()


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    """Reading the missing part of a mapped file would kill the process."""
    path = write(tmp_path / "a.csv", HEADER, *[row(second) for second in range(1000)])
    source = begin(FileSource(path, max_records=10))
    assert source.poll(0).batches
    os.truncate(path, 100)
    with pytest.raises(SourceError, match="has become shorter"):
        source.poll(0)


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def test_records_come_at_the_pace_they_were_recorded(tmp_path: Path) -> None:
    """Ten times faster here: a minute takes 6 seconds, and a poll waits no longer than it may."""
    path = write(tmp_path / "a.csv", HEADER, *[row(second) for second in (0, 0, 60, 61, 90)])
    fake = FakeTime()
    source = begin(FileSource(path, 10, clock=fake, sleep=fake.sleep))
    came: list[tuple[float, int]] = []
    while not (polled := source.poll(4)).ended:
        came.append((round(fake.now_s - 1000, 6), sum(map(len, polled.batches))))
    assert came == [(0, 2), (4, 0), (6, 1), (6.1, 1), (9, 1)]


def test_the_pace_starts_where_a_replay_goes_on(tmp_path: Path) -> None:
    """There is no wait for all that was replayed before."""
    fake = FakeTime()
    source = begin(FileSource(write(tmp_path / "a.csv", HEADER, row(0), row(3600), row(3601)), 1, clock=fake, sleep=fake.sleep), 1)
    assert [len(batch) for batch in source.poll(5).batches] == [1]
    assert fake.slept == []
    fake.now_s += 100  # the caller was busy: what has become due meanwhile comes at once
    assert [len(batch) for batch in source.poll(5).batches] == [1]
    assert fake.slept == []


def test_a_seek_starts_the_pace_anew(tmp_path: Path) -> None:
    """A record that was replayed once is not due at once the second time."""
    fake = FakeTime()
    source = begin(FileSource(write(tmp_path / "a.csv", HEADER, row(0), row(10)), 1, clock=fake, sleep=fake.sleep))
    fake.now_s += 10
    assert [len(batch) for batch in source.poll(0).batches] == [1]
    fake.now_s += 10
    assert [len(batch) for batch in source.poll(0).batches] == [1]
    source.seek(source.partition, 0)
    assert [len(batch) for batch in source.poll(0).batches] == [1]


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_comes_exactly_once(tmp_path: Path, lines: list[bytes], block_bytes: int) -> None:
    """This holds for any bytes and any ends of the blocks of the first pass, in both forms."""
    content = b"\n".join(lines)
    plain = content.split(b"\n")
    expected = {number: line.removesuffix(b"\r") for number, line in enumerate(plain, start=2) if line.removesuffix(b"\r")}
    for name, first in (("a.csv", HEADER), ("a.ndjson", json_row(0))):
        (tmp_path / name).write_bytes(first.encode() + b"\n" + content)
        with mock.patch.object(file_index, "BLOCK_BYTES", block_bytes):
            records = records_of(tmp_path / name)
        found = {line: value for _, value, (_, line) in records if line > 1}
        assert found == expected
        assert [offset for offset, _, _ in records] == list(range(len(records)))


def test_a_pipe_is_read_in_its_own_order(pipe: tuple[int, int]) -> None:
    """Records come as they arrive, a line only when it is whole or the pipe has closed."""
    reading, writing = pipe
    source = begin(FileSource("-", standard_input=reading))
    assert source.partition == Partition("stdin", 0)
    assert source.lag() is None
    assert not source.poll(0).batches
    os.write(writing, f"{HEADER}\r\n{row(9)}\r\n\r\n{row(1)}\r\n{row(2)[:7]}".encode())
    (batch,) = source.poll(1).batches
    assert (batch.form, batch.columns, list(batch.offsets)) == ("csv", tuple(HEADER.split(",")), [0, 1])
    assert batch.values == [row(9).encode(), row(1).encode()]
    assert batch.lines == [("standard input", 2), ("standard input", 4)]
    assert not source.poll(0).batches
    os.write(writing, row(2)[7:].encode())
    assert not source.poll(0).batches
    os.close(writing)
    (batch,) = source.poll(1).batches
    assert (list(batch.offsets), batch.values, batch.lines) == ([2], [row(2).encode()], [("standard input", 5)])
    assert source.poll(1).ended


def test_a_file_does_not_go_on_where_a_pipe_was_left(pipe: tuple[int, int], tmp_path: Path) -> None:
    """Even one that is called stdin; another pipe does, for nobody can tell which one it is."""
    reading, writing = pipe
    os.write(writing, json_row(0).encode() + b"\n")
    (batch,) = begin(FileSource("-", standard_input=reading)).poll(1).batches
    path = write(tmp_path / "stdin", json_row(0), json_row(1))
    with pytest.raises(SourceError, match="these are other files"):
        begin(FileSource(path), 1, batch.log_at_end)
    os.write(writing, json_row(1).encode() + b"\n")
    (batch,) = begin(FileSource("-", standard_input=reading), 7, batch.log_at_end).poll(1).batches
    assert list(batch.offsets) == [7]
    os.close(writing)


def test_a_pipe_of_json_is_recognised_and_given_in_pieces(pipe: tuple[int, int]) -> None:
    """It is read from its first byte, at most max_records at a time, and numbered from the offset that was sought."""
    reading, writing = pipe
    os.write(writing, b"\n" + "\n".join(json_row(second) for second in range(5)).encode())
    os.close(writing)
    source = begin(FileSource("-", max_records=2, standard_input=reading), 40)
    batches = batches_of(source)
    assert [list(batch.offsets) for batch in batches] == [[40, 41], [42, 43], [44]]
    assert {batch.form for batch in batches} == {"json"}
    assert sum(len(decode(batch, None).batch) for batch in batches) == 5


def test_a_pipe_can_be_paced(pipe: tuple[int, int]) -> None:
    """Records are due at the running maximum of their times: a late one at once, one without a time with its predecessor."""
    reading, writing = pipe
    lines = ["{}", json_row(0), json_row(10), json_row(5), "{}", json_row(20)]
    os.write(writing, "\n".join(lines).encode())
    os.close(writing)
    fake = FakeTime()
    source = begin(FileSource("-", 1, clock=fake, sleep=fake.sleep, standard_input=reading))
    came = []
    while not (polled := source.poll(60)).ended:
        came.append((fake.now_s - 1000, sum(map(len, polled.batches))))
    assert came == [(0, 1), (0, 1), (10, 3), (20, 1)]


def test_the_times_of_a_pipe_ascend_over_its_reads(pipe: tuple[int, int]) -> None:
    """A record without a time has its predecessor's, a late one the latest before it."""
    reading, writing = pipe
    records = StandardInput(reading)
    for text in ("{}\n" + json_row(0) + "\n" + json_row(10) + "\n", json_row(5) + "\n{}\n" + json_row(20) + "\n" + json_row(15) + "\n"):
        os.write(writing, text.encode())
        records.fill(100, 0)
    os.close(writing)
    assert (records.times(100) - T0).tolist() == [-float("inf"), 0, 10, 10, 10, 20, 20]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"hello\n", "neither with a JSON object nor with a CSV header"), (b"\xff\n", "not a CSV header in UTF-8")],
)
def test_a_pipe_of_something_else_is_refused(pipe: tuple[int, int], content: bytes, complaint: str) -> None:
    """It is refused as soon as its first line is there."""
    reading, writing = pipe
    os.write(writing, content)
    os.close(writing)
    source = begin(FileSource("-", standard_input=reading))
    with pytest.raises(SourceError, match=complaint):
        source.poll(1)


def test_an_endless_line_in_a_pipe_is_refused(pipe: tuple[int, int]) -> None:
    """Before it has filled the memory."""
    reading, writing = pipe
    os.write(writing, json_row(0).encode() + b"\n" + b"x" * 1000)
    source = begin(FileSource("-", standard_input=reading))
    with mock.patch("streams.files.standard_input.LONGEST_LINE_BYTES", 3000):
        assert source.poll(1).batches
        os.write(writing, b"x" * 2500)
        with pytest.raises(SourceError, match="standard input, line 2: longer than"):
            source.poll(1)
    os.close(writing)


def test_an_empty_pipe_ends(pipe: tuple[int, int]) -> None:
    """A filter before it may have let nothing through."""
    os.close(pipe[1])
    assert batches_of(begin(FileSource("-", standard_input=pipe[0]))) == []


def test_a_closed_standard_input_is_refused() -> None:
    """A service has none."""
    reading, writing = os.pipe()
    os.close(writing)
    source = begin(FileSource("-", standard_input=reading))
    os.close(reading)
    with pytest.raises(SourceError, match="standard input cannot be read"):
        source.poll(0)


@pytest.mark.parametrize(("name", "where"), [("full", "into "), ("missing", "cannot be unpacked")])
def test_no_room_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str) -> None:
    """The message names the temporary folder, not the recording, which can be read. One that is not packed needs no room at all."""
    packed, plain = tmp_path / "a.csv.gz", tmp_path / "a.csv"
    plain.write_text(f"{HEADER}\n{row(1)}\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    class Full:
        def write(self, _block: bytes) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    def missing() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", Full if name == "full" else missing)
    with pytest.raises(SourceError, match="set TMPDIR to a folder with room") as found:
        FileSource(packed)
    assert where in str(found.value)
    FileSource(plain).close()
