"""Gate of a job: candidate, parent and persistence forecast the windows that neither version was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from features.local_time import UTC, LocalTime
from features.offline import OfflineFeatures, compute, empty_row
from features.telemetry import Doubles, Flags, Floats
from model.judge.gate import absolute_errors, against_average, decide, with_horizons
from model.judge.horizons import mean_over_horizons, weighted_interval_scores
from model.judge.metrics import Ewma, forecast_metrics, persistence
from model.spec.architecture import COVERAGE
from model.spec.verdict import GatePolicy, Verdict
from model.training.dataset import Dataset
from model.version.contract import MEDIAN
from model.version.predictor import Predictor
from model.windows.index import gather, targets_at

_CHUNK_WINDOWS: Final = 4_096  # 22 MB of windows at a time


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Outcome of the gate.

    Args:
        metrics: Result of forecast_metrics for each forecaster ("candidate", "parent", "persistence"), as JSON has it.
        forecasts: By forecaster float32 (M, 4) in the targets' units, for the M judged windows.
        ahead: float32 (M, H, 4, 4), the candidate's forecasts of all horizons; None if it has none.
    """

    verdict: Verdict
    metrics: dict[str, Any]
    forecasts: dict[str, Floats]
    ahead: Floats | None = None


def judge(
    dataset: Dataset,
    candidate: Predictor,
    parent: Predictor | None,
    policy: GatePolicy,
    gap_multiple: float,
    local_time: LocalTime = UTC,
) -> Evaluation:
    """Compare the versions on the judged windows. Each sees features coded by its own vocabulary, as it does when live.

    Args:
        parent: The live version; None for a first version.
        gap_multiple: Pauses over this many median intervals of a link end its windows.
        local_time: Time zones and holidays of the regions.
    """
    index = dataset.judged
    actual = dataset.targets[index.target_row]
    forecasts = {
        "candidate": _forecasts(candidate, dataset, dataset.features),
        "persistence": persistence(dataset.targets, index),
    }
    theirs = None
    if parent is not None:
        theirs = compute(dataset.table, parent.vocabulary, gap_multiple, parent.horizons, local_time)
        forecasts["parent"] = _forecasts(parent, dataset, theirs)
    able = {"candidate": candidate.metadata.measured} | ({} if parent is None else {"parent": parent.metadata.measured})
    errors = {name: absolute_errors(actual, forecast, able.get(name)) for name, forecast in forecasts.items()}
    news = () if parent is None else _news(candidate, parent)
    verdict = decide(errors["candidate"], errors.get("parent"), errors["persistence"], policy, dataset.outputs.scale, news)
    metrics = {name: asdict(forecast_metrics(actual, forecast)) for name, forecast in forecasts.items()}
    ahead = _ahead(candidate, dataset, dataset.features) if candidate.horizons else None
    if parent is None:
        verdict = _first(verdict, dataset, errors["candidate"], ahead, policy)
    if ahead is not None and theirs is not None and parent is not None and parent.horizons == candidate.horizons:
        both = {"candidate": ahead, "parent": _ahead(parent, dataset, theirs)}
        coverage = candidate.metadata.coverage or COVERAGE
        verdict = with_horizons(verdict, _decided_ahead(dataset, both, able, forecasts["persistence"], coverage, policy))
    return Evaluation(verdict, metrics, forecasts, ahead)


def _first(verdict: Verdict, dataset: Dataset, errors: Doubles, ahead: Floats | None, policy: GatePolicy) -> Verdict:
    """Compare a first version with a moving average, over all horizons if it has some. errors: float64 (M, 4), of the next row."""
    index, targets = dataset.judged, dataset.targets
    average = Ewma.chosen(targets, dataset.features, dataset.data.train).forecast(targets, dataset.features, index)
    if ahead is None:
        return against_average(verdict, errors, absolute_errors(targets[index.target_row], average), policy)
    actual = targets_at(targets, index.ahead)
    naive = np.abs(actual.astype(np.float64) - average[:, None])
    medians = np.abs(actual.astype(np.float64) - ahead[..., MEDIAN])
    medians[np.isnan(naive)] = naive[np.isnan(medians)] = np.nan
    return against_average(verdict, mean_over_horizons(medians, naive), mean_over_horizons(naive, naive), policy)


def _news(candidate: Predictor, parent: Predictor) -> tuple[str, ...]:
    """Return a sentence if the candidate forecasts other horizons: those that are configured by now."""
    if candidate.horizons == parent.horizons:
        return ()
    rows, before = (", ".join(map(str, version.horizons or (1,))) for version in (candidate, parent))
    return (f"it forecasts {rows} rows ahead, as configured, and the live version {before}",)


def _decided_ahead(
    dataset: Dataset,
    forecasts: Mapping[str, Floats],
    able: Mapping[str, Flags],
    persistence: Floats,
    coverage: float,
    policy: GatePolicy,
) -> Verdict:
    """Compare the forecasts of all horizons of "candidate" and "parent", (M, H, 4, 4) each, by the mean of their scores."""
    actual = targets_at(dataset.targets, dataset.judged.ahead)
    naive = np.abs(actual.astype(np.float64) - persistence[:, None])
    scores = {}
    for name, ahead in forecasts.items():
        scores[name] = mean_over_horizons(weighted_interval_scores(actual, ahead, coverage), naive)
        scores[name][:, ~able[name]] = np.nan
    return decide(scores["candidate"], scores["parent"], mean_over_horizons(naive, naive), policy)


def _ahead(predictor: Predictor, dataset: Dataset, features: OfflineFeatures) -> Floats:
    """Return float32 (M, H, 4, 4), forecasts of all horizons for the judged windows, in the targets' units. features: by its own codes."""
    return np.concatenate([predictor.predict_ahead(windows, context) for windows, context in _inputs(predictor, dataset, features)])


def _forecasts(predictor: Predictor, dataset: Dataset, features: OfflineFeatures) -> Floats:
    """Return float32 (M, 4) for the judged windows, in the targets' units."""
    return np.concatenate([predictor.predict(windows, context) for windows, context in _inputs(predictor, dataset, features)])


def _inputs(predictor: Predictor, dataset: Dataset, features: OfflineFeatures) -> Iterator[tuple[Floats, Floats | None]]:
    """Yield the judged windows, unscaled, and their contexts in parts: few of them exist at a time."""
    for part in dataset.judged.parts(_CHUNK_WINDOWS):
        windows = gather(features.features, part.end, begin=part.begin, empty=empty_row())
        yield windows, features.context[part.end] if predictor.horizons else None
