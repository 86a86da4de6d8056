"""A recording as plain arrays for forecasts of several horizons: windows, what links remember, targets. Rivals need nothing else.

    python -m parts.horizon_data JOB    (job: path, key, horizons, cut, out)

Windows, gaps, runs and the parts of the split are the product's own. Rivals and product are judged on the same rows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.definition import WINDOW_ROWS
from features.offline import RawTable, compute
from features.telemetry import Doubles, Floats, Longs
from features.timeline import DEFAULT_GAP_MULTIPLE
from features.vocabulary import Vocabulary
from harness import answer, job_of
from model.spec.run import SHARES
from model.windows.index import NONE, part_starts, rows_ahead, targets_at, targets_of
from parts.horizon_context import averages
from parts.rivals_task import DAY_S, TEST, TRAIN, VALIDATION
from streams.files.recording import read_recording

CUT_ROWS: Final = 12
"""Rows of a run in a recording that is cut into short runs."""
_PAUSES_ROWS: Final = (6, 16)
"""Rows of the pauses between the runs, alternating. Equal pauses would be the rhythm of the link, and would not end its runs."""
CUT_LEAST: Final = 3
"""Row of a short run from which it is forecast."""


@dataclass(frozen=True, eq=False, slots=True)
class HorizonData:
    """M windows of 30 rows by link and time, and N rows that they are cut from.

    Args:
        horizons: int64 (H,), rows.
        end: int64 (M,), row of each window's last step.
        link: int32 (M,).
        time_s: float64 (M,), UTC seconds of the last step.
        interval_s: float64 (M,), the link's sampling interval as known then.
        part: int8 (M,), TRAIN, VALIDATION or TEST. A window and its targets lie in one part.
        values: float32 (M, 30, 4), TARGETS of the window's rows, NaN if not measured or before the run.
        level: float32 (M, 4), the link's slow average.
        spread: float32 (M, 4), its mean distance from a faster one.
        averages: float32 (M, 4, R), averages of several rates; the first is the last measured value.
        profile: float32 (M, 1 + H, 4), the level that the link used to have at this hour, and at each horizon's. NaN: not known.
        targets: float32 (M, H, 4), what is to be forecast; NaN if not measured, or not in the same run and part.
        day_before: float32 (M, H, 4), what was measured a day before each target's time.
        row_link: int32 (N,), link of each row.
        row_run: int64 (N,), run of each row.
        row_time_s: float64 (N,).
        row_part: int8 (N,).
        row_values: float32 (N, 4).
    """

    horizons: Longs
    end: Longs
    link: Any
    time_s: Doubles
    interval_s: Doubles
    part: Any
    values: Floats
    level: Floats
    spread: Floats
    averages: Floats
    profile: Floats
    targets: Floats
    day_before: Floats
    row_link: Any
    row_run: Longs
    row_time_s: Doubles
    row_part: Any
    row_values: Floats

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})
        partial.replace(path)


def table_of(path: Path, key: tuple[str, ...], cut: bool) -> RawTable:
    """Return the rows of a recording. cut: only CUT_ROWS of a link in a row, then a gap."""
    table = read_recording(path, key).table
    return _cut(table) if cut else table


def _cut(table: RawTable) -> RawTable:
    place = np.arange(len(table)) - np.searchsorted(table.link, table.link)
    within = place % (2 * CUT_ROWS + sum(_PAUSES_ROWS))
    second = CUT_ROWS + _PAUSES_ROWS[0]
    chosen = (within < CUT_ROWS) | ((within >= second) & (within < second + CUT_ROWS))
    columns = {name: getattr(table, name)[chosen] for name in ("link", "time_s", "numeric", "codes")}
    return replace(table, **columns)


def horizon_data(table: RawTable, horizons: tuple[int, ...], *, short: bool = False) -> HorizonData:
    """Cut the windows of a table.

    Args:
        table: N rows.
        horizons: Ascending, in rows.
        short: Windows begin at the third row of a run, and averages with the run. Otherwise windows are whole, and links remember.
    """
    features = compute(table, Vocabulary.empty(), DEFAULT_GAP_MULTIPLE, horizons)
    run, known, interval_s = features.run, features.context, features.interval_s
    rows = np.arange(len(table))
    begin = np.searchsorted(run, run)  # the first row of each row's run: numbers of runs ascend
    part = row_parts(table)
    values = targets_of(table)
    ahead = rows_ahead(features, table.time_s, rows, horizons)
    targets = targets_at(values, np.where(part[ahead] == part[:, None], ahead, NONE))
    least = CUT_LEAST if short else WINDOW_ROWS
    start = np.maximum(rows - WINDOW_ROWS + 1, begin)
    inside = (rows - begin + 1 >= least) & (part[start] == part) & np.isfinite(targets).any(axis=(1, 2))
    end = rows[inside]
    window = end[:, None] + np.arange(1 - WINDOW_ROWS, 1)
    shown = np.where((window >= start[end][:, None])[..., None], values[np.maximum(window, 0)], np.float32(np.nan))
    memory = averages(table, run if short else table.link)
    return HorizonData(
        horizons=np.array(horizons, np.int64),
        end=end,
        link=table.link[end],
        time_s=table.time_s[end],
        interval_s=interval_s[end],
        part=part[end],
        values=shown,
        level=known[end, 0],
        spread=known[end, 1],
        averages=memory[end],
        profile=known[end, 2:],
        targets=targets[end],
        day_before=_day_before(table, values, interval_s, horizons)[end],
        row_link=table.link,
        row_run=run,
        row_time_s=table.time_s,
        row_part=part,
        row_values=values,
    )


def row_parts(table: RawTable) -> Any:
    """Return int8 (N,), TRAIN, VALIDATION or TEST: of each link the first 70 %, the next 15 % and the last 15 % of its rows."""
    validation_from, test_from = part_starts(table, SHARES)
    rows = np.arange(len(table))
    later = np.where(rows < test_from[table.link], VALIDATION, TEST)
    return np.where(rows < validation_from[table.link], TRAIN, later).astype(np.int8)


def _day_before(table: RawTable, values: Floats, interval_s: Doubles, horizons: tuple[int, ...]) -> Floats:
    """Return float32 (N, H, 4), measured a day before the horizons' times, within an interval and not after the row; else NaN."""
    found = np.full((len(table), len(horizons), values.shape[1]), np.nan, np.float32)
    rows = np.arange(len(table))
    for index, horizon in enumerate(horizons):
        nearest, apart_s = _nearest(table, table.time_s + horizon * interval_s - DAY_S)
        hit = (nearest <= rows) & (apart_s <= interval_s)
        found[hit, index] = values[nearest[hit]]
    return found


def _nearest(table: RawTable, wanted_s: Doubles) -> tuple[Longs, Doubles]:
    """Return for each row the row of its link that is nearest in time to wanted_s (N,), NaN never near, and how far it is."""
    nearest, apart_s = np.zeros(len(table), np.int64), np.full(len(table), np.inf)
    for link in range(len(table.links)):
        first, after = np.searchsorted(table.link, [link, link + 1])
        if first == after:
            continue
        time_s, wanted = table.time_s[first:after], wanted_s[first:after]
        later = np.clip(np.searchsorted(time_s, wanted), 1, max(1, after - first - 1))
        later = np.minimum(later, after - first - 1)
        earlier = np.maximum(later - 1, 0)
        chosen = np.where(np.abs(time_s[earlier] - wanted) <= np.abs(time_s[later] - wanted), earlier, later)
        nearest[first:after], apart_s[first:after] = first + chosen, np.abs(time_s[chosen] - wanted)
    return nearest, apart_s


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Write the arrays of a job to its file `out`, and return how many windows each part has."""
    table = table_of(Path(job["path"]), tuple(job["key"]), job["cut"])
    data = horizon_data(table, tuple(job["horizons"]), short=job["cut"])
    data.write(Path(job["out"]))
    return {"windows": np.bincount(data.part, minlength=3).tolist(), "links": len(table.links)}


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
