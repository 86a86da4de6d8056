"""Milliseconds of a training step: the plain Keras network as it is written, or ours as model/training/fit/loop.py trains it."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from harness import answer, job_of
from model.spec.architecture import Architecture, architecture_of
from model.spec.settings import TrainingSettings
from model.training.dataset import TrainingData
from model.training.fit.loop import compile_model, next_row, shuffled_batches
from model.training.network.assembly import build
from model.training.network.fused_lstm import fused_twin
from model.windows.index import WindowIndex

ROWS = 4_096


def step_ms(contender: str, architecture: Architecture, batch: int, steps: int) -> dict[str, float]:
    """Return median wall milliseconds of a step, mean CPU milliseconds of all threads, and seconds of the first, which traces.

    A step is everything from rows in memory to new weights, including the windows.

    Args:
        contender: "plain" or "ours".
    """
    keras.utils.set_random_seed(1)
    model = build(architecture)
    if contender == "ours":
        model = fused_twin(model)
    data = _data(architecture)
    task = next_row(data, TrainingSettings(batch_size=batch), 1e-3)
    compile_model(model, task, steps)
    batches = shuffled_batches(data, task, batch, ROWS // batch // 2, seed=1)
    began_s = time.perf_counter()
    model.train_on_batch(*next(batches), return_dict=True)
    first_s = time.perf_counter() - began_s
    model.train_on_batch(*next(batches), return_dict=True)
    began_cpu_s, wall_ms = time.process_time(), []
    for _ in range(steps):
        began_s = time.perf_counter()
        float(model.train_on_batch(*next(batches), return_dict=True)["masked_mae"])
        wall_ms.append(1e3 * (time.perf_counter() - began_s))
    cpu_ms = 1e3 * (time.process_time() - began_cpu_s) / steps
    return {"ms": statistics.median(wall_ms), "cpu_ms": cpu_ms, "first_s": first_s}


def _data(architecture: Architecture) -> TrainingData:
    """Noise: the cost of a step does not depend on it."""
    random = np.random.default_rng(0)
    end = np.arange(architecture.window_rows - 1, ROWS - 1)
    features = random.normal(size=(ROWS, architecture.features)).astype(np.float32)
    targets = random.normal(size=(ROWS, architecture.targets)).astype(np.float32)
    return TrainingData(features, targets, WindowIndex(end, end + 1), WindowIndex(end, end + 1))


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Print the figures of each batch size in the order of the job."""
    if job["threads"]:
        tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    return {str(batch): step_ms(job["contender"], architecture_of(job["sizes"]), batch, job["steps"]) for batch in job["batches"]}


if __name__ == "__main__":
    answer(main(job_of(sys.argv)))
