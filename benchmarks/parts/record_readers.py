"""Every reader of telemetry over the same bytes: what each accepts, and what it reads.

A reading is None for a value that is not telemetry. Otherwise it has the UTC seconds, the bytes of the 11 columns NUMERIC as float32, and
the texts of node_id, peer_id and the categories, "" if missing.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, TypeAlias

import numpy as np
import onnxruntime
from kafka import KafkaProducer

from features.calendar import hour_and_weekday
from features.telemetry import CATEGORIES, NUMERIC, Partition
from streams.files.source import FileSource
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.source import KafkaSource
from streams.records.decode import CHUNK_RECORDS, Decoded, decode
from streams.records.validate import as_rows
from streams.source import RawBatch, Source

Reading: TypeAlias = tuple[float, bytes, tuple[str, ...]] | None
Form: TypeAlias = Literal["json", "csv"]

PARTITION: Final = Partition("differential", 0)
GOOD: Final = b'{"timestamp":1767571200,"node_id":"a","peer_id":"b","rtt_ms":20}'
CLIENT: Final = Path(__file__).resolve().parents[2] / "clients" / "go"
_MALFORMED: Final = b"\xff"
_FLUSH: Final = struct.pack("<I", 0xFFFFFFFF)
_HOUR, _WEEKDAY = NUMERIC.index("time_of_day"), NUMERIC.index("day_of_week")
POLL_LIMIT_S: Final = 300.0
"""Seconds without a record from the broker after which it counts as gone."""


class UnavailableError(Exception):
    """A reader cannot run on this machine. The message names what is missing."""


def of_decoded(decoded: Decoded, readings: list[Reading], places: Sequence[int]) -> None:
    """Enter accepted rows into `readings`. places: index in `readings` by offset, -1 for a record of no interest."""
    batch = decoded.batch
    texts = zip(batch.node_id, batch.peer_id, *batch.categories, strict=True)
    for offset, time_s, numeric, row in zip(batch.offsets.tolist(), batch.time_s.tolist(), batch.numeric, texts, strict=True):
        if places[offset] >= 0:
            readings[places[offset]] = (time_s, numeric.tobytes(), tuple(text or "" for text in row))


def by_record(values: Sequence[bytes], form: Form = "json", header: tuple[str, ...] = ()) -> list[Reading]:
    """Read values by the decoder's careful path: each chunk has a value that makes it read record by record."""
    padded: list[bytes] = []
    places: list[int] = []
    for start in range(0, len(values), CHUNK_RECORDS - 1):
        part = values[start : start + CHUNK_RECORDS - 1]
        padded += [_MALFORMED, *part]
        places += [-1, *range(start, start + len(part))]
    readings: list[Reading] = [None] * len(values)
    of_decoded(decode(RawBatch(PARTITION, range(len(padded)), padded, form, header), None), readings, places)
    return readings


def alone(values: Sequence[bytes], form: Form = "json", header: tuple[str, ...] = ()) -> list[Reading]:
    """Read each value as a batch of its own: the decoder's fast path, if it applies."""
    readings: list[Reading] = [None] * len(values)
    for index, value in enumerate(values):
        of_decoded(decode(RawBatch(PARTITION, [0], [value], form, header), None), readings, [index])
    return readings


def together(values: Sequence[bytes], form: Form = "json", header: tuple[str, ...] = ()) -> list[Reading]:
    """Read good values in one batch: the decoder's fast path over whole chunks."""
    readings: list[Reading] = [None] * len(values)
    of_decoded(decode(RawBatch(PARTITION, range(len(values)), list(values), form, header), None), readings, range(len(values)))
    return readings


def by_file(values: Sequence[bytes], path: Path, header: tuple[str, ...] = (), line_end: bytes = b"\n") -> list[Reading]:
    """Read values as the lines of a file. None has a newline."""
    form: Form = "csv" if header else "json"
    first = ",".join(header).encode() if header else GOOD
    path.write_bytes(line_end.join([first, *values, b""]))
    return _by_lines(FileSource(path), len(values), form)


def by_pipe(values: Sequence[bytes], header: tuple[str, ...] = (), line_end: bytes = b"\n") -> list[Reading]:
    """Read values as lines through a pipe."""
    first = ",".join(header).encode() if header else GOOD
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as pipe:  # noqa: PTH123 - a descriptor has no path
            pipe.write(line_end.join([first, *values, b""]))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        return _by_lines(FileSource("-", standard_input=reading), len(values), "csv" if header else "json")
    finally:
        os.close(reading)
        writer.join()


def _by_lines(source: Source, count: int, form: Form) -> list[Reading]:
    """Readings of a finite source by line. The first line is the header or a good record."""
    readings: list[Reading] = [None] * count
    (partition,) = source.poll(0.0).assigned
    source.seek(partition, 0)
    while not (polled := source.poll(1.0)).ended:
        for raw in polled.batches:
            assert raw.form == form
            assert raw.lines is not None
            relative = RawBatch(partition, range(len(raw)), raw.values, raw.form, raw.columns, raw.lines)
            of_decoded(decode(relative, None), readings, [number - 2 if number > 1 else -1 for _, number in raw.lines])
    source.close()
    return readings


class ByKafka:
    """Values as records of a topic of Apache Kafka, through the daemon's own source. topic: a new one of one partition."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type="lz4", linger_ms=20, max_request_size=8 << 20)
        self._topic = topic
        self._source = KafkaSource(topic, f"differential.{uuid.uuid4().hex}", KafkaOptions((bootstrap,)), lambda *_: None)
        self._next = 0

    def __call__(self, values: Sequence[bytes]) -> list[Reading]:
        for value in values:
            self._producer.send(self._topic, value=value, partition=0)
        self._producer.flush()
        readings: list[Reading] = [None] * len(values)
        first, waited_s = self._next, 0.0
        while self._next < first + len(values):
            polled = self._source.poll(1.0)
            for partition in polled.assigned:
                self._source.seek(partition, self._next)
            for raw in polled.batches:
                relative = RawBatch(raw.partition, range(len(raw)), raw.values)
                places = [offset - first for offset in raw.offsets]
                of_decoded(decode(relative, None), readings, places)
                self._next = raw.offsets[-1] + 1
            waited_s = 0.0 if polled.batches else waited_s + 1.0
            if waited_s > POLL_LIMIT_S:
                raise RuntimeError(f"no record came from the broker: {self._source.troubles()}")
        return readings

    def close(self) -> None:
        self._producer.close()
        self._source.close()


class ByGo:
    """Values through the Go client: its test binary as a program (clients/go/readings_test.go)."""

    def __init__(self, binary: Path) -> None:
        libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
        environment = os.environ | {"CLIENT_READINGS": "1", "ONNXRUNTIME_LIBRARY": str(libraries[-1])}
        self._process = subprocess.Popen([binary], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, values: Sequence[bytes]) -> list[Reading]:
        writer = threading.Thread(target=self._write, args=(values,), daemon=True)
        writer.start()
        assert self._process.stdout is not None
        readings = [_answer(self._process.stdout) for _ in values]
        writer.join()
        return readings

    def _write(self, values: Iterable[bytes]) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        for value in values:
            pipe.write(struct.pack("<I", len(value)) + value)
        pipe.write(_FLUSH)
        pipe.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _answer(pipe: IO[bytes]) -> Reading:
    """One answer. Hour and weekday, which the client leaves to the graph, are those of the time if they are missing."""

    def exactly(size: int) -> bytes:
        content = pipe.read(size)
        if len(content) < size:
            raise RuntimeError("the Go client has ended")
        return content

    if exactly(1) == b"\x00":
        return None
    (time_s,) = struct.unpack("<d", exactly(8))
    numeric = np.frombuffer(exactly(4 * len(NUMERIC)), np.float32).astype(np.float64)
    texts = tuple(exactly(struct.unpack("<I", exactly(4))[0]).decode() for _ in range(2 + len(CATEGORIES)))
    for column, value in zip((_HOUR, _WEEKDAY), hour_and_weekday(np.array([time_s])), strict=True):
        numeric[column] = value[0] if np.isnan(numeric[column]) else numeric[column]
    return time_s, as_rows(numeric[:, None]).tobytes(), texts


def build_go(folder: Path) -> Path:
    """Build the Go client's test binary. Raises UnavailableError if Go or a C compiler is missing."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None or shutil.which(os.environ.get("CC", "gcc")) is None:
        raise UnavailableError("Go (https://go.dev/dl) or a C compiler (gcc) is not here, which the Go client needs")
    binary = folder / "client.test"
    environment = os.environ | {"CGO_ENABLED": "1", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOWORK": "off"}
    subprocess.run([go, "test", "-c", "-o", str(binary), "."], cwd=CLIENT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return binary


class Closing:
    """Opened objects that are closed in any case."""

    def __init__(self, *opened: Any) -> None:
        self._opened = opened

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in self._opened:
            one.close()


Readers: TypeAlias = dict[str, Callable[[Sequence[bytes]], list[Reading]]]
