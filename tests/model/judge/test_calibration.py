"""Intervals that keep their coverage while the stream drifts, and the forecasts under way that they learn from."""

from __future__ import annotations

import numpy as np
import pytest

from features.telemetry import TARGETS
from model.judge.calibration import LEAST, MOST
from model.judge.mixture import no_simple
from model.judge.outlook import GROUPS_MOST, Outlook

EU = ("eu", "fibre")
UNKNOWN = np.full((1, len(TARGETS)), np.nan, np.float32)
USUAL = 1.645
"""Nine of ten values of a standard normal distribution lie within this many deviations."""


def kept(outlook: Outlook) -> list[float]:
    """The distance to both ends of an interval of -1 to 1 around 10."""
    ahead = np.tile(np.array([9, 10, 11, 10], np.float32), (1, len(outlook.horizons), len(TARGETS), 1))
    lower, median, upper, mean = outlook.stretched([EU], ahead)[0, 0, 0].tolist()
    assert median == mean == 10.0
    return [median - lower, upper - median]


def test_coverage_holds_through_changes_of_spread() -> None:
    """Intervals that are three times too narrow or too wide hold nine of ten values again, as do those that fit from the beginning."""
    rng, link, shares = np.random.default_rng(0), Link(), []
    for spread in (1.0, 3.0, 0.3, 1.0):
        covered = counted = 0.0
        for value in (rng.normal(size=4_000) * spread / USUAL).tolist():
            link.send(10.0 + value)
            covered, counted = covered + link.last.covered[0, 0], counted + link.last.count[0, 0]
        shares.append(covered / counted)
    assert shares == pytest.approx([0.9] * 4, abs=0.035)


def test_intervals_are_those_of_the_version_until_something_is_learnt() -> None:
    """To the bit, whatever the forecasts; what they were stretched to is possible."""
    outlook = Outlook()
    outlook.begin((1, 3), 0.9, links=1)
    ahead = np.random.default_rng(1).uniform(0.0, 1.0, (5, 2, len(TARGETS), 4)).astype(np.float32)
    np.testing.assert_allclose(outlook.stretched([EU] * 5, np.sort(ahead, axis=-1)), np.sort(ahead, axis=-1), atol=1e-6)
    far = np.tile(np.array([-4, 1, 2, 1], np.float32), (1, 2, len(TARGETS), 1))
    made = outlook.stretched([EU], far)[0, 0]
    assert made[0].tolist() == [0.0, 1.0, 2.0, 1.0]
    assert made[TARGETS.index("packet_loss")].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_a_stretch_stays_within_its_bounds() -> None:
    """A value that is stuck far away, or on the median, makes no interval useless."""
    for value, ends in ((1e9, [LEAST, MOST]), (10.0, [LEAST, LEAST])):
        link = Link()
        for _ in range(2_000):
            link.send(value)
        assert kept(link.outlook) == pytest.approx(ends, rel=1e-3)


def test_what_is_not_measured_or_forecast_teaches_nothing() -> None:
    link = Link()
    for value, median in ((10.0, 10.0), (np.nan, np.nan), (99.0, 10.0)):
        link.send(value, median)
    assert kept(link.outlook) == [1.0, 1.0]


class Link:
    """A link that sends a row a minute, and its forecasts 1 and 3 rows ahead."""

    def __init__(self, outlook: Outlook | None = None) -> None:
        self.outlook = outlook or Outlook()
        if outlook is None:
            self.outlook.begin((1, 3), 0.9, links=1)
        self.row = 0

    def send(self, value: float, median: float = 10.0, rows: float = 1.0, restarted: bool = False) -> list[float]:
        """Send a row some intervals after the last one, and return how many forecasts met it, by horizon."""
        self.row += 1
        self.time_s = getattr(self, "time_s", 0.0) + 60.0 * rows
        ahead = np.tile(np.array([median - 1, median, median + 1, median], np.float32), (1, 2, len(TARGETS), 1))
        found = self.outlook.follow(
            np.zeros(1, np.int64), [EU], np.array([self.time_s]), np.array([60.0]), np.array([restarted]), ahead,
            np.full((1, len(TARGETS)), value, np.float32), no_simple(1, 2), UNKNOWN,
        )  # fmt: skip
        self.last = found
        return [float(count) for count in found.count[:, 0]]


def test_a_forecast_meets_the_row_that_it_was_made_for() -> None:
    """The next one sets out when it has: each row meets a forecast of one row ahead, every third one of three."""
    link = Link()
    assert [link.send(10.0) for _ in range(7)] == [[0, 0], [1, 0], [1, 0], [1, 1], [1, 0], [1, 0], [1, 1]]


def test_a_row_that_does_not_come_is_not_judged() -> None:
    """Neither is one of another time, nor one after a gap; the next forecast sets out from it."""
    link = Link()
    link.send(10.0)
    assert link.send(10.0, rows=1.6) == [0, 0]
    assert link.send(10.0) == [1, 1], "2.6 rows after the first one is nearest to 3"
    assert link.send(10.0, restarted=True) == [0, 0]
    assert link.send(10.0) == [1, 0]


def test_coverage_is_that_of_the_interval_that_was_given_out() -> None:
    """A row outside is counted as outside, whatever is learnt from it; the error is the median's."""
    link = Link()
    link.send(10.0)
    link.send(11.3)
    assert (link.last.covered[0, 0], link.last.error[0, 0]) == (0.0, pytest.approx(1.3, abs=1e-5))
    link.send(11.03)
    assert link.last.covered[0, 0] == 1.0, "the side has been stretched by 4 %"


def test_it_goes_on_from_its_state_with_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    one, values = Link(), rng.normal(10, 1, 200).tolist()
    for value in values[:100]:
        one.send(value)
    other = Link(Outlook.restored(one.outlook.state(), {name: array.copy() for name, array in one.outlook.arrays().items()}))
    other.row, other.time_s = one.row, one.time_s
    for value in values[100:]:
        assert one.send(value) == other.send(value)
    for name, array in one.outlook.arrays().items():
        assert array.tobytes() == other.outlook.arrays()[name].tobytes()


def test_another_version_begins_with_its_own_intervals() -> None:
    link = Link()
    for _ in range(20):
        link.send(50.0)
    link.outlook.begin((1, 3), 0.9, links=1)
    assert not link.outlook.arrays()["outlook_log_stretch"].any()
    assert link.send(10.0) == [0, 0]


def test_links_come_and_go() -> None:
    """What is under way belongs to its link wherever that moves; a link that goes takes it along."""
    outlook = Outlook()
    outlook.begin((1,), 0.9, links=3)
    ahead = np.tile(np.array([9, 10, 11, 10], np.float32), (3, 1, len(TARGETS), 1))
    rows, actual = np.arange(3), np.full((3, len(TARGETS)), 10.0, np.float32)
    no = np.zeros(3, np.bool_)
    outlook.follow(
        rows, [EU] * 3, np.array([0.0, 10.0, 20.0]), np.full(3, 60.0), no, ahead, actual, no_simple(3, 1), UNKNOWN.repeat(3, axis=0)
    )
    outlook.select(np.array([2], np.int32))
    outlook.extend(1)
    no_mixture = no_simple(2, 1), UNKNOWN.repeat(2, axis=0)
    found = outlook.follow(np.arange(2), [EU] * 2, np.array([80.0, 80.0]), np.full(2, 60.0), no[:2], ahead[:2], actual[:2], *no_mixture)
    assert found.count[0].tolist() == [1.0] * len(TARGETS), "that of the link that stayed"


def test_a_flood_of_regions_is_bounded() -> None:
    outlook = Outlook()
    outlook.begin((1,), 0.9, links=1)
    ahead, actual = np.ones((1, 1, len(TARGETS), 4), np.float32), np.ones((1, len(TARGETS)), np.float32)
    for number in range(GROUPS_MOST + 50):
        time_s, interval_s, gap = np.array([60.0 * number]), np.array([60.0]), np.zeros(1, np.bool_)
        outlook.follow(np.zeros(1, np.int64), [(f"region {number}", "")], time_s, interval_s, gap, ahead, actual, no_simple(1, 1), UNKNOWN)
    assert len(outlook.arrays()["outlook_log_stretch"]) == GROUPS_MOST
