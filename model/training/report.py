"""TRAINING_REPORT.json and report.html: figures of a training beside those that it has to be compared with, and sentences about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from features.telemetry import CATEGORIES, TARGETS, Floats
from model.judge.performance import best_baseline
from model.report.page import Judged, render
from model.spec.job import plain
from model.training.dataset import Dataset, TrainingData
from model.training.files import PAGE_NAME, REPORT_NAME, history_document
from model.training.fit.loop import History
from model.training.fit.start import Fit
from model.training.network.bound_layers import forecast_targets
from model.training.network.called import called
from model.version.documents import write_document
from model.windows.index import WindowIndex, targets_at

ATTENTION_WINDOWS: Final = 512
ATTENTION_LAYER: Final = "attention_weight"
_LINK_TYPE: Final = CATEGORIES.index("link_type")


@dataclass(frozen=True)
class CandidateStory:
    """Content of a report about a job, beside its settings; the fields are its keys.

    Args:
        metrics: Of candidate, parent and persistence on the gate's windows.
        verdict: The gate's, as JSON has it.
    """

    version: str
    status: str
    source: str
    reason: str
    job_id: str
    horizon_rows: int
    trained_until_s: float
    metrics: Mapping[str, Any]
    verdict: Mapping[str, Any]


@dataclass(frozen=True)
class RecordingStory:
    """Content of a report about an offline run, beside its settings; the fields are its keys.

    Args:
        shares: Of each link's rows in training, validation and test.
        validation: Metrics of the network and the baselines on the validation windows.
    """

    reason: str
    horizon_rows: int
    version: str
    status: str
    source: str
    shares: tuple[float, float, float]
    validation: Mapping[str, Any]


def report_document(
    figures: Mapping[str, Any],
    fitted: Fit,
    settings: Mapping[str, Any],
    story: CandidateStory | RecordingStory,
    data_quality: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the report, as JSON has it. target_achieved follows from the figures alone.

    Args:
        figures: From model.judge.performance.
        settings: From model.training.files.settings_document.
        data_quality: Findings of model.windows.quality, as JSON has them.
        notes: Sentences to put first.
    """
    best = {name: best_baseline(figures, name) for name in TARGETS}
    unforecast = [name for name, measured in zip(TARGETS, forecast_targets(fitted.model), strict=True) if not measured]
    return {
        **settings,
        **asdict(story),
        "target_achieved": figures["success"],
        "criteria_met": figures["criteria_met"],
        "notes": [*notes, *_notes(figures, best, unforecast), *_network_notes(fitted, settings)],
        "forecast_targets": [name for name in TARGETS if name not in unforecast],
        "performance": figures,
        "best_baseline": {name: None if each is None else {"name": each[0], "mae": each[1]} for name, each in best.items()},
        "training_duration_seconds": round(fitted.duration_s, 3),
        "training": {
            "started_from": fitted.started_from,
            **_course(fitted.history),
            **({} if fitted.ahead is None else {"ahead": _course(fitted.ahead)}),
        },
        "network": _network(fitted, settings),
        "data_quality": data_quality,
    }


def write_report(folder: Path, report: Mapping[str, Any], fitted: Fit, judged: Judged) -> None:
    """Write both forms of the report into a version's folder."""
    write_document(folder / REPORT_NAME, dict(report))
    (folder / PAGE_NAME).write_text(render(report, history_document(fitted), judged), encoding="utf-8")


def judged_rows(
    dataset: Dataset, actual: Floats, forecasts: Mapping[str, Floats], attention: Floats | None, ahead: Floats | None = None
) -> Judged:  # fmt: skip
    """Return the M judged windows in order of time, for the page. actual and forecasts: float32 (M, 4). ahead: (M, H, 4, 4)."""
    table, index = dataset.table, dataset.judged
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
        ahead=None if ahead is None else ahead[in_time],
        actual_ahead=None if ahead is None else targets_at(dataset.targets, index.ahead[in_time]),
    )


def attention_of(model: keras.Model, data: TrainingData, index: WindowIndex) -> Floats | None:
    """Return float32 (T,), the attention's mean weight of each step over windows and channels; None if the network has no attention.

    Args:
        index: M windows; thinned to ATTENTION_WINDOWS.
    """
    if not any(layer.name == ATTENTION_LAYER for layer in model.layers):
        return None
    index = index.select(np.arange(0, len(index), max(1, -(-len(index) // ATTENTION_WINDOWS))))
    weights = keras.Model(model.inputs[0], model.get_layer(ATTENTION_LAYER).output)
    found: Floats = called(weights, data.windows(index)).mean(axis=(0, 2))
    return found


def _notes(figures: Mapping[str, Any], best: Mapping[str, tuple[str, float] | None], unforecast: Sequence[str]) -> list[str]:
    """Return sentences for the reader. unforecast: targets that were never measured in training."""
    notes = []
    reached = [name for name, entry in figures["criteria"].items() if entry["met"]]
    if reached:
        notes.append(f"Criteria met: {', '.join(reached)}.")
    else:
        missed = ", ".join(f"{name} {_number(entry['reached'])} of {entry['wanted']:g}" for name, entry in figures["criteria"].items())
        notes.append(f"No criterion is met ({missed}). If the baselines miss them by as much, the data allows no more.")
    for name, baseline in best.items():
        mae = figures["targets"][name]["mae"]
        if baseline is None or mae is None:
            continue
        skill = figures["skill"][baseline[0]][name]
        if skill is None or skill["low"] is None:
            continue
        best_one = f"the best baseline, {baseline[0]}"
        if skill["low"] > 0:
            verdict = f"forecast better than by {best_one}: the error is {skill['skill']:.1%} smaller"
        elif skill["high"] < 0:
            verdict = f"forecast worse than by {best_one}: the error is {-skill['skill']:.1%} larger; use {baseline[0]}"
        else:
            verdict = f"forecast as well as by {best_one}: the difference ({skill['skill']:+.1%}) may be chance"
        notes.append(f"{name} is {verdict}.")
    if unforecast:
        notes.append(f"Never measured in training, so missing in every forecast: {', '.join(unforecast)}.")
    if unmeasured := [name for name in figures["unmeasured"] if name not in unforecast]:
        notes.append(f"Not measured in the test rows, so not in any average: {', '.join(unmeasured)}.")
    return notes


def _course(history: History) -> dict[str, Any]:
    """Return the course of a training in short: of its epochs only how many they were."""
    return {**plain(history), "epochs": len(history.epochs)}


def _network(fitted: Fit, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is taken of the network: its share of the next row's forecast, and share and gain at each horizon, by target.

    A gain is by how much less error the network has by itself than the best simple forecast, on validation windows, as a share.
    """
    document: dict[str, Any] = {"next_row_share": dict(zip(TARGETS, map(float, fitted.shares), strict=True))}
    if fitted.compared is not None:
        document["compared"] = {**plain(fitted.compared), "published": settings["architecture"]["encoder"]}
    if fitted.blended is not None:
        horizons = settings["architecture"]["ahead"]["horizons"]
        document["horizons"] = [
            {
                "rows": rows,
                "share": dict(zip(TARGETS, map(float, share), strict=True)),
                "gain": {name: None if np.isnan(each) else float(each) for name, each in zip(TARGETS, gain, strict=True)},
            }
            for rows, share, gain in zip(horizons, fitted.blended.share, fitted.blended.gain, strict=True)
        ]
    return document


def _network_notes(fitted: Fit, settings: Mapping[str, Any]) -> list[str]:
    """Return sentences about horizons that no run reaches, and about the network and linear forecasts."""
    if fitted.blended is None:
        return []
    horizons, gains = settings["architecture"]["ahead"]["horizons"], fitted.blended.gain
    far = [str(rows) for rows, gain in zip(horizons, gains, strict=True) if np.isnan(gain).all()]
    notes = []
    if far:
        notes.append(
            f"No run is long enough for {', '.join(far)} rows ahead: what is forecast there is the level, with the bounds of the furthest "
            "horizon that some run reaches. Leave them out, or record longer."
        )
    return notes + _choice_notes(fitted, settings)


def _choice_notes(fitted: Fit, settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence if linear forecasts were tried beside the network, or if the network adds nothing."""
    assert fitted.blended is not None
    if (compared := fitted.compared) is not None:
        figures = (
            f"on the validation windows its score is {compared.network:.4g} and theirs {compared.linear:.4g} errors of persistence; "
            f"the 95 % interval of the difference is {compared.low:+.3g} to {compared.high:+.3g}"
        )
        if compared.network_pays:
            return [f"The network forecasts better than linear forecasts: {figures}."]
        return [f"Linear forecasts are published, which cost less: the network is not better beyond chance ({figures})."]
    judged = ~np.isnan(fitted.blended.gain)
    if not judged.any() or fitted.blended.share[judged].any():
        return []
    encoder = settings["architecture"]["encoder"]
    smaller = "" if encoder == "linear" else "; --architecture linear forecasts the same, and costs less"
    return [f"The network adds nothing to simple forecasts at any horizon: its share is 0{smaller}."]


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
