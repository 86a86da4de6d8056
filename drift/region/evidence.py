"""What alarms must have in common to be one change, and what they say of it together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from drift.messages import SIGNALS, Aspect, Change, LinkAlarm, SignalChange

SHOWN_MIN: Final = 0.5
"""Of a change of the residual, the share that the metric itself must show; with less it is the model that is wrong."""
RAMP_GROWTH: Final = 0.25
RAMP_ROWS: Final = 45.0
"""A step does not grow while the sums find it, and one of a standard deviation is found in some 30 rows. A ramp is found later, and of
what the sums see of it, the part above their slack, it has grown by half by then."""

Key = tuple[int, int, Aspect]
"""Signal, direction, aspect."""


def key_of(alarm: LinkAlarm) -> Key:
    return alarm.signal, alarm.direction, alarm.aspect


def opposite(key: Key) -> Key:
    signal, direction, aspect = key
    return signal, -direction, aspect


def size_sigma(alarms: Iterable[LinkAlarm]) -> float:
    """Of a change, the median over its links, in standard deviations."""
    return median(abs(alarm.size_sigma) for alarm in alarms)


def signal_change(key: Key, alarms: Sequence[LinkAlarm]) -> SignalChange:
    """What the alarms of one key have in common, one of each link."""
    return SignalChange(
        SIGNALS[key[0]],
        kind_of(key[2], alarms),
        key[1],
        len(alarms),
        median(alarm.size_sigma for alarm in alarms),
        median(alarm.size for alarm in alarms),
        tuple(sorted({alarm.detector for alarm in alarms})),
    )


def kind_of(aspect: Aspect, alarms: Sequence[LinkAlarm]) -> Change:
    if aspect != "level" and aspect != "spread":
        return aspect
    rows = median((alarm.time_s - alarm.since_s) / max(alarm.interval_s, 1e-3) for alarm in alarms)
    if aspect == "level" and rows > RAMP_ROWS and median(alarm.growth for alarm in alarms) > RAMP_GROWTH:
        return "ramp"  # whatever the metric shows: its own trend before the change is hardly another one
    if median(alarm.shown for alarm in alarms) < SHOWN_MIN:
        return "model_error"
    return "spread" if aspect == "spread" else "shift"
