"""The outbox: whatever fails and in whatever order answers come, no event is forgotten and none overtakes another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import Event
from streams.kafka.outbox import Outbox

STEPS = st.lists(st.one_of(st.sampled_from(["put", "take", "put back"]), st.tuples(st.just("settle"), st.integers(0, 9))), max_size=200)


def event(number: int) -> Event:
    return Event(str(number), "t", "s", "s", 0.0, {})


@given(STEPS)
def test_events_leave_in_order_and_stay_until_settled(steps: list[str | tuple[str, int]]) -> None:
    """Against a model of three lists: take gives the oldest waiting event, pending counts what is not settled, and settled_to says
    whether everything up to a number is."""
    outbox = Outbox()
    waiting: list[int] = []
    under_way: list[int] = []
    last = 0
    for step in steps:
        if step == "put":
            last += 1
            outbox.put(event(last))
            waiting.append(last)
        elif step == "take" and waiting:
            number, taken = outbox.next_event()
            assert number == min(waiting)
            assert taken == event(number)
            waiting.remove(number)
            under_way.append(number)
        elif step == "put back":
            outbox.put_back()
            waiting += under_way
            under_way = []
        elif isinstance(step, tuple) and under_way:
            outbox.settle(under_way.pop(step[1] % len(under_way)))
        unsettled = waiting + under_way
        assert outbox.pending() == len(unsettled)
        assert outbox.waiting() == bool(waiting)
        assert outbox.last() == last
        for number in range(1, last + 1):
            assert outbox.under_way(number) == (number in under_way)
            assert outbox.settled_to(number) == all(other > number for other in unsettled)


def test_a_late_answer_for_an_event_that_waits_again_is_ignored() -> None:
    """An event that was put back is delivered again, even when the first delivery is acknowledged after all: twice, never not at all."""
    outbox = Outbox()
    outbox.put(event(1))
    number, _ = outbox.next_event()
    outbox.put_back()
    outbox.settle(number)
    assert outbox.pending() == 1
    assert outbox.next_event() == (number, event(1))
    with pytest.raises(IndexError):
        outbox.next_event()
