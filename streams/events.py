"""CloudEvents 1.0: the envelope of drift alerts, model announcements and dead letters.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, structured JSON mode
(Kafka protocol binding: content-type application/cloudevents+json).
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec

CONTENT_TYPE = b"application/cloudevents+json; charset=utf-8"

TELEMETRY_TOPIC: Final = "dwcp.telemetry"
DEAD_LETTER_TOPIC: Final = "dwcp.telemetry.dlq"
DRIFT_TOPIC: Final = "dwcp.drift"
MODELS_TOPIC: Final = "dwcp.models"

REMEMBERED: Final = 100_000
"""Number of ids that are remembered to recognise repeats."""

EventData: TypeAlias = dict[str, Any]
"""An event that was read: its JSON object, with id, type, time and data."""


def event_id(*cause: object) -> str:
    """Return an id that is derived from the cause of the event: a replay makes the same one, so a subscriber can drop repeats.

    Args:
        cause: Values that identify the cause.
    """
    return hashlib.sha256("\x1f".join(map(str, cause)).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent.

    Args:
        id: From `event_id`.
        type: Of the event, such as "dwcp.model".
        source: A URI reference that names this daemon.
        subject: What the event is about; events of one subject stay in order.
        time_s: When it happened, UTC seconds; not when it was sent.
        data: JSON-ready fields.
        headers: Further Kafka headers, such as the topic, partition and offset of a dead letter.
    """

    id: str
    type: str
    source: str
    subject: str
    time_s: float
    data: dict[str, Any]
    headers: tuple[tuple[str, bytes], ...] = ()

    def encode(self) -> bytes:
        """Return the structured JSON form."""
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": self.id,
                "type": self.type,
                "source": self.source,
                "subject": self.subject,
                "time": datetime.fromtimestamp(self.time_s, UTC).isoformat().replace("+00:00", "Z"),
                "datacontenttype": "application/json",
                "data": self.data,
            }
        )


def fresh_events(values: Iterable[bytes]) -> Iterator[EventData]:
    """Yield the events among values in structured JSON form, each id once. What is not an event is skipped.

    Args:
        values: Encoded events, oldest first.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    for value in values:
        event = _decoded(value)
        if event is None or event["id"] in seen:
            continue
        seen[event["id"]] = None
        if len(seen) > REMEMBERED:
            seen.popitem(last=False)
        yield event


def _decoded(value: bytes) -> EventData | None:
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if isinstance(event, dict) and all(isinstance(event.get(name), str) for name in ("id", "type", "time")):
        return event if isinstance(event.get("data"), dict) else None
    return None
