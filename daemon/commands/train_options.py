"""Options of `dwcp-learner train`, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from daemon.config.holiday_file import HolidayFileError
from daemon.config.local_time import local_time_spec
from daemon.errors import DaemonError
from features.definition import WINDOW_ROWS_LEAST, WINDOW_ROWS_MOST
from features.telemetry import KEY_COLUMNS
from features.timeline import DEFAULT_GAP_MULTIPLE
from model.spec import architecture as architectures
from model.spec.architecture import COVERAGE, DEFAULT_HORIZONS, Architecture, Lstm, forecasting, require_horizons
from model.spec.local_time import LocalTimeSpec, require_zone
from model.spec.settings import TrainingSettings

CHOICES: Final[Mapping[str, Architecture]] = {
    **architectures.ARCHITECTURES,
    "small": Lstm(lstm_units=(48, 40, 32), dense_units=(40, 32), head_units=16),
    "full": Lstm(),
}
"""Values of --architecture: those of `training.architecture`, a smaller LSTM, and the name of lstm in earlier releases."""
ARCHITECTURE_HELP: Final = f"{architectures.SUMMARY}; small: lstm with a fifth of its units; full: another name of lstm."


MOST_SHOWN: Final = 80
"""Characters of a value in a message, at most."""


class TrainError(DaemonError):
    """A training is not possible on this data, or cannot be written here. The message says what to do."""


class OptionError(TrainError):
    """A flag has an impossible value: wrong usage. The message names it."""

    exit_code = 2


@dataclass(frozen=True)
class TrainOptions:
    """Data, settings and output folder of a training.

    Args:
        horizon_rows: How many rows ahead is forecast.
        validation_split: Share of each link's rows for early stopping; test_split: share to judge on.
        link_key: Columns that identify a link. None: the default ones, or one merged series if links are too short for a window.
        gap_multiple: Pauses over this many median intervals of a link end its windows.
        local_time: Time zone and holidays of the links.
    """

    data_path: Path
    output_dir: Path
    settings: TrainingSettings
    architecture: Architecture
    horizon_rows: int
    validation_split: float
    test_split: float
    link_key: tuple[str, ...] | None
    gap_multiple: float
    local_time: LocalTimeSpec = field(default_factory=LocalTimeSpec)

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of each link's rows in training, validation and test."""
        return (1.0 - self.validation_split - self.test_split, self.validation_split, self.test_split)


def options_of(
    data_path: Path, output_dir: Path, *, epochs: int, batch_size: int, learning_rate: float, window_size: int, validation_split: float,
    test_split: float, seed: int, horizon: int, link_key: str | None, architecture: str, patience: int, time_limit_s: float,
    time_zone: str = "UTC", holidays: str = "", horizons: str | None = None, coverage: float = COVERAGE,
    gap_multiple: float = DEFAULT_GAP_MULTIPLE,
) -> TrainOptions:  # fmt: skip
    """Return the options from the command line's values. Raise OptionError, which names the flag, if one is impossible."""
    if architecture not in CHOICES:
        raise OptionError(f"--architecture {architecture}: unknown; use one of {', '.join(CHOICES)}")
    if not WINDOW_ROWS_LEAST <= window_size <= WINDOW_ROWS_MOST:
        raise OptionError(f"--window-size {window_size}: use {WINDOW_ROWS_LEAST} to {WINDOW_ROWS_MOST} rows")
    if not (validation_split > 0 and test_split > 0 and validation_split + test_split < 0.9):  # written so that a NaN fails too
        raise OptionError(
            f"--validation-split {validation_split} --test-split {test_split}: each must be over 0, and both together under 0.9, "
            "so that something is left to train on"
        )
    key = None if link_key is None else tuple(part.strip() for part in link_key.split(",") if part.strip())
    if unknown := sorted(set(key or ()) - set(KEY_COLUMNS)):
        raise OptionError(f"--link-key {link_key}: unknown column {', '.join(unknown)}; use some of {', '.join(KEY_COLUMNS)}")
    settings = TrainingSettings(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, patience=patience, time_budget_s=time_limit_s, nice=0
    )
    return TrainOptions(
        data_path,
        output_dir,
        settings,
        _forecasting(replace(CHOICES[architecture], window_rows=window_size), horizon, horizons, coverage),
        horizon,
        validation_split,
        test_split,
        key,
        gap_multiple,
        _local_time(time_zone, holidays),
    )


def _forecasting(architecture: Architecture, horizon: int, horizons: str | None, coverage: float) -> Architecture:
    if horizon != 1:
        if horizons is not None:
            raise OptionError(f"--horizon {horizon} --horizons {horizons}: use one of them; --horizons forecasts several at once")
        return forecasting(architecture, ())
    rows = DEFAULT_HORIZONS if horizons is None else _rows_ahead(horizons)
    try:
        return forecasting(architecture, rows, coverage)
    except ValueError as error:
        raise OptionError(f"--coverage {coverage}: {error}") from error


def _rows_ahead(text: str) -> tuple[int, ...]:
    try:
        rows = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        example = ",".join(map(str, DEFAULT_HORIZONS))
        raise OptionError(f"--horizons {text[:MOST_SHOWN]}: use whole numbers of rows, such as {example}") from error
    try:
        require_horizons(rows)
    except ValueError as error:
        raise OptionError(f"--horizons {text[:MOST_SHOWN]}: {error}") from error
    return rows


def _local_time(time_zone: str, holidays: str) -> LocalTimeSpec:
    try:
        require_zone(time_zone)
    except ValueError as error:
        raise OptionError(f"--time-zone {error}") from error
    try:
        return local_time_spec(time_zone, {}, holidays, {})
    except (ValueError, HolidayFileError) as error:
        raise OptionError(f"--holidays {error}") from error
