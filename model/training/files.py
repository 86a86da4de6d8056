"""Files of a version: graphs, weights, golden samples, metadata, history, curves and reports, the same for a job and an offline run."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from features.telemetry import TARGETS, Floats
from model.spec.architecture import Architecture
from model.spec.job import JobSpec, TrainingSpec, plain
from model.spec.run import RunSpec
from model.training.dataset import Dataset
from model.training.fit.start import Fit
from model.training.graph.core import OPSET, describe, export_core, save_weights
from model.training.graph.prove import RawExport, export_raw, keras_forecasts
from model.training.network.bound_layers import forecast_targets, read_bounds
from model.training.network.called import called
from model.training.network.encoders import encoder_name
from model.version.documents import write_document
from model.version.golden import CoreSamples, write_golden
from model.version.golden_raw import raw_samples
from model.version.metadata import Metadata, history_name
from model.version.raw_windows import cut
from model.windows.bounds import MULTIPLE

LIBRARIES: Final = frozenset({"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy"})
GOLDEN_SAMPLES: Final = 32
GOLDEN_OUTPUT_MOST: Final = 8.0
"""Largest scaled forecast of a golden sample: the tolerance of samples is absolute, float32 rounding is relative."""
REAL_WINDOWS: Final = 256
"""Held-out windows on which the exported graphs are compared with Keras."""
TRAINING_LOG: Final = "training_log.csv"
TENSORBOARD: Final = "tensorboard"
EVENTS_NAME: Final = "events.out.tfevents.training"
REPORT_NAME: Final = "TRAINING_REPORT.json"
PAGE_NAME: Final = "report.html"


def write_model(folder: Path, spec: JobSpec | RunSpec, fitted: Fit, dataset: Dataset) -> Metadata:
    """Export the network, and write everything that a forecast needs and how it was trained.

    Raises:
        ExportError: A graph does not forecast what the network does.
    """
    version, judged = spec.version, dataset.judged.select(np.arange(min(REAL_WINDOWS, len(dataset.judged))))
    window_rows = dataset.data.window_rows
    real, ahead, end = dataset.data.windows(judged), spec.architecture.ahead, judged.end
    context = dataset.data.context if ahead.horizons else None
    raw = cut(dataset.table, dataset.features.run, end, window_rows, context, short=bool(ahead.horizons))
    metadata = Metadata(
        version, dataset.inputs, dataset.outputs, dataset.vocabulary, dataset.trained_until_s,
        window_rows=window_rows, measured=forecast_targets(fitted.model),
        horizons=ahead.horizons, coverage=ahead.coverage if ahead.horizons else None,
    )  # fmt: skip
    parity = export_core(fitted.model, folder, version, real, None if context is None else context[end])
    exported = export_raw(fitted.model, folder, metadata, raw)
    save_weights(fitted.model, folder)
    samples = raw_samples(
        raw, lambda windows: keras_forecasts(fitted.model, metadata, windows), exported.raw, exported.int8, metadata.outputs
    )  # fmt: skip
    write_golden(folder, _golden_samples(fitted.model, real, None if context is None else context[end]), samples)
    write_document(folder / history_name(version), history_document(fitted))
    write_tensorboard(folder / TENSORBOARD, fitted)
    horizon = {"horizon_rows": spec.horizon_rows} if isinstance(spec, RunSpec) else {}
    asked = {**settings_document(spec, fitted.architecture), "reason": spec.reason, **horizon}
    made = {**_training(fitted), **_bounds(fitted, dataset), **_graphs(folder, parity, exported)}
    metadata = replace(metadata, encoder=encoder_name(fitted.model), graphs=exported.graphs, extra={**asked, **made})
    metadata.write(folder)
    return metadata


def settings_document(spec: TrainingSpec, architecture: Architecture) -> dict[str, Any]:
    """Return the settings of a training for metadata and report. architecture: of what was made."""
    return {
        "created_at": datetime.fromtimestamp(spec.created_at_s, UTC).isoformat(),
        "gap_multiple": spec.gap_multiple,
        "training_config": plain(spec.settings),
        "architecture": plain(architecture),
    }


def history_document(fitted: Fit) -> dict[str, Any]:
    """Return training_history, as JSON has it: the course of the training, and as "ahead" that of the network of several horizons."""
    ahead = {} if fitted.ahead is None else {"ahead": plain(fitted.ahead)}
    return {"started_from": fitted.started_from, **plain(fitted.history), **ahead}


def write_tensorboard(folder: Path, fitted: Fit) -> None:
    """Write both losses and the learning rate of each epoch as TensorBoard's summaries. TensorBoard is only needed to view them.

    Those of the network of several horizons have names that begin with "ahead_".
    """
    kind = tf.compat.v1.SummaryMetadata()
    kind.plugin_data.plugin_name = "scalars"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for prefix, history in (("", fitted.history), ("ahead_", fitted.ahead)):
            for number, epoch in enumerate(() if history is None else history.epochs, start=1):
                for name in ("loss", "validation_loss", "learning_rate"):
                    tf.summary.write(f"{prefix}{name}", np.float32(getattr(epoch, name)), step=number, metadata=kind)
    writer.close()
    (written,) = folder.iterdir()
    written.rename(folder / EVENTS_NAME)  # its own name has the host's in it


def libraries() -> dict[str, str]:
    """Return name and version of each library that built a version, for its manifest."""
    return {item.name: item.version for item in importlib.metadata.distributions() if item.name in LIBRARIES}


def _training(fitted: Fit) -> dict[str, Any]:
    return {
        "started_from": fitted.started_from,
        "training_duration_seconds": round(fitted.duration_s, 3),
        "model_architecture": describe(fitted.model),
    }


def _bounds(fitted: Fit, dataset: Dataset) -> dict[str, Any]:
    """Return the limits of its forecasts, in the targets' units: see model/windows/bounds.py."""
    bounds = read_bounds(fitted.model, dataset.outputs)
    if bounds is None:
        return {}
    return {
        "forecast_bounds": {
            "multiple": MULTIPLE,
            "slack": dict(zip(TARGETS, bounds.slack.tolist(), strict=True)),
            "unshown": dict(zip(TARGETS, bounds.unshown.tolist(), strict=True)),
        }
    }


def _graphs(folder: Path, parity: float, exported: RawExport) -> dict[str, Any]:
    """Return the sizes of the three graphs and their differences to Keras. The tolerances are in model/training/graph."""
    size_mb = {kind: round((folder / graph.file).stat().st_size / 1e6, 3) for kind, graph in exported.graphs.items()}
    return {
        "opset": OPSET,
        "model_size_mb": size_mb["core"],
        "graph_size_mb": size_mb,
        "keras_onnx_difference": parity,
        "keras_raw_difference": exported.raw_difference,
        "keras_int8_difference_mean": exported.int8_difference_mean,
        "keras_int8_difference_max": exported.int8_difference_max,
    }


def _golden_samples(model: keras.Model, real: Floats, context: Floats | None) -> CoreSamples:
    """Return windows and the network's forecasts of them: as many real as random ones, without extreme forecasts if that leaves any."""
    random = np.random.default_rng(1).normal(size=(GOLDEN_SAMPLES, *real.shape[1:])).astype(np.float32)
    windows = np.concatenate([real[:GOLDEN_SAMPLES], random])
    if context is None:
        outputs, ahead = called(model, windows), None
    else:
        unknown = np.full((GOLDEN_SAMPLES, context.shape[1]), np.nan, np.float32)
        context = np.concatenate([context[:GOLDEN_SAMPLES], unknown])
        outputs, ahead = called(model, [windows, context])
    largest = np.abs(np.nan_to_num(outputs)).max(axis=1)  # NaN: a target that was never measured
    if ahead is not None:
        largest = np.maximum(largest, np.abs(np.nan_to_num(ahead)).max(axis=(1, 2, 3)))
    usual = largest < max(GOLDEN_OUTPUT_MOST, np.nextafter(largest.min(), np.float32(np.inf)))
    return CoreSamples(
        windows[usual], outputs[usual], None if context is None else context[usual], None if ahead is None else ahead[usual]
    )  # fmt: skip
