"""The entries of the journal: one struct a decision, with the offsets from which it holds. `Ahead`: those a partition has yet to apply."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from streams.records.validate import MAX_FUTURE_S

CLOCK_S: Final = 60.0
"""Seconds for which a reading of the clock holds. Timestamps are checked against the last reading in the journal, which may be this old."""


def limit_of(clock_s: float | None) -> float:
    """Return the latest time that a record may have by a reading of the clock (UTC seconds); inf without one."""
    return math.inf if clock_s is None else clock_s + CLOCK_S + MAX_FUTURE_S


class ModelLive(msgspec.Struct, frozen=True, tag="model_live"):
    """Forecasts come from `version` from these next offsets on.

    epoch counts the models that went live, from 1. number is that of a signed version: an entry with a number and without offsets records
    the newest version that was ever live, which no older one may follow (see Models).
    """

    epoch: int
    version: str
    offsets: dict[str, int]
    number: int = 0


class Forecasting(msgspec.Struct, frozen=True, tag="forecasting"):
    """From these next offsets on, forecasts are made (on), or are load-shed because the stream is too far behind."""

    on: bool
    offsets: dict[str, int]


class Clock(msgspec.Struct, frozen=True, tag="clock"):
    """A reading of the clock, UTC seconds, by which timestamps count as future from these next offsets on.

    confirmed: the times at which Kafka's records are written agree with it. Whatever came with a later time before is undone.
    """

    now_s: float
    offsets: dict[str, int]
    confirmed: bool = False


class Idle(msgspec.Struct, frozen=True, tag="idle"):
    """The partition was silent for drift.idle_s and no longer holds up the others; its next record resumes it."""

    offsets: dict[str, int]


class Resumed(msgspec.Struct, frozen=True, tag="resumed"):
    """An idle partition goes on. Its messages for buckets up to closed_through come too late for the region stage."""

    offsets: dict[str, int]
    closed_through: int


class Alerted(msgspec.Struct, frozen=True, tag="told"):
    """An alert was sent that follows from the records before these next offsets, with buckets closed up to closed_through.

    It has no effect of its own. But a stream that is read again comes to the same alert only if nothing is decided anew before these
    offsets are reached again, and if a partition that was idle then resumes behind the buckets that were closed without it.
    """

    offsets: dict[str, int]
    closed_through: int


class Adopted(msgspec.Struct, frozen=True, tag="taken_up"):
    """The partition came with another member's state, which ends at this next offset: earlier entries about it are void."""

    offsets: dict[str, int]


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """The first line of a journal whose oldest entries were dropped, with the facts about them that are still needed.

    entries: how many were dropped. closed_through: of the last Alerted among them. live: the last model that went live among them.
    """

    entries: int = 0
    closed_through: int = -(2**62)
    live: ModelLive | None = None


Entry: TypeAlias = ModelLive | Forecasting | Clock | Idle | Resumed | Alerted | Adopted


class Ahead:
    """Entries that a partition has yet to apply, in the order of their offsets, each with its number in the journal."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Entry]] = []

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, entries: list[tuple[int, int, Entry]]) -> None:
        """Add (offset, number, entry) behind those that are here already."""
        self._entries += entries

    def due(self, offset: int) -> Iterator[tuple[int, Entry]]:
        """Remove the entries up to this next offset, one after the other, and yield number and entry of each."""
        while self._entries and self._entries[0][0] <= offset:
            _, number, entry = self._entries.pop(0)
            yield number, entry

    def cut(self, offsets: Sequence[int], begin: int) -> int:
        """Return the end of the records from index `begin` on that lie before the next entry."""
        return bisect.bisect_left(offsets, self._entries[0][0], begin) if self._entries else len(offsets)

    @property
    def last_offset(self) -> int:
        """Offset of the last entry; 0 without one."""
        return self._entries[-1][0] if self._entries else 0

    @property
    def last_epoch(self) -> int | None:
        """Epoch of the last model that goes live; None if none does."""
        return next((entry.epoch for _, _, entry in reversed(self._entries) if isinstance(entry, ModelLive)), None)
