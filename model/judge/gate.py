"""Whether a candidate replaces the live version: a pure decision over paired forecast errors on windows that neither was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from features.telemetry import TARGETS, Doubles, Flags, Floats
from model.judge.metrics import block_bootstrap_means
from model.windows.index import WindowIndex, gather

AnyFloats = NDArray[np.floating[Any]]

_BLOCKS: Final = 32
"""Blocks of the bootstrap: fewer make its interval too narrow, more cut apart what neighbouring windows share."""
_RESAMPLES: Final = 2_000
_CONFIDENCE_PERCENT: Final = 95.0
_SEED: Final = 42
_SCALE_FLOOR_RATIO: Final = 0.05
"""A target's errors are never scaled by less than this share of its spread: a target that hardly varies must not decide."""
_CHUNK_WINDOWS: Final = 4_096  # 22 MB of windows at a time


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """min_windows: fewer than this prove nothing against a live version. tolerance_ratio: growth of a target's mean absolute error
    that is accepted. min_gain_ratio: fall of the mean scaled error that is enough without being beyond doubt."""

    min_windows: int = 256
    tolerance_ratio: float = 0.02
    min_gain_ratio: float = 0.01

    def __post_init__(self) -> None:
        if self.min_windows < 1 or self.tolerance_ratio < 0 or self.min_gain_ratio < 0:
            raise ValueError("min_windows must be at least 1, tolerance_ratio and min_gain_ratio at least 0")


@dataclass(frozen=True, slots=True)
class Change:
    """Mean change of the scaled absolute error from current to candidate (under 0: better), with its 95 % block-bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """One target over the `windows` in which it was measured. Errors are mean absolute ones in the target's unit; None: not known.

    skill: 1 - candidate / persistence, over the windows that have both. worse: beyond tolerance, and more than chance explains.
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
    """accepted, and why or why not, in sentences. overall: the change of the mean scaled error over the measured targets."""

    accepted: bool
    reasons: tuple[str, ...]
    windows: int
    per_target: tuple[TargetVerdict, ...] = ()
    overall: Change | None = None

    def to_json(self) -> dict[str, Any]:
        """Only what JSON has: no NaN, no tuple."""
        document = asdict(self)
        return {**document, "reasons": list(self.reasons), "per_target": list(document["per_target"])}


class Forecaster(Protocol):
    """Anything that forecasts: a Predictor, a Keras model in its own units."""

    def predict(self, windows: Floats) -> Floats:
        """float32 (B, 4) for unscaled windows float32 (B, 30, 44), both in engineering units."""
        ...


def evaluate(forecaster: Forecaster, features: Floats, targets: Floats, index: WindowIndex) -> Doubles:
    """float64 (M, 4): absolute errors on the windows of index; NaN where a target was not measured, inf where a forecast is not finite.

    features: float32 (N, 44), unscaled, computed with the forecaster's own vocabulary. targets: float32 (N, 4).
    """
    errors = np.empty((len(index), len(TARGETS)))
    for start in range(0, len(index), _CHUNK_WINDOWS):
        part = slice(start, start + _CHUNK_WINDOWS)
        errors[part] = absolute_errors(targets[index.target_row[part]], forecaster.predict(gather(features, index.end[part])))
    return errors


def absolute_errors(actual: AnyFloats, predicted: AnyFloats, forecast: Flags | None = None) -> Doubles:
    """float64 (M, 4): |actual - predicted|; NaN where not measured, inf where measured and the forecast is not finite.

    forecast: bool (4,), the targets that are forecast at all; the others are NaN. None: all of them.
    """
    errors: Doubles = np.abs(actual.astype(np.float64) - predicted)
    errors[np.isfinite(actual) & ~np.isfinite(predicted)] = np.inf
    if forecast is not None:
        errors[:, ~forecast] = np.nan
    return errors


def decide(
    candidate_abs_error: AnyFloats,
    current_abs_error: AnyFloats | None,
    persistence_abs_error: AnyFloats,
    policy: GatePolicy,
    target_spread: AnyFloats | None = None,
) -> Verdict:
    """Accepts a candidate that is better on the whole and worse nowhere. Pure: the same errors give the same verdict.

    All errors (M, 4), of the same windows in time order, in the targets' units: NaN where not measured, inf where a forecast was
    not finite (see `evaluate`), all NaN for a target that a version does not forecast. Persistence may be NaN where it has no value.
    current_abs_error None: a first version, which is accepted when all its forecasts are finite. target_spread (4,): the targets'
    standard deviations, a floor for the scale of their errors. Raises ValueError where the errors are not of the same windows.
    """
    candidate, persistence = np.asarray(candidate_abs_error, np.float64), np.asarray(persistence_abs_error, np.float64)
    current = None if current_abs_error is None else np.asarray(current_abs_error, np.float64)
    _require_same_windows(candidate, current, persistence)
    windows = int((~np.isnan(candidate)).any(axis=1).sum())
    broken = [name for name, errors in zip(TARGETS, candidate.T, strict=True) if np.isinf(errors).any()]
    if broken:
        return Verdict(False, (f"its forecasts of {', '.join(broken)} are not all finite numbers",), windows)
    if windows == 0:
        return Verdict(False, ("there is no window to judge it on",), 0)
    per_target = tuple(_target(name, at, candidate, current, persistence) for at, name in enumerate(TARGETS))
    if current is None:
        return Verdict(True, ("it is the first version, and all its forecasts are finite", *_skills(per_target)), windows, per_target)
    if np.isinf(current).any():
        return Verdict(True, ("the live version's forecasts are not all finite numbers, the candidate's are",), windows, per_target)
    if windows < policy.min_windows:
        reason = f"{windows} windows are too few to compare it with the live version: {policy.min_windows} are needed"
        return Verdict(False, (reason,), windows, per_target)
    return _compared(candidate, current, per_target, windows, policy, target_spread)


def _require_same_windows(candidate: Doubles, current: Doubles | None, persistence: Doubles) -> None:
    for name, errors in (("candidate", candidate), ("current", current), ("persistence", persistence)):
        if errors is not None and errors.shape != (len(candidate), len(TARGETS)):
            raise ValueError(f"{name} errors are {errors.shape}, not {(len(candidate), len(TARGETS))}")
    if current is None:
        return
    both = ~np.isnan(candidate).all(axis=0) & ~np.isnan(current).all(axis=0)  # targets that both versions forecast
    if not np.array_equal(np.isnan(candidate[:, both]), np.isnan(current[:, both])):
        raise ValueError("candidate and current errors are known for different windows: both must be NaN exactly where a target is missing")


def _target(name: str, at: int, candidate: Doubles, current: Doubles | None, persistence: Doubles) -> TargetVerdict:
    measured = ~np.isnan(candidate[:, at])
    both = measured & np.isfinite(persistence[:, at])
    if not measured.any():
        return TargetVerdict(name, 0, None, None, None, None)
    naive = float(persistence[both, at].mean()) if both.any() else None
    current_mae = None if current is None else float(current[measured, at].mean())
    return TargetVerdict(
        name=name,
        windows=int(measured.sum()),
        candidate_mae=float(candidate[measured, at].mean()),
        current_mae=current_mae if current_mae is not None and np.isfinite(current_mae) else None,
        persistence_mae=naive,
        skill=1.0 - float(candidate[both, at].mean()) / naive if naive else None,
    )


def _skills(per_target: tuple[TargetVerdict, ...]) -> list[str]:
    """How the mean absolute error compares with persistence, one sentence for each target that can be compared."""
    return [
        f"{target.name}: mean absolute error {abs(target.skill):.1%} {'under' if target.skill >= 0 else 'over'} persistence"
        for target in per_target
        if target.skill is not None
    ]


def _compared(
    candidate: Doubles,
    current: Doubles,
    per_target: tuple[TargetVerdict, ...],
    windows: int,
    policy: GatePolicy,
    target_spread: AnyFloats | None,
) -> Verdict:
    """candidate, current: float64 (M, 4), absolute errors. A target that only the candidate forecasts is a gain of its own."""
    differences = candidate - current
    measured = np.flatnonzero(~np.isnan(differences).all(axis=0)).tolist()
    gained, lost = (
        [name for name, has, had in zip(TARGETS, one.T, other.T, strict=True) if np.isnan(had).all() and not np.isnan(has).all()]
        for one, other in ((candidate, current), (current, candidate))
    )
    news = (f"it forecasts {', '.join(gained)}, which the live version does not",) if gained else ()
    if lost:
        return Verdict(False, (f"it does not forecast {', '.join(lost)}, which the live version does",), windows, per_target)
    if not measured:
        return Verdict(bool(gained), news or ("there is no target that both versions forecast",), windows, per_target)
    scaled = differences[:, measured] / _scales([per_target[at] for at in measured], target_spread, measured)
    means = block_bootstrap_means(scaled, -(-len(scaled) // _BLOCKS), _RESAMPLES, _SEED)
    judged = list(per_target)
    for column, at in enumerate(measured):
        change = _change(float(np.nanmean(scaled[:, column])), means[:, column])
        judged[at] = replace(judged[at], change=change, worse=change.mean > policy.tolerance_ratio and change.low > 0)
    overall = _change(float(np.nanmean(scaled, axis=0).mean()), np.nanmean(means, axis=1))
    against = [
        f"{target.name} is worse by {target.change.mean:.1%} (95 % interval {target.change.low:+.1%} to {target.change.high:+.1%})"
        for target in judged
        if target.worse and target.change is not None
    ]
    figures = f"the mean scaled error changes by {overall.mean:+.1%} (95 % interval {overall.low:+.1%} to {overall.high:+.1%})"
    most = policy.tolerance_ratio if gained else -policy.min_gain_ratio
    if overall.high >= 0 and overall.mean > most:
        against.append(f"it is not better on the whole: {figures}")
    wins = (f"it is better on the whole, and no target is worse beyond {policy.tolerance_ratio:.1%}: {figures}",)
    if gained and overall.mean > -policy.min_gain_ratio:
        wins = (f"no target is worse beyond {policy.tolerance_ratio:.1%}: {figures}",)
    return Verdict(not against, tuple(against) or (*news, *wins), windows, tuple(judged), overall)


def _scales(measured: list[TargetVerdict], target_spread: AnyFloats | None, columns: list[int]) -> Doubles:
    """float64 (K,): what each measured target's errors are divided by.

    MASE (Hyndman and Koehler 2006) divides by the naive error. The live version's, where larger, keeps a target that is constant for
    long stretches, and so has hardly a naive error, from outweighing all others.
    """
    largest = np.array([max(target.current_mae or 0.0, target.persistence_mae or 0.0) for target in measured])
    if target_spread is not None:
        largest = np.maximum(largest, _SCALE_FLOOR_RATIO * np.asarray(target_spread, np.float64)[columns])
    return np.where(largest > 0, largest, 1.0)


def _change(mean: float, resampled: Doubles) -> Change:
    tail = (100.0 - _CONFIDENCE_PERCENT) / 2
    low, high = np.nanpercentile(resampled, [tail, 100.0 - tail])
    return Change(mean, float(low), float(high))
