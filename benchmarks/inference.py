"""Inference: the cost of a forecast with each published graph, and with what could be used in its place.

    make bench-inference        (or: python benchmarks/inference.py --quick)

One process and one thread. In each round every graph forecasts some hundred windows one by one, then a few batches of 64. A graph's
figures are the medians over the rounds of p50, p99 and windows per CPU second. Ratios are taken within a round. Windows are recorded ones
if `../shared/data` exists, else simulated. The network has the published size and untrained weights; the cost does not depend on them.
"default_raw" is the raw graph of the default architecture, with five horizons, and "default_raw_next_row" the same with one.
Rivals are Keras, called and as `predict`, and the direct export of the training network, whose recurrent dropout becomes loops.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any, Final

from harness import Bar, arguments, in_process, median_of_ratios, report

PUBLISHED: Final = ("core", "raw", "int8")
ROUNDS_EACH: Final = 4
"""Rounds for each of the harness's: a round takes a few seconds, and the machine changes between rounds."""


def ratio(found: dict[str, Any], above: str, below: str, what: str = "p50_ms") -> float:
    return median_of_ratios(found["runs"][above][what], found["runs"][below][what])


def median(found: dict[str, Any], name: str, what: str) -> float:
    return statistics.median(found["runs"][name][what])


def figures(found: dict[str, Any]) -> dict[str, Any]:
    runs, sizes = found["runs"], found["sizes"]
    return {
        "windows_from": found["windows_from"],
        "p50_ms": {name: median(found, name, "p50_ms") for name in runs},
        "p99_ms": {name: median(found, name, "p99_ms") for name in runs},
        "windows_per_cpu_s_at_64": {name: median(found, name, "windows_per_cpu_s") for name in runs},
        "raw_vs_core_at_64": ratio(found, "raw", "core", "cpu_ms_at_64"),
        "raw_vs_rival": {name: ratio(found, "raw", name) for name in runs if name not in PUBLISHED and not name.startswith("default")},
        "size_mb": {name: size / 1e6 for name, size in sizes.items()},
        "apart_from_keras": found["parity"],
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    sizes = found["sizes"]
    return [
        Bar("raw_vs_core", ratio(found, "raw", "core"), "<=", 1.25),
        Bar("int8_vs_raw", ratio(found, "int8", "raw"), "<=", 0.45),
        Bar("p99_ms_worst", max(median(found, name, "p99_ms") for name in PUBLISHED), "<=", 10.0),
        Bar("horizons_vs_next_row", ratio(found, "default_raw", "default_raw_next_row"), "<=", 1.25),
        Bar("default_vs_published_cpu_at_64", ratio(found, "default_raw", "raw", "cpu_ms_at_64"), "<=", 0.5),
        Bar("int8_saving", 1.0 - sizes["int8"] / sizes["core"], ">=", 0.70),
    ]


def main() -> int:
    options = arguments(__doc__)
    rounds = 2 if options.quick else ROUNDS_EACH * options.rounds
    job = {"rounds": rounds, "calls": 40 if options.quick else 200, "batches": 2 if options.quick else 4}
    found = in_process("parts.inference", job)
    return report("inference", figures(found), bars(found))


if __name__ == "__main__":
    sys.exit(main())
