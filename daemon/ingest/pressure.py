"""Pauses and resumes the source: rows that cannot be sealed and events that cannot be sent must not fill the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daemon.operator.observer import Observer
from streams.source import Source

PENDING_EVENTS_MAX: Final = 100_000
"""Unacknowledged alerts and dead letters at which the source is paused: memory is bounded, and none is dropped."""
DEAD_LETTER_BYTES_MAX: Final = 256 << 20
"""Bytes of refused records in unacknowledged dead letters at which the source is paused: 500 records of half a megabyte."""


@dataclass(frozen=True, slots=True)
class Load:
    """Facts that decide whether the source is paused.

    Args:
        open_rows: rows that no segment holds yet.
        pending_events: events that are not acknowledged yet.
        dead_letter_bytes: bytes of refused records among them.
        blocked: the journal cannot be written, so records that are read are not ingested.
        clock_rests: records wait for this machine's clock.
    """

    open_rows: int
    pending_events: int
    dead_letter_bytes: int
    blocked: bool
    clock_rests: bool


class Pressure:
    """Pauses and resumes one source."""

    def __init__(self, source: Source, observer: Observer, open_rows_max: int) -> None:
        """Start with a source that is not paused. open_rows_max: rows that no segment holds yet at which the source is paused."""
        self.open_rows_max = open_rows_max
        self.full = False
        """The source is paused until rows are sealed, events sent, or the journal is written."""
        self.paused = False
        """The source is paused, for that reason or because records wait for this machine's clock."""
        self._source, self._observer = source, observer

    def fills(self, load: Load) -> bool:
        """Return whether a checkpoint is needed to free memory: dead letters are at their limit, or open rows at half of theirs.

        The other half is for rows that come while the checkpoint is written: a stream that catches up need not wait for the next.
        """
        return load.dead_letter_bytes >= DEAD_LETTER_BYTES_MAX or 2 * load.open_rows >= self.open_rows_max

    def apply(self, load: Load) -> None:
        """Pause or resume the source."""
        full = load.open_rows >= self.open_rows_max or load.pending_events >= PENDING_EVENTS_MAX
        full = full or load.dead_letter_bytes >= DEAD_LETTER_BYTES_MAX or load.blocked
        if full and not self.full:
            self._observer.emit("source_paused", open_rows=load.open_rows, pending_events=load.pending_events)
        elif self.full and not full:
            self._observer.emit("source_resumed")
        self.full, pauses = full, full or load.clock_rests
        if pauses and not self.paused:
            self._source.pause()
        elif self.paused and not pauses:
            self._source.resume()
        self.paused = pauses
