"""The key that alarms of one change have in common, and the evidence that they are together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final, TypeAlias

from drift.messages import SIGNALS, Aspect, Change, LinkAlarm, SignalChange

SHOWN_MIN: Final = 0.5
"""Share of a residual's change that the metric itself must show. If it shows less, the model is wrong."""
RAMP_GROWTH: Final = 0.25
RAMP_ROWS: Final = 45.0
"""Growth and rows from which a change is a ramp. A step does not grow while the sums find it, and one of a standard deviation is found in
some 30 rows. A ramp is found later. By then its part above the slack, which is all that the sums contain, has grown by half."""

LARGER: Final = 2.0
"""An update is also sent when a signal's size is this many times the size that was sent last."""
LARGE: Final = 6.0
"""Standard deviations up to which a larger change is named before one of more links."""

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
    detectors = tuple(sorted({detector for alarm in alarms for detector in (alarm.detector, *alarm.also)}))
    before, after = _levels(aspect, alarms)
    return SignalChange(SIGNALS[signal], kind_of(aspect, alarms), direction, len(alarms), sigma, size, detectors, before, after)


def _levels(aspect: Aspect, alarms: Sequence[LinkAlarm]) -> tuple[float | None, float | None]:
    """Return the medians of the levels before and after a change, over the links of which they are known."""
    known = [
        (alarm.before, alarm.size if aspect == "spread" else alarm.before + alarm.size) for alarm in alarms if alarm.before is not None
    ]
    if not known or aspect not in ("level", "spread"):
        return None, None
    earlier, later = median(before for before, _ in known), median(after for _, after in known)
    return max(earlier, 0.0), max(later, 0.0)  # a trend may lead below 0, no metric does


def in_order(signals: Iterable[SignalChange]) -> tuple[SignalChange, ...]:
    """Return the changes of an incident in the order in which a person would name them.

    A level that has moved comes before a spread that is wider, and that before forecasts that are off; of two, that of more links by more
    standard deviations comes first.
    """

    def rank(one: SignalChange) -> tuple[int, float, int, str]:
        kind = {"spread": 1, "model_error": 2}.get(one.change, 0)
        return kind, -one.links * min(abs(one.size_sigma), LARGE), SIGNALS.index(one.signal), one.change

    return tuple(sorted(signals, key=rank))


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


def is_minor(key: ChangeKey, evidence: Mapping[ChangeKey, Mapping[str, LinkAlarm]]) -> bool:
    """Return whether most links of a change also have a larger change: the same signal, more links, not much smaller.

    Such links have stopped half way to their old level, or one of their level and spread follows from the other. A fault of the data is
    never minor.

    Args:
        evidence: for each change of an incident the alarm of each link.
    """
    if key[2] not in ("level", "spread"):
        return False

    def weight(key: ChangeKey) -> tuple[int, bool]:
        return len(evidence[key]), key[2] != "spread"

    most_sigma = size_sigma(evidence[key].values()) / LARGER
    heavier = [alarms for other, alarms in evidence.items() if other[0] == key[0] and weight(other) > weight(key)]
    larger = [alarms for alarms in heavier if size_sigma(alarms.values()) > most_sigma]
    return 2 * sum(any(link in alarms for alarms in larger) for link in evidence[key]) > len(evidence[key])


def without(alarms: Sequence[LinkAlarm], other: Sequence[LinkAlarm]) -> list[LinkAlarm]:
    """Return the alarms that are not among the others."""
    gone = {id(alarm) for alarm in other}
    return [alarm for alarm in alarms if id(alarm) not in gone]
