"""Charts of report.html, each as an SVG text: Matplotlib's figures, without its global state."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from features.columns import COLUMN
from features.telemetry import TARGETS, Doubles, Floats

UNITS: Final = {name: COLUMN[name].unit or "ratio" for name in TARGETS}
_BLUE, _GREY, _RED, _GREEN = "#1f5fa8", "#8a8f98", "#c23b3b", "#2c7a4b"
_COLOURS: Final = {"network": _BLUE, "persistence": _GREY, "ewma": "#c9a227", "ridge": _GREEN}
_SHOWN_ROWS: Final = 400
"""Most rows of a time plot: more are a band of colour."""
_SCATTER_MOST: Final = 4_000
"""Most points of a scatter plot."""
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def svg(figure: Figure) -> str:
    """Return the figure as an <svg> element that scales with the page. It has no date: the same figure is the same text."""
    with io.StringIO() as text:
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        content = text.getvalue()
    content = content[content.index("<svg") :]
    return re.sub(
        r'<svg([^>]*?) height="[^"]*"([^>]*?) width="[^"]*"|<svg([^>]*?) width="[^"]*"([^>]*?) height="[^"]*"',
        r"<svg\1\2\3\4",
        content,
        count=1,
    )


def _axes(count: int, height: float = 2.4, columns: int = 2) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(10.0, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def learning_curves(history: Mapping[str, Any], loss: str) -> str:
    """Draw loss and validation loss of each epoch, and the learning rate. loss: what it is, for the axis."""
    epochs = history["epochs"]
    number = np.arange(1, len(epochs) + 1)
    with rc_context(_SETTINGS):
        figure, (losses, rates) = _axes(2)
        for key, colour, label in (("loss", _GREY, "training (with dropout)"), ("validation_loss", _BLUE, "validation")):
            losses.plot(number, [np.nan if epoch[key] is None else epoch[key] for epoch in epochs], color=colour, label=label, marker=".")
        start = history["start_validation_loss"]
        if start is not None:
            losses.axhline(start, color=_GREEN, linestyle=":", label=f"before training ({history['started_from']})")
        if history["best_epoch"]:
            losses.axvline(history["best_epoch"], color=_RED, linewidth=0.8, label=f"kept: epoch {history['best_epoch']}")
        losses.set(xlabel="epoch", ylabel=loss)
        losses.legend(frameon=False)
        rates.plot(number, [epoch["learning_rate"] for epoch in epochs], color=_GREY, marker=".")
        rates.set(xlabel="epoch", ylabel="learning rate at the start", yscale="log")
        return svg(figure)


def over_time(time_s: Doubles, actual: Floats, forecasts: Mapping[str, Floats], measured: Sequence[str]) -> str:
    """Draw the last rows of one link beside the network's forecasts. time_s: (M,), UTC seconds, ascending. actual, forecasts: (M, 4)."""
    with rc_context(_SETTINGS):
        figure, axes = _axes(len(measured))
        for target, axis in zip(measured, axes, strict=True):
            column = TARGETS.index(target)
            rows = np.flatnonzero(np.isfinite(actual[:, column]))[-_SHOWN_ROWS:]
            times = time_s[rows].astype("datetime64[s]")
            axis.plot(times, actual[rows, column], color=_GREY, linewidth=0.9, label="actual")
            axis.plot(times, forecasts["network"][rows, column], color=_BLUE, linewidth=0.9, label="forecast")
            axis.set(title=target, ylabel=UNITS[target])
            axis.tick_params(axis="x", labelrotation=25)
        if axes:
            axes[0].legend(frameon=False, loc="upper left")
        return svg(figure)


def error_by_horizon(horizons: Sequence[Mapping[str, Any]], measured: Sequence[str]) -> str:
    """Draw the mean absolute error of the network and of simple forecasts at each horizon. horizons: see `horizon_figures`."""
    with rc_context(_SETTINGS):
        figure, axes = _axes(len(measured))
        for target, axis in zip(measured, axes, strict=True):
            known = [(entry["rows"], entry["targets"][target]) for entry in horizons if entry["targets"][target]["windows"]]
            rows = [at for at, _ in known]
            for name in sorted({name for _, entry in known for name in entry["simple"]}):
                axis.plot(rows, [entry["simple"].get(name, np.nan) for _, entry in known], color=_COLOURS.get(name, _GREY), label=name)
            axis.plot(rows, [entry["mae"] for _, entry in known], color=_BLUE, marker=".", label="network")
            axis.set(title=target, xlabel="rows ahead", ylabel=f"MAE, {UNITS[target]}")
        if axes:
            axes[0].legend(frameon=False)
        return svg(figure)


def bands(time_s: Doubles, ahead: Floats, actual: Floats, horizons: Sequence[int], measured: Sequence[str]) -> str:
    """Draw the forecasts of the furthest horizon with their intervals beside what was measured.

    Args:
        time_s: float64 (M,), UTC seconds of the next row, ascending.
        ahead: float32 (M, H, 4, 4).
        actual: float32 (M, H, 4), NaN if not measured.
        horizons: H numbers of rows.
    """
    with rc_context(_SETTINGS):
        figure, axes = _axes(len(measured))
        for target, axis in zip(measured, axes, strict=True):
            column = TARGETS.index(target)
            at = max((at for at in range(len(horizons)) if np.isfinite(actual[:, at, column]).any()), default=0)
            rows = np.flatnonzero(np.isfinite(actual[:, at, column]))[-_SHOWN_ROWS:]
            times, (lower, median, upper, _) = time_s[rows].astype("datetime64[s]"), ahead[rows, at, column].T
            axis.fill_between(times, lower, upper, color=_BLUE, alpha=0.2, linewidth=0, label="interval")
            axis.plot(times, actual[rows, at, column], color=_GREY, linewidth=0.9, label="actual")
            axis.plot(times, median, color=_BLUE, linewidth=0.9, label="forecast")
            axis.set(title=f"{target}, {horizons[at]} rows ahead", ylabel=UNITS[target])
            axis.tick_params(axis="x", labelrotation=25)
        if axes:
            axes[0].legend(frameon=False, loc="upper left")
        return svg(figure)


def scatter(actual: Floats, forecast: Floats, measured: Sequence[str]) -> str:
    """Draw forecast against actual value, both (M, 4); on the line they are equal."""
    with rc_context(_SETTINGS):
        figure, axes = _axes(len(measured), height=3.0)
        for target, axis in zip(measured, axes, strict=True):
            column = TARGETS.index(target)
            rows = np.flatnonzero(np.isfinite(actual[:, column]) & np.isfinite(forecast[:, column]))
            rows = rows[:: max(1, -(-len(rows) // _SCATTER_MOST))]
            axis.scatter(actual[rows, column], forecast[rows, column], s=4, alpha=0.25, color=_BLUE, linewidths=0, rasterized=True)
            if len(rows):
                ends = [float(actual[rows, column].min()), float(actual[rows, column].max())]
                axis.plot(ends, ends, color=_RED, linewidth=0.8)
            axis.set(title=target, xlabel=f"actual, {UNITS[target]}", ylabel="forecast")
        return svg(figure)


def error_by(groups: Sequence[str], order: Sequence[str], actual: Floats, forecasts: Mapping[str, Floats], measured: Sequence[str]) -> str:
    """Draw the mean absolute error of the network and of persistence within groups of rows. groups: the group of each of M rows."""
    member = np.array(groups)
    with rc_context(_SETTINGS):
        figure, axes = _axes(len(measured))
        for target, axis in zip(measured, axes, strict=True):
            column = TARGETS.index(target)
            for name in ("persistence", "network"):
                error = np.abs(actual[:, column].astype(np.float64) - forecasts[name][:, column])
                known = [error[(member == group) & np.isfinite(error)] for group in order]
                heights = [float(part.mean()) if len(part) else 0.0 for part in known]
                axis.bar(
                    np.arange(len(order)) + (0.2 if name == "network" else -0.2), heights, width=0.4, color=_COLOURS[name], label=name
                )  # fmt: skip
            axis.set(title=target, ylabel=f"MAE, {UNITS[target]}")
            axis.set_xticks(np.arange(len(order)), order, rotation=0 if len(order) > 12 else 15, fontsize=7)
        if axes:
            axes[0].legend(frameon=False)
        return svg(figure)


def attention(weights: Floats) -> str:
    """Draw the mean attention weight of each step of the window. weights: (T,), adding up to 1; the last step is the newest row."""
    steps = np.arange(1 - len(weights), 1)
    with rc_context(_SETTINGS):
        figure, (axis,) = _axes(1, columns=1)
        axis.bar(steps, weights, color=_BLUE)
        axis.axhline(1.0 / len(weights), color=_GREY, linestyle=":", label="even")
        axis.set(xlabel="rows before the newest", ylabel="share of the attention")
        axis.legend(frameon=False)
        return svg(figure)


def comparison(performance: Mapping[str, Any], measured: Sequence[str]) -> str:
    """Draw the skill of the network against each baseline, 1 - MAE / MAE of the baseline, with its 95 % interval."""
    with rc_context(_SETTINGS):
        figure, axes = _axes(len(measured))
        for target, axis in zip(measured, axes, strict=True):
            entries = [(name, skills[target]) for name, skills in performance["skill"].items() if skills[target]]
            for place, (name, skill) in enumerate(entries):
                low, high = (skill["skill"] if skill[end] is None else skill[end] for end in ("low", "high"))
                axis.barh(place, skill["skill"], color=_COLOURS.get(name, _GREY))
                axis.plot([low, high], [place, place], color="black", linewidth=1.2)
            axis.axvline(0.0, color="black", linewidth=0.8)
            axis.set_yticks(range(len(entries)), [name for name, _ in entries])
            axis.set(title=target, xlabel="skill (right of 0: better than the baseline)")
        return svg(figure)


def missing(missing_ratio: Mapping[str, float]) -> str:
    """Draw the share of the rows in which each column has no value."""
    with rc_context(_SETTINGS):
        figure, (axis,) = _axes(1, height=3.0, columns=1)
        axis.barh(list(missing_ratio), [100.0 * share for share in missing_ratio.values()], color=_GREY)
        axis.invert_yaxis()
        axis.set(xlabel="% of the rows without a value", xlim=(0, 100))
        return svg(figure)


def error_over_time(ends_s: Sequence[float], lines: Mapping[str, Sequence[float | None]], marks_s: Sequence[float]) -> str:
    """Draw errors over time, a line for each name.

    Args:
        ends_s: UTC seconds of the ends of the parts of time.
        lines: By name an error for each part, None if there is none.
        marks_s: UTC seconds at which something changed.
    """
    times = np.array(ends_s, np.float64).astype("datetime64[s]")
    with rc_context(_SETTINGS):
        figure, (axis,) = _axes(1, height=3.0, columns=1)
        for name, values in lines.items():
            axis.plot(times, [np.nan if value is None else value for value in values], label=name, linewidth=1.2)
        for mark_s in marks_s:
            axis.axvline(np.float64(mark_s).astype("datetime64[s]"), color=_GREY, linewidth=0.7, linestyle=":")
        axis.set(ylabel="mean absolute error")
        axis.legend(frameon=False, ncols=3)
        return svg(figure)
