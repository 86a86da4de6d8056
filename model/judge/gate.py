"""Gate: a pure decision whether a candidate replaces the live version, over paired errors on windows that neither was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.telemetry import TARGETS, Doubles, Flags
from model.judge.metrics import BLOCKS, RESAMPLES, SEED, block_bootstrap_means
from model.spec.verdict import Change, GatePolicy, TargetVerdict, Verdict

AnyFloats = NDArray[np.floating[Any]]

_CONFIDENCE_PERCENT: Final = 95.0
_SCALE_FLOOR_RATIO: Final = 0.05
"""A target's errors are scaled by at least this share of its spread: a target that hardly varies must not decide."""
_CHUNK_WINDOWS: Final = 4_096  # 22 MB of windows at a time


def absolute_errors(actual: AnyFloats, predicted: AnyFloats, forecast: Flags | None = None) -> Doubles:
    """Return float64 (M, 4), |actual - predicted|; NaN if not measured, inf if measured and the forecast is not finite.

    Args:
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
    news: tuple[str, ...] = (),
) -> Verdict:
    """Accept a candidate that is better on the whole and worse at no target. The same errors always lead to the same verdict.

    All errors are (M, 4), of the same windows in time order, in the targets' units, as `absolute_errors` returns them: NaN where not
    measured, inf where a forecast was not finite, all NaN for a target that a version does not forecast.

    Args:
        current_abs_error: Of the live version. None: a first version, which is accepted if all its forecasts are finite.
        persistence_abs_error: May be NaN where persistence has no value.
        target_spread: (4,), the targets' standard deviations, a floor for the scale of their errors.
        news: Sentences on what only the candidate forecasts. With one it need not be better on the whole, only not worse.

    Raises:
        ValueError: The errors are not of the same windows.
    """
    candidate, persistence = np.asarray(candidate_abs_error, np.float64), np.asarray(persistence_abs_error, np.float64)
    current = None if current_abs_error is None else np.asarray(current_abs_error, np.float64)
    _require_same_windows(candidate, current, persistence)
    windows = int((~np.isnan(candidate)).any(axis=1).sum())
    broken = [name for name, errors in zip(TARGETS, candidate.T, strict=True) if np.isinf(errors).any()]
    if broken:
        return Verdict(False, (f"its forecasts of {', '.join(broken)} are not all finite numbers",), windows)
    if windows == 0:
        return Verdict(False, ("there are no windows to judge it on",), 0)
    per_target = tuple(_target(name, column, candidate, current, persistence) for column, name in enumerate(TARGETS))
    if current is None:
        return Verdict(True, ("it is the first version, and all its forecasts are finite", *_skills(per_target)), windows, per_target)
    if np.isinf(current).any():
        return Verdict(True, ("the live version's forecasts are not all finite numbers, the candidate's are",), windows, per_target)
    if windows < policy.min_windows:
        reason = f"{windows} windows are too few to compare it with the live version: {policy.min_windows} are needed"
        return Verdict(False, (reason,), windows, per_target)
    return _compared(candidate, current, per_target, windows, policy, target_spread, news)


def against_average(first: Verdict, candidate_abs_error: AnyFloats, average_abs_error: AnyFloats, policy: GatePolicy) -> Verdict:
    """Refuse a first version that is worse on the whole than a moving average, beyond chance and the tolerance: that costs nothing.

    Args:
        first: The verdict on it so far.
        candidate_abs_error: (M, 4), of the same windows in time order, NaN where not measured; of all horizons together, if it has some.
        average_abs_error: (M, 4), of the average.
    """
    candidate = np.asarray(candidate_abs_error, np.float64)
    average = np.where(np.isnan(candidate), np.nan, np.asarray(average_abs_error, np.float64))
    candidate = np.where(np.isnan(average), np.nan, candidate)
    targets = np.flatnonzero(~np.isnan(candidate).all(axis=0)).tolist()
    if not first.accepted or not targets or first.windows < policy.min_windows:
        return first
    usual = np.nanmean(average[:, targets], axis=0)
    scaled = (candidate - average)[:, targets] / np.where(usual > 0, usual, 1.0)
    means = block_bootstrap_means(scaled, -(-len(scaled) // BLOCKS), RESAMPLES, SEED)
    change = _change(float(np.nanmean(scaled, axis=0).mean()), np.nanmean(means, axis=1))
    if change.low <= 0 or change.mean <= policy.tolerance_ratio:
        return first
    figures = f"{change.mean:+.1%} (95 % interval {change.low:+.1%} to {change.high:+.1%})"
    return replace(first, accepted=False, reasons=(f"it is worse than a moving average: its mean scaled error differs by {figures}",))


def with_horizons(next_row: Verdict, ahead: Verdict) -> Verdict:
    """Return the verdict on two versions that forecast the same horizons.

    The candidate has to be better on the whole for the next row or over all horizons, worse at no target for either, and all its forecasts
    have to be finite.

    Args:
        next_row: Of the next row alone, by absolute errors.
        ahead: Of all horizons, by scores of medians and intervals.
    """
    accepted = (next_row.accepted or ahead.accepted) and not (_is_barred(next_row) or _is_barred(ahead))
    chosen = [verdict for verdict in (next_row, ahead) if verdict.accepted == accepted] or [next_row, ahead]
    reasons = tuple(
        f"{'the next row' if verdict is next_row else 'all horizons'}: {reason}" for verdict in chosen for reason in verdict.reasons
    )  # fmt: skip
    return replace(next_row, accepted=accepted, reasons=reasons)


def _is_barred(verdict: Verdict) -> bool:
    """Return whether a target is worse, or a forecast not finite: then there are windows, and no figures of the targets."""
    return any(target.worse for target in verdict.per_target) or (verdict.windows > 0 and not verdict.per_target)


def _require_same_windows(candidate: Doubles, current: Doubles | None, persistence: Doubles) -> None:
    for name, errors in (("candidate", candidate), ("current", current), ("persistence", persistence)):
        if errors is not None and errors.shape != (len(candidate), len(TARGETS)):
            raise ValueError(f"{name} errors are {errors.shape}, not {(len(candidate), len(TARGETS))}")
    if current is None:
        return
    both = ~np.isnan(candidate).all(axis=0) & ~np.isnan(current).all(axis=0)  # targets that both versions forecast
    if not np.array_equal(np.isnan(candidate[:, both]), np.isnan(current[:, both])):
        raise ValueError("candidate and current errors are known for different windows: both must be NaN exactly where a target is missing")


def _target(name: str, column: int, candidate: Doubles, current: Doubles | None, persistence: Doubles) -> TargetVerdict:
    measured = ~np.isnan(candidate[:, column])
    both = measured & np.isfinite(persistence[:, column])
    if not measured.any():
        return TargetVerdict(name, 0, None, None, None, None)
    naive = float(persistence[both, column].mean()) if both.any() else None
    current_mae = None if current is None else float(current[measured, column].mean())
    return TargetVerdict(
        name=name,
        windows=int(measured.sum()),
        candidate_mae=float(candidate[measured, column].mean()),
        current_mae=current_mae if current_mae is not None and np.isfinite(current_mae) else None,
        persistence_mae=naive,
        skill=1.0 - float(candidate[both, column].mean()) / naive if naive else None,
    )


def _skills(per_target: tuple[TargetVerdict, ...]) -> list[str]:
    """Return the mean absolute error beside persistence's, one sentence for each target that has both."""
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
    news: tuple[str, ...],
) -> Verdict:
    """Return the verdict over absolute errors float64 (M, 4). A target that only the candidate forecasts is a gain of its own."""
    differences = candidate - current
    measured = np.flatnonzero(~np.isnan(differences).all(axis=0)).tolist()
    gained, lost = (
        [name for name, has, had in zip(TARGETS, one.T, other.T, strict=True) if np.isnan(had).all() and not np.isnan(has).all()]
        for one, other in ((candidate, current), (current, candidate))
    )
    if gained:
        news = (*news, f"it forecasts {', '.join(gained)}, which the live version does not")
    if lost:
        return Verdict(False, (f"it does not forecast {', '.join(lost)}, which the live version does",), windows, per_target)
    if not measured:
        return Verdict(bool(news), news or ("there is no target that both versions forecast",), windows, per_target)
    scaled = differences[:, measured] / _scales([per_target[index] for index in measured], target_spread, measured)
    means = block_bootstrap_means(scaled, -(-len(scaled) // BLOCKS), RESAMPLES, SEED)
    judged = list(per_target)
    for column, index in enumerate(measured):
        change = _change(float(np.nanmean(scaled[:, column])), means[:, column])
        judged[index] = replace(judged[index], change=change, worse=change.mean > policy.tolerance_ratio and change.low > 0)
    overall = _change(float(np.nanmean(scaled, axis=0).mean()), np.nanmean(means, axis=1))
    against = [
        f"{target.name} is worse by {target.change.mean:.1%} (95 % interval {target.change.low:+.1%} to {target.change.high:+.1%})"
        for target in judged
        if target.worse and target.change is not None
    ]
    figures = f"the mean scaled error changes by {overall.mean:+.1%} (95 % interval {overall.low:+.1%} to {overall.high:+.1%})"
    most = policy.tolerance_ratio if news else -policy.min_gain_ratio
    if overall.high >= 0 and overall.mean > most:
        against.append(f"it is not better on the whole: {figures}")
    wins = (f"it is better on the whole, and no target is worse beyond {policy.tolerance_ratio:.1%}: {figures}",)
    if news and overall.mean > -policy.min_gain_ratio:
        wins = (f"no target is worse beyond {policy.tolerance_ratio:.1%}: {figures}",)
    return Verdict(not against, tuple(against) or (*news, *wins), windows, tuple(judged), overall)


def _scales(measured: list[TargetVerdict], target_spread: AnyFloats | None, columns: list[int]) -> Doubles:
    """Return float64 (K,), the divisor of each measured target's errors.

    MASE (Hyndman and Koehler 2006, "Another look at measures of forecast accuracy") divides by the naive error. Here the live version's
    error is used if it is larger: a target that is constant for long stretches has hardly a naive error, and must not outweigh the others.
    """
    largest = np.array([max(target.current_mae or 0.0, target.persistence_mae or 0.0) for target in measured])
    if target_spread is not None:
        largest = np.maximum(largest, _SCALE_FLOOR_RATIO * np.asarray(target_spread, np.float64)[columns])
    return np.where(largest > 0, largest, 1.0)


def _change(mean: float, resampled: Doubles) -> Change:
    tail = (100.0 - _CONFIDENCE_PERCENT) / 2
    low, high = np.nanpercentile(resampled, [tail, 100.0 - tail])
    return Change(mean, float(low), float(high))
