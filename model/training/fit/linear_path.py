"""Linear path beside the network, solved in closed form: the start of a first version, and how a fine-tuning follows a drift."""

from __future__ import annotations

from typing import Final

import keras
import numpy as np

from features.definition import FEATURES
from features.telemetry import TARGETS, Flags, Floats
from model.training.dataset import TrainingData
from model.training.fit.least_absolute import Line, blended, least_absolute
from model.training.fit.loop import VALIDATION_WINDOWS_MAX, evenly
from model.training.network.assembly import LINEAR_PATH, NONLINEAR_OUTPUT, initialise_linear_path
from model.training.network.called import BATCH_WINDOWS, called_in_parts
from model.training.network.linear_inputs import RATES, set_calendar, unseen_calendar
from model.windows.index import WindowIndex
from model.windows.scaler import Scaler

PENALTIES: Final = (1e-4, 1e-3, 1e-2)
"""Penalties of the distance from the best average, per unit of the columns' spread. From 1e-1 on only the average is left, which is a
candidate anyway; under 1e-4 nothing changes."""
SHRUNK: Final = 1e-1
"""Penalty of the distance from the constant forecast, for targets that hardly depend on anything."""
SOLVED_WINDOWS_MAX: Final = 16_384
"""Windows that a line is fitted on: 140 for each of the 116 weights. Solving takes 1 to 2 s a target."""
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the network's addition to its linear path that are tried."""
CORRECTION_WINDOWS_MAX: Final = 4_096
"""Windows that a correction is fitted on: forecasting them takes about 3 s."""


def start_linear_path(model: keras.Model, data: TrainingData, inputs: Scaler, outputs: Scaler) -> None:
    """Make an untrained network the best linear forecast by mean absolute error.

    The candidates of each target are the averages of its own values, the constant, and lines fitted on the training windows from either,
    with and without the daily profile. The blend of these that is best on the validation windows is used.

    Args:
        inputs: Scaler of the data's features.
        outputs: Scaler of the data's targets.
    """
    set_calendar(model, inputs)
    train, validation = _thinned(data.train, SOLVED_WINDOWS_MAX), _thinned(data.validation, VALIDATION_WINDOWS_MAX)
    rows, later_rows = linear_rows(model, data, train, validation)
    wanted, later = data.targets[train.target_row], data.targets[validation.target_row]
    seen = ~unseen_calendar(rows, inputs)
    lines = [
        _line(rows, wanted[:, target], later_rows, later[:, target], average_lines(name, rows.shape[1], inputs, outputs), seen)
        for target, name in enumerate(TARGETS)
    ]
    kernel = np.stack([line.kernel for line in lines], axis=1).astype(np.float32)
    initialise_linear_path(model, kernel, np.array([line.bias for line in lines], np.float32))


def average_lines(name: str, width: int, inputs: Scaler, outputs: Scaler) -> list[Line]:
    """Return the averages of RATES as forecasts of the target `name`, in its scaled units. The first is persistence.

    Args:
        width: K, columns that the linear path reads.
    """
    feature, target = FEATURES.index(name), TARGETS.index(name)
    scale = float(inputs.scale[feature] / outputs.scale[target])
    bias = float((inputs.mean[feature] - outputs.mean[target]) / outputs.scale[target])
    kernels = np.zeros((len(RATES), width))
    for rate, kernel in enumerate(kernels):
        kernel[len(FEATURES) + target * len(RATES) + rate] = scale
    return [Line(kernel, bias) for kernel in kernels]


def _line(rows: Floats, wanted: Floats, later_rows: Floats, later: Floats, averages: list[Line], seen: Flags) -> Line:
    """Return the line of one target; the constant 0 if it is never measured."""
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
    if not judged.any():  # nothing later to choose on: the best in training is not worse than the averages
        later_rows, later, judged = rows, wanted, np.ones(len(wanted), np.bool_)
    return blended(lines, later_rows[judged], later[judged].astype(np.float64))


def correct_linear_path(model: keras.Model, data: TrainingData, inputs: Scaler, outputs: Scaler, fresh: Flags) -> Flags:
    """Add to the linear path a line through the network's errors, for each target whose validation windows it helps.

    A drift is mostly a new level or scale. Weights in closed form learn it from a thousand windows at once. Measured on a planted
    re-route, with Ridge: error of the region .419 before, .166 after this correction (8 s), .297 after six epochs without it (92 s).

    Args:
        inputs: Scaler of the data's features.
        outputs: Scaler of the data's targets.
        fresh: bool (4,), targets that the parent has never seen measured. They start as those of a first version do.

    Returns:
        bool (4,), the targets that were corrected, the fresh ones included.
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
    for target, name in enumerate(TARGETS):
        if fresh[target]:
            averages = average_lines(name, rows.shape[1], inputs, outputs)
            line = _line(rows, wanted[:, target], later_rows, later[:, target], averages, seen)
            kernel[:, target] = bias[target] = 0.0
        else:
            line = _correction(rows, wrong[:, target], later_rows, later_wrong[:, target], seen)
        kernel[:, target] += line.kernel
        bias[target] += line.bias
        corrected[target] = line.bias != 0.0 or bool(line.kernel.any())
    layer.set_weights([kernel, bias])
    return corrected


def _correction(rows: Floats, wrong: Floats, later_rows: Floats, later_wrong: Floats, seen: Flags) -> Line:
    """Return the line of one target, with the weight that is best on the later rows; the constant 0 if one of the two has no values."""
    nothing = Line(np.zeros(rows.shape[1]), 0.0)
    measured, judged = np.isfinite(wrong), np.isfinite(later_wrong)
    if not measured.any() or not judged.any():
        return nothing
    lines = least_absolute(rows[measured], wrong[measured].astype(np.float64), nothing, PENALTIES, seen)
    return blended([nothing, *lines], later_rows[judged], later_wrong[judged].astype(np.float64))


def weigh_network(model: keras.Model, data: TrainingData) -> Floats:
    """Keep, target by target, the share of the network's addition to its linear path that is best on the validation windows.

    Early stopping looks at all targets together, so a target that the network overfits would be kept for the sake of the others.
    A target that the validation windows do not measure stays with the linear path.

    Returns:
        float32 (4,), the shares, of SHARES.
    """
    judged = _thinned(data.validation, VALIDATION_WINDOWS_MAX)
    layer = next((layer for layer in model.layers if layer.name == NONLINEAR_OUTPUT), None)
    if layer is None:
        return np.zeros(len(TARGETS), np.float32)  # the linear path is alone
    parts = keras.layers.Concatenate()([layer.output, model.output])
    added, whole = np.split(forecast(keras.Model(model.inputs[0], parts), data, judged), 2, axis=1)
    left = data.targets[judged.target_row] - (whole - added)
    errors = np.array([np.nansum(np.abs(left - share * added), axis=0) for share in SHARES])
    shares: Floats = np.array(SHARES, np.float32)[np.argmin(errors, axis=0)]  # of equal ones the first, which is the smaller
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * shares, bias * shares])
    return shares


def linear_rows(model: keras.Model, data: TrainingData, first: WindowIndex, second: WindowIndex) -> tuple[Floats, Floats]:
    """Return float32 (M, K) for each of two indices: what the model's linear path reads of their windows."""
    rows = forecast(keras.Model(model.inputs[0], model.get_layer(LINEAR_PATH).input), data, first.joined(second))
    return rows[: len(first)], rows[len(first) :]


def forecast(model: keras.Model, data: TrainingData, index: WindowIndex) -> Floats:
    """Return float32 (M, 4), scaled: the model's forecasts for the M windows of index."""
    forecasts: Floats = called_in_parts(model, ([data.windows(part)] for part in index.parts(BATCH_WINDOWS)))
    return forecasts


def _thinned(index: WindowIndex, most: int) -> WindowIndex:
    return index.select(evenly(len(index), most))
