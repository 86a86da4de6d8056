"""Builds a candidate version: a network started at its linear path or its parent's weights, trained, exported, described in its folder."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from features.telemetry import Floats
from model.dataset import gather
from model.documents import write_document
from model.evaluation import Evaluation
from model.export import OPSET, describe, export_core, load_weights, save_weights
from model.golden import write_golden
from model.job_spec import JobSpec, TrainingSettings
from model.linear_inputs import set_calendar
from model.linear_path import correct_linear_path, start_linear_path, weigh_network
from model.manifest import write_manifest
from model.metadata import Metadata, core_name
from model.network import build, silence_features
from model.training import History, Progress, TrainingData, train
from model.training_set import TrainingSet, scaled

LIBRARIES: Final = frozenset({"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy"})
GOLDEN_SAMPLES: Final = 32
GOLDEN_OUTPUT_MOST: Final = 8.0
"""Scaled forecast up to which a window may be a golden sample: the samples' tolerance is absolute, and float32 is relative."""
REAL_WINDOWS: Final = 256
"""Windows of the gate on which the exported graph is compared with Keras."""
LINEAR: Final = "linear"
RANDOM: Final = "random"
TRAINING_LOG: Final = "training_log.csv"


@dataclass(frozen=True, eq=False)
class Fit:
    """A trained network. started_from: as `start` says it. duration_s: wall time of its training."""

    model: keras.Model
    started_from: str
    history: History
    duration_s: float


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
    if parent is None or spec.parent is None or parent.extra.get("architecture", sizes(spec)) != sizes(spec):
        model = build(spec.architecture)
        silence_features(model, ~training_set.inputs.fitted)
        if linear_path:
            start_linear_path(model, data, training_set.inputs, training_set.outputs)
        return model, LINEAR if linear_path else RANDOM
    model = load_weights(Path(spec.parent))
    if linear_path:
        set_calendar(model, training_set.inputs)  # a column that the parent has never seen vary has a scale only now
        correct_linear_path(model, data)
    return model, parent.version


def training_data(training_set: TrainingSet) -> TrainingData:
    features, targets = scaled(training_set)
    return TrainingData(features, targets, training_set.split.train, training_set.split.validation)


def fit(model: keras.Model, started_from: str, data: TrainingData, spec: JobSpec, on_progress: Callable[[Progress], None]) -> Fit:
    """Trains the network and writes training_log.csv, a line for each epoch, into the candidate's folder."""
    settings, log_path = spec.settings, Path(spec.candidate) / TRAINING_LOG
    learning_rate = settings.learning_rate if started_from in (LINEAR, RANDOM) else settings.fine_tune_learning_rate
    began = time.monotonic()
    history = train(model, data, settings, on_progress, learning_rate=learning_rate, log_path=log_path)
    if spec.architecture.linear_path:
        weigh_network(model, data)
    return Fit(model, started_from, history, time.monotonic() - began)


def write_version(fitted: Fit, data: TrainingData, training_set: TrainingSet, spec: JobSpec) -> Metadata:
    """Exports the network and writes everything that a forecast needs: core graph, weights, golden samples, metadata, history.

    Raises ExportError where the graph is not the network.
    """
    folder = Path(spec.candidate)
    real = gather(data.features, training_set.split.gate.end[:REAL_WINDOWS])
    parity = export_core(fitted.model, folder, spec.version, real)
    save_weights(fitted.model, folder)
    write_golden(folder, *_golden_samples(fitted.model, real))
    write_document(folder / f"training_history_{spec.version}.json", _history_document(fitted))
    metadata = Metadata(
        version=spec.version,
        inputs=training_set.inputs,
        outputs=training_set.outputs,
        vocabulary=training_set.vocabulary,
        trained_until_s=training_set.trained_until_s,
        extra={
            "created_at": datetime.fromtimestamp(spec.created_at_s, UTC).isoformat(),
            "reason": spec.reason,
            "started_from": fitted.started_from,
            "training_duration_seconds": round(fitted.duration_s, 3),
            "model_size_mb": round((folder / core_name(spec.version)).stat().st_size / 1e6, 3),
            "opset": OPSET,
            "keras_onnx_difference": parity,
            "gap_multiple": spec.gap_multiple,
            "training_config": asdict(spec.settings),
            "architecture": sizes(spec),
            "model_architecture": describe(fitted.model),
        },
    )
    metadata.write(folder)
    return metadata


def finish(fitted: Fit, metadata: Metadata, evaluation: Evaluation, training_set: TrainingSet, spec: JobSpec) -> None:
    """Adds how the candidate was judged, then the report, then the manifest, which makes the folder a version."""
    folder = Path(spec.candidate)
    replace(metadata, extra={**metadata.extra, "performance_metrics": evaluation.metrics["candidate"]}).write(folder)
    table, history = training_set.table, fitted.history
    write_document(
        folder / "TRAINING_REPORT.json",
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
        libraries=_libraries(),
    )


def sizes(spec: JobSpec) -> dict[str, Any]:
    """The architecture as it comes back from JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec.architecture).items()}


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _golden_samples(model: keras.Model, real: Floats) -> tuple[Floats, Floats]:
    """Windows and the network's own forecasts of them: as many real as random ones, none with an extreme forecast."""
    random = np.random.default_rng(1).normal(size=(GOLDEN_SAMPLES, *model.input_shape[1:])).astype(np.float32)
    windows = np.concatenate([real[:GOLDEN_SAMPLES], random])
    outputs = model.predict(windows, batch_size=len(windows), verbose=0)
    usual = np.abs(outputs).max(axis=1) < GOLDEN_OUTPUT_MOST
    return windows[usual], outputs[usual]


def _history_document(fitted: Fit) -> dict[str, Any]:
    history = fitted.history
    epochs = [{name: finite(value) for name, value in asdict(epoch).items()} for epoch in history.epochs]
    return {
        "started_from": fitted.started_from,
        "start_validation_loss": finite(history.start_validation_loss),
        "best_epoch": history.best_epoch,
        "stopped": history.stopped,
        "epochs": epochs,
    }


def _libraries() -> dict[str, str]:
    return {item.name: item.version for item in importlib.metadata.distributions() if item.name in LIBRARIES}
