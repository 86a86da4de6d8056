"""Standardise the residuals of monitored links and run CUSUMs over them: the compiled half of the link stage.

This file is long because all kernels must stay in it: Numba's cache notices a change of the file that holds a kernel, but not of a file
that it calls into.

Residuals come in standard deviations of the forecast's own interval, if it has one: a loss of 0 has a small one, one of 1 % a wide one,
and its upper side is the wider. A residual is then standardised by the link's earlier ones under the live model: a level that forgets
within BASELINE_ROWS, the daily cycle of level and spread that the model leaves over (harmonics, used only if they stand out of their own
noise), and a scale. Three CUSUMs (Page 1954, "Continuous inspection schemes", Biometrika 41) sum what exceeds a slack: up, down, and of
their absolute size. They alarm above a threshold in units of the *long-run* variance of the residuals, which is estimated beside them
from the means of BLOCK_ROWS rows (batch means, Law and Carson 1979): correlated neighbours would soon reach any fixed threshold. While a
sum is high, nothing is learnt: the rows may be the change itself.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.telemetry import Doubles, Floats, Ints

Records: TypeAlias = NDArray[np.void]
"""An array of records."""

CALIBRATION_ROWS: Final = 60
"""Residuals that set a link's first level and scale. A standard deviation from 60 values is right to 9 %."""
CLIP_SIGMA: Final = 4.0
"""Standard deviations at which an outlier is clipped, so that one record is at most a quarter of an alarm."""
CLIP_OF_INTERVALS: Final = 2.5
"""The same if residuals come in standard deviations of their forecasts' intervals. Measured on quiet simulated fleets: a third of the
notices that CLIP_SIGMA gives, about equally many for each metric, and steps are found as soon."""
SLACK: Final = 0.5
"""Slack of the sums up and down, standard deviations: shifts of twice as much are found soonest (Moustakides 1986)."""
SLACK_SPREAD: Final = 0.35
"""Slack of the sum of absolute residuals, in their own standard deviations: a little more than half of the shift that a doubled variance
causes."""
SLACK_FIRST_DAY: Final = 0.25
SLACK_SPREAD_FIRST_DAY: Final = 0.7
"""Additional slack in a link's first day, which fades over its second: until then a daily cycle cannot be distinguished from a change."""
BASELINE_ROWS: Final = 1440.0
"""Rows within which the level forgets."""
CYCLE_S: Final = 5 * 86_400.0
"""Seconds within which the daily cycle is forgotten."""
BLOCK_ROWS: Final = 16
"""Rows of one block."""
LEAST_SIZE: Final = 0.2
LEAST_SIZE_VARIANCE: Final = 0.05
"""Lower bounds of mean and variance of the absolute standardised residual: after a long constant residual, any other value would be a
thousandfold spread."""
MASS_SIGMA: Final = 8.0
"""Standard deviations at which an outlier within a change is clipped for the size of the change."""
WIDER_MAX: Final = 4.0
"""Largest factor by which a scale grows at once."""
FIRST_ROWS: Final = 20
"""First rows of the calibration. Their median and median deviation clip the others: one wild value must not set the scale."""
FIRST_SIGMA: Final = 5.0
"""Standard deviations from that median at which the calibration clips."""
_GAP_INTERVALS: Final = 4.0
"""Largest weight of an outage in the mean interval, in intervals. Without it the mean would be that of the outage for hours."""
BLOCKS: Final = 90.0
"""Blocks over which the long-run variance is averaged."""
FAR_SIGMA: Final = 4.0
FAR_FIRST: Final = 0.75
FAR_RATIO: Final = 3.0
"""A change begins with two residuals beyond FAR_SIGMA (the first beyond FAR_FIRST of it) that are FAR_RATIO times as far out as the sum's
mean so far. The sum before them was chance: neither its time nor its size belongs to the change."""
INPUT_STEPS: Final = 8.0
"""Times its mean step (or the residual's scale) by which one value can move the metric's own level: an outlier is not a trend."""
FOLLOWED: Final = 1.25
"""Share of a residual's change that the metric itself shows from which the model has followed a part of it, if thresholds have a NOTICE.
Then the change is what the metric shows."""
SUSPICIOUS: Final = 0.5
"""Share of a threshold above which a change may be under way, so that nothing is learnt."""
_MEMORY: Final = 0.97
"""Memory, for each row, of the metric's own level and trend before a change, which show whether the metric moved or only its residual did:
some 33 rows (Brown 1963, "Smoothing, forecasting and prediction", double exponential smoothing). The trend is that of the hour of the
day."""
DAY_S: Final = 86_400.0
_NORMAL: Final = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute deviation of a normal distribution."""
_GAP_MAX_S: Final = 3_600.0
"""Seconds of a pause that count as seen; the rest gives no evidence about the daily cycle."""
SEEN_EVERY_S: Final = 900.0
"""Seconds between two reports that a link is there."""

UP, DOWN, WIDE = range(3)
"""The three sums: of residuals above the level, below it, and of their absolute size."""
WITHDRAWN: Final = -1.0
"""`threshold` of the alarm of a sum that has not passed the last one, and has fallen back to 0."""
NOTICE, QUORUM, ALONE = range(3)
"""Columns of the thresholds: many links together are a change of their region; few are; a link is an alarm by itself."""
STRICTER: Final = 0.05
"""Share by which a notice raises the thresholds of its link's metric."""
STRICTEST: Final = 1.6
"""Largest factor of a threshold."""
NOTICE_ROWS: Final = 9600.0
"""Rows between two notices of a metric of a link to which its thresholds lead: some seven days of minutes."""
_LEVEL, _SPREAD = 0, 1
"""Rows of the thresholds: of the sums up and down, and of the sum of sizes."""


def record(fields: str, **nested: np.dtype[Any]) -> np.dtype[Any]:
    """Return a record that Numba and NumPy read by attributes.

    Args:
        fields: names of float64 fields; "name:3" is an array of 3.
        nested: the record that the elements of a field are.
    """
    parts = [
        (name, nested.get(name, np.dtype("f8")), (int(count),) if count else ())
        for name, _, count in (field.partition(":") for field in fields.split())
    ]
    assert not any(hasattr(np.record, name) for name, _, _ in parts), "NumPy would read its own attribute"
    return np.dtype((np.record, parts))


SUM: Final = record("value rows since_s reported mass moment before trend left")
"""One sum: its value; the rows since it was last 0, and the time of the first of them; how many thresholds it has passed that were
reported; the sum of the residual (or of its size), and of that times the number of its row; level and trend (a row) of the metric before
the change (WIDE: its mean step, and 0); the sum of how far the metric is from where those would have brought it."""
STATS: Final = record(
    "count level scale first_s last_s interval_s "  # level, scale: of the residual
    "cos sin cos2 sin2 spread_cos spread_sin "  # daily cycle of the level (in scales) and of the spread (a factor, less 1)
    "magnitude magnitude_variance "  # mean and variance of the absolute standardised residual
    "noise magnitude_noise block magnitude_block block_count "  # long-run variances, and the block that is being summed
    "metric metric_level metric_trend metric_step "  # last value, level, trend and mean step of the metric itself
    "excess excess_before excess_first strict sums:3",  # the last three residuals less their level, newest first; see STRICTER
    sums=SUM,
)
"""Statistics of one metric of one link."""
CALIBRATION: Final = record(
    "count level spread first_s last_s interval_s _cycle:6 middle squares _block:5 metric metric_level metric_trend metric_step _excess:3 "
    f"_strict first:{FIRST_ROWS} _sums:{27 - FIRST_ROWS}"
)
"""The same memory during the first CALIBRATION_ROWS rows. middle: median of the first rows. squares: sum of squares. first: the first
residuals, as long as they are less than FIRST_ROWS."""
FIELDS: Final = STATS.itemsize // 8
"""Columns of the state as float64."""
ALARM: Final = record("threshold since_s change_sigma change shown growth interval_s before")
"""Alarm of one sum: the threshold that was passed, NOTICE + 1 to ALONE + 1, or WITHDRAWN, or 0: there is none; time of the change; its
size in scales, and in the metric's unit; the share of it that the metric itself shows (1: all of it, 0: nothing); how it went on since
then (0: a step, 2: a ramp); seconds between rows; the metric's level (of a spread: the mean absolute residual) before it, in the metric's
unit."""
BLOCK: Final = record("average sigma scale interval_s")
"""One full block of residuals: its mean, in standard deviations of such means; that deviation, in scales; the scale, in the metric's
unit."""

assert CALIBRATION.itemsize == STATS.itemsize


def detect(
    state: Doubles, seen_s: Doubles, links: Ints, residual: Floats, unit: Floats, actual: Floats, time_s: Doubles, least_scale: Doubles,
    thresholds: Doubles, clip: float = CLIP_SIGMA,
) -> tuple[Records, Records, Doubles]:  # fmt: skip
    """Run the three sums over the residuals of W rows, in stream order.

    The result of a row depends on its link's rows up to it, not on batches.

    Args:
        state: float64 (L, M, FIELDS), of each link and metric; changed in place.
        seen_s: float64 (L,), UTC seconds of each link's last report that it is there; changed in place.
        links: int32 (W,), indices into state.
        residual: float32 (W, M), measured minus forecast, divided by the `unit` of its side; NaN if there is none.
        unit: float32 (W, M, 2), what 1 of the residual is in the metric's unit, below the forecast and above it.
        actual: float32 (W, M), measured, in the metric's unit.
        time_s: float64 (W,), UTC seconds.
        least_scale: float64 (M,), lower bound of a residual's scale.
        thresholds: float64 (2, 3), see `Sensitivity.thresholds`.
        clip: standard deviations at which an outlier is clipped in the sums up and down.

    Returns:
        ALARM (W, M, 3), of the three sums. Of a withdrawn one only times are set, and as change how far the metric has gone without its
        residual.
        BLOCK (W, M): NaN if no block ends with the row.
        float64 (W,): the interval of a link that reports that it is there, in seconds, else NaN.
    """
    shape = residual.shape
    alarms, blocks, seen = np.zeros((*shape, 3), ALARM), np.full(shape, np.nan, BLOCK), np.full(shape[0], np.nan)
    stats, calibration = state.view(STATS)[..., 0], state.view(CALIBRATION)[..., 0]
    _detect(stats, calibration, seen_s, links, residual, unit, actual, time_s, least_scale, thresholds, clip, alarms, blocks, seen)
    return alarms, blocks, seen


@compiled
def _detect(
    all_stats: Records, all_calibrations: Records, seen_s: Doubles, links: Ints, residual: Floats, unit: Floats, actual: Floats,
    time_s: Doubles, least_scale: Doubles, thresholds: Doubles, clip: float, alarms: Records, blocks: Records, seen: Doubles,
) -> None:  # fmt: skip
    stayed = np.zeros(2)
    for row in range(residual.shape[0]):
        turn = 2.0 * math.pi * ((time_s[row] % DAY_S) / DAY_S)
        cos, sin = math.cos(turn), math.sin(turn)
        for metric in range(residual.shape[1]):
            value, given = float(residual[row, metric]), float(actual[row, metric])
            below, above = float(unit[row, metric, 0]), float(unit[row, metric, 1])
            of_one = 0.5 * (below + above)
            if not math.isfinite(value):
                continue
            stats = all_stats[links[row], metric]
            if stats.count < CALIBRATION_ROWS:
                _calibrate(all_calibrations[links[row], metric], stats, value, time_s[row], least_scale[metric])
            else:
                z, cycle, breadth, size, passed, withdrawn = _sum_up(
                    stats, value, below, above, given, time_s[row], cos, sin, thresholds, clip, stayed
                )
                _add_to_block(stats, z, size, of_one, time_s[row], thresholds, blocks[row, metric])
                if time_s[row] - seen_s[links[row]] >= SEEN_EVERY_S:
                    seen_s[links[row]] = time_s[row]
                    seen[row] = stats.interval_s
                if passed == 0:
                    _learn(stats, z, cycle, breadth, time_s[row], cos, sin, least_scale[metric], thresholds)
                for i in range(3):
                    alarm = alarms[row, metric, i]
                    if passed >> i & 1:
                        _describe(stats, i, above if i == UP else (below if i == DOWN else of_one), thresholds, alarm)
                    elif withdrawn >> i & 1:
                        alarm.threshold, alarm.since_s, alarm.interval_s = WITHDRAWN, time_s[row], stats.interval_s
                        alarm.change = stayed[i] if i < WIDE else 0.0
                for i in range(3):
                    if alarms[row, metric, i].threshold == ALONE + 1.0:
                        _adopt(stats, i)
                        break  # all sums begin anew
            _follow_metric(stats, of_one, given, time_s[row])


@compiled
def _calibrate(first: Any, stats: Any, value: float, time_s: float, least_scale: float) -> None:
    """Compute level and scale of the first residuals, all clipped around the median of the first FIRST_ROWS (Welford 1962)."""
    if first.count == 0:
        first.first_s = time_s
    first.count += 1
    count = int(first.count)
    if count <= FIRST_ROWS:
        first.first[count - 1] = value
        if count < FIRST_ROWS:
            return
        values = first.first.copy()
        first.middle = np.median(values)
        first.spread = max(1.4826 * np.median(np.abs(values - first.middle)), least_scale)
        _reset_all(stats)
        for i in range(FIRST_ROWS):
            _include(first, values[i], i + 1.0)
        return
    _include(first, value, first.count)
    if count == CALIBRATION_ROWS:
        stats.scale = max(math.sqrt(first.squares / (CALIBRATION_ROWS - 1)), least_scale)
        stats.magnitude, stats.magnitude_variance = 1.0 / _NORMAL, 1.0 - 2.0 / math.pi  # as of a normal distribution, until more is known
        stats.noise, stats.magnitude_noise = 1.0, 1.0


@compiled
def _include(first: Any, value: float, count: float) -> None:
    """Add one clipped residual to mean and sum of squares (Welford 1962)."""
    value = max(first.middle - FIRST_SIGMA * first.spread, min(first.middle + FIRST_SIGMA * first.spread, value))
    step = value - first.level
    first.level += step / count
    first.squares += step * (value - first.level)


@compiled
def _follow_metric(stats: Any, of_one: float, given: float, time_s: float) -> None:
    """Update level, trend and mean step of the metric itself, independent of the forecast."""
    if stats.count == 1.0:
        stats.metric_level = given
    else:
        weight = max(1.0 / (stats.count - 1.0), 1.0 - _MEMORY)
        most = INPUT_STEPS * max(stats.metric_step, stats.scale * of_one) if stats.count >= CALIBRATION_ROWS else math.inf
        stats.metric_step += weight * (min(most, abs(given - stats.metric)) - stats.metric_step)
        passed_s = max(0.0, time_s - stats.last_s)
        stats.first_s += max(0.0, passed_s - _GAP_MAX_S)  # unseen time is no evidence about the day
        passed_s = min(passed_s, _GAP_INTERVALS * stats.interval_s) if stats.interval_s > 0.0 else passed_s
        stats.interval_s += weight * (passed_s - stats.interval_s)
        ahead, last = given - stats.metric_level - stats.metric_trend, stats.metric - stats.metric_level
        if not (abs(last) > most and last * ahead > 0.0):  # two on the same side are where the metric is now
            ahead = max(-most, min(most, ahead))
        stats.metric_level += stats.metric_trend + (1.0 - _MEMORY**2) * ahead
        stats.metric_trend += (1.0 - _MEMORY) ** 2 * ahead
    stats.metric, stats.last_s = given, time_s


@compiled
def _sum_up(
    stats: Any, value: float, below: float, above: float, given: float, time_s: float, cos: float, sin: float, thresholds: Doubles,
    clip: float,
    stayed: Doubles,
) -> tuple[float, float, float, float, int, int]:  # fmt: skip
    """Standardise one residual and add it to the three sums.

    Returns the standardised residual, the daily cycle of level and of spread, its standardised size, and two sets of bits: the sums that
    have passed a threshold that was not reported yet, and those that are withdrawn. stayed: float64 (2,), set to how far the metric has
    gone meanwhile without its residual.
    """
    days = (time_s - stats.first_s) / DAY_S
    unknown = max(0.0, min(1.0, 2.0 - days))
    cycle, breadth = 0.0, 1.0
    if days >= 1.0:
        rows = min(stats.count, CYCLE_S / max(stats.interval_s, 1e-3))
        noise = 8.0 / max(1.0, rows)  # twice the variance that pure noise gives amplitudes
        cycle += _shrunk(stats.cos, stats.sin, noise) * (stats.cos * cos + stats.sin * sin)
        cycle += _shrunk(stats.cos2, stats.sin2, noise) * (stats.cos2 * (cos * cos - sin * sin) + stats.sin2 * 2.0 * cos * sin)
        breadth += _shrunk(stats.spread_cos, stats.spread_sin, 0.5 * noise) * (stats.spread_cos * cos + stats.spread_sin * sin)
        breadth = max(breadth, 0.3)
    whole = ((value - stats.level) / stats.scale - cycle) / breadth
    z = max(-clip, min(clip, whole))
    size = min(CLIP_SIGMA, (min(CLIP_SIGMA, abs(whole)) - stats.magnitude) / math.sqrt(stats.magnitude_variance))
    scale = stats.scale * breadth
    excess = value - stats.level - stats.scale * cycle
    stats.excess_first, stats.excess_before, stats.excess = stats.excess_before, stats.excess, excess
    most = MASS_SIGMA * stats.scale
    excess = max(-most, min(most, excess))
    before = max(-most, min(most, stats.excess_before))
    slack = SLACK + SLACK_FIRST_DAY * unknown
    withdrawn = 0
    for i, sign in ((UP, 1.0), (DOWN, -1.0)):
        cusum = stats.sums[i]
        if sign * excess >= FAR_SIGMA * scale and sign * before >= FAR_FIRST * FAR_SIGMA * scale:
            _begin_anew(stats, cusum, excess, before, time_s)
        stayed[i] = (cusum.left - cusum.mass * (above if i == UP else below)) / max(cusum.rows, 1.0)
        withdrawn |= _add(cusum, sign * z - slack, excess, given, stats.metric_level, stats.metric_trend, time_s) << i
    slack = SLACK_SPREAD + SLACK_SPREAD_FIRST_DAY * unknown
    if not _suspicious(stats, thresholds):  # a level that moves makes residuals larger too, and explains them better
        withdrawn |= _add(stats.sums[WIDE], size - slack, abs(z), abs(given - stats.metric), stats.metric_step, 0.0, time_s) << WIDE
    stats.strict = max(0.0, stats.strict - STRICTER / NOTICE_ROWS)
    passed = 0
    for i in range(3):
        noise = stats.magnitude_noise if i == WIDE else stats.noise
        passed |= int(_grade(stats, i, noise, thresholds) > stats.sums[i].reported) << i
    return z, cycle, breadth, size, passed, withdrawn


@compiled
def _shrunk(cos: float, sin: float, noise: float) -> float:
    """Return the share of a harmonic that stands out of its noise, 0 to 1 (James and Stein 1961)."""
    return max(0.0, 1.0 - noise / max(cos * cos + sin * sin, 1e-12))


@compiled
def _begin_anew(stats: Any, cusum: Any, mass: float, before: float, time_s: float) -> None:
    """Let the change begin with the last residual (before), if it and this one (mass) are far larger than those in the sum so far."""
    rows, chance = cusum.rows - 1.0, cusum.mass - before
    if abs(mass) * rows <= FAR_RATIO * abs(chance):
        return
    cusum.since_s = time_s - stats.interval_s
    cusum.before, cusum.trend = stats.metric_level, stats.metric_trend
    cusum.rows, cusum.mass, cusum.moment = 1.0, before, before
    cusum.left = stats.metric - stats.metric_level


@compiled
def _add(cusum: Any, gain: float, mass: float, given: float, before: float, trend: float, time_s: float) -> int:
    """Take one step of a CUSUM (Page 1954), and return 1 if a reported sum has fallen back to 0.

    The likeliest beginning of a change is when the sum was last 0.
    """
    value = cusum.value + gain
    if value <= 0.0:
        withdrawn = int(cusum.reported > 0.0)
        if cusum.value > 0.0:
            _reset(cusum)
        return withdrawn
    if cusum.value == 0.0:
        cusum.since_s = time_s
        cusum.before, cusum.trend = before, trend
    cusum.value = value
    cusum.rows += 1
    cusum.mass += mass
    cusum.moment += cusum.rows * mass
    cusum.left += given - cusum.before - cusum.trend * cusum.rows
    return 0


@compiled
def _reset(cusum: Any) -> None:
    cusum.value = cusum.rows = cusum.since_s = cusum.reported = cusum.mass = cusum.moment = cusum.before = cusum.trend = cusum.left = 0.0


@compiled
def _reset_all(stats: Any) -> None:
    for i in range(3):
        _reset(stats.sums[i])


@compiled
def _grade(stats: Any, i: int, noise: float, thresholds: Doubles) -> float:
    """Return how many thresholds the sum i exceeds, 0 to 3. One that is reported as ALONE is adopted, and begins anew."""
    unit, of = noise * (1.0 + stats.strict), _SPREAD if i == WIDE else _LEVEL
    grade = 0.0
    for column in range(ALONE + 1):
        if stats.sums[i].value > thresholds[of, column] * unit:
            grade = column + 1.0
    return grade


@compiled
def _describe(stats: Any, i: int, of_one: float, thresholds: Doubles, alarm: Any) -> None:
    """Fill in the alarm of sum i."""
    cusum, wide = stats.sums[i], i == WIDE
    rows, mean, before = cusum.rows, cusum.mass / cusum.rows, cusum.before
    left = cusum.left / rows
    noise = stats.magnitude_noise if wide else stats.noise
    alarm.threshold = _grade(stats, i, noise, thresholds)
    if cusum.reported == 0.0 and alarm.threshold == NOTICE + 1.0:
        stats.strict = min(STRICTEST - 1.0, stats.strict + STRICTER)
    alarm.since_s, alarm.interval_s = cusum.since_s, stats.interval_s
    if wide:
        factor = mean / stats.magnitude
        alarm.change_sigma, alarm.change, alarm.before = factor, mean * stats.scale * of_one, stats.magnitude * stats.scale * of_one
        alarm.shown = left / before / (factor - 1.0) if before > 0.0 and factor > 1.0 else 0.0
    else:
        size = _size(stats, mean)
        alarm.change_sigma, alarm.change, alarm.before = size / stats.scale, size * of_one, before
        alarm.shown = left / (size * of_one) if size != 0.0 else 0.0
        if alarm.shown > FOLLOWED and math.isfinite(thresholds[_LEVEL, NOTICE]):
            alarm.change = left
        if rows >= 3.0 and mean != 0.0:  # the slope of a least-squares line over the rows
            slope = (cusum.moment - cusum.mass * (rows + 1.0) / 2.0) * 12.0 / (rows * (rows * rows - 1.0))
            alarm.growth = slope * rows / mean
    cusum.reported = alarm.threshold


@compiled
def _size(stats: Any, mean: float) -> float:
    """Return the size of a change with this clipped mean: the mean or, if most is clipped, the median of the last three residuals, which a
    single outlier does not move."""
    if abs(mean) < 0.75 * MASS_SIGMA * stats.scale:
        return mean
    first, second, third = stats.excess_first, stats.excess_before, stats.excess
    middle = max(min(first, second), min(max(first, second), third))
    return middle if middle * mean > 0.0 and abs(middle) > abs(mean) else mean


@compiled
def _adopt(stats: Any, i: int) -> None:
    """Adopt the confirmed change of sum i: the residuals since its beginning set the level, or the scale, from now on."""
    cusum = stats.sums[i]
    mean = cusum.mass / cusum.rows
    if i == WIDE:
        stats.scale *= min(WIDER_MAX, mean / stats.magnitude)
    else:
        stats.level += _size(stats, mean)
        stats.metric_level = cusum.before + cusum.trend * cusum.rows + cusum.left / cusum.rows
        stats.metric_trend = cusum.trend
        stats.count = max(cusum.rows, float(CALIBRATION_ROWS))
    _reset_all(stats)
    stats.block, stats.magnitude_block, stats.block_count = 0.0, 0.0, 0.0


@compiled
def _add_to_block(stats: Any, z: float, size: float, of_one: float, time_s: float, thresholds: Doubles, block: Any) -> None:
    """Add to the block of residuals. When it is full, fill in `block` and update the long-run variances.

    A block of a link's first day is not reported: a daily cycle would be in its mean.
    """
    stats.block += z
    stats.magnitude_block += size
    stats.block_count += 1
    if stats.block_count < BLOCK_ROWS:
        return
    if time_s - stats.first_s >= DAY_S:
        block.average = stats.block / math.sqrt(BLOCK_ROWS * stats.noise)
        block.sigma, block.scale, block.interval_s = math.sqrt(stats.noise / BLOCK_ROWS), stats.scale * of_one, stats.interval_s
    weight = 1.0 / min(BLOCKS, 30.0 + stats.count / BLOCK_ROWS)
    if not _suspicious(stats, thresholds):
        stats.noise = max(1.0, stats.noise + weight * (stats.block**2 / BLOCK_ROWS - stats.noise))
    if not _suspicious(stats, thresholds) and not _suspicious_size(stats, thresholds):
        stats.magnitude_noise = max(1.0, stats.magnitude_noise + weight * (stats.magnitude_block**2 / BLOCK_ROWS - stats.magnitude_noise))
    stats.block, stats.magnitude_block, stats.block_count = 0.0, 0.0, 0.0


@compiled
def _suspicious(stats: Any, thresholds: Doubles) -> bool:
    return bool(max(stats.sums[UP].value, stats.sums[DOWN].value) > SUSPICIOUS * thresholds[_LEVEL, QUORUM] * stats.noise)


@compiled
def _suspicious_size(stats: Any, thresholds: Doubles) -> bool:
    return bool(stats.sums[WIDE].value > SUSPICIOUS * thresholds[_SPREAD, QUORUM] * stats.magnitude_noise)


@compiled
def _learn(
    stats: Any, z: float, cycle: float, breadth: float, time_s: float, cos: float, sin: float, least_scale: float, thresholds: Doubles
) -> None:  # fmt: skip
    """Let level, scale and daily cycle follow (least mean squares, Widrow and Hoff 1960), unless a change may be under way."""
    if _suspicious(stats, thresholds):
        return
    stats.count += 1
    weight = 1.0 / min(stats.count, BASELINE_ROWS)
    # A new level is learnt from its own rows; scale and cycle from all rows so far, or an hour's outage would undo them.
    rows = max(stats.count, (time_s - stats.first_s) / max(stats.interval_s, 1e-3))
    slow = 2.0 * max(1.0 / rows, min(time_s - stats.last_s, _GAP_MAX_S) / CYCLE_S)
    cos2, sin2 = cos * cos - sin * sin, 2.0 * cos * sin
    stats.level += weight * z * breadth * stats.scale
    left = z * breadth + cycle - stats.cos * cos - stats.sin * sin - stats.cos2 * cos2 - stats.sin2 * sin2
    stats.cos += slow * cos * left
    stats.sin += slow * sin * left
    stats.cos2 += slow * cos2 * left
    stats.sin2 += slow * sin2 * left
    if _suspicious_size(stats, thresholds):
        return
    weight, spread = 1.0 / min(rows, BASELINE_ROWS), abs(z) * _NORMAL
    error = spread * breadth - 1.0 - stats.spread_cos * cos - stats.spread_sin * sin
    stats.spread_cos += slow * cos * error
    stats.spread_sin += slow * sin * error
    stats.scale = max(stats.scale * (1.0 + weight * (spread - 1.0)), least_scale)
    stats.magnitude = max(LEAST_SIZE, stats.magnitude + weight * (abs(z) - stats.magnitude))
    square = (abs(z) - stats.magnitude) ** 2
    stats.magnitude_variance = max(LEAST_SIZE_VARIANCE, stats.magnitude_variance + weight * (square - stats.magnitude_variance))
