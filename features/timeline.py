"""Constants for the times of a link's rows: duplicate and late rows are refused, a gap starts a new run."""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = 0
DUPLICATE: Final = 1
LATE: Final = 2

INTERVALS: Final = 9
"""Recent intervals whose median is the sampling interval of a link. It ignores four outliers, and follows a new rate after five rows."""

DEFAULT_GAP_MULTIPLE: Final = 5.0
"""Number of sampling intervals that make a gap."""
