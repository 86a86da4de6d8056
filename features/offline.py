"""The features of a whole table: the same kernels as online, link by link."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.definition import FEATURES
from features.kernels import fill_features
from features.telemetry import Doubles, Floats, Ints, Longs
from features.timeline import DEFAULT_GAP_MULTIPLE
from features.vocabulary import Vocabulary


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

    >>> features = OfflineFeatures(np.zeros((2, len(FEATURES)), np.float32), np.array([0, 1]))
    >>> features.run.tolist()  # two rows with a gap between them
    [0, 1]
    """

    features: Floats
    run: Longs


def compute(table: RawTable, vocabulary: Vocabulary, gap_multiple: float = DEFAULT_GAP_MULTIPLE) -> OfflineFeatures:
    """Compute the features of every row, equal to those of a FeatureStore to which the rows come one by one.

    Args:
        table: N rows.
        vocabulary: The codes of categories.
        gap_multiple: How many sampling intervals make a gap.

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
    encoding = vocabulary.encoding(table.values)
    fill_features(table.link, table.time_s, table.numeric, table.codes.astype(np.int16), encoding, gap_multiple, features, run)
    return OfflineFeatures(features, run)
