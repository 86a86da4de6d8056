"""Constants for the times of a link's rows: duplicate and late rows are refused, a gap starts a new run.

A pause is an interval of many sampling intervals. It is a gap unless the link pauses regularly, for example because it is measured in
bursts of ten rows.
"""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = 0
DUPLICATE: Final = 1
LATE: Final = 2

INTERVALS: Final = 9
"""Recent intervals whose median is the sampling interval of a link. It ignores four outliers, and follows a new rate after five rows."""

DEFAULT_GAP_MULTIPLE: Final = 5.0
"""Number of sampling intervals that make a pause."""

PAUSES: Final = 2
"""Pauses that make a rhythm: a further one that is about as long is part of it, and no gap."""
RHYTHM: Final = 1.5
"""By how much a pause may be longer or shorter than each of those, as a multiple."""
