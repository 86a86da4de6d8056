"""TRAINING_REPORT.json of an offline training: what was reached, said plainly, and beside what it has to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import keras
import numpy as np

from features.offline import RawTable
from features.telemetry import CATEGORIES, TARGETS, Floats
from model.dataset import gather
from model.offline import OfflineRun
from model.performance import best_baseline, performance
from model.report_html import Judged
from model.run_spec import INTERRUPTED, RunSpec
from model.version_files import finite, sizes

ATTENTION_WINDOWS: Final = 512
_LINK_TYPE: Final = CATEGORIES.index("link_type")


def report_of(made: OfflineRun, table: RawTable, spec: RunSpec, status: str) -> dict[str, Any]:
    """The report, as JSON has it. target_achieved is what the figures say, and nothing else."""
    index, history = made.prepared.split.test, made.history
    figures = performance(made.actual, made.forecasts, table.time_s[index.target_row])
    best = {name: best_baseline(figures, name) for name in TARGETS}
    return {
        "version": spec.version,
        "created_at": datetime.fromtimestamp(spec.created_at_s, UTC).isoformat(),
        "status": status,
        "source": spec.source,
        "target_achieved": figures["success"],
        "criteria_met": figures["criteria_met"],
        "notes": _notes(figures, best, status),
        "performance": figures,
        "best_baseline": {name: None if each is None else {"name": each[0], "mae": each[1]} for name, each in best.items()},
        "validation": {name: asdict(metrics) for name, metrics in made.validation_metrics.items()},
        "training_duration_seconds": round(made.duration_s, 3),
        "training": {
            "started_from": made.started_from,
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "stopped": history.stopped,
            "start_validation_loss": finite(history.start_validation_loss),
        },
        "horizon_rows": spec.horizon_rows,
        "shares": list(spec.shares),
        "training_config": asdict(spec.settings),
        "architecture": sizes(spec.architecture),
        "data_quality": spec.data_quality,
    }


def _notes(figures: Mapping[str, Any], best: Mapping[str, tuple[str, float] | None], status: str) -> list[str]:
    """What a reader has to know, in sentences."""
    notes = []
    if status == INTERRUPTED:
        notes.append("The training was interrupted: these are its best weights up to then.")
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
    if figures["unmeasured"]:
        notes.append(f"Not measured in the test rows, and in no average: {', '.join(figures['unmeasured'])}.")
    return notes


def judged(made: OfflineRun, table: RawTable) -> Judged:
    """The test rows in order of time, for the page."""
    rows = made.prepared.split.test.target_row
    in_time = np.argsort(table.time_s[rows], kind="stable")
    rows = rows[in_time]
    names = (*table.values[_LINK_TYPE], "(missing)")  # code -1 is the last
    return Judged(
        time_s=table.time_s[rows],
        link=table.link[rows],
        links=table.links,
        link_type=tuple(names[code] for code in table.codes[rows, _LINK_TYPE].tolist()),
        actual=made.actual[in_time],
        forecasts={name: forecast[in_time] for name, forecast in made.forecasts.items()},
        attention=attention_of(made),
    )


def attention_of(made: OfflineRun) -> Floats | None:
    """float32 (T,): the attention's mean weight of each step over test windows and channels; None without such a layer."""
    if not any(layer.name == "attention_weight" for layer in made.model.layers):
        return None
    end = made.prepared.split.test.end
    end = end[:: max(1, -(-len(end) // ATTENTION_WINDOWS))]
    weights = keras.Model(made.model.inputs, made.model.get_layer("attention_weight").output)
    found: Floats = weights.predict(gather(made.prepared.data.features, end), batch_size=64, verbose=0).mean(axis=(0, 2))
    return found


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
