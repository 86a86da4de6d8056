"""The key that alarms of one change have in common, and the evidence that they are together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final, TypeAlias

from drift.messages import SIGNALS, Aspect, Change, LinkAlarm, SignalChange

SHOWN_MIN: Final = 0.5
"""Share of a residual's change that the metric itself must show. If it shows less, the model is wrong."""
RAMP_GROWTH: Final = 0.25
RAMP_ROWS: Final = 45.0
"""Growth and rows from which a change is a ramp. A step does not grow while the sums find it, and one of a standard deviation is found in
some 30 rows. A ramp is found later. By then its part above the slack, which is all that the sums contain, has grown by half."""

ChangeKey: TypeAlias = tuple[int, int, Aspect]
"""Signal, direction, aspect."""


def change_key(alarm: LinkAlarm) -> ChangeKey:
    """Return the key of the change that an alarm is evidence of."""
    return alarm.signal, alarm.direction, alarm.aspect


def opposite(key: ChangeKey) -> ChangeKey:
    """Return the key of the change in the other direction."""
    signal, direction, aspect = key
    return signal, -direction, aspect


def size_sigma(alarms: Iterable[LinkAlarm]) -> float:
    """Return the size of a change, the median over its links, in standard deviations."""
    return median(abs(alarm.size_sigma) for alarm in alarms)


def signal_change(key: ChangeKey, alarms: Sequence[LinkAlarm]) -> SignalChange:
    """Return the change that the alarms of one key, one of each link, describe together."""
    signal, direction, aspect = key
    sigma, size = median(alarm.size_sigma for alarm in alarms), median(alarm.size for alarm in alarms)
    detectors = tuple(sorted({alarm.detector for alarm in alarms}))
    return SignalChange(SIGNALS[signal], kind_of(aspect, alarms), direction, len(alarms), sigma, size, detectors)


def kind_of(aspect: Aspect, alarms: Sequence[LinkAlarm]) -> Change:
    """Return the kind of change that the alarms of one key are evidence of."""
    if aspect != "level" and aspect != "spread":
        return aspect
    rows = median((alarm.time_s - alarm.since_s) / max(alarm.interval_s, 1e-3) for alarm in alarms)
    if aspect == "level" and rows > RAMP_ROWS and median(alarm.growth for alarm in alarms) > RAMP_GROWTH:
        return "ramp"  # whatever the metric shows: its own trend before the change hardly differs
    if median(alarm.shown for alarm in alarms) < SHOWN_MIN:
        return "model_error"
    return "spread" if aspect == "spread" else "shift"


def without(alarms: Sequence[LinkAlarm], other: Sequence[LinkAlarm]) -> list[LinkAlarm]:
    """Return the alarms that are not among the others."""
    gone = {id(alarm) for alarm in other}
    return [alarm for alarm in alarms if id(alarm) not in gone]
