"""The 44 features, version 1: their names, their order and their formulas; `kernels.py` computes them.

Formulas: bytes_total = tx + rx; bytes_ratio = tx / (rx + 1); network_load = bytes_total / (throughput * 1e6 + 1);
congestion_score = 0.4 loss + 0.3 queue / 100 + 0.3 retransmits / 100. A feature of something that was not measured is NaN.
Rolling statistics run over the last k rows, skip missing values and start with the first row (pandas: rolling(k, min_periods=1));
the standard deviation is that of the population (ddof = 0), 0 for a single value. A change against a missing value is 0.
rtt_ratio is RTT over its minimum of the last 10 rows, which approximates the propagation delay, so that the rest is queueing.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
WINDOW_ROWS: Final = 30
"""Rows that the model sees: of everything that is published, and of the rings. A training by hand may choose others."""
WINDOW_ROWS_LEAST: Final = 10
WINDOW_ROWS_MOST: Final = 240
"""Bounds of that choice: shorter ones hold less than the longest rolling statistic, and each row costs a step of three LSTMs."""
HISTORY_ROWS: Final = 9
"""Rows before the window that its first row's rolling statistics reach back to."""
RING_ROWS: Final = WINDOW_ROWS + HISTORY_ROWS

FEATURES: Final = (
    "throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms", "time_of_day", "day_of_week",
    "congestion_window", "queue_depth", "retransmits", "bytes_total", "bytes_ratio", "network_load", "congestion_score",
    "region_encoded", "az_encoded", "link_type_encoded", "dwcp_mode_encoded", "network_tier_encoded", "transport_type_encoded",
    "throughput_mean_3", "throughput_mean_5", "throughput_mean_10", "rtt_mean_3", "rtt_mean_5", "rtt_mean_10",
    "packet_loss_mean_3", "packet_loss_mean_5", "packet_loss_mean_10", "jitter_mean_3", "jitter_mean_5", "jitter_mean_10",
    "throughput_change", "rtt_change", "packet_loss_change", "jitter_change",
    "throughput_std_10", "rtt_std_10", "packet_loss_std_10", "jitter_std_10",
    "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "rtt_ratio",
)  # fmt: skip
