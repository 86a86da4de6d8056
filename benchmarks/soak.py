"""Soak: a week of a fleet in an hour, through one daemon that is never restarted, and what grows in it.

    make bench-soak        (or: python benchmarks/soak.py --quick, or --hours N for the first N simulated hours)

10,000 links report every minute, 90 million records. Regions drift, links and partitions come and go, some records are truncated. A
training is due every simulated hour. The stream flows beside it, and waits for its end before the next hour. During six hours of each day
trainings find too little data (parts/soak_plan.py), the others publish. Buffer and models folder are full within hours. The process and its
folders are measured every simulated hour. Slopes are those of Theil and Sen over the second half, per simulated week, as a share of the
median.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any, Final

from daemon.state.checkpoint import KEPT
from daemon.training.child import FOLDERS_KEPT
from harness import Bar, in_process, parser, report, say
from model.buffer.retention import COMPACTED_ROWS, FAN_IN
from model.registry.versions import REFUSED_KEPT
from parts.soak_plan import DAY_H, Plan
from parts.stream import PARTITIONS

WEEK_H: Final = 7 * DAY_H
FULL: Final = Plan(links=10_000, interval_s=60.0, hours=WEEK_H, training_every_h=1, rows_max=1_000_000)
QUICK: Final = Plan(links=500, interval_s=60.0, hours=24, training_every_h=6, rows_max=100_000, keep=2)
LIMIT_S: Final = 4 * 3600.0
"""Most seconds: a machine of a quarter of the speed still reaches the end."""
SLOPES: Final = (
    "resident_bytes", "anonymous_bytes", "python_blocks", "malloc_used_bytes", "files", "threads", "segments", "buffer_bytes",
    "checkpoint_bytes", "journal_bytes", "event_bytes", "state_bytes", "model_bytes", "training_folders", "metric_lines",
)  # fmt: skip
RESIDENT_SLOPE_MAX: Final = 0.05
"""Share of the resident memory, 400 MB, a week: 20 MB. It finds a leak of .2 bytes a record or of 120 KB a training."""
RESIDENT_HOURS_MIN: Final = WEEK_H // 2
"""Least simulated hours for a slope: in a day, the detectors' windows and the allocators' arenas are still filling."""


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the median slope over all pairs of points (Sen, 1968), robust to a quarter of outliers. 0 for fewer than two points."""
    return statistics.median([(yb - ya) / (xb - xa) for (xa, ya), (xb, yb) in combinations(zip(x, y, strict=True), 2)] or [0.0])


def slopes(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the growth of each figure in a week, as a share of its median; 0 if the median is 0."""
    hours = [sample["hour"] for sample in samples]
    grown = {}
    for name in SLOPES:
        values = [sample[name] for sample in samples]
        grown[name] = WEEK_H * theil_sen(hours, values) / (statistics.median(values) or 1.0)
    return grown


def segments_max(plan: Plan) -> int:
    """Return the most segments of a partition.

    These are large ones, which are not merged; fewer than FAN_IN of each of three smaller classes; and, in the two older checkpoints
    that are kept, the parts of what was merged since.
    """
    large = plan.rows_max // (COMPACTED_ROWS // FAN_IN)
    return large + PARTITIONS * (3 * (FAN_IN - 1) + (KEPT - 1) * (FAN_IN + 1))


def settled(plan: Plan, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the second half, in which buffer, models folder and table of links are full."""
    return [sample for sample in samples if sample["hour"] >= plan.hours / 2]


def figures(plan: Plan, found: dict[str, Any]) -> dict[str, Any]:
    samples, events = found["samples"], found["events"]
    late = settled(plan, samples)
    seconds = found["training_seconds"]
    return {
        "plan": asdict(plan),
        "minutes": found["wall_s"] / 60,
        "records": found["delivered"],
        "records_per_s": found["delivered"] / found["wall_s"],
        "week_would_take_minutes": found["wall_s"] / 60 * WEEK_H / plan.hours,
        "outcomes": found["outcomes"],
        "forecasts": found["forecasts"],
        "daemon_cores": found["cpu_s"] / found["wall_s"],
        "trainings_cores": found["trainings_cpu_s"] / found["wall_s"],
        "trainings": {"due": found["trainings_due"], "finished": len(seconds)}
        | {name: events.get(name, 0) for name in ("training_due", "model_published", "model_refused", "training_failed")},
        "training_s": {"median": statistics.median(seconds or [0.0]), "max": max(seconds, default=0.0), "stages": found["stage_seconds"]},
        "incidents": {kind: events.get(f"drift_{kind}", 0) for kind in ("opened", "updated", "closed")},
        "problems": found["problems"],
        "segments_allowed": segments_max(plan),
        "slope_per_week": slopes(late),
        "samples": daily(samples),
    }


def daily(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first sample of each day, and the last one."""
    first = {int(sample["hour"] / DAY_H): sample for sample in reversed(samples)}
    return [first[day] for day in sorted(first)] + list(samples[-1:])


def bars(plan: Plan, found: dict[str, Any], result: dict[str, Any]) -> list[Bar]:
    late, slope = settled(plan, found["samples"]), result["slope_per_week"]

    def most(name: str) -> float:
        return max((float(sample[name]) for sample in late), default=float("inf"))

    over_models = [sample["model_bytes"] - (plan.keep + REFUSED_KEPT) * sample["version_bytes_max"] for sample in late]
    resident = Bar("resident_slope_per_week", slope["resident_bytes"], "<=", RESIDENT_SLOPE_MAX)
    return [
        *([resident] if plan.hours >= RESIDENT_HOURS_MIN else []),
        Bar("files_slope_per_week", slope["files"], "<=", 0),
        Bar("threads_slope_per_week", slope["threads"], "<=", 0),
        Bar("zombies", most("zombies"), "<=", 0),
        Bar("segments", most("segments"), "<=", segments_max(plan)),
        Bar("buffer_rows", most("buffer_rows"), "<=", plan.rows_max),
        Bar("checkpoints", most("checkpoints"), "<=", KEPT),
        Bar("training_folders", most("training_folders"), "<=", FOLDERS_KEPT),
        Bar("model_bytes_over_retention", max(over_models, default=None), "<=", 0),
        Bar("versions", most("versions"), "<=", plan.keep),
        Bar("metric_lines_slope_per_week", slope["metric_lines"], "<=", 0.05),
        Bar("records_without_outcome", abs(found["delivered"] - sum(found["outcomes"].values())), "<=", 0),
        Bar("incidents_opened", result["incidents"]["opened"], ">=", plan.hours // DAY_H),
        Bar("trainings_finished", result["trainings"]["finished"], ">=", -(-plan.trainings * 160 // 168)),
    ]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--hours", type=int, help="stop after so many simulated hours")
    chosen = options.parse_args()
    plan = QUICK if chosen.quick else FULL
    plan = replace(plan, hours=chosen.hours or plan.hours)
    say(f"{plan.hours} simulated hours of {plan.links:,} links, {plan.trainings} trainings")
    found = in_process("parts.soak_run", asdict(plan), limit_s=LIMIT_S, aloud=True)
    result = figures(plan, found)
    return report("soak", result, bars(plan, found, result))


if __name__ == "__main__":
    sys.exit(main())
