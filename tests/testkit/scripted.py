"""A recorded stream of a small fleet, and a source that plays it in an order determined by a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from features.telemetry import Partition
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region
from streams.simulator.planted import PlantedEvent
from streams.simulator.source import SimulatorSource
from streams.source import ONLY_LOG, Log, Polled, RawBatch, Source, Written

TOPIC: Final = "recovery"
PARTITIONS: Final = 4
TICKS: Final = 190
DRIFT_TICK: Final = 110
"""Rows 30 to 89 of each link calibrate its detectors. The drift comes 20 rows later, and 80 rows remain to notice it."""


@lru_cache(maxsize=1)
def stream() -> dict[Partition, list[bytes]]:
    """Return all records: two regions of six links, late and duplicate records, holes, and a re-route of one region."""
    event = PlantedEvent("reroute", DEFAULT_START_S + DRIFT_TICK * 60.0, "eu", links_share=0.9, size_sd=5.0)
    spec = FleetSpec(
        seed=3, regions=(Region("eu", 0.0), Region("us", -5.0)), links_per_region=7, late_share=0.01, duplicate_share=0.01, events=(event,)
    )
    source = SimulatorSource(spec, TICKS * 60.0)
    (only,) = source.poll(0.0).assigned
    source.seek(only, 0)
    records: dict[Partition, list[bytes]] = {Partition(TOPIC, number): [] for number in range(PARTITIONS)}
    links: dict[str, int] = {}
    while not (polled := source.poll(0.0)).ended:
        for value in (value for batch in polled.batches for value in batch.values if value is not None):
            node = json.loads(value)["node_id"]  # dealt out in turn: a hash leaves partitions of so small a fleet empty
            records[Partition(TOPIC, links.setdefault(node, len(links)) % PARTITIONS)].append(value)
    return records


@dataclass
class ScriptedSource(Source):
    """A Source over recorded partitions, in batches and an interleaving that follow from a seed.

    Args:
        seed: of the order.
        batch_max: most records of a batch.
        records: by partition; default: those of `stream`.
        ends: report the end after the last record, as a file does and a topic does not.
        silent: (partition, offset, until): the partition brings nothing from that offset on until each other one has given `until` records.
        written: returns when a record was written, as Kafka reports it; its lag is then 0. None: unknown.
        on_poll: called before every batch.
    """

    seed: int
    batch_max: int = 64
    records: Mapping[Partition, Sequence[bytes | None]] = field(default_factory=lambda: stream())
    ends: bool = True
    silent: tuple[int, int, int] | None = None
    written: Callable[[bytes], Written] | None = None
    on_poll: Callable[[ScriptedSource], None] = lambda _source: None
    polls: int = 0
    positions: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    paused: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def clock(self) -> float:
        """Return the number of polls: idleness is part of the script."""
        return float(self.polls)

    def poll(self, timeout_s: float) -> Polled:  # noqa: ARG002 - see Source
        self.polls += 1
        if self.polls == 1:
            return Polled(assigned=frozenset(self.records))
        self.on_poll(self)
        if self.paused:
            return Polled()
        records = self.records
        left = [part for part in sorted(self.positions, key=str) if self.positions[part] < len(records[part]) and not self._silent(part)]
        if not left:
            return Polled(ended=self.ends and self.exhausted())
        batches = []
        for partition in self._random.sample(left, self._random.randint(1, len(left))):
            begin = self.positions[partition]
            end = min(begin + self._random.randint(1, self.batch_max), len(records[partition]))
            if self.silent is not None and partition.number == self.silent[0] and begin < self.silent[1]:
                end = min(end, self.silent[1])
            self.positions[partition] = end
            values = records[partition][begin:end]
            written = None if self.written is None else [self.written(value or b"") for value in values]
            batches.append(RawBatch(partition, range(begin, end), values, written=written))
        return Polled(batches)

    def exhausted(self) -> bool:
        """Return whether every record was given."""
        return all(self.positions[partition] == len(self.records[partition]) for partition in self.positions)

    def _silent(self, partition: Partition) -> bool:
        if self.silent is None or partition.number != self.silent[0] or self.positions[partition] != self.silent[1]:
            return False
        others = [self.positions[other] for other in self.positions if other != partition]
        return min(others) < self.silent[2]

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:  # noqa: ARG002 - see Source
        self.positions[partition] = self.positions.get(partition, 0) if offset is None else offset  # None does not go back, as in Kafka

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed.update(offsets)

    def lag(self) -> int | None:
        return None if self.written is None else 0
