"""The telemetry record: groups of columns by their use, and the batch that is passed between packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.columns import TABLE, in_rows, names

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]
Ints: TypeAlias = NDArray[np.int32]
Flags: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int16]
Bytes: TypeAlias = NDArray[np.uint8]

COLUMNS: Final = tuple(column.name for column in TABLE)
"""The 22 columns of a record, in the order of the CSV form."""

NUMERIC: Final = in_rows(TABLE)
"""The numeric columns that features are made of, in the order of a ring's row (R = 11). The targets come first."""

TARGETS: Final = NUMERIC[: len(names("target"))]
"""The primary metrics, which are forecast, in the order of the model's output."""

CALENDAR: Final = tuple(name for name in NUMERIC if name in names("calendar"))
"""The numeric columns that follow from the time of a record if they are missing."""

CATEGORIES: Final = names("category")
"""The categorical columns, in the order of a ring's codes (C = 6)."""

DEFAULT_LINK_KEY: Final = ("node_id", "peer_id", "link_type")
ENDS: Final = names("end")
"""The two ends of a link, needed in every record."""
KEY_COLUMNS: Final = (*ENDS, *CATEGORIES)
"""Columns that a link key may be made of."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One ordered part of a stream: a Kafka partition, or a file that is replayed as partition 0 of a topic of its name.

    Args:
        topic: Name of the topic.
        number: Number of the partition, from 0.

    >>> str(Partition("dwcp.telemetry", 3))
    'dwcp.telemetry-3'
    """

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


@dataclass(frozen=True, slots=True)
class TelemetryBatch:
    """N valid records of one partition, in stream order.

    Args:
        offsets: int64 (N,), positions in the partition.
        time_s: float64 (N,), UTC seconds.
        numeric: float32 (N, R), the columns NUMERIC, NaN if not measured.
        node_id: N strings, the measuring ends.
        peer_id: N strings, the far ends.
        categories: For each of CATEGORIES a list of N strings, None if missing.

    >>> numeric = np.full((2, len(NUMERIC)), np.nan, np.float32)
    >>> categories = tuple([name, None] for name in CATEGORIES)
    >>> batch = TelemetryBatch(np.arange(2), np.array([0.0, 60.0]), numeric, ["a", "b"], ["x", "y"], categories)
    >>> len(batch.part(1, 2)), batch.column("node_id"), batch.column("region")
    (1, ['a', 'b'], ['region', None])
    """

    offsets: Longs
    time_s: Doubles
    numeric: Floats
    node_id: list[str]
    peer_id: list[str]
    categories: tuple[list[str | None], ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, begin: int, end: int) -> TelemetryBatch:
        """Return the records from index `begin` to before index `end`."""
        return TelemetryBatch(
            self.offsets[begin:end],
            self.time_s[begin:end],
            self.numeric[begin:end],
            self.node_id[begin:end],
            self.peer_id[begin:end],
            tuple(column[begin:end] for column in self.categories),
        )

    def column(self, name: str) -> list[str] | list[str | None]:
        """Return the N values of one of KEY_COLUMNS."""
        if name == "node_id":
            return self.node_id
        if name == "peer_id":
            return self.peer_id
        return self.categories[CATEGORIES.index(name)]
