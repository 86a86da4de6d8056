"""Overload: a daemon that is offered three times what it can take, for minutes, with a disk that refuses in the middle of it.

    make bench-overload        (or: python benchmarks/overload.py --quick)

What a daemon can take on two free cores no producer beside it can treble, so the daemon is made slow, and the producer is not: it runs
for a small share of each fifth of a second and stands still (SIGSTOP) for the rest, like a machine that is too small. Its capacity is
measured so, in the same run, over a full topic: with forecasts, and without, as under overload. Three times the larger one is offered. Then
the producer ends, the daemon has its cores back, and it catches up. Every second its memory and /metrics are read; in the end every record
must be in the buffer exactly once.
"""

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from harness import Bar, arguments, in_process, report, say
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from parts.consistency import buffered, compare, read_topic, rows_of
from parts.daemon_process import DaemonProcess, Home, Producer
from parts.rig import module
from parts.stream import PARTITIONS, broker

LINKS: Final = 1000
OFFERED: Final = 3.3
"""Times the capacity: a little more than the three that are to be reached."""
PERIOD_S: Final = 0.2
SESSION_S: Final = 10.0
CATCH_UP_LIMIT_S: Final = 900.0
START_LIMIT_S: Final = 120.0
NEVER: Final = 2**62
NONE_OF: Final = ("features_shed", "partitions_lost", "not_live", "lost", "duplicated", "exit_code")


@dataclass(frozen=True)
class Plan:
    """seconds: of overload. capacity_s: of each measurement of the capacity. share: of the time in which the daemon runs."""

    seconds: float
    capacity_s: float
    share: float


class Throttle:
    """Gives a process a share of the time, from `begin` to the end of the context."""

    def __init__(self, process: DaemonProcess, share: float) -> None:
        self._process, self._run_s = process, PERIOD_S * share
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="throttle", daemon=True)

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        self._thread.start()

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._process.freeze()
            time.sleep(PERIOD_S - self._run_s)
            self._process.thaw()
            time.sleep(self._run_s)


ACCEPTED: Final = 'dwcp_records_total{outcome="accepted"}'
CONSUMED: Final = 'dwcp_records_total{outcome="consumed"}'
SHED: Final = "dwcp_forecasts_shed_total"
LAG: Final = "dwcp_lag_records"
NOTHING_YET: Final = {ACCEPTED: 0.0, CONSUMED: 0.0, SHED: 0.0, LAG: math.nan}
WINDOW_ROWS: Final = 30
"""Of each link, before its first forecast."""


@dataclass
class Watch:
    """Reads a daemon's memory and metrics."""

    process: DaemonProcess
    port: int
    seen: list[dict[str, float]] = field(default_factory=list)
    dead: int = 0
    """How often /livez did not say 200."""

    def look(self) -> dict[str, float]:
        lines = self._get("/metrics")[1].splitlines()
        found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}
        self.dead += self._get("/livez")[0] != 200
        self.seen.append(NOTHING_YET | found | {"rss_mb": self.process.rss_mb(), "at_s": time.monotonic()})
        return self.seen[-1]

    def until(self, reached: Callable[[dict[str, float]], bool], limit_s: float) -> float:
        """Seconds until something is so, with a look every second. Raises RuntimeError where it takes too long."""
        began_s = time.monotonic()
        while not reached(self.look()):
            if time.monotonic() - began_s > limit_s or self.process.wait(1.0) is not None:
                raise RuntimeError(f"not reached within {limit_s:.0f} s, the last look: {self.seen[-1]}")
        return time.monotonic() - began_s

    def step(self) -> dict[str, float]:
        """The first look that sees more records than the one before."""
        before = self.look()[CONSUMED]
        self.until(lambda seen: seen[CONSUMED] > before, START_LIMIT_S)
        return self.seen[-1]

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Rig:
    """A broker, a version, and daemons on topics of their own."""

    def __init__(self, bootstrap: str, models: Path, folder: Path) -> None:
        self.bootstrap, self._models, self._folder = bootstrap, models, folder

    def topic(self, name: str) -> str:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.create_topics([NewTopic(name, PARTITIONS, 1)])
        admin.close()
        return name

    def flood(self, topic: str, rate: float, seconds: float = 0) -> Producer:
        job = {"bootstrap": self.bootstrap, "topic": topic, "partitions": PARTITIONS, "links": LINKS, "rate": rate, "seconds": seconds}
        return Producer(job, "parts.flood")

    def home(self, name: str, topic: str, **sections: dict[str, Any]) -> tuple[Home, int]:
        """A daemon's home, and the port of its metrics."""
        port = module("broker/broker").free_port()
        return Home(
            self._folder / name,
            {
                "kafka": {"bootstrap_servers": self.bootstrap, "topic": topic, "group_id": name},
                "kafka.options": {"session_timeout_ms": int(SESSION_S * 1000)},
                "events": {"to": "file"},
                "http": {"enabled": True, "port": port},
                "training": {"schedule": "", "rows_min": NEVER, "drift_rows_min": NEVER},
                "models": {"directory": str(self._models)},
            }
            | sections,
        ), port


def capacity(rig: Rig, topic: str, plan: Plan, shed_above_lag: int) -> float:
    """Records a second of a daemon that has only its share of the time, over a full topic."""
    home, port = rig.home(f"capacity-{shed_above_lag}", topic, drift={"shed_above_lag": shed_above_lag})
    with home.start() as process:
        process.wait_for("daemon_ready", START_LIMIT_S)
        watch = Watch(process, port)
        watch.until(lambda seen: seen[CONSUMED] > WINDOW_ROWS * LINKS, START_LIMIT_S)
        with Throttle(process, plan.share) as throttle:
            throttle.begin()
            began = last = watch.step()
            while last["at_s"] - began["at_s"] < plan.capacity_s or last[CONSUMED] == began[CONSUMED]:
                last = watch.step()
        if not last[LAG] > 0:
            raise RuntimeError("the topic ran empty: its capacity is larger than that")
    return (last[CONSUMED] - began[CONSUMED]) / (last["at_s"] - began["at_s"])


def overload(rig: Rig, plan: Plan, capacity_rate: float, folder: Path) -> dict[str, Any]:
    """The figures of the minutes of overload, and of what comes after."""
    topic, disk_full = rig.topic("overload"), folder / "disk full"
    second = max(200, int(capacity_rate))
    sections = {
        "drift": {"shed_above_lag": 5 * second},
        "buffer": {"open_rows_max": 10 * second},
        "state": {"checkpoint_interval_s": 2.0},
    }
    home, port = rig.home("overloaded", topic, **sections)
    fault = {"faults": {"daemon.checkpoint.write_state": {"while": str(disk_full), "does": "refuse"}}}
    with home.start(fault) as process:
        process.wait_for("daemon_ready", START_LIMIT_S)
        watch = Watch(process, port)
        with rig.flood(topic, OFFERED * capacity_rate) as flood, Throttle(process, plan.share) as throttle:
            watch.until(lambda seen: seen[CONSUMED] > 0, START_LIMIT_S)
            throttle.begin()
            began_s = time.monotonic()
            while (ran_s := time.monotonic() - began_s) < plan.seconds:
                if 0.4 < ran_s / plan.seconds < 0.6:
                    disk_full.touch()
                else:
                    disk_full.unlink(missing_ok=True)
                watch.look()
                time.sleep(1.0)
            flood.terminate()
            sent, at_the_end = flood.answer(), watch.look()
        say(f"{sent['sent']} records offered, {at_the_end[CONSUMED]:.0f} taken, {at_the_end[LAG]:.0f} behind")
        offered = sent["sent"] / sent["seconds"]
        caught_up_s = watch.until(lambda seen: seen[CONSUMED] >= sent["sent"] and seen[LAG] == 0, CATCH_UP_LIMIT_S)
        process.wait_for("forecasts_resumed", START_LIMIT_S)
        last, code = watch.look(), process.stop("SIGTERM")
    rows = rows_of(read_topic(rig.bootstrap, topic))
    difference = compare(rows, buffered(home.state))
    for example in difference.examples:
        say(example)
    told = Counter(home.all_told())
    in_overload = [seen["rss_mb"] for seen in watch.seen if seen["at_s"] < began_s + plan.seconds]
    third = len(in_overload) // 3
    return {
        "seconds": plan.seconds,
        "offered_rate": offered,
        "offered_ratio": offered / capacity_rate,
        "records": sent["sent"],
        "rss_first_third_mb": max(in_overload[:third]),
        "rss_last_third_mb": max(in_overload[-third:]),
        "rss_peak_mb": max(seen["rss_mb"] for seen in watch.seen),
        "lag_peak": max(seen[LAG] for seen in watch.seen if not math.isnan(seen[LAG])),
        "lag_shown_ratio": at_the_end[LAG] / max(1.0, sent["sent"] - at_the_end[CONSUMED]),
        "caught_up_s": caught_up_s,
        "forecasts_shed": int(last[SHED]),
        "features_shed": len(rows) - int(last[ACCEPTED]),
        "times_shed": told["forecasts_shed"],
        "times_resumed": told["forecasts_resumed"],
        "paused": told["source_paused"],
        "resumed": told["source_resumed"],
        "partitions_lost": told["partition_lost"] + told["partition_released"],
        "not_live": watch.dead,
        "lost": difference.lost,
        "duplicated": difference.duplicated + difference.unexpected,
        "exit_code": code,
    }


def measure(bootstrap: str, plan: Plan, models: Path, folder: Path) -> dict[str, Any]:
    """All figures. models: with a live version."""
    rig = Rig(bootstrap, models, folder)
    full = rig.topic("capacity")
    with rig.flood(full, 40_000, 20.0) as flood:
        say(f"{flood.answer()['sent']} records to measure the capacity on")
    forecasting, features = capacity(rig, full, plan, NEVER), capacity(rig, full, plan, 1)
    say(f"capacity: {forecasting:.0f} records/s with forecasts, {features:.0f} without")
    return {
        "share": plan.share,
        "capacity_with_forecasts_rate": forecasting,
        "capacity_rate": features,
    } | overload(rig, plan, max(forecasting, features), folder)


def main() -> int:
    options = arguments(__doc__)
    plan = Plan(30.0, 5.0, 0.1) if options.quick else Plan(600.0, 20.0, 0.02)
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="dwcp-overload-") as name:
        in_process("parts.version", {"models": f"{name}/models"})
        figures = measure(kafka.bootstrap, plan, Path(name) / "models", Path(name))
    bars = [
        Bar("seconds", figures["seconds"], ">=", 600),
        Bar("offered_ratio", figures["offered_ratio"], ">=", 3),
        Bar("rss_growth_ratio", figures["rss_last_third_mb"] / figures["rss_first_third_mb"], "<=", 1.1),
        Bar("lag_shown_ratio", figures["lag_shown_ratio"], ">=", 0.9),
        *(Bar(name, figures[name], ">=", 1) for name in ("forecasts_shed", "times_resumed", "paused")),
        Bar("still_paused", figures["paused"] - figures["resumed"], "<=", 0),
        *(
            Bar(name, figures[name], "<=", 0)
            for name in ("features_shed", "partitions_lost", "not_live", "lost", "duplicated", "exit_code")
        ),
    ]
    return report("overload", figures, bars)


if __name__ == "__main__":
    sys.exit(main())
