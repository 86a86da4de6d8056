"""The CSV form of telemetry: its header, and lines turned into columns of cells.

White space around a name or a cell, quoted or not, does not count. A number is written in decimal digits, as in JSON. `+1`, `.5`, `1.` and
leading zeros are read too. What Python reads beside that (`1_000`, digits of other scripts, `inf`) is not a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from math import isfinite, isinf, nan
from typing import Annotated, Final, TypeAlias

import msgspec

from features.columns import OLDER_NAMES, names
from features.telemetry import COLUMNS, ENDS, TARGETS
from streams.records.validate import NUMBERS, Failure, Kind
from streams.source import SourceError

AwareTime: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
Cell: TypeAlias = str | int | float | datetime | None
Cells: TypeAlias = Sequence[Sequence[Cell]]
"""One sequence of N cells for each of COLUMNS."""

MAX_VALUE_BYTES: Final = 1 << 20
_NEEDED: Final = (*names("time"), *ENDS)
_METRICS: Final = (*TARGETS, *OLDER_NAMES.values())
_NUMERIC: Final = frozenset(NUMBERS[1:])
_CELL: Final = re.compile(r'\s*+(?:"((?:[^"]|"")*+)"\s*+|((?!")[^,]*+))(?:(,)|\Z)')
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_OF_NUMBERS: Final = b"0123456789+-.eE"


class MalformedError(ValueError):
    """One value that is not a record. `failure` has the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def read_header(line: bytes, where: str) -> tuple[str, ...]:
    """Return the column names in the first line of a CSV file.

    Args:
        line: The first line.
        where: Name of the file, for the error.

    Raises:
        SourceError: A name is unknown or comes twice, or a needed column is missing.
    """
    try:
        names = _split(line.decode("utf-8-sig").strip("\r\n"))
    except ValueError:
        raise SourceError(f"{where}: the first line is not a CSV header in UTF-8; it starts with {line[:40]!r}") from None
    complaints = [
        f"misses {', '.join(missing)}" if (missing := [name for name in _NEEDED if name not in names]) else "",
        f"has none of {', '.join(TARGETS)}" if not set(names) & set(_METRICS) else "",
        f"has unknown columns {_listed([name for name in names if name not in COLUMNS])}" if set(names) - set(COLUMNS) else "",
        f"names {_listed(sorted({name for name in names if names.count(name) > 1}))} twice" if len(set(names)) < len(names) else "",
    ]
    if any(complaints):
        complaint = "; it ".join(filter(None, complaints))
        raise SourceError(f"{where}: wrong CSV header: it {complaint}. The columns are {', '.join(COLUMNS)}, in any order, comma-separated")
    return tuple(names)


def _split(line: str) -> list[str]:
    """Return the cells of a line, without the white space around them. Raises ValueError for a quote that does not end its cell."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(",")]
    cells, position, more = [], 0, ","
    while more:
        found = _CELL.match(line, position)
        if found is None:
            raise ValueError("a quote is not closed, or something follows it")
        quoted, plain, more = found.groups("")
        cells.append((quoted.replace('""', '"') or plain).strip())
        position = found.end()
    return cells


def _listed(names: list[str]) -> str:
    """Return a list of at most five names: binary garbage has thousands."""
    return ", ".join(repr(name[:40]) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def split_line(line: bytes | None, width: int) -> list[str]:
    """Return the `width` cells of one line. Raises MalformedError."""
    if line is None:
        raise MalformedError(Failure("tombstone", "the value is null"))
    if len(line) > MAX_VALUE_BYTES:
        raise MalformedError(Failure("too_large", f"{len(line)} bytes, allowed {MAX_VALUE_BYTES}"))
    try:
        cells = _split(line.decode())
    except UnicodeDecodeError as error:
        raise MalformedError(Failure("not_csv", f"not UTF-8: {error.reason} (byte {error.start})")) from None
    except ValueError as error:
        raise MalformedError(Failure("not_csv", f"not CSV: {error}")) from None
    if len(cells) != width:
        raise MalformedError(Failure("not_csv", f"{len(cells)} cells, the header has {width}"))
    return cells


def parse_time(cell: str) -> float:
    """Return the UTC seconds of a cell that holds unix seconds or an RFC 3339 time. Raises ValueError."""
    if _NUMBER.fullmatch(cell):
        return float(cell)
    return msgspec.convert(cell, AwareTime).timestamp()  # its ValidationError is a ValueError


def parse_csv(values: Sequence[bytes | None], header: tuple[str, ...]) -> tuple[Cells, dict[int, Failure]]:
    """Parse N lines.

    Args:
        values: N lines; None is a null.
        header: Names of the columns.

    Returns:
        The columns of the well-formed lines, and the failures of the others by index.
    """
    try:
        return _columns(_split_plain(values, len(header)), header), {}
    except (ValueError, TypeError):
        pass
    rows, failures = [], {}
    for index, line in enumerate(values):
        try:
            cells = split_line(line, len(header))
            _columns([cells], header)  # so that the failure is the one of this row
            rows.append(cells)
        except MalformedError as error:
            failures[index] = error.failure
    return _columns(rows, header), failures


def _split_plain(values: Sequence[bytes | None], width: int) -> list[list[str]]:
    """Return the cells of lines without quotes. Raises ValueError or TypeError if any line needs a closer look."""
    lines = [str(line, "utf-8") for line in values if len(line) <= MAX_VALUE_BYTES]  # type: ignore[arg-type]  # None: TypeError
    if len(lines) < len(values) or any('"' in line for line in lines):
        raise ValueError("not plain")
    rows = [line.split(",") for line in lines]
    if "\n".join(lines).split() != lines:  # there is white space
        rows = [[cell.strip() for cell in row] for row in rows]
    if set(map(len, rows)) != {width}:
        raise ValueError("not plain")
    return rows


def _columns(rows: Sequence[Sequence[str]], header: tuple[str, ...]) -> Cells:
    """Return the columns of N rows. Raises MalformedError if a numeric cell is not a number; its reason quotes the first row's cell."""
    by_name: dict[str, Sequence[str]] = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
    absent = ("",) * len(rows)
    columns: list[Sequence[Cell]] = []
    for name in COLUMNS:
        cells = by_name.get(name, absent)
        if name in _NUMERIC:
            columns.append(_numbers(name, cells))
        else:
            columns.append(_times(cells) if name == "timestamp" else cells)
    return columns


def _numbers(name: str, cells: Sequence[str]) -> Sequence[float]:
    """Return the numbers of N cells, NaN for an empty one. Raises MalformedError."""
    if not any(cells):
        return (nan,) * len(cells)
    try:
        numbers = _read(cells) if "" not in cells else [_read((cell,))[0] if cell else nan for cell in cells]
    except ValueError:
        raise MalformedError(_not_a_number(name, next(filter(None, cells)))) from None
    if not isfinite(sum(numbers)) and any(map(isinf, numbers)):
        raise MalformedError(Failure("out_of_range", f"{name} is {max(numbers, key=abs)!r}: no number is that large"))
    return numbers


def _read(cells: Sequence[str]) -> list[float]:
    """Return the numbers of N cells, ±inf for one that is too large. Raises ValueError for a cell that is not a number."""
    numbers = list(map(float, cells))
    if "".join(cells).encode().translate(None, _OF_NUMBERS):
        raise ValueError("not in decimal digits")
    return numbers


def _not_a_number(name: str, cell: str) -> Failure:
    """Return why a cell is not a number."""
    if cell.lower().lstrip("+-") in ("nan", "null", "none", "na", "n/a", ""):
        return Failure("wrong_type", f"{name} is {_shown(cell)}; leave the cell empty if nothing was measured")
    kind: Kind = "out_of_range" if _is_infinite(cell) else "wrong_type"
    return Failure(kind, f"{name} is {_shown(cell)}, not a number in decimal digits")


def _is_infinite(cell: str) -> bool:
    return cell.lower().lstrip("+-") in ("inf", "infinity")


def _shown(cell: str) -> str:
    return cell.lower() if _is_infinite(cell) else repr(cell[:40])


def _times(cells: Sequence[str]) -> Sequence[float]:
    """Return the UTC seconds of N cells, NaN for an empty one. Raises MalformedError."""
    try:
        try:
            times = _read(cells)
        except ValueError:
            times = [parse_time(cell) if cell else nan for cell in cells]
    except ValueError:
        reason = f"timestamp is {_shown(cells[0])}, neither UTC seconds nor an RFC 3339 time with its offset from UTC"
        raise MalformedError(Failure("timestamp", reason)) from None
    return times
