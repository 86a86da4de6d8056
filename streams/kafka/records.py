"""The records of a fetched record batch as offsets, values and the time at which their batch was written, and nothing else of them.

kafka-python builds an object of 13 fields for every record, in Python: 6 us of CPU each, more than all that the daemon itself does with
it. Here one compiled pass over a decompressed batch finds where the values lie, and the values are cut out: 0.6 us. Everything around
that stays the client's: checksums, transactions, positions.

Format: https://kafka.apache.org/documentation/#recordbatch (magic 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, TypeAlias

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

from features.compiled import compiled
from features.telemetry import Bytes, Longs
from streams.kafka.codecs import TooLargeError, packed, unpacked
from streams.source import Written

Record: TypeAlias = tuple[int, bytes | None, Written | None]
"""Offset, value, and when the record's batch was written (the newest record of it)."""

_MAGIC: Final = 2  # the only format of Kafka 4; brokers before 0.11 wrote others
_NULL: Final = -1
_TRUNCATED: Final = -1
_NO_KEY: Final = 1
"""The length -1 as a zigzag varint."""


@dataclass
class Keys:
    """How many records had a key, and how many had none."""

    with_key: int = 0
    without: int = 0


def give_plain_records(consumer: KafkaConsumer, keys: Keys | None = None) -> None:
    """Makes a new consumer's poll give `Record`s instead of ConsumerRecords, and counts their keys."""

    def make(fetch_offset: int, key: TopicPartition, *arguments: Any, **options: Any) -> PlainRecords:
        records = PlainRecords(fetch_offset, key, *arguments, **options)
        records.keys = keys
        # kafka-python 3.0.12 takes the leader epoch of a position from every fetch, and forgets it with one that brings no records:
        # then neither it nor the broker could notice any more that the log was cut back.
        records.leader_epoch = consumer._subscription.assignment[key].position.leader_epoch
        return records

    consumer._fetcher.PartitionRecords = make


class PlainRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no type information
    """What the client's Fetcher keeps of one partition's fetched bytes, with records unpacked a batch at a time."""

    keys: Keys | None = None
    """Where records with and without a key are counted."""

    def _maybe_skip_record(self, record: Record) -> bool:
        """A fetch from the middle of a batch brings the whole batch."""
        return record[0] < int(self.fetch_offset)

    def _unpack_records(self, _tp: TopicPartition, records: Any, _key_deserializer: None, _value_deserializer: None) -> Iterator[Record]:
        batch = None
        while (following := records.next_batch()) is not None:
            batch = following
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"record batch of {self.topic_partition} at offset {batch.base_offset} failed its checksum")
            if batch.magic == _MAGIC:
                self.leader_epoch = batch.leader_epoch
                if self._is_hidden(batch):
                    self.next_fetch_offset = batch.next_offset
                    continue
            for record in plain_records(batch, self.keys):
                self.next_fetch_offset = record[0] + 1
                yield record
        if batch is not None and batch.magic == _MAGIC:
            # The last records of a compacted batch may be gone: go on after the batch, not after what is left of it.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_hidden(self, batch: DefaultRecordBatch) -> bool:
        """Whether a batch holds no telemetry: markers of transactions, and what an aborted one has written."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
                return True
            if self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def plain_records(batch: Any, keys: Keys | None = None) -> Iterator[Record]:
    """The records of one batch of the client. keys: where their keys are counted. Raises CorruptRecordError where its bytes are no records.

    One that unpacks to more than memory may hold becomes a single record, at its last offset, of the bytes as they came: no telemetry, so
    that it ends in the dead letters, and the stream goes on behind it.
    """
    if batch.magic != _MAGIC:
        return ((record.offset, record.value, None) for record in batch)
    written = _written(batch)
    try:
        data = unpacked(batch)
    except TooLargeError:
        return iter([(batch.last_offset, packed(batch), written)])
    if not 0 <= batch.records_count <= len(data):  # a record has seven bytes at least
        raise CorruptRecordError(f"record batch at offset {batch.base_offset}: {batch.records_count} records in {len(data)} bytes")
    spans = np.empty((batch.records_count, 3), np.int64)
    end, keyless = _find_values(np.frombuffer(data, np.uint8), spans)
    if end != len(data):
        where = "they end within a record" if end == _TRUNCATED else f"{len(data) - end} bytes are left over"
        raise CorruptRecordError(f"record batch at offset {batch.base_offset}: {batch.records_count} records, and {where}")
    if keys is not None:
        keys.without += keyless
        keys.with_key += len(spans) - keyless
    values = [data[start:stop] if start != _NULL else None for start, stop in spans[:, 1:].tolist()]
    return zip((spans[:, 0] + batch.base_offset).tolist(), values, repeat(written), strict=False)


def _written(batch: DefaultRecordBatch) -> Written | None:
    """A negative time is Kafka's word for none."""
    if batch.max_timestamp < 0:
        return None
    return Written(batch.max_timestamp / 1000.0, by_broker=batch.timestamp_type == DefaultRecordBatch.LOG_APPEND_TIME)


@compiled
def _varint(data: Bytes, at: int) -> tuple[int, int]:
    """The zigzag varint at `at` and the position after it; a position over the end where it is cut off or longer than 10 bytes."""
    value, shift = np.uint64(0), np.uint64(0)
    for index in range(at, min(at + 10, len(data))):
        byte = np.uint64(data[index])
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return int(np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))), index + 1
        shift += np.uint64(7)
    return 0, len(data) + 1


@compiled
def _skip_bytes(data: Bytes, at: int) -> int:
    """The position after a length and so many bytes (none for the length -1); a position over the end where there are fewer."""
    length, at = _varint(data, at)
    return at + min(max(length, 0), len(data) + 1)


@compiled
def _find_values(data: Bytes, spans: Longs) -> tuple[int, int]:
    """Fills spans, int64 (N, 3), with offset delta, start and end of the value of N records; a start of -1 is a null.

    Gives the position after the last record, or _TRUNCATED where a length does not fit the bytes that are there; and the number of records
    without a key.
    """
    at = keyless = 0
    for record in range(len(spans)):
        length, at = _varint(data, at)
        if not 0 <= length <= len(data) - at:
            return _TRUNCATED, keyless
        end = at + length
        at += 1  # attributes
        _, at = _varint(data, at)  # time
        offset_delta, at = _varint(data, at)
        key_at = at
        at = _skip_bytes(data, at)  # key
        keyless += key_at < len(data) and data[key_at] == _NO_KEY
        length, at = _varint(data, at)
        if length > len(data) - at:
            return _TRUNCATED, keyless
        spans[record, 0] = offset_delta
        spans[record, 1] = at if length >= 0 else _NULL
        at += max(length, 0)
        spans[record, 2] = at
        headers, at = _varint(data, at)
        if headers < 0:
            return _TRUNCATED, keyless
        for _ in range(headers):
            at = _skip_bytes(data, _skip_bytes(data, at))
            if at > end:
                return _TRUNCATED, keyless
        if at != end:
            return _TRUNCATED, keyless
    return at, keyless
