"""Telemetry that comes through a pipe: records in the order they arrive."""

from __future__ import annotations

import os
import select
import time
from typing import Final, Literal

import numpy as np

from features.telemetry import Doubles, Partition
from streams.files.index import LONGEST_LINE_BYTES, POLL_BYTES, within_poll
from streams.files.times import read_times
from streams.records.csv_form import read_header
from streams.source import ONLY_LOG, Log, RawBatch, SourceError

_READ_BYTES: Final = 1 << 20
_NAME: Final = "standard input"
_LOG: Final = Log(topic_id=_NAME)
"""The log of a pipe. It differs from that of any file, so that a file is not continued at the offset of a pipe."""


class StandardInput:
    """Lines of a pipe, read ahead only as far as they are asked for. The first line shows the form: `{` is JSON, all else a CSV header.

    Args:
        descriptor: Of the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest: list[bytes] = []  # parts of a line whose end has not come yet
        self._next = 0
        self._records: list[bytes] = []
        self._lines: list[tuple[str, int]] = []
        self._times: list[float] = []
        self._bytes = 0  # of the records that wait here
        self._last: tuple[list[bytes], list[tuple[str, int]], list[float]] = ([], [], [])  # result of the last call
        self._lines_read = 0
        self._last_s = -np.inf
        self._form: Literal["json", "csv"] | None = None
        self._columns: tuple[str, ...] = ()
        self._at_end = False

    def seek(self, offset: int, log: Log = ONLY_LOG) -> None:  # noqa: ARG002 - a pipe cannot be identified
        """Number the next records from `offset` on. A pipe cannot be rewound, except for the records of the last call."""
        records, lines, times = self._last
        if 0 < (back := self._next - offset) <= len(records):
            self._records[:0], self._lines[:0], self._times[:0] = records[-back:], lines[-back:], times[-back:]
            self._bytes += sum(map(len, records[-back:]))
            self._last = ([], [], [])
        self._next = offset

    def fill(self, count: int, timeout_s: float) -> None:
        """Read until `count` records or POLL_BYTES wait here, the pipe has nothing more for now, or timeout_s passed without a record.

        Raises:
            SourceError: The pipe cannot be read, or a line is too long.
        """
        deadline_s = time.monotonic() + timeout_s
        while len(self._records) < count and self._bytes < POLL_BYTES and not self._at_end:
            wait_s = 0.0 if self._records else max(0.0, deadline_s - time.monotonic())
            try:
                if not select.select([self._descriptor], [], [], wait_s)[0]:
                    return
                received = os.read(self._descriptor, _READ_BYTES)
            except OSError as error:
                raise SourceError(f"{_NAME} cannot be read: {error.strerror}") from error
            self._at_end = not received
            self._append(received)

    def ended(self) -> bool:
        """Return whether the pipe is closed and every record was read."""
        return self._at_end and not self._records

    def remaining(self) -> None:
        """Return None: how much is still to come is unknown."""

    def times(self, count: int) -> Doubles:
        """Return the times of the next records, at most `count` of them: float64, ascending, UTC seconds; an unknown one repeats."""
        return np.array(self._times[:count])

    def next_batches(self, partition: Partition, count: int) -> list[RawBatch]:
        """Return the next `count` records, or the first of them up to POLL_BYTES."""
        count = within_poll(np.array([len(record) for record in self._records[:count]], np.int64))
        values, lines = self._records[:count], self._lines[:count]
        self._last = (values, lines, self._times[:count])
        self._bytes -= sum(map(len, values))
        del self._records[:count], self._lines[:count], self._times[:count]
        offsets = range(self._next, self._next + len(values))
        self._next += len(values)
        return [RawBatch(partition, offsets, values, self._form or "json", self._columns, lines, _LOG)]

    def close(self) -> None:
        """Leave the descriptor open: it belongs to the process."""

    def _append(self, received: bytes) -> None:
        """Split the bytes so far into whole lines. At the end of the input, a last line without a newline is one as well."""
        self._rest.append(received)
        if b"\n" not in received and received:
            if sum(map(len, self._rest)) > LONGEST_LINE_BYTES:
                raise SourceError(
                    f"{_NAME}, line {self._lines_read + 1}: longer than {LONGEST_LINE_BYTES >> 20} MiB, so it is not telemetry"
                )
            return
        *lines, rest = b"".join(self._rest).split(b"\n")
        if not received and rest:
            lines, rest = [rest], b""
        self._rest = [rest]
        records, numbers = [], []
        for number, line in enumerate(lines, start=self._lines_read + 1):
            record = line.removesuffix(b"\r")
            if self._form is None:
                record = self._recognise(record) if record.strip() else b""
            if record:
                records.append(record)
                numbers.append((_NAME, number))
        self._lines_read += len(lines)
        if records:
            known = np.fmax.accumulate(np.fmax(read_times(records, self._columns), self._last_s))
            self._last_s = float(known[-1])
            self._records += records
            self._bytes += sum(map(len, records))
            self._lines += numbers
            self._times += known.tolist()

    def _recognise(self, first: bytes) -> bytes:
        """Set the form by the first line that is not blank. Return the record in it, empty for a CSV header. Raises SourceError."""
        if first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            self._form = "json"
            return first.removeprefix(b"\xef\xbb\xbf")
        self._columns = read_header(first, f"{_NAME}, which starts neither with a JSON object nor with a CSV header")
        self._form = "csv"
        return b""
