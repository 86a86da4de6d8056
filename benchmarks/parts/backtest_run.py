"""One policy of training on one recording or simulated fleet, as `dwcp-learner backtest` runs it."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from daemon.commands.backtest import one
from daemon.config.load import Config
from harness import answer, job_of
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import DEFAULT_REGIONS, DEFAULT_START_S, FleetSpec
from streams.simulator.planted import PlantedEvent

HORIZONS: Final = (1, 5, 15)
BUCKETS: Final = 40
HOURS: Final = 240.0
LINKS: Final = 10
REGIONS: Final = DEFAULT_REGIONS[:2]
_H: Final = 3600.0
_CHANGED: Final = REGIONS[0].name


def _events(kind: str) -> tuple[PlantedEvent, ...]:
    def event(hour: float, hours: float | None, **more: Any) -> PlantedEvent:
        duration_s = None if hours is None else hours * _H
        return PlantedEvent(start_s=DEFAULT_START_S + hour * _H, region=_CHANGED, duration_s=duration_s, links_share=0.8, **more)

    if kind == "abrupt":
        return (event(144.0, None, kind="reroute", size_sd=4.0),)
    if kind == "ramp":
        return (event(130.0, None, kind="ramp", size_sd=4.0, ramp_s=72.0 * _H),)
    if kind == "recurring":
        return tuple(event(start, 24.0, kind="reroute", size_sd=4.0) for start in (120.0, 168.0, 216.0))
    return ()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one.run. job: policy, and "recording" (a path) or "fleet" (none, abrupt, ramp or recurring)."""
    common = {"policy": job["policy"], "horizons": HORIZONS, "buckets": BUCKETS, "config": Config().model_dump(mode="json")}
    if "recording" in job:
        return one.run(common | {"path": job["recording"], "merged": job["merged"]})
    spec = FleetSpec(seed=17, regions=REGIONS, links_per_region=LINKS)
    with tempfile.TemporaryDirectory(prefix="dwcp-backtest-fleet-") as name:
        path = write_dataset(replace(spec, events=_events(job["fleet"])), Path(name), "csv", HOURS * _H)
        return one.run(common | {"path": str(path), "merged": False})


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
