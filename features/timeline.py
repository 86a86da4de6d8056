"""What time does to a link's window: duplicates and late rows are refused, a gap starts a new run."""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = 0
DUPLICATE: Final = 1
LATE: Final = 2

INTERVALS: Final = 9
"""Recent intervals whose median is the link's sampling interval: robust to four odd ones, and follows a new rate after five."""

DEFAULT_GAP_MULTIPLE: Final = 5.0
