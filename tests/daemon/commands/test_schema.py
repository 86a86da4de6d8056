"""The checked-in documents describe what the code does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.commands import documents
from daemon.events.alerts import choice_event, model_event
from features.columns import LARGEST
from features.telemetry import COLUMNS, Partition
from model.registry.choice import Choice, Kind
from streams.events import DEAD_LETTER_TOPIC, DRIFT_TOPIC, MODELS_TOPIC, TELEMETRY_TOPIC
from streams.records import schema
from streams.records.dead_letters import MAX_KEPT_BYTES, dead_letter
from streams.records.decode import Rejected, decode
from streams.source import RawBatch
from testkit.paths import ROOT

DOCS = ROOT / "docs"
EXAMPLE = schema.telemetry_schema()["examples"][0]
VALIDATOR = jsonschema.Draft202012Validator(schema.telemetry_schema())


def test_the_checked_in_documents_are_current(tmp_path: Path) -> None:
    """After a change of the code: make docs"""
    assert documents.main([str(tmp_path)]) == 0
    for name in (schema.TELEMETRY_FILE, schema.ASYNCAPI_FILE, documents.ALERT_FILE):
        assert (DOCS / name).read_text() == (tmp_path / name).read_text()


def test_the_command_wants_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints its usage without one."""
    assert documents.main([]) == 2
    assert "python -m daemon.commands.documents FOLDER" in capsys.readouterr().err


def test_the_schema_is_one() -> None:
    """It is valid in its own dialect, with every column in order and described, and its example accepted by schema and decoder."""
    jsonschema.Draft202012Validator.check_schema(schema.telemetry_schema())
    assert tuple(schema.telemetry_schema()["properties"]) == COLUMNS
    assert all(field["description"] for field in schema.telemetry_schema()["properties"].values())
    assert accepted_by_schema(EXAMPLE)
    assert accepted_by_decoder(EXAMPLE)


def accepted_by_schema(record: Any) -> bool:
    return VALIDATOR.is_valid(record)


def accepted_by_decoder(record: Any) -> bool:
    return len(decode(RawBatch(Partition("t", 0), [0], [json.dumps(record).encode()]), None).batch) == 1


values = (
    st.none() | st.booleans() | st.integers(-2, 30) | st.floats(-2, 30)
    | st.sampled_from([LARGEST, 1e39, -0.0, 1.5, 7, 10**30, 10**254, 10**256, 1e300])
    | st.text(max_size=3) | st.just("x" * 256) | st.just("x" * 257) | st.lists(st.integers(), max_size=1) | st.just({"a": 1})
)  # fmt: skip
TIMES = (
    None, 0, 631152000, 631151999.9, 1e11, 1.0001e11, 1762232095, True, [1762232095], "1762232095", "", "2026-01-05T00:00:00Z",
    "2026-01-05t00:00:00.123456789z", "2026-01-05 00:00:00-00:00", "2026-01-05T00:00:00+0530", "2026-01-05T00:00:00,5Z",
    "2026-01-05T00:00:00", "2026-01-05", "2026-01-05T24:00:00Z", "2016-12-31T23:59:60Z", "2026-01-05T00:00:00+24:00",
    "2023-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2026-06-31T00:00:00Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
)  # fmt: skip
times = st.sampled_from(TIMES)


@given(
    st.dictionaries(st.sampled_from([name for name in COLUMNS if name != "timestamp"]), values, max_size=4),
    st.dictionaries(st.just("timestamp"), times),
    st.sets(st.sampled_from(COLUMNS)),
)
@settings(max_examples=400, deadline=None)
def test_schema_and_decoder_accept_the_same_records(changed: dict[str, Any], time: dict[str, Any], left_out: set[str]) -> None:
    """Each rejects what the other rejects, the clock apart. Bytes, and times near the bounds: test_differential.py."""
    record = {name: value for name, value in EXAMPLE.items() if name not in left_out} | changed | time
    assert accepted_by_schema(record) == accepted_by_decoder(record)


@pytest.mark.parametrize(
    "rejected",
    [
        Rejected(0, b"\xff", "not_json", "not JSON", ("a.csv", 2)),
        Rejected(5, None, "tombstone", "the value is null"),
        Rejected(5, b"x" * (MAX_KEPT_BYTES + 1), "too_large", "too large"),
    ],
)
def test_a_dead_letter_is_as_documented(rejected: Rejected) -> None:
    """The event as it is encoded fits the schema of its topic, with headers of the documented names."""
    document = schema.asyncapi(documents.alert_schema(), documents.model_schema())
    letter = dead_letter(rejected, Partition("t", 0), "/dwcp", 0.0)
    jsonschema.validate(json.loads(letter.encode()), document["components"]["schemas"]["rejected"])
    headers = document["components"]["messages"]["rejected"]["headers"]
    assert sorted(name for name, _ in letter.headers) == sorted(headers["required"])


def test_what_is_told_of_models_is_as_documented() -> None:
    """Publications, of an older release's manifest too, and each kind of choice fit the schema; anything else does not."""
    model = documents.model_schema()
    manifest = {"parent": None, "reason": "drift", "verdict": {"accepted": True}, "number": 7, "files": {"a": {"sha256": "0", "bytes": 1}}}
    events = [model_event("v20260101_000000", "/dwcp", 0.0, fields, live) for fields, live in ((manifest, True), ({}, False))]
    events += [choice_event(Choice(kind, "v20260101_000000", 8, 0.0), "/dwcp") for kind in get_args(Kind)]
    for event in events:
        document = json.loads(event.encode())
        jsonschema.validate(document, model)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | {"type": "dwcp.model.other"}, model)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_the_asyncapi_document_is_whole() -> None:
    """Every topic is there, every reference leads somewhere, and every schema is one in AsyncAPI's dialect (a superset of draft 7)."""
    document = schema.asyncapi(documents.alert_schema(), documents.model_schema())
    assert [channel["address"] for channel in document["channels"].values()] == [
        TELEMETRY_TOPIC,
        DEAD_LETTER_TOPIC,
        DRIFT_TOPIC,
        MODELS_TOPIC,
    ]
    found = set(references(document))
    assert len(found) == 4 * 4
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for part in document["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(part)
