"""One process of benchmarks/differential.py: inputs from a seed through every reader, and the inputs that two of them read differently."""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient

from harness import answer, job_of
from parts import record_oracle, record_readers
from parts.record_grammar import Grammar
from parts.record_readers import ByGo, ByKafka, Closing, Reading

BATCH: Final = 1_000
"""Inputs that go through the readers together, in a file, a pipe, or a batch of the broker."""
CSV_SHARE: Final = 0.25
EXAMPLES_MAX: Final = 20
SMALLER_TRIES_MAX: Final = 2_000
LINE_ENDS: Final = (b"\n", b"\r\n")


@dataclass
class Found:
    """Result of a run.

    Args:
        compared: readings by reader.
        examples: the smallest inputs that are read in two ways.
    """

    inputs: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    schema_does_not_say: Counter[str] = field(default_factory=Counter)
    differences: int = 0
    examples: list[str] = field(default_factory=list)


class Differential:
    """Inputs through all readers. extra: further readers of JSON values, to test that a difference is found."""

    def __init__(self, folder: Path, kafka: ByKafka, go: ByGo, extra: record_readers.Readers | None = None) -> None:
        self._folder = folder
        self._readers: record_readers.Readers = {"decoder alone": record_readers.alone, "kafka": kafka, "go": go, **(extra or {})}
        self._line_end = LINE_ENDS[0]
        self.found = Found()

    def run(self, seed: int, inputs: int) -> None:
        """Run inputs, JSON values and CSV lines, batch after batch."""
        grammar, rng = Grammar(seed), random.Random(seed)
        while self.found.inputs.total() < inputs:
            self._line_end = rng.choice(LINE_ENDS)
            count = min(BATCH, inputs - self.found.inputs.total())
            if rng.random() < CSV_SHARE:
                header = grammar.header()
                self._compare([grammar.csv_line(header) for _ in range(count)], header)
            else:
                self._compare([grammar.json_value() for _ in range(count)], ())

    def _compare(self, values: Sequence[bytes], header: tuple[str, ...]) -> None:
        """Count the readings, and keep the smallest input of each difference."""
        found = self.found
        readings = self.csv(values, header) if header else self.json(values)
        found.inputs["csv" if header else "json"] += len(values)
        reference = readings["decoder"]
        found.outcomes["accepted"] += sum(reading is not None for reading in reference)
        found.outcomes["refused"] += sum(reading is None for reading in reference)
        for name, column in readings.items():
            found.compared[name] += sum(reading is not _NOT_READ for reading in column)
        for index, value in enumerate(values):
            if self._differ(readings, index):
                found.differences += 1
                if len(found.examples) < EXAMPLES_MAX:
                    found.examples.append(self._example(value, header))

    @staticmethod
    def _differ(readings: dict[str, list[Any]], index: int) -> bool:
        reference = readings["decoder"][index]
        return any(column[index] is not _NOT_READ and column[index] != reference for column in readings.values())

    def json(self, values: Sequence[bytes]) -> dict[str, list[Any]]:
        """Return the readings of JSON values by reader."""
        readings: dict[str, list[Any]] = {"decoder": record_readers.by_record(values)}
        for name, reader in self._readers.items():
            readings[name] = reader(values)
        by_schema: list[Reading] = []
        for value in values:
            reading, unsaid = record_oracle.by_schema(value)
            by_schema.append(reading)
            self.found.schema_does_not_say[unsaid or "nothing"] += 1
        readings["schema"] = by_schema
        readings["decoder in chunks"] = _of_good(values, readings["decoder"], record_readers.together)
        readings |= self._by_lines(values, ())
        return readings

    def csv(self, lines: Sequence[bytes], header: tuple[str, ...]) -> dict[str, list[Any]]:
        """Return the readings of CSV lines: by readers of CSV, and as records by all readers of JSON."""
        readings: dict[str, list[Any]] = {
            "decoder": record_readers.by_record(lines, "csv", header),
            "csv alone": record_readers.alone(lines, "csv", header),
        }
        readings["csv in chunks"] = _of_good(lines, readings["decoder"], lambda good: record_readers.together(good, "csv", header))
        records = [record_oracle.record_of_line(line, header) for line in lines]
        as_json = self.json([record for record in records if record is not None])
        for name, column in as_json.items():
            remaining = iter(column)
            readings[f"{name} of the record"] = [None if record is None else next(remaining) for record in records]
        return readings | self._by_lines(lines, header)

    def _by_lines(self, values: Sequence[bytes], header: tuple[str, ...]) -> dict[str, list[Any]]:
        """Read the values that can be lines from a file and from a pipe."""
        lines = [index for index, value in enumerate(values) if b"\n" not in value]
        by_reader = {
            "file": record_readers.by_file(
                [values[i] for i in lines], self._folder / f"f.{'csv' if header else 'ndjson'}", header, self._line_end
            ),
            "pipe": record_readers.by_pipe([values[i] for i in lines], header, self._line_end),
        }
        placed: dict[str, list[Any]] = {}
        for name, column in by_reader.items():
            placed[name] = [_NOT_READ] * len(values)
            for index, reading in zip(lines, column, strict=True):
                placed[name][index] = reading
        return placed

    def _example(self, value: bytes, header: tuple[str, ...]) -> str:
        """Return the smallest input that is still read in two ways, with all readings."""

        def readings(one: bytes) -> dict[str, list[Any]]:
            return self.csv([one], header) if header else self.json([one])

        smallest = smaller(value, lambda one: self._differ(readings(one), 0))
        says = [f"{name}: {_shown(column[0])}" for name, column in readings(smallest).items() if column[0] is not _NOT_READ]
        return f"{smallest[:400]!r}{f' under {header}' if header else ''}\n  " + "\n  ".join(says)


_NOT_READ: Final = object()
"""Stands for a reading if the value cannot reach that reader."""


def _of_good(values: Sequence[bytes], reference: Sequence[Reading], read: Callable[[Sequence[bytes]], list[Reading]]) -> list[Any]:
    """Return the readings of accepted values, all in one batch."""
    good = [index for index, reading in enumerate(reference) if reading is not None]
    readings: list[Any] = [_NOT_READ] * len(values)
    for index, reading in zip(good, read([values[index] for index in good]), strict=True):
        readings[index] = reading
    return readings


def _shown(reading: Reading) -> str:
    return "refused" if reading is None else f"{reading[0]!r} {reading[1].hex()} {reading[2]!r}"


def smaller(value: bytes, differs: Callable[[bytes], bool]) -> bytes:
    """Cut pieces out of a value while it is still read in two ways, large pieces first."""
    size, tries = max(1, len(value) // 2), 0
    while size and tries < SMALLER_TRIES_MAX:
        start = 0
        while start < len(value) and tries < SMALLER_TRIES_MAX:
            tries += 1
            shorter = value[:start] + value[start + size :]
            if differs(shorter):
                value = shorter
            else:
                start += size
        size //= 2
    return value


def run(job: dict[str, Any], extra: record_readers.Readers | None = None) -> dict[str, Any]:
    """Run a job: bootstrap, topic (of one partition), go (the binary), seed, inputs."""
    kafka, go = ByKafka(job["bootstrap"], job["topic"]), ByGo(Path(job["go"]))
    with Closing(kafka, go), tempfile.TemporaryDirectory(prefix="dwcp-differential-") as folder:
        differential = Differential(Path(folder), kafka, go, extra)
        differential.run(job["seed"], job["inputs"])
    found = differential.found
    del found.schema_does_not_say["nothing"]
    return {
        "inputs": dict(found.inputs), "outcomes": dict(found.outcomes), "compared": dict(found.compared),
        "schema_does_not_say": dict(found.schema_does_not_say), "differences": found.differences, "examples": found.examples,
    }  # fmt: skip


def new_topic(bootstrap: str, name: str) -> None:
    """Create a topic of one partition for values of any size."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics({name: {"num_partitions": 1, "configs": {"max.message.bytes": str(32 << 20)}}}, wait_for_metadata=True)
    admin.close()


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
