"""Dead letters and the NDJSON sink: nothing is lost, torn or doubled."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.clock import WallClock
from daemon.config.load import Config
from daemon.operator.observer import Observer
from daemon.wiring import make_sinks
from features.telemetry import Partition
from streams.events import Event
from streams.fan_out import FanOutSink
from streams.files.sink import NdjsonSink, rotated
from streams.records.dead_letters import MAX_KEPT_BYTES, TYPE, dead_letter
from streams.records.decode import Rejected
from testkit.paths import ROOT

PARTITION = Partition("dwcp.telemetry", 3)


def event(number: int, size: int = 0) -> Event:
    return Event(str(number), "test", "here", "subject", 1_700_000_000.0, {"number": number, "filling": "x" * size})


def written(path: Path) -> list[int]:
    """The numbers of the events in a file, every line of which has to be whole."""
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line)["data"]["number"] for line in content.splitlines()]


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """The kernel refuses to make a file longer than `size`: a write stops in the middle of a line, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("value", [b"", b"\xff\x00 not JSON", b"x" * MAX_KEPT_BYTES])
def test_a_dead_letter_holds_the_original_bytes_and_where_they_came_from(value: bytes) -> None:
    """Whole, the reason, and the coordinates as headers, so that the record can be found and sent again."""
    letter = dead_letter(Rejected(41, value, "not_json", "not JSON: é", ("a.csv", 7)), PARTITION, "/dwcp", 1_700_000_000.5)
    assert letter.data == {
        "topic": "dwcp.telemetry", "partition": 3, "offset": 41, "kind": "not_json", "reason": "not JSON: é", "size_bytes": len(value),
        "value_base64": base64.b64encode(value).decode(), "truncated": False, "file": "a.csv", "line": 7,
    }  # fmt: skip
    assert dict(letter.headers) == {
        "topic": b"dwcp.telemetry", "partition": b"3", "offset": b"41", "kind": b"not_json", "reason": "not JSON: é".encode(),
    }  # fmt: skip
    assert letter.subject == "dwcp.telemetry-3@41"
    envelope = json.loads(letter.encode())
    assert (envelope["type"], envelope["source"], envelope["time"]) == (TYPE, "/dwcp", "2023-11-14T22:13:20.500000Z")
    assert envelope["data"] == letter.data


def test_a_tombstone_has_no_bytes() -> None:
    """Which is not the same as an empty value."""
    data = dead_letter(Rejected(1, None, "tombstone", "the value is null"), PARTITION, "/dwcp", 0).data
    assert (data["value_base64"], data["size_bytes"], data["truncated"]) == (None, None, False)


def test_a_value_too_large_for_the_broker_keeps_its_start_and_its_fingerprint() -> None:
    """The message stays under the broker's megabyte, and the whole can be recognised."""
    value = os.urandom(MAX_KEPT_BYTES + 1)
    letter = dead_letter(Rejected(1, value, "too_large", "x"), PARTITION, "/dwcp", 0)
    assert base64.b64decode(letter.data["value_base64"]) == value[:MAX_KEPT_BYTES]
    assert letter.data["truncated"] is True
    assert letter.data["size_bytes"] == len(value)
    assert letter.data["sha256"] == hashlib.sha256(value).hexdigest()
    assert len(letter.encode()) < 1_000_000


def test_a_replay_gives_a_dead_letter_the_same_id() -> None:
    """Another record has another id, so that a subscriber can drop repeats."""
    ids = {
        dead_letter(Rejected(offset, value, "not_json", "x"), Partition(topic, number), "/dwcp", time_s).id
        for topic, number, offset in [("a", 1, 11), ("a", 11, 1), ("b", 1, 11)]
        for value, time_s in [(b"1", 1.0), (b"2", 2.0)]
    }
    assert len(ids) == 3


def test_events_are_in_the_file_after_a_flush(tmp_path: Path) -> None:
    """Events are not in the file before a flush; then they are in order, behind what was there."""
    path = tmp_path / "events.ndjson"
    sink = NdjsonSink(path)
    sink.send(event(1))
    sink.send(event(2))
    assert (sink.pending(), written(path)) == (2, [])
    sink.flush(1)
    assert (sink.pending(), written(path)) == (0, [1, 2])
    sink.flush(1)
    sink.close()
    sink = NdjsonSink(path)
    sink.send(event(3))
    sink.flush(1)
    sink.close()
    assert written(path) == [1, 2, 3]


@pytest.mark.parametrize("room", [0, 1, 100, 4096, 5000])
def test_a_full_disk_costs_nothing(tmp_path: Path, room: int) -> None:
    """Flush says so, the events stay queued, the file has no torn line, and once there is room each event is there once."""
    path = tmp_path / "events.ndjson"
    sink = NdjsonSink(path)
    sink.send(event(1))
    sink.flush(1)
    size = path.stat().st_size
    for number in range(2, 6):
        sink.send(event(number, size=2000))
    with disk_with_room_for(size + room):
        for _ in range(2):
            with pytest.raises(OSError, match=r"4 events could not be written and stay queued.*events\.ndjson") as error:
                sink.flush(1)
            assert error.value.errno == errno.EFBIG
            assert (sink.pending(), written(path)) == (4, [1])
    sink.send(event(6))
    sink.flush(1)
    sink.close()
    assert written(path) == [1, 2, 3, 4, 5, 6]


def test_a_full_file_makes_room_for_a_new_one(tmp_path: Path) -> None:
    """The one before is kept under another name, and the one before that goes; an event is never in two parts."""
    path = tmp_path / "events.ndjson"
    sink = NdjsonSink(path, bytes_max=1000)
    for number in range(1, 8):
        sink.send(event(number, size=600))
        sink.flush(1)
    assert (written(rotated(path)), written(path)) == ([5, 6], [7])
    with pytest.raises(BlockingIOError, match="another process"):
        NdjsonSink(path)
    sink.close()
    assert path.with_name("events.1.ndjson") == rotated(path)


def test_a_new_file_that_cannot_be_made_costs_nothing(tmp_path: Path) -> None:
    """The events wait, the full file stays what it is, and once there is room they are in the new one."""
    path = tmp_path / "events.ndjson"
    sink = NdjsonSink(path, bytes_max=100)
    sink.send(event(1, size=600))
    sink.flush(1)
    sink.send(event(2))
    with mock.patch("os.open", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                sink.flush(1)
    assert (sink.pending(), written(rotated(path))) == (1, [1])
    sink.flush(1)
    sink.close()
    assert (written(rotated(path)), written(path)) == ([1], [2])


STEPS = ("streams.files.sink._sync_folder", "streams.files.sink.fcntl.flock", "streams.files.sink.os.open")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_after_the_rename_that_fails_costs_no_event(tmp_path: Path, step: str) -> None:
    """The full file keeps its other name over many tries, no descriptor is left open, and the rotation is reported once."""
    path, reported = tmp_path / "events.ndjson", []
    sink = NdjsonSink(path, 100, lambda *rotation: reported.append(rotation))
    for number in range(1, 4):
        sink.send(event(number, size=600))
        sink.flush(1)
    assert (written(rotated(path)), written(path)) == ([2], [3])
    sink.send(event(4))
    descriptors, size = len(list(Path("/proc/self/fd").iterdir())), rotated(path).stat().st_size
    with mock.patch(step, side_effect=OSError(errno.EIO, "Input/output error")):
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                sink.flush(1)
            assert (sink.pending(), written(rotated(path))) == (1, [3])
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    sink.flush(1)
    sink.close()
    assert (written(rotated(path)), written(path)) == ([3], [4])
    assert reported == [(path, 0), (path, size), (path, size)]


def test_the_daemon_tells_what_a_rotation_has_cost(tmp_path: Path) -> None:
    """An operator learns that the oldest events are gone: logged, and counted in dwcp_events_total."""
    reported: list[tuple[str, dict[str, Any]]] = []
    observer = Observer(lambda name, fields: reported.append((name, fields)))
    config = Config.model_validate({"events": {"to": "file", "folder": tmp_path, "file_mb_max": 1}})
    sinks = make_sinks(config, observer, WallClock())
    for number in range(3):
        sinks.alerts.send(event(number, size=1 << 20))
        sinks.flush()
    sinks.close_with(lambda: None)
    path = tmp_path / "drift.ndjson"
    assert reported == [("events_rotated", {"file": str(path), "gone_bytes": gone}) for gone in (0, rotated(path).stat().st_size)]
    assert observer.registry.get_sample_value("dwcp_events_total", {"event": "events_rotated"}) == 2


@pytest.mark.parametrize("bytes_max", [100, 10_000])
@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_file_that_somebody_else_takes_away_is_begun_anew(tmp_path: Path, how: str, bytes_max: int) -> None:
    """After a move by hand or by logrotate, the next events are under the old name, and the moved file is not moved again."""
    path, elsewhere = tmp_path / "events.ndjson", tmp_path / "elsewhere"
    sink = NdjsonSink(path, bytes_max)
    sink.send(event(1, size=600))
    sink.flush(1)
    path.rename(elsewhere)
    if how == "removed":
        elsewhere.unlink()
    if how == "replaced":
        path.write_bytes(b'{"data":{"number":7}}\n{"data":{"num')
    sink.send(event(2))
    sink.flush(1)
    with pytest.raises(BlockingIOError, match="another process"):
        NdjsonSink(path)
    sink.close()
    assert written(path) == ([7, 2] if how == "replaced" else [2])
    assert how == "removed" or written(elsewhere) == [1]
    assert not rotated(path).exists()


def test_a_foreign_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """The events wait until it is gone."""
    path = tmp_path / "events.ndjson"
    sink = NdjsonSink(path)
    path.unlink()
    path.write_text("dear diary")
    sink.send(event(1))
    for _ in range(2):
        with pytest.raises(OSError, match="holds something else: move it away"):
            sink.flush(1)
    assert (path.read_text(), sink.pending()) == ("dear diary", 1)
    path.unlink()
    sink.flush(1)
    sink.close()
    assert written(path) == [1]


def test_many_events_are_written_in_pieces_and_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second copy of everything that has waited; a piece that does not go takes back those before it."""
    monkeypatch.setattr("streams.files.sink.WRITE_BYTES", 3000)
    sink = NdjsonSink(tmp_path / "events.ndjson")
    for number in range(9):
        sink.send(event(number, size=900))
    sizes: list[int] = []
    real, left = os.write, iter([True, True, False])

    def write(descriptor: int, content: memoryview) -> int:
        sizes.append(len(content))
        if not next(left, True):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr("streams.files.sink.os.write", write)
    with pytest.raises(OSError, match="9 events could not be written and stay queued: No space"):
        sink.flush(1)
    assert (written(sink.path), sink.pending()) == ([], 9)
    sink.flush(1)
    sink.close()
    assert written(sink.path) == list(range(9))
    assert max(sizes) < 4500


def test_a_write_that_the_disk_did_not_confirm_is_done_again(tmp_path: Path) -> None:
    """After a failed fsync nobody knows what is on the disk: the lines are taken back and written anew, even if that failed at first."""
    path = tmp_path / "events.ndjson"
    sink = NdjsonSink(path)
    sink.send(event(1))
    failing = OSError(errno.EIO, "Input/output error")
    with (
        mock.patch("os.fsync", side_effect=failing),
        mock.patch("os.ftruncate", side_effect=failing),
        pytest.raises(OSError, match="stay queued"),
    ):
        sink.flush(1)
    assert written(path) == [1]  # could not be taken back yet
    sink.send(event(2))
    sink.flush(1)
    sink.close()
    assert written(path) == [1, 2]


def test_what_is_sent_during_a_flush_waits_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint's thread flushes while the loop's thread sends: nothing falls in between."""
    sink, real = NdjsonSink(tmp_path / "events.ndjson"), os.write
    sink.send(event(1))

    def write(descriptor: int, content: bytes) -> int:
        sink.send(event(2))
        return real(descriptor, content)

    with monkeypatch.context() as patch:
        patch.setattr("streams.files.sink.os.write", write)
        sink.flush(1)
    assert (written(sink.path), sink.pending()) == ([1], 1)
    sink.flush(1)
    assert (written(sink.path), sink.pending()) == ([1, 2], 0)
    sink.close()


@given(st.lists(st.sampled_from(["send", "flush", "full", "unconfirmed"]), max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_event_is_written_once_in_order(tmp_path: Path, steps: list[str]) -> None:
    """This holds for any failure in between."""
    path = tmp_path / "events.ndjson"
    path.unlink(missing_ok=True)
    sink = NdjsonSink(path)
    sent = durable = 0
    for step in steps:
        if step == "send":
            sink.send(event(sent))
            sent += 1
        elif step == "flush":
            sink.flush(1)
            durable = sent
        elif sent > durable:
            broken = disk_with_room_for(path.stat().st_size + 50) if step == "full" else mock.patch("os.fsync", side_effect=OSError(5, "x"))
            with broken, pytest.raises(OSError, match="stay queued"):
                sink.flush(1)
        assert written(path) == list(range(durable))
    sink.flush(1)
    sink.close()
    assert written(path) == list(range(sent))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", [9]),
        (b'{"data":{"number":1}}\n', [1, 9]),
        (b'{"data":{"number":1}}\n{"data":{"num', [1, 9]),
        (b'{"data":{"number":1}}\n{"data":{"number":2}}', [1, 2, 9]),
        (b'{"data":{"num', [9]),
        (b'{"data":{"number":1}}\n' + bytes(5000), [1, 9]),
        (bytes(5000), [9]),
        (b'{"data":{"number":1}}\n{"data":{"filling":"' + b"x" * 200_000, [1, 9]),
        (b'{"data":{"number":1}}\n{"\xff', [1, 9]),
    ],
    ids=["empty", "whole", "torn", "without newline", "only torn", "zeros", "only zeros", "long and torn", "no UTF-8"],
)
def test_a_line_cut_off_by_a_crash_is_repaired(tmp_path: Path, content: bytes, expected: list[int]) -> None:
    """A line that was never reported as durable is removed, whole lines stay, and the next event begins a new line."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(content)
    sink = NdjsonSink(path)
    sink.send(event(9))
    sink.flush(1)
    sink.close()
    assert written(path) == expected


def test_a_process_killed_while_writing_leaves_whole_lines_to_the_next(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    """kill -9 at any moment: what the process had reported as flushed is there, once, and the file goes on."""
    path = tmp_path / "events.ndjson"
    program = (
        "import sys, pathlib; from streams.events import Event; from streams.files.sink import NdjsonSink\n"
        "sink = NdjsonSink(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    sink.send(Event(str(number), 't', 's', 's', 0.0, {'number': number, 'filling': 'x' * 5000}))\n"
        "    if number % 7 == 6: sink.flush(1); print(number, flush=True)\n"
    )
    process = spawn([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    reported = [int(process.stdout.readline()) for _ in range(20)]
    process.kill()
    reported += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    NdjsonSink(path).close()
    numbers = written(path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > reported[-1]


def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    """A wrong path in the configuration must not cost a line of somebody's file."""
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(ValueError, match="does not hold events: name another file"):
        NdjsonSink(path)
    assert path.read_text() == "dear diary"


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    """They would cut off each other's lines; once the first has closed it, the file is free."""
    path = tmp_path / "events.ndjson"
    first = NdjsonSink(path)
    with pytest.raises(BlockingIOError, match="another process writes events to this file"):
        NdjsonSink(path)
    first.close()
    NdjsonSink(path).close()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The operator sees which path is wrong."""
    with pytest.raises(FileNotFoundError, match="absent/events"):
        NdjsonSink(tmp_path / "absent" / "events.ndjson")


def test_fan_out_gives_every_event_to_every_sink(tmp_path: Path) -> None:
    """Both hold the same after a flush."""
    sinks = [NdjsonSink(tmp_path / name) for name in ("a", "b")]
    both = FanOutSink(sinks)
    both.send(event(1))
    both.send(event(2))
    both.flush(1)
    both.close()
    assert written(tmp_path / "a") == written(tmp_path / "b") == [1, 2]


class AwaySink:
    """A broker that is away until `back` is set."""

    def __init__(self) -> None:
        self.back = False
        self.queued: list[Any] = []
        self.delivered: list[Any] = []
        self.timeouts_s: list[float] = []
        self.closed = False

    def send(self, event: Event) -> None:
        self.queued.append(event)

    def flush(self, timeout_s: float) -> None:
        self.timeouts_s.append(timeout_s)
        if not self.back:
            raise TimeoutError("away")
        self.delivered += self.queued
        self.queued.clear()

    def close(self) -> None:
        self.closed = True
        if not self.back:
            raise OSError("away")


def test_a_sink_that_fails_does_not_keep_the_other_from_its_work(tmp_path: Path) -> None:
    """The file gets its events while the broker is away; the next flush repeats nothing that has been written."""
    away = AwaySink()
    both = FanOutSink([away, NdjsonSink(tmp_path / "a")])
    both.send(event(1))
    for _ in range(2):
        with pytest.raises(TimeoutError, match="away"):
            both.flush(5)
        assert written(tmp_path / "a") == [1]
    away.back = True
    both.flush(5)
    assert [event.id for event in away.delivered] == ["1"]
    assert all(0 < timeout_s <= 5 for timeout_s in away.timeouts_s)
    assert written(tmp_path / "a") == [1]
    away.back = False
    with pytest.raises(OSError, match="away"):
        both.close()
    assert away.closed
    NdjsonSink(tmp_path / "a").close()  # free again: it was closed as well
