"""The telemetry that an alert rests on: the affected links' signals around it, from the training buffer, as curves."""

from __future__ import annotations

import html
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from daemon.state.checkpoint import MOST_MANIFEST_BYTES
from daemon.state.snapshot import Manifest
from features.telemetry import NUMERIC, Doubles, Floats
from model.buffer.rows import read_segments
from model.buffer.segments import SegmentError, describe
from model.registry.plain_file import read_plain_bytes
from streams.read_events import EventData

if TYPE_CHECKING:  # Matplotlib is for the one command that draws
    from matplotlib.figure import Figure

BEFORE_S: Final = 3 * 3600.0
AFTER_S: Final = 2 * 3600.0
BEFORE_DELAYS: Final = 3.0
AFTER_DELAYS: Final = 2.0
"""A change that took long to find, of links that report seldom, shows in a picture of as many times that."""
POINTS: Final = 120
"""Of a curve: steps of two and a half minutes."""
_HEIGHT: Final = 14


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signal of the affected links.

    time_s: float64 (P,), the middle of each step. low, middle, high: float32 (P,), quartiles and median over all rows of these links in the
    step, NaN where there are none. links: how many have rows.
    """

    signal: str
    since_s: float
    opened_s: float
    links: int
    time_s: Doubles
    low: Floats
    middle: Floats
    high: Floats

    def to_json(self) -> dict[str, Any]:
        curves = {name: [None if np.isnan(value) else float(value) for value in getattr(self, name)] for name in ("low", "middle", "high")}
        told = {"signal": self.signal, "since_s": self.since_s, "opened_s": self.opened_s, "links": self.links}
        return told | {"time_s": self.time_s.tolist()} | curves


def evidence_of(events: list[EventData], state: Path) -> list[Evidence]:
    """The curves of an incident's signals, from BEFORE_S before it began to AFTER_S after it was opened, or more (see BEFORE_DELAYS).

    events: of one incident. state: the state directory. Empty where the buffer has no rows of its links at that time.
    """
    told = [event["data"] for event in events if event["data"].get("signals")]
    if not told:
        return []
    last = told[-1]
    delay_s = float(last["opened_s"]) - float(last["since_s"])
    begin_s = float(last["since_s"]) - max(BEFORE_S, BEFORE_DELAYS * delay_s)
    end_s = float(last["opened_s"]) + max(AFTER_S, AFTER_DELAYS * delay_s)
    try:
        paths = [path for path in named_segments(state) if _within(path, begin_s, end_s)]
        table = read_segments(paths, begin_s)
    except (SegmentError, ValueError, OSError):  # a daemon that runs merges and drops files meanwhile
        return []
    wanted = np.isin(table.link, [at for at, name in enumerate(table.links) if name in set(last["links"])])
    rows = np.flatnonzero(wanted & (table.time_s < end_s))
    edges = np.linspace(begin_s, end_s, POINTS + 1)
    step = np.searchsorted(edges, table.time_s[rows], side="right") - 1
    found = []
    for signal in dict.fromkeys(one["signal"] for one in last["signals"] if one["signal"] in NUMERIC):
        values = table.numeric[rows, NUMERIC.index(signal)]
        if np.isfinite(values).any():
            quartiles = np.full((3, POINTS), np.nan, np.float32)
            for at in np.unique(step):
                known = values[step == at]
                known = known[np.isfinite(known)]
                if len(known):
                    quartiles[:, at] = np.quantile(known, (0.25, 0.5, 0.75))
            links = len(np.unique(table.link[rows]))
            middle_s = (edges[:-1] + edges[1:]) / 2
            found.append(Evidence(signal, float(last["since_s"]), float(last["opened_s"]), links, middle_s, *quartiles))
    return found


def plot(evidence: Evidence, width: int) -> str:
    """For a terminal: the median and the quartiles over the hours around the change, which is at 0."""
    import plotext

    known = np.isfinite(evidence.middle)
    hours = (evidence.time_s[known] - evidence.since_s) / 3600
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(min(width, 120), _HEIGHT)
    for name in ("low", "high", "middle"):
        marker = "braille" if name == "middle" else "dot"
        plotext.plot(hours.tolist(), getattr(evidence, name)[known].tolist(), marker=marker)
    plotext.vline(0.0)
    plotext.title(f"{evidence.signal}: median and quartiles of {evidence.links} links, hours from the change")
    return str(plotext.build())


def picture(evidence: list[Evidence]) -> Figure:
    """The curves one below the other, with the change and the moment at which it was told."""
    from matplotlib import rcdefaults
    from matplotlib.figure import Figure

    rcdefaults()  # whatever a matplotlibrc says where the operator works
    figure = Figure(figsize=(10.0, 3.0 * len(evidence)), layout="constrained")
    for one, axes in zip(evidence, figure.subplots(len(evidence), squeeze=False)[:, 0], strict=True):
        known = np.isfinite(one.middle)
        hours = (one.time_s[known] - one.since_s) / 3600
        axes.fill_between(hours, one.low[known], one.high[known], alpha=0.3, linewidth=0)
        axes.plot(hours, one.middle[known], marker=".", markersize=3)
        axes.axvline(0.0, linestyle="--", color="black", linewidth=1)
        axes.axvline((one.opened_s - one.since_s) / 3600, linestyle=":", color="black", linewidth=1)
        of = "1 link" if one.links == 1 else f"{one.links} links"
        axes.set(title=f"{one.signal}, median and quartiles of {of}", xlabel="hours from the change (dotted: told)")
    return figure


def page(events: list[EventData], evidence: list[Evidence]) -> str:
    """A page by itself: what was told, and the curves."""
    from model.report.charts import svg

    told = [(event["time"], str(event["data"].get("summary", event["data"]))) for event in events]
    items = "".join(f"<li>{html.escape(time)} {html.escape(words)}</li>" for time, words in told)
    title = f"Incident {html.escape(str(events[-1]['data'].get('incident', '')))}"
    curves = svg(picture(evidence)) if evidence else "<p>The training buffer has no telemetry of these links at that time.</p>"
    style = "body{font-family:sans-serif;max-width:60rem;margin:2rem auto}svg{width:100%;height:auto}"
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>"
    return f"{head}<h1>{title}</h1><ul>{items}</ul>{curves}\n"


def named_segments(state: Path) -> list[Path]:
    """The segments that the newest checkpoint of each partition names: a folder has others too, which are merged or not yet named."""
    newest: dict[tuple[str, int], tuple[int, tuple[str, ...]]] = {}
    for path in (state / "checkpoints").glob("*/MANIFEST.json"):
        with suppress(OSError, ValueError):  # one that is being deleted, or damaged
            manifest = msgspec.json.decode(read_plain_bytes(path, MOST_MANIFEST_BYTES), type=Manifest)
            for part in manifest.parts:
                key = (part.topic, part.number)
                newest[key] = max(newest.get(key, (-1, ())), (manifest.sequence, tuple(part.segments)))
    return [state / "buffer" / name for _, names in sorted(newest.values()) for name in names]


def _within(path: Path, begin_s: float, end_s: float) -> bool:
    segment = describe(path)
    return segment.last_time_s >= begin_s and segment.first_time_s <= end_s
