"""Watch the measurements of monitored links against forecasts that were made long before them: the level chart of the link stage.

A forecast of the next row follows a step within a few rows, and its residual is small again. A forecast that was made an hour before
knows nothing of the step for an hour. It knows what the link used to show: its level, its profile of the day and the calendar. So the
distance of a measurement from it shows a step as long as an operator looks at one.

The distance is divided by the half of the forecast's own interval on its side, which has the tail of this metric: the right side of a
loss is several times as wide as the left one. Of that an exponentially weighted average is kept (EWMA chart, Roberts 1959, "Control chart
tests based on geometric moving averages", Technometrics 1), in units of its own root mean square in quiet rows: neighbours resemble each
other, by as much as they do on this link. It alarms above a threshold that rises when it has alarmed and falls in quiet weeks, so that
each metric of each link keeps to a rate of alarms, whatever its distribution.

All kernels are in this file: see cusum.py.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drift.link.cusum import ALARM, ALONE, NOTICE_ROWS, STRICTER, STRICTEST, WITHDRAWN, Records, record
from features.compiled import compiled
from features.telemetry import TARGETS, Doubles, Flags, Floats, Ints

ANCHORS: Final = 5
"""Forecasts of each link that are kept: one in every quarter of the horizon, and the one that is being compared."""
RATE: Final = 1.0 / 24.0
"""Weight of a row in the average. Measured on simulated fleets, at an equal rate of false alarms: of the averages over 8 to 32 rows this
finds most steps of two and four standard deviations within an hour."""
CLIP: Final = 3.0
"""Standard deviations at which a row is clipped: the average needs a dozen rows to pass a threshold, whatever their size."""
FIRST_SPREAD: Final = 0.5
FIRST_ROWS: Final = 480.0
"""Root mean square of the average before it is known, and the rows that this counts as. Measured: .4 to .6 on simulated fleets."""
MEMORY_ROWS: Final = 4320.0
"""Rows within which the root mean square is forgotten: three days of minutes."""
BIAS_ROWS: Final = 1440.0
"""Rows within which a lasting bias of the forecasts is learnt."""
QUIET: Final = 3.5
"""Largest average, in its root mean squares, that is learnt from."""
LARGEST_SQUARE: Final = 6.0
"""Largest square that is learnt, in mean squares."""
SLACK: Final = 0.75
"""Slack of the sum that dates a change, in standard deviations."""
MASS_SIGMA: Final = 12.0
"""Standard deviations at which a distance is clipped for the size of a change."""
BACK: Final = 1.0
"""Average, in its root mean squares, below which a reported change is over: the metric has gone back, or the forecasts have followed."""
RECENT: Final = 1.0 / 12.0
"""Weight of a row in the metric's own level."""
EARLY_ROWS: Final = 5.0
"""Rows for which a metric has been off one way before `STANDING` says so."""
SHOWN_LEAST: Final = 0.5
"""Share of a change that the metric itself must show. Where it shows less, the forecasts have moved: a day after an hour of loss they
expect the next one."""

UP, DOWN = range(2)
LEVEL: Final = record(
    "count bias average square_up square_down strict reported recent before total:2 rows:2 since_s:2 mass:2 moment:2 given:2 start:2"
)
"""Memory of one metric of one link. count: rows with a distance. bias: their slow mean. average: of the distances. square_up, square_down:
mean squares of the average on both sides of 0. strict: factor of the thresholds, less 1. reported: how many thresholds the average has
passed, less than 0 if it is below 0. recent: average of the metric. before: its level before the change that was reported. Then for both
directions the sum that dates a change: its value, rows and beginning, the sum of the distances in the metric's unit, and of those times the
number of the row, the sum of the metric, and its level before."""
STANDING: Final = record("direction since_s change before shown")
"""How a metric stands after a row: direction in which it is off, 0 if it is not; since when, UTC seconds; by how much, and its level
before, both in the metric's unit; and the share of it that the metric itself shows."""
FIELDS: Final = LEVEL.itemsize // 8
"""Columns of the state as float64."""


def half_width(coverage: float) -> float:
    """Return half the width of an interval of this coverage (0 to 1), in standard deviations of a normal distribution."""
    return NormalDist().inv_cdf(0.5 + 0.5 * coverage)


def follow(
    state: Doubles, anchors: Floats, run_rows: Doubles, links: Ints, actual: Floats, held: Flags, restarted: Flags, ahead: Floats,
    time_s: Doubles, interval_s: Doubles, horizon: int, coverage: float, least: Doubles, thresholds: Doubles,
) -> tuple[Records, NDArray[np.int8], Records]:  # fmt: skip
    """Compare W rows with the forecasts that were made for them, in stream order, and keep the forecasts that are made now.

    The result of a row depends on its link's rows up to it, not on batches.

    Args:
        state: float64 (L, 4, FIELDS), changed in place.
        anchors: float32 (L, ANCHORS, 4, 3), forecasts that are kept: lower, median and upper; changed in place.
        run_rows: float64 (L,), rows of each link's run so far; changed in place.
        links: int32 (W,), indices into state.
        actual: float32 (W, 4), measured, NaN if not.
        held: bool (W, 4), rows that must not be compared.
        restarted: bool (W,), whether a gap lies before the row.
        ahead: float32 (W, 4, 3), lower, median and upper `horizon` rows ahead; NaN if not forecast.
        time_s: float64 (W,), UTC seconds.
        interval_s: float64 (W,), the link's sampling interval, NaN if unknown.
        horizon: rows.
        coverage: of the intervals, 0 to 1.
        least: float64 (4,), lower bound of a standard deviation, in the metric's unit.
        thresholds: float64 (3,), NOTICE, QUORUM and ALONE, in root mean squares of the average.

    Returns:
        ALARM (W, 4, 2), for both directions; threshold 0: there is none. Of a withdrawn one only times and level are set, and as change how
        far the metric has stayed from it.
        int8 (W, 4): the direction, 1 or -1, in which a reported average is off after the row; 0: none is.
        STANDING (W, 4): how each metric stands after the row.
    """
    alarms, off, standing = np.zeros((*actual.shape, 2), ALARM), np.zeros(actual.shape, np.int8), np.zeros(actual.shape, STANDING)
    _follow(
        state.view(LEVEL)[..., 0], anchors, run_rows, links, actual, held, restarted, ahead, time_s, interval_s, horizon,
        -(-horizon // (ANCHORS - 1)), half_width(coverage), least, thresholds, alarms, off, standing,
    )  # fmt: skip
    return alarms, off, standing


def break_off(state: Doubles) -> None:
    """End what is under way on all links. state: float64 (L, 4, FIELDS), changed in place."""
    for level in state.view(LEVEL).reshape(-1):
        _break_off(level)


@compiled
def _follow(
    state: Records, anchors: Floats, run_rows: Doubles, links: Ints, actual: Floats, held: Flags, restarted: Flags, ahead: Floats,
    time_s: Doubles, interval_s: Doubles, horizon: int, step: int, half: float, least: Doubles, thresholds: Doubles, alarms: Records,
    off: NDArray[np.int8], standing: Records,
) -> None:  # fmt: skip
    for row in range(len(links)):
        link = links[row]
        if restarted[row]:
            run_rows[link] = 0.0
            anchors[link] = np.nan
            for metric in range(actual.shape[1]):
                _withdraw(state[link, metric], time_s[row], interval_s[row], alarms[row, metric])
                _break_off(state[link, metric])
        run = int(run_rows[link])
        made = (run - horizon) // step
        for metric in range(actual.shape[1]):
            value = float(actual[row, metric])
            level, anchor = state[link, metric], anchors[link, made % ANCHORS, metric]
            if run >= horizon and not held[row, metric] and math.isfinite(value) and math.isfinite(anchor[1]):
                below, above = max(anchor[1] - anchor[0], half * least[metric]), max(anchor[2] - anchor[1], half * least[metric])
                _add(level, value, float(anchor[1]), below / half, above / half, time_s[row])
                _judge(level, 0.5 * (below + above) / half, time_s[row], interval_s[row], thresholds, alarms[row, metric])
            if level.reported != 0.0:
                off[row, metric] = 1 if level.reported > 0.0 else -1
            _stand(level, standing[row, metric])
        if run % step == 0:
            anchors[link, run // step % ANCHORS] = ahead[row]
        run_rows[link] = run + 1.0


@compiled
def _stand(level: Any, stands: Any) -> None:
    """Set how a metric stands after a row, if it is off."""
    way = UP if level.average > 0.0 else DOWN
    square = level.square_up if way == UP else level.square_down
    if level.total[way] == 0.0 or level.rows[way] < EARLY_ROWS or abs(level.average) < BACK * math.sqrt(square):
        return
    mean = level.mass[way] / level.rows[way]
    stands.direction, stands.since_s, stands.change, stands.before = 1.0 if way == UP else -1.0, level.since_s[way], mean, level.start[way]
    stands.shown = (level.given[way] / level.rows[way] - level.start[way]) / mean if mean != 0.0 else 0.0


@compiled
def _withdraw(level: Any, time_s: float, interval_s: float, alarms: Any) -> None:
    """Report that the change that was reported is over, if there is one."""
    if level.reported != 0.0:
        alarm = alarms[UP if level.reported > 0.0 else DOWN]
        alarm.threshold, alarm.since_s, alarm.interval_s = WITHDRAWN, time_s, interval_s
        alarm.change, alarm.before = level.recent - level.before, level.before
        level.reported = 0.0


@compiled
def _break_off(level: Any) -> None:
    """End what is under way: the rows before a gap say nothing about those after it. What the link is like stays."""
    level.average, level.reported = 0.0, 0.0
    for i in range(2):
        level.total[i] = 0.0


@compiled
def _add(level: Any, value: float, expected: float, below: float, above: float, time_s: float) -> None:
    """Add one distance to the average, and to the sums that date a change. below, above: standard deviations, in the metric's unit."""
    distance = value - expected
    z = max(-CLIP, min(CLIP, distance / (above if distance > 0.0 else below))) - level.bias
    if level.count == 0.0:
        level.square_up = level.square_down = FIRST_SPREAD * FIRST_SPREAD
        level.recent = value
    level.count += 1.0
    level.average += RATE * (z - level.average)
    square = level.square_up if level.average > 0.0 else level.square_down
    if abs(level.average) < QUIET * math.sqrt(square):
        weight = 1.0 / min(level.count + FIRST_ROWS, MEMORY_ROWS)
        learnt = weight * (min(level.average * level.average, LARGEST_SQUARE * square) - square)
        if level.average > 0.0:
            level.square_up += learnt
        else:
            level.square_down += learnt
        level.bias += max(weight, 1.0 / BIAS_ROWS) * z
    for i in range(2):
        gain = (z if i == UP else -z) - SLACK
        if level.total[i] + gain <= 0.0:
            level.total[i] = 0.0
            continue
        if level.total[i] == 0.0:
            level.since_s[i] = time_s
            level.start[i], level.rows[i], level.mass[i], level.moment[i], level.given[i] = level.recent, 0.0, 0.0, 0.0, 0.0
        level.total[i] += gain
        level.rows[i] += 1.0
        mass = max(-MASS_SIGMA * below, min(MASS_SIGMA * above, distance))
        level.mass[i] += mass
        level.moment[i] += level.rows[i] * mass
        level.given[i] += value
    level.recent += RECENT * (value - level.recent)


@compiled
def _judge(level: Any, sigma: float, time_s: float, interval_s: float, thresholds: Doubles, alarms: Any) -> None:
    """Set the alarm of one row, if there is one. sigma: standard deviation of a row, in the metric's unit."""
    way, sign = (UP, 1.0) if level.average > 0.0 else (DOWN, -1.0)
    level.strict = max(0.0, level.strict - STRICTER / NOTICE_ROWS)
    whole = abs(level.average) / math.sqrt(level.square_up if way == UP else level.square_down)
    if level.reported * sign < 0.0 or whole < BACK:
        _withdraw(level, time_s, interval_s, alarms)
    size = whole / (1.0 + level.strict)
    passed = 0.0
    for column in range(ALONE + 1):
        if size > thresholds[column]:
            passed = column + 1.0
    if passed <= abs(level.reported) or level.total[way] == 0.0:
        return
    rows = level.rows[way]
    mean = level.mass[way] / rows
    shown = (level.given[way] / rows - level.start[way]) / mean if mean != 0.0 else 0.0
    if shown < SHOWN_LEAST:
        return
    if level.reported == 0.0 and passed <= ALONE:
        level.strict = min(STRICTEST - 1.0, level.strict + STRICTER)
    level.reported, level.before = sign * passed, level.start[way]
    alarm = alarms[way]
    alarm.threshold, alarm.since_s, alarm.interval_s = passed, level.since_s[way], interval_s
    alarm.change, alarm.change_sigma, alarm.before, alarm.shown = mean, mean / sigma, level.before, shown
    if rows >= 3.0 and mean != 0.0:  # the slope of a least-squares line over the rows
        slope = (level.moment[way] - level.mass[way] * (rows + 1.0) / 2.0) * 12.0 / (rows * (rows * rows - 1.0))
        alarm.growth = slope * rows / mean


assert len(TARGETS) * (FIELDS * 8 + ANCHORS * 3 * 4) <= 1_000, "bytes of a link"
