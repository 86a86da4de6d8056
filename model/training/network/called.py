"""Forecasts of a network by calling it. `keras.Model.predict` first compiles each network that it is given, which takes longer than most
calls here: a training asks a dozen networks, each for a few thousand windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import keras
import numpy as np

from features.telemetry import Floats

BATCH_WINDOWS: Final = 1_024
"""Windows of one call: enough that its operators cost more than calling them, and few enough for the cache."""


def called(model: keras.Model, inputs: Floats | Sequence[Floats]) -> Any:
    """Return what a network forecasts for M windows, without dropout: float32 (M, ...), or a list of these if it has several outputs.

    Args:
        model: With one input, or as many as are given.
        inputs: float32 (M, ...), or one for each input.
    """
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    found: list[list[Floats]] = []
    for start in range(0, max(1, len(arrays[0])), BATCH_WINDOWS):
        part = [array[start : start + BATCH_WINDOWS] for array in arrays]
        outputs = model(part[0] if len(part) == 1 else part, training=False)
        found.append([np.asarray(output) for output in (outputs if isinstance(outputs, list | tuple) else [outputs])])
    joined = [np.concatenate(each) for each in zip(*found, strict=True)]
    return joined if len(model.outputs) > 1 else joined[0]
