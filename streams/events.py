"""CloudEvents 1.0: the envelope of drift alerts, model announcements and dead letters.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, structured JSON mode
(Kafka protocol binding: content-type application/cloudevents+json).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

CONTENT_TYPE = b"application/cloudevents+json; charset=utf-8"

TELEMETRY_TOPIC: Final = "dwcp.telemetry"
DEAD_LETTER_TOPIC: Final = "dwcp.telemetry.dlq"
DRIFT_TOPIC: Final = "dwcp.drift"
MODELS_TOPIC: Final = "dwcp.models"


def event_id(*cause: object) -> str:
    """An id that follows from what caused the event: a replay gives the same one, so a subscriber can drop repeats."""
    return hashlib.sha256("\x1f".join(map(str, cause)).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent. time_s: UTC seconds of what happened, not of when it was sent."""

    id: str
    type: str
    source: str
    subject: str
    time_s: float
    data: dict[str, Any]
    headers: tuple[tuple[str, bytes], ...] = ()
    """Further Kafka headers (a dead letter's topic, partition and offset)."""

    def encode(self) -> bytes:
        """The structured JSON form."""
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
