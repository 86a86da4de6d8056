"""The contracts of the topics as documents, made from the code: JSON Schema of the telemetry record, and AsyncAPI 3.

https://json-schema.org/draft/2020-12, https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import sys
from typing import Any, Final, get_args

from features.columns import OLDER_NAMES, RANGES, TABLE, Column, names
from features.telemetry import DEFAULT_LINK_KEY, ENDS, KEY_COLUMNS, TARGETS
from streams import events
from streams.records import dead_letters
from streams.records.csv_form import MAX_VALUE_BYTES
from streams.records.decode import MAX_DEPTH
from streams.records.validate import MAX_FUTURE_S, MAX_NUMBER_AS_TEXT, MAX_TEXT_CHARS, Kind

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TELEMETRY_FILE: Final = "telemetry.schema.json"
ASYNCAPI_FILE: Final = "asyncapi.json"

LARGEST_DOUBLE: Final = sys.float_info.max
_LEAP_YEAR: Final = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE: Final = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
TIME_PATTERN: Final = f"^{_DATE}[Tt ]{_CLOCK}:[0-5][0-9](?:[.][0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])$"
"""RFC 3339 as it is read: a space may stand for the T, the colon of the offset may be missing, and there is no leap second."""
YEARS_PATTERN: Final = "^(?:1989|199[0-9]|[2-4][0-9]{3}|50[0-9]{2}|51[0-2][0-9]|513[0-8])-"
"""The years between the bounds, and one before them: an offset may move its last hours into the range."""


def telemetry_schema() -> Schema:
    """Return the JSON Schema of one telemetry record: what `streams.records.decode` accepts, except for the clock."""
    metrics = (*TARGETS, *OLDER_NAMES.values())
    return {
        "$schema": DIALECT,
        "$id": f"urn:{events.TELEMETRY_TOPIC}:record:1",
        "title": "Telemetry record",
        "description": (
            "One sample of one network link. Metrics may be missing or null; further fields are ignored. "
            f"A link is {', '.join(DEFAULT_LINK_KEY)}: key the topic by them, so that it stays in order. "
            "Written as I-JSON (RFC 7493): UTF-8 without a byte order mark, whole characters, numbers as doubles; names are matched "
            "letter by letter, and of a name that comes twice the last value counts. Not said below: "
            f"at most {MAX_VALUE_BYTES} bytes, nested at most {MAX_DEPTH} deep, and a timestamp as text has the bounds of one in seconds."
        ),
        "type": "object",
        "required": [*names("time"), *ENDS],
        "anyOf": [{"required": [name], "properties": {name: {"type": "number"}}} for name in metrics],
        "properties": {column.name: _field(column) for column in TABLE},
        "allOf": [_stands_in(name, older) for name, older in OLDER_NAMES.items()],
        "additionalProperties": True,
        "examples": [_EXAMPLE],
    }


def _field(column: Column) -> Schema:
    if column.role == "time":
        seconds = {"type": "number", "minimum": column.low, "maximum": column.high}
        return {
            "description": f"{column.description} At most {MAX_FUTURE_S:.0f} s in the future.",
            "anyOf": [seconds, {"type": "string", "allOf": [{"pattern": TIME_PATTERN}, {"pattern": YEARS_PATTERN}]}],
        }
    if column.name in KEY_COLUMNS:
        needed = column.role == "end"
        return {
            "description": column.description,
            "type": ["string", "number"] if needed else ["string", "number", "null"],
            **({"minLength": 1} if needed else {}),
            "maxLength": MAX_TEXT_CHARS,
            "exclusiveMinimum": -MAX_NUMBER_AS_TEXT,
            "exclusiveMaximum": MAX_NUMBER_AS_TEXT,
        }
    low, high = RANGES.get(column.name, (-LARGEST_DOUBLE, LARGEST_DOUBLE))  # an older name is only looked at if it is needed
    return {"description": column.description, "type": ["number", "null"], "minimum": low, "maximum": high}


def _stands_in(name: str, older: str) -> Schema:
    """Return the range of an older name, which counts if it is read."""
    low, high = RANGES[name]
    return {
        "if": {"required": [name], "properties": {name: {"type": "number"}}},
        "else": {"properties": {older: {"minimum": low, "maximum": high}}},
    }


_EXAMPLE: Final[Schema] = {
    "timestamp": 1762232095, "region": "us-east-1", "az": "us-east-1b", "link_type": "metro", "node_id": "edge-17",
    "peer_id": "core-2", "rtt_ms": 53.04, "jitter_ms": 8.87, "throughput_mbps": 424.8, "bytes_tx": 2922617192,
    "bytes_rx": 2642833842, "packet_loss": 0.0288, "retransmits": 33, "congestion_window": 883, "queue_depth": 60,
    "dwcp_mode": "turbo", "network_tier": "Economy", "transport_type": "udp",
}  # fmt: skip


def cloud_event(data: Schema, type_: Schema) -> Schema:
    """Return the JSON Schema of a CloudEvents 1.0 envelope as `streams.events.Event` writes it.

    Args:
        data: Schema of the data.
        type_: Schema of the type.
    """
    return {
        "type": "object",
        "required": ["specversion", "id", "type", "source", "subject", "time", "datacontenttype", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1, "description": "The same for the same cause: a repeat can be dropped by it."},
            "type": type_,
            "source": {"type": "string", "format": "uri-reference", "minLength": 1},
            "subject": {"type": "string"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "data": data,
        },
    }


def dead_letter_data() -> Schema:
    """Return the JSON Schema of the data of a dead letter, as `streams.records.dead_letters.dead_letter` writes it."""
    return {
        "type": "object",
        "required": ["topic", "partition", "offset", "kind", "reason", "size_bytes", "value_base64", "truncated"],
        "properties": {
            "topic": {"type": "string"},
            "partition": {"type": "integer", "minimum": 0},
            "offset": {"type": "integer", "minimum": 0},
            "kind": {"enum": list(get_args(Kind))},
            "reason": {"type": "string"},
            "size_bytes": {"type": ["integer", "null"], "minimum": 0, "description": "Of the original value; null for a null value."},
            "value_base64": {
                "type": ["string", "null"],
                "contentEncoding": "base64",
                "description": f"The original bytes, of a value over {dead_letters.MAX_KEPT_BYTES} bytes the first ones.",
            },
            "truncated": {"type": "boolean"},
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Of the whole value, where it is truncated."},
            "file": {"type": "string", "description": "Where the record came from a file."},
            "line": {"type": "integer", "minimum": 1},
        },
        "additionalProperties": False,
    }


def asyncapi(drift: Schema, models: Schema) -> Schema:
    """Return the AsyncAPI 3 document: what the daemon receives and sends, topic by topic.

    Args:
        drift: Schema of the events on the drift topic.
        models: Schema of the events on the models topic.
    """
    rejected = cloud_event(dead_letter_data(), {"const": dead_letters.TYPE})
    topics: dict[str, tuple[str, str, str, Schema]] = {
        "telemetry": (events.TELEMETRY_TOPIC, "receive", "Samples of network links.", _embedded(telemetry_schema())),
        "rejected": (events.DEAD_LETTER_TOPIC, "send", "Records that are not telemetry, with the original bytes and the reason.", rejected),
        "drift": (events.DRIFT_TOPIC, "send", "Incidents: opened, updated, closed; and the trainings they ask for.", _embedded(drift)),
        "models": (events.MODELS_TOPIC, "send", "Published versions; and what a person does with the live one.", models),
    }
    headers = {name: {"type": "string"} for name in ("topic", "partition", "offset", "kind", "reason")}
    messages = {
        name: {
            "title": text,
            "contentType": "application/json" if name == "telemetry" else events.CONTENT_TYPE.decode(),
            **({"headers": {"type": "object", "required": list(headers), "properties": headers}} if name == "rejected" else {}),
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        for name, (_, _, text, _) in topics.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "dwcp-learner",
            "version": "1.0.0",
            "description": "Telemetry in; drift alerts, model announcements and dead letters out. Topic names are the defaults.",
        },
        "defaultContentType": "application/json",
        "channels": {
            name: {"address": topic, "description": text, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
            for name, (topic, _, text, _) in topics.items()
        },
        "operations": {
            name: {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
            }
            for name, (_, action, _, _) in topics.items()
        },
        "components": {"messages": messages, "schemas": {name: schema for name, (_, _, _, schema) in topics.items()}},
    }


def _embedded(schema: Schema) -> Schema:
    """Return a schema for AsyncAPI's own dialect, a superset of JSON Schema draft 7. All that is used here means the same there."""
    return {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
