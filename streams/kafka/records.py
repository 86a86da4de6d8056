"""The records of a fetched record batch, reduced to offset, value and the time at which their batch was written.

kafka-python builds an object of 13 fields for every record, in Python. That costs 6 us of CPU, more than all that the daemon does with the
record. Here one compiled pass over a decompressed batch finds the values, which are then cut out: 0.6 us. All else stays with the client:
checksums, transactions, positions.

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
"""Offset, value, and when the batch of the record was written (time of its newest record)."""

_MAGIC: Final = 2  # the only format of Kafka 4; brokers before 0.11 wrote others
_NULL: Final = -1
_TRUNCATED: Final = -1
_NO_KEY: Final = 1
"""The length -1 as a zigzag varint."""


@dataclass
class Keys:
    """Counts of the records with and without a key."""

    with_key: int = 0
    without: int = 0


def give_plain_records(consumer: KafkaConsumer, keys: Keys | None = None) -> None:
    """Let the poll of a new consumer return `Record`s instead of ConsumerRecords, and count their keys."""

    def make(fetch_offset: int, key: TopicPartition, *arguments: Any, **options: Any) -> PlainRecords:
        records = PlainRecords(fetch_offset, key, *arguments, **options)
        records.keys = keys
        # kafka-python 3.0.12 sets the leader epoch of a position from every fetch, and forgets it with one that has no records:
        # then neither the client nor the broker could notice any more that the log was cut back.
        records.leader_epoch = consumer._subscription.assignment[key].position.leader_epoch
        return records

    consumer._fetcher.PartitionRecords = make


class PlainRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no type information
    """The fetched bytes of one partition, as the client's Fetcher keeps them, with records unpacked a batch at a time."""

    keys: Keys | None = None
    """Counts records with and without a key."""

    def _maybe_skip_record(self, record: Record) -> bool:
        """Skip the records before the wanted one: a fetch from the middle of a batch returns the whole batch."""
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
            # The last records of a compacted batch may be gone: go on after the batch, not after its last record.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_hidden(self, batch: DefaultRecordBatch) -> bool:
        """Return whether a batch holds no telemetry: markers of transactions, and records of aborted ones."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
                return True
            if self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def plain_records(batch: Any, keys: Keys | None = None) -> Iterator[Record]:
    """Return the records of one batch of the client.

    A batch that unpacks to more than memory may hold becomes a single record, at its last offset, of the bytes as they came. That is not
    telemetry, so it becomes a dead letter, and the stream goes on behind it.

    Args:
        batch: The batch.
        keys: Counts records with and without a key.

    Raises:
        CorruptRecordError: The bytes are not records.
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
    """Return when a batch was written. A negative time means none in Kafka."""
    if batch.max_timestamp < 0:
        return None
    return Written(batch.max_timestamp / 1000.0, by_broker=batch.timestamp_type == DefaultRecordBatch.LOG_APPEND_TIME)


@compiled
def _varint(data: Bytes, position: int) -> tuple[int, int]:
    """Return the zigzag varint at a position and the position after it; one over the end if it is cut off or longer than 10 bytes."""
    value, shift = np.uint64(0), np.uint64(0)
    for index in range(position, min(position + 10, len(data))):
        byte = np.uint64(data[index])
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return int(np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))), index + 1
        shift += np.uint64(7)
    return 0, len(data) + 1


@compiled
def _skip_bytes(data: Bytes, position: int) -> int:
    """Return the position after a length and that many bytes (none for the length -1); one over the end if there are fewer."""
    length, position = _varint(data, position)
    return position + min(max(length, 0), len(data) + 1)


@compiled
def _find_values(data: Bytes, spans: Longs) -> tuple[int, int]:
    """Find the values of N records.

    Args:
        data: The records, uint8.
        spans: int64 (N, 3), is filled with offset delta, start and end of each value; a start of -1 is a null.

    Returns:
        The position after the last record, or _TRUNCATED if a length does not fit the data; and how many records have no key.
    """
    position = keyless = 0
    for record in range(len(spans)):
        length, position = _varint(data, position)
        if not 0 <= length <= len(data) - position:
            return _TRUNCATED, keyless
        end = position + length
        position += 1  # attributes
        _, position = _varint(data, position)  # time
        offset_delta, position = _varint(data, position)
        key_start = position
        position = _skip_bytes(data, position)  # key
        keyless += key_start < len(data) and data[key_start] == _NO_KEY
        length, position = _varint(data, position)
        if length > len(data) - position:
            return _TRUNCATED, keyless
        spans[record, 0] = offset_delta
        spans[record, 1] = position if length >= 0 else _NULL
        position += max(length, 0)
        spans[record, 2] = position
        headers, position = _varint(data, position)
        if headers < 0:
            return _TRUNCATED, keyless
        for _ in range(headers):
            position = _skip_bytes(data, _skip_bytes(data, position))
            if position > end:
                return _TRUNCATED, keyless
        if position != end:
            return _TRUNCATED, keyless
    return position, keyless
