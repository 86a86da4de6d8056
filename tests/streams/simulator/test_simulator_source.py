"""The simulator as a source: partitions, offsets, seeks, and the pace of its live part under a clock that the tests move."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.telemetry import Partition
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region
from streams.simulator.simulation import simulate
from streams.simulator.source import SimulatorSource
from streams.source import Source

HOUR_S = 3600.0
SPEC = FleetSpec(regions=(Region("north", 0.0), Region("far-east", 9.0)), links_per_region=15, late_share=0.02, duplicate_share=0.02)
SEVERAL_BLOCKS = replace(SPEC, links_per_region=2000)  # blocks of 16 ticks
Taken = dict[Partition, list[tuple[int, bytes]]]


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


def source(spec: FleetSpec = SPEC, duration_s: float = 6 * HOUR_S, **options: Any) -> tuple[SimulatorSource, FakeTime]:
    time = FakeTime()
    return SimulatorSource(spec, duration_s, clock=time.clock, sleep=time.sleep, **options), time


def drain(stream: Source, offsets: dict[int, int] | None = None, polls: int | None = None) -> Taken:
    """Seeks every partition that the first poll names, then polls to the end, or so many times."""
    taken: Taken = {}
    for partition in stream.poll(0.0).assigned:
        stream.seek(partition, None if offsets is None else offsets[partition.number])
        taken[partition] = []
    return more(stream, taken, polls)


def more(stream: Source, taken: Taken, polls: int | None = None) -> Taken:
    while polls is None or polls > 0:
        polled = stream.poll(1.0)
        for batch in polled.batches:
            taken.setdefault(batch.partition, []).extend((o, v) for o, v in zip(batch.offsets, batch.values, strict=True) if v is not None)
        if polled.ended:
            break
        polls = None if polls is None else polls - 1
    return taken


def values(taken: Taken) -> list[bytes]:
    return [value for part in taken.values() for _, value in part]


def test_it_announces_its_partitions_and_gives_nothing_before_a_seek() -> None:
    """The first poll names the partitions; until one is sought, polls only wait."""
    stream, time = source(partitions=3)
    assert stream.poll(1.0).assigned == frozenset(Partition("simulator", number) for number in range(3))
    polled = stream.poll(1.0)
    assert polled.batches == []
    assert not polled.ended
    assert time.now_s == 101.0


@pytest.mark.parametrize("partitions", [1, 4])
def test_partitions_together_are_the_stream(partitions: int) -> None:
    """Every record comes once, offsets have no hole, a link stays in one partition, and its order is the stream's."""
    taken = drain(source(partitions=partitions)[0])
    expected = [value for records in simulate(SPEC, 6 * HOUR_S) for value in records.json()]
    assert sorted(values(taken)) == sorted(expected)
    links = []
    for part in taken.values():
        assert [offset for offset, _ in part] == list(range(len(part)))
        mine = {value for _, value in part}
        assert [value for _, value in part] == [value for value in expected if value in mine]
        links.append({json.loads(value)["peer_id"] for value in mine})
    assert len(set().union(*links)) == sum(map(len, links)) == SPEC.link_count


def test_one_poll_brings_at_most_max_records() -> None:
    """Batches of a poll together keep the limit."""
    stream, _ = source(partitions=4, max_records=100)
    for partition in stream.poll(0.0).assigned:
        stream.seek(partition, 0)
    assert sum(map(len, stream.poll(1.0).batches)) == 100


@settings(max_examples=8, deadline=None)
@given(first=st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)), polls=st.integers(0, 30), second=st.integers(0, 60_000))
def test_a_seek_gives_the_bytes_that_were_there(first: tuple[int, int], polls: int, second: int) -> None:
    """An offset has the same bytes, at whatever offsets a reader starts, and wherever it seeks in between."""
    whole = _whole()
    stream, _ = source(SEVERAL_BLOCKS, 26 * 60.0, partitions=2)
    taken = drain(stream, dict(enumerate(first)), polls)
    for partition, part in taken.items():
        assert part == whole[partition][first[partition.number] :][: len(part)]
    moved = Partition("simulator", 0)
    stream.seek(moved, second)
    reached = first[1] + len(taken[Partition("simulator", 1)])
    rest = more(stream, {})
    assert rest.get(moved, []) == whole[moved][second:]
    other = Partition("simulator", 1)
    assert rest.get(other, []) == whole[other][reached:]


_WHOLE: Taken = {}


def _whole() -> Taken:
    """The stream read once from its start."""
    if not _WHOLE:
        _WHOLE.update(drain(source(SEVERAL_BLOCKS, 26 * 60.0, partitions=2)[0]))
    return _WHOLE


def test_a_seek_beyond_the_end_ends() -> None:
    """There is nothing at an offset that the run does not reach."""
    assert values(drain(source(duration_s=HOUR_S)[0], {0: 10**9})) == []


@pytest.mark.parametrize(
    ("partition", "offset"), [(Partition("simulator", 1), 0), (Partition("other", 0), 0), (Partition("simulator", 0), -1)]
)
def test_a_wrong_seek_is_refused(partition: Partition, offset: int) -> None:
    """A partition of something else, or a negative offset, is an error of the caller."""
    with pytest.raises(ValueError, match="the simulator has"):
        source()[0].seek(partition, offset)


def latest_s(taken: Taken) -> float:
    """The newest time among the last records of each partition (of which few are late)."""
    return max(float(json.loads(value)["timestamp"]) for part in taken.values() for _, value in part[-20:])


def test_history_comes_at_once_and_live_records_at_the_given_speed() -> None:
    """Two hours of history take no time; two live hours at 3,600 times real time take two seconds."""
    stream, time = source(duration_s=4 * HOUR_S, history_s=2 * HOUR_S, speed=3600.0)
    taken = drain(stream, polls=1)
    assert time.now_s == 100.0
    assert DEFAULT_START_S + 1.9 * HOUR_S < latest_s(taken) < DEFAULT_START_S + 2 * HOUR_S
    while time.now_s < 101.0:
        more(stream, taken, polls=1)
        assert latest_s(taken) <= DEFAULT_START_S + 2 * HOUR_S + (time.now_s - 100.0) * 3600 + SPEC.interval_s
    assert latest_s(taken) == pytest.approx(DEFAULT_START_S + 3 * HOUR_S, abs=300)
    assert stream.event_time_s == pytest.approx(DEFAULT_START_S + 3 * HOUR_S, abs=300)
    more(stream, taken)
    assert time.now_s == pytest.approx(102.0, abs=0.1)
    assert stream.event_time_s == pytest.approx(DEFAULT_START_S + 4 * HOUR_S, abs=60)


@pytest.mark.parametrize("speed", [None, 3600.0])
def test_held_live_records_wait_for_go_live(speed: float | None) -> None:
    """The stream stops at the end of the history until go_live if hold_live is set, and live time counts from there."""
    stream, time = source(duration_s=3 * HOUR_S, history_s=2 * HOUR_S, speed=speed, hold_live=True)
    taken = drain(stream, polls=50)
    assert time.now_s > 130.0
    assert latest_s(taken) < DEFAULT_START_S + 2 * HOUR_S
    stream.go_live()
    went_live_s = time.now_s
    more(stream, taken)
    assert latest_s(taken) > DEFAULT_START_S + 2.9 * HOUR_S
    assert time.now_s - went_live_s == pytest.approx(0.0 if speed is None else 1.0, abs=0.1)


def test_a_restart_in_the_live_part_goes_on_from_there() -> None:
    """A reader that seeks into the live part waits for no time that has passed already, nor is it flooded."""
    expected = len([value for records in simulate(SPEC, 3 * HOUR_S) for value in records.json()])
    stream, time = source(duration_s=4 * HOUR_S, history_s=HOUR_S, speed=3600.0)
    drain(stream, {0: expected})
    assert time.now_s == pytest.approx(101.0, abs=0.1)


def test_a_paused_source_gives_nothing_and_goes_on_after_it() -> None:
    """Pausing loses and repeats nothing."""
    stream, _ = source(max_records=500)
    taken = drain(stream, polls=3)
    stream.pause()
    assert stream.poll(1.0).batches == []
    stream.resume()
    assert [offset for offset, _ in more(stream, taken)[Partition("simulator", 0)]] == list(range(len(values(taken))))


@pytest.mark.parametrize("options", [{"history_s": 7 * HOUR_S}, {"speed": 0.0}, {"partitions": 0}, {"max_records": 0}, {"duration_s": 1.0}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """Values that cannot work are refused when the source is built."""
    with pytest.raises(ValueError, match=next(iter(options))):
        source(**options)
