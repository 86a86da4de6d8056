"""The phases of an overload (benchmarks/overload.py): capacity, three times as much, a disk that hangs meanwhile, catching up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from harness import in_process
from parts.cpu_share import CpuShare, cpu_s
from parts.daemon_process import DaemonProcess, Producer
from parts.stream import PARTITIONS
from parts.watcher import Sample, Watcher

STEP_LIMIT_S: Final = 900.0
"""Most seconds of a wait for something that takes seconds or, with a share of a core, minutes."""
OFFERED: Final = 3.3
"""Offered load in multiples of the capacity: above three, because the machine is shared and the capacity was measured without a producer.
"""
HANG_FROM: Final = 0.3
"""Share of the overload after which the disk hangs."""
FASTEST_PER_CPU_S: Final = 250_000
"""Records a CPU second, more than any machine reads with one core, so that the topic stays full for the capacity."""
NEVER_ROWS: Final = 2**62
OFTEN_S: Final = 0.2


@dataclass(frozen=True)
class Plan:
    """Sizes and times.

    Args:
        share: of a core, for the daemon.
        hold_s: how long the source stays paused before the disk goes on.
        session_s: of the group.
        checkpoint_late_s: after which /readyz reports a hanging checkpoint (daemon.operator.health.CHECKPOINT_S).
    """

    topic: str = "overload"
    links: int = 10_000
    share: float = 0.04
    capacity_s: float = 45.0
    overload_s: float = 600.0
    drain_s: float = 60.0
    hold_s: float = 75.0
    session_s: float = 45.0
    watchdog_s: float = 60.0
    checkpoint_late_s: float = 60.0
    checkpoint_interval_s: float = 30.0
    shed_above_lag: int = 200_000
    open_rows_max: int = 300_000
    max_records: int = 5000
    sample_s: float = 5.0

    def sections(self, bootstrap: str, port: int) -> dict[str, dict[str, Any]]:
        """Return the daemon's configuration: no training, every row kept, and the plan's values."""
        kafka = {"bootstrap_servers": bootstrap, "topic": self.topic, "group_id": self.topic, "max_records": self.max_records}
        names = {f"{name}_topic": f"{self.topic}.{name}" for name in ("drift", "models", "dead_letter")}
        return {
            "kafka": kafka,
            "kafka.options": {"session_timeout_ms": int(1000 * self.session_s)},
            "events": names | {"to": "both"},
            "drift": {"shed_above_lag": self.shed_above_lag},
            "buffer": {"open_rows_max": self.open_rows_max, "rows_max": NEVER_ROWS},
            "training": {"schedule": "", "rows_min": NEVER_ROWS, "drift_rows_min": NEVER_ROWS},
            "state": {"checkpoint_interval_s": self.checkpoint_interval_s},
            "http": {"enabled": True, "port": port},
        }

    def faults(self, switch: Path) -> dict[str, Any]:
        """Return the faults (see testkit.faulty)."""
        hang = {"does": "hang", "thread": "checkpoint", "while": str(switch)}
        return {"faults": {"os.fsync": hang}, "constants": {"daemon.operator.health.CHECKPOINT_S": self.checkpoint_late_s}}


@dataclass(frozen=True)
class Hang:
    """The samples before the disk hung, when the source was paused, and when the disk went on."""

    before: Sample
    paused: Sample
    resumed: Sample


@dataclass(frozen=True)
class Course:
    """The outcome of the overload: the producer's result, and the samples of the daemon."""

    sent: Mapping[str, Any]
    began: Sample
    hang: Hang
    ended: Sample
    drained: Sample
    caught_up: Sample


class Overload:
    """The phases of one daemon's life. switch: the file with which the disk hangs."""

    def __init__(self, plan: Plan, bootstrap: str, process: DaemonProcess, watcher: Watcher, switch: Path) -> None:
        self.plan, self.process, self.watcher = plan, process, watcher
        self.sent = 0
        self._bootstrap, self._switch = bootstrap, switch
        self._rows = 0

    def write(self, rows: int) -> None:
        """Write further rows of each link, as fast as possible."""
        self._count(in_process("parts.paced_producer", self._job(rows, None)))

    def until_caught_up(self) -> Sample:
        """Wait until every record is read and forecasts are made again. Not with a share of a core: it looks often."""
        return self._until(lambda seen: seen.consumed == self.sent and seen.lag == 0 and not seen.shedding, OFTEN_S)

    def forecasting_records_per_cpu_s(self) -> float:
        """Return the rate with a forecast for every monitored row: so few records that none is shed."""
        before, used_s = self.sent, cpu_s(self.process.pid)
        self.write(max(1, self.plan.shed_above_lag // 3 // self.plan.links))
        self.until_caught_up()
        return (self.sent - before) / (cpu_s(self.process.pid) - used_s)

    def capacity(self) -> float:
        """Return records a second with the share, from a full topic."""
        plan = self.plan
        records = 1.3 * plan.shed_above_lag + plan.share * FASTEST_PER_CPU_S * (plan.capacity_s + 3 * plan.sample_s)
        with CpuShare(self.process.pid, plan.share):
            self.write(math.ceil(records / plan.links))
            first = self._until(lambda seen: seen.shedding)
            last = self.after(first, plan.capacity_s)
        if not last.shedding:
            raise RuntimeError(f"the topic was not full while the capacity was measured: {first}, {last}")
        self.until_caught_up()
        return taken_per_s(first, last)

    def overload(self, records_per_s: float) -> Course:
        """Overload, from an empty lag to the end of the catching up."""
        plan = self.plan
        with CpuShare(self.process.pid, plan.share), Producer(self._job(None, records_per_s), "parts.paced_producer") as producer:
            began = self._until(lambda seen: seen.consumed > self.sent)
            self.after(began, plan.overload_s * HANG_FROM)
            hang = self._hang()
            self.after(began, plan.overload_s)
            sent = producer.answer()
            self._count(sent)
            ended = self.watcher.look()
            drained = self.after(ended, plan.drain_s)
        return Course(sent, began, hang, ended, drained, self.until_caught_up())

    def after(self, since: Sample, seconds: float) -> Sample:
        """Return the first sample after this many seconds."""
        return self._until(lambda seen: seen.at_s - since.at_s >= seconds)

    def _hang(self) -> Hang:
        """Let the disk hang until the source has been paused for hold_s and that shows, or for ten times as long."""
        before = self.watcher.look()
        self._switch.touch()
        paused = self._until(lambda seen: seen.paused)
        held = self.after(paused, self.plan.hold_s)
        self._until(lambda seen: bool(seen.not_ready) or seen.at_s - held.at_s >= 10 * self.plan.hold_s)
        self._switch.unlink()
        resumed = self._until(lambda seen: not seen.paused)
        return Hang(before, paused, resumed)

    def _until(self, condition: Callable[[Sample], bool], every_s: float | None = None) -> Sample:
        return self.watcher.until(condition, every_s or self.plan.sample_s, STEP_LIMIT_S)

    def _job(self, rows: int | None, records_per_s: float | None) -> dict[str, Any]:
        plan = self.plan
        to = {"bootstrap": self._bootstrap, "topic": plan.topic, "partitions": PARTITIONS}
        return to | {"links": plan.links, "first_row": self._rows, "rows": rows, "records_per_s": records_per_s}

    def _count(self, sent: Mapping[str, Any]) -> None:
        self.sent += sent["sent"]
        self._rows += sent["rows"]


def taken_per_s(first: Sample, last: Sample) -> float:
    """Records read a second."""
    return (last.consumed - first.consumed) / (last.at_s - first.at_s)


def taken_while_shedding_per_s(samples: Sequence[Sample], course: Course) -> float | None:
    """Records read a second in the overload, but not while the disk hung; None if no forecasts were shed."""
    stretches = [(course.began, course.hang.before), (course.hang.resumed, course.ended)]
    pairs = [
        (one, next_)
        for first, last in stretches
        for one, next_ in pairwise(seen for seen in samples if first.at_s <= seen.at_s <= last.at_s)
        if one.shedding and next_.shedding
    ]
    passed_s = sum(next_.at_s - one.at_s for one, next_ in pairs)
    return sum(next_.consumed - one.consumed for one, next_ in pairs) / passed_s if passed_s else None
