"""Backtest: forecasts beside the rows that they were made for, and policies beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.commands.backtest.command import lines, print_results
from daemon.commands.backtest.online import online_forecasts
from daemon.commands.backtest.page import page
from daemon.commands.backtest.policies import POLICIES, configured
from daemon.commands.backtest.scores import METHODS, Rows, Table, scored, targets_of
from daemon.commands.replay import adapted
from daemon.config.load import Config
from daemon.config.sections import NEVER
from daemon.errors import EXIT_NOTHING
from daemon.ingest.ahead import Made
from features.telemetry import TARGETS
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import FleetSpec, Region

RTT = TARGETS.index("rtt_ms")


def table(values: list[float], forecasts: dict[str, float], horizons: tuple[int, ...] = (1, 2)) -> Table:
    """One link with a row a minute, whose methods forecast a constant each; the others forecast nothing."""
    count = len(values)
    actual = np.full((count, len(TARGETS)), np.nan, np.float32)
    actual[:, RTT] = values
    time_s, interval_s = 60.0 * np.arange(count), np.full(count, 60.0)
    made = np.full((count, len(horizons), len(TARGETS), len(METHODS)), np.nan, np.float32)
    for name, value in forecasts.items():
        made[:, :, RTT, METHODS.index(name)] = value
    targets = targets_of(np.zeros(count, np.int64), time_s, interval_s, actual, horizons)
    bounds = np.tile(np.array([0.0, 2.5], np.float32), (count, len(horizons), len(TARGETS), 1))
    return Table(["a|b"], np.zeros(count, np.int32), time_s, interval_s, actual, targets, made, bounds, horizons)


def test_errors_are_those_of_the_row_that_a_forecast_was_made_for() -> None:
    """Forecasts whose row did not come count for no method; a method without any forecast of a target removes no row."""
    one, two = scored(table([1.0, 2.0, 3.0, np.nan, 5.0], {"published": 2.0, "version": 1.0}), buckets=2)
    assert (one["rows_ahead"], one["target"], one["forecasts"]) == (1, "rtt_ms", 3)
    assert one["mae"] == pytest.approx({"published": (0 + 1 + 3) / 3, "version": (1 + 2 + 4) / 3})
    assert (two["rows_ahead"], two["forecasts"], one["coverage"]) == (2, 2, pytest.approx(1 / 3))
    assert one["over_time"]["count"] == [2, 1]
    assert one["over_time"]["mae"]["published"] == pytest.approx([0.5, 3.0])


def test_a_gap_or_another_link_ends_what_can_be_judged() -> None:
    run = np.array([1, 1, 2, 2, 3])
    time_s = np.array([0.0, 60.0, 120.0, 180.0, 240.0])
    found = targets_of(run, time_s, np.full(5, 60.0), np.arange(5.0, dtype=np.float32)[:, None], (1,))[:, 0, 0]
    assert found.tolist()[::2] == [1.0, 3.0, pytest.approx(np.nan, nan_ok=True)]
    assert np.isnan(found[[1, 3]]).all()
    assert targets_of(run[:0], time_s[:0], time_s[:0], np.zeros((0, 1), np.float32), (1,)).shape == (0, 1, 1)


def test_the_listener_keeps_rows_by_link_and_time() -> None:
    """Only horizons that the version forecasts; a restart begins a run."""
    rows = Rows((1, 5, 15))
    assert rows.table() is None
    for minute in range(3):
        for link in ("b", "a"):
            sizes = ((4, 7.0), (4, 8.0), (3, 9.0))
            version, simple, published = (np.full((1, 2, len(TARGETS), count), value, np.float32) for count, value in sizes)
            times = np.array([60.0 * minute]), np.array([60.0]), np.array([minute == 2])
            rows.forecast(Made([link], *times, np.full((1, 4), minute, np.float32), (1, 5), version, simple, published))
    made = rows.table()
    assert made is not None
    assert (made.horizons, made.links, made.link.tolist()) == ((1, 5), ["b", "a"], [0, 0, 0, 1, 1, 1])
    assert made.targets[:, 0, 0].tolist()[::3] == [1.0, 1.0]
    assert np.isnan(made.targets[1:3, 0]).all()
    assert made.forecasts[0, 0, 0].tolist() == [9.0, 7.0, 8.0, 8.0, 8.0, 8.0]


def test_the_online_rival_learns_and_does_not_look_ahead() -> None:
    """It beats the last value on a wave; what comes after a row does not change its forecast of it."""
    values = (10.0 + 3.0 * np.sin(np.arange(600) / 5.0)).tolist()
    made = online_forecasts(table(values, {"published": 10.0}, (3,)))[:, 0, RTT]
    wanted = np.array(values[3:] + [np.nan] * 3)
    later = slice(300, 590)
    own, last = np.abs(made[later] - wanted[later]).mean(), np.abs(np.array(values)[later] - wanted[later]).mean()
    assert own < 0.6 * last
    changed = values[:400] + [99.0] * 200
    np.testing.assert_array_equal(online_forecasts(table(changed, {}, (3,)))[:400, 0, RTT], made[:400])


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_nothing_but_when_it_trains(policy: str) -> None:
    base = adapted(Config(), Path("/nowhere"), 10_000)
    made = configured(policy, base, 10_000)
    assert made.training.rows_min == base.training.rows_min == 4_000
    assert made.model_copy(update={"training": base.training}) == base
    trains_on_drift = made.training.drift_rows_min < NEVER
    trains_by_time = (bool(made.training.schedule) or made.training.interval_s is not None) and made.training.new_rows_min < NEVER
    assert (trains_on_drift, trains_by_time) == {
        "frozen": (False, False), "scheduled": (False, True), "on_drift": (True, False), "always": (False, True), "default": (True, True),
    }[policy]  # fmt: skip


def _result(policy: str, mae: float, **more: Any) -> dict[str, Any]:
    over_time = {"ends_s": [60.0, 120.0], "count": [1, 1], "mae": {"published": [mae, None], "version": [mae, mae]}}
    score = {
        "rows_ahead": 1, "target": "rtt_ms", "forecasts": 9, "mae": {"published": mae, "version": 2 * mae, "average": 3.0},
        "coverage": 0.9, "width": 1.0, "over_time": over_time,
    }  # fmt: skip
    training = {"version": "<v1>", "reason": "first", "status": "candidate", "cpu_s": 12.0, "rows": 5, "time_s": 90.0}
    return {"policy": policy, "scores": [score], "trainings": [training], "nothing_judged": [], "cpu_s": 1.0} | more


def test_what_a_person_sees(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each policy with its trainings, then the simple forecasts; a page without scripts that escapes every text."""
    results = [_result("frozen", 1.0, online_linear={"1 rtt_ms": 4.0}), _result("default", 0.5)]
    assert [(name, errors[1, "rtt_ms"]) for name, errors, *_ in lines(results)] == [
        ("frozen: published", 1.0), ("frozen: version alone", 2.0), ("default: published", 0.5), ("default: version alone", 1.0),
        ("average", 3.0), ("online linear model", 4.0),
    ]  # fmt: skip
    print_results(results, as_json=False)
    assert "1 (1 published)" in capsys.readouterr().out
    print_results(results, as_json=True)
    assert json.loads(capsys.readouterr().out)[1]["policy"] == "default"
    print_results([_result("frozen", 1.0) | {"scores": [], "nothing_judged": ["too short"]}], as_json=False)
    assert "too short" in capsys.readouterr().out
    html = page("a<b", results)
    assert "a&lt;b" in html
    assert "&lt;v1&gt;" in html
    assert "<script" not in html


def test_backtest_of_a_recording(cli: Any, tmp_path: Path) -> None:
    """It trains, judges, and goes on from what it has; one that is too short has the exit code of a replay that judged nothing."""
    spec = FleetSpec(seed=5, regions=(Region("eu", 0.0),), links_per_region=4)
    recording = write_dataset(spec, tmp_path, "csv", 8 * 3600.0)
    quick = tmp_path / "quick.toml"
    quick.write_text('[training]\narchitecture = "linear"\nepochs = 1\n')
    arguments = (
        "backtest",
        recording,
        "--config",
        quick,
        "--policy",
        "frozen",
        "--keep",
        tmp_path / "kept",
        "--html",
        tmp_path / "page.html",
        "--json",
    )
    code, out, _ = cli(*arguments)
    (result,) = json.loads(out)
    assert (code, result["policy"], len(result["trainings"])) == (0, "frozen", 1)
    assert {(one["rows_ahead"], one["target"]) for one in result["scores"]} >= {(rows, "rtt_ms") for rows in (1, 5, 15)}
    rtt = next(one for one in result["scores"] if (one["rows_ahead"], one["target"]) == (1, "rtt_ms"))
    assert 500 < rtt["forecasts"] < 4 * 60 * 8
    assert rtt["mae"]["published"] < rtt["mae"]["last_value"]
    assert result["online_linear"]["1 rtt_ms"] > 0.0
    assert "<svg" in (tmp_path / "page.html").read_text()
    (kept,) = (tmp_path / "kept").glob("*.result.json")
    kept.write_text(kept.read_text().replace('"frozen"', '"as kept"'))
    assert json.loads(cli(*arguments)[1])[0]["policy"] == "as kept", "what is there is not computed again"
    short = tmp_path / "short.csv"
    short.write_text("".join(recording.read_text().splitlines(keepends=True)[:40]))
    code, out, _ = cli("backtest", short, "--policy", "frozen")
    assert (code, "nothing was judged" in out) == (EXIT_NOTHING, True)
    code, _, err = cli("backtest", recording, "--policy", "best")
    assert (code, "no such policy; use frozen, scheduled" in err) == (1, True)
    assert cli("backtest", tmp_path / "none.csv")[0] == 1
