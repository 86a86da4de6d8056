"""The compiled half of the link stage: standardises the residuals of watched links and runs CUSUMs over them.

A residual is standardised by what the link's own residuals under the live model were so far: a level that forgets within
BASELINE_ROWS, a daily cycle of level and spread that the model has left over (harmonics, kept only where they stand out of their own
noise), and a scale. Three CUSUMs (Page 1954, "Continuous inspection schemes") sum what exceeds a slack: up, down, and of their absolute
size. They alarm above a threshold in units of the *long-run* variance of the residuals, which is estimated beside them from the means of
BLOCK_ROWS rows: neighbours that resemble each other would reach any fixed threshold in no time. While a sum is high, nothing is learnt
from what may be the change itself.

All kernels stand in this file, because Numba's cache notices a change of the file that holds a kernel, but not of one it calls into.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from features.compiled import compiled
from features.telemetry import Bytes, Doubles, Floats, Ints

CALIBRATION_ROWS: Final = 60
"""Residuals that set a link's first level and scale; a standard deviation from 60 values is right to 9 %."""
CLIP_SIGMA: Final = 4.0
"""A heavy-tailed outlier counts as this much, so that one record is a quarter of an alarm at most."""
SLACK: Final = 0.5
"""Of the sums, in standard deviations: shifts of twice as much are found soonest (Moustakides 1986)."""
SLACK_SPREAD: Final = 0.35
"""Of the sum on absolute residuals, in their own standard deviations: half of what a doubled variance moves them by, and a little more."""
SLACK_FIRST_DAY: Final = 0.25
SLACK_SPREAD_FIRST_DAY: Final = 0.7
"""More slack in a link's first day, fading over its second: until then a daily cycle of the residuals cannot be told from a change."""
BASELINE_ROWS: Final = 1440.0
CYCLE_S: Final = 5 * 86_400.0
"""How long the daily cycle is remembered."""
BLOCK_ROWS: Final = 16
LEAST_SIZE: Final = 0.2
LEAST_SIZE_VARIANCE: Final = 0.05
"""Of the absolute standardised residual: one that was constant for long would make anything a thousandfold spread."""
MASS_SIGMA: Final = 8.0
"""An outlier within a change counts as this much in its size."""
WIDER_MAX: Final = 4.0
"""A scale grows by this much at once at most."""
FIRST_ROWS: Final = 20
"""Of the calibration, by whose median and median deviation the others are clipped: one wild value must not set the scale."""
FIRST_SIGMA: Final = 5.0
_GAP_INTERVALS: Final = 4.0
"""An outage counts as so many intervals, or the interval would be that of the outage for hours."""
BLOCKS: Final = 90.0
"""How many blocks the long-run variance is an average of."""
FAR_SIGMA: Final = 4.0
FAR_RATIO: Final = 3.0
"""Two residuals that are this far out, the first nearly, and so many times as far as the sum's mean so far, begin the change: what the sum
had before them was chance, and neither its time nor its size is the change's."""
FAR_FIRST: Final = 0.75
INPUT_STEPS: Final = 8.0
"""Times its mean step (or the residual's scale) by which one value moves the metric's own level at most: an outlier is no trend."""
SUSPICIOUS: Final = 0.5
"""Share of a threshold above which a sum counts as a change that may be under way."""
_MEMORY: Final = 0.97
"""Of the metric's own level and trend before a change, which tell whether it moved or only its residual did: some 33 rows (Brown 1963,
"Smoothing, forecasting and prediction", double exponential smoothing). The trend is that of the hour of the day."""
DAY_S: Final = 86_400.0
_NORMAL: Final = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute deviation of a normal distribution."""
_GAP_MAX_S: Final = 3_600.0

# What is kept of one metric of one link, float64 each.
(
    COUNT, LEVEL, SCALE, FIRST_S, LAST_S, INTERVAL_S,  # LEVEL, SCALE: of the residual, in the metric's unit
    COS, SIN, COS2, SIN2, SPREAD_COS, SPREAD_SIN,  # the daily cycle of level (in scales) and of spread (a factor, less 1)
    SIZE, SIZE_VARIANCE,  # of the absolute standardised residual
    NOISE, SIZE_NOISE, BLOCK, SIZE_BLOCK, BLOCK_COUNT,  # long-run variances, and the block that is being summed
    GIVEN, GIVEN_LEVEL, GIVEN_TREND, ROUGHNESS,  # of the metric itself: last value, level and trend, mean step
    LAST, BEFORE_LAST, FIRST_OF_THREE,  # the last residuals less their level
) = range(26)  # fmt: skip
# Of each of the three sums, from its column on: the sum itself, rows since it was last 0, time of the first of them, whether its first
# threshold was told, sums of the residual (or its size) and of that times the row's number, level and trend of the metric (or its mean
# step) before, and the sum of how far it has left them.
_ROWS, _SINCE_S, _TOLD, _MASS, _MOMENT, _BEFORE, _TREND, _LEFT = range(1, 9)
_SUM_FIELDS: Final = 9
UP: Final = 26
DOWN: Final = UP + _SUM_FIELDS
WIDE: Final = DOWN + _SUM_FIELDS
FIELDS: Final = WIDE + _SUM_FIELDS

# What an alarm says, float64 each: which threshold (1, 2), time of the change, its size in scales and in the metric's unit, how much of it
# the metric itself shows (1: all of it, 0: nothing), how much it grew since (0: a step, 2: a ramp), and the interval between rows.
ALARM_FIELDS: Final = 7
# What a full block of residuals says: its mean, in standard deviations of such means; that deviation, in scales; the scale; the interval.
BLOCK_FIELDS: Final = 4
SEEN_EVERY_S: Final = 900.0
"""How often a link tells that it is there."""


@compiled
def judge(
    state: Doubles, seen_s: Doubles, links: Ints, residual: Floats, actual: Floats, time_s: Doubles, least_scale: Doubles,
    thresholds: Doubles,
) -> tuple[Bytes, Doubles, Doubles, Doubles]:  # fmt: skip
    """Takes the residuals of W rows, in stream order. What it gives of a row follows from its link's rows up to it, whatever the batch.

    state: float64 (L, M, FIELDS), and seen_s: float64 (L,), when each link has last told that it is there: both changed in place.
    links: int32 (W,). residual, actual: float32 (W, M), in the metric's unit, residual NaN where there is none. time_s: float64 (W,).
    least_scale: float64 (M,). thresholds: float64 (2, 2), the first and the second of the sums of residuals, then of their sizes.
    Gives uint8 (W, M, 3), of the sum up, down and of sizes: 1 where it passed a threshold, 2 where one that had passed only the first has
    fallen back to 0; float64 (W, M, 3, ALARM_FIELDS), set where it did, of a fallen one only the times and how far the metric has gone
    without its residual;
    float64 (W, M, BLOCK_FIELDS), NaN where no block of residuals ends; and float64 (W,), the interval of a link that tells that it is
    there, else NaN.
    """
    rows, metrics = residual.shape
    blocks = np.full((rows, metrics, BLOCK_FIELDS), np.nan)
    seen = np.full(rows, np.nan)
    passed = np.zeros((rows, metrics, 3), np.uint8)
    found = np.zeros((rows, metrics, 3, ALARM_FIELDS))
    stayed = np.zeros(3)
    for row in range(rows):
        turn = 2.0 * math.pi * ((time_s[row] % DAY_S) / DAY_S)
        cos, sin = math.cos(turn), math.sin(turn)
        for metric in range(metrics):
            value, given = float(residual[row, metric]), float(actual[row, metric])
            if not math.isfinite(value):
                continue
            kept = state[links[row], metric]
            if kept[COUNT] < CALIBRATION_ROWS:
                _calibrate(kept, value, time_s[row], least_scale[metric])
            else:
                z, cycle, breadth, size, told, over = _sum_up(kept, value, given, time_s[row], cos, sin, thresholds, stayed)
                _block(kept, z, size, time_s[row], thresholds, blocks[row, metric])
                if time_s[row] - seen_s[links[row]] >= SEEN_EVERY_S:
                    seen_s[links[row]] = time_s[row]
                    seen[row] = kept[INTERVAL_S]
                if told == 0:
                    _learn(kept, z, cycle, breadth, time_s[row], cos, sin, least_scale[metric], thresholds)
                for at in range(3):
                    if told >> at & 1:
                        passed[row, metric, at] = 1
                        _describe(kept, at, thresholds, found[row, metric, at])
                    elif over >> at & 1:
                        passed[row, metric, at] = 2
                        found[row, metric, at, 1], found[row, metric, at, 6] = time_s[row], kept[INTERVAL_S]
                        found[row, metric, at, 3] = stayed[at]
                for at in range(3):
                    if found[row, metric, at, 0] == 2.0:
                        _accept(kept, at)
                        break  # all sums begin anew
            _follow_input(kept, given, time_s[row])
    return passed, found, blocks, seen


@compiled
def _calibrate(kept: Doubles, value: float, time_s: float, least_scale: float) -> None:
    """Level and scale of the first residuals. The first FIRST_ROWS lie where the sums will be; SCALE holds their spread by the median
    deviation, by which all are clipped, and SIZE_VARIANCE the sum of squares (Welford 1962)."""
    if kept[COUNT] == 0:
        kept[FIRST_S] = time_s
    kept[COUNT] += 1
    count = int(kept[COUNT])
    if count <= FIRST_ROWS:
        kept[UP + count - 1] = value
        if count < FIRST_ROWS:
            return
        first = kept[UP : UP + FIRST_ROWS].copy()
        middle = np.median(first)
        kept[SIZE] = middle
        kept[SCALE] = max(1.4826 * np.median(np.abs(first - middle)), least_scale)
        kept[UP:FIELDS] = 0.0
        for at in range(FIRST_ROWS):
            _include(kept, first[at], at + 1.0)
        return
    _include(kept, value, kept[COUNT])
    if count == CALIBRATION_ROWS:
        kept[SCALE] = max(math.sqrt(kept[SIZE_VARIANCE] / (CALIBRATION_ROWS - 1)), least_scale)
        kept[SIZE], kept[SIZE_VARIANCE] = 1.0 / _NORMAL, 1.0 - 2.0 / math.pi  # as of a normal distribution, until more is known
        kept[NOISE], kept[SIZE_NOISE] = 1.0, 1.0


@compiled
def _include(kept: Doubles, value: float, count: float) -> None:
    """Adds one residual to mean and sum of squares, clipped around the first ones' median, which SIZE holds."""
    value = max(kept[SIZE] - FIRST_SIGMA * kept[SCALE], min(kept[SIZE] + FIRST_SIGMA * kept[SCALE], value))
    step = value - kept[LEVEL]
    kept[LEVEL] += step / count
    kept[SIZE_VARIANCE] += step * (value - kept[LEVEL])


@compiled
def _follow_input(kept: Doubles, given: float, time_s: float) -> None:
    """What the metric itself is like, whatever was forecast."""
    if kept[COUNT] == 1.0:
        kept[GIVEN_LEVEL] = given
    else:
        weight = max(1.0 / (kept[COUNT] - 1.0), 1.0 - _MEMORY)
        most = INPUT_STEPS * max(kept[ROUGHNESS], kept[SCALE]) if kept[COUNT] >= CALIBRATION_ROWS else math.inf
        kept[ROUGHNESS] += weight * (min(most, abs(given - kept[GIVEN])) - kept[ROUGHNESS])
        passed_s = max(0.0, time_s - kept[LAST_S])
        kept[FIRST_S] += max(0.0, passed_s - _GAP_MAX_S)  # what was not seen has taught nothing of the day
        passed_s = min(passed_s, _GAP_INTERVALS * kept[INTERVAL_S]) if kept[INTERVAL_S] > 0.0 else passed_s
        kept[INTERVAL_S] += weight * (passed_s - kept[INTERVAL_S])
        ahead, last = given - kept[GIVEN_LEVEL] - kept[GIVEN_TREND], kept[GIVEN] - kept[GIVEN_LEVEL]
        if not (abs(last) > most and last * ahead > 0.0):  # two on the same side are where the metric is now
            ahead = max(-most, min(most, ahead))
        kept[GIVEN_LEVEL] += kept[GIVEN_TREND] + (1.0 - _MEMORY**2) * ahead
        kept[GIVEN_TREND] += (1.0 - _MEMORY) ** 2 * ahead
    kept[GIVEN], kept[LAST_S] = given, time_s


@compiled
def _sum_up(
    kept: Doubles, value: float, given: float, time_s: float, cos: float, sin: float, thresholds: Doubles, stayed: Doubles
) -> tuple[float, float, float, float, int, int]:  # fmt: skip
    """Standardises one residual and adds it to the three sums. Gives it, the daily cycle of level and of spread, its standardised size, and
    as bits which sums have passed a threshold that was not told yet, and which are over though they were told.

    stayed: float64 (3,), set for the first two where they are over: how far the metric has gone meanwhile without its residual.
    """
    days = (time_s - kept[FIRST_S]) / DAY_S
    unknown = max(0.0, min(1.0, 2.0 - days))
    cycle, breadth = 0.0, 1.0
    if days >= 1.0:
        noise = 8.0 / max(
            1.0, min(kept[COUNT], CYCLE_S / max(kept[INTERVAL_S], 1e-3))
        )  # twice the variance that pure noise gives amplitudes
        cycle += _shrunk(kept[COS], kept[SIN], noise) * (kept[COS] * cos + kept[SIN] * sin)
        cycle += _shrunk(kept[COS2], kept[SIN2], noise) * (kept[COS2] * (cos * cos - sin * sin) + kept[SIN2] * 2.0 * cos * sin)
        breadth += _shrunk(kept[SPREAD_COS], kept[SPREAD_SIN], 0.5 * noise) * (kept[SPREAD_COS] * cos + kept[SPREAD_SIN] * sin)
        breadth = max(breadth, 0.3)
    z = max(-CLIP_SIGMA, min(CLIP_SIGMA, ((value - kept[LEVEL]) / kept[SCALE] - cycle) / breadth))
    size = min(CLIP_SIGMA, (abs(z) - kept[SIZE]) / math.sqrt(kept[SIZE_VARIANCE]))
    scale = kept[SCALE] * breadth
    excess = value - kept[LEVEL] - kept[SCALE] * cycle
    kept[FIRST_OF_THREE], kept[BEFORE_LAST], kept[LAST] = kept[BEFORE_LAST], kept[LAST], excess
    most = MASS_SIGMA * kept[SCALE]
    excess = max(-most, min(most, excess))
    slack = SLACK + SLACK_FIRST_DAY * unknown
    before = max(-most, min(most, kept[BEFORE_LAST]))
    over = 0
    for at, begin, sign in ((0, UP, 1.0), (1, DOWN, -1.0)):
        if sign * excess >= FAR_SIGMA * scale and sign * before >= FAR_FIRST * FAR_SIGMA * scale:
            _begin_anew(kept, begin, excess, before, time_s)
        stayed[at] = (kept[begin + _LEFT] - kept[begin + _MASS]) / max(kept[begin + _ROWS], 1.0)
        over |= _add(kept, begin, sign * z - slack, excess, given, kept[GIVEN_LEVEL], kept[GIVEN_TREND], time_s) << at
    slack = SLACK_SPREAD + SLACK_SPREAD_FIRST_DAY * unknown
    if not _suspicious(kept, thresholds):  # a level that moves makes residuals larger too, and explains them better
        over |= _add(kept, WIDE, size - slack, abs(z), abs(given - kept[GIVEN]), kept[ROUGHNESS], 0.0, time_s) << 2
    told = _passes(kept, UP, kept[NOISE], thresholds[0, 0], thresholds[0, 1])
    told |= _passes(kept, DOWN, kept[NOISE], thresholds[0, 0], thresholds[0, 1]) << 1
    told |= _passes(kept, WIDE, kept[SIZE_NOISE], thresholds[1, 0], thresholds[1, 1]) << 2
    return z, cycle, breadth, size, told, over


@compiled
def _shrunk(cos: float, sin: float, noise: float) -> float:
    """How much of a harmonic stands out of its noise, 0 to 1 (James and Stein 1961)."""
    return max(0.0, 1.0 - noise / max(cos * cos + sin * sin, 1e-12))


@compiled
def _begin_anew(kept: Doubles, begin: int, mass: float, before: float, time_s: float) -> None:
    """The last residual (before) began the change, where it and this one (mass) are out of all proportion to what the sum has had."""
    rows, chance = kept[begin + _ROWS] - 1.0, kept[begin + _MASS] - before
    if abs(mass) * rows <= FAR_RATIO * abs(chance):
        return
    kept[begin + _SINCE_S] = time_s - kept[INTERVAL_S]
    kept[begin + _BEFORE], kept[begin + _TREND] = kept[GIVEN_LEVEL], kept[GIVEN_TREND]
    kept[begin + _ROWS], kept[begin + _MASS], kept[begin + _MOMENT] = 1.0, before, before
    kept[begin + _LEFT] = kept[GIVEN] - kept[GIVEN_LEVEL]


@compiled
def _add(kept: Doubles, begin: int, gain: float, mass: float, given: float, before: float, trend: float, time_s: float) -> int:
    """One step of a CUSUM, and what describes the change since it was last 0, which is its likeliest beginning. Gives 1 where a sum that
    was told has fallen back to 0."""
    total = kept[begin] + gain
    if total <= 0.0:
        over = int(kept[begin + _TOLD])
        if kept[begin] > 0.0:
            for field in range(begin, begin + _SUM_FIELDS):
                kept[field] = 0.0
        return over
    if kept[begin] == 0.0:
        kept[begin + _SINCE_S] = time_s
        kept[begin + _BEFORE], kept[begin + _TREND] = before, trend
    kept[begin] = total
    kept[begin + _ROWS] += 1
    kept[begin + _MASS] += mass
    kept[begin + _MOMENT] += kept[begin + _ROWS] * mass
    kept[begin + _LEFT] += given - kept[begin + _BEFORE] - kept[begin + _TREND] * kept[begin + _ROWS]
    return 0


@compiled
def _passes(kept: Doubles, begin: int, noise: float, first: float, second: float) -> int:
    return int(kept[begin] > second * noise or (kept[begin] > first * noise and kept[begin + _TOLD] == 0.0))


@compiled
def _describe(kept: Doubles, at: int, thresholds: Doubles, out: Doubles) -> None:
    """Fills in what an alarm says of sum number `at`."""
    begin, wide = UP + at * _SUM_FIELDS, at == 2
    rows, mean, before = kept[begin + _ROWS], kept[begin + _MASS] / kept[begin + _ROWS], kept[begin + _BEFORE]
    left = kept[begin + _LEFT] / rows
    noise = kept[SIZE_NOISE] if wide else kept[NOISE]
    out[0] = 2.0 if kept[begin] > thresholds[int(wide), 1] * noise else 1.0
    out[1] = kept[begin + _SINCE_S]
    if wide:
        factor = mean / kept[SIZE]
        out[2], out[3] = factor, mean * kept[SCALE]
        out[4] = left / before / (factor - 1.0) if before > 0.0 and factor > 1.0 else 0.0
    else:
        size = _size(kept, mean)
        out[2], out[3] = size / kept[SCALE], size
        out[4] = left / size if size != 0.0 else 0.0
        if rows >= 3.0 and mean != 0.0:
            slope = (kept[begin + _MOMENT] - kept[begin + _MASS] * (rows + 1.0) / 2.0) * 12.0 / (rows * (rows * rows - 1.0))
            out[5] = slope * rows / mean
    out[6] = kept[INTERVAL_S]
    kept[begin + _TOLD] = 1.0


@compiled
def _size(kept: Doubles, mean: float) -> float:
    """Of a change with this clipped mean: that, or where most of it is clipped the median of the last three, which no outlier moves."""
    if abs(mean) < 0.75 * MASS_SIGMA * kept[SCALE]:
        return mean
    first, second, third = kept[FIRST_OF_THREE], kept[BEFORE_LAST], kept[LAST]
    middle = max(min(first, second), min(max(first, second), third))
    return middle if middle * mean > 0.0 and abs(middle) > abs(mean) else mean


@compiled
def _accept(kept: Doubles, at: int) -> None:
    """The change is told for good: what there was since its beginning is the level, or the scale, from now on."""
    begin = UP + at * _SUM_FIELDS
    mean = kept[begin + _MASS] / kept[begin + _ROWS]
    if at == 2:
        kept[SCALE] *= min(WIDER_MAX, mean / kept[SIZE])
    else:
        kept[LEVEL] += _size(kept, mean)
        kept[GIVEN_LEVEL] = kept[begin + _BEFORE] + kept[begin + _TREND] * kept[begin + _ROWS] + kept[begin + _LEFT] / kept[begin + _ROWS]
        kept[GIVEN_TREND] = kept[begin + _TREND]
        kept[COUNT] = max(kept[begin + _ROWS], float(CALIBRATION_ROWS))
    for field in range(UP, FIELDS):
        kept[field] = 0.0
    kept[BLOCK], kept[SIZE_BLOCK], kept[BLOCK_COUNT] = 0.0, 0.0, 0.0


@compiled
def _block(kept: Doubles, z: float, size: float, time_s: float, thresholds: Doubles, out: Doubles) -> None:
    """Adds to the block of residuals; where it is full, says what it was, and lets the long-run variances follow.

    Nothing is said in a link's first day, in which a daily cycle would be in the means.
    """
    kept[BLOCK] += z
    kept[SIZE_BLOCK] += size
    kept[BLOCK_COUNT] += 1
    if kept[BLOCK_COUNT] < BLOCK_ROWS:
        return
    if time_s - kept[FIRST_S] >= DAY_S:
        out[0] = kept[BLOCK] / math.sqrt(BLOCK_ROWS * kept[NOISE])
        out[1], out[2], out[3] = math.sqrt(kept[NOISE] / BLOCK_ROWS), kept[SCALE], kept[INTERVAL_S]
    weight = 1.0 / min(BLOCKS, 30.0 + kept[COUNT] / BLOCK_ROWS)
    if not _suspicious(kept, thresholds):
        kept[NOISE] = max(1.0, kept[NOISE] + weight * (kept[BLOCK] ** 2 / BLOCK_ROWS - kept[NOISE]))
    if not _suspicious(kept, thresholds) and not _suspicious_size(kept, thresholds):
        kept[SIZE_NOISE] = max(1.0, kept[SIZE_NOISE] + weight * (kept[SIZE_BLOCK] ** 2 / BLOCK_ROWS - kept[SIZE_NOISE]))
    kept[BLOCK], kept[SIZE_BLOCK], kept[BLOCK_COUNT] = 0.0, 0.0, 0.0


@compiled
def _suspicious(kept: Doubles, thresholds: Doubles) -> bool:
    return bool(max(kept[UP], kept[DOWN]) > SUSPICIOUS * thresholds[0, 0] * kept[NOISE])


@compiled
def _suspicious_size(kept: Doubles, thresholds: Doubles) -> bool:
    return bool(kept[WIDE] > SUSPICIOUS * thresholds[1, 0] * kept[SIZE_NOISE])


@compiled
def _learn(
    kept: Doubles, z: float, cycle: float, breadth: float, time_s: float, cos: float, sin: float, least_scale: float, thresholds: Doubles
) -> None:  # fmt: skip
    """Lets the level, the scale and the daily cycle follow, unless a change may be under way."""
    if _suspicious(kept, thresholds):
        return
    kept[COUNT] += 1
    weight = 1.0 / min(kept[COUNT], BASELINE_ROWS)
    # A new level is learnt from its own rows; scale and cycle from all that there were, or an hour's outage would undo them.
    rows = max(kept[COUNT], (time_s - kept[FIRST_S]) / max(kept[INTERVAL_S], 1e-3))
    slow = 2.0 * max(1.0 / rows, min(time_s - kept[LAST_S], _GAP_MAX_S) / CYCLE_S)
    cos2, sin2 = cos * cos - sin * sin, 2.0 * cos * sin
    kept[LEVEL] += weight * z * breadth * kept[SCALE]
    left = z * breadth + cycle - kept[COS] * cos - kept[SIN] * sin - kept[COS2] * cos2 - kept[SIN2] * sin2
    kept[COS] += slow * cos * left
    kept[SIN] += slow * sin * left
    kept[COS2] += slow * cos2 * left
    kept[SIN2] += slow * sin2 * left
    if _suspicious_size(kept, thresholds):
        return
    weight, spread = 1.0 / min(rows, BASELINE_ROWS), abs(z) * _NORMAL
    over = spread * breadth - 1.0 - kept[SPREAD_COS] * cos - kept[SPREAD_SIN] * sin
    kept[SPREAD_COS] += slow * cos * over
    kept[SPREAD_SIN] += slow * sin * over
    kept[SCALE] = max(kept[SCALE] * (1.0 + weight * (spread - 1.0)), least_scale)
    kept[SIZE] = max(LEAST_SIZE, kept[SIZE] + weight * (abs(z) - kept[SIZE]))
    kept[SIZE_VARIANCE] = max(LEAST_SIZE_VARIANCE, kept[SIZE_VARIANCE] + weight * ((abs(z) - kept[SIZE]) ** 2 - kept[SIZE_VARIANCE]))
