"""States that last are reported, at a bounded rate: a log without a line for an hour looks like a daemon that does nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from daemon.clock import StreamClock
from daemon.operator.long_states import AFTER_S, OVER, REPEAT_S, Lasting, LongStates
from daemon.operator.observer import EVENTS, Observer
from daemon.wiring import build
from testkit import rig, scripted


def reported_over(seconds: int, lasts: bool = True, event: str = "catching_up") -> tuple[LongStates, list[float]]:
    """A look a second, and the seconds at which the state was reported."""
    states, reported = LongStates(), []
    for now_s in range(seconds):
        reported += [
            fields["seconds"] for name, fields in states.note(float(now_s), {event: Lasting({"lag": 7})} if lasts else {}) if name == event
        ]
    return states, reported


@pytest.mark.parametrize("event", AFTER_S)
def test_a_state_is_told_once_it_has_lasted_and_then_ever_more_rarely(event: str) -> None:
    """First after its time, then after twice as long, and never more rarely than every hour."""
    after_s = AFTER_S[event]
    assert reported_over(int(after_s), event=event)[1] == []
    _, reported = reported_over(4 * 3600, event=event)
    assert reported[:4] == [after_s, 2 * after_s, 4 * after_s, 8 * after_s]
    assert max(later - one for one, later in pairwise(reported)) <= REPEAT_S
    assert len(reported) < 15


def test_a_state_that_is_short_is_never_told_nor_is_its_end() -> None:
    """It is not there at every other look."""
    states = LongStates()
    for now_s in range(1000):
        lasting = {event: Lasting({}) for event in AFTER_S} if now_s % 2 else {}
        assert states.note(float(now_s), lasting) == []


def test_many_short_ones_in_a_row_are_not_a_long_one() -> None:
    """A checkpoint is under way at every look, and another one each time; one of them then lasts, from its own beginning on."""
    states = LongStates()
    for now_s in range(1000):
        assert states.note(float(now_s), {"checkpoint_slow": Lasting({}, now_s - 0.5)}) == []
    reported = [states.note(999.0 + late_s, {"checkpoint_slow": Lasting({}, 998.5)}) for late_s in range(20)]
    assert [event for events in reported for event in events] == [("checkpoint_slow", {"seconds": 15.5})]


def test_the_end_of_what_was_told_is_told() -> None:
    """The event has the duration; the next time begins anew."""
    states, reported = reported_over(60)
    assert reported == [10.0, 20.0, 40.0]
    assert states.note(61.0, {}) == [("caught_up", {"seconds": 61.0})]
    assert states.note(62.0, {"catching_up": Lasting({})}) == []


def test_every_event_is_known() -> None:
    """To the table that gives it its level."""
    assert {*AFTER_S, *OVER.values()} <= EVENTS.keys()


def test_a_daemon_says_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its source, then no longer; without a version, with how many of the rows are there; while a checkpoint is under way."""
    monkeypatch.setattr("daemon.operator.long_states.AFTER_S", dict.fromkeys(AFTER_S, 0.0))
    monkeypatch.setattr("daemon.operator.long_states.BEHIND_RECORDS", 1000)
    monkeypatch.setattr("daemon.operator.readiness.GAUGES_S", 0.0)
    reported: list[tuple[str, dict[str, Any]]] = []
    source = scripted.ScriptedSource(seed=1)
    total = sum(map(len, source.records.values()))
    monkeypatch.setattr(source, "lag", lambda: total - sum(source.positions.values()))
    config = rig.config(tmp_path, training={"rows_min": 10 * total})
    build(config, source, StreamClock(), Observer(lambda event, fields: reported.append((event, fields)))).run()
    behind = [fields["lag"] for event, fields in reported if event == "catching_up"]
    assert total > 2000
    assert behind == sorted(behind, reverse=True)
    assert behind[0] >= 1000
    assert [event for event, _ in reported if event in ("catching_up", "caught_up")][-1] == "caught_up"
    waits = [fields["waits_for"] for event, fields in reported if event == "training_waits"]
    assert waits[-1].startswith("rows for the first version, ")
    assert waits[-1].endswith(f" of {10 * total:,}")
    assert any(event == "checkpoint_slow" for event, _ in reported)
