"""What one training learns from: rows, features, scalers and windows of a snapshot, as a first version or as a parent's successor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.calendar import SPREAD
from features.definition import FEATURES
from features.offline import OfflineFeatures, RawTable, compute
from features.telemetry import Floats
from features.vocabulary import MAX_VALUES, OVERFLOW, Vocabulary
from model.spec.job import JobSpec
from model.version.metadata import Metadata
from model.windows.absurd import held
from model.windows.index import FineTuneSplit, build_windows, split_for_finetune, targets_of
from model.windows.names import by_worth
from model.windows.scaler import Scaler

CALENDAR: Final = {FEATURES.index(name): spread for name, spread in SPREAD.items()}
"""The scales of a first version are its successors' too, and it may have seen less than an hour: over that hour's deviation, an evening is
thirty deviations away, and forecasts and the parity of the exported graphs go wrong."""
VALIDATION_WINDOWS_MAX: Final = 2_048
GATE_WINDOWS_MAX: Final = 4_096
"""What is held out is the newest, and after a drift the newest is what is to be learnt: in a large buffer a share of it would hold out
hours. Of 240 links with a row a minute these are 8 and 17 minutes; the error of a mean over 4,096 windows is 1.6 % of their spread."""


NEW_VALUES_MAX: Final = 1_000
"""Values of one category that get a code in one training: ten times the regions of a large operator. The others are OTHER, as before."""


class TooLittleDataError(Exception):
    """The snapshot holds too few windows. The message says how many there are and how many are needed."""

    def __init__(self, message: str, windows: dict[str, int]) -> None:
        super().__init__(message)
        self.windows = windows


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """N rows of a snapshot, made ready. features: unscaled, made with `vocabulary`. targets: float32 (N, 4), unscaled, NaN where missing.

    table: without absurd numbers before the gate's rows, as features and targets are.

    inputs, outputs, vocabulary: the candidate's own, which extend its parent's so that the parent's weights keep their meaning.
    trained_until_s: UTC seconds of the newest row that the candidate is trained on.
    """

    table: RawTable
    features: OfflineFeatures
    targets: Floats
    vocabulary: Vocabulary
    inputs: Scaler
    outputs: Scaler
    split: FineTuneSplit
    trained_until_s: float

    @property
    def windows(self) -> dict[str, int]:
        return count_windows(self.split)


def prepare(spec: JobSpec, table: RawTable, parent: Metadata | None) -> TrainingSet:
    """Computes features, splits the windows by time and fits the scalers on the rows that are trained on, not on later ones.

    Raises TooLittleDataError where a part of the split holds fewer windows than the job's settings and gate ask for.
    """
    vocabulary = (Vocabulary.empty() if parent is None else parent.vocabulary).extended(most_frequent(table, parent))
    features = compute(table, vocabulary, spec.gap_multiple)
    index, since_s = build_windows(features, table), None if parent is None else parent.trained_until_s
    if since_s is not None and spec.latest_row_s is not None and since_s > spec.latest_row_s:
        since_s = None  # the parent has learnt from rows that cannot have been: after them nothing would ever be new
    new = len(index) if since_s is None else int(np.count_nonzero(table.time_s[index.target_row] > since_s))
    split = split_for_finetune(
        index,
        table,
        trained_until_s=since_s,
        replay_windows=spec.settings.replay_windows,
        recent_windows_max=spec.settings.recent_windows_max,
        seed=spec.settings.seed,
        validation_share=min(spec.settings.validation_share, VALIDATION_WINDOWS_MAX / max(1, new)),
        gate_share=min(spec.settings.gate_share, GATE_WINDOWS_MAX / max(1, new)),
        # As when the model is live; after a drift no link may have 31 rows in the gate's part yet.
        inputs_reach_back=True,
    )
    _require_enough(spec, split, parent)
    usual = held(table, table.time_s < table.time_s[split.gate.target_row].min(initial=np.inf))
    if usual is not table:
        table, features = usual, compute(usual, vocabulary, spec.gap_multiple)
    trained_until_s = float(table.time_s[split.recent.target_row].max())
    targets = targets_of(table)
    seen = table.time_s <= trained_until_s
    return TrainingSet(
        table=table,
        features=features,
        targets=targets,
        vocabulary=vocabulary,
        inputs=_scaler(None if parent is None else parent.inputs, features.features[seen], CALENDAR),
        outputs=_scaler(None if parent is None else parent.outputs, targets[seen], {}),
        split=split,
        trained_until_s=trained_until_s,
    )


def most_frequent(table: RawTable, parent: Metadata | None) -> list[list[str]]:
    """For each category the values that the parent has no code for and that get one: at most NEW_VALUES_MAX, those that are worth most."""
    chosen = []
    known = ((),) * len(table.values) if parent is None else parent.vocabulary.values
    for values, old, codes in zip(table.values, known, table.codes.T, strict=True):
        most, has_code = min(NEW_VALUES_MAX, max(0, MAX_VALUES - 1 - len(old))), {*old, OVERFLOW}
        new = [code for code, value in enumerate(values) if value not in has_code]
        if len(new) > most:
            are_new = set(new)
            new = [code for code in by_worth(codes, table.link, len(values)).tolist() if code in are_new][:most]
        chosen.append([values[code] for code in new])
    return chosen


def count_windows(split: FineTuneSplit) -> dict[str, int]:
    return {"recent": len(split.recent), "replay": len(split.replay), "validation": len(split.validation), "gate": len(split.gate)}


def scaled(training_set: TrainingSet) -> tuple[Floats, Floats]:
    """float32 (N, 44), 0 where unknown, and float32 (N, 4), NaN where unknown: what the network reads and is asked for."""
    return training_set.inputs.transform(training_set.features.features), training_set.outputs.standardise(training_set.targets)


def _scaler(parent: Scaler | None, values: Floats, spreads: Mapping[int, tuple[float, float]]) -> Scaler:
    return Scaler.fit(values, spreads) if parent is None else parent.extended(values, spreads)


def _require_enough(spec: JobSpec, split: FineTuneSplit, parent: Metadata | None) -> None:
    gate_min = 1 if parent is None else spec.gate.min_windows
    needed = {"recent": spec.settings.windows_min, "validation": 1, "gate": gate_min}
    windows = count_windows(split)
    short = [f"{windows[part]} {part} windows of at least {least}" for part, least in needed.items() if windows[part] < least]
    if short:
        since = "in all" if parent is None else f"after what {parent.version} was trained on"
        raise TooLittleDataError(f"too few windows {since}: {', '.join(short)}; train again when more rows have come", windows)
