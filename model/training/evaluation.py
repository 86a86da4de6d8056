"""The gate of one job: candidate, parent and persistence forecast the windows that neither was trained on, and are compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from features.offline import compute
from features.telemetry import TARGETS, Floats
from model.judge.gate import GatePolicy, Verdict, absolute_errors, decide
from model.judge.metrics import forecast_metrics, persistence
from model.training.dataset import TrainingSet
from model.version.predictor import Predictor
from model.windows.index import gather

_CHUNK_WINDOWS = 4_096  # 22 MB of windows at a time


@dataclass(frozen=True, eq=False)
class Evaluation:
    """metrics: per forecaster ("candidate", "parent", "persistence") what forecast_metrics gives, as JSON has it.

    forecasts: of the same forecasters, float32 (M, 4) in engineering units, for the M windows of the gate.
    """

    verdict: Verdict
    metrics: dict[str, Any]
    forecasts: dict[str, Floats]


def judge(training_set: TrainingSet, candidate: Predictor, parent: Predictor | None, policy: GatePolicy, gap_multiple: float) -> Evaluation:
    """Decides over the gate's windows. Each version sees features of its own vocabulary, as it would when live."""
    index = training_set.split.gate
    actual = training_set.targets[index.target_row]
    forecasts = {
        "candidate": _forecasts(candidate, training_set, training_set.features.features),
        "persistence": persistence(training_set.targets, index),
    }
    if parent is not None:
        features = compute(training_set.table, parent.vocabulary, gap_multiple).features
        forecasts["parent"] = _forecasts(parent, training_set, features)
    able = {"candidate": candidate.metadata.measured} | ({} if parent is None else {"parent": parent.metadata.measured})
    errors = {name: absolute_errors(actual, forecast, able.get(name)) for name, forecast in forecasts.items()}
    verdict = decide(errors["candidate"], errors.get("parent"), errors["persistence"], policy, training_set.outputs.scale)
    metrics = {name: asdict(forecast_metrics(actual, forecast)) for name, forecast in forecasts.items()}
    return Evaluation(verdict, metrics, forecasts)


def _forecasts(predictor: Predictor, training_set: TrainingSet, features: Floats) -> Floats:
    """float32 (M, 4) for the gate's windows, in engineering units."""
    end = training_set.split.gate.end
    forecasts = np.empty((len(end), len(TARGETS)), np.float32)
    for start in range(0, len(end), _CHUNK_WINDOWS):
        part = slice(start, start + _CHUNK_WINDOWS)
        forecasts[part] = predictor.predict(gather(features, end[part]))
    return forecasts
