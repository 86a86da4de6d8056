"""What is published: never far behind the best of its forecasts for long, and the version judged against it."""

from __future__ import annotations

import numpy as np
import pytest

from features.definition import FEATURES, WINDOW_ROWS
from features.telemetry import TARGETS, Floats
from model.judge.behind import BEHIND_OUTCOMES, BEHIND_RATIO
from model.judge.mixture import (
    EXPERTS,
    FRESH_LEAST,
    PRIOR,
    SIMPLE,
    learn_weights,
    mixed,
    no_simple,
    no_weights,
    simple_forecasts,
    trusting,
    weights_of,
)
from model.judge.outlook import Outlook
from model.version.contract import MEDIAN
from model.version.possible import highest

EU = ("eu", "fibre")
HORIZONS = (1, 4)


class Stream:
    """One link that sends a row a minute, and what is published for it."""

    def __init__(self, outlook: Outlook | None = None) -> None:
        self.outlook = outlook or Outlook()
        if outlook is None:
            self.outlook.begin(HORIZONS, 0.9, links=1)
        self.time_s = 0.0

    def send(self, value: float, version: float, simple: float, spread: float = 1.0) -> Floats:
        """Return lower, median and upper, float32 (H, 3), of the first target at a row with this measurement and these forecasts."""
        self.time_s += 60.0
        ahead = np.tile(np.array([version - 1, version, version + 1, version], np.float32), (1, 2, len(TARGETS), 1))
        others = np.full((1, 2, len(TARGETS), len(SIMPLE)), simple, np.float32)
        found = self.outlook.follow(
            np.zeros(1, np.int64), [EU], np.array([self.time_s]), np.array([60.0]), np.zeros(1, bool), ahead,
            np.full((1, len(TARGETS)), value, np.float32), others, np.full((1, len(TARGETS)), spread, np.float32),
        )  # fmt: skip
        published: Floats = found.published[0, :, 0]
        return published

    @property
    def trust(self) -> list[float]:
        return [float(each) for each in self.outlook.trust()[0, :, 0]]


def test_it_follows_whichever_forecast_is_right() -> None:
    """The version first, then the simple ones, then the version again; further ahead it has fewer outcomes to learn from."""
    link = Stream()
    for _ in range(60):
        link.send(10.0, version=10.0, simple=13.0)
    assert link.trust[0] > 0.95
    assert link.send(10.0, 10.0, 13.0)[0, MEDIAN] == pytest.approx(10.0, abs=0.05)
    for _ in range(40):
        link.send(13.0, version=10.0, simple=13.0)
    assert link.trust[0] < 0.02
    assert link.send(13.0, 10.0, 13.0)[0, MEDIAN] == pytest.approx(13.0, abs=0.05)
    assert link.trust[0] < link.trust[1] < 0.4
    for _ in range(40):
        link.send(10.0, version=10.0, simple=13.0)
    assert link.trust[0] > 0.9, "the fixed share has kept it alive"


def test_it_is_hardly_behind_the_best_forecast_over_any_change() -> None:
    """Regret on a stream whose best forecast changes three times: under 4 % of the best one in each part."""
    rng, link, own, best = np.random.default_rng(3), Stream(), 0.0, 0.0
    expected = None
    for part in range(4):
        for _ in range(800):
            value = 50.0 + rng.normal()
            if expected is not None:
                own += abs(value - expected)
                best += abs(value - 50.0)
            version, simple = (50.0, 52.0) if part % 2 == 0 else (52.0, 50.0)
            expected = float(link.send(value, version, simple)[0, MEDIAN])
    assert own / best < 1.04


def test_forecasts_that_are_missing_sleep() -> None:
    """They take no part and keep their weight, whatever the others do."""
    kept = no_weights(1, 1)[0, 0, 0]
    simple = np.array([5.0, np.nan, np.nan, np.nan], np.float32)
    assert mixed(kept, 10.0, simple) == pytest.approx((PRIOR * 10.0 + 0.1 * 5.0) / (PRIOR + 0.1), rel=1e-3)
    for _ in range(50):
        learn_weights(kept, 10.0, simple, 5.0, 1.0)
    weights = dict(zip(EXPERTS, weights_of(kept).tolist(), strict=True))
    assert weights["last_value"] > 0.6
    assert weights["version"] < 0.01
    assert weights["level"] == pytest.approx(0.1, abs=0.02)
    assert np.isnan(mixed(kept, np.nan, np.full(4, np.nan, np.float32)))


@pytest.mark.parametrize("value", [np.inf, 1e30, 0.0])
def test_absurd_outcomes_do_not_decide(value: float) -> None:
    """One value moves no weight by more than the largest error counts."""
    kept = no_weights(1, 1)[0, 0, 0]
    learn_weights(kept, 10.0, np.full(4, 11.0, np.float32), value, 0.1)
    weights = weights_of(kept)
    assert np.isfinite(weights).all()
    assert 0.25 < weights[0] < 0.85


def test_nothing_is_learnt_from_forecasts_that_are_all_exact() -> None:
    kept = no_weights(1, 1)[0, 0, 0]
    learn_weights(kept, 0.0, np.zeros(4, np.float32), 0.0, 0.0)
    np.testing.assert_array_equal(kept, no_weights(1, 1)[0, 0, 0])


def test_a_version_that_goes_live_is_trusted_again() -> None:
    """What the link knows of the simple forecasts stays; other horizons begin anew."""
    link = Stream()
    for _ in range(60):
        link.send(13.0, version=10.0, simple=13.0)
    link.outlook.begin(HORIZONS, 0.9, links=1)
    assert link.trust[0] == pytest.approx(FRESH_LEAST, abs=0.001)
    link.outlook.begin((1, 2, 3), 0.9, links=1)
    assert np.isnan(link.outlook.trust()).all(), "nothing was learnt for these horizons"
    uneven = no_weights(1, 1)
    uneven[..., 1] = 0
    shares = weights_of(trusting(uneven))[0, 0, 0]
    assert shares[1] > shares[2]
    assert shares.sum() == pytest.approx(1.0)


def test_its_interval_is_around_it_and_possible() -> None:
    """It has the sides of the version's, is stretched by the link's own misses, and is never below 0 or beyond what is possible."""
    link = Stream()
    lower, median, upper = link.send(0.2, version=0.5, simple=0.5)[0].tolist()
    assert (lower, median, upper) == pytest.approx((0.0, 0.5, 1.5), abs=1e-6)
    rng, wide = np.random.default_rng(1), Stream()
    for _ in range(3000):
        lower, median, upper = wide.send(50.0 + 4.0 * rng.normal(), version=50.0, simple=50.0)[0].tolist()
    assert 2 * 4.0 * 1.3 < upper - lower < 2 * 4.0 * 2.2


def test_simple_forecasts_of_a_window() -> None:
    """Last value, average, level, and the average with the difference of the profile; a gap in the profile is not forecast."""
    windows = np.full((1, WINDOW_ROWS, len(FEATURES)), np.nan, np.float32)
    windows[0, -3:, : len(TARGETS)] = np.array([[10.0], [20.0], [np.nan]])
    context = np.full((1, 3 + 2, len(TARGETS)), np.nan, np.float32)
    context[0, 0], context[0, 2:] = 12.0, np.array([[5.0], [7.0], [-90.0]])
    known = np.full((1, len(TARGETS)), 20.0, np.float32)
    made = simple_forecasts(windows, np.ones(1, bool), known, context, 2, highest())
    assert made[0, 0, 1].tolist() == [20.0, 11.0, 12.0, 13.0]
    assert made[0, 1, 1].tolist() == [20.0, 11.0, 12.0, 0.0], "nothing is forecast below 0"
    assert made[0, 0, TARGETS.index("packet_loss"), 3] == 1.0
    context[0, 2] = np.nan
    assert np.isnan(simple_forecasts(windows, np.ones(1, bool), known, context, 2, highest())[..., 3]).all()
    assert np.isnan(simple_forecasts(windows, np.zeros(1, bool), known, context, 2, highest())).all()


def test_a_version_that_is_behind_is_found() -> None:
    """Beyond chance and for long: not one that is as good, not one that was wrong for an hour, not one of unknown spread."""
    rng = np.random.default_rng(5)

    def behind(shift: float, rows: int, spread: float = 1.0) -> list[str]:
        link = Stream()
        for _ in range(rows):
            link.send(50.0 + rng.normal(), version=50.0 + shift, simple=50.0, spread=spread)
        found = link.outlook.behind()
        assert all(one.region == "eu" and one.share > BEHIND_RATIO for one in found)
        return [one.target for one in found]

    long = 3 * BEHIND_OUTCOMES
    assert behind(2.0, long) == list(TARGETS)
    assert behind(0.0, long) == behind(2.0, 100) == behind(2.0, long, spread=np.nan) == []


def test_the_same_bits_from_a_state_and_at_most_600_bytes_a_link() -> None:
    rng, one = np.random.default_rng(2), Stream()
    for _ in range(100):
        one.send(rng.normal() + 9.0, 9.0, 8.0)
    arrays = {name: array.copy() for name, array in one.outlook.arrays().items()}
    other = Stream(Outlook.restored(one.outlook.state(), arrays))
    other.time_s = one.time_s
    for value in rng.normal(9.0, 1.0, 100).tolist():
        assert one.send(value, 9.0, 8.0).tobytes() == other.send(value, 9.0, 8.0).tobytes()
    for name, array in one.outlook.arrays().items():
        assert array.tobytes() == other.outlook.arrays()[name].tobytes()
    five = Outlook.empty_mixture(links=1, horizons=5, groups=0)
    assert sum(array.nbytes for array in five.values()) <= 600
    assert no_simple(1, 5).nbytes == five["outlook_simple"].nbytes
