"""The graphs of a version and their rivals, timed in turns in one process on one thread."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.offline import compute
from harness import answer, job_of
from model.spec.architecture import Ahead, Architecture, Relative, architecture_of
from model.version.metadata import Metadata, core_name, int8_name, raw_name
from model.version.predictor import core_session, raw_session, read_graph
from model.version.raw_windows import RawWindows, features_of
from model.windows.scaler import Scaler
from parts.windows import measured_windows

VERSION: Final = "v20260101_000000"
BATCH: Final = 64
WINDOWS: Final = 256
WARM_UP: Final = 5
HORIZONS: Final = {"default_raw": Relative(), "default_raw_next_row": Relative(ahead=Ahead(horizons=(1,)))}
"""The default architecture with its five horizons, and with one."""
SLOWER: Final = {"direct_export": 5, "keras_call": 60, "keras_predict": 60}
"""Divisor of a rival's calls, which would otherwise take most of the run."""


@dataclass(frozen=True, eq=False, slots=True)
class Built:
    """A version's folder, the runs by name (each by the number of a window, or of a batch of 64), and the differences of the graphs."""

    one: dict[str, Callable[[int], Any]]
    many: dict[str, Callable[[int], Any]]
    sizes: dict[str, int]
    parity: dict[str, float]
    source: str


def build_all(folder: Path, architecture: Architecture) -> Built:
    """Export an untrained network as it is published, and directly."""
    from model.training.graph.core import export_core
    from model.training.graph.prove import export_raw

    model = _untrained(architecture)
    source, table, vocabulary, windows = measured_windows(WINDOWS)
    inputs, outputs = Scaler.fit(compute(table, vocabulary).features), Scaler.fit(table.numeric[:, :4])
    metadata = Metadata(VERSION, inputs, outputs, vocabulary)
    scaled = inputs.transform(features_of(windows, vocabulary))
    core = export_core(model, folder, VERSION, scaled)
    raw = export_raw(model, folder, metadata, windows)
    files = {"core": core_name(VERSION), "raw": raw_name(VERSION), "int8": int8_name(VERSION)}
    scaled_runs: dict[str, Callable[[Any], Any]] = {
        "core": _runner(core_session(read_graph(folder / files["core"]))),
        "direct_export": _runner(_direct_export(model)),
        "keras_call": lambda batch: model(batch, training=False),
        "keras_predict": lambda batch: model.predict(batch, batch_size=BATCH, verbose=0),
    }
    raw_runs = {name: _raw_runner(raw_session(read_graph(folder / files[name]))) for name in ("raw", "int8")}
    for name, other in HORIZONS.items():
        raw_runs[name] = _raw_runner(_ahead_session(folder / name, other, metadata, scaled, windows))
    parity = {
        "core_largest": core,
        "raw_largest": raw.raw_difference,
        "int8_mean": raw.int8_difference_mean,
        "int8_largest": raw.int8_difference_max,
    }
    return Built(
        one=_over(scaled_runs, raw_runs, scaled, windows, 1),
        many=_over(scaled_runs, raw_runs, scaled, windows, BATCH),
        sizes={name: (folder / file).stat().st_size for name, file in files.items()},
        parity=parity,
        source=source,
    )


def _ahead_session(folder: Path, architecture: Architecture, metadata: Metadata, scaled: Any, windows: RawWindows) -> Any:
    """Return a session of the raw graph of an untrained network of several horizons, whose context is not known."""
    from model.training.graph.core import export_core
    from model.training.graph.prove import export_raw
    from model.training.network.relative import fit_columns, set_units

    folder.mkdir()
    model = _untrained(architecture)
    set_units(model, metadata.inputs, metadata.outputs)
    width = int(model.inputs[1].shape[-1])
    fit_columns(model, np.random.default_rng(1).normal(size=(64, int(model.get_layer("columns").input.shape[-1]))).astype(np.float32))
    export_core(model, folder, VERSION, scaled, np.full((len(scaled), width), np.nan, np.float32))
    declared = export_raw(model, folder, metadata, windows).graphs["raw"]
    return raw_session(read_graph(folder / declared.file), declared=declared)


def _runner(session: Any) -> Callable[[Any], Any]:
    return lambda batch: session.run(None, {"input": batch})


def _raw_runner(session: Any) -> Callable[[RawWindows], Any]:
    return lambda windows: session.run(None, windows.feed())


def _untrained(architecture: Architecture) -> Any:
    """Return a network without a zero weight: the linear path begins with zeros, and a forecast of zeros agrees with anything."""
    import keras

    from model.training.network.assembly import build

    keras.utils.set_random_seed(1)
    model = build(architecture)
    rng = np.random.default_rng(1)
    model.set_weights([weight + 0.02 * rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def _direct_export(model: Any) -> Any:
    """Return a session of the training network's own graph, with recurrent dropout."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    from model.training.graph.core import OPSET

    signature = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="input"),)
    direct, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=OPSET)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(direct.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _over(
    scaled_runs: dict[str, Callable[[Any], Any]], raw_runs: dict[str, Any], scaled: Any, windows: RawWindows, size: int
) -> dict[str, Callable[[int], Any]]:
    """Each run as a function of a number. Its batch of `size` windows is cut beforehand."""
    starts = range(0, len(windows) - size + 1, size)
    batches = [np.ascontiguousarray(scaled[at : at + size]) for at in starts]
    raw_batches = [windows.take(slice(at, at + size)) for at in starts]

    def bound(run: Callable[[Any], Any], cuts: list[Any]) -> Callable[[int], Any]:
        return lambda number: run(cuts[number % len(cuts)])

    runs = {name: bound(run, batches) for name, run in scaled_runs.items()}
    return runs | {name: bound(run, raw_batches) for name, run in raw_runs.items()}


def time_calls(run: Callable[[int], Any], calls: int, first: int) -> tuple[list[float], float]:
    """Return wall seconds of each call, and CPU seconds of all of them, after the caches are warm."""
    for number in range(min(WARM_UP, calls)):
        run(first + number)
    seconds = []
    began_cpu_s = time.process_time()
    for number in range(calls):
        began_s = time.perf_counter()
        run(first + number)
        seconds.append(time.perf_counter() - began_s)
    return seconds, time.process_time() - began_cpu_s


def measure(built: Built, rounds: int, calls: int, batches: int) -> dict[str, Any]:
    """Return by run and round p50 and p99 in ms at batch 1, and windows per CPU second at batch 64."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"p50_ms": [], "p99_ms": [], "windows_per_cpu_s": [], "cpu_ms_at_64": []} for name in built.one
    }
    for number in range(rounds):
        for name, values in found.items():
            count = max(3, calls // SLOWER.get(name, 1))
            seconds, _ = time_calls(built.one[name], count, number * count)
            values["p50_ms"].append(1e3 * float(np.median(seconds)))
            values["p99_ms"].append(1e3 * float(np.percentile(seconds, 99)))
        for name, values in found.items():
            count = 1 if name in SLOWER else batches
            _, cpu_s = time_calls(built.many[name], count, number)
            values["windows_per_cpu_s"].append(BATCH * count / cpu_s)
            values["cpu_ms_at_64"].append(1e3 * cpu_s / count)
    return {"runs": found, "sizes": built.sizes, "parity": built.parity, "windows_from": built.source}


def run(job: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    architecture = architecture_of(job.get("architecture", {}))
    with tempfile.TemporaryDirectory(prefix="dwcp-inference-") as name:
        return measure(build_all(Path(name), architecture), job["rounds"], job["calls"], job["batches"])


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
