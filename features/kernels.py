"""The compiled kernels of the features: one computation of a row, used online over the rings and offline over a table.

This file is long because they stand together: Numba's cache notices a change of the file that holds a kernel, but not of a file that it
calls into.
Positions are looked up by name, once, when this module is imported. Numba compiles them in as constants.
"""

from __future__ import annotations

import math

import numpy as np

from features.columns import LARGEST, first_of
from features.compiled import compiled
from features.definition import (
    CHANGES,
    CYCLES,
    DEVIATIONS,
    ENCODED,
    FEATURES,
    HISTORY_ROWS,
    MEAN_ROWS,
    MEANS,
    RING_ROWS,
    SHORT_ROWS,
    SMALLEST_RTT_MS,
    WINDOW_ROWS,
)
from features.local_time import Places
from features.memory import Memory, begin_hour, fill_context, forget_all, gather
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Bytes, Codes, Doubles, Flags, Floats, Ints, Longs
from features.timeline import DUPLICATE, INTERVALS, LATE, PAUSES, RHYTHM

# Positions in a row of NUMERIC, which begins with TARGETS.
_THROUGHPUT, _RTT, _LOSS = (NUMERIC.index(name) for name in ("throughput_mbps", "rtt_ms", "packet_loss"))
_WINDOW, _QUEUE, _RETRANSMITS = (NUMERIC.index(name) for name in ("congestion_window", "queue_depth", "retransmits"))
_SENT, _RECEIVED = NUMERIC.index("bytes_tx"), NUMERIC.index("bytes_rx")
_HOUR, _WEEKDAY = NUMERIC.index("time_of_day"), NUMERIC.index("day_of_week")
# Positions in a row of FEATURES.
_F_HOUR, _F_WEEKDAY = FEATURES.index("time_of_day"), FEATURES.index("day_of_week")
_F_WINDOW, _F_QUEUE, _F_RETRANSMITS = (FEATURES.index(name) for name in ("congestion_window", "queue_depth", "retransmits"))
_F_TOTAL, _F_RATIO = FEATURES.index("bytes_total"), FEATURES.index("bytes_ratio")
_F_LOAD, _F_CONGESTION, _F_RTT_RATIO = (FEATURES.index(name) for name in ("network_load", "congestion_score", "rtt_ratio"))
# Positions in a row of FEATURES at which a group begins, whose names follow one another.
_F_TARGETS, _F_CODES, _F_CYCLES = first_of(TARGETS, FEATURES), first_of(ENCODED, FEATURES), first_of(CYCLES, FEATURES)
_F_MEANS, _F_CHANGES, _F_DEVIATIONS = first_of(MEANS, FEATURES), first_of(CHANGES, FEATURES), first_of(DEVIATIONS, FEATURES)
_SHORT, _MIDDLE, _LONG = MEAN_ROWS
_REGION = CATEGORIES.index("region")
_CATEGORY_COUNT, _METRICS, _MEAN_COUNT = len(CATEGORIES), len(TARGETS), len(MEAN_ROWS)


@compiled
def feature_row(numeric: Floats, codes: Codes, encoding: Floats, first: int, row: int, out: Floats) -> None:
    """Compute the features of one row.

    Sums are computed in float64 from the rows themselves each time: a running sum stays wrong for ever after one spike.

    Args:
        numeric: float32 (T, R), the columns NUMERIC, NaN if not measured.
        codes: int16 (T, C), -1 if missing.
        encoding: float32 (C, K), see `Vocabulary.encoding`.
        first: First row of the run (a gap or the start of the stream lies before it), at most `row`.
        row: Index of the row.
        out: float32 (F,), is filled with the features, NaN if unknown.
    """
    hour, weekday = numeric[row, _HOUR], numeric[row, _WEEKDAY]
    throughput, rtt, loss = numeric[row, _THROUGHPUT], numeric[row, _RTT], numeric[row, _LOSS]
    queue, retransmits = numeric[row, _QUEUE], numeric[row, _RETRANSMITS]
    sent, received = float(numeric[row, _SENT]), float(numeric[row, _RECEIVED])
    total = min(sent + received, LARGEST) if sent + received == sent + received else math.nan
    for metric in range(_METRICS):
        out[_F_TARGETS + metric] = numeric[row, metric]
    out[_F_HOUR] = hour
    out[_F_WEEKDAY] = weekday
    out[_F_WINDOW] = numeric[row, _WINDOW]
    out[_F_QUEUE] = queue
    out[_F_RETRANSMITS] = retransmits
    out[_F_TOTAL] = total
    out[_F_RATIO] = sent / (received + 1.0)
    out[_F_LOAD] = total / (float(throughput) * 1e6 + 1.0)
    out[_F_CONGESTION] = 0.4 * loss + 0.3 * queue / 100.0 + 0.3 * retransmits / 100.0
    for category in range(_CATEGORY_COUNT):
        code = codes[row, category]
        out[_F_CODES + category] = math.nan if code < 0 else encoding[category, code]
    least_rtt = math.nan
    for metric in range(_METRICS):
        total_so_far, count = 0.0, 0
        for back in range(_LONG):
            source = row - back
            if source >= first:
                value = float(numeric[source, metric])
                if value == value:
                    total_so_far += value
                    count += 1
                    if metric == _RTT and not value >= least_rtt:
                        least_rtt = value
            if back == _SHORT - 1 or back == _MIDDLE - 1 or back == _LONG - 1:
                place = 0 if back == _SHORT - 1 else (1 if back == _MIDDLE - 1 else 2)
                out[_F_MEANS + _MEAN_COUNT * metric + place] = total_so_far / count if count else math.nan
        mean = total_so_far / count if count else math.nan
        squares = 0.0
        for source in range(max(first, row - _LONG + 1), row + 1):
            value = float(numeric[source, metric])
            if value == value:
                squares += (value - mean) * (value - mean)
        out[_F_DEVIATIONS + metric] = math.sqrt(squares / count) if count else math.nan
        change = float(numeric[row, metric]) - float(numeric[row - 1, metric]) if row > first else 0.0
        out[_F_CHANGES + metric] = change if change == change else 0.0
    out[_F_CYCLES] = math.sin(2.0 * math.pi * hour / 24.0)
    out[_F_CYCLES + 1] = math.cos(2.0 * math.pi * hour / 24.0)
    out[_F_CYCLES + 2] = math.sin(2.0 * math.pi * weekday / 7.0)
    out[_F_CYCLES + 3] = math.cos(2.0 * math.pi * weekday / 7.0)
    out[_F_RTT_RATIO] = min(float(rtt) / max(least_rtt, SMALLEST_RTT_MS), LARGEST) if rtt == rtt else math.nan


@compiled
def median_interval_s(intervals: Floats, known: int) -> float:
    """Return the median of recent intervals, which is the sampling interval of a link, seconds; NaN without any.

    Args:
        intervals: float32 (INTERVALS,), seconds; the first `known` of them are set.
        known: How many intervals are set.
    """
    if known == 0:
        return math.nan
    recent = np.sort(intervals[:known])
    middle = known // 2
    return float(recent[middle]) if known % 2 == 1 else 0.5 * (float(recent[middle - 1]) + float(recent[middle]))


@compiled
def is_gap(
    intervals: Floats, known: int, interval_s: float, gap_multiple: float, pauses: Floats, pause_ages: Bytes
) -> bool:  # fmt: skip
    """Return whether a row begins a new run, and note its pause.

    It does after a pause, unless PAUSES pauses that are about as long lie among the last RING_ROWS rows: that is the rhythm of the link.

    Args:
        intervals, known, interval_s, gap_multiple: See `is_pause`.
        pauses: float32 (PAUSES,), seconds, newest first, 0 for none; changed in place.
        pause_ages: uint8 (PAUSES,), rows since then; changed in place.
    """
    for each in range(PAUSES):
        if pauses[each] > 0.0:
            pause_ages[each] = min(pause_ages[each] + 1, 255)
    if not is_pause(intervals, known, interval_s, gap_multiple):
        return False
    rhythm = True
    for each in range(PAUSES):
        pause_s = float(pauses[each])
        rhythm = rhythm and pause_ages[each] <= RING_ROWS and interval_s <= RHYTHM * pause_s and pause_s <= RHYTHM * interval_s
    for each in range(PAUSES - 1, 0, -1):
        pauses[each], pause_ages[each] = pauses[each - 1], pause_ages[each - 1]
    pauses[0], pause_ages[0] = interval_s, 0
    return not rhythm


@compiled
def is_pause(intervals: Floats, known: int, interval_s: float, gap_multiple: float) -> bool:
    """Return whether an interval is longer than a multiple of the median of recent ones.

    Args:
        intervals: float32 (INTERVALS,), seconds; the first `known` of them are set.
        known: How many intervals are set. With none, nothing is a pause.
        interval_s: The interval to compare, seconds.
        gap_multiple: How many medians make a pause.
    """
    if known == 0:
        return False
    least = float(intervals[0])
    for index in range(1, known):
        least = min(least, float(intervals[index]))
    if interval_s <= gap_multiple * least:
        return False  # the median is at least as long as the shortest: nearly every row ends here, without sorting
    return bool(interval_s > gap_multiple * median_interval_s(intervals, known))


@compiled
def fill_features(
    link: Ints, time_s: Doubles, numeric: Floats, codes: Codes, encoding: Floats, gap_multiple: float,
    horizons: Longs, places: Places, place_of: Ints, memory: Memory,
    features: Floats, run: Longs, median_s: Doubles, context: Floats,
) -> None:  # fmt: skip
    """Compute the features of every row of a table that is sorted by link, then by time.

    Args:
        link: int32 (N,), index of each row's link.
        time_s: float64 (N,), UTC seconds, strictly ascending within a link.
        numeric: float32 (N, R), see `feature_row`.
        codes: int16 (N, C), see `feature_row`.
        encoding: float32 (C, K), see `feature_row`.
        gap_multiple: See `is_pause`.
        horizons: int64 (H,), rows ahead. With none, nothing is remembered.
        places, place_of: See `LocalTime`.
        memory: Of one link. Each link in turn uses it.
        features: float32 (N, F), is filled.
        run: int64 (N,), is filled: rows with the same number are of one link without a gap.
        median_s: float64 (N,), is filled: sampling interval as known after the row, seconds, NaN if unknown.
        context: float32 (N, 3 + H, 4), is filled, see `fill_context`; (N, 0, 4) without horizons.
    """
    intervals = np.zeros(INTERVALS, np.float32)
    pauses, pause_ages = np.zeros(PAUSES, np.float32), np.zeros(PAUSES, np.uint8)
    known = head = first = 0
    current_run = -1
    for row in range(len(link)):
        if row == 0 or link[row] != link[row - 1]:
            known = head = 0
            pauses[:], pause_ages[:] = 0.0, 0
            first = row
            current_run += 1
            forget_all(memory, 0)
        else:
            interval_s = time_s[row] - time_s[row - 1]
            if is_gap(intervals, known, interval_s, gap_multiple, pauses, pause_ages):
                first = row
                current_run += 1
            intervals[head] = interval_s
            head = (head + 1) % INTERVALS
            known = min(known + 1, INTERVALS)
        run[row] = current_run
        median_s[row] = median_interval_s(intervals, known)
        feature_row(numeric, codes, encoding, max(first, row - HISTORY_ROWS), row, features[row])
        if len(horizons) > 0:
            place = place_of[codes[row, _REGION]]
            if memory.hour_until_s[0] == 0.0 or time_s[row] >= memory.hour_until_s[0]:
                begin_hour(memory, 0, places, place, time_s[row])
            gather(memory.recent[0], numeric[row])
            fill_context(memory, 0, places, place, time_s[row], median_s[row], horizons, context[row])


@compiled
def update_rings(
    slots: Ints, time_s: Doubles, values: Floats, codes: Codes, watch: Flags,
    encoding: Floats, wanted: bool, gap_multiple: float, horizons: Longs, places: Places, place_of: Ints,
    ring_values: Floats, ring_codes: Codes, intervals: Floats, last_time_s: Doubles, head: Bytes,
    rows: Bytes, interval_head: Bytes, intervals_known: Bytes, pauses: Floats, pause_ages: Bytes, memory: Memory, newest: Longs,
    status: Bytes, restarted: Flags, watched: Longs, previous: Longs, ready: Flags, windows: Floats, last_known: Floats, context: Floats,
    interval: Doubles,
) -> int:  # fmt: skip
    """Put a batch of N rows into the rings in one pass, and compute the windows of monitored links. Return how many rows those are (W).

    Args:
        slots: int32 (N,), slot of each row's link.
        time_s: float64 (N,), UTC seconds.
        values: float32 (N, R), see `feature_row`.
        codes: int16 (N, C), see `feature_row`.
        watch: bool (L,), which links are monitored.
        encoding: float32 (C, K), see `feature_row`.
        wanted: Whether windows are computed.
        gap_multiple: See `is_pause`.
        horizons: int64 (H,), rows ahead. With none, no context is computed, and a run is ready at WINDOW_ROWS instead of SHORT_ROWS; what
            a link remembers is kept up to date all the same.
        places, place_of: See `LocalTime`.
        ring_values, ring_codes, intervals, last_time_s, head, rows, interval_head, intervals_known, pauses, pause_ages, memory: Per-link
            state, see `rings.RINGS`; changed in place.
        newest: int64 (L,), -1 at the start: index of the newest monitored row of each link in this batch.
        status: uint8 (N,), is filled: ACCEPTED, DUPLICATE or LATE.
        restarted: bool (N,), is filled: whether a gap lies before the row.
        watched, previous, ready, windows, last_known, context, interval: The first W rows are filled, see `FeatureRows`.
    """
    line_values = np.empty((RING_ROWS, ring_values.shape[2]), np.float32)
    line_codes = np.empty((RING_ROWS, ring_codes.shape[2]), np.int16)
    recent, hour_until_s = memory.recent, memory.hour_until_s
    accepted = count = 0
    for row in range(len(slots)):
        slot = slots[row]
        interval_s = time_s[row] - last_time_s[slot]
        if interval_s <= 0.0:
            status[row] = DUPLICATE if interval_s == 0.0 else LATE
            continue
        if rows[slot] > 0:
            if is_gap(intervals[slot], intervals_known[slot], interval_s, gap_multiple, pauses[slot], pause_ages[slot]):
                rows[slot] = 0
                restarted[row] = True
            intervals[slot, interval_head[slot]] = interval_s
            interval_head[slot] = (interval_head[slot] + 1) % INTERVALS
            intervals_known[slot] = min(intervals_known[slot] + 1, INTERVALS)
        last_time_s[slot] = time_s[row]
        ring_values[slot, head[slot]] = values[row]
        ring_codes[slot, head[slot]] = codes[row]
        head[slot] = (head[slot] + 1) % RING_ROWS
        rows[slot] = min(rows[slot] + 1, RING_ROWS)
        if hour_until_s[slot] == 0.0 or time_s[row] >= hour_until_s[slot]:
            begin_hour(memory, slot, places, place_of[codes[row, _REGION]], time_s[row])
        gather(recent[slot], values[row])
        if watch[slot]:
            held = int(rows[slot])
            for line in range(held):
                source = (int(head[slot]) - held + line) % RING_ROWS
                line_values[line] = ring_values[slot, source]
                line_codes[line] = ring_codes[slot, source]
            watched[count] = accepted
            previous[count] = newest[slot]
            newest[slot] = count
            ready[count] = held >= (SHORT_ROWS if len(horizons) > 0 else WINDOW_ROWS)
            for metric in range(_METRICS):
                for line in range(held - 1, -1, -1):
                    if line_values[line, metric] == line_values[line, metric]:
                        last_known[count, metric] = line_values[line, metric]
                        break
            if wanted and ready[count]:
                for step in range(WINDOW_ROWS):
                    line = held - WINDOW_ROWS + step
                    if line < 0:  # before the run began: all NaN, as the caller has filled it
                        windows[count, step, _F_CHANGES : _F_CHANGES + _METRICS] = 0.0
                    else:
                        feature_row(line_values, line_codes, encoding, max(0, line - HISTORY_ROWS), line, windows[count, step])
            if len(horizons) > 0:
                interval[count] = median_interval_s(intervals[slot], intervals_known[slot])
                fill_context(memory, slot, places, place_of[codes[row, _REGION]], time_s[row], interval[count], horizons, context[count])
            count += 1
        accepted += 1
    return count
