"""dwcp-learner simulate: the telemetry of a simulated fleet as files, with the truth about its planted events."""

from __future__ import annotations

import time
from pathlib import Path

from daemon.errors import DaemonError
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec
from streams.simulator.planted import PlantedEvent


def simulation(links_per_region: int, hours: float, interval_s: float, seed: int, form: str, events: list[str]) -> FleetSpec:
    """Return the fleet that the options describe.

    Raises:
        ValueError: an option is wrong; the message names it.
    """
    if form not in ("csv", "ndjson"):
        raise ValueError(f"--format {form}: use csv or ndjson")
    if not DEFAULT_START_S + hours * 3600 <= time.time():
        raise ValueError(f"--hours {hours}: the fleet starts at 2026-01-05T00:00Z, and records from the future would be refused")
    planted = tuple(_event(text, hours) for text in events)
    spec = FleetSpec(seed=seed, links_per_region=links_per_region, interval_s=interval_s, events=planted)
    spec.tick_count(hours * 3600)
    return spec


def write_simulation(spec: FleetSpec, folder: Path, hours: float, form: str) -> Path:
    """Write the data set and return its telemetry file.

    Raises:
        DaemonError: the folder cannot be written.
    """
    try:
        return write_dataset(spec, folder, "csv" if form == "csv" else "ndjson", hours * 3600)
    except OSError as error:
        raise DaemonError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error


def _event(text: str, hours: float) -> PlantedEvent:
    kind, *rest = text.split(":")
    try:
        region, hour, *numbers = rest
        share, size_sd = (*(float(number) for number in numbers), 0.5, 3.0)[:2] if len(numbers) != 1 else (float(numbers[0]), 3.0)
        start_s = DEFAULT_START_S + float(hour) * 3600
    except ValueError as error:
        raise ValueError(f"--event {text}: is not KIND:REGION:HOUR[:SHARE[:SIZE_SD]] ({error})") from error
    if not 0 <= float(hour) < hours:
        raise ValueError(f"--event {text}: hour {hour} is not within the {hours:g} hours of the run")
    try:
        return PlantedEvent(kind, start_s, region, links_share=share, size_sd=size_sd)  # type: ignore[arg-type]  # PlantedEvent refuses other kinds
    except ValueError as error:
        raise ValueError(f"--event {text}: {error}") from error
