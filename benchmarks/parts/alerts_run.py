"""One fleet or recording through the whole chain: telemetry, a real training, the daemon's loop as `replay` runs it, and its alerts."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from daemon.clock import StreamClock
from daemon.commands import replay
from daemon.config.load import Config
from daemon.operator.logs import configure_logging
from drift.region.policy import BUDGET_LINKS
from features.telemetry import TARGETS, Doubles, Floats
from harness import answer, job_of
from parts.alerts_plan import DAY_H, Fleet, planted_at
from streams.files.source import FileSource
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, build_fleet
from streams.simulator.planted import PlantedEvent, affected_links

_HOUR_S: Final = 3600.0


def spec_of(fleet: Fleet) -> FleetSpec:
    """Return the simulated fleet, with its planted changes."""
    spec = FleetSpec(seed=fleet.seed, regions=fleet.region_list, links_per_region=fleet.links)
    events = tuple(
        PlantedEvent(
            change.kind, DEFAULT_START_S + hour * _HOUR_S, region.name, change.hours * _HOUR_S, change.share_of(fleet.links),
            change.size_sd, change.metrics, change.ramp_h * _HOUR_S,
        )
        for region, change, hour in planted_at(fleet)
    )  # fmt: skip
    return replace(spec, events=events)


def written(fleet: Fleet, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Write the telemetry of a fleet. Return its file, and the truth about each planted change."""
    spec = spec_of(fleet)
    path = write_dataset(spec, folder, "csv", fleet.hours * _HOUR_S)
    if fleet.busy:
        _disturb(fleet, spec, path)
    built = build_fleet(spec)
    truth, second_day_s = [], DEFAULT_START_S + (fleet.first_h + DAY_H) * _HOUR_S
    for (_, change, _), event in zip(planted_at(fleet), spec.events, strict=True):
        links = affected_links(built, event)
        signals = event.affected_metrics
        sizes = {signal: _median_size(built, event, TARGETS.index(signal), links) for signal in signals}
        truth.append(
            {
                "name": change.name, "kind": change.kind, "region": event.region, "start_s": event.start_s, "end_s": event.end_s,
                "signals": list(signals), "sizes": sizes, "first_day": event.start_s < second_day_s,
                "links": [built.key(int(link)).decode() for link in links],
            }
        )  # fmt: skip
    return path, truth


def _median_size(built: Any, event: PlantedEvent, target: int, links: Any) -> float:
    """Return by how much a step moves a metric, in its unit: the median over the links that it affects."""
    worse = -1.0 if TARGETS[target] == "throughput_mbps" else 1.0
    moved = np.expm1(worse * built.noise_sd[target, links] * event.size_sd)
    return float(np.median(np.exp(built.level[target, links]) * moved))


def _disturb(fleet: Fleet, spec: FleetSpec, path: Path) -> None:
    """Change a quiet fleet as its operators would: a fifth of its links is new after three days, one region reports twice as often from the
    fifth day on, and one is silent for five minutes while its producers are deployed."""
    start_s, lines = DEFAULT_START_S + fleet.first_h * _HOUR_S, path.read_text().splitlines(keepends=True)
    keys = [build_fleet(spec).key(link).decode().split("|")[:2] for link in range(spec.link_count)]
    late = {tuple(key) for number, key in enumerate(keys) if number % 5 == 0}
    columns = lines[0].strip().split(",")
    at, node, peer, region = (columns.index(name) for name in ("timestamp", "node_id", "peer_id", "region"))
    faster, silent = fleet.region_list[0].name, fleet.region_list[-1].name
    kept = []
    for line in lines[1:]:
        cells = line.split(",")
        time_s = float(cells[at])
        if (cells[node], cells[peer]) in late and time_s < start_s + 3 * DAY_H * _HOUR_S:
            continue
        if cells[region] == silent and 0.0 <= time_s - start_s - 4 * DAY_H * _HOUR_S < 300.0:
            continue
        if cells[region] == faster and int(time_s // 60.0) % 2 and time_s < start_s + 5 * DAY_H * _HOUR_S:
            continue
        kept.append(line)
    path.write_text(lines[0] + "".join(kept))


def alerts_in(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the data of the alerts of a replay, with the time of each, UTC seconds."""
    path = folder / "state/events/drift.ndjson"
    for line in path.read_text().splitlines() if path.exists() else []:
        event = json.loads(line)
        if "signals" in event["data"]:
            yield event["data"] | {"time_s": datetime.fromisoformat(event["time"]).timestamp()}


Measured = Callable[[Doubles, Sequence[str], Floats], None]
"""Receives times (UTC seconds), links and residuals, float32 (W, 4)."""


def replayed(
    path: Path, first_rows: int, budget: float, *, restarts: int = 0, swaps_h: float | None = None, measured: Measured | None = None
) -> dict[str, Any]:
    """Replay telemetry with a first version after `first_rows` records, and return its alerts.

    Args:
        budget: false alerts a week.
        restarts: how often the daemon is stopped on the way and goes on from its state.
        swaps_h: hours of the stream between two trainings, which replace models; None: a training starts only after a drift.
        measured: is called with the residuals.
    """
    configure_logging("error", "json", sys.stderr)
    config = Config()
    rows = FileSource(path, None, max_records=replay.POLL_RECORDS).lag() or 0
    stops = [math.inf, *(rows * (part + 1) // (restarts + 1) for part in reversed(range(restarts)))]
    with tempfile.TemporaryDirectory(prefix="dwcp-alerts-") as name:
        adapted = replay.adapted(config, Path(name), rows)
        training = {"rows_min": first_rows, "schedule": "", "interval_s": swaps_h * _HOUR_S if swaps_h else None}
        adapted = adapted.model_copy(
            update={
                "training": adapted.training.model_copy(update=training),
                "drift": adapted.drift.model_copy(update={"false_alerts_per_week": budget}),
            }
        )
        began, versions = time.process_time(), []
        while stops:
            source = FileSource(path, None, max_records=replay.POLL_RECORDS)
            heard = None if measured is None else Residuals(measured)
            report = replay.run_replay(source, StreamClock(replay.written_s(path)), adapted, True, listener=heard, stop_at=stops.pop())
            versions = report["versions"]
        return {"alerts": list(alerts_in(Path(name))), "cpu_s": time.process_time() - began, "rows": rows, "versions": versions}


@dataclass(frozen=True)
class Residuals:
    """A Listener that passes the residuals of the next row on."""

    pass_on: Measured

    def measured(self, _partition: Any, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, _persistence: Any) -> None:
        self.pass_on(time_s, links, actual - forecast)

    def forecast(self, made: Any) -> None:
        """Not used."""


def run(job: dict[str, Any]) -> dict[str, Any]:
    if "recording" in job:
        path = Path(job["recording"])
        return replayed(path, int(job["first_share"] * sum(1 for _ in path.open())), job["budget"])
    fleet = Fleet(**job["fleet"])
    with tempfile.TemporaryDirectory(prefix="dwcp-fleet-") as name:
        path, truth = written(fleet, Path(name))
        first_rows = int(fleet.first_h * 60 * fleet.links * fleet.regions * 0.98)
        busy = {"restarts": 2, "swaps_h": 60.0} if fleet.busy else {"restarts": 0, "swaps_h": None}
        found = replayed(path, first_rows, job["budget"], **busy)
    begin_s = DEFAULT_START_S + fleet.first_h * _HOUR_S
    weeks = fleet.links * fleet.regions * (fleet.hours - fleet.first_h) / (BUDGET_LINKS * 7 * DAY_H)
    return found | {"truth": truth, "begin_s": begin_s, "fleet_weeks": weeks}


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
