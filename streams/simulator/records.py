"""A block of simulated records as columns, and their JSON and CSV forms, encoded on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from features.columns import OLDER_NAMES, names
from features.telemetry import COLUMNS, Doubles, Longs
from streams.simulator.fleet import Fleet

MODES: Final = ("turbo", "standard", "reliable")
"""dwcp_mode, from low load to high."""

_STANDS_FOR: Final = {older: name for name, older in OLDER_NAMES.items()}
_DECIMALS: Final = {"throughput_mbps": 3, "rtt_ms": 3, "jitter_ms": 3, "packet_loss": 6}
COUNTERS: Final = names("counter")
"""Columns of whole numbers that are measured together."""
_DAY_S: Final = 86_400

_Record: Final[Any] = msgspec.defstruct("_Record", [(name, Any) for name in COLUMNS], gc=False)
_Row: Final[Any] = msgspec.defstruct("_Row", [(name, Any) for name in COLUMNS], array_like=True, gc=False)
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Records:
    """N records in the order in which they arrive, from T ticks of L links.

    Args:
        fleet: The fleet.
        first_tick: Number of the first tick.
        all_time_s: float64 (T * L,), UTC seconds, ascending.
        measured: The measured columns, each (T * L,), NaN for a hole; dwcp_mode as an index into MODES.
        rows: int64 (N,), which record arrives, an index into (T, L) flattened.
        slots: int64 (N,), ascending: in whose place it arrives, which is another record for a late one.
    """

    fleet: Fleet
    first_tick: int
    all_time_s: Doubles
    measured: Mapping[str, np.ndarray[Any, Any]]
    rows: Longs
    slots: Longs

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def link(self) -> Longs:
        """int64 (N,): the link of each record, an index into the fleet."""
        return self.rows % len(self.fleet)

    @property
    def time_s(self) -> Doubles:
        """float64 (N,): when each record was measured, UTC seconds."""
        return self.all_time_s[self.rows]

    @property
    def arrival_s(self) -> Doubles:
        """float64 (N,), ascending: when each record arrives; later than time_s for a late one."""
        return self.all_time_s[self.slots]

    def until_tick(self, tick: int) -> Records:
        """Return the records that arrive before the start of a tick."""
        return self.select(np.arange(np.searchsorted(self.slots, (tick - self.first_tick) * len(self.fleet))))

    def select(self, chosen: Longs) -> Records:
        """Return the records at the positions `chosen` (int64, ascending)."""
        return Records(self.fleet, self.first_tick, self.all_time_s, self.measured, self.rows[chosen], self.slots[chosen])

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """Return the N values of one of COLUMNS as they are encoded: float64 (NaN if not measured), or str objects for names.

        Raises:
            KeyError: The column is unknown.
        """
        name = _STANDS_FOR.get(name, name)
        if name in self.fleet.names:
            return self.fleet.names[name][self.link]
        if name == "timestamp":
            return self.time_s
        if name == "time_of_day":  # UTC hour with its fraction
            return np.round(self.time_s % _DAY_S / 3600, 4)
        if name == "day_of_week":  # the epoch was a Thursday, and Monday is 0
            return (self.time_s // _DAY_S + 3) % 7
        values = self.measured[name][self.rows]
        if name == "dwcp_mode":
            return np.take(np.array(MODES, dtype=object), values)
        return np.round(values.astype(np.float64), _DECIMALS.get(name, 0))

    def json(self) -> list[bytes]:
        """Return N JSON objects of the 22 columns, null if not measured."""
        return list(map(_encode, map(_Record, *self._lists())))

    def csv(self) -> bytes:
        """Return N lines of the 22 columns, without the header, empty if not measured."""
        if not len(self):
            return b""
        # No name in a fleet has a character that CSV or JSON would quote (FleetSpec ensures that), so JSON rows are CSV rows in brackets.
        rows = _encode(list(map(_Row, *self._lists())))
        return rows.replace(b"],[", b"\n").replace(b"null", b"").translate(None, b'[]"') + b"\n"

    def _lists(self) -> list[list[Any]]:
        """Return for each of COLUMNS the N values as Python objects. NaN stays: JSON has no such number, and msgspec writes null."""
        lists: dict[str, list[Any]] = {}
        for name in COLUMNS:
            if name in _STANDS_FOR:
                lists[name] = lists[_STANDS_FOR[name]]
                continue
            values = self.column(name)
            lists[name] = _whole_numbers(values) if name in COUNTERS or name == "day_of_week" else values.tolist()
        return [lists[name] for name in COLUMNS]


def _whole_numbers(values: Doubles) -> list[int | None]:
    missing = np.isnan(values)
    numbers: list[int | None] = np.where(missing, 0, values).astype(np.int64).tolist()
    for i in np.flatnonzero(missing):
        numbers[i] = None
    return numbers
