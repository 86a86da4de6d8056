"""TRAINING_REPORT.json and report.html: what was reached, said plainly, and beside what it has to be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from features.offline import RawTable
from features.telemetry import CATEGORIES, TARGETS, Floats, Longs
from model.judge.performance import best_baseline
from model.report.page import Judged, render
from model.training.files import PAGE_NAME, REPORT_NAME, Fit, finite, history_document
from model.training.network.bound_layers import forecast_targets
from model.version.documents import write_document
from model.windows.index import WindowIndex, gather

ATTENTION_WINDOWS: Final = 512
ATTENTION_LAYER: Final = "attention_weight"
_LINK_TYPE: Final = CATEGORIES.index("link_type")


def report_document(
    figures: Mapping[str, Any], fitted: Fit, about: Mapping[str, Any], data_quality: Mapping[str, Any], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The report, as JSON has it. figures: of model.judge.performance. about: what was trained, and how. notes: to be said first.

    target_achieved is what the figures say, and nothing else.
    """
    best = {name: best_baseline(figures, name) for name in TARGETS}
    unforecast = [name for name, measured in zip(TARGETS, forecast_targets(fitted.model), strict=True) if not measured]
    history = fitted.history
    return {
        **about,
        "target_achieved": figures["success"],
        "criteria_met": figures["criteria_met"],
        "notes": [*notes, *_notes(figures, best, unforecast)],
        "forecast_targets": [name for name in TARGETS if name not in unforecast],
        "performance": figures,
        "best_baseline": {name: None if each is None else {"name": each[0], "mae": each[1]} for name, each in best.items()},
        "training_duration_seconds": round(fitted.duration_s, 3),
        "training": {
            "started_from": fitted.started_from,
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "stopped": history.stopped,
            "start_validation_loss": finite(history.start_validation_loss),
        },
        "data_quality": data_quality,
    }


def write_report(folder: Path, report: Mapping[str, Any], fitted: Fit, judged: Judged) -> None:
    """Both forms of the report into a version's folder."""
    write_document(folder / REPORT_NAME, dict(report))
    (folder / PAGE_NAME).write_text(render(report, history_document(fitted), judged), encoding="utf-8")


def judged_rows(
    table: RawTable, index: WindowIndex, actual: Floats, forecasts: Mapping[str, Floats], attention: Floats | None
) -> Judged:  # fmt: skip
    """The judged windows in order of time, for the page. actual and forecasts: float32 (M, 4), of the M windows of index."""
    in_time = np.argsort(table.time_s[index.target_row], kind="stable")
    rows = index.target_row[in_time]
    names = (*table.values[_LINK_TYPE], "(missing)")  # code -1 is the last
    return Judged(
        time_s=table.time_s[rows],
        link=table.link[rows],
        links=table.links,
        link_type=tuple(names[code] for code in table.codes[rows, _LINK_TYPE].tolist()),
        actual=actual[in_time],
        forecasts={name: forecast[in_time] for name, forecast in forecasts.items()},
        attention=attention,
    )


def attention_of(model: keras.Model, scaled: Floats, end: Longs) -> Floats | None:
    """float32 (T,): the attention's mean weight of each step, over windows that end at rows `end` and channels; None without it.

    scaled: float32 (N, 44).
    """
    if not any(layer.name == ATTENTION_LAYER for layer in model.layers):
        return None
    end = end[:: max(1, -(-len(end) // ATTENTION_WINDOWS))]
    weights = keras.Model(model.inputs, model.get_layer(ATTENTION_LAYER).output)
    found: Floats = weights.predict(gather(scaled, end, model.input_shape[1]), batch_size=64, verbose=0).mean(axis=(0, 2))
    return found


def _notes(figures: Mapping[str, Any], best: Mapping[str, tuple[str, float] | None], unforecast: Sequence[str]) -> list[str]:
    """What a reader has to know, in sentences. unforecast: the targets that were never measured in training."""
    notes = []
    reached = [name for name, entry in figures["criteria"].items() if entry["met"]]
    if reached:
        notes.append(f"Criteria met: {', '.join(reached)}.")
    else:
        told = ", ".join(f"{name} {_number(entry['reached'])} of {entry['wanted']:g}" for name, entry in figures["criteria"].items())
        notes.append(f"No criterion is met ({told}); where the baselines are as far from them, the data does not allow more.")
    for name, baseline in best.items():
        mae = figures["targets"][name]["mae"]
        if baseline is None or mae is None:
            continue
        skill = figures["skill"][baseline[0]][name]
        if skill is None or skill["low"] is None:
            continue
        if skill["low"] > 0:
            verdict = f"better than its best baseline, {baseline[0]}, by {skill['skill']:.1%}"
        elif skill["high"] < 0:
            verdict = f"worse than its best baseline, {baseline[0]}, by {-skill['skill']:.1%}: use that one for {name}"
        else:
            verdict = f"as good as its best baseline, {baseline[0]}, within chance ({skill['skill']:+.1%})"
        notes.append(f"{name} is {verdict}.")
    if unforecast:
        notes.append(f"Never measured in training, and so missing in every forecast: {', '.join(unforecast)}.")
    if unmeasured := [name for name in figures["unmeasured"] if name not in unforecast]:
        notes.append(f"Not measured in the test rows, and in no average: {', '.join(unmeasured)}.")
    return notes


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
