"""A refused record says what it is and what to do; its kind, a label of metrics, is what it was."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from typing import Any, get_args

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from features.telemetry import Partition
from streams.records.advice import with_cause
from streams.records.decode import decode
from streams.records.validate import Failure, Kind
from streams.source import RawBatch

GOOD: dict[str, Any] = {"timestamp": 1767571200, "node_id": "a", "peer_id": "b", "rtt_ms": 20}
VALUE = json.dumps(GOOD).encode()
AVRO = b"\x00\x00\x00\x01\x02" + b"\x02a\x02b\x00\x00\x00\x00\x00\x00\x34\x40"


def refused(value: bytes) -> tuple[Kind, str]:
    (rejected,) = decode(RawBatch(Partition("t", 0), [0], [value]), None).rejected
    return rejected.kind, rejected.reason


@pytest.mark.parametrize(
    ("value", "kind", "cause", "way_out"),
    [
        (VALUE.replace(b"20}", b"NaN}"), "not_json", "rtt_ms is NaN", "write null"),
        (VALUE.replace(b"20}", b"-Infinity}"), "not_json", "rtt_ms is -Infinity", "write null"),
        (str(GOOD | {"rtt_ms": None}).encode().replace(b"'", b'"'), "not_json", "rtt_ms is None", "write null"),
        (str(GOOD).encode(), "not_json", "single quotes", "json.dumps"),
        (b"\xef\xbb\xbf" + VALUE, "not_json", "byte order mark", "UTF-8 without"),
        (VALUE.decode().encode("utf-16"), "not_json", "UTF-16", "write UTF-8"),
        (VALUE.decode().encode("utf-16-le"), "not_json", "UTF-16", "write UTF-8"),
        (VALUE.decode().encode("utf-16-be"), "not_json", "UTF-16", "write UTF-8"),
        (VALUE.decode().encode("utf-32"), "not_json", "UTF-32", "write UTF-8"),
        (VALUE.replace(b'"a"', '"Zürich"'.encode("latin-1")), "not_json", "not UTF-8", "Latin-1"),
        (b"\x00\x00\x00\x00\x07" + VALUE, "not_json", "Schema Registry (a zero byte, then schema 7), before JSON", "plain JSON"),
        (AVRO, "not_json", "schema 258), before Avro or Protobuf", "plain JSON"),
        (b"Obj\x01\x04\x14avro.codec", "not_json", "an Avro file", "one JSON object"),
        (b"\x08\x80\xe8\x92\x06\x12\x01a\x1a\x01b", "not_json", "binary", "one JSON object"),
        (gzip.compress(VALUE, mtime=0), "not_json", "gzip", "compression.type"),
        (zstandard.compress(VALUE), "not_json", "zstd", "compression.type"),
        (lz4.frame.compress(VALUE), "not_json", "lz4", "compression.type"),
        (snappy.StreamCompressor().compress(VALUE), "not_json", "snappy", "compression.type"),
        (zlib.compress(VALUE), "not_json", "zlib", "compression.type"),
        (bz2.compress(VALUE), "not_json", "bzip2", "compression.type"),
        (lzma.compress(VALUE), "not_json", "xz", "compression.type"),
        (b"", "not_json", "the value is empty", "sends a null"),
        (b"  \n", "not_json", "the value is empty", "sends a null"),
        (b"[" + VALUE + b"]", "wrong_type", "an array", "a message of its own"),
        (json.dumps(VALUE.decode()).encode(), "wrong_type", "encoded twice", "encode it once"),
        (b'"down"', "wrong_type", "a text", "JSON object"),
        (VALUE + b"\n" + VALUE, "not_json", "more than one record", "a message of its own"),
        (VALUE + b"," + VALUE, "not_json", "more than one record", "a message of its own"),
        (b"1767571200,a,b,20,400", "wrong_type", "a line of CSV", "files and pipes"),
        (b"2026-01-05T00:00:00Z,a,b,20", "wrong_type", "a line of CSV", "files and pipes"),
        (b"timestamp,node_id,peer_id,rtt_ms", "not_json", "a line of CSV", "files and pipes"),
        (VALUE[:30], "not_json", "ends before the object does", "limit of size"),
        (VALUE.replace(b'"a"', rb'"\ud800"'), "not_json", "half of a surrogate pair", "whole characters"),
        (VALUE.replace(b'"a"', b'"a\x00"'), "not_json", "control character", "four hexadecimal digits"),
        (VALUE.replace(b"1767571200", b'"1767571200"'), "wrong_type", "in quotes", "without quotes"),
        (VALUE.replace(b"20}", b'"20.5"}'), "wrong_type", "rtt_ms is", "without quotes"),
        (VALUE.replace(b"1767571200", b'"2026-01-05 00:00"'), "wrong_type", '"2026-01-05 00:00"', "RFC 3339"),
        (VALUE.replace(b"timestamp", b"Timestamp"), "missing_field", "there is 'Timestamp'", "small letters"),
        (VALUE.replace(b"rtt_ms", b"RTT_MS"), "missing_field", "there is 'RTT_MS'", "small letters"),
        (json.dumps({"schema": {}, "payload": GOOD}).encode(), "missing_field", "within 'payload'", "the record itself"),
        (json.dumps({"specversion": "1.0", "data": GOOD}).encode(), "missing_field", "within 'data'", "the record itself"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_reason_names_the_cause_and_the_way_out(value: bytes, kind: Kind, cause: str, way_out: str) -> None:
    """Each mistake that producers of a whole topic make has its own text."""
    found, reason = refused(value)
    assert found == kind
    assert cause in reason
    assert way_out in reason
    assert len(reason) < 400


@pytest.mark.parametrize(
    "value", [VALUE.replace(b'"a"', b'"NaN"'), VALUE.replace(b'"a"', b'"\xef\xbb\xbf"'), VALUE.replace(b'"a"', rb'"\\ud800"')]
)
def test_what_only_looks_like_it_is_accepted(value: bytes) -> None:
    """A text may say anything."""
    assert len(decode(RawBatch(Partition("t", 0), [0], [value]), None).batch) == 1


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.sampled_from(get_args(Kind)), st.text(max_size=30))
@example(b'"\\ud800"', "wrong_type", "Expected `object`, got `str`")
@example(b'{"a":1}', "wrong_type", "at `$.b`")
def test_advice_never_fails_and_changes_no_kind(value: bytes, kind: Kind, reason: str) -> None:
    """The text of the decoder stays in front, for any bytes."""
    advised = with_cause(Failure(kind, reason), value)
    assert advised.kind == kind
    assert advised.reason.startswith(reason)
    assert len(advised.reason) < len(reason) + 300


@pytest.mark.parametrize(
    "value", [b"{" + b"}" + b" " * 1_000_000, b'{"' + b'\\"' * 500_000, b"[" * 1_000_000, b"}{" * 400_000, b'"' * 1_000_000]
)
def test_advice_on_a_large_value_reads_it_once(value: bytes) -> None:
    """No pattern goes back over a value again and again: the test's time limit would show it."""
    assert refused(value[: 1 << 20])[1]
