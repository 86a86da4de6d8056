"""Architectures: what an encoder is built with, one structure for each entry of `model.training.network.encoders.ENCODERS`.

No TensorFlow here: the daemon chooses one by `training.architecture` and writes it into a job file, where the field `encoder` tags it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Final, TypeAlias, get_args

import msgspec

from features.definition import FEATURES, WINDOW_ROWS, WINDOW_ROWS_LEAST, WINDOW_ROWS_MOST
from features.telemetry import TARGETS
from model.version.metadata import HORIZONS_MOST

TAG: Final = "encoder"


def _require_layers(kind: str, units: tuple[int, ...], dropout: tuple[float, ...]) -> None:
    if len(units) != len(dropout):
        raise ValueError(f"an architecture needs one dropout rate for each {kind} layer")
    if not units or min(units) < 1:
        raise ValueError(f"an architecture needs at least one {kind} layer, and every layer at least one unit")


def _require_rates(**rates: tuple[float, ...]) -> None:
    """Raise ValueError, with the name, for a dropout rate with which nothing would be left to learn from. A NaN is none either."""
    for name, values in rates.items():
        for value in values:
            if not 0 <= value < 1:
                raise ValueError(f"{name} has the rate {value}; use 0 to less than 1")


DEFAULT_HORIZONS: Final = (1, 5, 15, 30, 60)
"""Rows ahead that a version forecasts by default: with a row a minute, up to an hour."""
HORIZON_MOST: Final = 10_000
COVERAGE: Final = 0.9
"""Share of what is measured that lies between lower and upper forecast, by default."""


def require_horizons(horizons: tuple[int, ...]) -> None:
    """Raise ValueError if these are not horizons of a version: rows ahead, ascending from 1, a handful of them. None at all is possible."""
    if not horizons:
        return
    if horizons[0] != 1 or any(after <= before for before, after in pairwise(horizons)):
        raise ValueError(f"horizons are rows ahead that ascend from 1, such as {', '.join(map(str, DEFAULT_HORIZONS))}; not {horizons}")
    if len(horizons) > HORIZONS_MOST or horizons[-1] > HORIZON_MOST:
        raise ValueError(f"a version has at most {HORIZONS_MOST} horizons, none over {HORIZON_MOST:,} rows; these are {horizons}")


class Ahead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the network that forecasts several horizons with intervals, from windows relative to the link's level.

    What it reaches on seven recordings: docs/architecture.md, "Forecasts ahead".

    Args:
        horizons: Rows ahead, ascending from 1; none: only the next row is forecast, and without an interval.
        coverage: Share of what is measured that lies between lower and upper forecast.
        units: Of each hidden layer; none: a linear forecast.
        members: Networks whose forecasts are averaged.
        dropout: Of each hidden layer.
    """

    horizons: tuple[int, ...] = ()
    coverage: float = COVERAGE
    units: tuple[int, ...] = (96, 48)
    members: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_horizons(self.horizons)
        if not 0.5 <= self.coverage <= 0.99:
            raise ValueError(f"coverage is {self.coverage}; use 0.5 to 0.99")
        if self.units and min(self.units) < 1:
            raise ValueError("every hidden layer of `ahead` needs at least one unit")
        if not 1 <= self.members <= 16:
            raise ValueError(f"members is {self.members}; use 1 to 16")
        _require_rates(dropout=(self.dropout,))


LINEAR_AHEAD: Final = Ahead(units=(), members=1)
"""Sizes of linear forecasts ahead."""


class _Sized(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field=TAG):
    """Sizes that every network has: windows of `window_rows` rows, read by an encoder and by a linear path beside it."""

    SUMMARY: ClassVar[str] = ""
    """A few words for help texts, after its name."""

    window_rows: int = WINDOW_ROWS
    ahead: Ahead = Ahead()

    def __post_init__(self) -> None:
        if not WINDOW_ROWS_LEAST <= self.window_rows <= WINDOW_ROWS_MOST:
            raise ValueError(f"windows have {WINDOW_ROWS_LEAST} to {WINDOW_ROWS_MOST} rows, not {self.window_rows}")

    @property
    def encoder(self) -> str:
        """Name of the encoder in `ENCODERS`."""
        return str(self.__struct_config__.tag)

    @property
    def rival(self) -> Architecture | None:
        """What is published in its place where it is not better beyond chance; None: it is published whatever it brings."""
        return None

    @property
    def features(self) -> int:
        return len(FEATURES)

    @property
    def targets(self) -> int:
        return len(TARGETS)


class _Headed(_Sized, frozen=True, tag_field=TAG):
    """Sizes of the dense layers between an encoder and the forecast."""

    dense_units: tuple[int, ...] = (192, 128)
    dense_dropout: tuple[float, ...] = (0.3, 0.2)
    head_units: int = 64
    head_dropout: float = 0.2
    linear_path: bool = True
    """Measured to bring more accuracy than anything else in the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_layers("dense", (*self.dense_units, self.head_units), (*self.dense_dropout, self.head_dropout))
        _require_rates(dense_dropout=self.dense_dropout, head_dropout=(self.head_dropout,))


class Relative(_Sized, frozen=True, tag="relative"):
    """A linear path for the next row, and the network of `ahead` on windows relative to the link's level. What measures best.

    Args:
        or_linear: Linear forecasts are published in its place where it is not better beyond chance.
    """

    SUMMARY = "a small network on windows relative to the link's level, or linear forecasts where these are as good"

    ahead: Ahead = Ahead(horizons=DEFAULT_HORIZONS)
    or_linear: bool = True

    @property
    def rival(self) -> Linear | None:
        if not self.or_linear or not self.ahead.horizons:
            return None
        ahead = msgspec.structs.replace(LINEAR_AHEAD, horizons=self.ahead.horizons, coverage=self.ahead.coverage)
        return Linear(window_rows=self.window_rows, ahead=ahead)

    @property
    def linear_path(self) -> bool:
        return True


class Lstm(_Headed, frozen=True, tag="lstm"):
    """Sizes of the published network, three LSTM layers and attention; the defaults are the published model."""

    SUMMARY = "the published network"

    lstm_units: tuple[int, ...] = (256, 192, 128)
    lstm_dropout: tuple[float, ...] = (0.3, 0.3, 0.2)
    recurrent_dropout: float = 0.2
    l2: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_layers("LSTM", self.lstm_units, self.lstm_dropout)
        _require_rates(lstm_dropout=self.lstm_dropout, recurrent_dropout=(self.recurrent_dropout,))
        if not 0 <= self.l2 < math.inf:
            raise ValueError(f"l2 is {self.l2}; use 0 or more")


class Linear(_Sized, frozen=True, tag="linear"):
    """The linear path alone, without a network, solved in closed form. It trains in seconds and is hard to beat on steady links."""

    SUMMARY = "only linear forecasts"

    ahead: Ahead = LINEAR_AHEAD

    @property
    def linear_path(self) -> bool:
        return True


class Mlp(_Headed, frozen=True, tag="mlp"):
    """Sizes of a small multi-layer perceptron over all values of a window."""

    SUMMARY = "a small perceptron"

    mlp_units: tuple[int, ...] = (64, 64)
    mlp_dropout: tuple[float, ...] = (0.2, 0.2)
    dense_units: tuple[int, ...] = (32,)
    dense_dropout: tuple[float, ...] = (0.2,)
    head_units: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_layers("MLP", self.mlp_units, self.mlp_dropout)
        _require_rates(mlp_dropout=self.mlp_dropout)


Architecture: TypeAlias = Relative | Lstm | Linear | Mlp

ARCHITECTURES: Final[Mapping[str, Architecture]] = {kind().encoder: kind() for kind in get_args(Architecture)}
"""Default sizes by tag, the name in `training.architecture` and in `train --architecture`. The first one is the default."""
DEFAULT: Final = next(iter(ARCHITECTURES))
SUMMARY: Final = "; ".join(f"{name}: {architecture.SUMMARY}" for name, architecture in ARCHITECTURES.items())
"""Every architecture in a few words, for help texts."""


def forecasting(architecture: Architecture, horizons: tuple[int, ...], coverage: float = COVERAGE) -> Architecture:
    """Return an architecture that forecasts these horizons.

    Raises:
        ValueError: if they are not horizons of a version, or the coverage is not possible.
    """
    ahead = msgspec.structs.replace(architecture.ahead, horizons=horizons, coverage=coverage)
    return msgspec.structs.replace(architecture, ahead=ahead)


def architecture_of(document: Any) -> Architecture:
    """Return the architecture that a JSON document describes.

    Args:
        document: the sizes that differ from the defaults, by name. Without a tag it is an LSTM: earlier releases knew no other encoder.

    Raises:
        ValueError: if the encoder or a size is unknown, of the wrong type or out of range.
    """
    try:
        return msgspec.convert(tagged(document), Architecture)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def tagged(document: Any) -> Any:
    """Return the document of an architecture with the tag that earlier releases did not write."""
    return {TAG: "lstm", **document} if isinstance(document, dict) else document
