"""The files of a version: graphs, weights, golden samples, metadata, history and curves, for a job and an offline run alike."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from features.offline import OfflineFeatures, RawTable
from features.telemetry import TARGETS, Floats, Longs
from features.vocabulary import Vocabulary
from model.spec.architecture import Architecture, sizes
from model.spec.job import TrainingSettings
from model.training.fit.loop import History
from model.training.graph.core import OPSET, describe, export_core, save_weights
from model.training.graph.prove import RawExport, export_raw, keras_forecasts
from model.training.network.bound_layers import forecast_targets, read_bounds
from model.training.network.encoders import encoder_name
from model.version.documents import write_document
from model.version.golden import write_golden
from model.version.golden_raw import raw_samples
from model.version.metadata import Metadata, history_name
from model.version.raw_windows import cut
from model.windows.bounds import MULTIPLE
from model.windows.index import gather
from model.windows.scaler import Scaler

LIBRARIES: Final = frozenset({"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy"})
GOLDEN_SAMPLES: Final = 32
GOLDEN_OUTPUT_MOST: Final = 8.0
"""Scaled forecast up to which a window may be a golden sample: the samples' tolerance is absolute, and float32 is relative."""
REAL_WINDOWS: Final = 256
"""Held-out windows on which the exported graphs are compared with Keras."""
TRAINING_LOG: Final = "training_log.csv"
TENSORBOARD: Final = "tensorboard"
EVENTS_NAME: Final = "events.out.tfevents.training"
REPORT_NAME: Final = "TRAINING_REPORT.json"
PAGE_NAME: Final = "report.html"


@dataclass(frozen=True, eq=False)
class Fit:
    """A trained network. started_from: "linear", "random" or the version of its parent. duration_s: wall time of its training."""

    model: keras.Model
    started_from: str
    history: History
    duration_s: float


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a network was trained with. scaled: float32 (N, 44), the features of the table's N rows, scaled, 0 where missing.

    trained_until_s: UTC seconds of the newest row trained on. held_out: rows at which windows end that it was not trained on.
    """

    table: RawTable
    features: OfflineFeatures
    scaled: Floats
    inputs: Scaler
    outputs: Scaler
    vocabulary: Vocabulary
    trained_until_s: float
    held_out: Longs


def write_model(folder: Path, version: str, fitted: Fit, learnt: Learnt, about: Mapping[str, Any]) -> Metadata:
    """Exports the network and writes everything that a forecast needs, and how it was trained. about: more entries of the metadata.

    Raises ExportError where a graph is not the network.
    """
    end = learnt.held_out[:REAL_WINDOWS]
    window_rows = fitted.model.input_shape[1]
    real, raw = gather(learnt.scaled, end, window_rows), cut(learnt.table, learnt.features.run, end, window_rows)
    metadata = Metadata(
        version, learnt.inputs, learnt.outputs, learnt.vocabulary, learnt.trained_until_s,
        window_rows=window_rows, measured=forecast_targets(fitted.model),
    )  # fmt: skip
    parity = export_core(fitted.model, folder, version, real)
    exported = export_raw(fitted.model, folder, metadata, raw)
    save_weights(fitted.model, folder)
    samples = raw_samples(
        raw, lambda windows: keras_forecasts(fitted.model, metadata, windows), exported.raw, exported.int8, metadata.outputs
    )  # fmt: skip
    write_golden(folder, *_golden_samples(fitted.model, real), samples)
    write_document(folder / history_name(version), history_document(fitted))
    write_tensorboard(folder / TENSORBOARD, fitted.history)
    made = {**_training(fitted), **_bounds(fitted, learnt), **_graphs(folder, parity, exported)}
    metadata = replace(metadata, encoder=encoder_name(fitted.model), graphs=exported.graphs, extra={**about, **made})
    metadata.write(folder)
    return metadata


def settings_document(settings: TrainingSettings, architecture: Architecture, gap_multiple: float, created_at_s: float) -> dict[str, Any]:
    """What the metadata say of how a training was asked for."""
    return {
        "created_at": datetime.fromtimestamp(created_at_s, UTC).isoformat(),
        "gap_multiple": gap_multiple,
        "training_config": asdict(settings),
        "architecture": sizes(architecture),
    }


def history_document(fitted: Fit) -> dict[str, Any]:
    """training_history, as JSON has it."""
    history = fitted.history
    return {
        "started_from": fitted.started_from,
        "start_validation_loss": finite(history.start_validation_loss),
        "best_epoch": history.best_epoch,
        "stopped": history.stopped,
        "epochs": [{name: finite(value) for name, value in asdict(epoch).items()} for epoch in history.epochs],
    }


def write_tensorboard(folder: Path, history: History) -> None:
    """Both losses and the learning rate of each epoch as TensorBoard's summaries; TensorBoard itself is only needed to look at them."""
    kind = tf.compat.v1.SummaryMetadata()
    kind.plugin_data.plugin_name = "scalars"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for number, epoch in enumerate(history.epochs, start=1):
            for name in ("loss", "validation_loss", "learning_rate"):
                tf.summary.write(name, np.float32(getattr(epoch, name)), step=number, metadata=kind)
    writer.close()
    (written,) = folder.iterdir()
    written.rename(folder / EVENTS_NAME)  # its own name has the host's in it


def libraries() -> dict[str, str]:
    """Name and version of what built a version, for its manifest."""
    return {item.name: item.version for item in importlib.metadata.distributions() if item.name in LIBRARIES}


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _training(fitted: Fit) -> dict[str, Any]:
    return {
        "started_from": fitted.started_from,
        "training_duration_seconds": round(fitted.duration_s, 3),
        "model_architecture": describe(fitted.model),
    }


def _bounds(fitted: Fit, learnt: Learnt) -> dict[str, Any]:
    """What its forecasts are held to, in the targets' units: see model/windows/bounds.py."""
    bounds = read_bounds(fitted.model, learnt.outputs)
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
    """Sizes of the three graphs, and how far each is from Keras: see the tolerances in graph/core.py and graph/prove.py."""
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


def _golden_samples(model: keras.Model, real: Floats) -> tuple[Floats, Floats]:
    """Windows and the network's own forecasts of them: as many real as random ones, none with an extreme forecast if any is without."""
    random = np.random.default_rng(1).normal(size=(GOLDEN_SAMPLES, *model.input_shape[1:])).astype(np.float32)
    windows = np.concatenate([real[:GOLDEN_SAMPLES], random])
    outputs = model.predict(windows, batch_size=len(windows), verbose=0)
    largest = np.abs(np.nan_to_num(outputs)).max(axis=1)  # NaN: a target that was never measured
    usual = largest < max(GOLDEN_OUTPUT_MOST, np.nextafter(largest.min(), np.float32(np.inf)))
    return windows[usual], outputs[usual]
