"""The compiled kernels of the features: one computation of a row, used online over the rings and offline over a table.

They stand in one file because Numba's cache notices a change of the file that holds a kernel, but not of a file it calls into.
"""

from __future__ import annotations

import math

import numpy as np

from features.compiled import compiled
from features.definition import HISTORY_ROWS, RING_ROWS, WINDOW_ROWS
from features.telemetry import CATEGORIES, Bytes, Codes, Doubles, Flags, Floats, Ints, Longs
from features.timeline import DUPLICATE, INTERVALS, LATE

# Positions in a ring's row: the order of telemetry.NUMERIC.
_THROUGHPUT, _RTT, _LOSS = 0, 1, 2
_CWND, _QUEUE, _RETRANSMITS, _TX, _RX, _HOUR, _WEEKDAY = 4, 5, 6, 7, 8, 9, 10
# Positions in a feature row at which a group begins.
_CODES, _MEANS, _CHANGES, _DEVIATIONS, _CYCLES = 13, 19, 31, 35, 39
_CATEGORY_COUNT = len(CATEGORIES)
_METRICS = 4
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST_RTT_MS = 1e-3  # keeps rtt_ratio finite where a probe reports an RTT of 0


@compiled
def feature_row(numeric: Floats, codes: Codes, encoding: Floats, first: int, row: int, out: Floats) -> None:
    """Computes the features of one row into `out`, float32 (44,).

    numeric: float32 (T, 11). codes: int16 (T, 6), -1 where missing. encoding: float32 (6, K), see Vocabulary.encoding.
    first: the first row of the run (a gap or the stream's start lies before it), at most `row`.
    Sums are taken in float64 from the rows themselves, never kept: a running sum is wrong for ever after one spike.
    """
    hour, weekday = numeric[row, _HOUR], numeric[row, _WEEKDAY]
    throughput, rtt, loss = numeric[row, _THROUGHPUT], numeric[row, _RTT], numeric[row, _LOSS]
    sent, received = float(numeric[row, _TX]), float(numeric[row, _RX])
    total = min(sent + received, _LARGEST) if sent + received == sent + received else math.nan
    for metric in range(_METRICS):
        out[metric] = numeric[row, metric]
    out[4] = hour
    out[5] = weekday
    out[6] = numeric[row, _CWND]
    out[7] = numeric[row, _QUEUE]
    out[8] = numeric[row, _RETRANSMITS]
    out[9] = total
    out[10] = sent / (received + 1.0)
    out[11] = total / (float(throughput) * 1e6 + 1.0)
    out[12] = 0.4 * loss + 0.3 * numeric[row, _QUEUE] / 100.0 + 0.3 * numeric[row, _RETRANSMITS] / 100.0
    for category in range(_CATEGORY_COUNT):
        code = codes[row, category]
        out[_CODES + category] = math.nan if code < 0 else encoding[category, code]
    least_rtt = math.nan
    for metric in range(_METRICS):
        total_so_far, count = 0.0, 0
        for back in range(10):
            at = row - back
            if at >= first:
                value = float(numeric[at, metric])
                if value == value:
                    total_so_far += value
                    count += 1
                    if metric == _RTT and not value >= least_rtt:
                        least_rtt = value
            if back == 2 or back == 4 or back == 9:
                place = 0 if back == 2 else (1 if back == 4 else 2)
                out[_MEANS + 3 * metric + place] = total_so_far / count if count else math.nan
        mean = total_so_far / count if count else math.nan
        squares = 0.0
        for at in range(max(first, row - 9), row + 1):
            value = float(numeric[at, metric])
            if value == value:
                squares += (value - mean) * (value - mean)
        out[_DEVIATIONS + metric] = math.sqrt(squares / count) if count else math.nan
        change = float(numeric[row, metric]) - float(numeric[row - 1, metric]) if row > first else 0.0
        out[_CHANGES + metric] = change if change == change else 0.0
    out[_CYCLES] = math.sin(2.0 * math.pi * hour / 24.0)
    out[_CYCLES + 1] = math.cos(2.0 * math.pi * hour / 24.0)
    out[_CYCLES + 2] = math.sin(2.0 * math.pi * weekday / 7.0)
    out[_CYCLES + 3] = math.cos(2.0 * math.pi * weekday / 7.0)
    out[43] = min(float(rtt) / max(least_rtt, _SMALLEST_RTT_MS), _LARGEST) if rtt == rtt else math.nan


@compiled
def is_gap(intervals: Floats, known: int, interval_s: float, gap_multiple: float) -> bool:
    """Whether interval_s is longer than gap_multiple times the median of the `known` recent intervals, float32 (9,)."""
    if known == 0:
        return False
    least = float(intervals[0])
    for at in range(1, known):
        least = min(least, float(intervals[at]))
    if interval_s <= gap_multiple * least:
        return False  # the median is no less than the least: nearly every row is settled here, without sorting
    recent = np.sort(intervals[:known])
    middle = known // 2
    median = float(recent[middle]) if known % 2 == 1 else 0.5 * (float(recent[middle - 1]) + float(recent[middle]))
    return bool(interval_s > gap_multiple * median)


@compiled
def fill_features(
    link: Ints, time_s: Doubles, numeric: Floats, codes: Codes, encoding: Floats, gap_multiple: float, features: Floats, run: Longs
) -> None:  # fmt: skip
    intervals = np.zeros(INTERVALS, np.float32)
    known = head = first = 0
    current_run = -1
    for row in range(len(link)):
        if row == 0 or link[row] != link[row - 1]:
            known = head = 0
            first = row
            current_run += 1
        else:
            interval_s = time_s[row] - time_s[row - 1]
            if is_gap(intervals, known, interval_s, gap_multiple):
                first = row
                current_run += 1
            intervals[head] = interval_s
            head = (head + 1) % INTERVALS
            known = min(known + 1, INTERVALS)
        run[row] = current_run
        feature_row(numeric, codes, encoding, max(first, row - HISTORY_ROWS), row, features[row])


@compiled
def update_rings(
    slots: Ints, time_s: Doubles, values: Floats, codes: Codes, watch: Flags,
    encoding: Floats, wanted: bool, gap_multiple: float,
    ring_values: Floats, ring_codes: Codes, intervals: Floats, last_time_s: Doubles, head: Bytes,
    rows: Bytes, interval_head: Bytes, intervals_known: Bytes, newest: Longs,
    status: Bytes, restarted: Flags, watched: Longs, previous: Longs, ready: Flags, windows: Floats, last_known: Floats,
) -> int:  # fmt: skip
    """One pass over a batch: see FeatureStore.update. Gives the number of watched rows."""
    line_values = np.empty((RING_ROWS, ring_values.shape[2]), np.float32)
    line_codes = np.empty((RING_ROWS, ring_codes.shape[2]), np.int16)
    accepted = count = 0
    for row in range(len(slots)):
        slot = slots[row]
        interval_s = time_s[row] - last_time_s[slot]
        if interval_s <= 0.0:
            status[row] = DUPLICATE if interval_s == 0.0 else LATE
            continue
        if rows[slot] > 0:
            if is_gap(intervals[slot], intervals_known[slot], interval_s, gap_multiple):
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
        if watch[slot]:
            held = int(rows[slot])
            for at in range(held):
                source = (int(head[slot]) - held + at) % RING_ROWS
                line_values[at] = ring_values[slot, source]
                line_codes[at] = ring_codes[slot, source]
            watched[count] = accepted
            previous[count] = newest[slot]
            newest[slot] = count
            ready[count] = held >= WINDOW_ROWS
            for metric in range(4):
                for at in range(held - 1, -1, -1):
                    if line_values[at, metric] == line_values[at, metric]:
                        last_known[count, metric] = line_values[at, metric]
                        break
            if wanted and ready[count]:
                for step in range(WINDOW_ROWS):
                    at = held - WINDOW_ROWS + step
                    feature_row(line_values, line_codes, encoding, max(0, at - HISTORY_ROWS), at, windows[count, step])
            count += 1
        accepted += 1
    return count
