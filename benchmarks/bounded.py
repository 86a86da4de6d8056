"""Forecasts stay possible: a million sequences of valid rows through every graph, with outages, spikes, counters, holes and zeros.

    make bench-bounded        (or: python benchmarks/bounded.py --quick, or --sequences 20000)

Four versions of the published size are trained first: of a simulated fleet, of a stream without RTT whose jitter is always 0, one
fine-tuned from the first, and one of a fleet with absurd numbers. Each sequence is of one link. Half of them are like the fleet's, half of
any size. Each goes through the core graph, the raw graph and the quantised graph of a version, with no code of this project after them. A
forecast has to be

- finite,
- possible: no throughput, delay or jitter below 0, no loss over 1,
- within the stated multiple of what the window has shown of its target (metadata: forecast_bounds),
- missing for a target that was never measured in training.

`undisturbed_mae_change` is the largest relative rise of a target's mean absolute error that the bounds cause on undisturbed rows which were
not trained on. It is negative if the bounds lower the error: bursts of a quiet fleet are beyond what a version has seen in hours.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from harness import Bar, in_process, parser, report, say
from parts.version import SMALL

SEQUENCES: Final = 1_000_000
QUICK: Final = 3_000
ROWS: Final = 240
LIMIT_S: Final = 4 * 3600.0
"""Most seconds of a process. The sequences take 20 minutes on two idle cores."""


def through_graphs(root: Path, versions: list[str], sequences: int) -> list[dict[str, Any]]:
    """Run half of the sequences in each of two processes, with different seeds."""
    workers = min(2, os.cpu_count() or 1)
    jobs = [
        {"root": str(root), "versions": versions, "sequences": -(-sequences // workers), "seed": seed} for seed in range(workers)
    ]  # fmt: skip
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda job: in_process("parts.bounded_run", job, limit_s=LIMIT_S, aloud=True), jobs))


def changes(undisturbed: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each version: windows, and the largest relative rise of a target's error."""
    return [
        {
            "version": version,
            "windows": found["windows"],
            "change": max(
                with_ / without - 1.0 if without > 0 else float(with_ > 0)
                for with_, without in zip(found["bounded"], found["unbounded"], strict=True)
            ),
        }
        for version, found in undisturbed.items()
    ]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--sequences", type=int, default=None, help=f"how many (default: {SEQUENCES:,})")
    options.add_argument("--versions", type=Path, default=None, help="folder that keeps the four versions for a second run")
    chosen = options.parse_args()
    wanted = chosen.sequences or (QUICK if chosen.quick else SEQUENCES)
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        root = chosen.versions or Path(name)
        root.mkdir(parents=True, exist_ok=True)
        say("training four versions")
        job = {"root": str(root.resolve()), "rows": ROWS, "architecture": SMALL if chosen.quick else {}}
        trained = in_process("parts.bounded_versions", job, aloud=True)
        runs = through_graphs(root.resolve(), trained["versions"], wanted)
    for run in runs:
        if run["first"] is not None:
            say(run["first"])
    counts = {
        kind: {graph: sum(run["counts"][graph][kind] for run in runs) for graph in runs[0]["counts"]}
        for kind in ("impossible", "not_finite", "over_multiple", "not_missing")
    }
    changed = changes(trained["undisturbed"])
    bars = [
        Bar("sequences", sum(run["sequences"] for run in runs), ">=", SEQUENCES),
        *(Bar(kind, sum(by_graph.values()), "<=", 0) for kind, by_graph in counts.items()),
        Bar("undisturbed_mae_change", max(row["change"] for row in changed), "<=", 0.001),
    ]
    return report("bounded", {**counts, "undisturbed": changed}, bars)


if __name__ == "__main__":
    sys.exit(main())
