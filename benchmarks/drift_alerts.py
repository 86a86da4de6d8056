"""Drift alerts: how often they are false, how late and how right they are, and what the design buys over simpler ones.

    make bench-drift        (or: python benchmarks/drift_alerts.py --quick; a drift.py here would hide the package of that name)

Quiet months of a simulated fleet (20 regions of 100 watched links, 4 metrics, one row a minute) in six regimes of residuals
(parts/residuals.py), through the link and the region stage as the daemon has them: false incidents. Then planted changes after quiet
days: delay, misses, what they are called, which links they name, since when. Beside it, on the same streams, stock detectors. What is
simulated is kept in a folder, so that a run that was interrupted goes on; a change of the detectors begins anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from harness import FOLDER, Bar, in_process, parser, report, say
from parts.residuals import REGIMES
from scipy.stats import chi2

from drift.sensitivity import Sensitivity

REGIONS: Final = 20
LINKS: Final = 100
"""Watched links of a region: the default bound."""
DAYS_OF_WEEK: Final = 7.0


@dataclass(frozen=True, slots=True)
class Plan:
    """days: quiet ones of each of REGIONS regions. repeats: of each planted change."""

    regions: int
    links: int
    days: int
    repeats: int
    rival_links: int
    rival_days: int


FULL: Final = Plan(REGIONS, LINKS, 90, 40, 20, 7)
QUICK: Final = Plan(2, LINKS, 3, 2, 5, 1)


class Kept:
    """Results of parts of a run, by what they were asked for and the sources that they depend on."""

    def __init__(self, folder: Path) -> None:
        sources = sorted([*(FOLDER.parent / "drift").glob("*.py"), *(FOLDER / "parts").glob("drift_*.py"), FOLDER / "parts/residuals.py"])
        version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
        self.folder = folder / version
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, job: dict[str, Any]) -> dict[str, Any]:
        name = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:24]
        path = self.folder / f"{name}.json"
        if not path.exists():
            fresh = path.with_suffix(".writing")
            fresh.write_text(json.dumps(in_process(job["module"], job)))
            fresh.replace(path)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def upper95(count: int) -> float:
    """The largest mean of a Poisson count for which this many or fewer come in 5 % of cases (one-sided)."""
    return float(chi2.ppf(0.95, 2 * count + 2) / 2)


def jobs(plan: Plan) -> list[dict[str, Any]]:
    sensitivity = asdict(Sensitivity.for_budget(1.0))
    common = {"module": "parts.drift_run", "sensitivity": sensitivity, "links": plan.links}
    seeds = list(range(1000, 1000 + plan.repeats))
    made: list[dict[str, Any]] = []
    for regime in REGIMES:
        made += [common | {"what": "detect", "regime": regime, "seeds": seeds[begin : begin + 10]} for begin in range(0, len(seeds), 10)]
        made.append({"module": "parts.drift_rivals", "regime": regime, "links": plan.rival_links, "days": plan.rival_days, "seed": 0})
    quiet = common | {"what": "quiet", "days": plan.days}
    return made + [quiet | {"regime": regime, "seed": seed} for seed in range(plan.regions) for regime in REGIMES]


def false_incidents(plan: Plan, quiet: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one regime. A fleet-week is a week of REGIONS regions."""
    weeks = sum(part["rows"] for part in quiet) / (plan.links * 1440 * DAYS_OF_WEEK * REGIONS)
    opened = [one for part in quiet for one in part["opened"]]
    return {
        "fleet_weeks": weeks,
        "incidents": len(opened),
        "in_the_first_two_days": sum(day < 2.1 for day, *_ in opened),
        "of_regions": sum(scope == "region" for _, scope, *_ in opened),
        "per_week": len(opened) / weeks,
        "per_week_upper95": upper95(len(opened)) / weeks,
        "link_alarms_per_week": sum(part["alarms"] for part in quiet) / weeks,
    }


def detection(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one kind of planted change."""
    seen = [one for one in found if one["delay"] is not None]

    def middle(name: str) -> float | None:
        return statistics.median(one[name] for one in seen) if seen else None

    return {
        "missed": 1 - len(seen) / len(found),
        "delay": middle("delay"),
        "delay_90": sorted(one["delay"] for one in seen)[math.ceil(0.9 * len(seen)) - 1] if seen else None,
        "since_error": middle("since_error"),
        "precision": middle("precision"),
        "recall": middle("recall"),
        "size": middle("size_found"),
        "called": dict(Counter(one["called"] for one in seen)),
    }


def by_name(found: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in dict.fromkeys(one["name"] for one in found):
        yield name, [one for one in found if one["name"] == name]


def main() -> int:
    options = parser(__doc__)
    options.add_argument(
        "--kept", type=Path, default=Path(tempfile.gettempdir()) / "dwcp-bench-drift", help="where parts of a run are kept"
    )
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes at once (default: one for each core)")
    given = options.parse_args()
    plan = QUICK if given.quick else FULL
    kept, wanted = Kept(given.kept), jobs(plan)
    done: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with ThreadPoolExecutor(given.workers) as pool:
        for count, pair in enumerate(pool.map(lambda job: (job, kept.of(job)), wanted), start=1):
            done.append(pair)
            if count % 20 == 0:
                say(f"{count} of {len(wanted)} parts")

    def of(what: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        return [result for job, result in done if what(job)]

    quiet = {regime: of(lambda job, name=regime: (job.get("what"), job["regime"]) == ("quiet", name)) for regime in REGIMES}  # type: ignore[misc]
    false = {regime: false_incidents(plan, parts) for regime, parts in quiet.items()}
    planted = {
        regime: dict(
            by_name(
                [one for part in of(lambda job, name=regime: (job.get("what"), job["regime"]) == ("detect", name)) for one in part["found"]]
            )
        )  # type: ignore[misc]
        for regime in REGIMES
    }
    changes = list(next(iter(planted.values())))
    told = {change: detection([one for found in planted.values() for one in found[change]]) for change in changes}
    rows = sum(part["rows"] for parts in quiet.values() for part in parts)
    figures = {
        "plan": asdict(plan),
        "sensitivity": asdict(Sensitivity.for_budget(1.0)),
        "false_incidents": [{"regime": regime} | told for regime, told in false.items()],
        "detection": [{"change": change} | {key: value for key, value in told[change].items() if key != "called"} for change in changes],
        "delays": [{"regime": regime} | {name: detection(found)["delay"] for name, found in planted[regime].items()} for regime in REGIMES],
        "called": [{"change": change, **told[change]["called"]} for change in changes],
        "rivals": [{"regime": job["regime"]} | result for job, result in done if job["module"] == "parts.drift_rivals"],
        "us_per_row": 1e6 * sum(part["cpu_s"] for parts in quiet.values() for part in parts) / rows,
    }
    bars = [
        Bar("false_incidents_week_upper95", max(one["per_week_upper95"] for one in false.values()), "<=", 1),
        *(Bar(f"delay_{name}", told[name]["delay"], "<=", limit) for name, limit in (("1s_5", 60), ("1s_20", 40), ("1s_80", 30))),
        *(Bar(f"missed_{name}", told[name]["missed"], "<=", 0.05) for name in ("1s_20", "1s_80")),
    ]
    return report("drift_alerts", figures, bars)


if __name__ == "__main__":
    sys.exit(main())
