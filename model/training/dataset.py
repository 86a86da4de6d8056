"""Preparation of a training: features, windows, parts and scalers of a table of telemetry. No TensorFlow here.

A job of the daemon and an offline run share this preparation. They differ only in the policy that cuts the windows into parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np

from features.calendar import SPREAD
from features.definition import FEATURES, SHORT_ROWS, WINDOW_ROWS
from features.local_time import UTC, LocalTime
from features.offline import OfflineFeatures, RawTable, compute, empty_row
from features.telemetry import Flags, Floats
from features.vocabulary import MAX_VALUES, OVERFLOW, Vocabulary
from model.spec.job import JobSpec
from model.spec.run import SHARES
from model.version.metadata import Metadata
from model.windows.absurd import held
from model.windows.index import WindowIndex, build_windows, gather, part_starts, split_by_time, split_for_finetune, targets_of
from model.windows.names import by_worth
from model.windows.scaler import Scaler

CALENDAR: Final = {FEATURES.index(name): spread for name, spread in SPREAD.items()}
"""Means and scales of the calendar's features, fixed here. A first version passes its scales on to its successors, and it may have seen
less than an hour: in deviations of that hour an evening is thirty away, which spoils forecasts and the parity of the exported graphs."""
VALIDATION_WINDOWS_MAX: Final = 2_048
GATE_WINDOWS_MAX: Final = 4_096
"""Windows held out of a job's training. They are the newest, and after a drift the newest are to be learnt: a share of a large buffer would
be hours. With 240 links and a row a minute these are 8 and 17 minutes; the error of a mean over 4,096 windows is 1.6 % of their spread."""
NEW_VALUES_MAX: Final = 1_000
"""Values of one category that get a code in one training: ten times the regions of a large operator. The others stay OTHER."""


class TooLittleDataError(Exception):
    """A part of the split holds too few windows. The message has their number and the number needed."""

    def __init__(self, message: str, windows: dict[str, int]) -> None:
        super().__init__(message)
        self.windows = windows


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Rows, and the windows over them as indices: 30 times smaller than the windows themselves.

    Args:
        features: float32 (N, 44), scaled, 0 if unknown.
        targets: float32 (N, 4), scaled, NaN if unknown.
        train: Windows to train on.
        validation: Windows for early stopping.
        window_rows: T, rows of one window.
        empty: float32 (44,), scaled: a row before a run began.
        context: float32 (N, 4 * (3 + H)), in the targets' units, NaN if not known: what the link remembers; (N, 0) without horizons.
    """

    features: Floats
    targets: Floats
    train: WindowIndex
    validation: WindowIndex
    window_rows: int = WINDOW_ROWS
    context: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    empty: Floats = field(default_factory=lambda: np.zeros(len(FEATURES), np.float32))

    def windows(self, index: WindowIndex) -> Floats:
        """Return float32 (M, T, F), the scaled windows of index."""
        return gather(self.features, index.end, self.window_rows, index.begin, self.empty)


@dataclass(frozen=True, eq=False)
class Dataset:
    """N rows made ready for one training.

    Args:
        table: The rows, with absurd numbers clipped before the judged part, as in features and targets.
        features: Unscaled, with the codes of `vocabulary`.
        targets: float32 (N, 4), in the targets' units, NaN if not measured.
        vocabulary: The version's own. Like the scalers it extends its parent's, so that the parent's weights keep their meaning.
        inputs: Scaler of the 44 features.
        outputs: Scaler of the 4 targets.
        data: The same rows scaled, with the windows to train and to validate on.
        judged: Windows that compare the version with others; it is not trained on them.
        windows: How many windows each part has.
        trained_until_s: Time of the newest row trained on, UTC seconds.
    """

    table: RawTable
    features: OfflineFeatures
    targets: Floats
    vocabulary: Vocabulary
    inputs: Scaler
    outputs: Scaler
    data: TrainingData
    judged: WindowIndex
    windows: dict[str, int]
    trained_until_s: float


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """The windows of each part, and the rows that each may look at.

    Args:
        windows: How many windows each part has, by the policy's own names of them.
        fitted: bool (N,), rows that the scalers are fitted on.
        before_judged: bool (N,), rows before the judged part, whose absurd numbers are clipped.
    """

    train: WindowIndex
    validation: WindowIndex
    judged: WindowIndex
    windows: dict[str, int]
    fitted: Flags
    before_judged: Flags


@dataclass(frozen=True)
class NewestJudge:
    """A job's policy: the newest windows judge, those before them validate, and older ones are mixed in against forgetting."""

    spec: JobSpec
    parent: Metadata | None
    window_rows: int = WINDOW_ROWS
    horizon_rows: int = 1
    spreads: ClassVar[Mapping[int, tuple[float, float]]] = CALENDAR
    """Mean and scale, by column, of features that cannot be fitted on a few rows."""

    def named(self, table: RawTable) -> Flags:
        """Return bool (N,), the rows whose categories get codes: all of them."""
        return np.ones(len(table), np.bool_)

    def parts(self, index: WindowIndex, table: RawTable) -> Parts:
        """Cut the windows. Raise TooLittleDataError if a part holds too few."""
        settings, since_s = self.spec.settings, None if self.parent is None else self.parent.trained_until_s
        if since_s is not None and self.spec.latest_row_s is not None and since_s > self.spec.latest_row_s:
            since_s = None  # the parent has learnt from rows of the future: no later row would count as new
        new = len(index) if since_s is None else int(np.count_nonzero(table.time_s[index.target_row] > since_s))
        split = split_for_finetune(
            index,
            table,
            trained_until_s=since_s,
            replay_windows=settings.replay_windows,
            recent_windows_max=settings.recent_windows_max,
            seed=settings.seed,
            validation_share=min(settings.validation_share, VALIDATION_WINDOWS_MAX / max(1, new)),
            gate_share=min(settings.gate_share, GATE_WINDOWS_MAX / max(1, new)),
        )
        windows = {"recent": len(split.recent), "replay": len(split.replay), "validation": len(split.validation), "gate": len(split.gate)}
        self._require_enough(windows)
        time_s = table.time_s
        fitted = time_s <= time_s[split.recent.target_row].max()
        return Parts(split.train, split.validation, split.gate, windows, fitted, time_s < time_s[split.gate.target_row].min())

    def _require_enough(self, windows: dict[str, int]) -> None:
        needed = {
            "recent": self.spec.settings.windows_min,
            "validation": 1,
            "gate": 1 if self.parent is None else self.spec.gate.min_windows,
        }
        short = [f"{windows[part]} {part} windows of at least {least}" for part, least in needed.items() if windows[part] < least]
        if short:
            since = "in all" if self.parent is None else f"after what {self.parent.version} was trained on"
            raise TooLittleDataError(f"too few windows {since}: {', '.join(short)}; train again when more rows have come", windows)


@dataclass(frozen=True)
class LastOfEachLink:
    """An offline run's policy: each link's first rows train, those after them validate, and its last rows judge.

    Nothing is fitted on a row that validates or judges.
    """

    shares: tuple[float, float, float] = SHARES
    window_rows: int = WINDOW_ROWS
    horizon_rows: int = 1
    spreads: ClassVar[Mapping[int, tuple[float, float]]] = {}

    def named(self, table: RawTable) -> Flags:
        """Return bool (N,), the rows whose categories get codes: those before each link's validation part."""
        return np.arange(len(table)) < part_starts(table, self.shares)[0][table.link]

    def parts(self, index: WindowIndex, table: RawTable) -> Parts:
        """Cut the windows. Raise TooLittleDataError if a part holds none."""
        split = split_by_time(index, table, self.shares)
        windows = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
        if not all(windows.values()):
            raise TooLittleDataError(
                f"{len(split.train)} training windows, {len(split.validation)} validation windows, {len(split.test)} test windows: "
                f"each part needs {self.window_rows + self.horizon_rows} rows of one link without a gap, or short runs of {SHORT_ROWS + 1}",
                windows,
            )
        before_test = np.arange(len(table)) < part_starts(table, self.shares)[1][table.link]
        return Parts(split.train, split.validation, split.test, windows, self.named(table), before_test)


def prepare(
    table: RawTable,
    policy: NewestJudge | LastOfEachLink,
    gap_multiple: float,
    parent: Metadata | None = None,
    horizons: tuple[int, ...] = (),
    local_time: LocalTime = UTC,
) -> Dataset:
    """Compute features, cut the windows into parts and fit the scalers, in which later rows have no part.

    Args:
        table: N rows.
        policy: How the windows are cut.
        gap_multiple: Pauses over this many median intervals of a link end its windows.
        parent: Version whose vocabulary and scalers are extended; None: a first version.
        horizons: Rows ahead that are forecast besides.
        local_time: Time zones and holidays of the regions.

    Raises:
        TooLittleDataError: A part holds fewer windows than the policy asks for.
    """
    known = Vocabulary.empty() if parent is None else parent.vocabulary
    vocabulary = known.extended(new_values(table, policy.named(table), known))
    features = compute(table, vocabulary, gap_multiple, horizons, local_time)
    parts = policy.parts(build_windows(features, table, policy.horizon_rows, policy.window_rows, horizons), table)
    usual = held(table, parts.before_judged)
    if usual is not table:
        table, features = usual, compute(usual, vocabulary, gap_multiple, horizons, local_time)
    targets = targets_of(table)
    inputs, outputs = (
        Scaler.fit(values[parts.fitted], spreads) if scaler is None else scaler.extended(values[parts.fitted], spreads)
        for values, spreads, scaler in (
            (features.features, policy.spreads, None if parent is None else parent.inputs),
            (targets, {}, None if parent is None else parent.outputs),
        )
    )
    return Dataset(
        table=table,
        features=features,
        targets=targets,
        vocabulary=vocabulary,
        inputs=inputs,
        outputs=outputs,
        data=TrainingData(
            inputs.transform(features.features),
            outputs.standardise(targets),
            parts.train,
            parts.validation,
            policy.window_rows,
            features.context.reshape(len(features.context), -1),
            inputs.transform(empty_row()),
        ),
        judged=parts.judged,
        windows=parts.windows,
        trained_until_s=float(table.time_s[parts.train.target_row].max()),
    )


def new_values(table: RawTable, rows: Flags, known: Vocabulary) -> list[list[str]]:
    """Return for each category the values in bool (N,) rows that get a code: at most NEW_VALUES_MAX, those that are worth most."""
    chosen = []
    for values, old, codes in zip(table.values, known.values, table.codes[rows].T, strict=True):
        most, has_code = min(NEW_VALUES_MAX, max(0, MAX_VALUES - 1 - len(old))), {*old, OVERFLOW}
        new = [code for code in np.unique(codes).tolist() if code >= 0 and values[code] not in has_code]
        if len(new) > most:
            are_new = set(new)
            new = [code for code in by_worth(codes, table.link[rows], len(values)).tolist() if code in are_new][:most]
        chosen.append([values[code] for code in new])
    return chosen
