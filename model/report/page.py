"""report.html: one page about a training, in one file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.telemetry import TARGETS, Doubles, Floats, Ints
from model.report import charts

HOURS: Final = tuple(f"{hour:02d}" for hour in range(24))
GROUPS_MOST: Final = 12
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2330; background: #f5f6f8; margin: 0 auto; max-width: 1080px; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 8px; }
section { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 16px 20px; margin: 16px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid #e8ebef; } th:first-child, td:first-child { text-align: left; }
.good { color: #2c7a4b; } .bad { color: #b03030; } .quiet { color: #667080; } svg { width: 100%; height: auto; } li { margin: 2px 0; }
"""


@dataclass(frozen=True, eq=False)
class Judged:
    """The M rows that a network was judged on, in order of time.

    Args:
        time_s: float64 (M,), UTC seconds.
        link: int32 (M,), index into links.
        link_type: M names.
        actual: float32 (M, 4), in the targets' units, NaN if not measured.
        forecasts: float32 (M, 4) each, of "network" and the baselines, NaN if not forecast.
        attention: float32 (T,), mean weight of each step; None if the network has no such layer.
        ahead: float32 (M, H, 4, 4), lower, median, upper and mean forecast of each horizon; None without horizons.
        actual_ahead: float32 (M, H, 4), what was measured there.
    """

    time_s: Doubles
    link: Ints
    links: tuple[str, ...]
    link_type: tuple[str, ...]
    actual: Floats
    forecasts: Mapping[str, Floats]
    attention: Floats | None
    ahead: Floats | None = None
    actual_ahead: Floats | None = None


def render(report: Mapping[str, Any], history: Mapping[str, Any], judged: Judged) -> str:
    """Return the page. Every text of the data is escaped.

    Args:
        report: TRAINING_REPORT.json.
        history: training_history_<version>.json.
    """
    measured = [name for name in TARGETS if name not in report["performance"]["unmeasured"]]
    busiest = int(np.bincount(judged.link).argmax())
    of_link: NDArray[np.bool_] = judged.link == busiest
    shown = {name: forecast[of_link] for name, forecast in judged.forecasts.items()}
    hours = [HOURS[int(at_s % 86_400 // 3_600)] for at_s in judged.time_s.tolist()]
    types = sorted(set(judged.link_type), key=lambda name: (-judged.link_type.count(name), name))[:GROUPS_MOST]
    parts = [
        _summary(report, measured),
        _section(
            "Against the baselines",
            charts.comparison(report["performance"], measured),
            "1 - MAE / MAE of the baseline, 95 % interval.",
        ),
        _ahead(report, judged, of_link, measured),
        _learning_curves(history),
        _section(
            "Forecast and actual value over time",
            charts.over_time(judged.time_s[of_link], judged.actual[of_link], shown, measured),
            f"The last rows of {escape(judged.links[busiest])}, the link with the most windows.",
        ),
        _section("Forecast against actual value", charts.scatter(judged.actual, judged.forecasts["network"], measured)),
        _section("Error by hour of the day (UTC)", charts.error_by(hours, HOURS, judged.actual, judged.forecasts, measured)),
        _section("Error by link type", charts.error_by(judged.link_type, types, judged.actual, judged.forecasts, measured)),
        _section("Attention over the window", charts.attention(judged.attention)) if judged.attention is not None else "",
        _quality(report["data_quality"]),
        _settings(report),
    ]
    title = f"Training report {escape(report['version'])}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>{"".join(parts)}</body></html>\n'
    )


def _ahead(report: Mapping[str, Any], judged: Judged, of_link: NDArray[np.bool_], measured: Sequence[str]) -> str:
    """Return the section on forecasts of several horizons; empty without them."""
    if judged.ahead is None or judged.actual_ahead is None:
        return ""
    horizons, coverage = report["performance"]["horizons"], report["architecture"]["ahead"]["coverage"]
    rows = [
        [
            escape(target),
            f"{entry['rows']}",
            f"{each['windows']:,}",
            *(_number(each[key]) for key in ("mae", "skill", "coverage", "width", "rmse", "correlation")),
        ]
        for target in measured
        for entry in horizons
        if (each := entry["targets"][target])["windows"]
    ]
    table = _table(["target", "rows ahead", "windows", "MAE", "skill over persistence", "coverage", "width", "RMSE", "correlation"], rows)
    errors = charts.error_by_horizon(horizons, measured)
    bands = charts.bands(
        judged.time_s[of_link], judged.ahead[of_link], judged.actual_ahead[of_link], [e["rows"] for e in horizons], measured
    )
    note = (
        f"Each interval is to hold {coverage:.0%} of what is measured. MAE is of the median, RMSE and correlation are of the mean. "
        "Below: the last rows of the link with the most windows."
    )
    return _section("Forecasts further ahead", table + errors + bands, note)


def _learning_curves(history: Mapping[str, Any]) -> str:
    """Return a section for each network that was trained: that of the next row, and that of several horizons."""
    ahead = {"started_from": history["started_from"], **history.get("ahead", {"epochs": []})}
    named = (
        ("Learning curves", history, "mean absolute error, scaled"),
        ("Learning curves of the forecasts further ahead", ahead, "quantile loss, in errors of the level"),
    )
    return "".join(_section(title, charts.learning_curves(each, loss)) for title, each, loss in named if each["epochs"])


def _section(title: str, content: str, note: str = "") -> str:
    """content and note: HTML."""
    return f"<section><h2>{title}</h2>{f'<p class=quiet>{note}</p>' if note else ''}{content}</section>\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _summary(report: Mapping[str, Any], measured: Sequence[str]) -> str:
    performance = report["performance"]
    forecasters = {"network": performance["targets"], **{name: entry["targets"] for name, entry in performance["baselines"].items()}}
    figures = ("mae", "rmse", "mape_percent", "r2", "correlation", "accuracy_percent")
    rows = [
        [escape(target), escape(name), *(_number(targets[target][figure]) for figure in figures)]
        for target in measured
        for name, targets in forecasters.items()
    ]
    criteria = "".join(
        f"<li class={'good' if entry['met'] else 'bad'}>average {escape(name)} {entry['op']} {entry['wanted']:g}: "
        f"{_number(entry['reached'])}, {'met' if entry['met'] else 'not met'}</li>"
        for name, entry in performance["criteria"].items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report["notes"])
    return (
        f"<h1>Training report {escape(report['version'])}</h1><p class=quiet>{escape(report['source'])}, "
        f"{escape(report['created_at'])}, {report['training_duration_seconds']:.0f} s of training, {escape(report['status'])}</p>"
        f"<section><h2>What was reached</h2><ul>{criteria}</ul><ul>{notes}</ul>"
        f"{_table(['target', 'forecast by', 'MAE', 'RMSE', 'MAPE %', 'R²', 'correlation', 'accuracy %'], rows)}</section>\n"
    )


def _quality(quality: Mapping[str, Any]) -> str:
    span = " to ".join(datetime.fromtimestamp(quality[end], UTC).strftime("%Y-%m-%d %H:%M") for end in ("from_s", "until_s"))
    found = "".join(f"<li>{escape(each['level'])}: {escape(each['what'])}: {escape(each['action'])}</li>" for each in quality["findings"])
    text = (
        f"<p>{quality['rows']:,} rows of {quality['links']:,} links, {span} UTC, {quality['gaps']:,} gaps; "
        f"{', '.join(f'{count:,} {escape(part)} windows' for part, count in quality['windows'].items())}.</p><ul>{found}</ul>"
    )
    return _section("Data quality", text + charts.missing(quality["missing_ratio"]))


def _settings(report: Mapping[str, Any]) -> str:
    rows = [[escape(str(name)), escape(str(value))] for name, value in {**report["training_config"], **report["architecture"]}.items()]
    return _section("Settings", _table(["setting", "value"], rows))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
