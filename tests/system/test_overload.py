"""benchmarks/overload.py in short: more records than the daemon can read, and a disk that hangs meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import overload
from parts import consistency, cpu_share, paced_producer
from testkit.versions import publish
from testkit.waiting import wait_for

SMALL = {
    "links": 150, "share": 0.05, "capacity_s": 1.0, "overload_s": 4.0, "drain_s": 1.0, "hold_s": 1.0, "watchdog_s": 20.0, "sample_s": 0.7,
    "checkpoint_late_s": 1.0, "checkpoint_interval_s": 1.0, "shed_above_lag": 2_000, "open_rows_max": 8_000, "max_records": 1_000,
}  # fmt: skip


def test_overload_sheds_forecasts_and_no_record(kafka_broker: str, tmp_path: Path) -> None:
    """The lag grows, forecasts are shed and counted, and a disk that hangs pauses the source.

    The group keeps its member. At the end every record is read, once, and forecasts are made again.
    """
    home = tmp_path / "home"
    home.mkdir()
    publish(home, "v20260101_000000")
    figures = overload.measure(kafka_broker, overload.Plan(topic="overload.short", **SMALL), home)
    assert (figures["lost"], figures["duplicated"], figures["miscounted"], figures["lag_in_the_end"]) == (0, 0, 0, 0)
    assert figures["rejected"] > 0
    assert figures["forecasts"] > 0
    assert figures["forecasts_shed_rows"] > 0
    assert figures["forecasts_shed"] == figures["forecasts_resumed"] >= 2, "while the capacity was measured, and in the overload"
    assert figures["lag_peak"] > SMALL["shed_above_lag"]
    assert figures["source_paused"] == figures["source_resumed"] >= 1
    assert figures["told_not_ready_in_the_hang"]
    assert (figures["not_assigned_once"], figures["not_live"], figures["exit_code"]) == (0, 0, 0)


def test_a_share_of_a_core_is_all_that_a_process_gets() -> None:
    """A process that would use a whole core uses no more than its share of the time, and is left running."""
    share = cpu_share
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            began_s = time.monotonic()
            used_s = share.cpu_s(busy.pid)
            with share.CpuShare(busy.pid, 0.1):
                wait_for(lambda: share.cpu_s(busy.pid) - used_s > 0.2, "two seconds' worth of its share")
            passed_s, used_s = time.monotonic() - began_s, share.cpu_s(busy.pid) - used_s
            assert used_s < 0.5 * passed_s
            assert Path(f"/proc/{busy.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"
        finally:
            os.kill(busy.pid, signal.SIGKILL)


def test_what_is_produced_is_telemetry_whose_time_moves() -> None:
    """Every link in turn, each record later than the last of its link, across producers, and now and then a bad record."""
    partition = consistency.Partition("topic", 0)
    links, values = zip(*[*paced_producer.records(8, 0, 3), *paced_producer.records(8, 3, 2)], strict=True)
    assert [link for link in links if link >= 0] == [*range(8)] * 5
    assert len(consistency.rows_of({partition: values})) == 8 * 5
    assert len(consistency.refused_of({partition: values})) == links.count(-1) == 1
