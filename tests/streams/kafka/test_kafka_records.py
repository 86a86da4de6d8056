"""The fast way through a record batch gives what kafka-python's own way gives, and never reads past a batch that is damaged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.consumer.subscription_state import SubscriptionState
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import FetchResponse
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.structs import OffsetAndMetadata

import streams.source
from streams.kafka.records import PlainRecords, Record, give_plain_records, plain_records

FIRST_MS = 1_767_571_200_000
KEY = TopicPartition("telemetry", 3)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
Written = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

ANY_BYTES = st.none() | st.binary(max_size=200)
RECORDS: st.SearchStrategy[list[Written]] = st.lists(
    st.tuples(ANY_BYTES, ANY_BYTES, st.lists(st.tuples(st.text(max_size=9), ANY_BYTES), max_size=3)), min_size=1, max_size=30
)


def batch_bytes(records: list[Written], codec: int = 0, base_offset: int = 0, producer_id: int = -1) -> bytes:
    """One record batch as a broker keeps it."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=producer_id >= 0, producer_id=producer_id,
        producer_epoch=min(producer_id, 0), base_sequence=min(producer_id, 0), batch_size=1 << 24,
    )  # fmt: skip
    for offset, (key, value, headers) in enumerate(records):
        assert builder.append(offset, timestamp=FIRST_MS + offset, key=key, value=value, headers=headers) is not None
    built = bytearray(builder.build())
    built[:8] = base_offset.to_bytes(8, "big")  # where the broker puts it; no part of what the checksum covers
    return bytes(built)


def marker_bytes(base_offset: int, producer_id: int, commit: bool) -> bytes:
    """The control batch that ends a transaction."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=True, producer_id=producer_id, producer_epoch=0, base_sequence=0, batch_size=1024
    )  # fmt: skip
    builder.append(0, timestamp=0, key=b"\x00\x00" + (b"\x00\x01" if commit else b"\x00\x00"), value=b"\x00" * 6, headers=[])
    built = bytearray(builder.build())
    built[:8] = base_offset.to_bytes(8, "big")
    built[22] |= DefaultRecordBatch.CONTROL_MASK  # the low byte of the attributes
    built[17:21] = _checksum(built).to_bytes(4, "big")
    return bytes(built)


def _checksum(batch: bytearray) -> int:
    from kafka.record.util import calc_crc32c

    return int(calc_crc32c(memoryview(batch)[DefaultRecordBatch.ATTRIBUTES_OFFSET :]))


def unpacked(kind: Any, data: bytes, fetch_offset: int = 0, aborted: Any = None, pieces: int | None = None) -> tuple[list[Any], int]:
    """Return what the client makes of fetched bytes, in pieces of some records, and where the next fetch begins."""
    parts = kind(fetch_offset, KEY, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=aborted)
    taken: list[Any] = []
    while parts:
        piece = parts.take(pieces)
        taken.extend(piece)
        if not piece:
            break
    return taken, parts.next_fetch_offset


def offsets_and_values(records: list[Record]) -> list[tuple[int, bytes | None]]:
    return [(offset, value) for offset, value, _ in records]


def plain(records: list[Any]) -> list[tuple[int, bytes | None]]:
    return [(record.offset, record.value) for record in records]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(records=RECORDS, base_offset=st.integers(0, 2**40))
def test_any_batch_gives_the_clients_own_offsets_and_values(codec: int, records: list[Written], base_offset: int) -> None:
    """All keys, values, nulls and headers are read, in every compression."""
    data = batch_bytes(records, codec, base_offset)
    expected = [(record.offset, record.value) for record in DefaultRecordBatch(data)]
    found = list(plain_records(DefaultRecordBatch(data)))
    assert offsets_and_values(found) == expected
    assert [value for _, value in expected] == [value for _, value, _ in records]
    newest_s = (FIRST_MS + len(records) - 1) / 1000.0
    assert {written for _, _, written in found} == {streams.source.Written(newest_s, by_broker=False)}


@pytest.mark.parametrize(("by_broker", "time_ms"), [(True, FIRST_MS), (False, FIRST_MS), (False, -1), (True, -1)])
def test_a_batch_says_who_has_written_down_its_time(by_broker: bool, time_ms: int) -> None:
    """The broker's time where the topic is kept by it, the producer's otherwise, none where there is none."""
    built = bytearray(batch_bytes([(None, b"one", [])]))
    built[22] |= DefaultRecordBatch.TIMESTAMP_TYPE_MASK if by_broker else 0  # the low byte of the attributes
    built[35:43] = time_ms.to_bytes(8, "big", signed=True)  # the newest time of the batch
    ((_, _, written),) = plain_records(DefaultRecordBatch(bytes(built)))
    assert written == (None if time_ms < 0 else streams.source.Written(time_ms / 1000.0, by_broker))


@given(records=RECORDS, skipped=st.integers(0, 40), pieces=st.integers(1, 7))
def test_a_fetch_from_the_middle_in_pieces_equals_the_clients(records: list[Written], skipped: int, pieces: int) -> None:
    """Two batches with a hole in the offsets between them, as compaction leaves it."""
    data = batch_bytes(records, 3, 100) + batch_bytes(records, 3, 200)
    expected, expected_next = unpacked(Fetcher.PartitionRecords, data, 100 + skipped, pieces=pieces)
    found, found_next = unpacked(PlainRecords, data, 100 + skipped, pieces=pieces)
    assert offsets_and_values(found) == plain(expected)
    assert found_next == expected_next == 200 + len(records)


@pytest.mark.parametrize("commit", [True, False])
def test_an_aborted_transaction_and_its_marker_are_not_given(commit: bool) -> None:
    """They are read as by the client itself: aborted records are hidden, committed ones are not, and the position passes the markers."""
    value: list[Written] = [(None, b"telemetry", [])] * 3
    data = batch_bytes(value, 3, 10, producer_id=7) + marker_bytes(13, 7, commit) + batch_bytes(value, 3, 14)
    transaction = FetchResponse.FetchableTopicResponse.PartitionData.AbortedTransaction(producer_id=7, first_offset=10)
    aborted = None if commit else [transaction]
    expected, expected_next = unpacked(Fetcher.PartitionRecords, data, 10, aborted)
    found, found_next = unpacked(PlainRecords, data, 10, aborted)
    assert offsets_and_values(found) == plain(expected)
    assert [offset for offset, _, _ in found] == ([10, 11, 12] if commit else []) + [14, 15, 16]
    assert found_next == expected_next == 17


def test_a_batch_with_a_wrong_checksum_is_refused() -> None:
    """The records before it are given first."""
    good = batch_bytes([(None, b"good", [])])
    bad = bytearray(batch_bytes([(None, b"damaged", [])], base_offset=1))
    bad[-1] ^= 1
    parts = PlainRecords(0, KEY, MemoryRecords(good + bytes(bad)))
    assert offsets_and_values(parts.take(10)) == [(0, b"good")]
    with pytest.raises(CorruptRecordError, match=r"telemetry.*offset 1 failed its checksum"):
        parts.take(10)


@given(records=RECORDS, cut=st.integers(1, 400), data=st.data())
def test_damaged_records_are_refused_or_read_within_their_batch(records: list[Written], cut: int, data: st.DataObject) -> None:
    """Behind a checksum that fits: any byte changed, any end cut off. No value reaches outside, and only CorruptRecordError is raised."""
    built = bytearray(batch_bytes(records))
    header = DefaultRecordBatch.HEADER_STRUCT.size
    at = data.draw(st.integers(header, len(built) - 1))
    built[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del built[max(header, len(built) - cut) :]
    try:
        found = list(plain_records(DefaultRecordBatch(bytes(built))))
    except CorruptRecordError:
        return
    assert all(value is None or value in bytes(built) for _, value, _ in found)
    assert len(found) == len(records)


@pytest.mark.parametrize("count", [-1, 2**31 - 1])
def test_an_impossible_number_of_records_is_refused(count: int) -> None:
    """Before memory is asked for."""
    built = bytearray(batch_bytes([(None, b"one", [])]))
    built[57:61] = count.to_bytes(4, "big", signed=True)
    with pytest.raises(CorruptRecordError, match=str(count)):
        list(plain_records(DefaultRecordBatch(bytes(built))))


def test_a_new_consumer_is_told_to_give_plain_records() -> None:
    """The place where the client is changed is still there in this release of it."""

    consumer = KafkaConsumer.__new__(KafkaConsumer)
    consumer._fetcher = Fetcher.__new__(Fetcher)
    consumer._subscription = SubscriptionState("none")
    consumer._subscription.assign_from_user([KEY])
    consumer._subscription.seek(KEY, OffsetAndMetadata(7, "", 5))
    give_plain_records(consumer)
    made = consumer._fetcher.PartitionRecords(7, KEY, MemoryRecords(b""))
    assert isinstance(made, PlainRecords)
    assert (made.take(10), made.leader_epoch) == ([], 5), "a fetch that brings nothing forgets no leader epoch"
