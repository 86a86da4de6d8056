"""JSON Schemas and the AsyncAPI document, generated from the code: `python -m daemon.commands.documents docs` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, get_args

from daemon.events.alerts import MODEL_TYPE, RETRAINING_TYPE, SEVERITIES, UNITS
from daemon.training.outcomes import Answer
from drift.messages import SIGNALS, Change, Group, Scope
from model.registry.choice import Kind as ChoiceKind
from streams.events import DRIFT_TOPIC
from streams.records.schema import ASYNCAPI_FILE, DIALECT, TELEMETRY_FILE, Schema, asyncapi, cloud_event, telemetry_schema

ALERT_FILE: Final = "drift_alert.schema.json"
OUTCOMES: Final = ("settled", "recovered", "model_replaced", "region", "fleet")


def alert_schema() -> Schema:
    """Return the JSON Schema of the drift topic: changes of incidents, and the outcomes of the trainings that they requested."""
    kinds = ("opened", "updated", "closed")
    changes = cloud_event(incident_data(kinds), {"enum": [f"{DRIFT_TOPIC}.{kind}" for kind in kinds]})
    trainings = cloud_event(retraining_data(), {"const": RETRAINING_TYPE})
    return {
        "$schema": DIALECT,
        "$id": "https://dwcp-learner.invalid/drift_alert.schema.json",
        "title": "Drift alert",
        "description": "A CloudEvents 1.0 event. The id is the same for the same cause: drop repeats by it.",
        "oneOf": [changes, trainings],
    }


def incident_data(kinds: tuple[str, ...]) -> Schema:
    """Return the schema of an incident's data. kinds: its changes."""
    names = {"type": "array", "items": {"type": "string"}}
    seconds = {"type": "number", "description": "UTC seconds."}
    return _object(
        {
            "incident": _value("string", "Stays the same from opened to closed."),
            "change": {"enum": list(kinds)},
            "sequence": {"type": "integer", "minimum": 0},
            "scope": {"enum": list(get_args(Scope)), "description": "Who has changed: one link, most of a region, most regions."},
            "group": {"enum": list(get_args(Group)), "description": "The network, or only what its producers make of it."},
            "severity": {"enum": list(SEVERITIES)},
            "region": _value(["string", "null"], "Null for the whole fleet."),
            "opened_s": seconds,
            "since_s": seconds | {"description": "The likeliest time of the change, UTC seconds: before it was noticed."},
            "summary": _value("string", "One line for a person."),
            "signals": {"type": "array", "items": signal_data()},
            "link_types": names,
            "regions": names | {"description": "Of the affected links, the first hundred."},
            "affected_regions": {"type": "integer", "minimum": 0},
            "links": names | {"description": "That are affected, the first hundred."},
            "affected_links": {"type": "integer", "minimum": 0},
            "watched_links": _value("integer", "How many links are watched, of those that could have been affected."),
            "outcome": {"enum": [*OUTCOMES, None], "description": "How a closed one ended."},
        }
    )


def signal_data() -> Schema:
    """Return the schema of one changed signal."""
    return _object(
        {
            "signal": {"enum": list(SIGNALS)},
            "change": {"enum": list(get_args(Change))},
            "direction": {"enum": [-1, 1]},
            "links": {"type": "integer", "minimum": 1},
            "size_sigma": _value("number", "In standard deviations of the residual; of a spread the factor by which it grew."),
            "size": _value("number", "In the metric's unit; of a spread the new mean absolute residual, of a unit the factor."),
            "detectors": {"type": "array", "items": {"type": "string"}},
            "before": _value(["number", "null"], "Level before the change, in the metric's unit; of a spread the mean absolute residual."),
            "after": _value(["number", "null"], "Level after it. Both are medians over the links; null if it is not known."),
            "unit": {"enum": sorted({*UNITS.values(), ""})},
        }
    )


def retraining_data() -> Schema:
    """Return the schema of the data about a training that an incident requested."""
    return _object({"incident": {"type": "string"}, "retraining": {"enum": list(get_args(Answer))}, "version": {"type": "string"}})


def model_schema() -> Schema:
    """Return the JSON Schema of the models topic: publications, and decisions of persons about the live version."""
    published = cloud_event(publication_data(), {"const": f"{MODEL_TYPE}.published"})
    choices = cloud_event(choice_data(), {"enum": [f"{MODEL_TYPE}.{kind}" for kind in get_args(ChoiceKind)]})
    return {"oneOf": [published, choices]}


def publication_data() -> Schema:
    """Return the schema of the data about a published version."""
    return _object(
        {
            "version": {"type": "string"},
            "live": _value("boolean", "Whether it became the live version: false while a person has pinned another one."),
            "parent": _value(["string", "null"], "The version that its training began with."),
            "reason": {"type": ["string", "null"]},
            "verdict": _value(["object", "null"], "How it was judged."),
            "number": _value(["integer", "null"], "Only rises; 0 if its publication did not make it live."),
            "files": _value(["object", "null"], "SHA-256 and size by name."),
        }
    )


def choice_data() -> Schema:
    """Return the schema of the data about a decision of a person."""
    return _object(
        {
            "version": _value("string", "The live version from now on."),
            "number": _value("integer", "Only rises, together with the numbers of publications."),
            "pinned": _value("boolean", "Whether it stays live whatever is trained."),
        }
    )


def documents() -> dict[str, str]:
    """Return the text of each document by its file name."""
    schemas = {TELEMETRY_FILE: telemetry_schema(), ALERT_FILE: alert_schema(), ASYNCAPI_FILE: asyncapi(alert_schema(), model_schema())}
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def _object(properties: dict[str, Any]) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def _value(kind: str | list[str], description: str) -> Schema:
    return {"type": kind, "description": description}


def main(arguments: list[str]) -> int:
    """Write the documents into the folder that is the only argument. Returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m daemon.commands.documents FOLDER", file=sys.stderr)
        return 2
    for name, text in documents().items():
        (Path(arguments[0]) / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
