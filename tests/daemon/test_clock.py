"""A machine's clock that is wrong, behind or ahead, costs no record; nor does a producer whose clock is wrong stop the stream for ever."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from daemon.clock import CONFIRMED_S, StreamClock, WallClock
from daemon.clock_watch import NOT_READY_S, WAIT_S, ClockWatch, Evidence, evidence_of, worth_of
from daemon.ingest.entries import Clock
from daemon.ingest.partition import Pipeline
from daemon.ingest.pieces import CHUNK_ROWS
from daemon.ingest.settings import PipelineSettings
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from drift.link.monitored import MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from drift.region.stage import RegionDrift
from features.telemetry import Flags, Partition, TelemetryBatch
from model.buffer.rows import BufferWriter
from streams.simulator.fleet import DEFAULT_START_S
from streams.source import Polled, RawBatch, Written
from testkit import killing, remains, rig, scripted

PARTITION = Partition("t", 0)
NOW_S = 1_767_571_200.0
LIMIT_S = NOW_S + 360.0
YEAR_S = 365 * 86_400.0


def record(node: str, time_s: float) -> bytes:
    return json.dumps({"timestamp": time_s, "node_id": node, "peer_id": "p", "rtt_ms": 1.0}).encode()


def batch_of(records: list[tuple[str, float]], *, written_s: float | None, by_broker: bool = False) -> RawBatch:
    """Records of (node, seconds after NOW_S), all written at one time (seconds after NOW_S); None: their own."""
    values = [record(node, NOW_S + at_s) for node, at_s in records]
    written = [Written(NOW_S + (at_s if written_s is None else written_s), by_broker) for _, at_s in records]
    return RawBatch(PARTITION, range(len(values)), values, written=written)


def known_of(*nodes: str) -> Callable[[TelemetryBatch], Flags]:
    return lambda batch: np.array([node in nodes for node in batch.node_id], np.bool_)


@pytest.mark.parametrize(
    ("step_s", "written_s", "reads_s", "confirmed"),
    [
        (0.0, 0.0, 0.0, True),
        (0.0, 250.0, 0.0, True),
        (0.0, 600.0, 0.0, False),  # it is behind
        (0.0, -600.0, 0.0, False),  # it is ahead, or the records are old
        (-YEAR_S, 0.0, 0.0, True),  # set back wrongly: the monotonic clock is right
        (-YEAR_S, -YEAR_S, -YEAR_S, True),  # set right: it was a year ahead
        (-YEAR_S, -YEAR_S / 2, 0.0, False),  # nobody agrees
        (YEAR_S, YEAR_S, YEAR_S, True),
    ],
)
def test_a_clock_that_is_set_is_held_against_the_times_of_records(step_s: float, written_s: float, reads_s: float, confirmed: bool) -> None:
    """If two clocks differ, the one that Kafka's times agree with is right; without such an agreement time does not go back."""
    wall_s, monotonic_s = NOW_S, 5.0
    clock = WallClock(lambda: wall_s, lambda: monotonic_s)
    assert not clock.confirmed
    wall_s += step_s
    assert clock.compare(NOW_S + written_s) == reads_s - written_s
    assert clock.now_s(0.0) == NOW_S + reads_s
    assert clock.confirmed == confirmed
    monotonic_s += CONFIRMED_S + 1.0
    assert not clock.confirmed


@pytest.mark.parametrize(
    ("records", "written_s", "by_broker", "known", "worth"),
    [
        pytest.param([("a", 900.0), ("b", 900.0)], 900.0, False, [], "likely", id="a stream that begins"),
        pytest.param([("a", 900.0), ("b", 900.0)], 900.0, False, ["a", "b", "c"], "likely", id="links that are known"),
        pytest.param([("x", 900.0), ("y", 900.0)], 900.0, False, ["a", "b", "c"], "doubtful", id="links that nobody knows"),
        pytest.param([("a", 100.0), ("a", 900.0)], 900.0, False, ["a"], "likely", id="only from a record on"),
        pytest.param([("a", 900.0), ("b", 0.0)], 900.0, False, ["a", "b"], None, id="half of the links are right"),
        pytest.param([("a", 900.0), *((f"n{at}", 1.0) for at in range(20))], 900.0, False, [], None, id="one producer of many"),
        pytest.param([("a", 900.0), ("b", 900.0)], 0.0, False, ["a", "b"], None, id="their producers' clocks say otherwise"),
        pytest.param([("a", 900.0), ("b", 900.0)], 0.0, True, ["a", "b"], None, id="the broker's clock says otherwise"),
        pytest.param([("a", 900.0), ("b", 0.0)], 900.0, True, ["a", "b"], "certain", id="the broker's clock says so"),
        pytest.param([("a", 900.0), ("b", 0.0), ("c", 0.0)], 900.0, True, ["a"], None, id="it is the broker's clock that is ahead"),
        pytest.param([("a", 900.0), ("b", 900.0)], math.nan, False, ["a", "b"], None, id="Kafka does not say"),
    ],
)
def test_what_records_of_the_future_are_worth(
    records: list[tuple[str, float]], written_s: float, by_broker: bool, known: list[str], worth: str | None
) -> None:
    """This machine's clock is doubted where nearly all links and Kafka's own times do, and nowhere else."""
    evidence = evidence_of(batch_of(records, written_s=written_s, by_broker=by_broker), LIMIT_S, known_of(*known))
    assert evidence is not None
    assert evidence.first == next(at for at, (_, at_s) in enumerate(records) if at_s > 360.0)
    assert worth_of(evidence, LIMIT_S, len(known)) == worth


def test_a_recording_ends_before_its_file_was_written() -> None:
    """A replay on a machine that lives in the year 2000 takes all of a recording that was written later."""
    wall_s = NOW_S - 26 * YEAR_S
    assert StreamClock(wall=lambda: wall_s).latest_record_s() == wall_s
    assert StreamClock(NOW_S, lambda: wall_s).latest_record_s() == NOW_S


def test_refused_records_are_no_evidence() -> None:
    """A value that is not telemetry is no evidence about the time."""
    values = [b"not json", record("a", NOW_S), record("a", 1e300), b""]
    raw = RawBatch(PARTITION, range(4), values, written=[Written(NOW_S + YEAR_S)] * 4)
    assert evidence_of(raw, LIMIT_S, known_of()) is None
    assert worth_of(Evidence(0, 1, 1, 0, math.nan, by_broker=False), LIMIT_S, 0) is None


@dataclass
class Watched:
    """A ClockWatch with clocks of its own, and the events that it has reported."""

    wall_s: float = NOW_S
    monotonic_s: float = 100.0
    reported: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = WallClock(lambda: self.wall_s, lambda: self.monotonic_s)
        self.observer = Observer(lambda event, _fields: self.reported.append(event))
        self.watch = ClockWatch(self.clock, self.observer)

    def passes(self, seconds: float) -> None:
        self.wall_s, self.monotonic_s = self.wall_s + seconds, self.monotonic_s + seconds

    def holds(self, raw: RawBatch, known: list[str]) -> int | None:
        return self.watch.holds(PARTITION, raw, LIMIT_S, known_of(*known), len(known))


@pytest.mark.parametrize(("worth", "known", "by_broker"), [("certain", ["a"], True), ("likely", ["a"], False), ("doubtful", ["z"], False)])
def test_records_wait_as_long_as_the_evidence_is_worth(worth: str, known: list[str], by_broker: bool) -> None:
    """A flood of producers stops the stream for a time, and not again; what the broker says holds until the clock is right."""
    one = Watched()
    raw = batch_of([("a", YEAR_S)] * 9, written_s=YEAR_S, by_broker=by_broker)
    assert one.holds(raw, known) == 0
    assert (one.watch.rests, one.watch.problem, one.reported) == (True, None, [])
    one.passes(NOT_READY_S)
    assert not one.watch.rests, "it looks again every second"
    assert one.holds(raw, known) == 0
    assert one.watch.problem is not None
    assert f"{YEAR_S:.0f} s behind" in one.watch.problem
    assert "t-0 from offset 0" in one.watch.problem
    assert one.reported == ["clock_behind"]
    one.passes(min(WAIT_S[worth], 1e6))
    if worth == "certain":
        assert one.holds(raw, known) == 0
        assert one.reported == ["clock_behind"]
        one.watch.ingested(PARTITION)  # the clock was set
        assert one.reported == ["clock_behind", "clock_right"]
    else:
        assert one.holds(raw, known) is None
        assert one.reported == ["clock_behind", "clock_believed"]
        later = batch_of([(f"n{at}", 2 * YEAR_S) for at in range(9)], written_s=2 * YEAR_S)
        assert one.holds(later, known) is None, "the next flood does not stop it again"
    assert one.watch.problem is None
    assert one.observer.registry.get_sample_value("dwcp_clock_waits") == 0


def test_a_clock_that_agreed_just_now_is_not_doubted() -> None:
    """While other records come whose times agree, those of one producer are refused at once; the broker's own times are believed still."""
    one = Watched()
    one.watch.compare(Polled(), lag=0)
    one.watch.compare(Polled([batch_of([("b", 0.0)] * 3, written_s=1.0)]), lag=0)
    assert one.holds(batch_of([("a", 900.0)], written_s=900.0), ["a"]) is None
    assert one.holds(batch_of([("a", 900.0)], written_s=900.0, by_broker=True), ["a"]) == 0
    one.passes(CONFIRMED_S + 1.0)
    assert one.holds(batch_of([("a", 9000.0)], written_s=9000.0), ["a"]) == 0


def test_what_was_written_before_the_daemon_came_says_nothing_of_its_clock() -> None:
    """A quiet topic whose last records are hours old: they were not written just now, though nothing is left to read after them."""
    one = Watched()
    one.watch.compare(Polled([batch_of([("a", 0.0)], written_s=-9000.0)]), lag=0)
    assert one.reported == []
    assert not one.clock.confirmed


class Unread(list[Written | None]):
    """Times that nobody is to look at."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("they were looked at")


def test_a_backlog_is_not_looked_at() -> None:
    """While there is more to read, the times of records say nothing of the clock, and cost nothing."""
    one = Watched()
    raw = batch_of([("a", 0.0)] * 3, written_s=0.0)
    raw = replace(raw, written=Unread(raw.written or ()))
    for _ in range(3):
        one.watch.compare(Polled([raw]), lag=9000)


@pytest.mark.parametrize(
    ("lag", "written_s", "reported"), [(0, -900.0, ["clock_ahead"]), (9000, -900.0, []), (None, -900.0, []), (0, -30.0, [])]
)
def test_a_clock_that_is_ahead_is_told(lag: int | None, written_s: float, reported: list[str]) -> None:
    """Records that have come just now, at the end of their partition, were written long ago by this machine's clock; a backlog says
    nothing."""
    one = Watched()
    for _ in range(3):
        one.watch.compare(Polled([batch_of([("a", 0.0)], written_s=written_s)]), lag)
    assert one.reported == reported
    ahead_s = one.observer.registry.get_sample_value("dwcp_clock_ahead_seconds")
    assert ahead_s is not None
    assert ahead_s == -written_s or lag != 0


def test_broker_times_that_are_right_settle_it_without_a_look_at_the_records() -> None:
    """A producer whose clock is wrong costs nothing more where the broker writes down the times."""

    def looks(_batch: TelemetryBatch) -> Flags:
        raise AssertionError("the records were decoded again")

    raw = batch_of([("a", YEAR_S)] * 9, written_s=0.0, by_broker=True)
    assert Watched().watch.holds(PARTITION, raw, LIMIT_S, looks, 0) is None


@pytest.mark.parametrize(
    ("time_s", "asked"),
    [pytest.param(NOW_S + YEAR_S, True, id="future"), pytest.param(1.0, False, id="before 1990"), pytest.param(1e15, False, id="no time")],
)
def test_a_producer_whose_clock_is_wrong_has_a_batch_looked_at_twice_at_most(tmp_path: Path, time_s: float, asked: bool) -> None:
    """A record in each piece of a batch is refused. What is left is looked at for those of the future alone, and not from each of them."""
    settings = PipelineSettings(("node_id",), 5.0, 1000, MonitoringPolicy(), Sensitivity(), 60.0)
    pipeline = Pipeline(PARTITION, settings, BufferWriter(tmp_path, PARTITION), lambda _version: None, Observer())
    pipeline.clock_s = NOW_S
    pieces = 12
    values = [record("a", NOW_S - CHUNK_ROWS * pieces * 0.01 + at * 0.01) for at in range(CHUNK_ROWS * pieces)]
    values[::CHUNK_ROWS] = [record("b", time_s)] * pieces
    looked: list[int] = []

    def holds(rest: RawBatch, *_: Any) -> None:
        looked.append(len(rest))

    taken = pipeline.ingest(RawBatch(PARTITION, range(len(values)), values), holds)
    assert len(taken.rejected) == pieces
    assert bool(looked) == asked
    assert sum(looked) <= 2 * len(values)


# --- the whole daemon ---

TICKS_S = 190 * 60.0


def own_time(value: bytes) -> Written:
    """A producer that writes a record when it has measured it."""
    return Written(float(json.loads(value)["timestamp"]))


def run(
    home: Path,
    wall_s: Callable[[Any], float],
    *,
    records: Any = None,
    die_at: int | None = None,
    prepare: Callable[[], None] = lambda: None,
    **script: Any,
) -> int:
    """One process whose clocks are those of the script: polls are seconds of the monotonic one. wall_s: the wall clock by the source."""

    def inside() -> None:
        prepare()
        source = scripted.ScriptedSource(
            **({"seed": 1, "batch_max": 100, "written": own_time} | script | ({"records": records} if records is not None else {}))
        )
        made = rig.daemon_over(source, rig.config(home), WallClock(lambda: wall_s(source), source.clock))
        before = source.on_poll

        def on_poll(source: Any) -> None:
            before(source)
            if source.polls == die_at:
                killing.die()
            assert source.polls < 5000, "it does not come to its end"

        source.on_poll = on_poll
        seen: list[str | None] = []
        made.loop.on_step = lambda _polled: seen.append(made.parts.group.clock_watch.problem)
        made.run()
        print(json.dumps({"event": "problems", "count": sum(one is not None for one in seen)}))

    return killing.in_child(inside, home / "log")  # type: ignore[no-any-return]


@pytest.mark.parametrize("die_at", [None, 40], ids=["", "killed while it waits"])
@pytest.mark.parametrize("behind_s", [600.0 + TICKS_S, 26 * YEAR_S])
def test_no_record_is_lost_to_a_clock_that_is_behind(home: Path, uninterrupted: Any, behind_s: float, die_at: int | None) -> None:
    """A machine starts behind its time, and is set right later: nothing is refused, and what is left is what is left of any run."""

    def wall_s(source: Any) -> float:
        return DEFAULT_START_S + TICKS_S + (0.0 if source.polls > 80 else -behind_s)

    if die_at is not None:
        assert run(home, wall_s, die_at=die_at) == killing.KILLED
    assert run(home, wall_s) == 0, (home / "log").read_text()
    assert not remains.reported(home, "record_rejected")
    assert remains.reported(home, "clock_behind")
    assert remains.reported(home, "clock_right")
    (problems,) = remains.reported(home, "problems")
    assert problems["count"] > 20, "it was ready all the time"
    remains.same(remains.outcome(home), uninterrupted)


def test_a_producer_whose_clock_is_wrong_is_refused_alone(home: Path, uninterrupted: Any) -> None:
    """Two links of fourteen live a year ahead, and so do the times that their producer gives to Kafka: theirs are refused, no other."""
    bad = [f"eu-node-000{at}" for at in (1, 2)]
    assert any(json.loads(value)["node_id"] in bad for values in scripted.stream().values() for value in values)

    def moved(value: bytes) -> bytes:
        one = json.loads(value)
        return json.dumps(one | {"timestamp": one["timestamp"] + YEAR_S}).encode() if one["node_id"] in bad else value

    records = {partition: [moved(value) for value in values] for partition, values in scripted.stream().items()}
    assert run(home, lambda source: newest_s(source, bad), records=records) == 0, (home / "log").read_text()
    counted = sum(json.loads(value)["node_id"] in bad for values in records.values() for value in values)
    letters = (home / "state/events/dead_letters.ndjson").read_text().splitlines()
    assert len(letters) == counted
    assert {link for link in uninterrupted.buffer[0] if link.split("|")[0] not in bad} == set(remains.outcome(home).buffer[0])


def newest_s(source: Any, but: list[str] = []) -> float:  # noqa: B006 - never changed
    """A right clock of a live stream: a second after the newest record that was given."""
    newest = DEFAULT_START_S
    for partition, position in source.positions.items():
        for value in source.records[partition][max(0, position - 8) : position]:
            one = json.loads(value)
            if one["node_id"] not in but and one.get("note") != "ahead":
                newest = max(newest, one["timestamp"])
    return newest + 1.0


AHEAD_AT = 150
"""Record of each partition behind which one from far ahead is put."""


def with_records_ahead() -> dict[Partition, list[bytes]]:
    """The stream with a record from half a year ahead in each partition, of a link that is known there."""
    records = {}
    for partition, values in scripted.stream().items():
        one = json.loads(values[AHEAD_AT])
        ahead = json.dumps(one | {"timestamp": one["timestamp"] + YEAR_S / 2, "note": "ahead"}).encode()
        records[partition] = [*values[: AHEAD_AT + 1], ahead, *values[AHEAD_AT + 1 :]]
    return records


def written_then(value: bytes) -> Written:
    one = json.loads(value)
    return Written(one["timestamp"] - (YEAR_S / 2 if one.get("note") == "ahead" else 0.0))


@pytest.mark.parametrize("kill", [False, True], ids=["", "killed and started again"])
def test_one_record_from_far_ahead_is_undone_when_the_clock_is_right(
    home: Path, tmp_path_factory: pytest.TempPathFactory, uninterrupted: Any, kill: bool
) -> None:
    """It was accepted while this machine's clock was a year ahead. Event time does not follow it, nothing is dropped, the alert comes, and
    its link goes on once the clock is right; a run by the journal of this one leaves the same."""
    records = with_records_ahead()

    def wall_s(source: Any) -> float:
        wrong = max(source.positions.values(), default=0) < 300
        return newest_s(source) + (YEAR_S if wrong else 0.0)

    script = {"records": records, "written": written_then, "batch_max": 30}
    if kill:
        prepare = killing.kill_around(CheckpointStore, "write", 25, after=True)
        assert run(home, wall_s, prepare=prepare, **script) == killing.KILLED
    assert run(home, wall_s, **script) == 0, (home / "log").read_text()
    undone = remains.reported(home, "event_time_undone")
    assert {one["partition"] for one in undone} == {str(partition) for partition in records}
    assert not remains.reported(home, "buckets_undone"), "event time never followed"
    assert any(entry.confirmed for entry in remains.journal(home) if isinstance(entry, Clock))
    left = remains.outcome(home)
    reported, expected = ({json.loads(line)["data"]["region"] for line in one.alerts.values()} for one in (left, uninterrupted))
    assert {"eu"} <= reported <= expected
    late = len(uninterrupted.buffer[0]) - len(left.buffer[0])
    assert 0 <= late < len(records) * (300 - AHEAD_AT) / 3, "only what that link sent until the clock was right, of three in a partition"
    into = tmp_path_factory.mktemp("replayed")
    shutil.copytree(home / "models", into / "models")
    (into / "state").mkdir()
    shutil.copy(home / "state/journal-main.ndjson", into / "state")
    remains.same(rig.outcome_after(into, records=records, seed=99, batch_max=300), left)


@pytest.mark.parametrize("stop", [False, True], ids=["", "it is in a checkpoint"])
def test_a_watermark_that_ran_away_is_undone(home: Path, stop: bool) -> None:
    """The only link of a stream jumps half a year, and buckets close with it. Once the clock is right, in this life or the next, the link
    is taken again, buckets close where the stream is, and no row of the buffer was dropped."""
    partition = Partition("lonely", 0)
    good = [record("a", DEFAULT_START_S + 60.0 * at) for at in range(200)]
    ahead = json.dumps(json.loads(record("a", DEFAULT_START_S + YEAR_S / 2)) | {"note": "ahead"}).encode()
    records = {partition: [*good[:50], ahead, *good[50:]]}

    def wall_s(source: Any) -> float:
        return newest_s(source) + (YEAR_S if source.positions.get(partition, 0) < 100 else 0.0)

    script = {"written": written_then, "batch_max": 10}
    if stop:
        half = {partition: records[partition][:80]}
        assert run(home, lambda source: newest_s(source) + YEAR_S, records=half, **script) == 0
    assert run(home, wall_s if not stop else newest_s, records=records, **script) == 0, (home / "log").read_text()
    assert remains.reported(home, "event_time_undone")
    (undone,) = remains.reported(home, "buckets_undone")
    assert undone["closed_through_s"] <= DEFAULT_START_S + 60.0 * 210
    left = remains.outcome(home)
    assert 51 + 80 <= left.rows <= 201
    times = np.frombuffer(left.buffer[1])
    assert (times < DEFAULT_START_S + 60.0 * 50).sum() == 50, "rows of before were dropped"
    assert times[-1] == DEFAULT_START_S + 60.0 * 199, "what cannot be is read no more"


def test_the_region_stage_goes_back() -> None:
    """Buckets that were closed for times that cannot be are open again; a message about them is no longer late."""
    regions = RegionDrift()
    regions.advance(NOW_S + YEAR_S)
    assert not regions.go_back(NOW_S, NOW_S + 2 * YEAR_S)
    assert regions.go_back(NOW_S, LIMIT_S)
    assert regions.closed_through * 60.0 < NOW_S
    assert regions.advance(NOW_S + 120.0) == []
    assert NOW_S <= (regions.closed_through + 1) * 60.0 <= NOW_S + 120.0


def test_the_region_stage_goes_back_when_the_last_partition_knows_better(home: Path) -> None:
    """One partition has the right time before another, which has begun nothing: what ran away is undone when both have it, not given up."""
    first, second = Partition("t", 0), Partition("t", 1)

    def inside() -> None:
        source = scripted.ScriptedSource(seed=1, records={first: [record("a", NOW_S + 60.0 * at) for at in range(9)], second: []})
        made = rig.daemon_over(source, rig.config(home))
        group, incidents, regions = made.parts.group, made.parts.incidents, made.parts.incidents.regions
        for _ in range(3):
            made.loop.step()
        of = {pipeline.partition: pipeline for pipeline in group}
        assert (of[first].event_time_s >= NOW_S, of[second].event_time_s) == (True, -math.inf)
        regions.advance(NOW_S + YEAR_S)
        ran_away = regions.closed_through
        for clock_s in (None, NOW_S + YEAR_S, NOW_S + 600.0):
            of[first].clock_s, of[second].clock_s = NOW_S + 600.0, clock_s
            incidents.undo(group)
            assert (regions.closed_through == ran_away) == (clock_s != NOW_S + 600.0)
        assert regions.closed_through * 60.0 <= of[first].watermark_s
        for pipeline in of.values():  # as of another member, whose last reading is old: what this one has closed was right
            pipeline.clock_s = NOW_S - YEAR_S
        group.decisions.journal.append(Clock(NOW_S + 600.0, {}, confirmed=True))
        closed_through = regions.closed_through
        incidents.undo(group)
        assert regions.closed_through == closed_through

    assert killing.in_child(inside, home / "log") == 0, (home / "log").read_text()
