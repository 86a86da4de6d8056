"""States that last are told, at a bounded rate: a log that says nothing for an hour cannot be told from a daemon that does nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from daemon.long_states import AFTER_S, OVER, REPEAT_S, LongStates
from daemon.observe import EVENTS


def told_over(seconds: int, lasts: bool = True, event: str = "catching_up") -> tuple[LongStates, list[float]]:
    """A look a second, and the seconds at which the state was told."""
    states, told = LongStates(), []
    for now_s in range(seconds):
        told += [fields["seconds"] for name, fields in states.note(float(now_s), {event: {"lag": 7}} if lasts else {}) if name == event]
    return states, told


@pytest.mark.parametrize("event", AFTER_S)
def test_a_state_is_told_once_it_has_lasted_and_then_ever_more_rarely(event: str) -> None:
    """First after its time, then after twice as long, and never more rarely than every hour."""
    after_s = AFTER_S[event]
    assert told_over(int(after_s), event=event)[1] == []
    _, told = told_over(4 * 3600, event=event)
    assert told[:4] == [after_s, 2 * after_s, 4 * after_s, 8 * after_s]
    assert max(later - one for one, later in pairwise(told)) <= REPEAT_S
    assert len(told) < 15


def test_a_state_that_is_short_is_never_told_nor_is_its_end() -> None:
    """It is not there at every other look."""
    states = LongStates()
    for now_s in range(1000):
        lasting = {event: {} for event in AFTER_S} if now_s % 2 else {}
        assert states.note(float(now_s), lasting) == []


def test_the_end_of_what_was_told_is_told() -> None:
    """With how long it has lasted; the next time begins anew."""
    states, told = told_over(60)
    assert told == [10.0, 20.0, 40.0]
    assert states.note(61.0, {}) == [("caught_up", {"seconds": 61.0})]
    assert states.note(62.0, {"catching_up": {}}) == []


def test_every_event_is_known() -> None:
    """To the table that gives it its level."""
    assert {*AFTER_S, *OVER.values()} <= EVENTS.keys()
