"""Small recordings and networks of several horizons: made in seconds, with every part of the real ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.offline import RawTable
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Partition
from features.vocabulary import Interner
from model.buffer.rows import BufferRows, BufferWriter
from model.spec.architecture import Ahead, Relative
from model.spec.settings import TrainingSettings
from model.training.dataset import Dataset, LastOfEachLink, prepare

HORIZONS: Final = (1, 3)
TINY: Final = Relative(ahead=Ahead(horizons=HORIZONS, units=(4,), members=2), or_linear=False)
QUICK: Final = TrainingSettings(epochs=2, batch_size=32, windows_min=64, replay_windows=64, nice=0, seed=3)
FROM_S: Final = 1_790_035_200.0
"""A midnight in UTC."""
LEVELS: Final = (400.0, 30.0, 0.02, 4.0)


@dataclass(frozen=True)
class Telemetry:
    """Links with daily waves and noise, a row a minute.

    Args:
        rows: Of each link.
        size: Of each link: what its levels are multiplied by.
        jitter: Whether jitter is ever measured.
        short_run: Rows after which the last link pauses for two hours or five each time; None: never.
        seed: Of the noise.
    """

    rows: int = 300
    size: tuple[float, ...] = (1.0, 3.0)
    jitter: bool = False
    short_run: int | None = None
    seed: int = 8

    def times(self, link: int) -> Doubles:
        """Return the UTC seconds of a link's rows."""
        row = np.arange(self.rows)
        pause = 0 if self.short_run is None or link < len(self.size) - 1 else row // self.short_run
        # Two and five hours, alternating: equal pauses would be the rhythm of the link, and would not end its runs.
        return FROM_S + 60.0 * row + 7_200.0 * np.asarray(pause, np.float64) + 10_800.0 * (np.asarray(pause, np.float64) // 2)

    def table(self) -> RawTable:
        """Return the rows."""
        random = np.random.default_rng(self.seed)
        link = np.repeat(np.arange(len(self.size), dtype=np.int32), self.rows)
        time_s = np.concatenate([self.times(each) for each in range(len(self.size))])
        numeric = np.full((len(link), len(NUMERIC)), np.nan, np.float32)
        wave = 1.0 + 0.3 * np.sin(2.0 * np.pi * (time_s - FROM_S) / 86_400.0) + 0.05 * np.sin(2.0 * np.pi * np.arange(len(link)) / 20.0)
        for column, level in enumerate(LEVELS if self.jitter else LEVELS[:-1]):
            noise = 1.0 + 0.02 * random.normal(size=len(link))
            numeric[:, column] = np.minimum(level * np.array(self.size)[link] * wave * noise, np.inf if column != 2 else 1.0)
        numeric[::5, 1] = np.nan
        numeric[:, NUMERIC.index("time_of_day")] = time_s % 86_400.0 / 3_600.0
        numeric[:, NUMERIC.index("day_of_week")] = 0.0
        codes = np.full((len(link), len(CATEGORIES)), -1, np.int32)
        codes[:, CATEGORIES.index("region")] = 0
        values: Sequence[tuple[str, ...]] = [("eu",) if name == "region" else () for name in CATEGORIES]
        return RawTable(tuple(f"link-{each}" for each in range(len(self.size))), link, time_s, numeric, codes, tuple(values))


def prepared(table: RawTable, horizons: tuple[int, ...] = HORIZONS) -> Dataset:
    """Return a whole recording, ready for a training."""
    return prepare(table, LastOfEachLink(), 5.0, horizons=horizons)


def snapshot_of(table: RawTable, folder: Path) -> Path:
    """Write the rows into a folder as one sealed segment, in order of time."""
    folder.mkdir(parents=True)
    order = np.argsort(table.time_s, kind="stable")
    writer, interner = BufferWriter(folder, Partition("telemetry", 0)), Interner()
    names = [(*values, None) for values in table.values]  # code -1 is the last
    codes = interner.codes([[names[at][code] for code in table.codes[order, at].tolist()] for at in range(len(CATEGORIES))])
    writer.append(BufferRows(np.arange(len(order)), table.time_s[order], table.numeric[order], codes, table.link[order]))
    taken = writer.detach(list(table.links), interner.values)
    assert taken is not None
    writer.seal(taken)
    return folder


@functools.cache
def trained(telemetry: Telemetry = Telemetry(), epochs: int = 2) -> tuple[Dataset, Any]:
    """Return a recording and the `Fit` of a tiny network on it, once a process."""
    from model.training.fit.start import fit, prepare_tensorflow, start  # TensorFlow

    dataset = prepared(telemetry.table())
    prepare_tensorflow(QUICK)
    settings = TrainingSettings(epochs=epochs, batch_size=32, seed=3)
    return dataset, fit(*start(dataset, TINY), dataset, TINY, settings, lambda _progress: None)
