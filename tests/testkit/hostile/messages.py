"""Damaged messages, and checks that each is accepted or rejected with a reason, once and in order."""

from __future__ import annotations

import json
import random
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, get_args

import numpy as np

from features.calendar import LAST_HOUR
from features.columns import EARLIEST_S, LATEST_S, RANGES
from features.telemetry import CATEGORIES, COLUMNS, KEY_COLUMNS, NUMERIC, Partition
from streams.records.dead_letters import MAX_KEPT_BYTES, dead_letter
from streams.records.decode import Decoded, Rejected, decode
from streams.records.validate import MAX_FUTURE_S, MAX_TEXT_CHARS, Kind
from streams.source import RawBatch

NOW_S: Final = 1_762_232_200.0
PARTITION: Final = Partition("dwcp.telemetry", 3)
REASON_CHARS_MAX: Final = 500
FULL: Final[dict[str, Any]] = {
    "timestamp": 1762232095, "region": "us-east-1", "az": "us-east-1b", "link_type": "metro", "node_id": "1069", "peer_id": "2587",
    "rtt_ms": 53.25, "jitter_ms": 8.5, "throughput_mbps": 424.5, "bytes_tx": 2922617192, "bytes_rx": 2642833842, "packet_loss": 0.125,
    "retransmits": 33, "congestion_window": 883, "queue_depth": 60, "dwcp_mode": "turbo", "network_tier": "Economy",
    "transport_type": "udp", "time_of_day": 22, "day_of_week": 0, "bandwidth_mbps": 1.0, "latency_ms": 2.0,
}  # fmt: skip
_KINDS: Final = frozenset(get_args(Kind))
_LOW, _HIGH = (np.array([RANGES[name][side] for name in NUMERIC], np.float32) for side in (0, 1))

TOKENS: Final = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1e-400", b"-0", b"-0.0", b"0x1F", b"1_000", b"+1", b"01", b".5", b"1.",
    b"4.9e-324", b"1.7976931348623157e308", b"3.4028234663852886e38", b"3.4028235677973366e38", b"3.5e38", b"16777217", b"9007199254740993",
    b"18446744073709551616", b"-9223372036854775809", b"9" * 40, b"9" * 400, b"0." + b"1" * 400, b"1" + b"0" * 308,
    b"null", b"true", b"false", b"{}", b"[]", b'""', b'"1"', b'"x"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"',
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\xd9\xa1",
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\r", b"\n", b"\t", b" ", b"/*", b"#", b"'",
    b'"2025-11-04T04:54:55Z"', b'"2025-11-04T04:54:55+23:59"', b'"2025-11-04T04:54:55-23:59"', b'"0001-01-01T00:00:00+14:00"',
    b'"9999-12-31T23:59:59-12:00"', b'"2025-11-04T04:54:60Z"', b'"2025-02-30T00:00:00Z"', b'"2025-11-04 04:54:55+00"', b'"2025-11-04"',
    b"2025-11-04T04:54:55Z", b"1762232095", b"1762232095000", b"1762232095000000000", b"631151999.999", b"631152000", b"1e11", b"-1",
    b"1762232500", b"1762232501",
)  # fmt: skip
"""Tokens at which parsers of JSON, CSV, numbers, times and UTF-8 are known to fail."""


def json_seeds() -> list[bytes]:
    """Return good records in the forms that producers use."""
    least = {"timestamp": 1762232000.5, "node_id": 7, "peer_id": "ä☃", "rtt_ms": 1}
    older = {"timestamp": "2025-11-04T04:54:55+01:00", "node_id": "a", "peer_id": "b", "latency_ms": 5, "bandwidth_mbps": 90.5}
    holes = FULL | {"jitter_ms": None, "region": None, "az": 3, "link_type": 1.5, "extra": {"a": [1, {"b": None}]}}
    return [json.dumps(record, ensure_ascii=False).encode() for record in (FULL, least, older, holes)] + [
        json.dumps(FULL, separators=(",", ":")).encode()
    ]


def csv_seeds() -> list[bytes]:
    """Return good lines under the header COLUMNS."""
    lines = [[str(FULL[name]) for name in COLUMNS], ["" if number > 7 else str(FULL[name]) for number, name in enumerate(COLUMNS)]]
    quoted = [f'"{cell}"' if name in KEY_COLUMNS else cell for name, cell in zip(COLUMNS, lines[0], strict=True)]
    return [",".join(line).encode() for line in (*lines, quoted)]


class Mutator:
    """A fast source of damaged messages: a few cuts, tokens and splices in each.

    Args:
        seeds: good messages.
        seed: of the random numbers.
    """

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = list(seeds)
        self._random = random.Random(seed)

    def message(self) -> bytes:
        """Return the next damaged message."""
        rng = self._random
        value = rng.choice(self._seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 8))):
            value = self._changed(value)
        return value

    def _changed(self, value: bytes) -> bytes:
        rng, size = self._random, len(value) + 1
        at, way = int(rng.random() * size), int(rng.random() * 8)
        if way == 0:
            return value[:at] + bytes((rng.getrandbits(8),)) + value[at + 1 :]
        if way == 1:
            return value[:at] + rng.choice(TOKENS) + value[at:]
        if way == 2:
            return value[:at] + value[at + int(rng.random() * 12) :]
        if way == 3:
            return value[:at] + rng.choice(TOKENS) + value[at + int(rng.random() * 12) :]
        if way == 4:
            return value[:at] + value[int(rng.random() * size) :][: int(rng.random() * 40)] + value[at:]
        if way == 5:
            other = rng.choice(self._seeds)
            return value[:at] + other[int(rng.random() * len(other)) :]
        return self._field(value, at)

    def _field(self, value: bytes, at: int) -> bytes:
        """Another value between a colon or comma and the next comma. Most results are still records."""
        start = value.find(b":", at) + 1 or value.find(b",", at) + 1
        end = value.find(b",", start)
        return value[:start] + self._random.choice(TOKENS) + value[end:] if start and end > 0 else value[:at]


def batches(messages: Callable[[], bytes], good: bytes, rng: random.Random) -> Iterator[list[bytes | None]]:
    """Yield batches without end: all damaged, one damaged among good ones, and with tombstones and empty values."""
    while True:
        kind = rng.random()
        size = rng.choice((1, 2, 127, 128, 129, 300, 500))
        if kind < 0.1:
            batch: list[bytes | None] = [good] * size
            batch[rng.randrange(size)] = messages()
        else:
            batch = [messages() for _ in range(size)]
            if kind < 0.3:
                batch[rng.randrange(size)] = rng.choice((None, b""))
        yield batch


def check_batch(values: Sequence[bytes | None], form: Any = "json", now_s: float | None = NOW_S) -> Counter[str]:
    """Decode messages and check every promise about them.

    Args:
        values: the messages of one batch.
        form: "json" or "csv".
        now_s: wall clock for the check of future times, UTC seconds; None: no such check.

    Returns:
        Counts of accepted and rejected messages.

    Raises:
        AssertionError: a promise is broken; the message is in the text.
    """
    columns = COLUMNS if form == "csv" else ()

    def decoded(part: Sequence[bytes | None], offsets: Sequence[int]) -> Decoded:
        return decode(RawBatch(PARTITION, offsets, part, form, columns), now_s)

    together = decoded(values, range(len(values)))
    found = outcomes(together)
    assert sorted(found) == list(range(len(values))), "a message is missing"
    for offset, value in enumerate(values):
        alone = outcomes(decoded([value], [offset]))
        assert alone == {offset: found[offset]}, f"alone {alone} and {found[offset]} in its batch: {value!r}"
    good = together.batch.offsets.tolist()
    again = outcomes(decoded([values[offset] for offset in good], good))  # all of them good: the way without a closer look
    assert again == {offset: found[offset] for offset in good}, "the fast way gives something else"
    check_accepted(together, now_s)
    for rejected in together.rejected:
        check_rejected(rejected, values[rejected.offset])
    if form == "json":
        check_against_json(together, values)
    return Counter(accepted=len(good), rejected=len(together.rejected))


def outcomes(decoded: Decoded) -> dict[int, tuple[Any, ...]]:
    """Return by offset what became of each message, in a comparable form."""
    batch = decoded.batch
    texts = zip(batch.node_id, batch.peer_id, *batch.categories, strict=True)
    offsets = batch.offsets.tolist()
    rows = zip(offsets, batch.time_s.tolist(), batch.numeric, texts, strict=True)
    found: dict[int, tuple[Any, ...]] = {offset: (time_s, numeric.tobytes(), text) for offset, time_s, numeric, text in rows}
    refused = [rejected.offset for rejected in decoded.rejected]
    assert offsets == sorted(set(offsets)), "accepted ones are out of order"
    assert refused == sorted(set(refused)), "refused ones are out of order"
    assert not set(offsets) & set(refused), "accepted and refused at once"
    return found | {rejected.offset: (rejected.kind, rejected.reason) for rejected in decoded.rejected}


def check_accepted(decoded: Decoded, now_s: float | None) -> None:
    """Check that every accepted value is within the documented ranges."""
    batch = decoded.batch
    numeric = batch.numeric
    assert (np.isnan(numeric) | ((numeric >= _LOW) & (numeric <= _HIGH))).all(), "a number is out of its range"
    assert (numeric[:, NUMERIC.index("time_of_day")] <= LAST_HOUR).all()
    latest = LATEST_S if now_s is None else min(LATEST_S, now_s + MAX_FUTURE_S)
    assert ((batch.time_s >= EARLIEST_S) & (batch.time_s <= latest)).all(), "a time is out of its range"
    for column, optional in ((batch.node_id, False), (batch.peer_id, False), *((column, True) for column in batch.categories)):
        for text in column:
            assert (text is None and optional) or (type(text) is str and 0 < len(text) <= MAX_TEXT_CHARS), f"text {text!r}"
            if text is not None:
                text.encode()  # no half of a surrogate pair: nothing could write it down


def check_rejected(rejected: Rejected, value: bytes | None) -> None:
    """Check the reason and the dead letter, which holds the exact bytes, or the first of them and a hash of all."""
    assert rejected.value is value or rejected.value == value
    assert rejected.kind in _KINDS
    assert 0 < len(rejected.reason) <= REASON_CHARS_MAX, f"reason of {len(rejected.reason)} characters"
    letter = dead_letter(rejected, PARTITION, "hostile", NOW_S)
    data = json.loads(letter.encode())["data"]
    assert all(isinstance(header, bytes) for _, header in letter.headers)
    if value is None:
        assert (data["value_base64"], data["size_bytes"], data["truncated"]) == (None, None, False)
        return
    assert b64decode(data["value_base64"], validate=True) == value[:MAX_KEPT_BYTES]
    assert (data["size_bytes"], data["truncated"]) == (len(value), len(value) > MAX_KEPT_BYTES)
    assert not data["truncated"] or data["sha256"] == sha256(value).hexdigest()


def check_against_json(decoded: Decoded, values: Sequence[bytes | None]) -> None:
    """Check that Python's own JSON parser reads the same numbers and texts from accepted messages."""
    batch = decoded.batch
    for row, offset in enumerate(batch.offsets.tolist()):
        value = values[offset]
        assert value is not None
        document = json.loads(value.decode())
        assert isinstance(document, dict)
        if not isinstance(document["timestamp"], str):
            assert batch.time_s[row] == float(document["timestamp"]), value
        for at, name in enumerate(NUMERIC):
            if document.get(name) is not None:
                expected = np.float32(document[name])
                assert batch.numeric[row, at] == (min(expected, LAST_HOUR) if name == "time_of_day" else expected), (name, value)
        for name in ("node_id", "peer_id", *CATEGORIES):
            if isinstance(document.get(name), str) and document[name]:
                assert batch.column(name)[row] == document[name], (name, value)
