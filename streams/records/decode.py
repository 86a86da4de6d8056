"""Decode records: undecoded values become columns of valid telemetry, and refused records with the reason.

Values are decoded one by one and never joined into one document: with msgspec's Decoder that is as fast (measured 1.1 us a record both
ways), and no value can extend into its neighbour and shift records onto other offsets.

All readers agree on what a record is (benchmarks/differential.py). It is UTF-8 throughout, also in fields that nobody reads. Names match
letter by letter. If a name comes twice, the last value counts, and only that one is checked. -0 is 0.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import compress
from math import nan
from operator import itemgetter
from typing import Any, Final, cast

import msgspec
import numpy as np

from features.columns import TABLE, Column
from features.telemetry import COLUMNS, KEY_COLUMNS, Doubles, TelemetryBatch
from streams.records.advice import with_cause
from streams.records.csv_form import MAX_VALUE_BYTES, AwareTime, Cell, Cells, MalformedError, parse_csv
from streams.records.validate import NUMBERS, Failure, Kind, Text, as_rows, clean_texts, complete, refuse
from streams.source import RawBatch

CHUNK_RECORDS: Final = 128  # the Python objects of one chunk stay in the processor's cache: 1.8 times faster than 5,000 at once
MAX_DEPTH: Final = 400  # under Python's recursion limit of 1,000, from wherever decode is called
_PLAIN_BYTES: Final = 2 * MAX_DEPTH  # a shorter value cannot be nested deeper than MAX_DEPTH
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # an unclosed one goes to the end: never read twice

_numbers = itemgetter(*(COLUMNS.index(name) for name in NUMBERS))
_TEXT_INDICES: Final = tuple(COLUMNS.index(name) for name in KEY_COLUMNS)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that is not telemetry.

    Args:
        offset: Of the record.
        value: Its bytes; None for a null value.
        kind: Label of the metric that counts it.
        reason: Why it was refused, for a person.
        line: Of a file, its name and the line number.
    """

    offset: int
    value: bytes | None
    kind: Kind
    reason: str
    line: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Every record of a raw batch, once: the valid ones and the refused ones, both in stream order.

    Args:
        batch: The valid records.
        rejected: The refused records.
        of_future: Whether any was refused because its time lies in the future.
    """

    batch: TelemetryBatch
    rejected: list[Rejected]
    of_future: bool = False


def _field(column: Column) -> tuple[str, Any, Any]:
    """Name, JSON type and default of a column: a time or number is NaN if it is missing, a text is None."""
    if column.role == "time":
        return column.name, float | AwareTime | None, nan
    if column.name in KEY_COLUMNS:
        return column.name, str | int | float | None, None
    return column.name, float | None, nan


Record: Final[Any] = msgspec.defstruct("Record", [_field(column) for column in TABLE], gc=False)
"""A record's JSON types. Its fields are COLUMNS, in that order: msgspec guesses that keys come in the order of the fields."""

_decode_record = msgspec.json.Decoder(Record).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_cells_of = cast("Callable[[Any], tuple[Cell, ...]]", msgspec.structs.astuple)


def decode(raw: RawBatch, now_s: float | None) -> Decoded:
    """Decode and check every record of a batch. What becomes of a record depends on that record and now_s alone. Never raises.

    Args:
        raw: N undecoded records.
        now_s: UTC seconds; a timestamp more than MAX_FUTURE_S after it is refused. None: there is no clock, as in a replay.

    Returns:
        The N records, valid or refused.
    """
    parse = partial(parse_csv, header=raw.columns) if raw.form == "csv" else parse_json
    failures: dict[int, Failure] = {}
    numbers = np.empty((len(NUMBERS), len(raw)))
    texts: list[list[Text]] = [[] for _ in KEY_COLUMNS]
    first_seen: list[dict[Text, Text]] = [{} for _ in KEY_COLUMNS]
    filled = 0
    for start in range(0, len(raw), CHUNK_RECORDS):
        columns, malformed = parse(raw.values[start : start + CHUNK_RECORDS])
        failures.update({start + index: failure for index, failure in malformed.items()})
        if not columns or not columns[0]:
            continue
        chunk = _as_doubles(columns)
        numbers[:, filled : filled + chunk.shape[1]] = chunk
        filled += chunk.shape[1]
        for index, column, known in zip(_TEXT_INDICES, texts, first_seen, strict=True):
            # setdefault returns the first of equal strings: one object a link, with its hash already computed.
            column.extend(map(known.setdefault, columns[index], columns[index]))  # type: ignore[arg-type]
    return _checked(raw, now_s, numbers[:, :filled], texts, first_seen, failures)


def _checked(
    raw: RawBatch,
    now_s: float | None,
    numbers: Doubles,
    texts: list[list[Text]],
    first_seen: Sequence[dict[Text, Text]],
    failures: dict[int, Failure],
) -> Decoded:
    """Check the M records that were parsed.

    Args:
        raw: N undecoded records.
        now_s: See `decode`.
        numbers: float64 (len(NUMBERS), M).
        texts: For each of KEY_COLUMNS a list of M texts.
        first_seen: For each of KEY_COLUMNS its different values, as keys.
        failures: Of the other records, by index in `raw`.
    """
    refused = clean_texts(texts, first_seen)
    numeric = complete(numbers)
    refused = refuse(numbers, numeric, texts, now_s) | refused
    offsets = np.asarray(raw.offsets, dtype=np.int64)
    if failures:
        parsed = [index for index in range(len(raw)) if index not in failures]
        failures |= {parsed[row]: failure for row, failure in refused.items()}
        offsets = offsets[parsed]
    else:
        failures = refused
    if refused:
        keep = np.ones(len(offsets), dtype=bool)
        keep[list(refused)] = False
        offsets, numbers, numeric = offsets[keep], numbers[:, keep], numeric[:, keep]
        texts = [list(compress(column, keep.tolist())) for column in texts]
    node_id, peer_id, *categories = cast("list[Any]", texts)
    batch = TelemetryBatch(offsets, numbers[0].copy(), as_rows(numeric), node_id, peer_id, tuple(categories))
    of_future = any(failure.future for failure in failures.values())
    return Decoded(batch, [_rejected(raw, index, failures[index]) for index in sorted(failures)], of_future)


def _rejected(raw: RawBatch, index: int, failure: Failure) -> Rejected:
    line = raw.lines[index] if raw.lines is not None else None
    value = raw.values[index]
    if raw.form == "json" and value is not None:
        failure = with_cause(failure, value)
    return Rejected(int(raw.offsets[index]), value, failure.kind, failure.reason, line)


def _as_doubles(columns: Cells) -> Doubles:
    """Return the rows NUMBERS, float64 (len(NUMBERS), N), NaN if missing."""
    cells = _numbers(columns)
    layout = f"{len(cells[0])}d"
    return np.frombuffer(b"".join([_packed(layout, column) for column in cells])).reshape(len(cells), -1)


def _packed(layout: str, column: Sequence[Cell]) -> bytes:
    """Return float64 (N,) as bytes: three times faster than numpy.array of a list."""
    try:
        return struct.pack(layout, *column)
    except struct.error:  # a null, or a timestamp in RFC 3339
        times = (cell.timestamp() if isinstance(cell, datetime) else cell for cell in column)
        return struct.pack(layout, *(nan if cell is None else cell for cell in times))


def parse_json(values: Sequence[bytes | None]) -> tuple[Cells, dict[int, Failure]]:
    """Parse N JSON values.

    Args:
        values: N values; None is a null.

    Returns:
        The columns of the values that are objects with the right types, and the failures of the others by index.
    """
    try:
        if max(map(len, values)) <= _PLAIN_BYTES:  # type: ignore[arg-type]  # None: TypeError
            _check_utf8(b"\n".join(values))  # type: ignore[arg-type]  # all at once: no character extends over a newline
            # A list of its own: if zip(*map(...), strict=True) raises within the map, CPython 3.11 loses 190 bytes for good.
            cells = list(map(_cells_of, map(_decode_record, values)))  # type: ignore[arg-type]
            return list(zip(*cells, strict=True)), {}
    except (TypeError, ValueError):
        pass
    rows, failures = [], {}
    for index, value in enumerate(values):
        try:
            rows.append(_parse_one(value))
        except MalformedError as error:
            failures[index] = error.failure
    return list(zip(*rows, strict=True)), failures


def _parse_one(value: bytes | None) -> tuple[Cell, ...]:
    """Parse one JSON value. Raises MalformedError."""
    if value is None:
        raise MalformedError(Failure("tombstone", "the value is null"))
    if len(value) > MAX_VALUE_BYTES:
        raise MalformedError(Failure("too_large", f"{len(value)} bytes, allowed {MAX_VALUE_BYTES}"))
    try:
        _check_utf8(value)
        if len(value) > _PLAIN_BYTES and _depth(value) > MAX_DEPTH:
            raise MalformedError(Failure("not_json", f"nested deeper than {MAX_DEPTH}"))
        return _cells_of(_decode_last(value))
    except MalformedError:
        raise
    except msgspec.ValidationError as error:
        raise MalformedError(Failure("wrong_type", str(error))) from None
    except UnicodeDecodeError as error:
        raise MalformedError(Failure("not_json", f"not UTF-8: {error.reason} (byte {error.start})")) from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(Failure("not_json", f"not JSON: {error}")) from None


def _decode_last(value: bytes) -> Any:
    """Decode a record. If a name comes twice, the last value counts, as for every other reader. Raises msgspec's errors."""
    try:
        return _decode_record(value)
    except msgspec.ValidationError:
        return _decode_record(msgspec.json.encode(_decode_fields(value)))


def _check_utf8(content: bytes) -> None:
    """Raise UnicodeDecodeError for bytes that are not UTF-8: msgspec does not check the texts that it skips."""
    if not content.isascii():
        content.decode()


def _depth(value: bytes) -> int:
    """Return how deep the brackets nest, without those in strings."""
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return 0
    symbols = np.frombuffer(_STRING.sub(b"", value), dtype=np.uint8) | 0x20  # brackets and braces differ in this bit
    steps = (symbols == ord("{")).astype(np.int32) - (symbols == ord("}"))
    return int(np.cumsum(steps).max(initial=0))
