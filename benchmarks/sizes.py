"""Sizes of the network that forecasts ahead: what each reaches on validation rows of all recordings together, and what it costs.

    make bench-sizes        (or: python benchmarks/sizes.py --quick)

The default in model/spec/architecture.py is judged by this table, not by the test rows of benchmarks/accuracy.py. Each recording is split
by time, link by link: 70 % to train, the next 15 % to score. A score is the weighted interval score of median and interval, in errors of
persistence, averaged over all pairs of target and horizon. "to default" is the geometric mean over recordings of its ratio to that of the
default. Each variant differs from the default in what its name says.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from harness import Bar, arguments, in_process, report, say
from model.spec.architecture import Ahead
from model.spec.job import plain
from parts.accuracy_cases import DATA, HORIZONS, LIMIT_S, SETS
from parts.accuracy_score import geometric_mean

DEFAULT: Final = "default"
VARIANTS: Final = {
    DEFAULT: Ahead(),
    "linear": Ahead(units=(), members=1),
    "one member": Ahead(members=1),
    "eight members": Ahead(members=8),
    "units 32": Ahead(units=(32,)),
    "units 48, 24": Ahead(units=(48, 24)),
    "units 192, 96": Ahead(units=(192, 96)),
    "no dropout": Ahead(dropout=0.0),
    "dropout .3": Ahead(dropout=0.3),
}
QUICK_SETS: Final = ("isp_backbone_5min",)
QUICK: Final = (DEFAULT, "linear")
WORTH: Final = 0.99
"""A variant has to be better than the default by a hundredth to be worth a change: seeds differ by about as much."""


def rows(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of the table for each variant. found: scores and CPU seconds of each variant by recording."""
    variants = list(next(iter(found.values())))
    return [
        {
            "variant": variant,
            "to default": geometric_mean(of_set[variant]["score"] / of_set[DEFAULT]["score"] for of_set in found.values()),
            "CPU time to default": geometric_mean(of_set[variant]["cpu_s"] / of_set[DEFAULT]["cpu_s"] for of_set in found.values()),
            **{name: of_set[variant]["score"] for name, of_set in found.items()},
        }
        for variant in variants
    ]


def main() -> int:
    options = arguments(__doc__)
    if not DATA.is_dir():
        print("sizes: there are no recordings beside the project; see benchmarks/accuracy.py", file=sys.stderr)
        return 1
    names = QUICK if options.quick else tuple(VARIANTS)
    found: dict[str, dict[str, Any]] = {}
    for name in QUICK_SETS if options.quick else SETS:
        job = {
            "path": str(DATA / f"{name}.csv"), "key": SETS[name], "horizons": HORIZONS, "epochs": 1 if options.quick else None,
            "variants": {variant: plain(VARIANTS[variant]) for variant in names},
        }  # fmt: skip
        found[name] = in_process("parts.sizes_run", job, limit_s=LIMIT_S)
        say(f"{name}: { {variant: round(one['score'], 4) for variant, one in found[name].items()} }")
    table = rows(found)
    best = min(row["to default"] for row in table)
    return report("sizes", {"variants": table}, [Bar("best_to_default", best, ">=", WORTH)])


if __name__ == "__main__":
    sys.exit(main())
