"""The linear path beside the network, solved in closed form: where a first version starts, and how a fine-tuning follows a drift."""

from __future__ import annotations

from typing import Final

import keras
import numpy as np

from features.definition import FEATURES
from features.telemetry import TARGETS, Flags, Floats
from model.training.fit.least_absolute import Line, blended, least_absolute
from model.training.fit.loop import VALIDATION_WINDOWS_MAX, TrainingData, evenly
from model.training.network.assembly import LINEAR_PATH, NONLINEAR_OUTPUT, initialise_linear_path
from model.training.network.linear_inputs import RATES, set_calendar, unseen_calendar
from model.windows.index import WindowIndex, gather
from model.windows.scaler import Scaler

PENALTIES: Final = (1e-4, 1e-3, 1e-2)
"""Of the way from the best average, per unit of the columns' spread. From 1e-1 on the average itself is all that is left, and it is
among the candidates anyway; under 1e-4 nothing changes."""
SHRUNK: Final = 1e-1
"""The penalty of the way from the constant forecast, for targets that hardly depend on anything."""
SOLVED_WINDOWS_MAX: Final = 16_384
"""140 for each of the 116 weights; solving them takes 1 to 2 s a target."""
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
CORRECTION_WINDOWS_MAX: Final = 4_096
"""Forecasting them takes about 3 s."""
_CHUNK_WINDOWS: Final = 4_096  # 22 MB of windows at a time
_BATCH: Final = 256


def start_linear_path(model: keras.Model, data: TrainingData, inputs: Scaler, outputs: Scaler) -> None:
    """Makes an untrained network the best linear forecast by mean absolute error. inputs, outputs: the scalers of data.

    Per target: averages of what was measured, the constant, and lines fitted on the training windows from either, with and without
    the daily profile; then the blend of these that is best on the validation windows.
    """
    set_calendar(model, inputs)
    train, validation = _thinned(data.train, SOLVED_WINDOWS_MAX), _thinned(data.validation, VALIDATION_WINDOWS_MAX)
    rows, later_rows = linear_rows(model, data, train, validation)
    wanted, later = data.targets[train.target_row], data.targets[validation.target_row]
    seen = ~unseen_calendar(rows, inputs)
    lines = [
        _line(rows, wanted[:, at], later_rows, later[:, at], average_lines(at, rows.shape[1], inputs, outputs), seen)
        for at in range(wanted.shape[1])
    ]
    kernel = np.stack([line.kernel for line in lines], axis=1).astype(np.float32)
    initialise_linear_path(model, kernel, np.array([line.bias for line in lines], np.float32))


def average_lines(target: int, width: int, inputs: Scaler, outputs: Scaler) -> list[Line]:
    """The averages of RATES as forecasts of their own target, in its scaled units; the first of them is persistence."""
    scale = float(inputs.scale[target] / outputs.scale[target])
    bias = float((inputs.mean[target] - outputs.mean[target]) / outputs.scale[target])
    kernels = np.zeros((len(RATES), width))
    for rate, kernel in enumerate(kernels):
        kernel[len(FEATURES) + target * len(RATES) + rate] = scale
    return [Line(kernel, bias) for kernel in kernels]


def _line(rows: Floats, wanted: Floats, later_rows: Floats, later: Floats, averages: list[Line], seen: Flags) -> Line:
    """The line of one target; of one that is never measured the constant 0."""
    measured, judged = np.isfinite(wanted), np.isfinite(later)
    if not measured.any():
        return Line(np.zeros(rows.shape[1]), 0.0)
    rows, wanted = rows[measured], wanted[measured].astype(np.float64)
    best = min(averages, key=lambda line: float(np.abs(line.of(rows) - wanted).mean()))
    constant = Line(np.zeros(rows.shape[1]), float(np.median(wanted)))
    timeless = np.arange(rows.shape[1]) < len(FEATURES) + len(TARGETS) * len(RATES)
    lines = [*averages, constant]
    for allowed in (timeless & seen, seen):
        lines += least_absolute(rows, wanted, best, PENALTIES, allowed)
        lines += least_absolute(rows, wanted, constant, (SHRUNK,), allowed)
    if not judged.any():  # nothing later to choose on: what is best in training, which is no worse than the averages
        later_rows, later, judged = rows, wanted, np.ones(len(wanted), np.bool_)
    return blended(lines, later_rows[judged], later[judged].astype(np.float64))


def correct_linear_path(model: keras.Model, data: TrainingData, inputs: Scaler, outputs: Scaler, fresh: Flags) -> Flags:
    """Adds to the linear path a line through what the network now gets wrong, for the targets on which that helps the validation windows.

    A drift is mostly a new level or scale, and weights in closed form follow it from a thousand windows at once. Measured on a
    planted re-route, with Ridge: error of the region .419 before, .166 after this (8 s), .297 after six epochs without it (92 s).
    inputs, outputs: the scalers of data. fresh: bool (4,), targets that the parent has never seen measured: they start as those of a
    first version do. Gives bool (4,), the targets that were corrected, the fresh ones among them.
    """
    drawn, judged = _thinned(data.train, CORRECTION_WINDOWS_MAX), _thinned(data.validation, VALIDATION_WINDOWS_MAX)
    rows, later_rows = linear_rows(model, data, drawn, judged)
    both = drawn.joined(judged)
    wanted, later = data.targets[drawn.target_row], data.targets[judged.target_row]
    wrong, later_wrong = np.split(data.targets[both.target_row] - forecast(model, data, both), [len(drawn)])
    seen = ~unseen_calendar(rows, inputs)
    layer = model.get_layer(LINEAR_PATH)
    kernel, bias = layer.get_weights()
    corrected = np.zeros(len(bias), np.bool_)
    for at in range(len(bias)):
        if fresh[at]:
            line = _line(rows, wanted[:, at], later_rows, later[:, at], average_lines(at, rows.shape[1], inputs, outputs), seen)
            kernel[:, at] = bias[at] = 0.0
        else:
            line = _correction(rows, wrong[:, at], later_rows, later_wrong[:, at], seen)
        kernel[:, at] += line.kernel
        bias[at] += line.bias
        corrected[at] = line.bias != 0.0 or bool(line.kernel.any())
    layer.set_weights([kernel, bias])
    return corrected


def _correction(rows: Floats, wrong: Floats, later_rows: Floats, later_wrong: Floats, seen: Flags) -> Line:
    """The line of one target, as much of it as helps later; nothing for a target that is not measured in both."""
    nothing = Line(np.zeros(rows.shape[1]), 0.0)
    measured, judged = np.isfinite(wrong), np.isfinite(later_wrong)
    if not measured.any() or not judged.any():
        return nothing
    lines = least_absolute(rows[measured], wrong[measured].astype(np.float64), nothing, PENALTIES, seen)
    return blended([nothing, *lines], later_rows[judged], later_wrong[judged].astype(np.float64))


def weigh_network(model: keras.Model, data: TrainingData) -> Floats:
    """Keeps of what the network adds to the linear path the share that is best on the validation windows, target by target.

    Early stopping looks at all targets together; a target that the network has learnt by heart would be carried along by the others.
    A target that the validation windows do not measure stays with the linear path. Gives float32 (4,), the shares, of SHARES.
    """
    judged = _thinned(data.validation, VALIDATION_WINDOWS_MAX)
    layer = next((layer for layer in model.layers if layer.name == NONLINEAR_OUTPUT), None)
    if layer is None:
        return np.zeros(len(TARGETS), np.float32)  # the linear path is alone
    parts = keras.layers.Concatenate()([layer.output, model.output])
    added, whole = np.split(forecast(keras.Model(model.input, parts), data, judged), 2, axis=1)
    left = data.targets[judged.target_row] - (whole - added)
    errors = np.array([np.nansum(np.abs(left - share * added), axis=0) for share in SHARES])
    shares: Floats = np.array(SHARES, np.float32)[np.argmin(errors, axis=0)]  # of equal ones the first, which is the smaller
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * shares, bias * shares])
    return shares


def linear_rows(model: keras.Model, data: TrainingData, first: WindowIndex, second: WindowIndex) -> tuple[Floats, Floats]:
    """float32 (M, K) each: what the linear path of this model reads of the windows of two indices."""
    rows = forecast(keras.Model(model.input, model.get_layer(LINEAR_PATH).input), data, first.joined(second))
    return rows[: len(first)], rows[len(first) :]


def forecast(model: keras.Model, data: TrainingData, index: WindowIndex) -> Floats:
    """float32 (M, outputs), scaled: what the model says of the windows of index."""
    parts = [index.end[start : start + _CHUNK_WINDOWS] for start in range(0, len(index), _CHUNK_WINDOWS)]
    return np.concatenate([model.predict(gather(data.features, part, data.window_rows), batch_size=_BATCH, verbose=0) for part in parts])


def _thinned(index: WindowIndex, most: int) -> WindowIndex:
    return index.take(evenly(len(index), most))
