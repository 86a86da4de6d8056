"""Recoveries of links from a change: the part that has happened, and the part that is still to come."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Final

from drift.messages import LinkAlarm
from drift.region.evidence import SHOWN_MIN

BACK_MIN: Final = 0.5
LEFT_SHARE: Final = 0.25
LEFT_SIGMA: Final = 1.5
"""A link has recovered if it has gone back by the share BACK_MIN of a change, to within the share LEFT_SHARE of the change, or LEFT_SIGMA
standard deviations, of where it was. Sizes come from some ten rows."""
_STORED: Final = ("size", "shown", "sure", "sure_shown", "certain", "slow")
"""Names of the fields of `Recovery` in checkpoints."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery of a link from a change, in the unit of the alarm's size.

    >>> Recovery.restored(Recovery(size=-18.0, confirmed=True).state()).size
    -18.0

    Args:
        size: how far its residual has gone back so far.
        shown: the part of that which the metric itself shows. In the rest the model has followed the change.
        confirmed_size, confirmed_shown: the confirmed part of them. The next alarm continues from there, and includes the unconfirmed part.
        confirmed: whether any of it is confirmed.
        slow: whether ADWIN has reported it, which never confirms.
    """

    size: float = 0.0
    shown: float = 0.0
    confirmed_size: float = 0.0
    confirmed_shown: float = 0.0
    confirmed: bool = False
    slow: bool = False

    def and_then(self, alarm: LinkAlarm, other: LinkAlarm | None) -> Recovery:
        """Return the recovery with one more alarm.

        Args:
            other: a confirmed alarm of the same direction before it that was assumed to be a change of its own; None: there is none.
        """
        before, before_shown = self.confirmed_size, self.confirmed_shown
        if other is not None and other.confirmed:
            before, before_shown = before + other.size, before_shown + _shown(other)
        size, shown = before + alarm.size, before_shown + _shown(alarm)
        if alarm.confirmed:
            return Recovery(size, shown, size, shown, confirmed=True)
        return Recovery(size, shown, before, before_shown, self.confirmed, slow=alarm.adopted)

    def state(self) -> dict[str, Any]:
        """Return everything as plain values, under the names that checkpoints have."""
        return dict(zip(_STORED, astuple(self), strict=True))

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Recovery:
        """Return the recovery of a `state`."""
        return cls(*(state[name] for name in _STORED))


@dataclass(frozen=True, slots=True)
class Remaining:
    """The rest of a link's recovery.

    >>> Remaining(size=-18.0, tolerance=4.5).tolerance
    4.5

    Args:
        size: how far the link still has to go back, in the unit of the alarm's size.
        tolerance: a rest of this size or less counts as none.
    """

    size: float
    tolerance: float

    def less(self, alarm: LinkAlarm) -> Remaining | None:
        """Return the rest after one more confirmed piece; None if that was the last."""
        left = self.size - alarm.size
        return Remaining(left, self.tolerance) if abs(left) > self.tolerance and left * self.size > 0.0 else None


def ended(there: LinkAlarm, withdrawn: LinkAlarm) -> Recovery:
    """Return a complete recovery that is not a separate change. The metric shows it, unless the metric has stayed and the model has
    followed."""
    stayed = there.aspect == "level" and withdrawn.size * there.size >= SHOWN_MIN * there.size**2 > 0.0
    shown = 0.0 if stayed else -there.size
    return Recovery(-there.size, shown, -there.size, shown, confirmed=True)


def leads_back(there: LinkAlarm, size: float) -> bool:
    """Return whether a change of this size ends near where the other began, neither half way nor far beyond."""
    return abs(size) >= BACK_MIN * abs(there.size) and abs(there.size + size) <= tolerance(there)


def tolerance(there: LinkAlarm) -> float:
    """Return how far a link that has recovered may be from where it was, in the unit of the alarm's size."""
    sigma = abs(there.size / there.size_sigma) if there.size_sigma else 0.0
    return max(LEFT_SHARE * abs(there.size), LEFT_SIGMA * sigma)


def _shown(alarm: LinkAlarm) -> float:
    """Return the part of an alarm's size that the metric itself shows."""
    return alarm.size * max(0.0, min(1.0, alarm.shown))
