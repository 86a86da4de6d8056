"""The interfaces of sources and sinks: a new one is one class, and all that it does not implement has a sensible default."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.telemetry import Partition
from streams.events import Event, event_id
from streams.fan_out import FanOutSink
from streams.files.sink import NdjsonSink
from streams.files.source import FileSource
from streams.kafka.sink import KafkaSink
from streams.kafka.source import KafkaSource
from streams.records.decode import decode
from streams.simulator.source import SimulatorSource
from streams.sinks import Sink
from streams.source import ONLY_LOG, Log, Polled, RawBatch, Source

PARTITION = Partition("probe", 0)
RECORD = b'{"timestamp": 1795000000, "node_id": "a", "peer_id": "b", "rtt_ms": 20.5}'


class Probe(Source):
    """A source of one record, with what every source has to implement and no more."""

    def __init__(self) -> None:
        self._waiting: list[bytes] | None = None

    def poll(self, timeout_s: float) -> Polled:  # noqa: ARG002 - its record is at hand
        if self._waiting is None:
            return Polled(assigned=frozenset({PARTITION}))
        values, self._waiting = ([], self._waiting) if self.paused else (self._waiting, [])
        return Polled([RawBatch(PARTITION, range(len(values)), values)], ended=not self._waiting)

    def seek(self, partition: Partition, offset: int | None, log: Log = ONLY_LOG) -> None:  # noqa: ARG002 - there is one partition
        self._waiting = [RECORD][offset or 0 :]


class Memory(Sink):
    """A sink that implements `send` alone."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.events.append(event)


def test_a_source_of_two_methods_is_a_whole_source() -> None:
    source: Source = Probe()
    (partition,) = source.poll(0.0).assigned
    source.seek(partition, None)
    source.pause()
    assert len(source.poll(0.0).batches[0]) == 0
    source.resume()
    decoded = decode(source.poll(0.0).batches[0], None)
    assert (decoded.batch.node_id, decoded.rejected) == (["a"], [])
    assert (source.lag(), source.held(), source.keyless(), source.generation()) == (None, 0, 0, 0)
    assert (source.healthy(), source.troubles()) == (True, [])
    source.commit({partition: 1})
    source.release(frozenset({partition}))
    source.close()


def test_a_sink_of_one_method_is_a_whole_sink(tmp_path: Path) -> None:
    """It works beside another sink, too, which has a disk to wait for."""
    memory = Memory()
    path = tmp_path / "events.ndjson"
    both = FanOutSink([memory, NdjsonSink(path)])
    event = Event(event_id("x"), "dwcp.test", "tests", "a", 0.0, {})
    both.send(event)
    assert both.pending() == 1
    both.flush(1.0)
    assert (both.pending(), memory.events, path.read_bytes()) == (0, [event], event.encode() + b"\n")
    both.close()


@pytest.mark.parametrize("missing", ["poll", "seek"])
def test_a_source_without_one_of_the_two_is_refused(missing: str) -> None:
    """When it is built, not when the daemon first calls the method."""
    methods = {name: getattr(Probe, name) for name in ("poll", "seek") if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Unfinished", (Source,), methods)()


def test_all_sources_and_sinks_have_the_interface() -> None:
    assert all(Source in each.__mro__ for each in (FileSource, KafkaSource, SimulatorSource))
    assert all(Sink in each.__mro__ for each in (FanOutSink, KafkaSink, NdjsonSink))
