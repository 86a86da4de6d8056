"""Curves of the telemetry behind an alert: the signals of the affected links around it, from the training buffer."""

from __future__ import annotations

import html
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from daemon.commands.alerts.command import in_words
from daemon.commands.alerts.forecasts import forecasts_for
from daemon.config.load import Config
from daemon.state.manifests import MOST_MANIFEST_BYTES
from daemon.state.snapshot import Manifest
from features.offline import RawTable
from features.telemetry import NUMERIC, TARGETS, Doubles, Flags, Floats, Longs
from model.buffer.rows import read_segments
from model.buffer.segments import SegmentError, describe
from model.registry.plain_file import read_plain_bytes
from model.registry.versions import Registry
from streams.events import EventData

if TYPE_CHECKING:  # only --html needs Matplotlib
    from matplotlib.figure import Figure

BEFORE_S: Final = 3 * 3600.0
"""Seconds of telemetry before the change, at least."""
AFTER_S: Final = 2 * 3600.0
"""Seconds of telemetry after the incident was opened, at least."""
BEFORE_DELAYS: Final = 3.0
AFTER_DELAYS: Final = 2.0
"""The same in multiples of the detection delay: links that report seldom need a wider picture."""
POINTS: Final = 120
"""Points of a curve: steps of two and a half minutes."""
_HEIGHT: Final = 14
"""Lines of a plot in a terminal."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The curve of one signal over the affected links.

    Args:
        signal: name of the signal.
        since_s: UTC seconds of the change.
        opened_s: UTC seconds at which the incident was opened.
        links: number of links with rows.
        time_s: float64 (P,), UTC seconds, the middle of each step.
        low: float32 (P,), lower quartile of all rows of these links in the step, in the signal's unit; NaN without rows.
        middle: float32 (P,), their median.
        high: float32 (P,), their upper quartile.
        forecast: float32 (P,), the median of what was forecast for these rows, each by the row before it; NaN if nothing was.
        version: the version that forecast; None if there was none.
        before, after: level before the change and after it, in the signal's unit; None if the alert does not say.
    """

    signal: str
    since_s: float
    opened_s: float
    links: int
    time_s: Doubles
    low: Floats
    middle: Floats
    high: Floats
    forecast: Floats
    version: str | None
    before: float | None
    after: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a document with None for NaN."""
        drawn = ("low", "middle", "high", "forecast")
        curves = {name: [None if np.isnan(value) else float(value) for value in getattr(self, name)] for name in drawn}
        named = ("signal", "since_s", "opened_s", "links", "version", "before", "after")
        head = {name: getattr(self, name) for name in named}
        return head | {"time_s": self.time_s.tolist()} | curves


def evidence_of(events: list[EventData], state: Path, config: Config | None = None, models: Path | None = None) -> list[Evidence]:
    """Read the curves of an incident's signals.

    Args:
        events: of one incident.
        state: the state directory.
        config: of the daemon; None: nothing is forecast.
        models: folder of the versions; None: that of the configuration.

    Returns:
        A curve for each signal, from before the change until after the incident was opened. Empty if the buffer has no rows of its links.
    """
    last = next((event["data"] for event in reversed(events) if event["data"].get("signals")), None)
    if last is None:
        return []
    since_s, opened_s = float(last["since_s"]), float(last["opened_s"])
    begin_s = since_s - max(BEFORE_S, BEFORE_DELAYS * (opened_s - since_s))
    end_s = opened_s + max(AFTER_S, AFTER_DELAYS * (opened_s - since_s))
    try:
        paths = [path for path in named_segments(state) if _within(path, begin_s, end_s)]
        table = read_segments(paths, begin_s)
    except (SegmentError, ValueError, OSError):  # a daemon that runs merges and drops files meanwhile
        return []
    affected = set(last.get("links", ()))
    wanted = np.isin(table.link, [index for index, name in enumerate(table.links) if name in affected])
    rows = np.flatnonzero(wanted & (table.time_s < end_s))
    edges = np.linspace(begin_s, end_s, POINTS + 1)
    middle_s = (edges[:-1] + edges[1:]) / 2
    step = np.searchsorted(edges, table.time_s[rows], side="right") - 1
    links = len(np.unique(table.link[rows]))
    version, forecasts = None, np.full((len(table), len(TARGETS)), np.nan, np.float32)
    if config is not None and len(rows):
        registry = Registry(models or config.models.directory)
        chosen = _rows_of(table, wanted)
        version, forecasts[wanted] = forecasts_for(chosen, registry, opened_s, config)
    found = []
    first: dict[str, Any] = {}
    for one in last["signals"]:
        first.setdefault(one["signal"], one)
    for change in (one for name, one in first.items() if name in NUMERIC):
        column = NUMERIC.index(change["signal"])
        values = table.numeric[rows, column]
        if not np.isfinite(values).any():
            continue
        made = forecasts[rows, column] if column < len(TARGETS) else np.full(len(rows), np.nan, np.float32)
        level = (change.get("before"), change.get("after")) if change.get("change") in ("shift", "ramp") else (None, None)
        low, middle, high = _quartiles(values, step)
        made_middle = _quartiles(made, step)[1]
        found.append(Evidence(change["signal"], since_s, opened_s, links, middle_s, low, middle, high, made_middle, version, *level))
    return found


def _rows_of(table: RawTable, wanted: Flags) -> RawTable:
    """Return the rows of some links of a table."""
    kept, link = np.unique(table.link[wanted], return_inverse=True)
    links = tuple(table.links[index] for index in kept.tolist())
    return RawTable(links, link.astype(np.int32), table.time_s[wanted], table.numeric[wanted], table.codes[wanted], table.values)


def _quartiles(values: Floats, step: Longs) -> Floats:
    """float32 (3, POINTS) of values float32 (R,), each in its step; NaN for a step without a value."""
    found = np.full((3, POINTS), np.nan, np.float32)
    for index in np.unique(step):
        known = values[(step == index) & np.isfinite(values)]
        if len(known):
            found[:, index] = np.quantile(known, (0.25, 0.5, 0.75))
    return found


def plot(evidence: Evidence, width: int, *, colours: bool) -> str:
    """Draw what was measured and forecast for a terminal of `width` characters, over the hours from the change.

    Args:
        colours: escape codes may be written.
    """
    import plotext

    known = np.isfinite(evidence.middle)
    hours = (evidence.time_s[known] - evidence.since_s) / 3600
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(min(width, 120), _HEIGHT)
    for name in ("low", "high", "middle"):
        marker = "braille" if name == "middle" else "dot"
        plotext.plot(hours.tolist(), getattr(evidence, name)[known].tolist(), marker=marker)
    shown = known & np.isfinite(evidence.forecast)
    if shown.any():
        at = (evidence.time_s[shown] - evidence.since_s) / 3600
        plotext.plot(at.tolist(), evidence.forecast[shown].tolist(), marker="x")
    plotext.vline(0.0)
    if evidence.before is not None:
        plotext.hline(evidence.before)
    plotext.title(f"{evidence.signal}: median and quartiles of {evidence.links} links, hours from the change")
    drawn = str(plotext.build())
    if shown.any():
        drawn += f"\nx: what {evidence.version} forecast for the next row"
    if evidence.before is not None:
        drawn += f"\nlevel: {evidence.before:.4g} before the change" + (
            f", {evidence.after:.4g} after it" if evidence.after is not None else ""
        )
    return drawn if colours else str(plotext.uncolorize(drawn))


def picture(evidence: list[Evidence]) -> Figure:
    """Draw the curves one below the other, with the change and the moment at which the incident was opened."""
    from matplotlib import rcdefaults
    from matplotlib.figure import Figure

    rcdefaults()  # a matplotlibrc in the working directory must not count
    figure = Figure(figsize=(10.0, 3.0 * len(evidence)), layout="constrained")
    for curve, axes in zip(evidence, figure.subplots(len(evidence), squeeze=False)[:, 0], strict=True):
        known = np.isfinite(curve.middle)
        hours = (curve.time_s[known] - curve.since_s) / 3600
        axes.fill_between(hours, curve.low[known], curve.high[known], alpha=0.3, linewidth=0)
        axes.plot(hours, curve.middle[known], marker=".", markersize=3, label="measured")
        if np.isfinite(curve.forecast[known]).any():
            axes.plot(hours, curve.forecast[known], linewidth=1, label=f"forecast for the next row by {curve.version}")
        for name, level in (("before", curve.before), ("after", curve.after)):
            if level is not None:
                axes.axhline(level, linestyle=":", linewidth=1, color="grey", label=f"level {name}")
        axes.legend(fontsize="small")
        axes.axvline(0.0, linestyle="--", color="black", linewidth=1)
        axes.axvline((curve.opened_s - curve.since_s) / 3600, linestyle=":", color="black", linewidth=1)
        links = "1 link" if curve.links == 1 else f"{curve.links} links"
        axes.set(title=f"{curve.signal}, median and quartiles of {links}", xlabel="hours from the change (dotted: opened)")
    return figure


def page(events: list[EventData], evidence: list[Evidence]) -> str:
    """Return a self-contained HTML page: the events of an incident, and its curves."""
    from model.report.charts import svg

    lines = [(event["time"], in_words(event)) for event in events]
    items = "".join(f"<li>{html.escape(time)} {html.escape(text)}</li>" for time, text in lines)
    title = f"Incident {html.escape(str(events[-1]['data'].get('incident', '')))}"
    curves = svg(picture(evidence)) if evidence else "<p>The training buffer has no telemetry of these links at that time.</p>"
    style = "body{font-family:sans-serif;max-width:60rem;margin:2rem auto}svg{width:100%;height:auto}"
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>"
    return f"{head}<h1>{title}</h1><ul>{items}</ul>{curves}\n"


def named_segments(state: Path) -> list[Path]:
    """Return the segments that the newest checkpoint of each partition names. Others in the folder are merged, or not named yet."""
    newest: dict[tuple[str, int], tuple[int, tuple[str, ...]]] = {}
    for path in (state / "checkpoints").glob("*/MANIFEST.json"):
        with suppress(OSError, ValueError):  # being deleted, or damaged
            manifest = msgspec.json.decode(read_plain_bytes(path, MOST_MANIFEST_BYTES), type=Manifest)
            for part in manifest.parts:
                key = (part.topic, part.number)
                newest[key] = max(newest.get(key, (-1, ())), (manifest.sequence, tuple(part.segments)))
    return [state / "buffer" / name for _, names in sorted(newest.values()) for name in names]


def _within(path: Path, begin_s: float, end_s: float) -> bool:
    segment = describe(path)
    return segment.last_time_s >= begin_s and segment.first_time_s <= end_s
