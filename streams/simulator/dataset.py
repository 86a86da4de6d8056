"""A simulated run as a file with its ground truth beside it, or as messages for a producer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from features.telemetry import COLUMNS
from streams.files.index import GROUND_TRUTH_NAME
from streams.simulator.fleet import FleetSpec, build_fleet
from streams.simulator.planted import ground_truth
from streams.simulator.simulation import simulate


def write_dataset(spec: FleetSpec, folder: Path, fmt: Literal["csv", "ndjson"], duration_s: float) -> Path:
    """Write telemetry.csv or telemetry.ndjson, and ground_truth.json, into a folder, which is created.

    Args:
        spec: The fleet.
        folder: Where to write.
        fmt: Format of the telemetry.
        duration_s: Length of the run, seconds.

    Returns:
        The path of the telemetry.

    Raises:
        ValueError: The format is unknown, or the duration is less than one interval.
        OSError: The folder cannot be written.
    """
    if fmt not in ("csv", "ndjson"):
        raise ValueError(f"format {fmt!r} is unknown: use csv or ndjson")
    spec.tick_count(duration_s)  # refuse a bad duration before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    truth = ground_truth(spec) | {"duration_s": duration_s}
    (folder / GROUND_TRUTH_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(truth)) + b"\n")
    path = folder / f"telemetry.{fmt}"
    with path.open("wb") as file:
        if fmt == "csv":
            file.write(",".join(COLUMNS).encode() + b"\n")
        for records in simulate(spec, duration_s):
            file.write(records.csv() if fmt == "csv" else b"".join(value + b"\n" for value in records.json()))
    return path


def messages(spec: FleetSpec, duration_s: float) -> Iterator[tuple[bytes, bytes, float]]:
    """Yield key, value and time (UTC seconds) of each record, in order of arrival: what a keyed Kafka producer sends."""
    fleet = build_fleet(spec)
    keys = [fleet.key(link) for link in range(len(fleet))]
    for records in simulate(spec, duration_s):
        yield from zip([keys[link] for link in records.link], records.json(), records.time_s.tolist(), strict=True)
