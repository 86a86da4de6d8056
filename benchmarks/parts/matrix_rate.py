"""The machine's float32 matrix products in GFLOP/s: the upper bound of a training step, which is little else."""

from __future__ import annotations

import sys
import time
from typing import Any

import tensorflow as tf

from harness import answer, job_of

SHAPES = {"square": (2_048, 2_048, 2_048), "one_step_of_64": (64, 256, 1_024), "one_step_of_256": (256, 256, 1_024)}
"""Rows, inner, columns: a large product, and the recurrent product of one time step of the widest layer."""


def gflops(shape: tuple[int, int, int], repetitions: int) -> float:
    """Return the best of `repetitions` rounds, by wall time: other processes can only make it slower."""
    rows, inner, columns = shape
    left, right = tf.random.normal((rows, inner)), tf.random.normal((inner, columns))
    flop = 2 * rows * inner * columns
    calls = max(1, int(2e9 / flop))
    best_s = float("inf")
    for _ in range(repetitions + 1):  # the first warms up
        began_s = time.perf_counter()
        for _ in range(calls):
            product = tf.matmul(left, right)
        product.numpy()
        best_s = min(best_s, (time.perf_counter() - began_s) / calls)
    return flop / best_s / 1e9


def main(job: dict[str, Any]) -> dict[str, float]:
    if job["threads"]:
        tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    return {name: gflops(shape, job["repetitions"]) for name, shape in SHAPES.items()}


if __name__ == "__main__":
    answer(main(job_of(sys.argv)))
