"""Sequences of valid rows as a stream may bring them: levels of any size, outages, spikes, counters, holes, zeros and constants."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.definition import HISTORY_ROWS, WINDOW_ROWS
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Doubles, Floats
from model.version.raw_windows import RawWindows

ROWS: Final = HISTORY_ROWS + WINDOW_ROWS
LARGEST: Final = float(np.finfo(np.float32).max)
_LOSS, _HOUR, _WEEKDAY = NUMERIC.index("packet_loss"), NUMERIC.index("time_of_day"), NUMERIC.index("day_of_week")
_FREE: Final = [at for at in range(len(NUMERIC)) if at not in (_LOSS, _HOUR, _WEEKDAY)]
_USUAL: Final = (400.0, 30.0, 0.01, 3.0, 60.0, 7.0, 2.0, 1e9, 1e9)
"""Usual values of the columns before the calendar, as in the fleet that the versions are trained on."""
_COUNTERS: Final = tuple(NUMERIC.index(name) for name in ("congestion_window", "queue_depth", "retransmits", "bytes_tx", "bytes_rx"))
_TEXTS: Final = np.array(["", "eu", "us", "fiber", "never seen"], object)


def sequences(count: int, rng: np.random.Generator) -> RawWindows:
    """Return `count` windows with their history. Each has a level and a noise of its own, and any of the disturbances."""
    numeric = _levels(count, rng)
    for change in (_outage, _spike, _counter, _constant, _zeros, _any_number):
        change(numeric, rng)
    np.clip(numeric[:, :, _LOSS], 0.0, 1.0, out=numeric[:, :, _LOSS])
    np.clip(numeric, 0.0, LARGEST, out=numeric)
    numeric[:, :, _HOUR], numeric[:, :, _WEEKDAY] = rng.uniform(0, 24, (count, 1)), rng.integers(0, 7, (count, 1))
    _holes(numeric, rng)
    telemetry = numeric.astype(np.float32)
    begun = rng.integers(0, HISTORY_ROWS + 1, count) * (rng.random(count) < 0.2)  # rows before the stream began
    telemetry[np.arange(ROWS)[None, :] < begun[:, None]] = np.nan
    time_s = rng.uniform(7e8, 4e9, (count, 1)) + rng.choice([1.0, 60.0, 1800.0], (count, 1)) * np.arange(WINDOW_ROWS)
    return RawWindows(time_s, telemetry, _TEXTS[rng.integers(0, len(_TEXTS), (count, WINDOW_ROWS, len(CATEGORIES)))])


def _levels(count: int, rng: np.random.Generator) -> Doubles:
    """float64 (B, 39, 11): half like the fleet, half of any size, each with noise."""
    usual = np.array([*_USUAL, 0.0, 0.0])
    size = np.where(rng.random((count, 1)) < 0.5, 1.0, 10.0 ** rng.uniform(-4, 6, (count, len(NUMERIC))))
    level = (usual * size * rng.lognormal(0.0, 0.5, (count, len(NUMERIC))))[:, None, :]
    noise = rng.choice([0.01, 0.1, 1.0], (count, 1, 1))
    return np.asarray(level * np.abs(1.0 + noise * rng.normal(size=(count, ROWS, len(NUMERIC)))))


def _spans(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """bool (B, 39): in `share` of the sequences, a span of rows, its end often the newest."""
    first = rng.integers(0, ROWS, count)
    last = np.where(rng.random(count) < 0.5, ROWS, first + rng.integers(1, 12, count))
    at = np.arange(ROWS)[None, :]
    return np.asarray((at >= first[:, None]) & (at < last[:, None]) & (rng.random(count) < share)[:, None])


def _outage(numeric: Doubles, rng: np.random.Generator) -> None:
    """Throughput 0, with the bytes going on or all but stopped, and with loss 1, an RTT of seconds, or neither."""
    span = _spans(len(numeric), 0.3, rng)
    numeric[span, 0] = 0.0
    quiet, lossy, slow = (span & (rng.random(len(numeric)) < 0.5)[:, None] for _ in range(3))
    numeric[quiet, 7:9] = 1_200.0
    numeric[lossy, _LOSS] = 1.0
    numeric[slow, 1] = 10_000.0


def _spike(numeric: Doubles, rng: np.random.Generator) -> None:
    """One to a few columns at any size up to the largest that is accepted."""
    for column in rng.choice(_FREE, 3, replace=False):
        span = _spans(len(numeric), 0.15, rng)
        size = np.minimum(10.0 ** rng.uniform(0, 39, (len(numeric), 1)), LARGEST)
        numeric[:, :, column] = np.where(span, size, numeric[:, :, column])


def _counter(numeric: Doubles, rng: np.random.Generator) -> None:
    """A count since the start, sent as if it were the rate."""
    for column in _COUNTERS:
        span = _spans(len(numeric), 0.08, rng)
        count = 10.0 ** rng.uniform(6, 18, (len(numeric), 1)) + 10.0 ** rng.uniform(0, 9, (len(numeric), 1)) * np.arange(ROWS)
        numeric[:, :, column] = np.where(span, count, numeric[:, :, column])


def _constant(numeric: Doubles, rng: np.random.Generator) -> None:
    stuck = rng.random((len(numeric), len(NUMERIC))) < 0.05
    numeric[:] = np.where(stuck[:, None, :], numeric[:, :1], numeric)


def _zeros(numeric: Doubles, rng: np.random.Generator) -> None:
    silent = rng.random((len(numeric), len(NUMERIC))) < 0.05
    numeric[:] = np.where(silent[:, None, :], 0.0, numeric)


def _any_number(numeric: Doubles, rng: np.random.Generator) -> None:
    """Single values without relation to those around them."""
    wild = rng.random(numeric.shape) < rng.choice([0.0, 0.0, 0.01, 0.3], (len(numeric), 1, 1))
    numeric[wild] = rng.choice([0.0, 1e-30, 1.0, 1e6, 1e12, 1e20, 3e38, LARGEST], int(wild.sum()))


def _holes(numeric: Doubles, rng: np.random.Generator) -> None:
    share = rng.choice([0.0, 0.05, 0.5, 0.97], (len(numeric), 1, 1), p=[0.5, 0.3, 0.15, 0.05])
    numeric[rng.random(numeric.shape) < share] = np.nan
    never = rng.random((len(numeric), len(NUMERIC))) < 0.05
    numeric[np.broadcast_to(never[:, None, :], numeric.shape)] = np.nan


def shown(windows: RawWindows) -> tuple[Floats, Floats]:
    """Return float32 (B, 4) twice: smallest and largest measured value of each target in a window's 30 rows; NaN if not measured."""
    values = windows.telemetry[:, HISTORY_ROWS:, : len(TARGETS)]
    none = np.isnan(values).all(axis=1)
    least, most = np.nan_to_num(values, nan=np.inf).min(axis=1), np.nan_to_num(values, nan=-np.inf, posinf=np.inf).max(axis=1)
    least[none] = most[none] = np.nan
    return least, most
