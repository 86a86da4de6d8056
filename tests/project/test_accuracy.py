"""The benchmark of accuracy at tiny sizes: the windows and targets of several horizons, its rivals, and how they are scored."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor

import accuracy
import harness
import sizes
from features.columns import TABLE
from features.offline import OfflineFeatures, RawTable, compute
from features.telemetry import CATEGORIES, DEFAULT_LINK_KEY, NUMERIC, TARGETS
from features.vocabulary import Vocabulary
from model.spec.architecture import Linear
from model.spec.job import plain
from model.spec.settings import TrainingSettings
from parts import accuracy_cases, accuracy_run, accuracy_score, horizon_context, horizon_data, rivals_simple, sizes_run
from parts.rivals_task import TEST, TRAIN, VALIDATION
from testkit.paths import ROOT

HOUR_S = 3600.0
MONDAY_S = 1_767_571_200.0
THROUGHPUT = TARGETS.index("throughput_mbps")


def table_of(time_s: Any, values: Any, link: Any | None = None) -> RawTable:
    """Return rows whose throughput is `values`; the other targets are not measured."""
    numeric = np.full((len(time_s), len(NUMERIC)), np.nan, np.float32)
    numeric[:, THROUGHPUT] = values
    link = np.zeros(len(time_s), np.int32) if link is None else np.asarray(link, np.int32)
    codes, names = np.full((len(time_s), len(CATEGORIES)), -1, np.int32), tuple(f"l{one}" for one in range(link.max() + 1))
    return RawTable(names, link, np.asarray(time_s, np.float64), numeric, codes, ((),) * len(CATEGORIES))


def remembered(table: RawTable, horizons: tuple[int, ...]) -> OfflineFeatures:
    """Return the features whose context product and rivals read alike."""
    return compute(table, Vocabulary.empty(), horizons=horizons)


def test_averages_skip_what_is_missing_and_begin_anew_with_each_group() -> None:
    """By hand: 4, nothing, 8 at rate .5 is 6; the next group knows nothing of it."""
    table = table_of([0.0, 1.0, 2.0, 3.0], [4.0, np.nan, 8.0, 1.0])
    found = horizon_context.averages(table, np.array([0, 0, 0, 1]))[:, THROUGHPUT]
    half = horizon_context.RATES.index(0.5)
    assert found[:, half].tolist() == [4.0, 4.0, 6.0, 1.0]
    assert found[:, 0].tolist() == [4.0, 4.0, 8.0, 1.0]


def test_level_spread_and_interval_follow_their_recurrences() -> None:
    """By hand: 10, then 20. The fast average is 11.2, so the value lies 8.8 from it; rates of the slow ones are .02."""
    features = remembered(table_of([0.0, 60.0, 150.0], [10.0, 20.0, np.nan]), (1,))
    context, interval_s = features.context, features.interval_s
    assert context[:, 0, THROUGHPUT] == pytest.approx([10.0, 10.2, 10.2])
    assert context[:, 1, THROUGHPUT] == pytest.approx([0.0, 0.02 * 8.8, 0.02 * 8.8])
    assert np.isnan(interval_s[0])
    assert interval_s[1:].tolist() == [60.0, 75.0]
    assert np.isnan(context[:, :, TARGETS.index("rtt_ms")]).all()


def test_a_profile_is_the_level_of_the_hour_and_cold_until_a_day_was_seen() -> None:
    """A link whose value is its hour, every half hour. Halfway between two hours' centres lies the mean of both."""
    time_s = MONDAY_S + 0.5 * HOUR_S * np.arange(120)
    hour = (time_s // HOUR_S) % 24
    context = remembered(table_of(time_s, hour), (1, 2)).context
    now, one, two = context[:, 2:, THROUGHPUT].T
    assert np.isnan(now[:40]).all()  # 20 hours are known from row 40 on, the first of the 21st hour
    assert now[40] == 19.0  # the hour before alone: the 20 hours after it were not seen yet
    assert np.isfinite(now[47:]).all()
    late = 100  # 02:00 of the third day: between the centres of the hours 1 and 2
    assert (now[late], one[late], two[late]) == pytest.approx((1.5, 2.0, 2.5))


def test_weekends_have_cells_of_their_own_and_borrow_those_of_workdays_until_then() -> None:
    """Friday to Sunday: on Saturday the profile is Friday's, on Sunday what Saturday was."""
    time_s = MONDAY_S + 4 * 24 * HOUR_S + HOUR_S * (np.arange(72) + 0.5)
    value = np.where(np.arange(72) < 24, 10.0, 20.0)
    context = remembered(table_of(time_s, value), (1,)).context
    now = context[:, 2, THROUGHPUT]
    assert now[30] == pytest.approx(10.0)
    assert now[54] == pytest.approx(20.0)


def test_a_target_is_the_row_nearest_in_time_and_of_the_same_run() -> None:
    """A row is missing at one place: two rows ahead of the row before is the next in the stream. Beyond a gap there is no target."""
    place = np.delete(np.arange(200), [30, *range(40, 50)])
    data = horizon_data.horizon_data(table_of(60.0 * place, place), (1, 2), short=True)
    wanted = dict(zip(data.time_s / 60.0, data.targets[:, :, THROUGHPUT].tolist(), strict=True))
    assert wanted[10.0] == [11.0, 12.0]
    assert np.isnan(wanted[29.0][0])
    assert wanted[29.0][1] == 31.0
    assert wanted[38.0][0] == 39.0
    assert np.isnan(wanted[38.0][1])
    assert 39.0 not in wanted


def test_no_window_and_no_target_crosses_a_split() -> None:
    """Two links of 200 rows: 140 train, 30 validate, 30 judge. A value is its row, so that each window shows where it lies."""
    rows = np.tile(np.arange(200), 2)
    data = horizon_data.horizon_data(table_of(60.0 * rows, rows, np.repeat([0, 1], 200)), (1, 3))
    begins = {TRAIN: 0, VALIDATION: 140, TEST: 170}
    ends = {TRAIN: 140, VALIDATION: 170, TEST: 200}
    for part in begins:
        own = data.part == part
        shown, targets = data.values[own][:, :, THROUGHPUT], data.targets[own][:, :, THROUGHPUT]
        if own.any():
            assert shown.min() >= begins[part]
            assert np.nanmax(targets) < ends[part]
    assert np.bincount(data.part, minlength=3).tolist() == [2 * 110, 0, 0]  # 30 rows hold no window with a target


def test_a_recording_is_cut_into_short_runs_that_are_windows_from_their_third_row() -> None:
    """Runs of 12 rows; a window shows nothing from before its run, and its average begins with it."""
    table = horizon_data._cut(table_of(60.0 * np.arange(180), np.arange(180.0)))
    assert (table.time_s[:13] / 60.0).tolist() == [*range(12), 18]
    data = horizon_data.horizon_data(table, (1, 3), short=True)
    first = data.values[0, :, THROUGHPUT]
    assert np.isnan(first[:27]).all()
    assert first[27:].tolist() == [0.0, 1.0, 2.0]
    second_run = np.flatnonzero(data.time_s == 60.0 * 20)[0]
    assert data.values[second_run, -3:, THROUGHPUT].tolist() == [18.0, 19.0, 20.0]
    assert data.averages[second_run, THROUGHPUT, -1] == pytest.approx(18 + 0.02 * 1 + 0.02 * (2 - 0.02))


def test_the_day_before_is_measured_and_not_later_than_the_window() -> None:
    """Rows every six hours: a day before the next row lies three rows back. A horizon of more than a day has no day before it."""
    rows = np.arange(60)
    data = horizon_data.horizon_data(table_of(6 * HOUR_S * rows, rows), (1, 5))
    assert data.day_before[0, 0, THROUGHPUT] == data.values[0, -1, THROUGHPUT] - 3
    assert np.isnan(data.day_before[:, 1]).all()


def test_the_absolute_line_is_about_as_good_as_an_exact_solution() -> None:
    """Noise with long tails: within 1 % of the error of a linear programme, and better than least squares."""
    random = np.random.default_rng(1)
    inputs = np.concatenate([random.normal(size=(600, 4)), np.ones((600, 1))], axis=1)
    wanted = inputs @ [1.0, -2.0, 0.5, 0.0, 3.0] + random.standard_t(1.2, 600)
    weight = np.ones(600)

    def error(weights: Any) -> float:
        return float(np.abs(wanted - inputs @ weights).mean())

    exact = QuantileRegressor(quantile=0.5, alpha=0.0, fit_intercept=False).fit(inputs, wanted)
    ours = error(rivals_simple.line(inputs, wanted, weight, 1e-6, rivals_simple.ROUNDS))
    assert ours <= 1.01 * error(exact.coef_)
    assert ours < error(rivals_simple.line(inputs, wanted, weight, 1e-6, 1))


def test_a_rolling_median_is_the_last_value_where_nothing_is_measured() -> None:
    windows = np.array([[np.nan] * 28 + [1.0, 5.0], [np.nan] * 30])
    assert rivals_simple.rolling_medians(windows, np.array([5.0, 7.0]))[:, 0].tolist() == [3.0, 7.0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of two links whose load has a daily cycle, one row every ten minutes for three weeks; half of it noise of a day."""
    path = tmp_path_factory.mktemp("recorded") / "links.csv"
    random = np.random.default_rng(1)
    names = [column.name for column in TABLE]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in range(1_600):
            turn = 2 * np.pi * row / 144
            for link, level in (("a", 50.0), ("b", 500.0)):
                value = level * (1.0 + 0.4 * np.sin(turn) + 0.02 * random.normal())
                ends = {"timestamp": MONDAY_S + 600.0 * row, "node_id": link, "peer_id": "x", "link_type": "metro"}
                writer.writerow(ends | {"throughput_mbps": f"{value:.6g}"})
    return path


@pytest.fixture(scope="module")
def arrays(recorded: Path) -> Path:
    out = recorded.parent / "data.npz"
    job = {"path": str(recorded), "key": DEFAULT_LINK_KEY, "horizons": [1, 12], "cut": False, "out": str(out)}
    assert horizon_data.run(job)["links"] == 2
    return out


@pytest.fixture(scope="module")
def simple(arrays: Path) -> dict[str, Any]:
    rivals_simple.run({"data": str(arrays), "out": str(arrays.parent / "simple.npz")})
    return accuracy.arrays(arrays.parent / "simple.npz")


def test_rivals_forecast_what_they_can_know(arrays: Path, simple: dict[str, Any]) -> None:
    """Two hours ahead the day before beats the last value, and a line that sees the profile beats both."""
    actual = (data := accuracy.arrays(arrays))["targets"][data["part"] == TEST][:, 1, THROUGHPUT]
    error = {name: float(np.nanmean(np.abs(simple[name][:, 1, THROUGHPUT] - actual))) for name in simple if name != "notes"}
    assert error["day_before"] < 0.5 * error["persistence"]
    assert error["least_absolute"] < error["day_before"]
    assert error["ridge"] < error["day_before"]
    assert error["ewma"] <= 1.01 * error["persistence"]
    assert all(np.isnan(simple[name][:, :, TARGETS.index("rtt_ms")]).all() for name in error)


def test_a_network_is_scored_on_the_windows_of_its_rivals(recorded: Path, arrays: Path, simple: dict[str, Any], tmp_path: Path) -> None:
    """Linear forecasts, trained by the product: they cover every pair, with intervals."""
    job = {
        "set": "links", "path": str(recorded), "data": str(arrays), "key": DEFAULT_LINK_KEY, "horizons": [1, 12], "cut": False,
        "links": None, "cache": str(tmp_path), "architecture": plain(Linear()), "settings": plain(TrainingSettings(epochs=1)) | {"seed": 1},
    }  # fmt: skip
    run = accuracy.arrays(accuracy_run.run(job))
    notes = json.loads(str(run.pop("notes")))
    assert notes["epochs"] >= 0
    assert np.isfinite(run["median"][:, 0, THROUGHPUT]).all()
    rivals = {name: made for name, made in simple.items() if name != "notes"}
    one, later = accuracy_score.pairs("links", accuracy.arrays(arrays), rivals, [run])
    assert (one.target, one.horizon, later.horizon) == ("throughput_mbps", 1, 12)
    assert one.ratios["persistence"] < 1.0
    assert one.windows == len(run["median"])
    assert later.network is not None
    assert 0.0 < later.coverage <= 1.0
    assert later.over_linear == pytest.approx(1.0), "it is the linear one itself"
    assert accuracy_run.kept_name(job) != accuracy_run.kept_name(job | {"links": [0]})


def test_links_may_be_left_out_of_a_training(recorded: Path) -> None:
    """Neither windows nor names of the others, and the windows that judge stay the same."""
    from features.timeline import DEFAULT_GAP_MULTIPLE
    from model.training.dataset import LastOfEachLink, prepare

    table = horizon_data.table_of(recorded, DEFAULT_LINK_KEY, cut=False)
    all_links = prepare(table, LastOfEachLink(), DEFAULT_GAP_MULTIPLE)
    first = prepare(table, accuracy_run.SomeLinks(links=(0,)), DEFAULT_GAP_MULTIPLE)
    assert set(table.link[first.data.train.end]) == set(table.link[first.data.validation.end]) == {0}
    assert first.judged.end.tolist() == all_links.judged.end.tolist()


@pytest.mark.parametrize(
    ("module", "few", "columns"),
    [
        ("rivals_trees", {"threads": 1, "rounds": 30}, {"lightgbm", "lightgbm.lower", "lightgbm.upper"}),
        ("rivals_statistical", {"origins": 3}, {"statistical"}),
        ("rivals_neural", {"threads": 1, "steps": 60, "tried": 1}, {"nhits"}),
    ],
)
def test_rivals_of_other_environments_forecast(arrays: Path, tmp_path: Path, module: str, few: Any, columns: Any) -> None:
    """Trees and their quantiles for every window, in order; a statistical model for every k-th."""
    venv = next(ROOT / f".venv-{rival.venv}" for rival in accuracy_cases.PROCESSES.values() if rival.module == module)
    if not (venv / ".ready").exists():
        pytest.skip("the environment of this rival is made by the benchmark itself")
    job = {"data": str(arrays), "out": str(tmp_path / "made.npz"), **few}
    harness.in_process(f"parts.{module}", job, str(venv / "bin" / "python"))
    made = accuracy.arrays(tmp_path / "made.npz")
    notes = json.loads(str(made.pop("notes")))
    assert set(made) == columns
    data = accuracy.arrays(arrays)
    actual = data["targets"][data["part"] == TEST]
    name = min(columns, key=len)
    known = np.isfinite(made[name][:, 1, THROUGHPUT]) & np.isfinite(actual[:, 1, THROUGHPUT])
    error = np.abs(made[name][:, 1, THROUGHPUT] - actual[:, 1, THROUGHPUT])[known].mean()
    last = np.abs(data["values"][data["part"] == TEST][:, -1, THROUGHPUT] - actual[:, 1, THROUGHPUT])[known].mean()
    assert known.any()
    assert error < last
    assert notes[name]["version"]
    if "lightgbm.lower" in made:
        assert np.isfinite(made["lightgbm"][:, :, THROUGHPUT]).all()
        assert (made["lightgbm.lower"][:, :, THROUGHPUT] <= made["lightgbm.upper"][:, :, THROUGHPUT]).all()


def test_rivals_need_numpy_alone() -> None:
    """What all rivals share is imported in environments without the project's packages."""
    code = "import sys, parts.rivals_task; print([name for name in ('features', 'model', 'numba', 'msgspec') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run_of(median: Any, **more: Any) -> dict[str, Any]:
    missing = np.full(len(median), np.nan)
    return {"median": median, "lower": missing, "upper": missing, **more}


def test_a_pair_is_judged_on_the_rows_that_all_forecast() -> None:
    """Errors of seeds are averaged. The best dense rival on common rows counts; trees are no simple rival."""
    random = np.random.default_rng(1)
    actual = random.normal(size=400)
    rivals = {"persistence": actual + 3.0, "ewma": actual - 2.0, "lightgbm": actual + 0.5}
    runs = [run_of(actual + error) for error in (1.0, -2.0)]
    pair = accuracy_score.pair("x", "rtt_ms", 3, actual, 0.5, rivals, runs)
    assert (pair.windows, pair.best, pair.better, pair.not_worse) == (400, "ewma", True, True)
    assert (pair.network, pair.change[0], pair.scaled) == (pytest.approx(1.5), pytest.approx(-0.5), pytest.approx(3.0))
    assert pair.network_sd == pytest.approx(0.5**0.5)
    assert pair.ratios == pytest.approx({"persistence": 0.5, "ewma": 0.75, "lightgbm": 3.0})
    worse = accuracy_score.pair("x", "rtt_ms", 3, actual, None, rivals, [run_of(actual + 2.5)])
    assert (worse.better, worse.not_worse, worse.worse_than, worse.scaled) == (False, False, ("ewma",), None)
    assert json.dumps(worse.row())


def test_a_rival_of_few_windows_is_compared_with_by_itself() -> None:
    """A perfect forecast of every fourth window is not the best of all, and being worse than it counts."""
    actual = np.random.default_rng(1).normal(size=400)
    sparse = np.full(400, np.nan)
    sparse[::4] = actual[::4]
    pair = accuracy_score.pair("x", "rtt_ms", 1, actual, 1.0, {"persistence": actual + 2.0, "statistical": sparse}, [run_of(actual + 1.0)])
    assert (pair.best, pair.better) == ("persistence", True)
    assert (pair.worse_than, pair.not_worse) == (("statistical",), False)


def test_without_a_forecast_nothing_holds() -> None:
    """The rivals' errors are still shown."""
    actual = np.zeros(300)
    pair = accuracy_score.pair("x", "rtt_ms", 1, actual, 1.0, {"persistence": actual + 2.0}, [run_of(np.full(300, np.nan))])
    assert (pair.network, pair.not_worse, pair.better, pair.errors) == (None, False, False, {"persistence": 2.0})


def test_interval_scores_and_coverage_are_computed_by_hand() -> None:
    """Bounds 0 and 10: 5 scores 10, the width; 12 lies 2 outside and scores 10 + 20 * 2. Narrower by half is half the score inside."""
    actual = np.array([5.0, 12.0])
    run = {"lower": np.zeros(2), "upper": np.full(2, 10.0)}
    assert accuracy_score.interval_scores(actual, [run]).tolist() == pytest.approx([10.0, 50.0])
    known, inside = accuracy_score.within(actual, run)
    assert (known.tolist(), inside.tolist()) == ([True, True], [True, False])
    actual = np.tile([5.0, 12.0], 200)
    whole = run_of(actual, lower=np.zeros(400), upper=np.full(400, 10.0), linear=actual + 2.0)
    rivals = {"persistence": actual + 1, "lightgbm": actual, "lightgbm.lower": actual - 3.0, "lightgbm.upper": actual + 3.0}
    pair = accuracy_score.pair("x", "rtt_ms", 1, actual, 1.0, rivals, [whole])
    assert (pair.coverage, pair.interval_score, pair.interval_ratio) == pytest.approx((0.5, 30.0, 5.0))
    assert pair.over_linear == 0.0


def made_pair(recording: str, horizon: int, **changed: Any) -> accuracy_score.Pair:
    values = {
        "recording": recording, "target": "rtt_ms", "horizon": horizon, "windows": 2_000, "network": 0.9, "network_sd": 0.0, "scale": 0.9,
        "errors": {"persistence": 3.0, "lightgbm": 1.0, "nhits": 1.0}, "ratios": {"persistence": 0.3, "lightgbm": 0.9, "nhits": 0.8},
        "best": "persistence", "change": (-0.2, -0.3, -0.1), "worse_than": (), "correlation": 0.78, "correlation_sd": 0.0, "coverage": 0.9,
        "interval_score": 2.0, "interval_ratio": 0.95, "over_linear": 0.96,
    }  # fmt: skip
    return accuracy_score.Pair(**values | changed)


def test_bars_have_the_agreed_names_and_need_every_pair() -> None:
    """All hold for good pairs. One pair without a forecast makes means over all pairs unknown, and shares smaller."""
    good = [made_pair(accuracy_cases.ISP, horizon) for horizon in (1, 3, 24)]
    correlations = (0.955, 0.83, 0.95, 0.385)
    good += [made_pair(accuracy_cases.MERGED, 1, target=name, correlation=value) for name, value in zip(TARGETS, correlations, strict=True)]
    bars = {bar.name: bar for bar in accuracy.bars(good, [made_pair("ripe_atlas_4min", 1)], [1.0, 1.02])}
    assert [bar.name for bar in bars.values() if not bar.holds] == []
    assert {"not_worse", "vs_lightgbm", "vs_best_neural", "isp_h24", "isp_h1", "dwcp_avg_corr", "short_runs", "unseen_links"} <= set(bars)
    assert {"network_pays", "interval_score_vs_lightgbm_quantile", "coverage_90_lowest", "coverage_90_highest", "pairs_better"} <= set(bars)
    assert bars["network_pays"].value == pytest.approx(0.04)
    assert bars["vs_lightgbm"].value == pytest.approx(0.9)
    missing = made_pair(accuracy_cases.ISP, 6, network=None, change=None, ratios={}, coverage=None, interval_ratio=None, over_linear=None)
    found = {bar.name: bar.value for bar in accuracy.bars([*good, missing], [], [])}
    assert (found["pairs_forecast"], found["not_worse"]) == (7 / 8, 7 / 8)
    assert {name for name, value in found.items() if value is None} == {
        "vs_lightgbm", "vs_best_neural", "short_runs", "unseen_links", "network_pays", "coverage_90_lowest", "coverage_90_highest",
        "coverage_90_worst_pair", "interval_score_vs_lightgbm_quantile",
    }  # fmt: skip


def test_scaled_errors_are_means_over_all_pairs() -> None:
    """By hand: .9 / .9 and .9 / .45. A rival that misses a pair has no mean."""
    found = [made_pair("x", 1), made_pair("x", 3, scale=0.45, errors={"persistence": 0.9})]
    assert accuracy_score.mean_scaled_errors(found) == pytest.approx({"network": 1.5, "persistence": (3.0 / 0.9 + 2.0) / 2})


def test_kept_results_are_known_by_their_contents(tmp_path: Path) -> None:
    """The same arrays in another file are the same; other numbers, other code and other settings are not."""
    one, same, other, code = (tmp_path / name for name in ("one.npz", "same.npz", "other.npz", "code.py"))
    np.savez(one, a=np.arange(3), b=np.zeros(2))
    np.savez(same, b=np.zeros(2), a=np.arange(3))
    np.savez(other, a=np.arange(4), b=np.zeros(2))
    code.write_text("one")
    kept = accuracy_cases.digest("{}", [one, code])
    assert kept == accuracy_cases.digest("{}", [same, code])
    assert len({kept, accuracy_cases.digest("{}", [other, code]), accuracy_cases.digest("[]", [one, code])}) == 3
    code.write_text("another")
    assert kept != accuracy_cases.digest("{}", [one, code])


def test_every_rival_that_is_started_is_scored() -> None:
    """Modules and locks exist, and each is one of the rivals that scores know."""
    for name, rival in accuracy_cases.PROCESSES.items():
        assert (ROOT / "benchmarks" / "parts" / f"{rival.module}.py").exists()
        assert rival.venv is None or (ROOT / "benchmarks" / f"{rival.venv}.lock").exists()
        assert name in (*accuracy_score.RIVALS, "simple")


def test_sizes_are_compared_over_recordings() -> None:
    """By hand: a variant that is a fifth better on one recording and as good on the other, at half of the CPU time."""
    found = {
        "one": {"default": {"score": 1.0, "cpu_s": 10.0}, "small": {"score": 0.81, "cpu_s": 5.0}},
        "other": {"default": {"score": 0.5, "cpu_s": 20.0}, "small": {"score": 0.5, "cpu_s": 10.0}},
    }
    default, small = sizes.rows(found)
    assert (default["variant"], default["to default"], default["CPU time to default"]) == ("default", 1.0, 1.0)
    assert (small["to default"], small["CPU time to default"], small["one"]) == (pytest.approx(0.9), pytest.approx(0.5), 0.81)


def test_a_variant_is_scored_on_validation_rows(recorded: Path) -> None:
    """Of a recording of a tiny network: a score in errors of persistence, and the time that it took."""
    job = {
        "path": str(recorded), "key": DEFAULT_LINK_KEY, "horizons": [1, 2], "epochs": 1,
        "variants": {"tiny": {"units": [2], "members": 1}},
    }  # fmt: skip
    found = sizes_run.main(job)["tiny"]
    assert 0.0 < found["score"] < 2.0
    assert found["cpu_s"] > 0
