"""Hour of the day and weekday of a UTC time: the values of the two calendar columns if a record does not have them."""

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
"""Mean and standard deviation of each calendar feature over whole weeks: known without any data."""
LAST_HOUR: Final = np.nextafter(np.float32(24), np.float32(0))
"""The last instant of a day, float32 hours: an hour of 24, or one that float32 rounds up to 24, is stored as this."""


def hour_and_weekday(time_s: Doubles) -> tuple[Doubles, Doubles]:
    """Return hour and weekday of UTC times.

    Args:
        time_s: float64, any shape, UTC seconds.

    Returns:
        Hour, 0 to under 24, and weekday, Monday 0 to Sunday 6. Both float64 of the shape of time_s, NaN for an infinite time.

    >>> hour, weekday = hour_and_weekday(np.array([0.0, 1_767_571_200.0 + 5_400.0]))
    >>> hour.tolist(), weekday.tolist()
    ([0.0, 1.5], [3.0, 0.0])
    """
    with np.errstate(invalid="ignore"):  # an infinite time has neither
        day = np.floor(time_s / DAY_S)
        return (time_s - day * DAY_S) / HOUR_S, np.mod(day + FIRST_WEEKDAY, WEEK_DAYS)
