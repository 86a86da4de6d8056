"""The 44 features: their names, their order and their formulas. `kernels.py` computes them.

Formulas: bytes_total = tx + rx; bytes_ratio = tx / (rx + 1); network_load = bytes_total / (throughput * 1e6 + 1);
congestion_score = 0.4 loss + 0.3 queue / 100 + 0.3 retransmits / 100. A feature of something that was not measured is NaN.
Rolling statistics run over the last k rows, skip missing values and start with the first row (pandas: rolling(k, min_periods=1)). The
standard deviation is that of the population (ddof = 0), 0 for a single value. A change against a missing value is 0.
rtt_ratio is RTT over its minimum of the last 10 rows. The minimum approximates the propagation delay, so that the rest is queueing.
"""

from __future__ import annotations

from typing import Final

from features.columns import COLUMN
from features.telemetry import CALENDAR, CATEGORIES, TARGETS

VERSION: Final = 1
"""Version of the features. It covers the names, their order, the formulas above and the codes of categories (`Vocabulary.encoding`).

Raise it with every change of one of these: a model that was trained on other features must not be given these. It does not cover scaling
and vocabulary, which each version of a model carries itself, nor WINDOW_ROWS.
"""
WINDOW_ROWS: Final = 30
"""Rows that the model sees, in everything that is published and in the rings. A training by hand may choose another number."""
WINDOW_ROWS_LEAST: Final = 10
WINDOW_ROWS_MOST: Final = 240
"""Bounds of that choice. A shorter window holds less than the longest rolling statistic, and each row costs a step of three LSTMs."""
MEAN_ROWS: Final = (3, 5, 10)
"""Rows of the rolling means. The longest is also the span of the rolling deviation and of the smallest RTT."""
HISTORY_ROWS: Final = max(MEAN_ROWS) - 1
"""Rows before the window that the rolling statistics of its first row span."""
RING_ROWS: Final = WINDOW_ROWS + HISTORY_ROWS
SHORT_ROWS: Final = 3
"""Fewest rows of a run that a version forecasts which was trained on windows cut short. The rows before the run are empty."""
SMALLEST_RTT_MS: Final = 1e-3
"""Smallest divisor of rtt_ratio, in milliseconds: keeps it finite if a probe reports an RTT of 0."""

STEMS: Final = tuple(COLUMN[name].stem for name in TARGETS)
ENCODED: Final = tuple(f"{name}_encoded" for name in CATEGORIES)
MEANS: Final = tuple(f"{stem}_mean_{rows}" for stem in STEMS for rows in MEAN_ROWS)
CHANGES: Final = tuple(f"{stem}_change" for stem in STEMS)
DEVIATIONS: Final = tuple(f"{stem}_std_{max(MEAN_ROWS)}" for stem in STEMS)
CYCLES: Final = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")

FEATURES: Final = (
    *TARGETS, *CALENDAR, "congestion_window", "queue_depth", "retransmits",
    "bytes_total", "bytes_ratio", "network_load", "congestion_score",
    *ENCODED, *MEANS, *CHANGES, *DEVIATIONS, *CYCLES, "rtt_ratio",
)  # fmt: skip
"""The features in the order of a window's columns (F = 44). The targets come first."""
