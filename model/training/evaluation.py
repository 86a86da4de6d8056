"""Gate of a job: candidate, parent and persistence forecast the windows that neither version was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from features.offline import compute
from features.telemetry import TARGETS, Floats
from model.judge.gate import absolute_errors, decide
from model.judge.metrics import forecast_metrics, persistence
from model.spec.verdict import GatePolicy, Verdict
from model.training.dataset import Dataset
from model.version.predictor import Predictor
from model.windows.index import gather

_CHUNK_WINDOWS: Final = 4_096  # 22 MB of windows at a time


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Outcome of the gate.

    Args:
        metrics: Result of forecast_metrics for each forecaster ("candidate", "parent", "persistence"), as JSON has it.
        forecasts: By forecaster float32 (M, 4) in the targets' units, for the M judged windows.
    """

    verdict: Verdict
    metrics: dict[str, Any]
    forecasts: dict[str, Floats]


def judge(dataset: Dataset, candidate: Predictor, parent: Predictor | None, policy: GatePolicy, gap_multiple: float) -> Evaluation:
    """Compare the versions on the judged windows. Each sees features coded by its own vocabulary, as it does when live.

    Args:
        parent: The live version; None for a first version.
        gap_multiple: Pauses over this many median intervals of a link end its windows.
    """
    index = dataset.judged
    actual = dataset.targets[index.target_row]
    forecasts = {
        "candidate": _forecasts(candidate, dataset, dataset.features.features),
        "persistence": persistence(dataset.targets, index),
    }
    if parent is not None:
        forecasts["parent"] = _forecasts(parent, dataset, compute(dataset.table, parent.vocabulary, gap_multiple).features)
    able = {"candidate": candidate.metadata.measured} | ({} if parent is None else {"parent": parent.metadata.measured})
    errors = {name: absolute_errors(actual, forecast, able.get(name)) for name, forecast in forecasts.items()}
    verdict = decide(errors["candidate"], errors.get("parent"), errors["persistence"], policy, dataset.outputs.scale)
    metrics = {name: asdict(forecast_metrics(actual, forecast)) for name, forecast in forecasts.items()}
    return Evaluation(verdict, metrics, forecasts)


def _forecasts(predictor: Predictor, dataset: Dataset, features: Floats) -> Floats:
    """Return float32 (M, 4) for the judged windows, in the targets' units."""
    end = dataset.judged.end
    forecasts = np.empty((len(end), len(TARGETS)), np.float32)
    for start in range(0, len(end), _CHUNK_WINDOWS):
        part = slice(start, start + _CHUNK_WINDOWS)
        forecasts[part] = predictor.predict(gather(features, end[part]))
    return forecasts
