"""One honest training over a table: fitted on each link's first rows, chosen on those after them, and judged on its last ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keras
import numpy as np

from features.definition import WINDOW_ROWS
from features.offline import OfflineFeatures, RawTable, compute
from features.telemetry import CATEGORIES, TARGETS, Flags, Floats
from features.vocabulary import Vocabulary
from model.judge.baselines import baseline_forecasts
from model.judge.metrics import Metrics, forecast_metrics
from model.spec.architecture import Architecture
from model.spec.job import TrainingSettings
from model.training.candidate import LINEAR, RANDOM, prepare_tensorflow
from model.training.fit.linear_path import forecast, start_linear_path, weigh_network
from model.training.fit.loop import History, Progress, TrainingData, train
from model.training.network.assembly import build, silence_features
from model.training.network.bound_layers import set_bounds, unbounded
from model.version.possible import possible
from model.windows.absurd import held
from model.windows.bounds import learnt
from model.windows.index import Split, WindowIndex, build_windows, part_starts, split_by_time, targets_of
from model.windows.scaler import Scaler

SHARES: Final = (0.70, 0.15, 0.15)
NETWORK: Final = "network"


class TooFewWindowsError(ValueError):
    """A part of the split has no window. The message says which, and how many the others have."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a training over N rows needs. features: unscaled. targets: float32 (N, 4), unscaled, NaN where not measured.

    table: without absurd numbers before every link's test part, as features and targets are.

    vocabulary, inputs, outputs: of the rows before every link's validation part alone.
    """

    table: RawTable
    features: OfflineFeatures
    targets: Floats
    vocabulary: Vocabulary
    inputs: Scaler
    outputs: Scaler
    split: Split
    data: TrainingData

    def baselines(self, index: WindowIndex) -> dict[str, Floats]:
        """float32 (M, 4) of each baseline, in the targets' units, fitted on the training windows."""
        return baseline_forecasts(self.features, self.data.features, self.targets, self.split.train, index, self.data.window_rows)


@dataclass(frozen=True, eq=False)
class OfflineRun:
    """A trained network and what it is worth on rows that it has not seen.

    forecasts: float32 (M, 4) of "network" and of each of BASELINES for the M windows of split.test, in the targets' units, NaN where
    there is none. actual: float32 (M, 4), NaN where not measured. validation_metrics: of the same forecasters over
    split.validation. network_shares: float32 (4,), see `weigh_network`.
    """

    model: keras.Model
    prepared: Prepared
    started_from: str
    history: History
    network_shares: Floats
    duration_s: float
    forecasts: dict[str, Floats]
    actual: Floats
    validation_metrics: dict[str, Metrics]


def run_offline(
    table: RawTable,
    settings: TrainingSettings,
    architecture: Architecture,
    *,
    gap_multiple: float,
    horizon_rows: int = 1,
    shares: tuple[float, float, float] = SHARES,
    on_progress: Callable[[Progress], None],
    log_path: Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> OfflineRun:
    """Trains a network on the table's training part, with early stopping on its validation part, and forecasts its test part.

    log_path, interrupted: as for `train`. The same settings give the same forecasts on the same machine.
    Raises TooFewWindowsError where a part has no window.
    """
    prepared = prepare_offline(
        table, gap_multiple=gap_multiple, horizon_rows=horizon_rows, shares=shares, window_rows=architecture.window_rows
    )
    prepare_tensorflow(settings)
    began = time.monotonic()
    model = build(architecture)
    silence_features(model, ~prepared.inputs.fitted)
    data = prepared.data
    bounds = learnt(data.features, prepared.targets, data.train, prepared.inputs, data.window_rows)
    set_bounds(model, bounds, prepared.inputs, prepared.outputs)
    network = unbounded(model)
    if architecture.linear_path:
        start_linear_path(network, data, prepared.inputs, prepared.outputs)
    history = train(
        network, data, settings, on_progress, learning_rate=settings.learning_rate, log_path=log_path, interrupted=interrupted
    )  # fmt: skip
    network_shares = weigh_network(network, data) if architecture.linear_path else np.ones(len(TARGETS), np.float32)
    duration_s = time.monotonic() - began
    split, targets = prepared.split, prepared.targets
    validation = _forecasts(model, prepared, split.validation)
    return OfflineRun(
        model=model,
        prepared=prepared,
        started_from=LINEAR if architecture.linear_path else RANDOM,
        history=history,
        network_shares=network_shares,
        duration_s=duration_s,
        forecasts=_forecasts(model, prepared, split.test),
        actual=targets[split.test.target_row],
        validation_metrics={
            name: forecast_metrics(targets[split.validation.target_row], forecast) for name, forecast in validation.items()
        },
    )


def prepare_offline(
    table: RawTable,
    *,
    gap_multiple: float,
    horizon_rows: int = 1,
    shares: tuple[float, float, float] = SHARES,
    window_rows: int = WINDOW_ROWS,
) -> Prepared:
    """Features, split and scalers, without TensorFlow's share. Raises TooFewWindowsError where a part has no window."""
    validation_from, test_from = part_starts(table, shares)
    table = held(table, np.arange(len(table)) < test_from[table.link])
    seen = np.arange(len(table)) < validation_from[table.link]
    vocabulary = Vocabulary.empty().extended(_values_in(table, seen))
    features, targets = compute(table, vocabulary, gap_multiple), targets_of(table)
    split = split_by_time(build_windows(features, table, horizon_rows, window_rows), table, shares, window_rows)
    windows = {"training": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    if not all(windows.values()):
        raise TooFewWindowsError(
            f"{', '.join(f'{count} {part} windows' for part, count in windows.items())}: "
            f"each part needs {window_rows + horizon_rows} rows of one link without a gap"
        )
    inputs, outputs = Scaler.fit(features.features[seen]), Scaler.fit(targets[seen])
    data = TrainingData(inputs.transform(features.features), outputs.standardise(targets), split.train, split.validation, window_rows)
    return Prepared(table, features, targets, vocabulary, inputs, outputs, split, data)


def _values_in(table: RawTable, rows: Flags) -> list[list[str]]:
    """The values of each category that occur in those rows."""
    used = (np.unique(table.codes[rows, category]) for category in range(len(CATEGORIES)))
    return [[values[code] for code in codes if code >= 0] for values, codes in zip(table.values, used, strict=True)]


def _forecasts(model: keras.Model, prepared: Prepared, index: WindowIndex) -> dict[str, Floats]:
    """float32 (M, 4) of the network and of each baseline, in the targets' units; NaN for a target never measured in training."""
    network = possible(prepared.outputs.inverse(forecast(model, prepared.data, index)))
    return {NETWORK: network, **prepared.baselines(index)}
