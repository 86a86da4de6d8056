"""A segment's file: its name whatever the topic, and its refusal where a byte is not as it was sealed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.telemetry import CATEGORIES, NUMERIC, Partition
from model.buffer.segments import SCHEMA, SegmentError, SegmentName, dictionary_column, load, safe_topic, write_segment

ROWS = 40


def sealed(folder: Path, topic: str = "dwcp.telemetry", number: int = 3) -> Path:
    """A segment of 40 rows of three links, a third of the values missing."""
    rng = np.random.default_rng(0)
    numeric = rng.gamma(2.0, 50.0, (ROWS, len(NUMERIC))).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.3] = np.nan
    offsets = np.arange(ROWS, dtype=np.int64)
    categories = [dictionary_column(rng.integers(-1, 3, ROWS), ["auto", "eu-1", "fibre"]) for _ in CATEGORIES]
    columns = [pa.array(offsets), pa.array(offsets + 0.5), *map(pa.array, numeric.T), dictionary_column(offsets % 3, ["a|b", "b|c", "c|a"])]
    name = SegmentName(safe_topic(topic), number, 0, ROWS - 1)
    write_segment(folder, name, pa.Table.from_arrays(columns + categories, schema=SCHEMA))
    return folder / str(name)


@pytest.mark.parametrize(
    "topic",
    [
        "dwcp.telemetry",
        "a-1-2",
        "..",
        ".hidden",
        "",
        "/etc/passwd",
        "../../x",
        "a/b",
        "naïve %2F~",
        "x" * 249,
        "ü" * 249,
        "\udcff",
        "a\nb\x00c",
        "~",
    ],
)
def test_hostile_topics_stay_in_the_folder(tmp_path: Path, topic: str) -> None:
    """Whatever a topic holds, its segment is one visible file of the folder, and belongs to that topic and partition only."""
    path = sealed(tmp_path, topic, 7)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert not path.name.startswith(".")
    name = SegmentName.parse(path.name)
    assert (name.number, name.first, name.last) == (7, 0, 39)
    assert name.belongs_to(Partition(topic, 7))
    assert not name.belongs_to(Partition(topic + "-7", 7))
    assert not name.belongs_to(Partition(topic, 8))


@given(topics=st.lists(st.text(max_size=12), unique=True, min_size=2, max_size=2))
def test_two_topics_never_share_a_name(topics: list[str]) -> None:
    """Escaping is injective: segments of different topics cannot overwrite one another."""
    assert safe_topic(topics[0]) != safe_topic(topics[1])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x.parquet",
        "t-1-2-3.parquet",
        "../t-0-" + "0" * 20 + "-" + "0" * 20 + ".parquet",
        "t-0-" + "0" * 19 + "9-" + "0" * 20 + ".parquet",
    ],
)
def test_other_names_are_no_segments(name: str) -> None:
    """Only topic-partition-first-last with 20 digits each, first before last and no folder, is read as a segment's name."""
    with pytest.raises(ValueError, match=r"segment's name|ends before"):
        SegmentName.parse(name)


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """A segment with one altered byte either is refused by a SegmentError that names it, or still gives the same rows."""
    path = sealed(tmp_path)
    good, expected = path.read_bytes(), load(path)
    refused = []
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :])
        try:
            table = load(path)
        except SegmentError as error:
            refused.append(str(error))
        else:
            assert _same(table, expected), f"byte {at} changed the rows unnoticed"
    assert all(path.name in message for message in refused)
    assert len(refused) > len(good) // 7 // 2


def _same(table: pa.Table, expected: pa.Table) -> bool:
    """Equality with NaN equal to NaN."""
    return all(
        np.array_equal(table[name].to_numpy(), expected[name].to_numpy(), equal_nan=True)
        if name not in ("link", *CATEGORIES)
        else table[name].to_pylist() == expected[name].to_pylist()
        for name in expected.column_names
    )


@pytest.mark.parametrize("keep", [0, 1, 4, 100, -1, -8])
def test_a_torn_segment_is_refused(tmp_path: Path, keep: int) -> None:
    """A file cut short anywhere is refused with its name and what to do."""
    path = sealed(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SegmentError, match=r"\.parquet: is not a complete Parquet file .*; restore it from a copy"):
        load(path)


def test_a_stranger_under_a_segments_name_is_refused(tmp_path: Path) -> None:
    """Another Parquet file, a segment under another name and one of a newer release have different messages."""
    path = sealed(tmp_path)
    renamed = path.with_name(str(SegmentName("dwcp.telemetry", 3, 0, 40)))
    path.rename(renamed)
    with pytest.raises(SegmentError, match="other offsets than its name"):
        load(renamed)
    pq.write_table(pa.table({"a": [1]}), renamed)
    with pytest.raises(SegmentError, match="is not a segment of a training buffer"):
        load(renamed)
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"dwcp.version": "2"}), renamed)
    with pytest.raises(SegmentError, match=r"newer release .* install"):
        load(renamed)
