"""Hour of the day and weekday of a UTC time: what stands in for the two columns where a record does not bring them."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from features.telemetry import Doubles

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
WEEK_DAYS: Final = 7.0
FIRST_WEEKDAY: Final = 3.0
"""1970-01-01 was a Thursday, and Monday is 0."""
SPREAD: Final[dict[str, tuple[float, float]]] = {
    "time_of_day": (12.0, 24.0 / math.sqrt(12.0)),
    "day_of_week": (3.0, 2.0),
    **dict.fromkeys(("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"), (0.0, math.sqrt(0.5))),
}
"""Mean and standard deviation of the features of the calendar over whole weeks, which nobody has to see to know them."""
LAST_HOUR: Final = np.nextafter(np.float32(24), np.float32(0))
"""The last instant of a day: what an hour of 24, or one that float32 rounds up to 24, is kept as."""


def hour_and_weekday(time_s: Doubles) -> tuple[Doubles, Doubles]:
    """Hour, 0 to under 24, and weekday, Monday 0 to Sunday 6, of UTC seconds, each float64 of the same shape."""
    with np.errstate(invalid="ignore"):  # an infinite time has neither
        day = np.floor(time_s / DAY_S)
        return (time_s - day * DAY_S) / HOUR_S, np.mod(day + FIRST_WEEKDAY, WEEK_DAYS)
