"""Decisions of the loop by values: when the source is paused, and that the last checkpoint starts nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.clock import StreamClock
from daemon.ingest.pressure import DEAD_LETTER_BYTES_MAX, PENDING_EVENTS_MAX, Load, Pressure
from daemon.operator.observer import Observer
from daemon.wiring import build
from testkit import rig, scripted

EMPTY = Load(open_rows=0, pending_events=0, dead_letter_bytes=0, blocked=False, clock_rests=False)


@pytest.mark.parametrize(
    ("load", "full", "fills"),
    [
        (EMPTY, False, False),
        (replace(EMPTY, open_rows=49), False, False),
        (replace(EMPTY, open_rows=50), False, True),
        (replace(EMPTY, open_rows=100), True, True),
        (replace(EMPTY, pending_events=PENDING_EVENTS_MAX), True, False),
        (replace(EMPTY, dead_letter_bytes=DEAD_LETTER_BYTES_MAX), True, True),
        (replace(EMPTY, blocked=True), True, False),
        (replace(EMPTY, clock_rests=True), False, False),
    ],
)
def test_the_source_is_paused_by_what_fills_the_memory(load: Load, full: bool, fills: bool) -> None:
    """The source is paused once, until the pressure is gone, and that is logged. A wait for the clock pauses it, too, without pressure."""
    events: list[str] = []
    source = scripted.ScriptedSource(seed=1)
    pressure = Pressure(source, Observer(lambda event, _fields: events.append(event)), open_rows_max=100)
    for _ in range(2):
        pressure.apply(load)
        assert (pressure.full, pressure.paused, source.paused) == (full, full or load.clock_rests, full or load.clock_rests)
    assert pressure.fills(load) == fills
    pressure.apply(EMPTY)
    assert (pressure.full, pressure.paused, source.paused) == (False, False, False)
    assert events == (["source_paused", "source_resumed"] if full else [])


def test_the_last_checkpoint_starts_no_training(tmp_path: Path) -> None:
    """A training that is due when the daemon is stopped waits for the next start: nobody would see its child end."""
    reported: list[str] = []
    observer = Observer(lambda event, _fields: reported.append(event))
    made: Any = build(rig.config(tmp_path, training={"rows_min": 100}), scripted.ScriptedSource(seed=1), StreamClock(), observer)

    def stop_when_due(_polled: object) -> None:
        if made.parts.training.wants_checkpoint:
            made.loop.stop("SIGTERM")

    made.loop.on_step = stop_when_due
    made.run()
    assert "training_due" in reported
    assert "training_started" not in reported
    assert not made.parts.training.trainer.running
    assert made.parts.keeper.store.sequence >= 1
