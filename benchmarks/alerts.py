"""Alerts on the whole chain: simulated telemetry, a real training, the daemon's loop, and what it reports.

    make bench-alerts        (or: python benchmarks/alerts.py --quick; --without planted recording leaves parts out)

Quiet fleets show how often an alert is false; planted changes how many are missed, and how late, how complete and how right an alert is; a
recording with change points that were labelled by hand what stock detectors would do. Results are kept under build/alerts, so that an
interrupted run goes on.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

from harness import FOLDER, Bar, parser, report, say
from parts.alerts_plan import CHANGES, Fleet
from parts.alerts_score import detection, false_incidents
from parts.kept import Kept
from parts.poisson import upper95

DATA: Final = FOLDER.parent.parent / "shared" / "data"
RECORDING: Final = "ripe_atlas_4min"
BUDGETS: Final = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""False alerts a week, for the recording."""
FIRST_SHARE: Final = 0.2
PLANTED_H: Final = 36.0 + 118.0
PLANTED_RUNS: Final = (0, 4, 8, 12)
"""Index of the first planted change of each run. A run has eight."""


def quiet_fleets(seeds: int, hours: float) -> list[Fleet]:
    """Return the fleets in which nothing is planted: of 25 and of 400 links, and one that is disturbed as operators do."""
    quiet = [Fleet(seed, links, regions, hours=hours) for seed in range(1, seeds + 1) for links, regions in ((25, 1), (100, 4))]
    return [*quiet, Fleet(101, 25, 4, hours=hours, busy=True)]


def planted_fleets(seeds: int) -> list[Fleet]:
    """Return the fleets in which changes are planted: regions of 25 and of 100 links."""
    small = [Fleet(200 + seed, 25, hours=PLANTED_H, changes=first) for seed in range(seeds) for first in PLANTED_RUNS]
    return [*small, *(Fleet(300, 100, hours=PLANTED_H, changes=first) for first in PLANTED_RUNS)]


def of_quiet(results: Sequence[tuple[Fleet, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return false incidents by kind of fleet, a fleet-week being one of 2,000 links."""
    groups: dict[str, list[tuple[Fleet, dict[str, Any]]]] = defaultdict(list)
    for fleet, found in results:
        groups["busy" if fleet.busy else f"{fleet.links * fleet.regions} links"].append((fleet, found))
    groups["all quiet"] = [(fleet, found) for fleet, found in results if not fleet.busy]
    made = []
    for name, own in groups.items():
        false = [one for _, found in own for one in false_incidents(found["alerts"], ()) if one["group"] == "network"]
        weeks = sum(found["fleet_weeks"] for _, found in own)
        row = {
            "fleet": name, "fleet_weeks": weeks, "false_incidents": len(false), "of_regions": sum(one["scope"] != "link" for one in false),
            "data_incidents": sum(one["group"] == "data" for _, found in own for one in false_incidents(found["alerts"], ())),
            "per_week": len(false) / weeks, "per_week_upper95": upper95(len(false)) / weeks,
        }  # fmt: skip
        made.append(row)
    return made


def of_planted(results: Sequence[tuple[Fleet, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return how each planted change was reported, by size of the region, and in the first day and on the fifth together."""
    by_name: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for fleet, found in results:
        for one in found["truth"]:
            scored = detection(found["alerts"], one)
            by_name[scored["name"], fleet.links].append(scored)
    made = []
    order = [change.name for change in CHANGES]
    for (name, links), own in sorted(by_name.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        missed = {"missed_first_day": _missed(own, first_day=True), "missed_fifth_day": _missed(own, first_day=False)}
        made.append({"change": name, "links": links, "planted": len(own)} | missed | _rates(own))
    return made


def _missed(own: Sequence[dict[str, Any]], *, first_day: bool) -> float | None:
    of_day = [one["delay"] is None for one in own if one["first_day"] is first_day]
    return sum(of_day) / len(of_day) if of_day else None


def together(planted: Sequence[tuple[Fleet, dict[str, Any]]], names: Sequence[str] = ()) -> dict[str, float | None]:
    """Return the figures of several planted changes (none: all) in regions of every size."""
    return _rates([detection(found["alerts"], one) for _, found in planted for one in found["truth"] if not names or one["name"] in names])


def _rates(own: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the share of changes that were missed, the median delay, and means of the rest; None if there is nothing to count."""
    delays = [one["delay"] for one in own if one["delay"] is not None]
    figures: dict[str, float | None] = {"missed": 1.0 - len(delays) / len(own) if own else None}
    figures["delay"] = statistics.median(delays) if delays else None
    for key in ("recall", "size_right", "named_right"):
        values = [float(one[key]) for one in own if one[key] is not None]
        figures[key] = statistics.mean(values) if values else None
    return figures


def recording(kept: Kept) -> list[dict[str, Any]]:
    """Return precision and recall on the labelled recording, beside stock detectors of River."""
    jobs = [{"module": "parts.alerts_labelled", "what": "chain", "budget": budget} for budget in BUDGETS]
    jobs += [{"module": "parts.alerts_labelled", "what": "river", "detector": name} for name in ("adwin", "page_hinkley", "kswin")]
    common = {"recording": str(DATA / f"{RECORDING}.csv"), "labels": str(DATA / f"{RECORDING}_changes.csv"), "first_share": FIRST_SHARE}
    rows = []
    for job in jobs:
        result = kept.of(job | common)
        of_river = job["what"] == "river"
        best = max(result["range"].items(), key=lambda item: item[1]["f1"]) if of_river else (f"{job.get('budget', 0):g}", result)
        method = f"River's {job['detector']}, {best[0]} (its best)" if of_river else f"alerts, budget {best[0]}"
        rows.append({"method": method} | {key: best[1][key] for key in ("found", "matched", "labels", "precision", "recall", "f1")})
    return rows


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--without", nargs="*", default=[], choices=["quiet", "planted", "recording"], help="parts to leave out")
    options_of.add_argument("--days", type=float, default=10.0, help="days of a quiet fleet after its first version (default: 10)")
    options = options_of.parse_args()
    root = FOLDER.parent
    sources = [path for folder in ("drift", "features", "daemon/ingest", "streams/simulator") for path in (root / folder).rglob("*.py")]
    kept = Kept(root / "build" / "alerts", [*sources, *(FOLDER / "parts" / f"alerts_{name}.py" for name in ("plan", "run", "labelled"))])
    hours = 36.0 + 24.0 * (1.0 if options.quick else options.days)
    seeds = 1 if options.quick else options.rounds
    quiet = [] if "quiet" in options.without else quiet_fleets(seeds, hours)
    planted = [] if "planted" in options.without else planted_fleets(1 if options.quick else max(1, options.rounds - 1))
    if options.quick:
        quiet, planted = quiet[:1], planted[:1]
    fleets = sorted([*quiet, *planted], key=lambda fleet: -fleet.links * fleet.regions * fleet.hours)

    def one(fleet: Fleet) -> tuple[Fleet, dict[str, Any]]:
        found = kept.of({"module": "parts.alerts_run", "fleet": asdict(fleet), "budget": 1.0})
        say(f"{fleet}: {len(found['alerts'])} alerts, {found['cpu_s']:.0f} s")
        return fleet, found

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, fleets))
    of_fleets = dict(results)
    quiet_results, planted_results = ([(fleet, of_fleets[fleet]) for fleet in fleets] for fleets in (quiet, planted))
    figures: dict[str, Any] = {"quiet": of_quiet(quiet_results), "planted": of_planted(planted_results)}
    bars = []
    if quiet:
        judged = [row for row in figures["quiet"] if row["fleet"] in ("all quiet", "busy")]
        worst = max(row["per_week_upper95"] for row in judged)
        figures["false_incidents_week"] = max(row["per_week"] for row in judged)
        bars.append(Bar("false_incidents_week_upper95", worst, "<=", 1.0))
    if planted:
        of_2s_20, large = together(planted_results, ["2s_20"]), together(planted_results, ["2s_20", "2s_80", "4s_20", "4s_80"])
        figures["steps"] = [
            {"changes": "2s_20"} | of_2s_20,
            {"changes": "2 and 4 on 20 % and more"} | large,
            {"changes": "all"} | together(planted_results),
        ]  # fmt: skip
        figures["delay_of_steps"], figures["missed_steps"] = large["delay"], large["missed"]
        bars += [
            Bar("missed_2s_20", of_2s_20["missed"], "<=", 0.05), Bar("delay_2s_20", of_2s_20["delay"], "<=", 20.0),
            Bar("recall_of_links", large["recall"], ">=", 0.9), Bar("size_right", large["size_right"], ">=", 0.95),
            Bar("named_right", figures["steps"][2]["named_right"], ">=", 0.95),
        ]  # fmt: skip
    if "recording" not in options.without and not options.quick and (DATA / f"{RECORDING}.csv").exists():
        figures["recording"] = labelled = recording(kept)
        default = next(row["f1"] for row in labelled if row["method"] == "alerts, budget 1")
        bars.append(Bar("f1_vs_best_river", default / max(row["f1"] for row in labelled if "River" in row["method"]), ">=", 1.2))
    figures["cpu_s"] = sum(found["cpu_s"] for _, found in results)
    return report("alerts", figures, bars)


if __name__ == "__main__":
    sys.exit(main())
