"""Event time follows the bulk of a partition's links, never one record; what ran away under a wrong clock is undone."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.event_time import ROWS_MIN, STEP_S, EventTime

START_S = 1.77e9
YEARS_S = 4 * 365 * 86_400.0

Rows = list[tuple[int, float]]


def followed(rows: Rows, event_time: EventTime | None = None) -> list[float]:
    """Event time, in seconds after START_S, after each row of (link, seconds after START_S)."""
    event_time = event_time or EventTime()
    slots = np.array([link for link, _ in rows], np.int32)
    return (event_time.follow(slots, np.array([START_S + at_s for _, at_s in rows])) - START_S).tolist()


def minutes(links: int, first: int, last: int) -> Rows:
    """A row a minute of each link."""
    return [(link, 60.0 * minute) for minute in range(first, last) for link in range(links)]


@pytest.mark.parametrize("links", [2, 3, 4, 50])
@pytest.mark.parametrize("ahead_s", [STEP_S + 61.0, 86_400.0, YEARS_S])
@pytest.mark.parametrize("new", [False, True])
def test_no_single_record_moves_event_time(links: int, ahead_s: float, new: bool) -> None:
    """One record from far ahead, of a link that is known or not: the others go on, and event time with them."""
    link = links if new else 0
    rest = [row for row in minutes(links, 10, 20) if row[0] != link]  # all that follows of that link is late, and never gets here
    rows = [*minutes(links, 0, 10), (link, 540.0 + ahead_s), *rest]
    assert max(followed(rows)) == 60.0 * 19


@pytest.mark.parametrize("links", [2, 3, 50])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("rows_ahead", [1, 2, 3])
@pytest.mark.parametrize("cut", [1, 2, 1000])
def test_a_stream_that_begins_with_records_of_the_far_future(links: int, place: int, rows_ahead: int, cut: int) -> None:
    """They are of a link that goes on elsewhere: time begins with the others, however the batches are cut."""
    ahead = [(links, YEARS_S + 60.0 * at) for at in range(rows_ahead)]
    rows = [*minutes(links, 0, 39)[:place], *ahead, *minutes(links, 0, 39)[place:]]
    event_time = EventTime()
    seen = [event_s for begin in range(0, len(rows), cut) for event_s in followed(rows[begin : begin + cut], event_time)]
    assert max(seen) == 60.0 * 38
    assert seen[place + rows_ahead + 1] >= 0.0, "it waits for no more than a second link"


def test_a_stream_that_begins_with_a_record_of_long_ago_goes_on_to_where_the_others_are() -> None:
    """The first of its links was off for years: it holds nobody up."""
    seen = followed([(3, -YEARS_S), *minutes(3, 0, 10)])
    assert seen[3 * 3] >= 60.0
    assert seen[-1] == 60.0 * 9


def test_a_stream_of_one_link_begins_after_some_rows() -> None:
    """There is nobody else to ask; if no record comes any more, its last one is where time is."""
    event_time = EventTime()
    assert followed(minutes(1, 0, ROWS_MIN - 1), event_time) == [-math.inf] * (ROWS_MIN - 1)
    assert event_time.end_s == START_S + 60.0 * (ROWS_MIN - 2)
    assert followed([(0, 600.0)], event_time) == [600.0]


@pytest.mark.parametrize("links", [5, 50])
def test_a_minority_that_is_ahead_for_ever_does_not_move_it(links: int) -> None:
    """Two links of five, or of fifty, live a day ahead."""
    rows = [(link, at_s + (86_400.0 if link < 2 and at_s >= 600 else 0.0)) for link, at_s in minutes(links, 0, 60)]
    assert max(followed(rows)) == 60.0 * 59


@pytest.mark.parametrize(
    ("links", "back", "rows_late"),
    [
        (1, 1, 0),  # the only link
        (2, 2, 1),
        (50, 50, 25),  # more than half
        (50, 10, 100),  # a fifth came back: nobody else has shown up in the time in which all would have
        (2, 1, 4),
    ],
)
def test_a_stream_that_goes_on_after_an_outage_is_followed(links: int, back: int, rows_late: int) -> None:
    """All links, or those that are left, go on a night later: event time is there after this many rows."""
    rows = [*minutes(links, 0, 10), *minutes(back, 600, 700)]
    seen = followed(rows)
    assert next(at for at, event_s in enumerate(seen[10 * links :]) if event_s >= 36_000.0) <= rows_late
    assert seen[-1] == 60.0 * 699


def test_a_jump_lands_in_the_middle_of_those_who_made_it() -> None:
    """One of the links that come back is years ahead: the others say where the stream is."""
    rows = [*minutes(5, 0, 10), (0, YEARS_S), *[(link, 36_000.0) for link in range(1, 5)]]
    assert followed(rows)[-1] == 36_000.0


def test_links_that_report_once_a_day_are_followed() -> None:
    """Each row of them jumps, and no record makes event time wait for ever."""
    rows = [(link, 86_400.0 * day + 600.0 * link) for day in range(5) for link in range(3)]
    event_time = EventTime()
    assert followed(rows, event_time)[-1] >= 86_400.0 * 4
    assert event_time.end_s <= START_S + rows[-1][1]


LINKS = 6
streams = st.lists(
    st.tuples(st.integers(0, LINKS - 1), st.sampled_from([1.0, 60.0, 60.0, 60.0, 400.0, 9000.0, 90_000.0])), min_size=1, max_size=120
)


def rows_of(steps: list[tuple[int, float]]) -> Rows:
    """Return the rows of links that all begin at one time, each with its steps."""
    last = [0.0] * LINKS
    rows = []
    for link, step_s in steps:
        last[link] += step_s
        rows.append((link, last[link]))
    return rows


@given(steps=streams, cuts=st.sets(st.integers(1, 119), max_size=6))
def test_it_depends_on_neither_batches_nor_restarts(steps: list[tuple[int, float]], cuts: set[int]) -> None:
    """Cut anywhere, and taken from a checkpoint at each cut, it is the same after every row; it never goes back or past the newest row."""
    rows = rows_of(steps)
    whole = followed(rows)
    event_time, pieces, newest = EventTime(), [], np.full(LINKS, -np.inf)
    for begin, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]):
        pieces += followed(rows[begin:end], event_time)
        for link, at_s in rows[begin:end]:
            newest[link] = START_S + at_s
        restored = EventTime()
        restored.restore(event_time.document(), event_time.arrays(LINKS), newest)
        event_time = restored
    assert pieces == whole
    assert all(before <= after for before, after in pairwise(whole))
    assert all(event_s <= max(at_s for _, at_s in rows[: row + 1]) for row, event_s in enumerate(whole))


@given(steps=streams, limit_s=st.sampled_from([0.0, 500.0, 20_000.0]))
def test_what_cannot_be_is_undone(steps: list[tuple[int, float]], limit_s: float) -> None:
    """Afterwards neither event time nor a link is past the limit, and the links that are named are those that were."""
    rows, event_time = rows_of(steps), EventTime()
    followed(rows, event_time)
    newest = {link: START_S + at_s for link, at_s in rows}
    was_ahead = event_time.is_ahead(START_S + limit_s)
    gone = event_time.undo(START_S + limit_s, START_S)
    assert sorted(gone.tolist()) == sorted(link for link, at_s in newest.items() if at_s > START_S + limit_s)
    assert was_ahead == bool(len(gone))
    assert not event_time.is_ahead(START_S + limit_s)
    assert math.isfinite(event_time.value_s)


def test_links_that_go_take_their_vote_with_them() -> None:
    """Links are numbered anew when some are evicted: the others are known under their new numbers."""
    event_time = EventTime()
    followed([*minutes(4, 0, 10), (0, YEARS_S), (1, 36_000.0)], event_time)
    event_time.keep(np.array([1, 2, 3], np.int32))
    assert event_time.arrays(3)["event_time_ahead_s"].tolist() == [START_S + 36_000.0, -math.inf, -math.inf]
    assert followed([(1, 36_000.0)], event_time) == [36_000.0], "two of three have jumped"
