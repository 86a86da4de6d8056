"""The simulated stream of a soak: links come and go, and partitions fall silent."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import numpy as np

from features.telemetry import Flags, Partition
from parts.soak_plan import DAY_H, START_S
from streams.simulator.source import SimulatorSource
from streams.source import Polled, RawBatch

NEW_LINKS_H: Final = 72
"""Hours within which one link in ten appears. Later the table of links is full, and what still grows is not a link."""
AWAY_H: Final = 4
"""Hours for which another one in ten is away every day, each at another time."""
SILENT_H: Final = (12, 14)
"""Hours of a day in which the last partition brings nothing."""
BAD_EVERY: Final = 5000
"""One record of a partition in this many is truncated and becomes a dead letter."""
_TIME_AND_LINK: Final = re.compile(rb'\{"timestamp":([0-9.]+).*?-peer-(\d+)"')


class ChangingFleet(SimulatorSource):
    """The simulator's records without those of links and partitions that are away. delivered: their number."""

    def __init__(self, *arguments: Any, partitions: int, **options: Any) -> None:
        super().__init__(*arguments, partitions=partitions, **options)
        self._last_partition = partitions - 1
        self.delivered = 0

    def poll(self, timeout_s: float) -> Polled:
        polled = super().poll(timeout_s)
        batches = [kept for raw in polled.batches if len(kept := self._kept(raw))]
        self.delivered += sum(map(len, batches))
        return replace(polled, batches=batches)

    def _kept(self, raw: RawBatch) -> RawBatch:
        there = ~away(raw.values, raw.partition, silent=self._last_partition)
        chosen = np.flatnonzero(there)
        values = [raw.values[i] for i in chosen]
        offsets = [raw.offsets[i] for i in chosen]
        cut = [
            value[: len(value) // 2] if value and offset % BAD_EVERY == 0 else value for offset, value in zip(offsets, values, strict=True)
        ]
        return replace(raw, offsets=offsets, values=cut)


def away(values: Any, partition: Partition, silent: int) -> Flags:
    """Return bool (N,): the records of a partition that are never sent. silent: number of the partition that falls silent."""
    seen = [found.groups() for value in values if (found := _TIME_AND_LINK.match(value))]
    hour = (np.array([time_s for time_s, _ in seen], np.float64) - START_S) / 3600
    number = np.array([link for _, link in seen], np.int64)
    kind, turn = number % 10, number // 10
    not_yet = (kind == 0) & (hour < turn % NEW_LINKS_H)
    gone = (kind == 1) & ((hour + turn) % DAY_H < AWAY_H)
    first, last = SILENT_H
    still = partition.number == silent and (first <= hour % DAY_H) & (hour % DAY_H < last)
    return np.asarray(not_yet | gone | still)
