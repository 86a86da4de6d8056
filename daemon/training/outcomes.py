"""Outcomes of trainings in one pass of the loop, as plain values to be announced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["started", "published", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One step of one training.

    Args:
        answer: what happened.
        version: the version that it trains; "none" if it could not be named.
        incidents: the incidents that have asked for this training.
    """

    answer: Answer
    version: str
    incidents: tuple[str, ...] = ()
