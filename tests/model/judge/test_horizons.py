"""Figures and scores of forecasts at several horizons, against hand computations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from features.telemetry import TARGETS, Floats
from model.judge.horizons import horizon_figures, interval_scores, mean_over_horizons, weighted_interval_scores
from model.version.contract import MEAN

NAN = np.nan


@pytest.mark.parametrize(
    ("actual", "lower", "upper", "coverage", "score"),
    [
        (5.0, 4.0, 7.0, 0.9, 3.0),
        (4.0, 4.0, 7.0, 0.9, 3.0),
        (3.5, 4.0, 7.0, 0.9, 3.0 + 20.0 * 0.5),
        (9.0, 4.0, 7.0, 0.9, 3.0 + 20.0 * 2.0),
        (9.0, 4.0, 7.0, 0.5, 3.0 + 4.0 * 2.0),
        (6.0, 6.0, 6.0, 0.9, 0.0),
    ],
)
def test_the_interval_score_is_width_and_the_distance_outside(
    actual: float, lower: float, upper: float, coverage: float, score: float
) -> None:
    """2 / (1 - coverage) times the distance, on either side."""
    found = interval_scores(np.array([actual]), np.array([lower]), np.array([upper]), coverage)
    assert found.tolist() == [pytest.approx(score)]


def ahead_of(*forecasts: tuple[float, float, float]) -> Floats:
    """(M, 1, 4, 4): the same forecast for each target, with a mean that counts for nothing."""
    places = [(lower, median, upper, 1e9) for lower, median, upper in forecasts]
    return np.repeat(np.array(places, np.float32)[:, None, None, :], 4, axis=2)


def test_the_weighted_score_counts_median_and_interval() -> None:
    """(|8 - 6| / 2 + .05 * (4 + 20 * 1)) / 1.5 by hand; what is not measured has no score, and no number as a forecast an infinite one."""
    actual = np.full((4, 1, 4), 8.0, np.float32)
    actual[1] = NAN
    scores = weighted_interval_scores(actual, ahead_of((3, 6, 7), (3, 6, 7), (3, NAN, 7), (3, 6, np.inf)), 0.9)
    assert scores[0, 0].tolist() == [pytest.approx((1.0 + 0.05 * 24.0) / 1.5)] * 4
    assert np.isnan(scores[1]).all()
    assert np.isinf(scores[2:]).all()


def test_the_mean_over_horizons_counts_each_pair_by_its_naive_error() -> None:
    """A far horizon with ten times the error weighs as much as the next row; what is not known is left out of both means."""
    scores = np.array([[[2.0], [40.0]], [[4.0], [NAN]], [[NAN], [NAN]]]).repeat(4, axis=2)
    naive = np.array([[[1.0], [10.0]], [[3.0], [30.0]], [[NAN], [NAN]]]).repeat(4, axis=2)  # means of 2 and 20
    means = mean_over_horizons(scores, naive)
    assert means[0].tolist() == [pytest.approx((2.0 / 2.0 + 40.0 / 20.0) / 2.0)] * 4
    assert means[1].tolist() == [pytest.approx(4.0 / 2.0)] * 4
    assert np.isnan(means[2]).all()


def test_an_infinite_score_stays_infinite_and_a_naive_error_of_nothing_divides_nothing() -> None:
    """The gate refuses the former by it; a target that never changes has its score as it is."""
    scores, naive = np.array([[[np.inf], [1.0]]]).repeat(4, axis=2), np.zeros((1, 2, 4))
    assert np.isinf(mean_over_horizons(scores, naive)).all()
    assert mean_over_horizons(np.full((1, 2, 4), 3.0), naive).tolist() == [[3.0] * 4]


def test_figures_by_horizon_and_target() -> None:
    """Error, coverage, width, score and the simple forecasts' errors are those of the windows that all of them know."""
    actual = np.full((4, 2, 4), NAN, np.float32)
    actual[:, 0, 0] = [10.0, 20.0, 30.0, 40.0]
    actual[:2, 1, 0] = [12.0, 22.0]
    ahead = np.tile(np.array([8.0, 11.0, 25.0, 0.0], np.float32), (4, 2, 4, 1))
    ahead[:, 0, 0, MEAN] = [12.0, 20.0, 28.0, NAN]
    persistence = np.full((4, 4), NAN, np.float32)
    persistence[:, 0] = [10.0, 10.0, 10.0, NAN]
    simple = {"persistence": persistence, "ewma": np.full((4, 4), 20.0, np.float32)}
    first, second = horizon_figures(actual, ahead, simple, (1, 5), 0.9)
    assert (first["rows"], second["rows"]) == (1, 5)
    assert list(first["targets"]) == list(TARGETS)
    throughput = first["targets"]["throughput_mbps"]
    assert throughput["windows"] == 3  # the fourth has no persistence
    assert throughput["mae"] == pytest.approx((1 + 9 + 19) / 3)
    assert (throughput["rmse"], throughput["correlation"]) == (pytest.approx((8 / 3) ** 0.5), pytest.approx(1.0)), "of the mean"
    assert throughput["coverage"] == pytest.approx(2 / 3)
    assert throughput["width"] == pytest.approx(17.0)
    assert throughput["interval_score"] == pytest.approx(17.0 + 20.0 * 5.0 / 3)
    assert throughput["simple"] == {"persistence": pytest.approx(10.0), "ewma": pytest.approx(20 / 3)}
    assert throughput["skill"] == pytest.approx(1 - (29 / 3) / 10)
    assert second["targets"]["throughput_mbps"]["windows"] == 2
    json.dumps([first, second], allow_nan=False)


def test_figures_of_nothing_are_none() -> None:
    """A horizon that no window knows, and a target that is not forecast, have no figures, and no NaN."""
    actual = np.full((3, 2, 4), 1.0, np.float32)
    actual[:, 1] = NAN
    ahead = np.ones((3, 2, 4, 4), np.float32)
    ahead[:, :, 3] = NAN
    figures = horizon_figures(actual, ahead, {"persistence": np.ones((3, 4), np.float32)}, (1, 5), 0.9)
    for entry in (figures[1]["targets"]["rtt_ms"], figures[0]["targets"][TARGETS[3]]):
        assert (entry["windows"], entry["mae"], entry["coverage"], entry["interval_score"], entry["skill"]) == (0, None, None, None, None)
    assert figures[0]["targets"]["rtt_ms"]["windows"] == 3
    assert figures[0]["targets"]["rtt_ms"]["skill"] is None  # persistence has no error to compare with
    json.dumps(figures, allow_nan=False)
