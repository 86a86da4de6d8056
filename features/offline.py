"""The 44 features over a whole table: the same kernels as online, run link by link."""

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

    link: int32 (N,), index into `links`. time_s: float64 (N,). numeric: float32 (N, 11), columns NUMERIC, NaN where
    not measured. codes: int32 (N, 6), index into `values[c]` for each of CATEGORIES, -1 where missing.
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
    """features: float32 (N, 44), unscaled, NaN where unknown. run: int64 (N,): rows with the same run are of one link without a gap."""

    features: Floats
    run: Longs


def compute(table: RawTable, vocabulary: Vocabulary, gap_multiple: float = DEFAULT_GAP_MULTIPLE) -> OfflineFeatures:
    """The features of every row of the table, as FeatureStore gives them when the rows arrive one by one.

    Raises ValueError where the table is not sorted by link, then by strictly ascending time.
    """
    same_link = table.link[1:] == table.link[:-1]
    if np.any(table.link[1:] < table.link[:-1]) or np.any(same_link & (table.time_s[1:] <= table.time_s[:-1])):
        raise ValueError("the table must be sorted by link, then by strictly ascending time")
    features = np.empty((len(table), len(FEATURES)), np.float32)
    run = np.empty(len(table), np.int64)
    encoding = vocabulary.encoding(table.values)
    fill_features(table.link, table.time_s, table.numeric, table.codes.astype(np.int16), encoding, gap_multiple, features, run)
    return OfflineFeatures(features, run)
