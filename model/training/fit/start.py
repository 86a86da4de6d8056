"""A network from its start to its best weights: at its linear path or its parent's weights, then trained, then weighed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keras
import msgspec
import numpy as np
import tensorflow as tf

from features.telemetry import TARGETS, Flags, Floats
from model.spec.architecture import Architecture, architecture_of
from model.spec.job import plain
from model.spec.settings import TrainingSettings
from model.training.dataset import Dataset
from model.training.fit.ahead import ahead_task, fit_spreads, fit_units, fit_usual, is_ahead, trained_part
from model.training.fit.blend import Blended, blend
from model.training.fit.cheaper import Comparison
from model.training.fit.linear_path import correct_linear_path, start_linear_path, weigh_network
from model.training.fit.loop import History, next_row, train
from model.training.fit.progress import Progress
from model.training.graph.core import load_weights
from model.training.network.assembly import NONLINEAR_OUTPUT, build, renewed, silence_features
from model.training.network.bound_layers import read_bounds, set_bounds, unbounded
from model.training.network.linear_inputs import set_calendar
from model.training.network.relative import set_units
from model.version.metadata import Metadata
from model.windows.bounds import learnt

LINEAR: Final = "linear"
RANDOM: Final = "random"
LEAST_BUDGET_S: Final = 5.0
"""Seconds that each of several trainings gets at least, whatever those before it took."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A trained network.

    Args:
        architecture: What the network was built by.
        started_from: LINEAR, RANDOM (without a linear path), or the parent's version.
        shares: float32 (4,), kept share of the network's addition to its linear path; see `weigh_network`.
        duration_s: Wall time of the training.
        ahead: Of the network of several horizons; None: there is none.
        blended: What is taken of it; None likewise.
        compared: Its scores beside those of the architecture that it could have been, or was, replaced by; None: by none.
    """

    model: keras.Model
    architecture: Architecture
    started_from: str
    history: History
    shares: Floats
    duration_s: float
    ahead: History | None = None
    blended: Blended | None = None
    compared: Comparison | None = None


def prepare_tensorflow(settings: TrainingSettings) -> None:
    """Seed everything and bound the threads. Call it before the first operation, once a process."""
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    keras.utils.set_random_seed(settings.seed)


def start(
    dataset: Dataset, architecture: Architecture, parent: Metadata | None = None, folder: Path | None = None
) -> tuple[keras.Model, str]:
    """Return the network before its training, and what it starts from.

    A parent of another architecture cannot lend its weights: the network then starts as a first version does, in its parent's units.

    Args:
        parent: The parent's metadata, None for a first version.
        folder: The parent's, with its weights.

    Returns:
        The network; LINEAR, RANDOM (without a linear path) or the parent's version.
    """
    data, inputs, outputs = dataset.data, dataset.inputs, dataset.outputs
    bounds = learnt(data.features, dataset.targets, data.train, inputs, data.window_rows)
    if parent is None or folder is None or not has_architecture(parent, architecture):
        model = build(architecture)
        silence_features(model, ~inputs.fitted)
        set_bounds(model, bounds, inputs, outputs)
        if architecture.linear_path:
            start_linear_path(unbounded(model), data, inputs, outputs)
        if is_ahead(model):
            _set_ahead(model, dataset)
            fit_usual(model, data)
        return model, LINEAR if architecture.linear_path else RANDOM
    before = load_weights(folder)
    model = renewed(before, architecture)
    theirs = read_bounds(before, parent.outputs)
    if theirs is not None:
        bounds = bounds.joined(theirs, parent.inputs.fitted)
    set_bounds(model, bounds, inputs, outputs)
    fresh = bounds.measured & ~parent.measured
    if architecture.linear_path:
        set_calendar(model, inputs)  # a column that the parent has never seen vary has a scale only now
        correct_linear_path(unbounded(model), data, inputs, outputs, fresh)
    if is_ahead(model):
        _set_ahead(model, dataset, fresh)
        if fresh.any():
            fit_usual(model, data, fresh)
    return model, parent.version


def _set_ahead(model: keras.Model, dataset: Dataset, fresh: Flags | None = None) -> None:
    """Set the units that the network of several horizons reads in. fresh: bool (4,), targets whose spreads are not known; None: all."""
    set_calendar(model, dataset.inputs)
    set_units(model, dataset.inputs, dataset.outputs)
    if fresh is None or fresh.any():
        fit_spreads(model, dataset.data, dataset.outputs.mean / dataset.outputs.scale, fresh)
    fit_units(model, dataset.data)


def has_architecture(parent: Metadata, architecture: Architecture) -> bool:
    """Return whether a parent was built with this architecture. One of another release may have one that this release does not know.

    One that does not name its architecture counts as one of this, if it forecasts the same horizons.
    """
    if parent.horizons != architecture.ahead.horizons:
        return False
    document = parent.extra.get("architecture", plain(architecture))
    try:
        return architecture_of(document) == architecture
    except ValueError:
        return False


def with_what_is_left(settings: TrainingSettings, spent_s: float) -> TrainingSettings:
    """Return the settings of a further training with the rest of the time budget, at least LEAST_BUDGET_S. spent_s: seconds."""
    if settings.time_budget_s is None:
        return settings
    return msgspec.structs.replace(settings, time_budget_s=max(LEAST_BUDGET_S, settings.time_budget_s - spent_s))


def fit(
    model: keras.Model,
    started_from: str,
    dataset: Dataset,
    architecture: Architecture,
    settings: TrainingSettings,
    on_progress: Callable[[Progress], None],
    *,
    log_path: Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Fit:
    """Train the network in place. For each target, keep the share of its addition to the linear path that is best on validation windows.

    Args:
        log_path: CSV file to write, a line for each epoch.
        interrupted: Asked after every step; once it returns True, the training ends with this epoch.
    """
    learning_rate = settings.learning_rate if started_from in (LINEAR, RANDOM) else settings.fine_tune_learning_rate
    began = time.monotonic()
    network = unbounded(model)
    data = dataset.data
    history = train(
        network, data, settings, on_progress, next_row(data, settings, learning_rate), log_path=log_path, interrupted=interrupted
    )
    beside = any(layer.name == NONLINEAR_OUTPUT for layer in network.layers)
    shares = weigh_network(network, data) if beside else np.ones(len(TARGETS), np.float32)
    if not is_ahead(model):
        return Fit(model, architecture, started_from, history, shares, time.monotonic() - began)
    settings = with_what_is_left(settings, time.monotonic() - began)
    task = ahead_task(model, data, architecture.ahead, settings, fine_tuned=started_from not in (LINEAR, RANDOM))
    ahead = train(trained_part(model), data, settings, on_progress, task, log_path=log_path, interrupted=interrupted)
    blended = blend(model, data, architecture.ahead.coverage)
    return Fit(model, architecture, started_from, history, shares, time.monotonic() - began, ahead, blended)
