"""Whether learning pays: policies of training on recordings and simulated fleets, all forecasts judged on the rows that they were made for.

    make bench-backtest      (or: python benchmarks/backtest.py --quick; --only telstra_cable_30min none runs a part)

Each policy is a replay of the daemon's own loop. Results are kept under build/backtest, so that an interrupted run goes on.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from daemon.commands.backtest.policies import POLICIES
from harness import FOLDER, Bar, parser, report, say
from parts.kept import Kept

DATA: Final = FOLDER.parent.parent / "shared" / "data"
RECORDINGS: Final = ("telstra_cable_30min", "netrics_chicago", "starlink_road_1s", "abilene_5min", "ripe_atlas_4min")
FLEETS: Final = ("none", "abrupt", "ramp", "recurring")
SIMPLE: Final = ("last_value", "average", "level", "same_hour")
FORECASTS_LEAST: Final = 200
"""Forecasts that a pair of horizon and target must have to be counted."""


def pairs(result: dict[str, Any]) -> dict[tuple[int, str], dict[str, Any]]:
    """Return the scores of a policy by horizon and target."""
    return {(one["rows_ahead"], one["target"]): one for one in result["scores"] if one["forecasts"] >= FORECASTS_LEAST}


def geometric(ratios: Iterable[float]) -> float | None:
    """Return the geometric mean of positive numbers; None of none."""
    logs = [math.log(ratio) for ratio in ratios if ratio > 0.0]
    return math.exp(statistics.fmean(logs)) if logs else None


def ratios(of: dict[str, Any], to: dict[str, Any]) -> list[float]:
    """Return the ratio of two policies' errors of what is published, of each pair that both have."""
    ours, theirs = pairs(of), pairs(to)
    both = [(ours[pair]["mae"]["published"], theirs[pair]["mae"]["published"]) for pair in ours if pair in theirs]
    return [one / other for one, other in both if other > 0.0]


def to_best_simple(result: dict[str, Any]) -> list[float]:
    """Return the ratio of what is published to the best simple forecast or the online rival, of each pair."""
    found = []
    for pair, score in pairs(result).items():
        online = result.get("online_linear", {}).get(f"{pair[0]} {pair[1]}")
        best = min(value for value in (*(score["mae"].get(name) for name in SIMPLE), online) if value is not None)
        if best > 0.0:
            found.append(score["mae"]["published"] / best)
    return found


def worst_period(result: dict[str, Any]) -> float | None:
    """Return the largest ratio of what is published to the best simple forecast, over two neighbouring parts of time and all pairs."""
    worst = []
    for score in pairs(result).values():
        over_time = score["over_time"]
        count, errors = over_time["count"], over_time["mae"]
        for at in range(1, len(count)):
            if min(count[at - 1], count[at]) == 0:
                continue
            sums = {
                name: sum(count[each] * errors[name][each] for each in (at - 1, at)) for name in ("published", *SIMPLE) if name in errors
            }
            best = min(value for name, value in sums.items() if name != "published")
            if best > 0.0:
                worst.append(sums["published"] / best)
    return max(worst, default=None)


def trainings(result: dict[str, Any]) -> int:
    """Return how many trainings came after the first version."""
    return sum(one["reason"] != "first" and one["status"] in ("candidate", "refused") for one in result["trainings"])


def summary(name: str, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one recording or fleet. results: by policy."""
    default, online = results["default"], results.get("frozen", {}).get("online_linear", {})
    simple = to_best_simple(default | {"online_linear": online})
    row: dict[str, Any] = {"name": name, "pairs": len(pairs(default))}
    for policy, one in results.items():
        of = "" if policy == "default" else f"_{policy}"
        row[f"trainings{of}"], row[f"cpu_s{of}"] = trainings(one), sum(each["cpu_s"] or 0.0 for each in one["trainings"])
    for policy, one in results.items():
        if policy != "default":
            row[f"default_vs_{policy}"] = geometric(ratios(default, one))
    of_version = [score["mae"]["published"] / score["mae"]["version"] for score in pairs(default).values() if score["mae"].get("version")]
    row |= {
        "default_vs_best_simple": geometric(simple), "worst_vs_best_simple": max(simple, default=None),
        "published_vs_version": geometric(of_version), "worst_period": worst_period(default),
    }  # fmt: skip
    return row


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--only", nargs="*", default=[*RECORDINGS, *FLEETS], help="recordings and fleets (default: all)")
    options_of.add_argument("--policies", nargs="*", default=list(POLICIES), help="policies (default: all)")
    options = options_of.parse_args()
    if options.quick:
        options.only, options.policies = ["none"], ["frozen", "default"]
    root = FOLDER.parent
    sources = [path for folder in ("drift", "features", "daemon", "model") for path in (root / folder).rglob("*.py")]
    kept = Kept(root / "build" / "backtest", [*sources, FOLDER / "parts" / "backtest_run.py"])
    there = [name for name in options.only if name in FLEETS or (DATA / f"{name}.csv").exists()]
    policies = list(dict.fromkeys([*options.policies, "default"]))

    def one(job: tuple[str, str]) -> tuple[tuple[str, str], dict[str, Any]]:
        name, policy = job
        where = {"fleet": name} if name in FLEETS else {"recording": str(DATA / f"{name}.csv"), "merged": False}
        found = kept.of({"module": "parts.backtest_run", "policy": policy} | where)
        say(f"{name}, {policy}: {trainings(found)} trainings, {found['cpu_s']:.0f} s")
        return job, found

    with ThreadPoolExecutor(2) as pool:
        results = dict(pool.map(one, [(name, policy) for name in there for policy in policies]))
    rows = [summary(name, {policy: results[name, policy] for policy in policies}) for name in there]
    figures: dict[str, Any] = {"sets": rows}
    bars = [Bar("default_vs_best_simple_worst", _most(rows, "worst_vs_best_simple"), "<=", 1.02)]
    if "frozen" in policies:
        bars.append(Bar("default_vs_frozen", _most(rows, "default_vs_frozen"), "<=", 1.0))
    if "always" in policies:
        always = sum(row["trainings_always"] for row in rows)
        share = sum(row["trainings"] for row in rows) / always if always else None
        bars += [Bar("default_vs_always", _most(rows, "default_vs_always"), "<=", 1.01), Bar("retrainings_share", share, "<=", 0.25)]
    figures["default_vs_best_simple"] = geometric(row["default_vs_best_simple"] for row in rows if row["default_vs_best_simple"])
    figures["published_vs_version"] = geometric(row["published_vs_version"] for row in rows if row["published_vs_version"])
    if telstra := next((row for row in rows if row["name"] == RECORDINGS[0]), None):
        bars += [
            Bar("telstra_worst_period", telstra["worst_period"], "<=", 1.03),
            Bar("telstra_all", telstra["default_vs_best_simple"], "<=", 0.97),
        ]
    return report("backtest", figures, bars)


def _most(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    return max((row[name] for row in rows if row.get(name) is not None), default=None)


if __name__ == "__main__":
    sys.exit(main())
