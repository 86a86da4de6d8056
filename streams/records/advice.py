"""Advice on a refused value: its likely cause, and what the producer has to change. The decoder itself reports only where JSON ends.

A reason keeps the text of the decoder and gets a cause appended. Kinds, which are labels of metrics, do not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

import msgspec

from features.telemetry import COLUMNS
from streams.records.validate import Failure, Kind

_Cause: TypeAlias = Callable[[bytes, str], str | None]
"""Maps a value and the decoder's text to a cause with what to do; None if the value has another cause."""

_LOOKED_AT_BYTES: Final = 4096
"""Bytes of a large value that are inspected."""
_BOM: Final = b"\xef\xbb\xbf"
_COMPRESSED: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"\x82SNAPPY\x00", "snappy"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
)
_FORMATS: Final = ((b"Obj\x01", "an Avro file"), (b"PAR1", "a Parquet file"), (b"\xac\xed\x00\x05", "a serialised Java object"))
_STRING: Final = r'"(?:[^"\\]|\\.)*+"?'
_WORD: Final = re.compile(rf"(?:(?P<field>{_STRING})\s*:\s*)?(?P<word>-?(?:NaN|Infinity|nan|inf|None|True|False|undefined)\b)|{_STRING}")
_QUOTED_NUMBER: Final = re.compile(r'\s*"\s*[+-]?\d[\d.eE+-]*\s*"\s*')
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_HALF_CHARACTER: Final = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])", re.DOTALL
)
_SEVERAL: Final = re.compile(rb"\}\s*+,?\s*+\{")
_CSV_CELLS_MIN: Final = 3  # timestamp and the two ends of a link
_ENVELOPES: Final = ("payload", "data", "value", "record", "fields", "after")
"""Fields in which Kafka Connect, CloudEvents, Debezium and Telegraf put the record itself."""


def with_cause(failure: Failure, value: bytes) -> Failure:
    """Return the failure with its cause and what to do, if the bytes of the value show them.

    Args:
        failure: Why the value is refused.
        value: The refused value.
    """
    for cause in _CAUSES.get(failure.kind, ()):
        if (found := cause(value, failure.reason)) is not None:
            return replace(failure, reason=f"{failure.reason}: {found}")
    return failure


def _empty(value: bytes, _: str) -> str | None:
    return "the value is empty; a producer that wants to delete a key sends a null" if not value.strip() else None


def _byte_order_mark(value: bytes, _: str) -> str | None:
    if value.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "it is UTF-32; write UTF-8"
    if value.startswith((b"\xff\xfe", b"\xfe\xff")) or _every_other_is_null(value):
        return "it is UTF-16; write UTF-8"
    return "it begins with a byte order mark; write UTF-8 without one" if value.startswith(_BOM) else None


def _every_other_is_null(value: bytes) -> bool:
    """Return whether ASCII characters have two bytes each."""
    first, second = value[:16:2], value[1:16:2]
    return len(value) >= 4 and ((not any(first) and all(second)) or (not any(second) and all(first)))


def _registry(value: bytes, _: str) -> str | None:
    if len(value) < 6 or value[0] != 0:
        return None
    form = "JSON" if value[5:].lstrip().startswith((b"{", b"\x00{")) else "Avro or Protobuf"
    return (
        f"it has the framing of a Schema Registry (a zero byte, then schema {int.from_bytes(value[1:5], 'big')}), before {form}; "
        "let the producer write plain JSON, without the registry's serialiser"
    )


def _compressed(value: bytes, _: str) -> str | None:
    for magic, name in _COMPRESSED:
        if value.startswith(magic):
            return f"it is compressed with {name}; set the producer's compression.type instead, which consumers unpack by themselves"
    return None


def _other_format(value: bytes, _: str) -> str | None:
    for magic, name in _FORMATS:
        if value.startswith(magic):
            return f"it is {name}; write one JSON object a record"
    if not _CONTROL.search(value[:_LOOKED_AT_BYTES]):
        return None
    if value.lstrip()[:1] == b"{":
        return "there is a control character in it; within a text, write it as \\u and four hexadecimal digits"
    return "it is binary, such as Protobuf, Avro or MessagePack; write one JSON object a record"


def _encoding(value: bytes, reason: str) -> str | None:
    return "write UTF-8, not Latin-1 or another code page" if reason.startswith("not UTF-8") and value.lstrip()[:1] == b"{" else None


def _word(value: bytes, _: str) -> str | None:
    """Find NaN and similar words, which some JSON writers emit although JSON has no such numbers."""
    for found in _WORD.finditer(value[:_LOOKED_AT_BYTES].decode(errors="replace")):
        if found["word"] is not None:
            field = (found["field"] or "a value")[:42].strip('"')
            return f"{field} is {found['word']}, which JSON does not have; leave the field out, or write null, if nothing was measured"
    return None


def _half_character(value: bytes, _: str) -> str | None:
    return "a text has half of a surrogate pair; write whole characters" if _HALF_CHARACTER.search(value[:_LOOKED_AT_BYTES]) else None


def _python_text(value: bytes, _: str) -> str | None:
    return "names and texts are in single quotes; write JSON, in Python with json.dumps" if re.match(rb"\s*\{\s*'", value) else None


def _several(value: bytes, reason: str) -> str | None:
    if "trailing characters" not in reason:
        return None
    if _SEVERAL.search(value):
        return "there is more than one record in the message; send each as a message of its own"
    return "something follows the record"


def _csv(value: bytes, _: str) -> str | None:
    start = value.lstrip()[:1]
    if start in (b"{", b"[") or value.split(b"\n", 1)[0].count(b",") + 1 < _CSV_CELLS_MIN:
        return None
    return "it looks like a line of CSV; a topic carries JSON objects, CSV is read from files and pipes"


def _cut_off(_: bytes, reason: str) -> str | None:
    return "it ends before the object does; look for a limit of size on its way, or a line end within it" if "truncated" in reason else None


def _array(value: bytes, reason: str) -> str | None:
    return "it is an array; send each record as a message of its own" if "got `array`" in reason and value.lstrip()[:1] == b"[" else None


def _encoded_twice(value: bytes, reason: str) -> str | None:
    if "got `str`" not in reason or value.lstrip()[:1] != b'"':
        return None
    try:
        inside = msgspec.json.decode(value, type=str).lstrip()
    except ValueError:
        return None
    return "it is JSON within a JSON text, encoded twice; encode it once" if inside.startswith("{") else "it is a text; send a JSON object"


def _in_quotes(value: bytes, reason: str) -> str | None:
    field = reason.rpartition("`$.")[2].rstrip("`")
    try:
        raw = bytes(msgspec.json.decode(value, type=dict[str, msgspec.Raw])[field]).decode()
    except (ValueError, KeyError, RecursionError):
        return None
    if _QUOTED_NUMBER.fullmatch(raw):
        return f"{field} is {raw[:40].strip()}, a number in quotes; write it without quotes"
    if field == "timestamp":
        return f"timestamp is {raw[:40]}; UTC seconds as a number, or RFC 3339 with its offset (2026-11-23T10:15:00Z), are needed"
    return None


def _other_names(value: bytes, reason: str) -> str | None:
    """Find the fields of a record under other names: in another case, or within an envelope."""
    try:
        fields = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError):
        return None
    missing = [name for name in COLUMNS if re.search(rf"\b{name}\b", reason) and name not in fields]
    for name in fields:
        if name not in COLUMNS and name.strip().lower() in missing:
            return f"there is {name[:40]!r}; names are written as {name.strip().lower()!r}, in small letters"
    for name in _ENVELOPES:
        if b'"timestamp"' in bytes(fields.get(name, msgspec.Raw())):
            return f"there is a record within {name!r}; send the record itself, without what is around it"
    return None


_CAUSES: Final[dict[Kind, tuple[_Cause, ...]]] = {
    "not_json": (
        _empty, _byte_order_mark, _compressed, _registry, _other_format, _encoding, _python_text, _word, _half_character, _csv,
        _several, _cut_off,
    ),
    "wrong_type": (_array, _encoded_twice, _csv, _in_quotes),
    "missing_field": (_other_names,),
}  # fmt: skip
"""The causes of each kind, in the order in which they are tried."""
