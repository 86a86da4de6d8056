"""One training on one recording with one seed, and its forecasts of the test windows, kept in a file so that it runs once."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from features.definition import WINDOW_ROWS
from features.offline import RawTable
from features.telemetry import TARGETS, Flags, Floats, Longs
from features.timeline import DEFAULT_GAP_MULTIPLE
from harness import answer, job_of, say
from model.judge.mixture import no_simple
from model.judge.outlook import Outlook
from model.spec.architecture import ARCHITECTURES, Ahead, architecture_of, forecasting
from model.spec.job import plain
from model.spec.settings import TrainingSettings
from model.training.dataset import Dataset, LastOfEachLink, Parts, TooLittleDataError, prepare
from model.version.contract import LOWER, MEDIAN, UPPER
from model.windows.index import WindowIndex
from parts.horizon_data import table_of
from parts.rivals_task import TEST

ROOT: Final = Path(__file__).resolve().parents[2]
DECIDING: Final = ("features", "model/judge", "model/spec", "model/training", "model/version", "model/windows")
"""Folders whose code decides the figures. If a file changes, kept results are not valid any more."""


@dataclass(frozen=True)
class SomeLinks(LastOfEachLink):
    """Train and validate on some links alone. links: their indices."""

    links: tuple[int, ...] = ()

    def named(self, table: RawTable) -> Flags:
        return super().named(table) & np.isin(table.link, self.links)

    def parts(self, index: WindowIndex, table: RawTable) -> Parts:
        found = super().parts(index, table)
        train, validation = (part.select(np.isin(table.link[part.end], self.links)) for part in (found.train, found.validation))
        return replace(
            found, train=train, validation=validation, windows=found.windows | {"train": len(train), "validation": len(validation)}
        )


def kept_name(job: dict[str, Any]) -> str:
    """Return the name of the file with a job's result: set, seed, and a digest of settings and code."""
    settings = json.dumps({name: job[name] for name in ("architecture", "settings", "key", "horizons", "cut", "links")}, sort_keys=True)
    code = b"".join(path.read_bytes() for folder in DECIDING for path in sorted((ROOT / folder).rglob("*.py")))
    own = b"".join((ROOT / "benchmarks" / "parts" / f"{name}.py").read_bytes() for name in ("accuracy_run", "horizon_data"))
    digest = hashlib.sha256(settings.encode() + code + own).hexdigest()[:12]
    return f"{job['set']}-{job['settings']['seed']}-{digest}.npz"


def run(job: dict[str, Any]) -> Path:
    """Train, forecast and keep the result, unless it exists."""
    path = Path(job["cache"]) / kept_name(job)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = _measured(job)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(path)
    return path


def _measured(job: dict[str, Any]) -> dict[str, Any]:
    """Return float32 (M, H, 4) of median, both intervals and linear for the M test windows of the job's `data`, and what is reported."""
    with np.load(job["data"]) as file:
        end = file["end"][file["part"] == TEST]
    table = table_of(Path(job["path"]), tuple(job["key"]), job["cut"])
    policy = LastOfEachLink() if job["links"] is None else SomeLinks(links=tuple(job["links"]))
    try:
        dataset = prepare(table, policy, DEFAULT_GAP_MULTIPLE, horizons=tuple(job["horizons"]))
    except TooLittleDataError as error:
        missing = np.full((len(end), len(job["horizons"]), len(TARGETS)), np.nan, np.float32)
        return dict.fromkeys(("median", "mean", "lower", "upper", "published_lower", "published_upper", "linear"), missing) | {
            "notes": np.array(json.dumps({"refused": str(error)}))
        }
    return product_forecasts(dataset, end, tuple(job["horizons"]), job)


def product_forecasts(dataset: Dataset, end: Longs, horizons: tuple[int, ...], job: dict[str, Any]) -> dict[str, Any]:
    """Train a version on the dataset and return its forecasts for the windows that end at some rows.

    This is the one place that knows how a version is trained and asked.

    Args:
        end: int64 (M,), rows of the dataset's table.
        horizons: in rows.
        job: its architecture and settings.

    Returns:
        median, mean, published_lower and published_upper as the version has them, lower and upper as the daemon's calibration keeps them,
        and linear (a version of linear forecasts alone), float32 (M, H, 4), in the targets' units; notes, a JSON object.
    """
    from model.training.fit.cheaper import chosen
    from model.training.fit.start import fit, prepare_tensorflow, start
    from model.training.run import ahead_at

    settings = msgspec.convert(job["settings"], TrainingSettings)
    made: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    prepare_tensorflow(settings)
    run = dataset.features.run
    begin = np.maximum(np.searchsorted(run, run[end]), end - (WINDOW_ROWS - 1))
    index = WindowIndex(end, end, begin=begin)
    asked = forecasting(architecture_of(job["architecture"]), horizons)
    fits = {}
    for name, architecture in (("version", asked), ("linear", forecasting(ARCHITECTURES["linear"], horizons))):
        began = time.process_time()
        model, started_from = start(dataset, architecture)
        fits[name] = fit(
            model, started_from, dataset, architecture, settings,
            lambda progress: say(f"{job['set']}: epoch {progress.epoch}, loss {progress.loss:.4f}"),
        )  # fmt: skip
        notes[f"{name}_s"] = time.process_time() - began
    done, linear = fits["version"], fits["linear"]
    if asked.rival is not None:
        done = chosen(done, linear, dataset)
    made["linear"] = ahead_at(linear, dataset, index)[..., MEDIAN]
    ahead = ahead_at(done, dataset, index)
    lower, median, upper, mean = np.moveaxis(ahead, -1, 0)
    made |= {"median": median, "mean": mean, "published_lower": lower, "published_upper": upper}
    made |= _kept_calibrated(dataset, index, ahead, asked.ahead)
    assert done.ahead is not None
    assert done.blended is not None
    notes |= {
        "published": done.architecture.encoder,
        "compared": None if done.compared is None else plain(done.compared),
        "best_epoch": done.ahead.best_epoch,
        "epochs": len(done.ahead.epochs),
        "network_shares": done.blended.share.tolist(),
        "duration_s": notes["version_s"] + (0.0 if asked.rival is None else notes["linear_s"]),
    }
    return {**made, "notes": np.array(json.dumps(notes))}


def _kept_calibrated(dataset: Dataset, index: WindowIndex, ahead: Floats, sizes: Ahead) -> dict[str, Floats]:
    """Return the intervals as the daemon keeps them: its own outlook follows the windows in order of time."""
    links, link = np.unique(dataset.table.link[index.end], return_inverse=True)
    outlook, group = Outlook(), ("", "")
    outlook.begin(sizes.horizons, sizes.coverage, len(links))
    time_s, interval_s = dataset.table.time_s[index.end], dataset.features.interval_s[index.end]
    run, actual, found = dataset.features.run[index.end], dataset.targets[index.end], ahead.copy()
    last_run: dict[int, int] = {}
    order = np.argsort(time_s, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(time_s[order])) + 1):
        restarted = np.array([last_run.get(link[row]) != run[row] for row in rows])
        last_run.update({link[row]: run[row] for row in rows})
        outlook.follow(
            link[rows], [group] * len(rows), time_s[rows], interval_s[rows], restarted, ahead[rows], actual[rows],
            no_simple(len(rows), len(sizes.horizons)), np.full((len(rows), len(TARGETS)), np.nan, np.float32),
        )  # fmt: skip
        found[rows] = outlook.stretched([group] * len(rows), ahead[rows])
    return {"lower": found[..., LOWER], "upper": found[..., UPPER]}


if __name__ == "__main__":
    answer({"path": str(run(job_of(sys.argv)))})
