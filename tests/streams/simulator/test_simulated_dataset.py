"""Simulated runs as files and as messages, and as what the decoder makes of them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.telemetry import COLUMNS, Partition
from streams.files.source import FileSource
from streams.records.decode import decode
from streams.simulator.dataset import messages, write_dataset
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region
from streams.simulator.planted import PlantedEvent, ground_truth
from streams.simulator.simulation import simulate
from streams.source import RawBatch

HOUR_S = 3600.0
SMALL = FleetSpec(regions=(Region("north", 0.0), Region("far-east", 9.0)), links_per_region=10)
EVENT = PlantedEvent("step", DEFAULT_START_S + 2 * HOUR_S, "north", duration_s=HOUR_S)


def encoded(spec: FleetSpec, duration_s: float) -> list[bytes]:
    return [value for records in simulate(spec, duration_s) for value in records.json()]


@pytest.mark.parametrize("fmt", ["csv", "ndjson"])
def test_dataset_holds_the_stream_and_its_ground_truth(tmp_path: Path, fmt: Any) -> None:
    """Both forms hold the same records in the same order, with the truth beside them."""
    spec = replace(SMALL, events=(EVENT,))
    path = write_dataset(spec, tmp_path / "new", fmt, 3 * HOUR_S)
    text = path.read_text()
    rows = list(csv.DictReader(io.StringIO(text))) if fmt == "csv" else [json.loads(line) for line in text.splitlines()]
    expected = [json.loads(value) for value in encoded(spec, 3 * HOUR_S)]
    if fmt == "csv":
        assert tuple(rows[0]) == COLUMNS
        expected = [{name: "" if value is None else str(value) for name, value in record.items()} for record in expected]
    assert rows == expected
    truth = json.loads((tmp_path / "new" / "ground_truth.json").read_text())
    assert truth == ground_truth(spec) | {"duration_s": 3 * HOUR_S}
    assert truth["events"][0]["start"] == "2026-01-05T02:00:00Z"
    assert FileSource(tmp_path / "new").lag() == len(rows), "the ground truth is not telemetry"


def test_messages_carry_the_key_of_their_link_and_their_time() -> None:
    """A producer gets the stream's records in order, each with its link's key."""
    sent = list(messages(SMALL, HOUR_S))
    assert [value for _, value, _ in sent] == encoded(SMALL, HOUR_S)
    for key, value, time_s in sent:
        record = json.loads(value)
        assert key.decode().split("|") == [record["node_id"], record["peer_id"], record["link_type"]]
        assert time_s == record["timestamp"]
    assert len({key for key, _, _ in sent}) == SMALL.link_count


def test_the_decoder_takes_every_record() -> None:
    """Nothing that the simulator makes is a dead letter, and holes arrive as NaN."""
    values = encoded(SMALL, 24 * HOUR_S)
    decoded = decode(RawBatch(Partition("simulator", 0), range(len(values)), values), now_s=DEFAULT_START_S + 25 * HOUR_S)
    assert decoded.rejected == []
    records = next(simulate(SMALL, 24 * HOUR_S))
    for column, name in enumerate(("throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms")):
        np.testing.assert_array_equal(decoded.batch.numeric[:, column], records.column(name).astype(np.float32))
    np.testing.assert_array_equal(decoded.batch.time_s, records.time_s)
