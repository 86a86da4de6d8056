"""The meaning of a record by the published documents alone: the JSON Schema over Python's own JSON parser, and CSV lines as records.

None of the project's readers is used. If one of them differs from this, one of the two is wrong.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import jsonschema
import numpy as np

from features.calendar import hour_and_weekday
from features.columns import EARLIEST_S, LATEST_S, OLDER_NAMES
from features.telemetry import CATEGORIES, KEY_COLUMNS, NUMERIC
from parts.record_readers import Reading
from streams.records.csv_form import MAX_VALUE_BYTES
from streams.records.decode import MAX_DEPTH
from streams.records.schema import telemetry_schema
from streams.records.validate import as_rows

Unsaid = Literal["size", "depth", "time_bounds"]
"""Rules that the schema's description lists as not said below it."""

_ESCAPES: Final = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<half>\\u[dD][89a-fA-F])|\\.", re.DOTALL)
_NUMBER: Final = re.compile(r"(?P<sign>[+-]?)(?:(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]*))?|\.(?P<only>[0-9]+))(?P<power>[eE][+-]?[0-9]+)?")
_OUTSIDE: Final = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d).(\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):?(\d\d))")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS: Final = ("node_id", "peer_id", *CATEGORIES)


class NotIJsonError(ValueError):
    """Bytes that are not an I-JSON text."""


def parsed(value: bytes, *, exact_integers: bool) -> Any:
    """Parse a JSON text as RFC 7493 requires. exact_integers: integers instead of doubles. Raises ValueError or RecursionError."""
    text = value.decode()
    if any(found["half"] for found in _ESCAPES.finditer(text)):
        raise NotIJsonError("half of a surrogate pair")
    return json.loads(text, parse_constant=_refuse, parse_int=_integer if exact_integers else float)


def _refuse(word: str) -> None:
    raise NotIJsonError(f"{word} is no JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < sys.get_int_max_str_digits() else float(digits)


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """Match as ECMA-262 does: `$` is the end, and not also before a last newline."""
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield jsonschema.ValidationError("does not match")


_VALIDATOR: Final = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})(telemetry_schema())


def by_schema(value: bytes) -> tuple[Reading, Unsaid | None]:
    """Return the reading of an accepted record, and the rule, beyond the schema, by which it is not telemetry all the same."""
    if len(value) > MAX_VALUE_BYTES:
        return None, "size"
    try:
        document = parsed(value, exact_integers=False)
    except (ValueError, RecursionError):
        return None, None
    if not _VALIDATOR.is_valid(document):
        return None, None
    if _depth(value.decode()) > MAX_DEPTH:
        return None, "depth"
    exact = parsed(value, exact_integers=True)
    time_s = seconds_of(exact["timestamp"])
    if not EARLIEST_S <= time_s <= LATEST_S:
        return None, "time_bounds"
    return (time_s, _numeric(document, time_s), tuple(_text(exact.get(name)) for name in _TEXTS)), None


def _depth(text: str) -> int:
    """Nesting of a JSON text, also of values that a later value of the same name replaces."""
    depth = deepest = 0
    for symbol in _OUTSIDE.sub("", text) if text.count("[") + text.count("{") > MAX_DEPTH else "":
        depth += (symbol in "[{") - (symbol in "]}")
        deepest = max(deepest, depth)
    return deepest


def seconds_of(time: float | str) -> float:
    """Return the UTC seconds of a valid timestamp; text is rounded half up to microseconds."""
    if not isinstance(time, str):
        return float(time)
    found = _TIME.fullmatch(time)
    assert found is not None
    day, clock, fraction, sign, hours, minutes = found.groups()
    if day.startswith("0000"):
        return -np.inf
    digits = ((fraction or "") + "0000000")[:7]
    moment = datetime.fromisoformat(f"{day}T{clock}+00:00") - _EPOCH
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    return (moment - offset + timedelta(microseconds=(int(digits) + 5) // 10)) / timedelta(seconds=1)


def _numeric(document: dict[str, Any], time_s: float) -> bytes:
    """Return the columns NUMERIC as float32."""
    values = []
    for name in NUMERIC:
        value = document.get(name)
        values.append(document.get(OLDER_NAMES.get(name, name)) if value is None else value)
    columns = np.array([np.nan if value is None else value + 0.0 for value in values], np.float64)
    for name, derived in zip(("time_of_day", "day_of_week"), hour_and_weekday(np.array([time_s])), strict=True):
        if np.isnan(columns[NUMERIC.index(name)]):
            columns[NUMERIC.index(name)] = derived[0]
    return as_rows(columns[:, None]).tobytes()


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def record_of_line(line: bytes, header: tuple[str, ...]) -> bytes | None:
    """Return the JSON record that a CSV line describes; None if it describes none."""
    if len(line) > MAX_VALUE_BYTES:
        return None
    try:
        cells = cells_of(line.decode())
    except UnicodeDecodeError:
        return None
    if cells is None or len(cells) != len(header):
        return None
    members = []
    for name, cell in zip(header, cells, strict=True):
        if not cell:
            continue
        number = None if name in KEY_COLUMNS else _json_number(cell)
        if number is None and name != "timestamp" and name not in KEY_COLUMNS:
            return None
        members.append(f"{json.dumps(name)}:{number or json.dumps(cell)}")
    return ("{" + ",".join(members) + "}").encode()


def cells_of(line: str) -> list[str] | None:
    """Return the cells, read character by character; None if a quote is left open or something follows it."""
    cells, cell, state = [], "", "before"
    for symbol in [*line, None]:
        if state == "quoted":
            if symbol is None:
                return None
            state, cell = ("quote", cell) if symbol == '"' else (state, cell + symbol)
        elif state == "quote" and symbol == '"':
            state, cell = "quoted", cell + '"'
        elif symbol is None or symbol == ",":
            cells.append(cell.strip())
            cell, state = "", "before"
        elif state in ("quote", "behind"):
            if not symbol.isspace():
                return None
            state = "behind"
        elif state == "before" and symbol == '"':
            state, cell = "quoted", ""
        else:
            state, cell = (state if state == "before" and symbol.isspace() else "plain"), cell + symbol
    return cells


def _json_number(cell: str) -> str | None:
    found = _NUMBER.fullmatch(cell)
    if found is None:
        return None
    whole = (found["whole"] or "0").lstrip("0") or "0"
    part = found["part"] or found["only"]
    return found["sign"].replace("+", "") + whole + (f".{part}" if part else "") + (found["power"] or "")
