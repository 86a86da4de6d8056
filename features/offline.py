"""The features of a whole table: the same kernels as online, link by link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.definition import CHANGES, FEATURES
from features.kernels import fill_features
from features.local_time import UTC, LocalTime
from features.memory import Memory, context_shape, empty_memory
from features.telemetry import CATEGORIES, Doubles, Floats, Ints, Longs
from features.timeline import DEFAULT_GAP_MULTIPLE
from features.vocabulary import Vocabulary

_REGION: Final = CATEGORIES.index("region")


@dataclass(frozen=True, slots=True)
class RawTable:
    """N telemetry rows, sorted by link and within a link in stream order (time strictly ascending).

    Args:
        links: Names of the links.
        link: int32 (N,), index into `links`.
        time_s: float64 (N,), UTC seconds.
        numeric: float32 (N, R), the columns NUMERIC, NaN if not measured.
        codes: int32 (N, C), for each of CATEGORIES the index into its `values`, -1 if missing.
        values: For each of CATEGORIES its values.

    >>> from features.telemetry import CATEGORIES, NUMERIC
    >>> numeric = np.full((3, len(NUMERIC)), 2.0, np.float32)
    >>> codes, values = np.full((3, len(CATEGORIES)), -1, np.int32), ((),) * len(CATEGORIES)
    >>> table = RawTable(("a|b",), np.zeros(3, np.int32), np.array([0.0, 60.0, 120.0]), numeric, codes, values)
    >>> len(table)
    3
    """

    links: tuple[str, ...]
    link: Ints
    time_s: Doubles
    numeric: Floats
    codes: Ints
    values: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.link)


@dataclass(frozen=True, slots=True)
class OfflineFeatures:
    """The features of a table.

    Args:
        features: float32 (N, F), unscaled, NaN if unknown.
        run: int64 (N,), rows with the same number are of one link without a gap.
        interval_s: float64 (N,), sampling interval of the link as known after the row, seconds, NaN if unknown.
        context: float32 (N, 3 + H, 4), level, spread and profiles of each target, NaN if unknown; (N, 0, 4) without horizons. See
            `memory.fill_context`.

    >>> unknown = np.full(2, np.nan)
    >>> features = OfflineFeatures(np.zeros((2, len(FEATURES)), np.float32), np.array([0, 1]), unknown, np.zeros((2, 0, 4), np.float32))
    >>> features.run.tolist()  # two rows with a gap between them
    [0, 1]
    """

    features: Floats
    run: Longs
    interval_s: Doubles
    context: Floats


def empty_row() -> Floats:
    """Return float32 (F,), the features of a row in which nothing was measured: NaN, and no changes. It stands for rows before a run."""
    row = np.full(len(FEATURES), np.nan, np.float32)
    row[[FEATURES.index(name) for name in CHANGES]] = 0.0
    return row


def compute(
    table: RawTable,
    vocabulary: Vocabulary,
    gap_multiple: float = DEFAULT_GAP_MULTIPLE,
    horizons: Sequence[int] = (),
    local_time: LocalTime = UTC,
) -> OfflineFeatures:
    """Compute the features of every row, equal to those of a FeatureStore to which the rows come one by one.

    Args:
        table: N rows.
        vocabulary: The codes of categories.
        gap_multiple: How many sampling intervals make a pause, which ends a run unless it is the rhythm of the link.
        horizons: Rows ahead whose times the context has profiles for. With none, there is no context.
        local_time: Time zones and holidays of the regions.

    Returns:
        The features of the N rows.

    Raises:
        ValueError: The table is not sorted by link, then by strictly ascending time.

    >>> from features.telemetry import CATEGORIES, NUMERIC
    >>> numeric = np.full((3, len(NUMERIC)), 2.0, np.float32)
    >>> codes, values = np.full((3, len(CATEGORIES)), -1, np.int32), ((),) * len(CATEGORIES)
    >>> table = RawTable(("a|b",), np.zeros(3, np.int32), np.array([0.0, 60.0, 120.0]), numeric, codes, values)
    >>> result = compute(table, Vocabulary.empty())
    >>> result.features[:, FEATURES.index("rtt_mean_3")].tolist()
    [2.0, 2.0, 2.0]
    """
    same_link = table.link[1:] == table.link[:-1]
    if np.any(table.link[1:] < table.link[:-1]) or np.any(same_link & (table.time_s[1:] <= table.time_s[:-1])):
        raise ValueError("the table must be sorted by link, then by strictly ascending time")
    features = np.empty((len(table), len(FEATURES)), np.float32)
    run = np.empty(len(table), np.int64)
    interval_s = np.empty(len(table), np.float64)
    context = np.empty(context_shape(len(table), horizons), np.float32)
    fill_features(
        table.link, table.time_s, table.numeric, table.codes.astype(np.int16), vocabulary.encoding(table.values), gap_multiple,
        np.array(horizons, np.int64), local_time.places, local_time.place_of(table.values[_REGION]), Memory(**empty_memory(1)),
        features, run, interval_s, context,
    )  # fmt: skip
    return OfflineFeatures(features, run, interval_s, context)
