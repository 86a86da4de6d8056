"""Forecasts of a network by calling it. `keras.Model.predict` first compiles each network that it is given, which takes longer than most
calls here: a training asks a dozen networks, each for a few thousand windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    starts = range(0, max(1, len(arrays[0])), BATCH_WINDOWS)
    return called_in_parts(model, ([array[start : start + BATCH_WINDOWS] for array in arrays] for start in starts))


def called_in_parts(model: keras.Model, parts: Iterable[Sequence[Floats]]) -> Any:
    """Return what `called` does, for windows that come in parts: only those of one part have to exist at a time.

    Args:
        parts: At least one. Of each the inputs of the network, float32 (B, ...), B at most BATCH_WINDOWS.
    """
    several = len(model.outputs) > 1
    found: list[Any] = []
    for part in parts:
        outputs = model(part[0] if len(part) == 1 else list(part), training=False)
        found.append([np.asarray(output) for output in (outputs if several else [outputs])])
    joined = [np.concatenate(each) for each in zip(*found, strict=True)]
    return joined if several else joined[0]
