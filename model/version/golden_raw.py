"""Raw samples of golden.json: telemetry windows of every kind that a stream has, and the forecasts that each graph must return for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.definition import HISTORY_ROWS, WINDOW_ROWS
from features.memory import CONTEXT_ROWS
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Doubles, Flags, Floats
from model.version.contract import PLACES
from model.version.golden_kinds import varied
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows
from model.windows.scaler import Scaler

SAMPLES_MIN: Final = 32
SAMPLES_MAX: Final = 256
TEXT_CHARS_MAX: Final = 256
"""Longest name of a sample and longest category, in characters: the limit of a record's category."""
TOLERANCE: Final = 1e-4
RELATIVE: Final = 1e-5
"""Tolerance as a share of a target's standard deviation, and of the forecast: that of an extreme window is far outside the usual range."""
INT8_TOLERANCE: Final = 0.2
INT8_RELATIVE: Final = 0.01
"""Tolerance of the quantised graph: ten times its accepted mean difference, since a single window may be further off than the mean."""
OPEN: Final = ("extreme", "constant", "zeros")
"""Kinds of windows whose spread is nothing but rounding, or whose numbers leave float32 no digits: they may be left out."""
_ROUNDING: Final = 1.0 + 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class RawSamples:
    """S windows with a name each, and the expected forecasts.

    forecasts: float32 (S, 4), units of the targets, NaN for a target that is not forecast.
    ahead: float32 (S, H, 4, 4), forecasts of all horizons; None: of a version that forecasts only the next row.
    int8: bool (S,), which of them the quantised graph has to forecast too.
    tolerance, int8_tolerance: float64 (4,), units of the targets. relative, int8_relative: shares of a forecast.
    """

    names: tuple[str, ...]
    windows: RawWindows
    forecasts: Floats
    int8: Flags
    tolerance: Doubles
    relative: float
    int8_tolerance: Doubles
    int8_relative: float
    ahead: Floats | None = None

    def to_json(self) -> dict[str, Any]:
        telemetry = self.windows.telemetry.astype(object)
        telemetry[np.isnan(self.windows.telemetry)] = None
        categories = self.windows.categories.copy()
        categories[categories == ""] = None
        return {
            "tolerance": {"absolute": self.tolerance.tolist(), "relative": self.relative},
            "int8_tolerance": {"absolute": self.int8_tolerance.tolist(), "relative": self.int8_relative},
            "samples": [
                {
                    "name": name,
                    "time_s": with_nulls(self.windows.time_s[index]),
                    "telemetry": telemetry[index].tolist(),
                    "categories": categories[index].tolist(),
                    "forecast": with_nulls(self.forecasts[index]),
                    "int8": bool(self.int8[index]),
                    **({} if self.windows.context is None else {"context": with_nulls(self.windows.context[index])}),
                    **({} if self.ahead is None else {"ahead": nested_nulls(self.ahead[index])}),
                }
                for index, name in enumerate(self.names)
            ],
        }

    @classmethod
    def from_json(cls, document: Any, window_rows: int = WINDOW_ROWS, horizons: int = 0) -> RawSamples:
        """Decode samples of a version with so many horizons.

        Raise ValueError, KeyError, TypeError or OverflowError if they are not as `to_json` returns them, or too many.
        """
        samples = document["samples"]
        if not isinstance(samples, list) or not SAMPLES_MIN <= len(samples) <= SAMPLES_MAX:
            raise ValueError(f"raw samples are a list of {SAMPLES_MIN} to {SAMPLES_MAX}")
        names = tuple(sample["name"] for sample in samples)
        if not all(isinstance(name, str) and len(name) <= TEXT_CHARS_MAX for name in names):
            raise ValueError(f"each raw sample has a name of at most {TEXT_CHARS_MAX} characters")
        flags = [sample["int8"] for sample in samples]
        if not all(isinstance(flag, bool) for flag in flags) or 2 * sum(flags) < len(flags):
            raise ValueError("int8 is true or false, and true for at least half of the raw samples")
        windows = RawWindows(
            np.array([_numbers(sample["time_s"], (window_rows,), holes=horizons > 0) for sample in samples]),
            _floats([_numbers(sample["telemetry"], (HISTORY_ROWS + window_rows, len(NUMERIC)), holes=True) for sample in samples]),
            np.stack([_texts(sample["categories"], window_rows) for sample in samples]),
            contexts_of(samples, horizons),
        )
        forecasts = forecasts_of([sample["forecast"] for sample in samples])
        require_forecasts(forecasts)
        tolerances = [(_numbers(part["absolute"], (len(TARGETS),)), float(part["relative"])) for part in _tolerances(document)]
        return cls(names, windows, forecasts, np.array(flags), *tolerances[0], *tolerances[1], ahead=ahead_of(samples, horizons))

    def require_strict(self, outputs: Scaler) -> None:
        """Raise ValueError if a tolerance is wider than this release writes: agreement would prove little."""
        for absolute, relative, share, relative_most in (
            (self.tolerance, self.relative, TOLERANCE, RELATIVE),
            (self.int8_tolerance, self.int8_relative, INT8_TOLERANCE, INT8_RELATIVE),
        ):
            widest = share * outputs.scale.astype(np.float64) * _ROUNDING
            if not ((absolute >= 0) & (absolute <= widest)).all() or not 0 <= relative <= relative_most:
                raise ValueError(
                    f"raw tolerances {absolute.tolist()} and {relative}; at most {widest.tolist()} and {relative_most} prove something"
                )

    def wrong(self, forecasts: Floats, int8: bool, ahead: Floats | None = None) -> Flags:
        """Return bool (S,): which forecasts do not agree. A NaN agrees only if it is expected, of a target that is not forecast.

        Args:
            forecasts: (S, 4).
            int8: True: by the quantised graph, whose tolerance is wider.
            ahead: (S, H, 4, 4); None: without horizons.
        """
        absolute, relative = (self.int8_tolerance, self.int8_relative) if int8 else (self.tolerance, self.relative)
        wrong = _disagree(forecasts, self.forecasts, absolute, relative)
        if self.ahead is None or ahead is None:
            return wrong
        return wrong | _disagree(_targets_last(ahead), _targets_last(self.ahead), absolute, relative)


def _disagree(found: Floats, wanted: Floats, absolute: Doubles, relative: float) -> Flags:
    """Return bool (S,): which of the forecasts (S, ..., 4) do not agree."""
    expected = wanted.astype(np.float64)
    agree = (np.abs(found - expected) <= absolute + relative * np.abs(expected)) | (np.isnan(found) & np.isnan(expected))
    return np.asarray(~agree.reshape(len(agree), -1).all(axis=1))


def _targets_last(ahead: Floats) -> Floats:
    return np.moveaxis(ahead, 2, -1)


def raw_samples(
    base: RawWindows, forecast: Callable[[RawWindows], tuple[Floats, Floats | None]], raw: RawPredictor, int8: RawPredictor, outputs: Scaler
) -> RawSamples:
    """Return samples of every kind.

    Extreme windows are left out if float32 itself leaves the answer open: if it is not finite, or the raw graph is more than a quarter
    of the tolerance away.

    Args:
        base: real windows, at least one.
        forecast: returns the expected forecasts, float32 (B, 4) and (B, H, 4, 4); the latter may be None.
        raw: the float graph.
        int8: the quantised graph.
        outputs: scaler of the targets.

    Raises:
        ValueError: if a usual window is as far away, or most windows of the quantised graph are.
    """
    names, windows = varied(base)
    expected, ahead = forecast(windows)
    scale = outputs.scale.astype(np.float64)
    found = RawSamples(
        names, windows, expected, np.zeros(len(names), np.bool_), TOLERANCE * scale, RELATIVE, INT8_TOLERANCE * scale, INT8_RELATIVE, ahead
    )
    extreme = np.array([name.startswith(OPEN) for name in names])
    with np.errstate(over="ignore", invalid="ignore"):
        apart, settled = _judged(found, raw, found.tolerance, RELATIVE, 1 / 4)
        _, near = _judged(found, int8, found.int8_tolerance, 0.0, 1 / 2)
        settled &= ~np.isinf(expected).any(axis=1)
    if not settled[~extreme].all():
        worst = int(np.flatnonzero(~settled & ~extreme)[0])
        raise ValueError(f"the raw graph's forecast of {names[worst]!r} is {apart[worst]:.3g} away from the expected one")
    if 2 * np.count_nonzero(near & ~extreme) < len(names):
        most = f"more than {INT8_TOLERANCE / 2} standard deviations away"
        raise ValueError(f"the quantised graph is {most} in {np.count_nonzero(~near)} of {len(names)} windows")
    usable = np.flatnonzero(settled)
    return RawSamples(
        tuple(names[index] for index in usable), windows.take(usable), expected[usable], (near & ~extreme)[usable],
        found.tolerance, RELATIVE, found.int8_tolerance, INT8_RELATIVE, None if ahead is None else ahead[usable],
    )  # fmt: skip


def _judged(samples: RawSamples, predictor: RawPredictor, absolute: Doubles, relative: float, share: float) -> tuple[Doubles, Flags]:
    """Return how far a graph's forecasts are from the expected ones, float64 (S,), and which are within a share of the tolerance."""
    pairs = [(predictor.predict_windows(samples.windows), samples.forecasts)]
    if samples.ahead is not None:
        pairs.append((_targets_last(predictor.predict_ahead(samples.windows)), _targets_last(samples.ahead)))
    furthest, within = np.zeros(len(samples.names)), np.ones(len(samples.names), np.bool_)
    for found, expected in pairs:
        apart = _apart(found, expected)
        agree = apart <= (absolute + relative * np.abs(np.nan_to_num(expected.astype(np.float64)))) * share
        furthest = np.maximum(furthest, apart.reshape(len(apart), -1).max(axis=1))
        within &= agree.reshape(len(agree), -1).all(axis=1)
    return furthest, within


def _apart(found: Floats, expected: Floats) -> Doubles:
    """Return float64 (S, ..., 4): the absolute differences, 0 where both are missing."""
    apart: Doubles = np.abs(found - expected.astype(np.float64))
    apart[np.isnan(found) & np.isnan(expected)] = 0.0
    return apart


def with_nulls(forecast: Floats | Doubles) -> list[float | None]:
    """Return the numbers of one forecast (4,) as JSON has them: null for NaN."""
    return [None if np.isnan(value) else value for value in forecast.tolist()]


def nested_nulls(ahead: Floats) -> list[Any]:
    """Return the forecasts (H, 4, 4) of one window as JSON has them: null for NaN."""
    return [[with_nulls(target) for target in horizon] for horizon in ahead]


def contexts_of(samples: list[Any], horizons: int) -> Floats | None:
    """Return float32 (S, C), the context of each sample; None without horizons. Raises as `forecasts_of`."""
    if not horizons:
        return None
    width = len(TARGETS) * (CONTEXT_ROWS + horizons)
    return _floats([_numbers(sample["context"], (width,), holes=True) for sample in samples])


def ahead_of(samples: list[Any], horizons: int) -> Floats | None:
    """Return float32 (S, H, 4, 4), the forecasts ahead of each sample; None without horizons. Raises as `forecasts_of`."""
    if not horizons:
        return None
    ahead = _floats([_numbers(sample["ahead"], (horizons, len(TARGETS), PLACES), holes=True) for sample in samples])
    missing = np.isnan(ahead)
    if (missing.any(axis=(0, 1, 3)) != missing.all(axis=(0, 1, 3))).any():
        raise ValueError("a target ahead is missing in some of the samples only")
    return ahead


def forecasts_of(rows: list[Any]) -> Floats:
    """Return float32 (S, 4) for S lists of numbers and nulls. Raises ValueError if they are something else."""
    return _floats([_numbers(row, (len(TARGETS),), holes=True) for row in rows])


def require_forecasts(forecasts: Floats) -> None:
    """Raise ValueError unless each target of forecasts (S, 4) is finite in every sample, or missing in every one."""
    missing = np.isnan(forecasts)
    if np.isinf(forecasts).any() or (missing.any(axis=0) != missing.all(axis=0)).any() or missing.all():
        raise ValueError("a number is not finite, or a target is missing in some of the samples only")


def _tolerances(document: Mapping[str, Any]) -> tuple[Any, Any]:
    return document["tolerance"], document["int8_tolerance"]


def _numbers(values: Any, shape: tuple[int, ...], *, holes: bool = False) -> Doubles:
    """Return float64 of the shape. The lengths of the lists are checked before an array is built."""
    flat = [values]
    for length in shape:
        if not all(isinstance(part, list) and len(part) == length for part in flat):
            raise ValueError(f"numbers of another shape than {shape}")
        flat = [item for part in flat for item in part]
    if not all((isinstance(item, int | float) and not isinstance(item, bool)) or (holes and item is None) for item in flat):
        raise ValueError("something else among numbers")
    array: Doubles = np.array(flat, np.float64).reshape(shape)
    if np.isinf(array).any():
        raise ValueError("a number is not finite")
    return array


def _floats(arrays: list[Doubles]) -> Floats:
    with np.errstate(over="ignore"):
        values = np.stack(arrays).astype(np.float32)
    if np.isinf(values).any():
        raise ValueError("a number is not finite")
    return values


def _texts(values: Any, window_rows: int) -> NDArray[Any]:
    shape = (window_rows, len(CATEGORIES))
    rows = isinstance(values, list) and len(values) == shape[0] and all(isinstance(row, list) and len(row) == shape[1] for row in values)
    texts = [text for row in values for text in row] if rows else [0]
    if not all(text is None or (isinstance(text, str) and len(text) <= TEXT_CHARS_MAX) for text in texts):
        raise ValueError(f"categories are {shape[0]} rows of {shape[1]} texts of at most {TEXT_CHARS_MAX} characters, or null")
    array = np.empty(len(texts), object)
    array[:] = [text or "" for text in texts]
    return array.reshape(shape)
