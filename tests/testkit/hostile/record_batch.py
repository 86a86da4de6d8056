"""Kafka's record batches: good ones to damage, and a second reader beside ours."""

from __future__ import annotations

import io

from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from streams.kafka.codecs import unpacked
from streams.kafka.records import plain_records
from testkit.hostile.messages import json_seeds


def packed(codec: int) -> bytes:
    """Return a good batch, packed with a codec."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 20
    )  # fmt: skip
    for offset, value in enumerate((*json_seeds(), None, b"")):
        builder.append(offset, timestamp=1_767_571_200_000, key=b"k", value=value, headers=[("h", b"x"), ("n", None)])
    return bytes(builder.build())


def read(content: bytes) -> None:
    """Return the batch with the checksum of its own content, as a hostile producer would send it."""
    if len(content) < DefaultRecordBatch.HEADER_STRUCT.size:
        raise CorruptRecordError("no header")
    whole = bytearray(content)
    whole[16] = 2  # the older formats are the client's own to read
    whole[17:21] = calc_crc32c(memoryview(whole)[DefaultRecordBatch.ATTRIBUTES_OFFSET :]).to_bytes(4, "big")
    ours = [(offset, value) for offset, value, _ in plain_records(DefaultRecordBatch(bytes(whole)))]
    batch = DefaultRecordBatch(bytes(whole))
    expected = _by_the_book(unpacked(batch), batch.records_count, batch.base_offset)
    assert ours == expected, "the format's description reads something else"


def _by_the_book(data: bytes, count: int, base_offset: int) -> list[tuple[int, bytes | None]]:
    """Offsets and values, read byte by byte as https://kafka.apache.org/documentation/#record describes them.

    An independent reader: kafka-python's own reads the attributes, one byte, as a varint.
    """
    stream = io.BytesIO(data)

    def varint() -> int:
        value = shift = 0
        while (byte := stream.read(1)[0]) & 0x80:
            value, shift = value | (byte & 0x7F) << shift, shift + 7
        value |= byte << shift
        return value >> 1 ^ -(value & 1)

    def sized() -> bytes | None:
        length = varint()
        return None if length < 0 else stream.read(length)

    found = []
    for _ in range(count):
        end = varint() + stream.tell()
        stream.read(1)  # attributes
        varint()  # time
        offset, _key, value = base_offset + varint(), sized(), sized()
        found.append((offset, value))
        for _ in range(varint()):
            sized(), sized()
        assert stream.tell() == end, "what was accepted does not end where its length says"
    assert stream.tell() == len(data)
    return found
