"""Times of records that are not decoded yet: what orders the records of a file, and paces a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import msgspec
import numpy as np

from features.columns import EARLIEST_S, LATEST_S
from features.telemetry import Doubles
from streams.records.csv_form import AwareTime, MalformedError, parse_time, split_line


class _Stamp(msgspec.Struct, gc=False):
    """The timestamp of a JSON record."""

    timestamp: float | AwareTime | None = None


_decode_stamp = msgspec.json.Decoder(_Stamp).decode


def read_times(lines: Sequence[bytes], columns: tuple[str, ...]) -> Doubles:
    """Return the times of N records, float64 (N,), UTC seconds, NaN if not readable.

    Args:
        lines: N records.
        columns: The CSV header, empty for JSON.
    """
    try:
        if columns:
            index = columns.index("timestamp")
            if any(b'"' in line for line in lines):
                raise ValueError("a comma within quotes does not end a cell")
            times = [float(line.split(b",", index + 1)[index]) for line in lines]
        else:
            times = [stamp.timestamp for stamp in map(_decode_stamp, lines)]  # type: ignore[misc]
        found = np.array(times, dtype=np.float64)
    except (ValueError, TypeError, IndexError, RecursionError):
        found = np.array([_one_time(line, columns) for line in lines])
    found[~((found >= EARLIEST_S) & (found <= LATEST_S))] = nan
    return found


def _one_time(line: bytes, columns: tuple[str, ...]) -> float:
    try:
        if columns:
            return parse_time(split_line(line, len(columns))[columns.index("timestamp")])
        stamp = _decode_stamp(line).timestamp
        return nan if stamp is None else stamp if isinstance(stamp, float) else stamp.timestamp()
    except (ValueError, RecursionError, MalformedError):
        return nan
