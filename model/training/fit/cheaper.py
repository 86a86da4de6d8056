"""The choice between a network and linear forecasts: where the network is not better beyond chance, the cheaper graph is published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import keras
import numpy as np

from features.telemetry import Doubles
from model.judge.horizons import mean_over_horizons, weighted_interval_scores
from model.judge.metrics import BLOCKS, RESAMPLES, SEED, block_bootstrap_difference, persistence
from model.training.dataset import Dataset
from model.training.fit.ahead import outputs_of
from model.training.fit.blend import JUDGED_WINDOWS_MAX
from model.training.fit.loop import evenly
from model.version.contract import AHEAD
from model.windows.index import targets_at

if TYPE_CHECKING:
    from model.training.fit.start import Fit

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of both on the validation windows: the weighted interval score of each pair of horizon and target, in errors of persistence.

    Args:
        network: Mean score of the network; smaller is better.
        linear: That of linear forecasts.
        low: Lower end of the 95 % interval of network less linear, by block bootstrap.
        high: Its upper end.
    """

    network: float
    linear: float
    low: float
    high: float

    @property
    def network_pays(self) -> bool:
        return self.high < 0.0


def chosen(network: Fit, linear: Fit, dataset: Dataset) -> Fit:
    """Return the one of both that is published, with the comparison: linear forecasts, unless the network is better beyond chance."""
    compared = compare(network.model, linear.model, dataset, network.architecture.ahead.coverage)
    return replace(network if compared is not None and compared.network_pays else linear, compared=compared)


def compare(network: keras.Model, linear: keras.Model, dataset: Dataset, coverage: float) -> Comparison | None:
    """Compare two networks of the same horizons on the validation windows; None if these know no row ahead.

    Args:
        coverage: Of the intervals.
    """
    first, second = (scores(model, dataset, coverage) for model in (network, linear))
    if not np.isfinite(first - second).any():
        return None
    block = max(dataset.data.window_rows, -(-len(first) // BLOCKS))
    _, low, high = block_bootstrap_difference(first, second, block, RESAMPLES, SEED, CONFIDENCE)
    return Comparison(float(np.nanmean(first)), float(np.nanmean(second)), low, high)


def scores(model: keras.Model, dataset: Dataset, coverage: float) -> Doubles:
    """Return float64 (M,), the mean score of each validation window over horizons and targets, in order of time; NaN if it knows none.

    Args:
        model: A network of several horizons.
        coverage: Of its intervals.
    """
    data = dataset.data
    index = data.validation.select(evenly(len(data.validation), JUDGED_WINDOWS_MAX))
    index = index.select(np.argsort(dataset.table.time_s[index.end], kind="stable"))
    ahead = outputs_of(keras.Model(model.inputs, model.get_layer(AHEAD).output), data, index)
    actual = targets_at(data.targets, index.ahead)
    naive = np.abs(actual.astype(np.float64) - persistence(data.targets, index, data.window_rows)[:, None])
    found = mean_over_horizons(weighted_interval_scores(actual, ahead, coverage), naive)
    known = np.isfinite(found)
    total, count = np.where(known, found, 0.0).sum(axis=1), known.sum(axis=1)
    means: Doubles = np.divide(total, count, out=np.full(len(found), np.nan), where=count > 0)
    return means
