"""Retention and compaction of the training buffer, as plans over names and row counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.buffer.retention import FAN_IN, compact, plan_compaction, plan_retention
from model.buffer.segments import Segment, SegmentName


def named(first: int, rows: int, number: int = 0, last_time_s: float | None = None) -> Segment:
    last = first + rows - 1
    return Segment(
        SegmentName("t", number, first, last), rows, float(first), float(last) if last_time_s is None else last_time_s, rows * 30
    )


@pytest.mark.parametrize(
    ("rows_max", "age_max_s", "dropped"),
    [
        (None, None, 0),
        (40, None, 0),
        (39, None, 1),
        (20, None, 2),
        (1, None, 3),
        (None, 11.0, 2),  # the newest rows of the second segment are 40 - 19 = 21 s old, those of the third 11 s
        (None, 21.0, 1),
        (None, 0.0, 3),
        (39, 21.0, 1),
    ],
)
def test_retention_drops_the_oldest(rows_max: int | None, age_max_s: float | None, dropped: int) -> None:
    """Four segments of 10 rows, one a second, seen at 40 s: old ones go, then as many as are over the limit, never the newest."""
    segments = [named(first, 10) for first in (0, 10, 20, 30)]
    plan = plan_retention(reversed(segments), rows_max=rows_max, age_max_s=age_max_s, now_s=40.0)
    assert plan == [segment.name for segment in segments[:dropped]]


@pytest.mark.parametrize("rows_ahead", [1, 30])
@pytest.mark.parametrize("sealed_alone", [True, False])
def test_rows_from_far_ahead_make_no_others_old(rows_ahead: int, sealed_alone: bool) -> None:
    """A hundred segments of an hour; the newest, or one of its own, holds rows of next year, and so the time of the stream may say."""
    hour_s, year_s = 3600.0, 365 * 86_400.0
    segments = [named(at * 3600, 3600) for at in range(100)]
    if sealed_alone:
        first = segments[-1].name.last + 1
        segments.append(Segment(SegmentName("t", 0, first, first + rows_ahead - 1), rows_ahead, year_s, year_s + rows_ahead, 1))
    else:
        segments[-1] = named(99 * 3600, 3600, last_time_s=year_s)
    dropped = plan_retention(segments, rows_max=None, age_max_s=48 * hour_s, now_s=year_s)
    assert 0 < len(dropped) <= 100 - 24, "at most what is older than half of the age"
    assert dropped == [segment.name for segment in segments[: len(dropped)]]


def test_compaction_merges_neighbours_of_one_size() -> None:
    """Eight small neighbours of one partition become one; fewer, larger or interrupted runs are left alone."""
    small = [named(first, 10) for first in range(0, 80, 10)]
    (group,) = plan_compaction(reversed(small))
    assert group == tuple(segment.name for segment in small)
    assert plan_compaction(small[:-1]) == []
    assert plan_compaction([*small[:4], named(1_000_000, 400_000), *(named(2_000_000 + first, 10) for first in range(0, 40, 10))]) == []
    assert plan_compaction([named(first * 60_000, 60_000) for first in range(8)])[0] == tuple(
        named(first * 60_000, 60_000).name for first in range(8)
    )
    assert plan_compaction([named(first * 100_000, 100_000) for first in range(8)]) == []


@given(st.lists(st.integers(1, 90_000), min_size=1, max_size=200))
def test_compaction_comes_to_rest_with_few_files(rows: list[int]) -> None:
    """Planned again and again, compaction ends, keeps every row, never makes a segment over the limit, and leaves few small neighbours."""
    segments, first = [], 0
    for count in rows:
        segments.append(named(first, count))
        first += count
    for _ in range(200):
        plan = plan_compaction(segments)
        if not plan:
            break
        by_name = {segment.name: segment for segment in segments}
        for group in plan:
            merged = named(group[0].first, sum(by_name.pop(name).rows for name in group))
            assert merged.rows <= 500_000
            by_name[merged.name] = merged
        segments = sorted(by_name.values(), key=lambda segment: segment.name)
    assert plan_compaction(segments) == []
    assert sum(segment.rows for segment in segments) == sum(rows)
    smallest = [segment.rows <= 500_000 // FAN_IN**3 for segment in segments]
    assert all(not all(smallest[at : at + FAN_IN]) for at in range(len(smallest) - FAN_IN + 1))


def test_compaction_refuses_what_does_not_follow(tmp_path: Path) -> None:
    """Segments of two partitions, or in the wrong order, are not merged."""
    first, second, elsewhere = named(0, 10).name, named(10, 10).name, named(20, 10, number=1).name
    for names in ([second, first], [first, elsewhere], [first, first]):
        with pytest.raises(ValueError, match="do not follow"):
            compact(tmp_path, names)
