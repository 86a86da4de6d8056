"""The table of columns of a telemetry record, written once.

Every other list of columns derives from TABLE: the names and orders in `telemetry.py`, the record that is decoded, the ranges that are
checked, the JSON Schema, the units and labels of alerts and charts, and the positions that kernels use. To add a measurement, add a row
here; whatever needs a decision then (a formula in `kernels.py`, a new `definition.VERSION`) fails by name, not with a wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

Role: TypeAlias = Literal["time", "end", "category", "target", "counter", "calendar", "older"]
"""The purpose of a column.

time: UTC seconds of the sample. end: one of the two ends of a link, needed in every record. category: a text that becomes a code.
target: a metric that is forecast. counter: a number that features are made of. calendar: a number that follows from the time if it is
missing. older: an earlier name of a target, read if that is missing.
"""

LARGEST: Final = float(np.finfo(np.float32).max)
"""Largest number that a record may hold: values are kept as float32."""
EARLIEST_S: Final = 631_152_000.0  # 1990-01-01: anything before is a count from boot or a count of minutes, not a UTC time
LATEST_S: Final = 1e11  # the year 5138; milliseconds passed it in 1973


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a telemetry record.

    Args:
        name: In records, files, the training buffer and metadata.
        role: The purpose of the column.
        description: One sentence for the JSON Schema.
        position: Of a numeric column, its place in a row of `NUMERIC`. State on disk depends on it: never change one, only add at the end.
        unit: As people write it; empty for a share, a count or a text.
        label: Name in alerts and charts; empty means the name itself.
        stem: Of a target, the beginning of the names of its rolling features.
        low: Smallest value that is accepted, in the column's unit.
        high: Largest value that is accepted, in the column's unit.
        stands_for: Of an older name, the column that it stands for.

    >>> COLUMN["rtt_ms"].unit, COLUMN["packet_loss"].high
    ('ms', 1.0)
    """

    name: str
    role: Role
    description: str
    position: int | None = None
    unit: str = ""
    label: str = ""
    stem: str = ""
    low: float = 0.0
    high: float = LARGEST
    stands_for: str = ""


TABLE: Final = (
    Column(
        "timestamp", "time", "When the sample was taken, UTC: unix seconds, or RFC 3339 with its offset, of which microseconds count.",
        unit="s", low=EARLIEST_S, high=LATEST_S,
    ),
    Column("region", "category", "Group of links in which drift is judged together."),
    Column("az", "category", "Availability zone."),
    Column("link_type", "category", "Kind of link; with node_id and peer_id it tells links apart."),
    Column("node_id", "end", "The measuring end of the link."),
    Column("peer_id", "end", "The far end of the link."),
    Column("rtt_ms", "target", "Round-trip time, milliseconds.", 1, "ms", label="RTT", stem="rtt"),
    Column("jitter_ms", "target", "Jitter, milliseconds.", 3, "ms", label="jitter", stem="jitter"),
    Column("throughput_mbps", "target", "Throughput, megabits per second.", 0, "Mbps", label="throughput", stem="throughput"),
    Column("bytes_tx", "counter", "Bytes sent in the interval.", 7),
    Column("bytes_rx", "counter", "Bytes received in the interval.", 8),
    Column("packet_loss", "target", "Share of packets lost, 0 to 1.", 2, label="loss", stem="packet_loss", high=1.0),
    Column("retransmits", "counter", "Retransmitted segments in the interval.", 6),
    Column("congestion_window", "counter", "Congestion window, segments.", 4),
    Column("queue_depth", "counter", "Packets queued.", 5),
    Column("dwcp_mode", "category", "Mode of the transport protocol."),
    Column("network_tier", "category", "Service class of the network."),
    Column("transport_type", "category", "Transport, such as tcp or udp."),
    # 24 itself is what 23:59:59.99 becomes in four decimals: it is kept as the last instant of its day.
    Column("time_of_day", "calendar", "Hour with fraction; derived from the timestamp in UTC when missing.", 9, "h", high=24.0),
    Column("day_of_week", "calendar", "0 = Monday to 6; derived from the timestamp in UTC when missing.", 10, high=6.0),
    Column("bandwidth_mbps", "older", "Older name of throughput_mbps, read where that is missing.", stands_for="throughput_mbps"),
    Column("latency_ms", "older", "Older name of rtt_ms, read where that is missing.", stands_for="rtt_ms"),
)  # fmt: skip
"""The 22 columns, in the order of the CSV form."""

COLUMN: Final[Mapping[str, Column]] = {column.name: column for column in TABLE}
"""Every column by its name."""


def names(*roles: Role) -> tuple[str, ...]:
    """Return the names of the columns with one of these roles, in the order of the CSV form."""
    return tuple(column.name for column in TABLE if column.role in roles)


def in_rows(table: Sequence[Column]) -> tuple[str, ...]:
    """Return the names of the numeric columns in the order of their positions.

    Raises:
        ValueError: The positions are not 0, 1, 2, ..., or the targets do not come first. All that reads `row[: len(TARGETS)]` needs both.
    """
    numeric = sorted((column for column in table if column.position is not None), key=lambda column: column.position or 0)
    targets = sum(column.role == "target" for column in table)
    if [column.position for column in numeric] != list(range(len(numeric))):
        found = ", ".join(f"{column.name} {column.position}" for column in numeric)
        raise ValueError(f"positions of the numeric columns must be 0, 1, 2 and so on, each once; they are {found}")
    if any(column.role != "target" for column in numeric[:targets]):
        raise ValueError(f"positions of the targets: they must be 0 to {targets - 1}, before all other numeric columns")
    return tuple(column.name for column in numeric)


def first_of(group: Sequence[str], order: Sequence[str]) -> int:
    """Return the position in `order` at which a group of names begins.

    Raises:
        ValueError: The names do not follow one another there, in this order: a loop over the group would use other columns.

    >>> first_of(("b", "c"), ("a", "b", "c"))
    1
    """
    first = order.index(group[0])
    if tuple(order[first : first + len(group)]) != tuple(group):
        raise ValueError(f"{', '.join(group)} must follow one another; the order is {', '.join(order)}")
    return first


RANGES: Final[Mapping[str, tuple[float, float]]] = {name: (COLUMN[name].low, COLUMN[name].high) for name in in_rows(TABLE)}
"""Lowest and highest accepted value of each numeric column."""
OLDER_NAMES: Final[Mapping[str, str]] = {COLUMN[older].stands_for: older for older in names("older")}
"""The older name that is read if a target is missing, by the target's name."""
