"""Inputs of the linear path and its solution: known values, averages, the calendar, least absolute error."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.definition import FEATURES
from features.offline import OfflineFeatures
from features.telemetry import Floats
from model.judge.metrics import Ewma, persistence
from model.spec.architecture import Lstm
from model.training.fit.least_absolute import Line, blended, least_absolute
from model.training.network.assembly import build
from model.training.network.linear_inputs import RATES, inputs_of, set_calendar, unseen_calendar
from model.windows.index import WindowIndex, gather
from model.windows.scaler import Scaler

SMALL = Lstm(lstm_units=(4,), lstm_dropout=(0.0,), dense_units=(4,), dense_dropout=(0.0,), head_units=4)
HOUR, WEEKDAY = FEATURES.index("time_of_day"), FEATURES.index("day_of_week")
NOTHING = Line(np.zeros(3), 0.0)


def reader() -> keras.Model:
    """Return the model from windows to the inputs of the linear path."""
    model = build(SMALL)
    return keras.Model(model.input, model.get_layer("linear_inputs").output)


@pytest.fixture(scope="module")
def inputs() -> keras.Model:
    return reader()


def holed(rows: int, share: float, seed: int) -> Floats:
    """float32 (rows, 44), NaN in `share` of the places."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 44)).astype(np.float32)
    features[random.random(features.shape) < share] = np.nan
    return features


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.0, 0.97), seed=st.integers(0, 10_000))
def test_the_last_known_value_is_persistence(inputs: keras.Model, share: float, seed: int) -> None:
    """Wherever persistence knows a value in the window, the average of rate 1 is that value; elsewhere it is 0, the mean."""
    features = holed(64, share, seed)
    targets = features[:, :4]
    end = np.arange(29, 63)
    rows = inputs.predict_on_batch(gather(np.nan_to_num(features), end))
    last = rows[:, 44 : 44 + 4 * len(RATES)].reshape(len(end), 4, len(RATES))[:, :, 0]
    np.testing.assert_allclose(last, np.nan_to_num(persistence(targets, WindowIndex(end, end + 1))), rtol=1e-5, atol=1e-6)


def test_averages_are_the_baseline_s_over_the_window(inputs: keras.Model) -> None:
    """Of a run as long as a window they are, around holes, the exponentially weighted averages that the network is compared with, but for
    the weight of the first value, which fades from there on."""
    features = holed(30, 0.4, 5)
    features[0] = 0.0  # the baseline starts from its first value: without one both are weighted sums of the rest, up to one factor
    end = np.array([29])
    rows = inputs.predict_on_batch(gather(np.nan_to_num(features), end))[0, 44 : 44 + 4 * len(RATES)].reshape(4, len(RATES))
    known = np.isfinite(features[1:, :4])
    for at, rate in enumerate(RATES):
        one_run = OfflineFeatures(features, np.zeros(30, np.int64), np.full(30, np.nan), np.zeros((30, 0, 4), np.float32))
        expected = Ewma((rate,) * 4).forecast(features[:, :4], one_run, WindowIndex(end, end))[0]
        factor = 1.0 - (1.0 - rate) ** known.sum(axis=0)
        np.testing.assert_allclose(rows[:, at] * factor, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("hour", "weekday", "expected"),
    [
        (0.0, 0.0, {0: 1.0}),
        (23.5, 4.0, {23: 0.5, 0: 0.5}),
        (10.25, 5.0, {10: 0.75, 11: 0.25, 34: 0.75, 35: 0.25}),
        (9.0, 6.0, {9: 1.0, 33: 1.0}),
    ],
)
def test_the_calendar_is_a_daily_profile(hour: float, weekday: float, expected: dict[int, float]) -> None:
    """Hours are triangles that meet around midnight, and Saturday and Sunday have them a second time, whatever the scaler."""
    model = build(SMALL)
    scaler = Scaler(np.full(44, 11.5, np.float32), np.full(44, 7.0, np.float32), np.ones(44, np.bool_))
    set_calendar(model, scaler)
    row = np.zeros((1, 44), np.float32)
    row[0, [HOUR, WEEKDAY]] = hour, weekday
    window = np.repeat(scaler.transform(row)[:, None], 30, axis=1)
    profile = keras.Model(model.input, model.get_layer("calendar").output).predict_on_batch(window)[0]
    wanted = np.zeros(48)
    wanted[list(expected)] = list(expected.values())
    np.testing.assert_allclose(profile, wanted, atol=1e-5)


def test_a_silent_feature_silences_what_is_made_of_it() -> None:
    """A target's averages go with the target, the profile with the hour, and its weekend half with the weekday too."""
    columns = np.zeros(44, np.bool_)
    columns[[1, WEEKDAY]] = True
    silent = inputs_of(columns, 116)
    assert np.flatnonzero(silent).tolist() == [1, WEEKDAY, *range(50, 56), *range(92, 116)]


@pytest.mark.parametrize(
    ("minutes", "unseen"),
    [
        (range(0, 60 * 20, 5), "hour weekday"),
        (range(0, 60 * 24, 5), "weekday"),
        (range(0, 60 * 24 * 6, 120), "weekday"),
        (range(0, 60 * 24 * 7, 120), ""),
        (range(0, 60 * 24 * 7, 240), "hour"),
    ],
)
def test_a_calendar_that_was_not_seen_is_not_used(minutes: range, unseen: str) -> None:
    """With part of a day no line reads the hour, with part of a week none reads the weekday: it could only extrapolate."""
    scaler = Scaler(np.full(44, 11.5, np.float32), np.full(44, 7.0, np.float32), np.ones(44, np.bool_))
    at = np.array(minutes, np.float64)
    rows = np.zeros((len(at), 116), np.float32)
    rows[:, HOUR], rows[:, WEEKDAY] = (at / 60 % 24 - 11.5) / 7.0, (at // 1440 % 7 - 11.5) / 7.0
    columns = np.zeros(44, np.bool_)
    for name in ("time_of_day", "hour_sin", "hour_cos") if "hour" in unseen else ():
        columns[FEATURES.index(name)] = True
    for name in ("day_of_week", "weekday_sin", "weekday_cos") if "weekday" in unseen else ():
        columns[FEATURES.index(name)] = True
    np.testing.assert_array_equal(unseen_calendar(rows, scaler), inputs_of(columns, 116))


def test_tails_do_not_move_the_line() -> None:
    """One row in five is far off to one side: the line is of the others, which a mean would miss; a strong penalty keeps the base."""
    random = np.random.default_rng(1)
    rows = random.normal(size=(4_000, 3)).astype(np.float32)
    rows[:, 2] = 7.0  # constant: cannot be used
    wanted = 2.0 * rows[:, 0] - rows[:, 1] + 1.0 + 0.01 * random.normal(size=4_000)
    wanted[::5] += 50.0
    stiff, loose = least_absolute(rows, wanted, NOTHING, (1e-6, 1e6), np.ones(3, np.bool_))
    np.testing.assert_allclose(loose.kernel, [2.0, -1.0, 0.0], atol=0.01)
    assert loose.bias == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(stiff.kernel, 0.0, atol=1e-3)
    only = least_absolute(rows, wanted, NOTHING, (1e-6,), np.array([True, False, True]))[0]
    assert (only.kernel[0] != 0, only.kernel[1]) == (True, 0.0)


def test_a_blend_is_no_worse_than_its_best_part() -> None:
    """It holds on the rows on which it is chosen. Of two lines that err to opposite sides the blend is the middle."""
    rows = np.random.default_rng(2).normal(size=(500, 3))
    wanted = rows[:, 0]
    parts = [Line(np.array([1.0, 0.0, 0.0]), 0.5), Line(np.array([1.0, 0.0, 0.0]), -0.5), Line(np.array([0.0, 1.0, 0.0]), 0.0)]
    blend = blended(parts, rows, wanted)
    np.testing.assert_allclose(blend.kernel, [1.0, 0.0, 0.0])
    assert blend.bias == 0.0
    assert np.abs(blend.of(rows) - wanted).mean() <= min(np.abs(part.of(rows) - wanted).mean() for part in parts)
