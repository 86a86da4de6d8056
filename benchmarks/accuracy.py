"""Accuracy: forecasts 1 to 24 rows ahead and their intervals, beside nine rivals, on the last rows of seven recordings.

    make bench-accuracy        (or: python benchmarks/accuracy.py --quick; --published adds the published sizes, hours instead of minutes)

Each recording is split by time, link by link: 70 % to train, 15 % to choose, 15 % to judge. All recordings use one method and one set of
settings. Rivals run in environments of their own. Each training and each rival is a process of its own, whose result is kept under
build/accuracy, so that a second run goes on where the first stopped.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.telemetry import TARGETS
from harness import Bar, in_process, parser, report, say
from model.spec.architecture import Ahead, Architecture, Lstm, Relative
from model.spec.job import plain
from model.spec.settings import TrainingSettings
from parts.accuracy_cases import CACHE, DATA, HORIZONS, ISP, LIMIT_S, MERGED, PROCESSES, SETS, Case, interpreter, rivals_of
from parts.accuracy_score import NEURAL, TREES, Pair, geometric_mean, mean_scaled_errors, pairs, ratio
from parts.rivals_task import LEAST_WINDOWS, TEST

ROOT: Final = Path(__file__).resolve().parents[1]
FAR: Final = 3
"""Rows ahead from which the network has to be worth its cost."""
CUT_SETS: Final = ("netrics_chicago", "abilene_5min", "ripe_atlas_4min")
"""Recordings that are forecast once more in runs of 12 rows."""
UNSEEN_SETS: Final = ("abilene_5min", "ripe_atlas_4min")
"""Recordings of which half of the links are left out of the training, then the other half."""
BEST_POSSIBLE: Final = (0.9564, 0.8311, 0.9516, 0.3886)
"""Correlations of dwcp_training's generating function on its last rows: the rest is fresh noise."""
MANY_WINDOWS: Final = 1_000
"""Windows from which a pair's own coverage is judged."""

DEFAULT: Final = Relative()
SETTINGS: Final = TrainingSettings()
TINY: Final = Relative(ahead=Ahead(units=(4,), members=2))


def trained(case: Case, data: Path, size: Architecture, settings: TrainingSettings, seed: int, links: Sequence[int] | None = None) -> Any:
    """Return the forecasts of the test windows of a network that is trained with one seed, on some links alone if they are given."""
    job = {
        "set": case.label,
        "path": str(DATA / f"{case.name}.csv"),
        "data": str(data),
        "key": SETS[case.name],
        "horizons": HORIZONS,
        "cut": case.cut,
        "links": links,
        "cache": str(CACHE),
        "architecture": plain(size),
        "settings": plain(settings) | {"seed": seed},
    }
    with np.load(in_process("parts.accuracy_run", job, limit_s=LIMIT_S)["path"]) as kept:
        run = {part: kept[part] for part in kept.files}
    run["notes"] = json.loads(str(run["notes"]))
    say(f"{job['set']}, seed {seed}{'' if links is None else f', links {links}'}: {run['notes']}")
    return run


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as kept:
        return {part: kept[part] for part in kept.files}


def scored(case: Case, data: Path, rivals: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[Pair]:
    return pairs(case.name, arrays(data), rivals, [{part: run[part] for part in run if part != "notes"} for run in runs])


def unseen(case: Case, size: Architecture, settings: TrainingSettings) -> list[float | None]:
    """Return for each pair the error on links that were left out of the training as a share of the error where they were in it."""
    path = case.data()
    data = arrays(path)
    test = data["part"] == TEST
    actual, link = data["targets"][test], data["link"][test]
    halves = [[int(one) for one in np.unique(link) if one % 2 == half] for half in (0, 1)]
    even, odd = (trained(case, path, size, settings, 1, half)["median"] for half in halves)
    of_even = (link % 2 == 0)[:, None, None]
    seen, left_out = np.where(of_even, even, odd), np.where(of_even, odd, even)
    return [
        ratio(*(np.abs(made[:, horizon, target].astype(np.float64) - actual[:, horizon, target]) for made in (left_out, seen)))
        for target in range(len(TARGETS))
        for horizon in range(len(HORIZONS))
        if np.isfinite(actual[:, horizon, target]).sum() >= LEAST_WINDOWS
    ]


def figures(found: list[Pair], runs: Mapping[str, list[Any]], notes: Mapping[str, Any], cut: list[Pair]) -> dict[str, Any]:
    times = {
        rival: {case: their_notes[rival]["wall_s"] for case, their_notes in notes.items() if rival in their_notes}
        for rival in ("naive", "linear", TREES, "statistical", NEURAL)
    }
    return {
        "pairs": [one.row() for one in found],
        "short_runs": [one.row() for one in cut],
        "worse_than": {f"{one.recording} {one.target} {one.horizon}": ", ".join(one.worse_than) for one in found if one.worse_than},
        "best_epochs": {name: str([run["notes"].get("best_epoch") for run in some]) for name, some in runs.items()},
        "published": {name: str([run["notes"].get("published") for run in some]) for name, some in runs.items()},
        "compared": {name: [run["notes"].get("compared") for run in some] for name, some in runs.items()},
        "network_shares": {name: str([run["notes"].get("network_shares") for run in some]) for name, some in runs.items()},
        "duration_s": {name: statistics.mean(run["notes"].get("duration_s", 0.0) for run in some) for name, some in runs.items()},
        "rival_s": {rival: by_set for rival, by_set in times.items() if by_set},
        "mean_scaled_error": mean_scaled_errors(found),
        "error_to_each_rival": {
            rival: geometric_mean(one.ratios.get(rival) for one in found if rival in one.errors)
            for rival in dict.fromkeys(name for one in found for name in one.errors)
        },
    }


def bars(found: list[Pair], cut: list[Pair], left_out: list[float | None]) -> list[Bar]:
    """Return the bars. A mean over pairs is None as long as the network forecasts only some of them."""
    forecast = [one.network is not None for one in found]
    merged = [one for one in found if one.recording == MERGED and one.horizon == 1 and one.correlation is not None]
    correlation = statistics.mean(one.correlation for one in merged) if merged else None
    gaps = [best - one.correlation for one, best in zip(merged, BEST_POSSIBLE, strict=True)] if merged else []
    isp = {one.horizon: one.ratios.get("persistence") for one in found if one.recording == ISP}
    gains = geometric_mean(one.over_linear for one in found if one.horizon >= FAR)
    names = dict.fromkeys(one.recording for one in found)
    covered = {name: [one.coverage for one in found if one.recording == name] for name in names}
    complete = bool(found) and all(one.coverage is not None for one in found)
    by_set = [statistics.mean(values) for values in covered.values()] if complete else []
    many = [one.coverage for one in found if one.windows >= MANY_WINDOWS] if complete else []
    return [
        Bar("pairs_forecast", statistics.mean(forecast) if found else None, ">=", 1.0),
        Bar("not_worse", statistics.mean(one.not_worse for one in found) if found else None, ">=", 1.0),
        Bar("pairs_better", statistics.mean(one.better for one in found) if found else None, ">=", 0.5),
        Bar("vs_lightgbm", geometric_mean(one.ratios.get(TREES) for one in found if TREES in one.errors), "<=", 1.0),
        Bar("vs_best_neural", geometric_mean(one.ratios.get(NEURAL) for one in found if NEURAL in one.errors), "<=", 1.0),
        Bar("isp_h24", isp.get(24), "<=", 0.33),
        Bar("isp_h1", isp.get(1), "<=", 0.915),
        Bar("dwcp_avg_corr", correlation, ">=", 0.775),
        Bar("dwcp_avg_corr_leak", correlation, "<=", 0.79),
        Bar("dwcp_worst_gap", max(gaps, default=None), "<=", 0.010),
        Bar("short_runs", statistics.mean(one.not_worse for one in cut) if cut else None, ">=", 1.0),
        Bar("unseen_links", geometric_mean(left_out), "<=", 1.05),
        Bar("network_pays", None if gains is None else 1.0 - gains, ">=", 0.03),
        Bar("coverage_90_lowest", min(by_set, default=None), ">=", 0.88),
        Bar("coverage_90_highest", max(by_set, default=None), "<=", 0.92),
        Bar("coverage_90_worst_pair", min(many, default=None), ">=", 0.85),
        Bar(
            "interval_score_vs_lightgbm_quantile", geometric_mean(one.interval_ratio for one in found if TREES in one.errors), "<=", 1.0
        ),
    ]  # fmt: skip


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--published", action="store_true", help="also the published sizes, trained until nothing improves")
    options_of.add_argument("--without", nargs="*", default=[], choices=list(PROCESSES), help="rivals to leave out")
    options_of.add_argument("--nhits-on", nargs="*", default=list(SETS), choices=list(SETS), help="recordings for the neural rival")
    options_of.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS), help="recordings (default: all seven)")
    options = options_of.parse_args()
    if not DATA.is_dir():
        print(f"accuracy: there are no recordings in {DATA.relative_to(ROOT.parent)}, beside the project; put them there", file=sys.stderr)
        return 1
    sets, size, settings, seeds = options.sets, DEFAULT, SETTINGS, range(1, options.rounds + 1)
    if options.quick:
        sets, seeds = [name for name in (MERGED, ISP) if name in sets], range(1, 2)
        size, settings = TINY, TrainingSettings(epochs=1, epoch_windows_max=1_024)
    wanted = [name for name, rival in PROCESSES.items() if name not in options.without and (rival.quick is not None or not options.quick)]
    for name in wanted:  # what cannot be installed is known at once
        interpreter(name)
    cases = {name: Case(name) for name in sets}
    data = {name: case.data() for name, case in cases.items()}
    made, notes = {}, {}
    for rival in wanted:  # all recordings with one rival, before any with the next: the fast ones come first
        for name, case in cases.items():
            if rival == NEURAL and name not in options.nhits_on:
                continue
            some, their_notes = rivals_of(case, data[name], [rival], options.quick)
            made[name], notes[name] = made.get(name, {}) | some, notes.get(name, {}) | their_notes

    def measured(size: Architecture, settings: TrainingSettings) -> tuple[list[Pair], dict[str, list[Any]]]:
        runs: dict[str, list[Any]] = {name: [] for name in cases}
        for seed in seeds:  # all recordings with the first seed, before any with the second
            for name, case in cases.items():
                runs[name].append(trained(case, data[name], size, settings, seed))
        return [one for name, case in cases.items() for one in scored(case, data[name], made[name], runs[name])], runs

    found, runs = measured(size, settings)
    cut = []
    for case in (Case(name, cut=True) for name in CUT_SETS if name in sets):
        path = case.data()
        cut += scored(case, path, rivals_of(case, path, ["simple"], options.quick)[0], [trained(case, path, size, settings, 1)])
    left_out = [share for name in UNSEEN_SETS if name in sets for share in unseen(cases[name], size, settings)]
    reported = figures(found, runs, notes, cut)
    if options.published:
        published, _ = measured(Lstm(), TrainingSettings(epoch_windows_max=8_192))
        reported["pairs_published"] = [one.row() for one in published]
        reported["default_to_published"] = geometric_mean(
            None if one.network is None or not other.network else one.network / other.network
            for one, other in zip(found, published, strict=True)
        )
    return report("accuracy", reported, bars(found, cut, left_out), rival_versions(notes))


def rival_versions(notes: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of the rivals' libraries."""
    libraries = {TREES: "lightgbm", "statistical": "statsforecast", NEURAL: "neuralforecast"}
    return {
        library: their_notes[rival]["version"]
        for their_notes in notes.values()
        for rival, library in libraries.items()
        if rival in their_notes
    }


if __name__ == "__main__":
    sys.exit(main())
