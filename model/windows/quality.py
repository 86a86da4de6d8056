"""Quality of a table of telemetry for a training: its holes, gaps, constants and windows, and the treatment of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from features.offline import OfflineFeatures, RawTable
from features.telemetry import CATEGORIES, NUMERIC, TARGETS

WINDOWS_MIN: Final = 64
"""Fewest training windows: one batch."""
FEW_WINDOWS: Final = 2_000
"""Fewer training windows than this are few: a network of 0.9 M parameters has little to add to its linear path."""
MANY_MISSING_RATIO: Final = 0.5
"""Share of missing values above which a column is reported."""

Level = Literal["note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding and its treatment. Level "error": there must be no training."""

    level: Level
    what: str
    action: str


@dataclass(frozen=True, slots=True)
class DataQuality:
    """Figures and findings about a table of N rows.

    Args:
        interval_s: Median time between two rows of a run; None if there is no such pair.
        gaps: How many pauses end a window.
        rows_per_link: Smallest, median and largest number of rows.
        missing_ratio: Share of the N rows without a value, per column.
        constant: Columns with a single value.
        unmeasured: Targets without any value.
        windows: How many windows each part of the split has.
        findings: Errors first, then warnings, then notes.
    """

    rows: int
    links: int
    from_s: float | None
    until_s: float | None
    interval_s: float | None
    gaps: int
    rows_per_link: tuple[int, int, int]
    missing_ratio: dict[str, float]
    constant: tuple[str, ...]
    unmeasured: tuple[str, ...]
    windows: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "error"]


def examine(table: RawTable, features: OfflineFeatures, windows: dict[str, int], before: tuple[Finding, ...] = ()) -> DataQuality:
    """Examine a table.

    Args:
        windows: How many windows each part of the split has.
        before: Findings of the reader of the file, which come first.
    """
    rows = len(table)
    per_link = np.bincount(table.link, minlength=len(table.links)) if rows else np.zeros(1, np.int64)
    same_run = np.diff(features.run) == 0
    intervals = np.diff(table.time_s)[same_run]
    missing, constant = _columns(table)
    unmeasured = tuple(name for name in TARGETS if missing.get(name, 1.0) == 1.0)
    quality = DataQuality(
        rows=rows,
        links=len(table.links),
        from_s=float(table.time_s.min()) if rows else None,
        until_s=float(table.time_s.max()) if rows else None,
        interval_s=float(np.median(intervals)) if len(intervals) else None,
        gaps=int(np.count_nonzero((np.diff(features.run) != 0) & (np.diff(table.link) == 0))),
        rows_per_link=(int(per_link.min()), int(np.median(per_link)), int(per_link.max())),
        missing_ratio=missing,
        constant=constant,
        unmeasured=unmeasured,
        windows=dict(windows),
        findings=before,
    )
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    findings = sorted((*before, *_findings(quality)), key=lambda finding: order[finding.level])
    return replace(quality, findings=tuple(findings))


def _columns(table: RawTable) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the share of missing values of each column, and the columns that have a single value."""
    missing, constant = {}, []
    for column, name in enumerate(NUMERIC):
        known = table.numeric[:, column][np.isfinite(table.numeric[:, column])]
        missing[name] = 1.0 - len(known) / max(1, len(table))
        if len(known) and known.min() == known.max():
            constant.append(name)
    for column, name in enumerate(CATEGORIES):
        codes = table.codes[:, column][table.codes[:, column] >= 0]
        missing[name] = 1.0 - len(codes) / max(1, len(table))
        if len(codes) and codes.min() == codes.max():
            constant.append(name)
    return missing, tuple(constant)


def _findings(quality: DataQuality) -> list[Finding]:
    found: list[Finding] = []
    constant_targets = [name for name in TARGETS if name in quality.constant]
    measured = [name for name in TARGETS if name not in quality.unmeasured]
    train = quality.windows.get("train", 0)
    if train < WINDOWS_MIN or min(quality.windows.values(), default=0) == 0:
        parts = ", ".join(f"{count:,} {part}" for part, count in quality.windows.items())
        found.append(Finding("error", f"too few windows ({parts}; {WINDOWS_MIN} to train on are needed)", "give more rows of each link"))
    elif train < FEW_WINDOWS:
        found.append(Finding("warning", f"only {train:,} windows to train on", "expect little more than the linear path reaches"))
    if quality.rows and not measured:
        found.append(Finding("error", f"none of {', '.join(TARGETS)} is measured", "give a file with at least one of them"))
    elif measured and len(constant_targets) == len(measured):
        found.append(
            Finding("error", f"{', '.join(constant_targets)} never change", "there is nothing to forecast; give a longer recording")
        )
    elif constant_targets:
        found.append(Finding("warning", f"{', '.join(constant_targets)} never change", "their forecast is that value"))
    if quality.unmeasured and measured:
        found.append(Finding("note", f"{', '.join(quality.unmeasured)} are never measured", "left out of the loss and of all averages"))
    if holes := [f"{name} {share:.0%}" for name, share in quality.missing_ratio.items() if MANY_MISSING_RATIO < share < 1.0]:
        found.append(
            Finding("note", f"mostly missing: {', '.join(holes)}", "a missing input is 0 after scaling, a missing target has no loss")
        )
    if quality.gaps:
        found.append(Finding("note", f"{quality.gaps:,} gaps", "no window lies across one"))
    if others := [name for name in quality.constant if name not in TARGETS]:
        found.append(Finding("note", f"{', '.join(others)} never change", "the network does not read them"))
    return found
