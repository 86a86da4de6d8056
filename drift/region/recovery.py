"""How far links have gone back from a change, and what of that is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drift.messages import LinkAlarm
from drift.region.evidence import SHOWN_MIN

BACK_MIN: Final = 0.5
LEFT_SHARE: Final = 0.25
LEFT_SIGMA: Final = 1.5
"""A link must have gone back by that share of a change, to within this share of it or so many standard deviations of where it was: sizes
come from some ten rows."""


@dataclass(frozen=True, slots=True)
class Back:
    """A link's way back from a change, in the unit of the alarm's size. size: how far its residual has gone back so far. shown: how much
    of that the metric itself shows; the rest is the model's, which has followed. sure, sure_shown: what is certain of them: the next alarm
    goes on from there, and has seen all that was not. certain: whether any of it is. slow: whether ADWIN has told it, which never is."""

    size: float = 0.0
    shown: float = 0.0
    sure: float = 0.0
    sure_shown: float = 0.0
    certain: bool = False
    slow: bool = False

    def and_then(self, alarm: LinkAlarm, other: LinkAlarm | None) -> Back:
        """With one more alarm; other: a certain one of the same direction before it that was taken for a change of its own."""
        sure, sure_shown = self.sure, self.sure_shown
        if other is not None and other.certain:
            sure, sure_shown = sure + other.size, sure_shown + _shown(other)
        size, shown = sure + alarm.size, sure_shown + _shown(alarm)
        if alarm.certain:
            return Back(size, shown, size, shown, certain=True)
        return Back(size, shown, sure, sure_shown, self.certain, slow=alarm.accepted)


@dataclass(frozen=True, slots=True)
class ToCome:
    """What is left of a link's way back, and from how little on nothing is, in the unit of the alarm's size."""

    size: float
    tolerance: float

    def less(self, alarm: LinkAlarm) -> ToCome | None:
        """After one more certain piece of it; None where that was the last."""
        left = self.size - alarm.size
        return ToCome(left, self.tolerance) if abs(left) > self.tolerance and left * self.size > 0.0 else None


def ended(there: LinkAlarm, over: LinkAlarm) -> Back:
    """All of the way back, without a change; the metric shows it unless it has stayed where it was, and the model has followed."""
    stayed = there.aspect == "level" and over.size * there.size >= SHOWN_MIN * there.size**2 > 0.0
    shown = 0.0 if stayed else -there.size
    return Back(-there.size, shown, -there.size, shown, certain=True)


def leads_back(there: LinkAlarm, size: float) -> bool:
    """Whether a change of this size ends near where the other began, and neither half way nor far beyond."""
    return abs(size) >= BACK_MIN * abs(there.size) and abs(there.size + size) <= tolerance(there)


def tolerance(there: LinkAlarm) -> float:
    """How far from where it was a link is back, in the unit of the alarm's size."""
    sigma = abs(there.size / there.size_sigma) if there.size_sigma else 0.0
    return max(LEFT_SHARE * abs(there.size), LEFT_SIGMA * sigma)


def _shown(alarm: LinkAlarm) -> float:
    """How much of its size the metric itself shows."""
    return alarm.size * max(0.0, min(1.0, alarm.shown))
