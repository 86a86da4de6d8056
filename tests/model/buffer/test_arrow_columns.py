"""Arrow columns made without pyarrow's own conversions equal those made with them, and pandas stays out of the daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.buffer.arrow_columns import arrow_column, arrow_strings, numpy_column

DTYPES = ["int32", "int64", "float32", "float64"]

SEAL_AND_COMPACT = """
import sys
from pathlib import Path
import numpy as np
from features.telemetry import Partition
from model.buffer.rows import BufferRows, BufferWriter
from model.buffer.retention import compact

folder = Path()
writer = BufferWriter(folder, Partition("t", 0))
names = []
for first in (0, 3):
    offsets = np.arange(first, first + 3)
    numeric, codes = np.zeros((3, 11), np.float32), np.full((3, 6), -1, np.int16)
    writer.append(BufferRows(offsets, 1.7e9 + offsets, numeric, codes, np.zeros(3, np.int32)))
    names.append(writer.seal(writer.detach(["link"], [[]] * 6)).name)
assert compact(folder, names).rows == 6
assert "pandas" not in sys.modules
"""


@pytest.mark.parametrize("dtype", DTYPES)
@given(cells=st.lists(st.none() | st.integers(-1000, 1000), max_size=40))
def test_numbers_and_nulls_equal_what_pyarrow_makes_of_them(dtype: str, cells: list[int | None]) -> None:
    """They are equal at any length: the bitmap of nulls has eight of them in a byte."""
    values = np.array([0 if cell is None else cell for cell in cells], dtype)
    valid = np.array([cell is not None for cell in cells], np.bool_)
    column = arrow_column(values, valid)
    column.validate(full=True)
    assert column.equals(pa.array(values, mask=~valid))


@given(values=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=20))
def test_strings_equal_what_pyarrow_makes_of_them(values: list[str]) -> None:
    """They are equal in any alphabet, and if they are empty."""
    column = arrow_strings(values)
    column.validate(full=True)
    assert column.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("dtype", DTYPES)
@given(lengths=st.lists(st.integers(0, 9), max_size=4), cut=st.integers(0, 5))
def test_a_column_in_any_pieces_comes_back_as_it_was(dtype: str, lengths: list[int], cut: int) -> None:
    """This holds for a slice of one, too, which shares the buffers of the whole."""
    pieces = [np.arange(length).astype(dtype) for length in lengths]
    column = pa.chunked_array([arrow_column(piece) for piece in pieces], pa.from_numpy_dtype(np.dtype(dtype)))
    expected = np.concatenate(pieces) if pieces else np.empty(0, dtype)
    assert numpy_column(column).dtype == expected.dtype
    np.testing.assert_array_equal(numpy_column(column), expected)
    np.testing.assert_array_equal(numpy_column(column.slice(cut)), expected[cut:])


def test_a_column_of_a_strided_array_holds_its_own_values() -> None:
    """A column of a row-major table is not contiguous."""
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert arrow_column(table[:, 1]).to_pylist() == [1, 4, 7, 10]


def test_sealing_and_compacting_do_not_import_pandas(tmp_path: Path) -> None:
    """The imports are checked in a fresh interpreter, as in the daemon."""
    done = subprocess.run([sys.executable, "-c", SEAL_AND_COMPACT], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
