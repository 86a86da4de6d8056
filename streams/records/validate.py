"""Validate decoded records: ranges, needed fields and lengths of texts, over whole columns at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from features.calendar import LAST_HOUR, hour_and_weekday
from features.columns import EARLIEST_S, LATEST_S, OLDER_NAMES, RANGES, names
from features.telemetry import ENDS, KEY_COLUMNS, NUMERIC, TARGETS, Doubles, Floats

Kind: TypeAlias = Literal["tombstone", "too_large", "not_json", "not_csv", "wrong_type", "missing_field", "timestamp", "out_of_range"]
"""Kind of the reason why a record was refused: the label of the metric that counts them."""

Text: TypeAlias = str | int | float | None

NUMBERS: Final = (*names("time"), *NUMERIC, *OLDER_NAMES.values())
"""The numeric columns of a record, in the order of the rows that `refuse` reads."""

MAX_TEXT_CHARS: Final = 256
MAX_NUMBER_AS_TEXT: Final = 1e255
"""Bound of a number that stands for a text, as a double: its digits and its sign fit into MAX_TEXT_CHARS."""
MAX_FUTURE_S: Final = 300.0  # a producer's clock may be wrong; once the time of a link has run ahead, all that follows is late

_LOW = np.array([RANGES[name][0] for name in NUMERIC])[:, None]
_HIGH = np.array([RANGES[name][1] for name in NUMERIC])[:, None]
_HOUR, _WEEKDAY = NUMERIC.index("time_of_day"), NUMERIC.index("day_of_week")
_OLDER: Final = tuple((NUMERIC.index(name), NUMBERS.index(older)) for name, older in OLDER_NAMES.items())
"""Position of a target in NUMERIC and of its older name in NUMBERS."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why one record is refused.

    Args:
        kind: Label of the metric that counts it.
        reason: A short sentence that names the field, the value and what is allowed.
        future: Whether the time of the record lies in the future.
    """

    kind: Kind
    reason: str
    future: bool = False


def complete(numbers: Doubles) -> Doubles:
    """Return the columns NUMERIC with older names, hour and weekday filled in.

    Args:
        numbers: float64 (len(NUMBERS), N), rows as in NUMBERS, NaN if missing.

    Returns:
        float64 (R, N). Hour and weekday follow from the timestamp in UTC if they are missing.
    """
    time_s, measured = numbers[0], numbers[1:] + 0.0  # -0 becomes 0
    numeric = measured[: len(NUMERIC)]
    for column, older in _OLDER:
        numeric[column] = np.where(np.isnan(numeric[column]), measured[older - 1], numeric[column])
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite timestamp, or a huge one, is refused later
        hour, weekday = hour_and_weekday(time_s)
    numeric[_HOUR] = np.where(np.isnan(numeric[_HOUR]), hour, numeric[_HOUR])
    numeric[_WEEKDAY] = np.where(np.isnan(numeric[_WEEKDAY]), weekday, numeric[_WEEKDAY])
    return numeric


def as_rows(numeric: Doubles) -> Floats:
    """Return validated columns as rows, float32 (N, R). The hour stays under 24 after rounding.

    Args:
        numeric: float64 (R, N), columns that passed `refuse`.
    """
    rows = numeric.T.astype(np.float32, order="C")
    np.minimum(rows[:, _HOUR], LAST_HOUR, out=rows[:, _HOUR])
    return rows


def refuse(numbers: Doubles, numeric: Doubles, texts: Sequence[Sequence[Text]], now_s: float | None) -> dict[int, Failure]:
    """Return the refused ones of N rows, each with its first failure.

    Args:
        numbers: See `complete`.
        numeric: From `complete`.
        texts: The columns KEY_COLUMNS as `clean_texts` left them.
        now_s: UTC seconds. None: any time between EARLIEST_S and LATEST_S is accepted.
    """
    failures: dict[int, Failure] = {}
    for name, column in zip(ENDS, texts, strict=False):
        if None in column:
            missing = Failure("missing_field", f"{name} is missing or empty")
            failures.update({row: missing for row, text in enumerate(column) if text is None and row not in failures})
    time_s = numbers[0]
    latest = LATEST_S if now_s is None else min(LATEST_S, now_s + MAX_FUTURE_S)
    for row in np.flatnonzero(~((time_s >= EARLIEST_S) & (time_s <= latest))).tolist():
        if row not in failures:
            failures[row] = _bad_time(float(time_s[row]), now_s)
    bad = (numeric < _LOW) | (numeric > _HIGH)
    if bad.any():
        for row in np.flatnonzero(bad.any(axis=0)).tolist():
            if row not in failures:
                failures[row] = _bad_number(int(np.argmax(bad[:, row])), row, numbers, numeric)
    unmeasured = np.isnan(numeric[: len(TARGETS)]).all(axis=0)
    if unmeasured.any():
        missing = Failure("missing_field", f"none of {', '.join(TARGETS)} is present: at least one is needed")
        for row in np.flatnonzero(unmeasured).tolist():
            failures.setdefault(row, missing)
    return failures


def _bad_time(time_s: float, now_s: float | None) -> Failure:
    if np.isnan(time_s):
        return Failure("missing_field", "timestamp is missing")
    if LATEST_S < time_s < np.inf:
        unit = "milliseconds" if time_s < 1e14 else "microseconds" if time_s < 1e17 else "nanoseconds"
        return Failure("timestamp", f"timestamp is {time_s!r}: that looks like {unit}, UTC seconds are needed")
    if time_s < EARLIEST_S:
        return Failure("timestamp", f"timestamp is {time_s!r}: that is before 1990 ({EARLIEST_S:.0f}), UTC seconds are needed")
    if now_s is None or time_s == np.inf:
        return Failure("timestamp", f"timestamp is {time_s!r}, allowed {EARLIEST_S:.0f} to {LATEST_S:.0f}")
    reason = f"timestamp is {time_s!r}: {time_s - now_s:.0f} s in the future, allowed {MAX_FUTURE_S:.0f} s"
    return Failure("timestamp", reason, future=True)


def _bad_number(column: int, row: int, numbers: Doubles, numeric: Doubles) -> Failure:
    name = NUMERIC[column]
    low, high = RANGES[name]
    if np.isnan(numbers[1 + column, row]):
        name = OLDER_NAMES[name]  # not hour or weekday: derived from a time that has passed, they are in range
    return Failure("out_of_range", f"{name} is {float(numeric[column, row])!r}, allowed {low:g} to {high:.3g}")


def clean_texts(texts: list[list[Text]], seen: Sequence[Mapping[Text, Text]]) -> dict[int, Failure]:
    """Turn the columns KEY_COLUMNS into strings, in place: numbers become texts, empty texts None.

    Args:
        texts: For each column a list of N texts.
        seen: For each column its different values, as keys. Only they are inspected, and a column of valid strings is not touched.

    Returns:
        The rows with too long a text.
    """
    failures: dict[int, Failure] = {}
    for name, column, values in zip(KEY_COLUMNS, texts, seen, strict=True):
        optional = name not in ENDS
        if all((type(v) is str and 0 < len(v) <= MAX_TEXT_CHARS) or (v is None and optional) for v in values):
            continue
        cleaned = {v: _as_text(v) for v in values}
        too_long = {v for v, text in cleaned.items() if text is not None and len(text) > MAX_TEXT_CHARS}
        if too_long:
            failure = Failure("too_large", f"{name} is longer than {MAX_TEXT_CHARS} characters")
            failures.update({row: failure for row, v in enumerate(column) if v in too_long and row not in failures})
        column[:] = [cleaned[v] for v in column]
    return failures


def _as_text(value: Text) -> str | None:
    """Return a value as text. 1 and 1.0 are the same number in JSON, and so the same text."""
    if isinstance(value, int | float):
        if abs(value) >= MAX_NUMBER_AS_TEXT or float(abs(value)) >= MAX_NUMBER_AS_TEXT:  # the second: an integer that rounds up to it
            return "9" * (MAX_TEXT_CHARS + 1)
        return str(int(value)) if value == int(value) else str(value)
    return value or None
