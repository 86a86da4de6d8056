"""The picture of the README, docs/demo.svg, drawn from what a demo has left: its telemetry, its alerts and its two versions.

    make picture                       runs the demo first (about five minutes)
    python docs/picture.py demo        draws from the folder of an earlier one

Every number in it comes from that folder. Forecasts are made anew with the published graphs, by examples/forecast.py: each row by the
version that was live when the row came.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
METRIC = "rtt_ms"
LINKS_MAX = 16
"""Links of the incident whose errors are averaged: enough for a smooth curve, and a minute of forecasting."""
BEFORE_S, AFTER_S = 3600.0, 3600.0
"""Shown before the change and after the new version."""
CLOSE_UP_S = 1800.0
BLOCK_S = 600.0
"""One point of the error curve."""
WIDTH, HEIGHT = 860, 470


class Run(NamedTuple):
    """What the picture shows. Times are UTC seconds of the simulation, rows sorted by time."""

    since_s: float
    opened_s: float
    live_s: float
    versions: tuple[str, str]
    region: str
    error: list[tuple[float, float]]
    """Time of a block and mean absolute error of its forecasts, in units of that before the change."""
    link: str
    close_ups: tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]
    """Time, measured and forecast of one link, just before the new version and just after it."""


def read_run(folder: Path) -> Run:
    """Return what a demo in the folder has left. Raises ValueError if it has no incident that ended in a new version."""
    events = [json.loads(line) for line in (folder / "state/events/drift.ndjson").read_text().splitlines()]
    opened = next((event for event in events if event["type"] == "dwcp.drift.opened" and event["data"]["scope"] == "region"), None)
    published = [event for event in events if event["type"] == "dwcp.drift.retraining"]
    if opened is None or len(published) < 2:
        raise ValueError(f"{folder}: has no incident of a region that ended in a new version; run make demo again")
    reported = [event["data"] for event in events if event["data"]["incident"] == opened["data"]["incident"] and event["data"].get("links")]
    since_s, live_s = reported[-1]["since_s"], seconds(published[-1]["time"])
    new = published[-1]["data"]["version"]
    old = json.loads((folder / "models" / new / "MANIFEST.json").read_text())["parent"]
    table = rows_of(folder, reported[-1]["links"][:LINKS_MAX], since_s - 2 * BEFORE_S, live_s + AFTER_S)
    spec = importlib.util.spec_from_file_location("forecast", ROOT / "examples" / "forecast.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    models = [module.LiveModel(folder / "models", version) for version in (old, new)]
    found = {
        link: [
            (row["timestamp"], row[METRIC], models[row["timestamp"] >= live_s].forecast(rows[max(0, index - 39) : index])[METRIC])
            for index, row in enumerate(rows)
            if index >= 39 and row[METRIC] is not None and row["timestamp"] >= since_s - BEFORE_S
        ]
        for link, rows in table.items()
    }
    link = next(iter(found))
    close_ups = (
        [row for row in found[link] if live_s - CLOSE_UP_S <= row[0] < live_s],
        [row for row in found[link] if live_s <= row[0] < live_s + CLOSE_UP_S],
    )
    return Run(since_s, opened["data"]["opened_s"], live_s, (old, new), opened["subject"], errors(found, since_s), link, close_ups)


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def rows_of(folder: Path, links: Sequence[str], begin_s: float, end_s: float) -> dict[str, list[dict[str, Any]]]:
    """Return the records of each link from the training buffer, in order of time, as a producer has sent them."""
    tables = [pq.read_table(path) for path in sorted((folder / "state/buffer").glob("*.parquet"))]
    table = pa.concat_tables([table.cast(plain(table.schema)) for table in tables]).sort_by("time_s")
    rows: dict[str, list[dict[str, Any]]] = {link: [] for link in links}
    seen = set()
    for row in table.to_pylist():
        key = (row["link"], row["time_s"])  # a merged segment and its parts may both still lie there
        if row["link"] in rows and begin_s <= row["time_s"] < end_s and key not in seen:
            seen.add(key)
            given = {name: value for name, value in row.items() if not (isinstance(value, float) and np.isnan(value))}
            rows[row["link"]].append({METRIC: None, **given, "timestamp": row["time_s"]})
    return rows


def plain(schema: pa.Schema) -> pa.Schema:
    """Dictionaries of two segments differ; texts do not."""
    return pa.schema([pa.field(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type) for field in schema])


def errors(found: dict[str, list[tuple[float, float, float]]], since_s: float) -> list[tuple[float, float]]:
    """Mean over the links of each one's absolute error, in units of its own before the change, block by block."""
    blocks: dict[float, list[float]] = {}
    for rows in found.values():
        unit = np.mean([abs(measured - forecast) for time_s, measured, forecast in rows if time_s < since_s])
        for time_s, measured, forecast in rows:
            blocks.setdefault((time_s - since_s) // BLOCK_S, []).append(abs(measured - forecast) / unit)
    return [(since_s + (block + 0.5) * BLOCK_S, float(np.mean(values))) for block, values in sorted(blocks.items())]


STYLE = """
text{font:13px system-ui,sans-serif;fill:#1f2328}.s{font-size:12px;fill:#59636e}.h{font-weight:600}
.g{stroke:#d1d9e0;stroke-width:1}.e{stroke-width:1.5;stroke-dasharray:4 3}.l{fill:none;stroke-width:2}
.a{stroke:#bc4c00}.at{fill:#bc4c00}.n{stroke:#1a7f37}.nt{fill:#1a7f37}.r{stroke:#59636e}.f{stroke:#0969da}.ft{fill:#0969da}.m{fill:#59636e}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.s{fill:#9198a1}.g{stroke:#3d444d}.a{stroke:#f0883e}.at{fill:#f0883e}
.n{stroke:#3fb950}.nt{fill:#3fb950}.r{stroke:#9198a1}.f{stroke:#58a6ff}.ft{fill:#58a6ff}.m{fill:#9198a1}}
""".replace("\n", "")


class Axes(NamedTuple):
    """A rectangle of the picture with linear scales."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def grid(self, values: Sequence[float], unit: str) -> list[str]:
        drawn = []
        for value in values:
            _, y = self.at(self.x[0], value)
            drawn.append(f'<path class="g" d="M{self.left:g} {y:.1f}h{self.width:g}"/>')
            drawn.append(text(self.left - 8, y + 4, f"{value:g}{unit}", "s", "end"))
        return drawn

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        path = "L".join("{:.1f} {:.1f}".format(*self.at(x, y)) for x, y in points)
        return f'<path class="l {kind}" d="M{path}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def draw(run: Run) -> str:
    """Return the SVG: the error of the region's forecasts above, one link before and after the new version below."""
    most = max(value for _, value in run.error)
    above = Axes(60, 58, WIDTH - 80, 160, (run.error[0][0], run.error[-1][0]), (0.0, most * 1.1))
    parts = [text(20, 24, f"Error of the RTT forecasts on re-routed links of {run.region} (1: before the re-route)", "h")]
    parts += above.grid(range(1 + int(most)), "")
    hours = range(int((above.x[0] - run.since_s) // 3600) + 1, int((above.x[1] - run.since_s) // 3600) + 1)
    for hour in hours:
        x, y = above.at(run.since_s + 3600 * hour, 0.0)
        parts.append(text(x, y + 17, f"{hour:+d} h" if hour else "0", "s", "middle"))
    delay = (run.opened_s - run.since_s) / 60
    marks = (
        (run.since_s, "r", "s", "re-route, as the alert dates it", "end"),
        (run.opened_s, "a", "at", f"alert, {delay:.0f} min later", "start"),
    )
    for time_s, line, label, words, anchor in (*marks, (run.live_s, "n", "nt", "new version live", "start")):
        x, _ = above.at(time_s, 0.0)
        parts.append(f'<path class="e {line}" d="M{x:.1f} {above.top - 8:g}V{above.top + above.height:g}"/>')
        parts.append(text(x + (4 if anchor == "start" else -4), above.top - 2, words, label, anchor))
    parts.append(above.line(run.error, "f"))
    parts.append(text(20, 272, f"RTT of {run.link.split('|')[0]}, minute by minute", "h") + text(560, 272, "●", "m"))
    parts.append(text(576, 272, "measured", "s") + text(656, 272, "━", "ft") + text(676, 272, "forecast one minute before", "s"))
    values = [value for close_up in run.close_ups for row in close_up for value in row[1:]]
    low, high = min(values), max(values)
    limits = (low - 0.1 * (high - low), high + 0.1 * (high - low))
    width = (WIDTH - 80 - 70) / 2
    starts = (run.live_s - CLOSE_UP_S, run.live_s)
    for left, start_s, rows, words in zip((60.0, 130.0 + width), starts, run.close_ups, ("before", "after"), strict=True):
        axes = Axes(left, 300, width, 130, (start_s, start_s + CLOSE_UP_S), limits)
        parts += axes.grid([round(low + share * (high - low), 1) for share in (0.0, 0.5, 1.0)], " ms")
        parts.append(text(left, 453, f"half an hour {words} the new version: error {mean_error(rows):.2g} ms", "s"))
        parts.append(axes.line([(time_s, forecast) for time_s, _, forecast in rows], "f"))
        points = (axes.at(time_s, measured) for time_s, measured, _ in rows)
        parts.append('<g class="m">' + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points) + "</g>")
    day = datetime.fromtimestamp(run.since_s, UTC)
    title = f"A run of the demo: re-route at {day:%H:%M}, alert after {delay:.0f} minutes, version {run.versions[1]}"
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f"{head}<title>{title}</title><style>{STYLE}</style>\n{body}\n</svg>\n"


def mean_error(rows: Sequence[tuple[float, float, float]]) -> float:
    return float(np.mean([abs(measured - forecast) for _, measured, forecast in rows]))


def main(folder: Path) -> None:
    """Write docs/demo.svg."""
    (ROOT / "docs" / "demo.svg").write_text(draw(read_run(folder)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
