"""The detectors alone, not the chain (that is `alerts`): how often alerts are false, how late and how right, beside simpler designs.

    make bench-drift        (or: python benchmarks/drift_alerts.py --quick; a drift.py here would hide the package of that name)

False incidents: quiet months of a simulated fleet (20 regions of 100 monitored links, 4 metrics, one row a minute) in six regimes of
residuals (parts/residuals.py), through the link and the region stage of the daemon. Detection: changes planted after quiet days, with
delay, misses, names, affected links and times. Rivals: stock detectors on the same streams. Simulated results are kept in a folder, so that
an interrupted run goes on; a change of the detectors starts anew.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from drift.link.sensitivity import Sensitivity
from harness import FOLDER, Bar, in_process, parser, report, say
from parts.drift_run import FIRST_DAY, WARM_UP
from parts.kept import Kept
from parts.poisson import upper95
from parts.residuals import REGIMES

REGIONS: Final = 20
LINKS: Final = 100
"""Monitored links of a region: the default bound."""
DAYS_OF_WEEK: Final = 7.0
DETECTORS: Final = {"links": 1000, "rows": 6000}
"""Links and rows for the memory of detectors with long windows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of a run.

    Args:
        days: quiet days of each of REGIONS regions.
        repeats: of each planted change.
    """

    regions: int
    links: int
    days: int
    repeats: int
    rival_links: int
    rival_days: int


FULL: Final = Plan(REGIONS, LINKS, 90, 24, 20, 7)
QUICK: Final = Plan(2, LINKS, 3, 2, 5, 1)
OTHER_BUDGETS: Final = (10.0, 100.0, 1000.0)
"""Budgets, in false alerts a week, for which a smaller part of the fleet is simulated."""
RECORDINGS: Final = FOLDER.parent.parent / "shared" / "data"
MERGED: Final = "dwcp_training"
"""A recording that is read as one series: its nodes and peers are random in every row."""


def jobs(plan: Plan, pictures: Path | None) -> list[dict[str, Any]]:
    """Return every part of a run with its purpose."""
    common = {"module": "parts.drift_run", "sensitivity": asdict(Sensitivity.for_budget(1.0)), "links": plan.links}
    made: list[dict[str, Any]] = []
    for recording in sorted(RECORDINGS.glob("*.csv")) if plan is FULL else []:
        job = {"recording": str(recording), "merged": recording.stem == MERGED, "pictures": str(pictures) if pictures else None}
        made.append({"module": "parts.drift_real", "for": "recordings"} | job)
    seeds = list(range(1000, 1000 + plan.repeats))
    for regime in REGIMES:
        for begin in range(0, len(seeds), 8):
            detect = common | {"what": "detect", "regime": regime, "seeds": seeds[begin : begin + 8]}
            made.append(detect | {"for": "detection", "warm_up": WARM_UP})
            if begin == 0:
                made.append(detect | {"for": "first day", "warm_up": FIRST_DAY})
        rivals = {"module": "parts.drift_rivals", "for": "rivals", "links": plan.rival_links, "days": plan.rival_days, "seed": 0}
        made.append(rivals | {"regime": regime})
    quiet = common | {"what": "quiet"}
    for budget in OTHER_BUDGETS:
        other = quiet | {"sensitivity": asdict(Sensitivity.for_budget(budget)), "days": math.ceil(plan.days / 3)}
        made += [other | {"for": f"budget {budget:g}", "regime": regime, "seed": seed} for seed in range(2) for regime in REGIMES]
    return made + [
        quiet | {"for": "quiet", "days": plan.days, "regime": regime, "seed": seed} for seed in range(plan.regions) for regime in REGIMES
    ]


def false_incidents(plan: Plan, quiet: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the false incidents of a regime. A fleet-week is a week of REGIONS regions."""
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
    """Return delay and misses of one kind of planted change."""
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
        "incidents": statistics.mean(one["opened"] for one in found),
    }


def confusion(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how often each planted change got which name, and how often an incident of the other group was reported as well."""
    names = sorted({one["called"] for one in found})
    table = []
    for planted, own in by_name(found).items():
        called = Counter(one["called"] for one in own)
        other = "data_incidents" if own[0]["group"] == "network" else "network_incidents"
        row: dict[str, Any] = {"planted": planted, "is": own[0]["kind"].replace("_", " ")} | {name: called[name] for name in names}
        table.append(row | {"other group as well": sum(one[other] > 0 for one in own)})
    return table


def by_name(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each planted change."""
    return {name: [one for one in found if one["name"] == name] for name in dict.fromkeys(one["name"] for one in found)}


def rivals(of_regimes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each simpler design, over the regimes, the alerts a week and the delay of one link."""
    table = []
    for name in of_regimes[0]:
        per_week = [one[name]["alerts_per_week"] for one in of_regimes]
        delay = statistics.median(one[name]["delay"] for one in of_regimes)
        table.append({"design": name.replace("_", " "), "least": min(per_week), "most": max(per_week), "delay": delay})
    return table


def main() -> int:
    options = parser(__doc__)
    options.add_argument(
        "--kept", type=Path, default=Path(tempfile.gettempdir()) / "dwcp-bench-drift", help="where parts of a run are kept"
    )
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes at once (default: one for each core)")
    options.add_argument("--pictures", type=Path, help="folder for a picture of each alert on the recordings")
    given = options.parse_args()
    plan = QUICK if given.quick else FULL
    sources = [*(FOLDER.parent / "drift").rglob("*.py"), *(FOLDER / "parts").glob("drift_*.py"), FOLDER / "parts/residuals.py"]
    kept, wanted = Kept(given.kept, sources), jobs(plan, given.pictures)
    done: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with ThreadPoolExecutor(given.workers) as pool:
        for count, pair in enumerate(pool.map(lambda job: (job, kept.of(job)), wanted), start=1):
            done.append(pair)
            if count % 20 == 0:
                say(f"{count} of {len(wanted)} parts")
    figures, bars = reported(plan, done)
    figures["bytes_per_watched_link"] = in_process("parts.detector_memory", DETECTORS)["bytes_per_watched_link"]
    return report("drift_alerts", figures, bars)


def reported(plan: Plan, done: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[dict[str, Any], list[Bar]]:
    """Return the figures and bars of all parts."""

    def of(purpose: str, regime: str | None = None) -> list[dict[str, Any]]:
        return [result for job, result in done if job["for"] == purpose and regime in (None, job.get("regime"))]

    def planted(purpose: str, regime: str | None = None) -> list[dict[str, Any]]:
        return [one for part in of(purpose, regime) for one in part["found"]]

    false = {regime: false_incidents(plan, of("quiet", regime)) for regime in REGIMES}
    found = {name: detection(own) for name, own in by_name(planted("detection")).items()}
    first = {name: detection(own) for name, own in by_name(planted("first day")).items()}
    delays = [
        {"regime": regime} | {name: detection(own)["delay"] for name, own in by_name(planted("detection", regime)).items()}
        for regime in REGIMES
    ]
    budgets = {1.0: list(false.values())}
    budgets |= {budget: [false_incidents(plan, of(f"budget {budget:g}", regime)) for regime in REGIMES] for budget in OTHER_BUDGETS}
    figures = {
        "plan": asdict(plan),
        "sensitivity": asdict(Sensitivity.for_budget(1.0)),
        "false_incidents": [{"regime": regime} | one for regime, one in false.items()],
        "budgets": [{"budget": budget} | _over_regimes(own) for budget, own in budgets.items()],
        "detection": [{"change": name} | one for name, one in found.items()],
        "first_day": [{"change": name} | {key: one[key] for key in ("missed", "delay", "delay_90")} for name, one in first.items()],
        "delays": delays,
        "confusion": confusion(planted("detection")),
        "rivals": rivals(of("rivals")),
        "recordings": [_alert(alert) for part in of("recordings") for alert in part["alerts"]],
        "us_per_row": 1e6 * sum(part["cpu_s"] for part in of("quiet")) / sum(part["rows"] for part in of("quiet")),
    }
    bars = [
        Bar("false_incidents_week_upper95", max(one["per_week_upper95"] for one in false.values()), "<=", 1),
        *(Bar(f"delay_{name}", found[name]["delay"], "<=", limit) for name, limit in (("1s_5", 60), ("1s_20", 40), ("1s_80", 30))),
        *(Bar(f"missed_{name}", found[name]["missed"], "<=", 0.05) for name in ("1s_20", "1s_80")),
    ]
    return figures, bars


def _alert(alert: dict[str, Any]) -> dict[str, Any]:
    since = datetime.fromtimestamp(alert["since_s"], UTC).strftime("%Y-%m-%d %H:%M")
    reported = alert["told"][:16].replace("T", " ")
    return {name: alert[name] for name in ("recording", "alert")} | {
        "since": since,
        "told": reported,
        "what": alert["what"],
        "then": alert["then"],
    }


def _over_regimes(every: list[dict[str, Any]]) -> dict[str, Any]:
    """All regimes together, and the worst of them."""
    incidents, weeks = sum(one["incidents"] for one in every), sum(one["fleet_weeks"] for one in every)
    worst = max(one["per_week"] for one in every)
    return {"fleet_weeks": weeks, "incidents": incidents, "per_week": incidents / weeks, "worst_regime_per_week": worst}


if __name__ == "__main__":
    sys.exit(main())
