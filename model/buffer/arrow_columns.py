"""NumPy arrays as Arrow columns and back, over Arrow's own buffers.

`pyarrow.array` and `to_numpy` look for pandas objects first, and import pandas for that if it is installed: 40 MB of a daemon's memory.
These share the same memory without that import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def arrow_column(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return numbers (N,) as a column; copied only if they are not contiguous.

    Args:
        valid: bool (N,), False for a null; None: no value is null.
    """
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [bitmap, data])


def arrow_strings(values: Sequence[str]) -> pa.StringArray:
    """Return strings as a column, none of them null. Raise UnicodeEncodeError for a lone surrogate, which UTF-8 does not have."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def numpy_column(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return the numbers (N,) of a column without nulls; copied only if it is in several pieces."""
    dtype, width = column.type.to_pandas_dtype(), column.type.bit_width // 8
    parts = [np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * width) for chunk in column.chunks]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)
