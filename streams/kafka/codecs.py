"""Unpack the bytes of a record batch, up to as many as memory can hold."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import IO, Any, Final

import lz4.frame
import zstandard
from kafka.codec import snappy_decode
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

UNPACKED_MAX_BYTES: Final = 128 << 20
"""A hundred times the largest batch that brokers accept by default. A megabyte of zstd can unpack to more than ten gigabytes."""
_PIECE_BYTES: Final = 1 << 20

_OPEN: Final[dict[int, Callable[[IO[bytes]], Any]]] = {
    DefaultRecordBatch.CODEC_GZIP: lambda packed: gzip.GzipFile(fileobj=packed),
    DefaultRecordBatch.CODEC_LZ4: lambda packed: lz4.frame.LZ4FrameFile(packed),
    DefaultRecordBatch.CODEC_ZSTD: lambda packed: zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True),
}


class TooLargeError(Exception):
    """A batch unpacks to more than UNPACKED_MAX_BYTES."""


def unpacked(batch: DefaultRecordBatch) -> bytes:
    """Return the records of a batch, unpacked.

    Args:
        batch: A batch that the client has not unpacked.

    Raises:
        TooLargeError: They have more than UNPACKED_MAX_BYTES.
        CorruptRecordError: They cannot be unpacked.
    """
    data, codec = packed(batch), batch.compression_type
    if codec == DefaultRecordBatch.CODEC_NONE:
        return data
    try:
        if codec == DefaultRecordBatch.CODEC_SNAPPY:  # at most 21 times as large
            return bytes(snappy_decode(data))
        with _OPEN[codec](io.BytesIO(data)) as stream:
            return _read(stream)
    except TooLargeError:
        raise
    except Exception as error:  # those of the codecs have no common base
        what = f"record batch at offset {batch.base_offset} cannot be unpacked"
        raise CorruptRecordError(f"{what} ({error or type(error).__name__})") from error


def packed(batch: DefaultRecordBatch) -> bytes:
    """Return the bytes after the header, unchanged."""
    return bytes(memoryview(batch._buffer)[batch._pos :])


def _read(stream: Any) -> bytes:
    pieces, size = [], 0
    while piece := stream.read(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > UNPACKED_MAX_BYTES:
            raise TooLargeError
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
