"""The telemetry record: its 22 columns, which of them the model reads, and the batch that crosses package borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]
Ints: TypeAlias = NDArray[np.int32]
Flags: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int16]
Bytes: TypeAlias = NDArray[np.uint8]

COLUMNS: Final = (
    "timestamp", "region", "az", "link_type", "node_id", "peer_id", "rtt_ms", "jitter_ms", "throughput_mbps",
    "bytes_tx", "bytes_rx", "packet_loss", "retransmits", "congestion_window", "queue_depth", "dwcp_mode",
    "network_tier", "transport_type", "time_of_day", "day_of_week", "bandwidth_mbps", "latency_ms",
)  # fmt: skip
"""The 22 columns of a record, in the order of the CSV form."""

TARGETS: Final = ("throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms")
"""The primary metrics: what is forecast, in the order of the model's output."""

NUMERIC: Final = (
    *TARGETS, "congestion_window", "queue_depth", "retransmits", "bytes_tx", "bytes_rx", "time_of_day", "day_of_week",
)  # fmt: skip
"""The numeric columns that features are made of, in the order of a ring's row (R = 11)."""

CATEGORIES: Final = ("region", "az", "link_type", "dwcp_mode", "network_tier", "transport_type")
"""The categorical columns, in the order of a ring's codes (C = 6)."""

DEFAULT_LINK_KEY: Final = ("node_id", "peer_id", "link_type")
KEY_COLUMNS: Final = ("node_id", "peer_id", *CATEGORIES)
"""Columns that a link key may be made of."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One ordered part of a stream: a Kafka partition, or a file replayed as partition 0 of a topic of its name."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


@dataclass(frozen=True, slots=True)
class TelemetryBatch:
    """N valid records of one partition, in stream order.

    offsets: int64 (N,), position in the partition. time_s: float64 (N,), UTC seconds.
    numeric: float32 (N, 11), the columns NUMERIC, NaN where not measured.
    node_id, peer_id: N strings. categories: one list of N strings for each of CATEGORIES, None where missing.
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
        """The records from `begin` to before `end`."""
        return TelemetryBatch(
            self.offsets[begin:end],
            self.time_s[begin:end],
            self.numeric[begin:end],
            self.node_id[begin:end],
            self.peer_id[begin:end],
            tuple(column[begin:end] for column in self.categories),
        )

    def column(self, name: str) -> list[str] | list[str | None]:
        """The N values of one of KEY_COLUMNS."""
        if name == "node_id":
            return self.node_id
        if name == "peer_id":
            return self.peer_id
        return self.categories[CATEGORIES.index(name)]
