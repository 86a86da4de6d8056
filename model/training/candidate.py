"""Builds a candidate version: a network started at its linear path or its parent's weights, trained, exported, described in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import keras
import tensorflow as tf

from model.judge.baselines import baseline_forecasts
from model.judge.performance import NETWORK, performance
from model.spec.architecture import Architecture, architecture_of, sizes
from model.spec.job import JobSpec, TrainingSettings
from model.training.dataset import TrainingSet, scaled
from model.training.evaluation import Evaluation
from model.training.files import TRAINING_LOG, Fit, Learnt, libraries, settings_document, write_model
from model.training.fit.linear_path import correct_linear_path, start_linear_path, weigh_network
from model.training.fit.loop import Progress, TrainingData, train
from model.training.graph.core import load_weights
from model.training.network.assembly import build, renewed, silence_features
from model.training.network.bound_layers import read_bounds, set_bounds, unbounded
from model.training.network.linear_inputs import set_calendar
from model.training.report import attention_of, judged_rows, report_document, write_report
from model.version.manifest import write_manifest
from model.version.metadata import Metadata
from model.windows.bounds import learnt
from model.windows.quality import examine

LINEAR: Final = "linear"
RANDOM: Final = "random"


def prepare_tensorflow(settings: TrainingSettings) -> None:
    """Seeds everything and bounds the threads: to be called before the first operation, once a process."""
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    keras.utils.set_random_seed(settings.seed)


def start(spec: JobSpec, training_set: TrainingSet, data: TrainingData, parent: Metadata | None) -> tuple[keras.Model, str]:
    """The network before its training, and what it starts from: "linear", "random" (without a linear path) or the parent's version.

    A parent of another architecture cannot lend its weights: then the candidate starts as a first version does, in its parent's units.
    """
    linear_path, inputs, outputs = spec.architecture.linear_path, training_set.inputs, training_set.outputs
    bounds = learnt(data.features, training_set.targets, data.train, inputs, data.window_rows)
    if parent is None or spec.parent is None or not _has_architecture(parent, spec.architecture):
        model = build(spec.architecture)
        silence_features(model, ~inputs.fitted)
        set_bounds(model, bounds, inputs, outputs)
        if linear_path:
            start_linear_path(unbounded(model), data, inputs, outputs)
        return model, LINEAR if linear_path else RANDOM
    before = load_weights(Path(spec.parent))
    model = renewed(before, spec.architecture)
    theirs = read_bounds(before, parent.outputs)
    if theirs is not None:
        bounds = bounds.joined(theirs, parent.inputs.fitted)
    set_bounds(model, bounds, inputs, outputs)
    if linear_path:
        set_calendar(model, inputs)  # a column that the parent has never seen vary has a scale only now
        correct_linear_path(unbounded(model), data, inputs, outputs, bounds.measured & ~parent.measured)
    return model, parent.version


def _has_architecture(parent: Metadata, architecture: Architecture) -> bool:
    """Whether a parent was built with this architecture; one of another release may have one that this release does not know."""
    try:
        return architecture_of(parent.extra.get("architecture", sizes(architecture))) == architecture
    except ValueError:
        return False


def training_data(training_set: TrainingSet) -> TrainingData:
    features, targets = scaled(training_set)
    return TrainingData(features, targets, training_set.split.train, training_set.split.validation)


def fit(model: keras.Model, started_from: str, data: TrainingData, spec: JobSpec, on_progress: Callable[[Progress], None]) -> Fit:
    """Trains the network and writes training_log.csv, a line for each epoch, into the candidate's folder."""
    settings, log_path = spec.settings, Path(spec.candidate) / TRAINING_LOG
    learning_rate = settings.learning_rate if started_from in (LINEAR, RANDOM) else settings.fine_tune_learning_rate
    began = time.monotonic()
    network = unbounded(model)
    history = train(network, data, settings, on_progress, learning_rate=learning_rate, log_path=log_path)
    if spec.architecture.linear_path:
        weigh_network(network, data)
    return Fit(model, started_from, history, time.monotonic() - began)


def write_version(fitted: Fit, data: TrainingData, training_set: TrainingSet, spec: JobSpec) -> Metadata:
    """Exports the network and writes everything that a forecast needs. Raises ExportError where a graph is not the network."""
    learnt = Learnt(
        table=training_set.table,
        features=training_set.features,
        scaled=data.features,
        inputs=training_set.inputs,
        outputs=training_set.outputs,
        vocabulary=training_set.vocabulary,
        trained_until_s=training_set.trained_until_s,
        held_out=training_set.split.gate.end,
    )
    about = settings_document(spec.settings, spec.architecture, spec.gap_multiple, spec.created_at_s) | {"reason": spec.reason}
    return write_model(Path(spec.candidate), spec.version, fitted, learnt, about)


def finish(
    fitted: Fit, metadata: Metadata, evaluation: Evaluation, data: TrainingData, training_set: TrainingSet, spec: JobSpec
) -> None:  # fmt: skip
    """Adds how the candidate was judged, in metadata and reports, then the manifest, which makes the folder a version."""
    folder, table, index = Path(spec.candidate), training_set.table, training_set.split.gate
    forecasts = {NETWORK: evaluation.forecasts["candidate"]} | baseline_forecasts(
        training_set.features, data.features, training_set.targets, training_set.split.train, index
    )
    actual = training_set.targets[index.target_row]
    figures = performance(actual, forecasts, table.time_s[index.target_row])
    windows = {"train": len(training_set.split.train), "validation": len(training_set.split.validation), "gate": len(index)}
    quality = examine(table, training_set.features, windows)
    about = settings_document(spec.settings, spec.architecture, spec.gap_multiple, spec.created_at_s) | {
        "version": spec.version,
        "status": "accepted" if evaluation.verdict.accepted else "refused",
        "source": "training buffer",
        "reason": spec.reason,
        "job_id": spec.job_id,
        "horizon_rows": 1,
        "trained_until_s": training_set.trained_until_s,
        "metrics": evaluation.metrics,
        "verdict": evaluation.verdict.to_json(),
    }
    report = report_document(figures, fitted, about, asdict(quality), evaluation.verdict.reasons)
    attention = attention_of(fitted.model, data.features, index.end)
    write_report(folder, report, fitted, judged_rows(table, index, actual, forecasts, attention))
    judgement = {"target_achieved": figures["success"], "performance_metrics": figures}
    replace(metadata, extra={**metadata.extra, **judgement}).write(folder)
    write_manifest(
        folder,
        version=spec.version,
        parent=None if spec.parent is None else Metadata.read(Path(spec.parent)).version,
        reason=spec.reason,
        created_at_s=spec.created_at_s,
        verdict=evaluation.verdict,
        libraries=libraries(),
    )
