"""A published version with an untrained network, by default of the real size.

The cost of a forecast does not depend on the weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np

from features.definition import FEATURES
from features.vocabulary import Vocabulary
from harness import answer, job_of
from model.registry.versions import Registry
from model.spec.architecture import Architecture, architecture_of
from model.spec.job import plain
from model.version.golden import CoreSamples, write_golden
from model.version.golden_raw import raw_samples
from model.version.manifest import write_manifest
from model.version.metadata import Metadata, core_name
from model.version.predictor import core_session, run_core
from model.version.raw_windows import features_of
from model.windows.scaler import Scaler
from parts.windows import simulated_windows

VERSION: Final = "v20260101_000000"
SMALL: Final = {"lstm_units": [16, 12], "lstm_dropout": [0, 0], "dense_units": [8], "dense_dropout": [0], "head_units": 8}
"""An architecture for benchmarks about files and faults, not about forecasts."""
_MEAN: Final = (350.0, 40.0, 0.004, 4.0)
_SCALE: Final = (250.0, 30.0, 0.004, 4.0)


def publish(root: Path, architecture: Architecture, rows: int = 120) -> str:
    """Publish a live version in the new registry `root`, and return its name. rows: minutes of telemetry for its scales."""
    from model.training.graph.core import export_core
    from model.training.graph.prove import export_raw, keras_forecasts
    from model.training.network.assembly import build

    registry = Registry(root)
    registry.recover()
    folder = registry.candidate_folder(VERSION)
    folder.mkdir()
    samples = np.random.default_rng(0).normal(size=(32, architecture.window_rows, architecture.features)).astype(np.float32)
    model = build(architecture)
    export_core(model, folder, VERSION, samples)
    windows = simulated_windows(256, rows)
    inputs = Scaler.fit(features_of(windows, Vocabulary.empty()).reshape(-1, len(FEATURES)))
    outputs = Scaler(np.array(_MEAN, np.float32), np.array(_SCALE, np.float32), np.ones(4, np.bool_))
    metadata = Metadata(
        VERSION, inputs, outputs, Vocabulary.empty(), trained_until_s=None, extra={"architecture": plain(architecture)}
    )  # fmt: skip
    metadata.write(folder)
    exported = export_raw(model, folder, metadata, windows)
    raw = raw_samples(windows, lambda part: keras_forecasts(model, metadata, part), exported.raw, exported.int8, outputs)
    outputs_of_core = run_core(core_session((folder / core_name(VERSION)).read_bytes()), samples)
    write_golden(folder, CoreSamples(samples, outputs_of_core), raw)
    write_manifest(folder, version=VERSION, parent=None, reason="benchmark", created_at_s=0.0, verdict=None, libraries={})
    registry.publish(folder, VERSION)
    return VERSION


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer({"version": publish(Path(job["models"]), architecture_of(job.get("architecture", {})), job.get("rows", 120))})
