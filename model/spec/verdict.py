"""The gate's policy and its verdict, as the job file, the result and the manifest hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions that a candidate has to meet.

    Args:
        min_windows: Fewer windows than this prove nothing against a live version.
        tolerance_ratio: Largest accepted growth of one target's mean absolute error.
        min_gain_ratio: Fall of the mean scaled error that is enough even if its interval reaches 0.
    """

    min_windows: int = 256
    tolerance_ratio: float = 0.02
    min_gain_ratio: float = 0.01

    def __post_init__(self) -> None:
        if self.min_windows < 1 or self.tolerance_ratio < 0 or self.min_gain_ratio < 0:
            raise ValueError("min_windows must be at least 1, tolerance_ratio and min_gain_ratio at least 0")


@dataclass(frozen=True, slots=True)
class Change:
    """Mean change of the scaled absolute error from the live version to the candidate (under 0: better), and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """One target. Errors are mean absolute ones in the target's unit, None if not known.

    Args:
        windows: How many of the compared windows have the target measured.
        skill: 1 - candidate / persistence, over the windows that have both.
        worse: True if the error grew beyond the tolerance, and more than chance explains.
    """

    name: str
    windows: int
    candidate_mae: float | None
    current_mae: float | None
    persistence_mae: float | None
    skill: float | None
    change: Change | None = None
    worse: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision, with its reasons in sentences. overall: change of the mean scaled error over the measured targets."""

    accepted: bool
    reasons: tuple[str, ...]
    windows: int
    per_target: tuple[TargetVerdict, ...] = ()
    overall: Change | None = None

    def to_json(self) -> dict[str, Any]:
        """Return only what JSON has: no NaN, no tuple."""
        document = asdict(self)
        return {**document, "reasons": list(self.reasons), "per_target": list(document["per_target"])}
