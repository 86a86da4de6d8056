"""Detectors on forecasts with intervals: what the model follows is still a change, and each metric is judged by its own tail."""

from __future__ import annotations

import numpy as np
import pytest

from drift.link import level
from drift.link.cusum import STRICTER
from drift.link.rows import Intervals, MonitoredRows
from drift.link.stage import LinkDrift
from drift.messages import LinkAlarm
from features.telemetry import CATEGORIES, NUMERIC
from testkit.drifting import DAY, LEAST

HORIZON = 60


class Telemetry:
    """One metric of one link, with the forecasts of a model.

    Args:
        actual: float (T,), the metric.
        next_row: float (T,), what was forecast for each row by the row before.
        far: float (T,), what was forecast for each row HORIZON rows before.
        sides: half widths of both intervals, below and above.
        gap_at: row before which a gap lies.
    """

    def __init__(
        self, actual: np.ndarray, next_row: np.ndarray, far: np.ndarray, sides: tuple[float, float], gap_at: int | None = None
    ) -> None:
        self.actual, self.next_row, self.far, self.sides, self.gap_at = actual, next_row, far, sides, gap_at

    def rows(self, begin: int, end: int) -> MonitoredRows:
        count = end - begin
        numeric, residual = np.full((count, len(NUMERIC)), np.nan, np.float32), np.full((count, 4), np.nan, np.float32)
        numeric[:, 1], residual[:, 1] = self.actual[begin:end], (self.actual - self.next_row)[begin:end]
        made = np.full((count, 4, 3), np.nan, np.float32)
        coming = np.concatenate([self.far[HORIZON:], np.full(HORIZON, self.far[-1])])[begin:end]
        made[:, 1] = np.column_stack([coming - self.sides[0], coming, coming + self.sides[1]])
        sides = np.full((count, 4, 2), np.nan, np.float32)
        sides[:, 1] = self.sides
        restarted = np.arange(begin, end) == (0 if self.gap_at is None else self.gap_at)
        return MonitoredRows(
            watch=np.zeros(count, np.int32), numeric=numeric, residual=residual, codes=np.ones((count, len(CATEGORIES)), np.float32),
            time_s=60.0 * np.arange(begin, end), lag_s=np.zeros(count), offsets=np.arange(begin, end),
            describe=lambda _: ("eu", "a|b", "metro"),
            intervals=Intervals(sides, made, HORIZON, 0.9, restarted, np.full(count, 60.0)),
        )  # fmt: skip

    def alarms(self, batch: int = 400) -> list[LinkAlarm]:
        drift, found = LinkDrift(1), list[LinkAlarm]()
        for begin in range(0, len(self.actual), batch):
            found += drift.update(self.rows(begin, min(begin + batch, len(self.actual))), LEAST)[0]
        return found


def followed_step(size: float, at: int = 2 * DAY, rows: int = 2 * DAY + 240, seed: int = 3) -> Telemetry:
    """A step that the forecast of the next row follows within three rows, and that of an hour before after an hour."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, rows)
    row, actual = np.arange(rows), 50.0 + noise
    actual[at:] += size
    next_row = 50.0 + size * np.clip((row - at) / 3.0, 0.0, 1.0)
    return Telemetry(actual, next_row, 50.0 + size * (row >= at + HORIZON), (1.645, 1.645))


def test_a_step_that_the_model_follows_is_still_a_step() -> None:
    """It is found by the forecast that was made before it, with its time, its size, and the level before and after."""
    found = [one for one in followed_step(4.0).alarms() if one.detector == "level" and not one.withdrawn and one.time_s >= 2 * DAY * 60]
    assert found
    assert {one.direction for one in found} == {1}
    assert all(abs(one.since_s / 60 - 2 * DAY) <= 3 for one in found)
    assert found[-1].confirmed
    assert found[-1].size == pytest.approx(4.0, rel=0.15)
    assert found[-1].before == pytest.approx(50.0, abs=1.0)


def test_what_forecasts_expect_and_does_not_come_is_no_change() -> None:
    """A day after an hour of load the forecasts expect the next one. The metric is as it was."""
    rows = 2 * DAY + 240
    actual = 50.0 + np.random.default_rng(5).normal(0.0, 1.0, rows)
    far = np.full(rows, 50.0)
    far[2 * DAY : 2 * DAY + 60] += 5.0
    found = [one for one in Telemetry(actual, np.full(rows, 50.0), far, (1.645, 1.645)).alarms() if one.detector == "level"]
    assert not [one for one in found if one.time_s >= 2 * DAY * 60 and one.confirmed]


def test_a_change_that_goes_back_is_withdrawn() -> None:
    """Of a level nothing is adopted, so that its end is the end of the alarm, however sure that was."""
    made = followed_step(6.0)
    made.actual[2 * DAY + 40 :] -= 6.0
    made.next_row[:], made.far[:] = 50.0, 50.0
    own = [one for one in made.alarms() if one.detector == "level" and one.time_s >= 2 * DAY * 60]
    assert any(one.confirmed and not one.adopted for one in own)
    assert own[-1].withdrawn
    assert own[-1].time_s / 60 < 2 * DAY + 100


def test_rows_that_nobody_compared_are_no_change() -> None:
    """While forecasts are shed the detectors see no row. What was forecast before that is not compared with what comes after."""
    rows = 3 * DAY
    course = 50.0 + 10.0 * np.sin(2 * np.pi * np.arange(rows) / DAY)
    made = Telemetry(course + np.random.default_rng(2).normal(0.0, 1.0, rows), course, course, (1.645, 1.645))
    drift = LinkDrift(1)
    found = list(drift.update(made.rows(0, 2 * DAY), LEAST)[0])
    drift.forget_far()
    found += drift.update(made.rows(2 * DAY + 360, rows), LEAST)[0]
    assert not [one for one in found if one.detector == "level" and not one.noticed and not one.withdrawn]


def test_a_fall_of_a_skewed_metric_is_no_error_of_the_model() -> None:
    """Its lower side is a quarter of the upper one: size and share of it are those of the side on which it moves."""
    rows = 2 * DAY + 60
    noise = np.random.default_rng(4).normal(0.0, 1.0, rows)
    actual, expected = 50.0 + np.where(noise < 0, noise, 4 * noise), np.full(rows, 50.0)
    actual[2 * DAY :] -= 10.0
    made = Telemetry(actual, expected, expected, (1.645, 4 * 1.645))
    found = [one for one in made.alarms() if one.detector == "cusum" and one.time_s >= 2 * DAY * 60 and one.direction == -1]
    assert found
    assert found[0].shown > 0.5
    assert abs(found[0].size) < 20.0


@pytest.mark.parametrize("gap_at", [None, 2 * DAY + 5])
def test_a_gap_ends_what_is_under_way(gap_at: int | None) -> None:
    """After a gap there is no forecast of an hour before: nothing is compared for an hour, and nothing is held against the link."""
    made = followed_step(4.0)
    made.gap_at = gap_at
    found = [one for one in made.alarms() if one.detector == "level" and one.confirmed]
    assert bool(found) is (gap_at is None)


def test_batches_make_no_difference() -> None:
    """Alarms and state are the same bits, whatever the batches."""
    made = followed_step(3.0, at=600, rows=1200)
    assert made.alarms(1200) == made.alarms(7)


def test_a_skewed_metric_is_judged_by_its_own_sides() -> None:
    """A loss that is log-normal and grows with its level: in its intervals it alarms no more often than a normal one, for a month."""
    generator, rows = np.random.default_rng(7), 30 * DAY
    height = 0.01 * np.exp(0.8 * np.sin(2 * np.pi * np.arange(rows) / DAY))
    actual = height * np.exp(0.6 * generator.normal(0.0, 1.0, rows))
    drift, found = LinkDrift(1), list[LinkAlarm]()
    made = Telemetry(actual, height, height, (1.0, 1.0))
    for begin in range(0, rows, DAY):
        part = made.rows(begin, begin + DAY)
        assert part.intervals is not None
        below, above = height * (1 - np.exp(-0.6 * 1.645)), height * (np.exp(0.6 * 1.645) - 1)
        part.intervals.next_row[:, 1] = np.column_stack([below, above])[begin : begin + DAY]
        coming = np.minimum(np.arange(begin, begin + DAY) + HORIZON, rows - 1)
        part.intervals.far[:, 1] = np.column_stack([height - below, height, height + above])[coming]
        found += drift.update(part, np.full(4, 1e-6, np.float32))[0]
    assert not [one for one in found if one.confirmed]
    assert len([one for one in found if not one.withdrawn and not one.noticed]) <= 2


def test_a_metric_that_alarms_again_and_again_is_judged_more_strictly() -> None:
    """Its thresholds rise with each notice, and fall in quiet weeks."""
    state, thresholds = np.zeros((1, 4, level.FIELDS)), np.array([1.0, 50.0, 60.0])
    anchors, run = np.full((1, level.ANCHORS, 4, 3), np.nan, np.float32), np.zeros(1)
    rows = 3 * DAY
    actual = np.full((rows, 4), np.nan, np.float32)
    actual[:, 1] = 50.0 + np.random.default_rng(9).normal(0.0, 1.0, rows)
    ahead = np.full((rows, 4, 3), np.nan, np.float32)
    ahead[:, 1] = 50.0 - 1.645, 50.0, 50.0 + 1.645
    watch, held, restarted = np.zeros(rows, np.int32), np.zeros((rows, 4), np.bool_), np.zeros(rows, np.bool_)
    level.follow(
        state, anchors, run, watch, actual, held, restarted, ahead, 60.0 * np.arange(rows), np.full(rows, 60.0), HORIZON, 0.9,
        np.full(4, 0.01), thresholds,
    )  # fmt: skip
    strict = state.view(level.LEVEL)[0, 1, 0].strict
    assert strict > 2 * STRICTER


@pytest.mark.parametrize("wild", [np.nan, 1e30, -1e30])
def test_wild_values_and_forecasts_poison_nothing(wild: float) -> None:
    """Neither a measurement nor a forecast that is wild leaves the detector blind: a step two days later is found."""
    made = followed_step(5.0)
    made.actual[500:505], made.far[700:705] = wild, wild
    with np.errstate(all="ignore"):
        found = [one for one in made.alarms() if one.detector == "level" and one.time_s >= 2 * DAY * 60 and not one.withdrawn]
    assert found
    assert found[0].direction == 1


@pytest.mark.parametrize("before", [0.0, 5.0])
def test_a_metric_that_never_moved_and_then_moves(before: float) -> None:
    """All zero, or constant for a week: its interval is next to nothing, and the first step is one change in the right direction."""
    rows = 7 * DAY + 120
    actual, expected = np.full(rows, before), np.full(rows, before)
    actual[7 * DAY :] += 1.0
    found = [one for one in Telemetry(actual, expected, expected, (0.0, 0.0)).alarms() if one.detector == "level" and not one.withdrawn]
    assert found
    assert {one.direction for one in found} == {1}
    assert found[0].time_s / 60 - 7 * DAY < 40
    assert found[-1].size == pytest.approx(1.0, abs=0.9)


def test_a_metric_that_is_measured_once_an_hour() -> None:
    """Among others that are measured each minute: the rows that have it count, and a step is found within a day of them."""
    made = followed_step(5.0, at=20 * DAY, rows=22 * DAY)
    made.next_row[:], made.far[:] = 50.0, 50.0
    made.actual[np.arange(len(made.actual)) % 60 != 0] = np.nan
    found = [one for one in made.alarms() if not one.withdrawn and one.time_s >= 20 * DAY * 60]
    assert found
    assert found[0].direction == 1
    assert found[0].time_s < 21.5 * DAY * 60


def test_a_change_in_the_first_hour_is_what_the_link_is_like() -> None:
    """Nothing is known yet, so nothing is reported, and nothing is held against the link afterwards."""
    made = followed_step(4.0, at=30, rows=DAY)
    assert not [one for one in made.alarms() if one.confirmed]
