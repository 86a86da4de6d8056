"""Overload: producers at three times the daemon's capacity for ten minutes, a disk that hangs meanwhile, and how the daemon catches up.

    make bench-overload        (or: python benchmarks/overload.py --quick)

Apache Kafka, `dwcp-learner run` as a process with a live model, and a cheap producer. On two cores nothing produces three times what the
daemon reads on one of them (some 180,000 records a second). So it gets a small share of a core, as by CPUQuota= (parts/cpu_share.py). Its
capacity with this share is measured first, from a full topic. It sheds its forecasts there, which is its maximum; the capacity with
forecasts is reported beside it. Then it catches up, and the overload begins from an empty lag:

1. The producer sends more than three times the capacity, and the lag grows until it ends.
2. In the middle the disk hangs (fsync of the checkpoint does not return), until the source is paused for lack of memory, and for longer
   than the group's session and than a checkpoint may take. /readyz has to report it. The group must not reassign the partitions.
3. The producer ends. For a while the daemon catches up with its share: overload has not made it slower. Then it gets the whole core,
   because the rest would take twice the time of the overload.

At the end the buffer is compared with the raw topic, row by row (parts/consistency.py).
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from harness import Bar, arguments, in_process, report, say
from parts.consistency import Row, buffered, compare, read_topic, refused_of, rows_of
from parts.daemon_process import Home
from parts.overload_run import OFFERED, Course, Overload, Plan, taken_per_s, taken_while_shedding_per_s
from parts.stream import PARTITIONS, broker
from parts.version import SMALL
from parts.watcher import Sample, ServiceManager, Watcher, memory
from testkit.kafka.broker import free_port

START_LIMIT_S: Final = 300.0
WARM_ROWS: Final = 40
"""Rows of each link before the measurement: its window is full with 30."""
OUTCOMES: Final = ("consumed", "accepted", "rejected", "duplicate", "late")
TOLD: Final = (
    "forecasts_shed", "forecasts_resumed", "source_paused", "source_resumed", "checkpoint_failed", "daemon_not_ready", "daemon_ready_again",
    "partition_assigned", "partition_lost", "partition_released", "kafka_joining", "kafka_unreachable", "kafka_error",
)  # fmt: skip
GROWTH_MB: Final = 400.0
"""Most memory that the overload may add, however long the topic is.

A fetch is at most 4 MB of each partition before it is unpacked. An open row has some 90 bytes (300,000 of them: 27 MB). Sealing holds those
rows, their columns and the file at the same time. Gigabytes wait in the topic.
"""

SHORT: Final = Plan(
    links=2000, share=0.06, capacity_s=8.0, overload_s=35.0, drain_s=5.0, hold_s=8.0, session_s=6.0, watchdog_s=15.0, checkpoint_late_s=5.0,
    checkpoint_interval_s=3.0, shed_above_lag=20_000, open_rows_max=60_000, sample_s=1.0,
)  # fmt: skip


def measure(bootstrap: str, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the figures of a plan. folder: the daemon's; models/ in it holds a version."""
    port, switch = free_port(), folder / "hanging disk"
    home = Home(folder, plan.sections(bootstrap, port))
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    events = [f"{plan.topic}.{name}" for name in ("drift", "models", "dead_letter")]
    admin.create_topics([NewTopic(plan.topic, PARTITIONS, 1), *(NewTopic(name, 1, 1) for name in events)])
    admin.close()
    with ServiceManager(folder, plan.watchdog_s) as manager, home.start(plan.faults(switch), manager.environment) as process:
        run = Overload(plan, bootstrap, process, Watcher(process.pid, port), switch)
        figures = phases(run, manager)
        figures["exit_code"] = process.stop("SIGTERM")
        figures |= {name: len(process.all_reported(name)) for name in TOLD}
    return figures | checked(bootstrap, plan, home, figures)


def phases(run: Overload, manager: ServiceManager) -> dict[str, Any]:
    """Warm up, measure the capacity, and overload."""
    plan, process, watcher = run.plan, run.process, run.watcher
    process.wait_for("daemon_ready", START_LIMIT_S)
    run.write(WARM_ROWS)
    warm = run.until_caught_up()
    forecasting = plan.share * run.forecasting_records_per_cpu_s()
    capacity = run.capacity()
    say(f"capacity {capacity:,.0f} records a second, {forecasting:,.0f} with forecasts")
    course = run.overload(OFFERED * capacity)
    say(f"overload over, {course.drained.lag:,} behind" if course.drained.lag else "overload over, and nothing was left")
    metrics = watcher.metrics()
    return {
        "links": plan.links,
        "share_of_a_core": plan.share,
        "capacity_records_per_s": capacity,
        "capacity_with_forecasts_records_per_s": forecasting,
        **offered(course, capacity, watcher.samples),
        **memory_of(process.pid, warm, watcher.samples, course),
        **health_of(watcher.samples, course, manager, plan),
        "forecasts": int(metrics["dwcp_forecasts_total"]),
        "forecasts_shed_rows": int(metrics["dwcp_forecasts_shed_total"]),
        "lag_when_shed": process.all_reported("forecasts_shed")[-1]["lag"],
        "records": run.sent,
        **{name: int(metrics.get(f'dwcp_records_total{{outcome="{name}"}}', 0)) for name in OUTCOMES},
    }


def offered(course: Course, capacity: float, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return how much was sent, how much of it was read, and how long the rest took."""
    ended, drained, caught_up = course.ended, course.drained, course.caught_up
    records_per_s, waiting = course.sent["sent"] / course.sent["seconds"], caught_up.consumed - drained.consumed
    taken = taken_while_shedding_per_s(samples, course)
    return {
        "overload_s": course.sent["seconds"],
        "offered_records_per_s": records_per_s,
        "offered_of_capacity": records_per_s / capacity,
        "taken_of_capacity": taken / capacity if taken is not None else None,
        "lag_peak": max(ended.lag or 0, drained.lag or 0),
        "lag_error": abs((drained.lag or 0) - waiting) / max(1, waiting),
        "lag_in_the_end": caught_up.lag,
        "drained_of_capacity": taken_per_s(ended, drained) / capacity,
        "catch_up_s": caught_up.at_s - drained.at_s,
        "catch_up_records_per_s": taken_per_s(drained, caught_up),
        "catch_up_with_the_share_minutes": (ended.lag or 0) / capacity / 60,
    }


def memory_of(pid: int, warm: Sample, samples: Sequence[Sample], course: Course) -> dict[str, Any]:
    """Return the daemon's memory when it was warm, at its peak, and at begin and end of the overload."""
    during = [seen.resident_bytes for seen in samples if course.began.at_s <= seen.at_s <= course.ended.at_s]
    third = max(1, len(during) // 3)
    peak = memory(pid)["VmHWM"]
    return {
        "warm_mb": warm.resident_bytes / 1e6,
        "peak_mb": peak / 1e6,
        "growth_mb": (peak - warm.resident_bytes) / 1e6,
        "last_third_of_first": max(during[-third:]) / max(during[:third]),
    }


def health_of(samples: Sequence[Sample], course: Course, manager: ServiceManager, plan: Plan) -> dict[str, Any]:
    """Return whether health was reported correctly. A checkpoint that hung is reported until the loop's next look after its end."""
    hang = course.hang
    ill = [seen for seen in samples if seen.not_ready]
    elsewhere = [seen for seen in ill if not hang.before.at_s <= seen.at_s <= hang.resumed.at_s + 2 * plan.sample_s]
    for seen in elsewhere[:3]:
        say(f"not ready outside of the hang: {seen.not_ready}")
    return {
        "paused_s": hang.resumed.at_s - hang.paused.at_s,
        "session_s": plan.session_s,
        "told_not_ready_in_the_hang": sum("a checkpoint has been written for" in seen.not_ready for seen in ill) > 0,
        "not_ready_otherwise": len(elsewhere),
        "not_live": sum(not seen.live for seen in samples),
        "watchdog_s": plan.watchdog_s,
        "longest_watchdog_gap_s": manager.longest_gap_s(course.began.at_s, course.caught_up.at_s),
    }


def checked(bootstrap: str, plan: Plan, home: Home, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Compare buffer, dead letters and counters with the raw topic, one partition after the other to save memory."""
    rows, found = 0, by_partition(buffered(home.state))
    buried = Counter((event["data"]["partition"], event["data"]["offset"]) for event in home.events("dead_letters"))
    differences, refused = [], set()
    for number in range(PARTITIONS):
        topic = read_topic(bootstrap, plan.topic, number)
        expected = rows_of(topic)
        rows += len(expected)
        refused |= refused_of(topic)
        differences.append(compare(expected, found.pop(number, [])))
    for example in [example for difference in differences for example in difference.examples][:6]:
        say(example)
    return {
        "rows": rows,
        "lost": sum(difference.lost for difference in differences) + len(refused - buried.keys()),
        "duplicated": sum(difference.duplicated + difference.unexpected for difference in differences) + buried.total() - len(buried),
        "miscounted": abs(figures["accepted"] - rows)
        + abs(figures["rejected"] - len(refused))
        + abs(figures["consumed"] - figures["records"]),
        "not_assigned_once": abs(figures["partition_assigned"] - PARTITIONS) + figures["partition_lost"] + figures["partition_released"],
    }


def by_partition(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found


def bars(figures: Mapping[str, Any]) -> list[Bar]:
    """Return the bars.

    A pause that is shorter than the session proves nothing. taken_of_capacity does not hold, because it cannot be measured, if the overload
    has shed no forecasts.
    """
    none = ("lost", "duplicated", "miscounted", "not_assigned_once", "exit_code", "lag_in_the_end", "not_live", "not_ready_otherwise")
    some = ("forecasts_shed_rows", "forecasts_shed", "forecasts_resumed", "source_paused", "source_resumed", "told_not_ready_in_the_hang")
    return [
        Bar("offered_of_capacity", figures["offered_of_capacity"], ">=", 3.0),
        Bar("taken_of_capacity", figures["taken_of_capacity"], ">=", 0.8),
        Bar("drained_of_capacity", figures["drained_of_capacity"], ">=", 0.8),
        Bar("lag_error", figures["lag_error"], "<=", 0.1),
        Bar("growth_mb", figures["growth_mb"], "<=", GROWTH_MB),
        Bar("last_third_of_first", figures["last_third_of_first"], "<=", 1.1),
        Bar("pause_of_session", figures["paused_s"] / figures["session_s"], ">=", 1.0),
        Bar("watchdog_gap_of_limit", figures["longest_watchdog_gap_s"] / figures["watchdog_s"], "<=", 1.0),
        Bar("catch_up_of_overload", figures["catch_up_s"] / figures["overload_s"], "<=", 0.5),
        *(Bar(name, figures[name], ">=", 1) for name in some),
        *(Bar(name, figures[name], "<=", 0) for name in none),
    ]


def main() -> int:
    quick = arguments(__doc__).quick
    plan = SHORT if quick else Plan()
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="dwcp-overload-") as folder:
        in_process("parts.version", {"models": f"{folder}/models"} | ({"architecture": SMALL} if quick else {}))
        figures = measure(kafka.bootstrap, plan, Path(folder))
    return report("overload", figures, bars(figures))


if __name__ == "__main__":
    sys.exit(main())
