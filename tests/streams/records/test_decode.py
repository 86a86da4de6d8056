"""Decoding: what counts as telemetry, what is refused and why, and that no record touches another."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns import LARGEST
from features.telemetry import CATEGORIES, COLUMNS, NUMERIC, Partition
from streams.records.csv_form import MAX_VALUE_BYTES
from streams.records.decode import CHUNK_RECORDS, MAX_DEPTH, Decoded, Record, decode
from streams.source import RawBatch
from testkit.paths import ROOT

DATA = ROOT.parent / "shared" / "data"
NOW_S = 1_762_232_200.0
PARTITION = Partition("dwcp.telemetry", 3)
FULL: dict[str, Any] = {
    "timestamp": 1762232095, "region": "us-east-1", "az": "us-east-1b", "link_type": "metro", "node_id": "1069", "peer_id": "2587",
    "rtt_ms": 53.25, "jitter_ms": 8.5, "throughput_mbps": 424.5, "bytes_tx": 2922617192, "bytes_rx": 2642833842, "packet_loss": 0.125,
    "retransmits": 33, "congestion_window": 883, "queue_depth": 60, "dwcp_mode": "turbo", "network_tier": "Economy",
    "transport_type": "udp", "time_of_day": 22, "day_of_week": 0, "bandwidth_mbps": 1.0, "latency_ms": 2.0,
}  # fmt: skip


def without(*names: str, **changed: Any) -> dict[str, Any]:
    """The full record without some fields and with others changed."""
    return {name: value for name, value in FULL.items() if name not in names} | changed


def encoded(record: Any) -> bytes:
    return json.dumps(record).encode()


def decode_json(*values: bytes | None, now_s: float | None = NOW_S) -> Decoded:
    return decode(RawBatch(PARTITION, range(100, 100 + len(values)), values), now_s)


def decode_csv(header: tuple[str, ...], *lines: bytes, now_s: float | None = NOW_S) -> Decoded:
    places = [("f.csv", number) for number in range(2, 2 + len(lines))]
    return decode(RawBatch(PARTITION, range(len(lines)), lines, "csv", header, places), now_s)


def csv_line(record: dict[str, Any], header: tuple[str, ...] = COLUMNS) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if record.get(name) is None else record[name] for name in header])
    return text.getvalue().encode()


def number(decoded: Decoded, name: str) -> float:
    """A numeric column of the one record that was decoded."""
    assert decoded.rejected == []
    return float(decoded.batch.numeric[0, NUMERIC.index(name)])


def outcomes(decoded: Decoded) -> dict[int, Any]:
    """For each offset what became of its record, comparable."""
    batch = decoded.batch
    rows = zip(*(batch.column(name) for name in ("node_id", "peer_id", *CATEGORIES)), strict=True)
    valid = {
        offset: (time_s, numeric.tobytes(), texts)
        for offset, time_s, numeric, texts in zip(batch.offsets.tolist(), batch.time_s.tolist(), batch.numeric, rows, strict=True)
    }
    refused = {rejected.offset: (rejected.value, rejected.kind, rejected.reason) for rejected in decoded.rejected}
    assert not valid.keys() & refused.keys()
    assert batch.offsets.tolist() == sorted(valid)
    assert list(refused) == sorted(refused)
    return valid | refused


def test_a_full_record_becomes_one_row_of_every_column() -> None:
    """Each field lands in its own column, as the contract's types."""
    batch = decode_json(encoded(FULL)).batch
    assert batch.offsets.tolist() == [100]
    assert batch.offsets.dtype == np.int64
    assert batch.time_s.tolist() == [1762232095.0]
    assert batch.numeric.dtype == np.float32
    assert batch.numeric.shape == (1, len(NUMERIC))
    assert batch.numeric.flags.c_contiguous
    assert batch.numeric[0].tolist() == [np.float32(FULL[name]) for name in NUMERIC]
    assert (batch.node_id, batch.peer_id) == (["1069"], ["2587"])
    assert batch.categories == tuple([FULL[name]] for name in CATEGORIES)


def test_the_record_type_has_the_columns_in_their_order() -> None:
    """Cells are picked by their position in COLUMNS."""
    assert Record.__struct_fields__ == COLUMNS


def test_an_empty_batch_gives_an_empty_result() -> None:
    """Nothing in, nothing out, of the right shapes."""
    decoded = decode_json()
    assert decoded.batch.numeric.shape == (0, len(NUMERIC))
    assert len(decoded.batch) == 0
    assert len(decoded.batch.categories) == len(CATEGORIES)
    assert decoded.rejected == []


@pytest.mark.parametrize(
    ("record", "column", "expected"),
    [
        (without("throughput_mbps"), "throughput_mbps", 1.0),
        (without("rtt_ms"), "rtt_ms", 2.0),
        (without(rtt_ms=None), "rtt_ms", 2.0),
        (without("rtt_ms", "latency_ms"), "rtt_ms", np.nan),
        (without(jitter_ms=None), "jitter_ms", np.nan),
        (without("queue_depth"), "queue_depth", np.nan),
        (without(latency_ms=-5), "rtt_ms", 53.25),  # an older name that is not needed is not looked at
        (without("time_of_day", timestamp=1762232095.5), "time_of_day", (4 * 3600 + 54 * 60 + 55.5) / 3600),
        (without("day_of_week"), "day_of_week", 1.0),  # 2025-11-04 was a Tuesday
        (without(time_of_day=24), "time_of_day", np.nextafter(np.float32(24), np.float32(0))),
        (without("time_of_day", timestamp=1762300799.9999998), "time_of_day", np.nextafter(np.float32(24), np.float32(0))),
        (without("day_of_week", timestamp=1762300799.9999998), "day_of_week", 1.0),
        (without(bytes_tx=LARGEST), "bytes_tx", LARGEST),
        (without(packet_loss=-0.0), "packet_loss", 0.0),
        (without(something_else={"a": [1, {"b": None}]}), "rtt_ms", 53.25),
    ],
)
def test_missing_fields_are_filled_in_or_stay_missing(record: dict[str, Any], column: str, expected: float) -> None:
    """Older names stand in, hour and weekday follow from the time in UTC, anything else is NaN."""
    now_s = 1_762_300_800.0
    value = number(decode_json(encoded(record), now_s=now_s), column)
    assert value == pytest.approx(float(np.float32(expected)), abs=0, nan_ok=True)
    if column not in ("jitter_ms", "queue_depth") and record.get("something_else") is None:
        assert number(decode_csv(COLUMNS, csv_line(record), now_s=now_s), column) == pytest.approx(value, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("2025-11-04T04:54:55Z", 1762232095.0),
        ("2025-11-04T05:54:55.250+01:00", 1762232095.25),
        ("2025-11-03t23:54:55-05:00", 1762232095.0),
    ],
)
def test_a_time_may_be_rfc_3339(text: str, time_s: float) -> None:
    """Any offset from UTC is read, in JSON and in CSV."""
    record = without(timestamp=text)
    assert decode_json(encoded(record)).batch.time_s.tolist() == [time_s]
    assert decode_csv(COLUMNS, csv_line(record)).batch.time_s.tolist() == [time_s]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("node_id", 7, "7"),
        ("node_id", 7.0, "7"),
        ("peer_id", 1.5, "1.5"),
        ("peer_id", -(10**254), "-1" + 254 * "0"),
        ("region", 9007199254740993, "9007199254740993"),
        ("region", -0.0, "0"),
        ("az", 0.00001, "1e-05"),
        ("peer_id", 10**200, "1" + 200 * "0"),
        ("node_id", "n" * 256, "n" * 256),
        ("region", 1, "1"),
        ("region", 1.0, "1"),  # in JSON the same number as 1
        ("az", 1.5, "1.5"),
        ("link_type", "", None),
        ("link_type", None, None),
        ("dwcp_mode", "ä\u0000☃", "ä\u0000☃"),
    ],
)
def test_ids_and_categories_become_text(name: str, value: Any, expected: str | None) -> None:
    """Numbers are written as text, empty is missing; a record beside it that says the same otherwise does not matter."""
    decoded = decode_json(encoded(without(**{name: "other"})), encoded(without(**{name: value})), encoded(without(**{name: "1"})))
    assert decoded.rejected == []
    assert decoded.batch.column(name) == ["other", expected, "1"]


def test_an_absent_category_is_missing() -> None:
    """It is read like one that is null or empty."""
    assert decode_json(encoded(without(*CATEGORIES))).batch.categories == ([None],) * len(CATEGORIES)


def test_equal_texts_of_a_batch_are_one_object() -> None:
    """Ten thousand records of a link hold its name once."""
    batch = decode_json(*[encoded(without(node_id="a-node-with-a-name"))] * 300).batch
    assert len({id(text) for text in batch.node_id}) == 1


REFUSED = [
    (without("timestamp"), "missing_field", "timestamp is missing"),
    (without(timestamp=None), "missing_field", "timestamp is missing"),
    (without("node_id"), "missing_field", "node_id is missing or empty"),
    (without(node_id=""), "missing_field", "node_id is missing or empty"),
    (without(peer_id=None), "missing_field", "peer_id is missing or empty"),
    (
        without("throughput_mbps", "bandwidth_mbps", "rtt_ms", "latency_ms", "packet_loss", "jitter_ms"),
        "missing_field",
        "none of throughput_mbps, rtt_ms, packet_loss, jitter_ms",
    ),
    (without(packet_loss=1.0000001), "out_of_range", "packet_loss is 1.0000001, allowed 0 to 1"),
    (without(packet_loss=-0.1), "out_of_range", "packet_loss is -0.1, allowed 0 to 1"),
    (without(rtt_ms=-3), "out_of_range", "rtt_ms is -3.0, allowed 0 to 3.4e+38"),
    (without("rtt_ms", latency_ms=-3), "out_of_range", "latency_ms is -3.0, allowed 0 to 3.4e+38"),
    (without(throughput_mbps=-1e-9), "out_of_range", "throughput_mbps is -1e-09"),
    (without(jitter_ms=-1), "out_of_range", "jitter_ms"),
    (without(bytes_tx=-1), "out_of_range", "bytes_tx"),
    (without(bytes_rx=1e39), "out_of_range", "bytes_rx is 1e+39, allowed 0 to 3.4e+38"),
    (without(congestion_window=-1), "out_of_range", "congestion_window"),
    (without(queue_depth=-1), "out_of_range", "queue_depth"),
    (without(retransmits=-1), "out_of_range", "retransmits"),
    (without(time_of_day=24.5), "out_of_range", "time_of_day is 24.5, allowed 0 to 24"),
    (without(day_of_week=7), "out_of_range", "day_of_week is 7.0, allowed 0 to 6"),
    (without(timestamp=NOW_S + 301), "timestamp", "301 s in the future, allowed 300 s"),
    (without(timestamp=1762232095000), "timestamp", "looks like milliseconds"),
    (without(timestamp=1762232095000000), "timestamp", "looks like microseconds"),
    (without(timestamp=1762232095000000000), "timestamp", "looks like nanoseconds"),
    (without(timestamp=12), "timestamp", "before 1990"),
    (without(timestamp=-1e300), "timestamp", "before 1990"),
    (without("time_of_day", "day_of_week", timestamp=3.6117348393176555e24), "timestamp", "looks like"),
    (without("time_of_day", "day_of_week", timestamp=-1.7e308), "timestamp", "before 1990"),
    (without(timestamp=12, rtt_ms=-1, packet_loss=2), "timestamp", "before 1990"),  # the first failure is the reason
    (without(node_id="n" * 257), "too_large", "node_id is longer than 256 characters"),
    (without(region="r" * 257), "too_large", "region is longer than 256 characters"),
]


@pytest.mark.parametrize(("record", "kind", "reason"), REFUSED)
def test_a_record_that_is_no_telemetry_is_refused_with_the_reason(record: dict[str, Any], kind: str, reason: str) -> None:
    """It is refused in JSON and in CSV alike, with its offset, bytes and line; the records around it are not affected."""
    good, bad = encoded(FULL), encoded(record)
    decoded = decode_json(good, bad, good)
    assert decoded.batch.offsets.tolist() == [100, 102]
    (rejected,) = decoded.rejected
    assert (rejected.offset, rejected.value, rejected.kind, rejected.line) == (101, bad, kind, None)
    assert reason in rejected.reason

    lines = [csv_line(FULL), csv_line(record), csv_line(FULL)]
    from_csv = decode_csv(COLUMNS, *lines)
    assert from_csv.batch.offsets.tolist() == [0, 2]
    (in_csv,) = from_csv.rejected
    assert (in_csv.offset, in_csv.value, in_csv.kind, in_csv.line) == (1, lines[1], kind, ("f.csv", 3))
    assert in_csv.reason == rejected.reason


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (None, "tombstone", "null"),
        (b"", "not_json", "truncated"),
        (b"{", "not_json", "truncated"),
        (b"\x00\x01\x02", "not_json", "malformed"),
        (b"null", "wrong_type", "object"),
        (b"[]", "wrong_type", "object"),
        (encoded(without(rtt_ms="53.25")), "wrong_type", "rtt_ms"),
        (encoded(without(rtt_ms=True)), "wrong_type", "rtt_ms"),
        (encoded(without(node_id=["a"])), "wrong_type", "node_id"),
        (encoded(without(region={"a": 1})), "wrong_type", "region"),
        (encoded(without(timestamp="yesterday")), "wrong_type", "timestamp"),
        (encoded(without(timestamp="1762232095")), "wrong_type", "timestamp"),
        (encoded(without(timestamp="2025-11-04T04:54:55")), "wrong_type", "timezone"),
        (encoded(without(rtt_ms=float("nan"))), "not_json", "malformed"),
        (encoded(without(rtt_ms=float("inf"))), "not_json", "malformed"),
        (encoded(without(rtt_ms=10**400)), "wrong_type", "rtt_ms"),
        (encoded(without(node_id=0)).replace(b'"node_id": 0', b'"node_id": ' + b"9" * 300), "too_large", "node_id"),
        (encoded(without(node_id=0)).replace(b'"node_id": 0', b'"node_id": ' + b"9" * 5000), "wrong_type", "node_id"),
        (encoded(without(rtt_ms=0)).replace(b'"rtt_ms": 0', b'"rtt_ms": 1e400'), "wrong_type", "rtt_ms"),
        (encoded(FULL).replace(b"metro", b"\xff\xfe"), "not_json", "UTF-8"),
        (encoded(FULL).replace(b"metro", b"\\ud800"), "not_json", "not JSON"),
        (encoded(without(x="y")).replace(b'"y"', b'"\xff"'), "not_json", "UTF-8"),
        (encoded(without(x="y")).replace(b'"x"', b'"\xc0\xaf"'), "not_json", "UTF-8"),
        (encoded(without(node_id=0)).replace(b'"node_id": 0', b'"node_id": 1e255'), "too_large", "node_id"),
        (
            encoded(FULL)
            .replace(b'"rtt_ms"', b'"RTT_MS"')
            .replace(b'"latency_ms"', b'"Timestamp"')
            .replace(b'"timestamp"', b'"TIMESTAMP"'),
            "missing_field",
            "timestamp is missing",
        ),
        (encoded(FULL).replace(b'"rtt_ms": 53.25', b'"rtt_ms": 53.25, "rtt_ms": "x"'), "wrong_type", "rtt_ms"),
        (encoded(FULL) + encoded(FULL), "not_json", "trailing"),
        (encoded(FULL) + b"," + encoded(FULL), "not_json", "trailing"),
        (encoded(without(x=1)).replace(b'"x": 1', b'"x": ' + b"[" * 100_000), "not_json", f"nested deeper than {MAX_DEPTH}"),
        (encoded(without(x=1)).replace(b'"x": 1', b'"x": ' + b'{"a":' * 450 + b"1" + b"}" * 450), "not_json", "nested deeper"),
        (encoded(without(x="x" * MAX_VALUE_BYTES)), "too_large", f"allowed {MAX_VALUE_BYTES}"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_value_that_is_no_record_is_refused(value: bytes | None, kind: str, reason: str) -> None:
    """Any bytes have a reason, never an exception, and no effect on their neighbours."""
    decoded = decode_json(encoded(FULL), value, encoded(FULL))
    assert decoded.batch.offsets.tolist() == [100, 102]
    (rejected,) = decoded.rejected
    assert (rejected.offset, rejected.value, rejected.kind) == (101, value, kind)
    assert reason in rejected.reason
    assert len(rejected.reason) < 300


@pytest.mark.parametrize(
    "value",
    [
        encoded(without(x="x" * (MAX_VALUE_BYTES - len(encoded(without(x="")))))),
        encoded(without(x=[{}] * 1_000)),
        encoded(without(x=1)).replace(b'"x": 1', b'"x": ' + b"[" * 350 + b"]" * 350),
        b" \n" + encoded(FULL) + b"\r\n ",
        encoded(FULL).replace(b'"rtt_ms": 53.25', b'"rtt_ms": 1, "rtt_ms": 53.25'),
        encoded(FULL).replace(b'"rtt_ms": 53.25', b'"rtt_ms": {"a": 1e400}, "rtt_ms": 53.25'),
        encoded(dict(reversed(FULL.items()))),
        encoded(FULL).replace(b"rtt_ms", b"rtt\\u005fms"),
        encoded(without(RTT_MS=900, rtt_ms_=1, x="ä")),
        encoded(without(x="[{" * 500 + '"' + "[" * 500)),
    ],
    ids=[
        "as large as allowed",
        "many brackets",
        "deep",
        "white space",
        "double key",
        "double key of another type",
        "other order",
        "escaped key",
        "key in another case",
        "brackets in a text",
    ],
)
def test_an_odd_looking_record_is_still_a_record(value: bytes) -> None:
    """Everything is read that JSON allows and the limits do not forbid."""
    assert number(decode_json(value), "rtt_ms") == 53.25


@pytest.mark.parametrize("zero", [b"-0", b"-0.0", b"-0e5", b"-1e-400", b"0"])
def test_nothing_less_than_nothing_is_nothing(zero: bytes) -> None:
    """Readers differ in what they make of -0: it is 0, also under an older name and in CSV."""
    for name, older in (("rtt_ms", "latency_ms"), ("throughput_mbps", "bandwidth_mbps")):
        record = without(name, older)
        for value in (encoded(record)[:-1] + b', "%s": %s}' % (key.encode(), zero) for key in (name, older)):
            assert not np.signbit(number(decode_json(value), name))
        assert not np.signbit(number(decode_csv(COLUMNS, csv_line(record | {older: zero.decode()})), name))


def test_values_that_only_fit_together_shift_nothing() -> None:
    """Two halves of a record, two records in one value and an empty value: as one array they would add up to the right number."""
    a, b = encoded(without(node_id="a")), encoded(without(node_id="b"))
    halves = encoded(without(x="y")).split(b'"y"')
    values = [a, halves[0] + b'"', b'"' + halves[1], b + b"," + b, b"", b]
    decoded = decode_json(*values)
    assert decoded.batch.offsets.tolist() == [100, 105]
    assert decoded.batch.node_id == ["a", "b"]
    assert [rejected.offset for rejected in decoded.rejected] == [101, 102, 103, 104]


@pytest.mark.parametrize("timestamp", [NOW_S + 299, NOW_S + 86_400])
def test_without_a_clock_the_future_is_not_refused(timestamp: float) -> None:
    """A replay has no present; a clock that is a little ahead is forgiven in any case."""
    value = encoded(without(timestamp=timestamp))
    assert len(decode_json(value, now_s=None).batch) == 1
    assert len(decode_json(value, now_s=NOW_S).batch) == (timestamp <= NOW_S + 300)


@pytest.mark.parametrize("timestamp", [1762232095000, 1e300])
def test_without_a_clock_milliseconds_are_still_refused(timestamp: float) -> None:
    """No UTC second is that large before the year 5138."""
    assert decode_json(encoded(without(timestamp=timestamp)), now_s=None).rejected[0].kind == "timestamp"


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"rtt_ms": "fast"}, "wrong_type", "rtt_ms is 'fast', not a number"),
        ({"rtt_ms": "nan"}, "wrong_type", "rtt_ms is 'nan'; leave the cell empty"),
        ({"rtt_ms": "inf"}, "out_of_range", "rtt_ms is inf"),
        ({"rtt_ms": "1e400"}, "out_of_range", "rtt_ms is inf"),
        ({"timestamp": "yesterday"}, "timestamp", "neither UTC seconds nor an RFC 3339 time"),
        ({"timestamp": "nan"}, "timestamp", "timestamp is 'nan'"),
        ({"timestamp": "inf"}, "timestamp", "timestamp is inf"),
        ({"timestamp": "2025-11-04T04:54:55"}, "timestamp", "offset from UTC"),
    ],
)
def test_a_cell_that_is_no_number_is_refused(change: dict[str, str], kind: str, reason: str) -> None:
    """The reason quotes the cell of this very row, wherever it stands in the batch."""
    lines = [csv_line(FULL)] * 200 + [csv_line(without(**change))] + [csv_line(without("rtt_ms"))]
    decoded = decode_csv(COLUMNS, *lines)
    assert len(decoded.batch) == 201
    (rejected,) = decoded.rejected
    assert (rejected.offset, rejected.kind) == (200, kind)
    assert reason in rejected.reason


SPACED = ("timestamp", "node_id", "peer_id", "rtt_ms")


@pytest.mark.parametrize(
    "line",
    [
        b"1762232095, n, p, 1",
        b" 1762232095 ,n ,p\t,1 ",
        b'1762232095, "n" ,"p","1"',
        b'" 1762232095 ", " n ","p\t"," 1 "',
        b'\t"2025-11-04T04:54:55Z", n, p, +1.',
        "1762232095,\u00a0n,p\u3000,01".encode(),
    ],
)
def test_white_space_around_a_cell_does_not_count(line: bytes) -> None:
    """It is ignored as around the header's names: no other link, and no other number. A cell of white space alone is empty."""
    spaced = [line, line.replace(b"n", b"other"), b"1762232095, n, p, "]
    decoded = decode_csv(SPACED, b"1762232095,n,p,1", *spaced)
    assert decoded.batch.node_id == ["n", "n", "other"]
    assert decoded.batch.peer_id == ["p", "p", "p"]
    assert decoded.batch.numeric[:, NUMERIC.index("rtt_ms")].tolist() == [1.0, 1.0, 1.0]
    assert [rejected.kind for rejected in decoded.rejected] == ["missing_field"]


@pytest.mark.parametrize("cell", ["1_000", "\u0661", "0x10", "1e", ".", "+", "--1", "1 0", "1,5", "Infinity", "nan", "null", "1e400"])
@pytest.mark.parametrize("name", ["timestamp", "rtt_ms", "latency_ms"])
def test_what_python_calls_a_number_need_not_be_one(cell: str, name: str) -> None:
    """Only decimal digits count, also where an older name is not needed, as in JSON."""
    header = ("timestamp", "node_id", "peer_id", "rtt_ms", "latency_ms")
    cells = {"timestamp": "1762232095", "node_id": "n", "peer_id": "p", "rtt_ms": "1", "latency_ms": "2"}
    decoded = decode_csv(header, csv_line(cells, header), csv_line(cells | {name: cell}, header), csv_line(cells, header))
    assert decoded.batch.offsets.tolist() == [0, 2]
    assert name in decoded.rejected[0].reason


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        (b"1762232095,n,p", "not_csv", "3 cells, the header has 4"),
        (b"1762232095,n,p,1,2", "not_csv", "5 cells, the header has 4"),
        (b"", "not_csv", "1 cells, the header has 4"),
        (b"1762232095,\xff,p,1", "not_csv", "not UTF-8"),
        (b'1762232095,"n,p,1', "not_csv", "not CSV"),
        (b'1762232095,"n"x,p,1', "not_csv", "not CSV"),
        (b"1762232095,n,p,," + b"," * MAX_VALUE_BYTES, "too_large", "bytes, allowed"),
        (b"1762232095,,p,1", "missing_field", "node_id"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_line_that_does_not_fit_the_header_is_refused(line: bytes, kind: str, reason: str) -> None:
    """A torn, quoted-open or foreign line costs itself and not the next."""
    header = ("timestamp", "node_id", "peer_id", "rtt_ms")
    decoded = decode_csv(header, b"1762232095,n,p,1", line, b'1762232095,"n,2",p,"1"')
    assert decoded.batch.offsets.tolist() == [0, 2]
    assert decoded.batch.node_id == ["n", "n,2"]
    assert (decoded.rejected[0].kind, decoded.rejected[0].line) == (kind, ("f.csv", 3))
    assert reason in decoded.rejected[0].reason


def test_a_tombstone_in_csv_is_refused() -> None:
    """A source may give None in either form."""
    decoded = decode(RawBatch(PARTITION, [5], [None], "csv", COLUMNS), None)
    assert decoded.rejected[0].kind == "tombstone"


numbers = st.floats(0, 1e6) | st.integers(0, 10**12)
records = st.fixed_dictionaries(
    {"timestamp": st.floats(631152000, NOW_S), "node_id": st.text(min_size=1, max_size=8), "peer_id": st.sampled_from(["p", "q"])},
    optional={
        **dict.fromkeys(("rtt_ms", "jitter_ms", "throughput_mbps", "bytes_tx", "bytes_rx", "queue_depth", "retransmits"), numbers),
        "packet_loss": st.floats(0, 1),
        "time_of_day": st.floats(0, 24),
        "day_of_week": st.integers(0, 6),
        "region": st.sampled_from(["eu", "us"]),
        "link_type": st.text(max_size=3).filter(lambda text: "\n" not in text and "\r" not in text),
    },
)  # fmt: skip
junk = st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
broken_records = st.builds(
    lambda record, change: {**record, **change}, records, st.dictionaries(st.sampled_from(COLUMNS), junk, max_size=3)
)
torn = st.builds(
    lambda record, at, with_: encoded(record)[:at] + with_ + encoded(record)[at:], records, st.integers(0, 60), st.binary(max_size=3)
)
values = st.none() | st.binary(max_size=40) | broken_records.map(encoded) | records.map(encoded) | torn


@given(st.lists(values, max_size=12), st.sampled_from([None, NOW_S]), st.integers(0, CHUNK_RECORDS))
@settings(max_examples=150, deadline=None)
def test_what_becomes_of_a_record_does_not_depend_on_its_batch(values: list[bytes | None], now_s: float | None, padding: int) -> None:
    """Every record comes out exactly once, with the same result alone, in a batch, and across a border between chunks."""
    padded = [encoded(FULL)] * padding + values
    together = outcomes(decode(RawBatch(PARTITION, range(len(padded)), padded), now_s))
    assert sorted(together) == list(range(len(padded)))
    alone = chain.from_iterable(
        outcomes(decode(RawBatch(PARTITION, [offset], [value]), now_s)).items() for offset, value in enumerate(padded)
    )
    assert together == dict(alone)


@given(st.lists(records, min_size=1, max_size=6), st.permutations(COLUMNS))
@settings(max_examples=100, deadline=None)
def test_csv_and_json_give_the_same_batch(records: list[dict[str, Any]], header: list[str]) -> None:
    """The form is a detail of the transport; the order of the header's columns does not matter, nor white space around a cell."""
    records = [{name: value.strip() if isinstance(value, str) else value for name, value in record.items()} for record in records]
    in_json = decode_json(*map(encoded, records))
    in_csv = decode_csv(tuple(header), *[csv_line(record, tuple(header)) for record in records])
    assert [(r.kind, r.reason) for r in in_csv.rejected] == [(r.kind, r.reason) for r in in_json.rejected]
    assert in_csv.batch.time_s.tobytes() == in_json.batch.time_s.tobytes()
    np.testing.assert_array_equal(in_csv.batch.numeric, in_json.batch.numeric)
    assert (in_csv.batch.node_id, in_csv.batch.categories) == (in_json.batch.node_id, in_json.batch.categories)


@given(st.lists(st.binary(max_size=60) | st.text(alphabet='0123456789.,"nan-e \n', max_size=40).map(str.encode), max_size=8))
@settings(max_examples=150, deadline=None)
def test_no_csv_line_raises(lines: list[bytes]) -> None:
    """Arbitrary lines are refused one by one, the same alone as together."""
    header = ("timestamp", "node_id", "peer_id", "rtt_ms")
    together = outcomes(decode(RawBatch(PARTITION, range(len(lines)), lines, "csv", header), None))
    for offset, line in enumerate(lines):
        assert outcomes(decode(RawBatch(PARTITION, [offset], [line], "csv", header), None))[offset] == together[offset]


@given(st.floats(631152000, 4e9))
@settings(deadline=None)
def test_hour_and_weekday_are_those_of_the_calendar(timestamp: float) -> None:
    """Against datetime, for any time from 1990 to 2096."""
    decoded = decode_json(encoded({"timestamp": timestamp, "node_id": "n", "peer_id": "p", "rtt_ms": 1}), now_s=None)
    moment = datetime.fromtimestamp(int(timestamp), UTC)
    hour = moment.hour + moment.minute / 60 + (moment.second + timestamp % 1) / 3600
    assert number(decoded, "day_of_week") == moment.weekday()
    assert number(decoded, "time_of_day") == pytest.approx(hour, abs=2e-6)
    assert number(decoded, "time_of_day") < 24


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not on this machine")
@pytest.mark.parametrize("path", sorted(set(DATA.glob("*.csv")) - set(DATA.glob("*_changes.csv"))), ids=lambda path: path.name)
def test_real_telemetry_is_accepted_whole(path: Path) -> None:
    """Real files are full of holes and hold no record that is out of range."""
    header, *lines = path.read_bytes().splitlines()
    decoded = decode_csv(tuple(header.decode().split(",")), *lines, now_s=None)
    assert decoded.rejected == []
    assert len(decoded.batch) == len(lines)
    measured = ~np.isnan(decoded.batch.numeric[:, : NUMERIC.index("congestion_window")])
    assert measured.any(axis=1).all()
