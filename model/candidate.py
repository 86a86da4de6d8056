"""Builds a candidate version: a network started at Ridge or at its parent's weights, trained, exported, and described in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import keras
import tensorflow as tf

from model.documents import write_document
from model.evaluation import Evaluation
from model.export import load_weights
from model.job_spec import JobSpec, TrainingSettings
from model.linear_path import correct_linear_path, start_at_ridge
from model.manifest import write_manifest
from model.metadata import Metadata
from model.network import build, silence_features
from model.training import Progress, TrainingData, train
from model.training_set import TrainingSet, scaled
from model.version_files import REPORT_NAME, TRAINING_LOG, Fit, Learnt, finite, libraries, settings_document, sizes, write_model

RIDGE: Final = "ridge"
RANDOM: Final = "random"


def prepare_tensorflow(settings: TrainingSettings) -> None:
    """Seeds everything and bounds the threads: to be called before the first operation, once a process."""
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    keras.utils.set_random_seed(settings.seed)


def start(spec: JobSpec, training_set: TrainingSet, data: TrainingData, parent: Metadata | None) -> tuple[keras.Model, str]:
    """The network before its training, and what it starts from: "ridge", "random" (without a linear path) or the parent's version.

    A parent of another architecture cannot lend its weights: then the candidate starts as a first version does, in its parent's units.
    """
    linear_path = spec.architecture.linear_path
    if parent is None or spec.parent is None or parent.extra.get("architecture", sizes(spec.architecture)) != sizes(spec.architecture):
        model = build(spec.architecture)
        silence_features(model, ~training_set.inputs.fitted)
        if linear_path:
            start_at_ridge(model, data)
        return model, RIDGE if linear_path else RANDOM
    model = load_weights(Path(spec.parent))
    if linear_path:
        correct_linear_path(model, data)
    return model, parent.version


def training_data(training_set: TrainingSet) -> TrainingData:
    features, targets = scaled(training_set)
    return TrainingData(features, targets, training_set.split.train, training_set.split.validation)


def fit(model: keras.Model, started_from: str, data: TrainingData, spec: JobSpec, on_progress: Callable[[Progress], None]) -> Fit:
    """Trains the network and writes training_log.csv, a line for each epoch, into the candidate's folder."""
    settings, log_path = spec.settings, Path(spec.candidate) / TRAINING_LOG
    learning_rate = settings.learning_rate if started_from in (RIDGE, RANDOM) else settings.fine_tune_learning_rate
    began = time.monotonic()
    history = train(model, data, settings, on_progress, learning_rate=learning_rate, log_path=log_path)
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


def finish(fitted: Fit, metadata: Metadata, evaluation: Evaluation, training_set: TrainingSet, spec: JobSpec) -> None:
    """Adds how the candidate was judged, then the report, then the manifest, which makes the folder a version."""
    folder = Path(spec.candidate)
    replace(metadata, extra={**metadata.extra, "performance_metrics": evaluation.metrics["candidate"]}).write(folder)
    table, history = training_set.table, fitted.history
    write_document(
        folder / REPORT_NAME,
        {
            "version": spec.version,
            "job_id": spec.job_id,
            "reason": spec.reason,
            "started_from": fitted.started_from,
            "data": {
                "rows": len(table),
                "links": len(table.links),
                "from_s": float(table.time_s.min()),
                "until_s": float(table.time_s.max()),
                "trained_until_s": training_set.trained_until_s,
                "windows": training_set.windows,
            },
            "training": {
                "duration_s": round(fitted.duration_s, 3),
                "epochs": len(history.epochs),
                "best_epoch": history.best_epoch,
                "stopped": history.stopped,
                "start_validation_loss": finite(history.start_validation_loss),
            },
            "metrics": evaluation.metrics,
            "verdict": evaluation.verdict.to_json(),
        },
    )
    write_manifest(
        folder,
        version=spec.version,
        parent=None if spec.parent is None else Metadata.read(Path(spec.parent)).version,
        reason=spec.reason,
        created_at_s=spec.created_at_s,
        verdict=evaluation.verdict,
        libraries=libraries(),
    )
