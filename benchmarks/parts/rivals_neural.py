"""NHITS of neuralforecast, one model over all links, tuned on validation windows. Runs in .venv-neural, for an hour or two on two cores.

    python -m parts.rivals_neural JOB    (job: data, out, threads, steps)

Challu et al. 2023, "N-HiTS: neural hierarchical interpolation for time series forecasting". Each window is scaled by itself, the loss is
absolute, and the hour and the weekend of each row are known ahead. The model's steps are rows: its h-th is the target of horizon h.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the wheel is for graphics cards too, and looks for one

import neuralforecast  # type: ignore[import-not-found]  # it is installed in .venv-neural only
import pandas as pd
import torch  # type: ignore[import-not-found]
from neuralforecast.losses.pytorch import MAE  # type: ignore[import-not-found]
from neuralforecast.models import NHITS  # type: ignore[import-not-found]

from harness import answer, job_of, say
from parts.rivals_task import TEST, TRAIN, VALIDATION, Task, calendar, chosen

CALENDAR: Final = ["sine", "cosine", "weekend"]
TRIED: Final = (
    {"input_size": 30, "scaler_type": "standard", "steps": 1.0},
    {"input_size": 120, "scaler_type": "standard", "steps": 1.0},
    {"input_size": 120, "scaler_type": "robust", "steps": 1.0},
    {"input_size": 120, "scaler_type": "standard", "steps": 3.0},
)
"""What is tuned. steps: times the job's number of training steps."""
_VALIDATED: Final = 1_500
"""Validation windows that choose, evenly thinned."""


def known_ahead(time_s: Any) -> dict[str, Any]:
    hour, weekday = calendar(time_s)
    return {"sine": np.sin(2 * np.pi * hour / 24), "cosine": np.cos(2 * np.pi * hour / 24), "weekend": (weekday >= 5) * 1.0}


def filled(values: Any, group: Any) -> Any:
    """Return values (N,) with missing ones filled with the one before in the same group; NaN if there is none."""
    rows = np.arange(len(values))
    last = np.maximum.accumulate(np.where(np.isfinite(values), rows, -1))
    inside = (last >= 0) & (group[np.maximum(last, 0)] == group)
    return np.where(inside, values[np.maximum(last, 0)], np.nan)


def training_rows(task: Task, target: int) -> Any:
    """Return a frame of the training part: one series for each run."""
    values = task.row_values[:, target].astype(np.float64)
    whole = filled(values, task.row_link)
    used = (task.row_part == TRAIN) & np.isfinite(whole)
    frame = pd.DataFrame(
        {"unique_id": task.row_run[used], "y": whole[used], "available_mask": np.isfinite(values[used]) * 1.0}
        | known_ahead(task.row_time_s[used])
    )
    frame["ds"] = frame.groupby("unique_id").cumcount()
    return frame


def window_rows(task: Task, target: int, windows: Any, rows: int) -> tuple[Any, Any]:
    """Return frames of the inputs and of what is known ahead: a series of `rows` rows for each window, begun anew where its link begins."""
    whole = filled(task.row_values[:, target].astype(np.float64), task.row_link)
    end = task.end[windows]
    first = np.searchsorted(task.row_link, task.row_link[end])
    index = end[:, None] + np.arange(1 - rows, 1)
    y = whole[np.maximum(index, first[:, None])]
    y = np.where(np.isfinite(y), y, np.nan_to_num(task.level[windows, target])[:, None])
    ahead = int(task.horizons[-1])
    start_s = task.time_s[windows][:, None]
    interval_s = task.interval_s[windows][:, None]

    def frame(steps: Any) -> Any:
        times = (start_s + interval_s * steps).ravel()
        ds = np.tile(steps + rows - 1, len(windows))
        return pd.DataFrame({"unique_id": np.repeat(np.arange(len(windows)), len(steps)), "ds": ds} | known_ahead(times))

    before = frame(np.arange(1 - rows, 1)).assign(y=y.ravel(), available_mask=1.0)
    return before, frame(np.arange(1, ahead + 1))


def forecaster(task: Task, rows: Any, tried: dict[str, Any], job: dict[str, Any]) -> Any:
    model = NHITS(
        h=int(task.horizons[-1]),
        input_size=tried["input_size"],
        futr_exog_list=CALENDAR,
        loss=MAE(),
        scaler_type=tried["scaler_type"],
        max_steps=int(job["steps"] * tried["steps"]),
        learning_rate=1e-3,
        num_lr_decays=3,
        batch_size=32,
        windows_batch_size=512,
        valid_batch_size=1_024,
        inference_windows_batch_size=-1,
        start_padding_enabled=True,
        random_seed=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    found = neuralforecast.NeuralForecast(models=[model], freq=1)
    found.fit(rows)
    return found


def forecasts(task: Task, found: Any, target: int, windows: Any, rows: int) -> Any:
    """Return float64 (len(windows), H)."""
    before, after = window_rows(task, target, windows, rows)
    made = found.predict(df=before, futr_df=after).sort_values(["unique_id", "ds"])
    return made["NHITS"].to_numpy(np.float64).reshape(len(windows), -1)[:, task.horizons - 1]


def of_target(task: Task, target: int, horizons: list[int], job: dict[str, Any]) -> None:
    """Fit each of TRIED, and forecast each horizon's test windows with the one that has the least error on validation windows."""
    measured = np.isfinite(task.targets[:, :, target]).any(axis=1)
    validation, test = (np.flatnonzero(task.of_part(part) & measured) for part in (VALIDATION, TEST))
    validation = validation[:: max(1, -(-len(validation) // _VALIDATED))]
    rows = training_rows(task, target)
    made = []
    for tried in TRIED[: job.get("tried")]:
        found = forecaster(task, rows, tried, job)
        every = np.full((len(task.end), len(task.horizons)), np.nan)
        for windows in (validation, test):
            every[windows] = forecasts(task, found, target, windows, tried["input_size"])
        made.append(every)
        say(f"nhits: target {target}, {tried}")
    for horizon in horizons:
        best = chosen(task, horizon, target, np.stack([every[:, horizon] for every in made], axis=1))
        task.column("nhits")[:, horizon, target] = made[best][task.of_part(TEST), horizon]
        task.notes.setdefault("nhits", {})[f"{target}@{task.horizons[horizon]}"] = TRIED[best]


def run(job: dict[str, Any]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(job["threads"])
    task = Task.read(Path(job["data"]))
    horizons: dict[int, list[int]] = {}
    for horizon, target in task.pairs():
        horizons.setdefault(target, []).append(horizon)
    with task.timed("nhits"):
        for target, some in horizons.items():
            of_target(task, target, some, job)
    task.notes.setdefault("nhits", {})["version"] = neuralforecast.__version__
    task.write(Path(job["out"]))
    return task.notes


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
