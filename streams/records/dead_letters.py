"""Refused records as events: the original bytes, the reason, and the origin. Nothing is dropped in silence."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any, Final

from features.telemetry import Partition
from streams.events import Event, event_id
from streams.records.decode import Rejected

TYPE: Final = "dwcp.telemetry.rejected"
MAX_KEPT_BYTES: Final = 512 << 10  # 683 KiB in base64: under a broker's default limit of 1 MB for a message


def dead_letter(rejected: Rejected, partition: Partition, source: str, time_s: float, shift: int = 0) -> Event:
    """Return the event for one refused record.

    `value_base64` holds the whole value up to MAX_KEPT_BYTES. Of a larger one it holds the first part, and `sha256` is that of the whole
    value, which can still be read from the source at this offset.

    Args:
        rejected: The record.
        partition: Where it is from.
        source: The CloudEvents source, a URI reference that names this daemon.
        time_s: When it was refused, UTC seconds.
        shift: See `source.Log`. The event names the offset at which the record is found, and its id is unique to the record.
    """
    value, offset = rejected.value, rejected.offset - shift
    data: dict[str, Any] = {
        "topic": partition.topic,
        "partition": partition.number,
        "offset": offset,
        "kind": rejected.kind,
        "reason": rejected.reason,
        "size_bytes": None if value is None else len(value),
        "value_base64": None if value is None else b64encode(value[:MAX_KEPT_BYTES]).decode(),
        "truncated": value is not None and len(value) > MAX_KEPT_BYTES,
    }
    if value is not None and data["truncated"]:
        data["sha256"] = hashlib.sha256(value).hexdigest()
    if rejected.line is not None:
        data["file"], data["line"] = rejected.line
    return Event(
        id=event_id(TYPE, partition.topic, partition.number, rejected.offset),
        type=TYPE,
        source=source,
        subject=f"{partition}@{offset}",
        time_s=time_s,
        data=data,
        headers=(
            ("topic", partition.topic.encode()),
            ("partition", str(partition.number).encode()),
            ("offset", str(offset).encode()),
            ("kind", rejected.kind.encode()),
            ("reason", rejected.reason.encode()),
        ),
    )
