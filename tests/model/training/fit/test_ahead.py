"""Training of the network of several horizons: its loss, its units, what is taken of it, and how wide its intervals become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from features.telemetry import TARGETS, Floats
from model.spec.architecture import Ahead, Relative
from model.spec.job import plain
from model.training.dataset import Dataset, TrainingData, prepare
from model.training.fit.ahead import QUANTILE_WEIGHT, SHORT_ROWS, ahead_task, fit_usual, outputs_of, quantile_loss
from model.training.fit.blend import KNOWN_MIN, STRETCH_MOST, _usual, _widen_unreached, blend, mean_of, stretch_of
from model.training.fit.start import Fit, start
from model.training.graph.core import save_weights
from model.training.network.ahead import BLEND, MEMBERS
from model.training.network.relative import COLUMNS, RELATIVE
from model.training.run import ahead_of, forecasts_of
from model.version.contract import AHEAD
from model.version.metadata import Metadata
from model.version.possible import unscaled_ahead
from model.windows.index import NONE, targets_at
from testkit.ahead import HORIZONS, QUICK, TINY, Telemetry, prepared, trained

THROUGHPUT, RTT, LOSS, JITTER = range(len(TARGETS))
PARENT = "v20260101_000000"
NAN = np.nan


# The loss


def loss_of(y_true: Any, y_pred: Any, usual: Any, coverage: float = 0.9) -> float:
    loss = quantile_loss(np.array(usual, np.float32), coverage)
    return float(loss(tf.constant(np.array(y_true, np.float32)), tf.constant(np.array(y_pred, np.float32))))


def test_the_loss_by_hand() -> None:
    """Two members, two horizons and four targets, of which three pairs are known."""
    y_true = [[[1.0, NAN, NAN, NAN], [5.0, 2.0, NAN, NAN]]]
    y_pred = np.zeros((2, 1, 2, 4, 3))
    y_pred[:, 0, 0, 0] = [[0.5, 1.5, 2.0], [2.0, 3.0, 4.0]]  # inside; below the lower one by 1
    y_pred[:, 0, 1, 0] = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]  # above the upper one by 2; exact
    y_pred[:, 0, 1, 1] = 2.0
    usual = [[1.0, 1.0, 1.0, 1.0], [2.0, 4.0, 1.0, 1.0]]
    tail, weight = 0.05, 2 * QUANTILE_WEIGHT

    def pair(actual: float, lower: float, median: float, upper: float) -> float:
        outer = sum(max(q * (actual - found), (q - 1) * (actual - found)) for q, found in ((tail, lower), (1 - tail, upper)))
        return abs(actual - median) + weight * outer

    expected = (
        (pair(1, 0.5, 1.5, 2) + pair(1, 2, 3, 4)) / 2 / 1 + (pair(5, 1, 2, 3) + pair(5, 4, 5, 6)) / 2 / 2 + pair(2, 2, 2, 2) / 4
    ) / 3
    assert loss_of(y_true, y_pred, usual) == pytest.approx(expected, rel=1e-5)


def test_what_is_missing_has_neither_loss_nor_gradient() -> None:
    """No NaN either, though forecasts of it are huge; and a batch in which nothing is known costs nothing."""
    forecasts = tf.Variable(np.full((2, 3, 2, 4, 3), 1e20, np.float32))
    y_true = np.full((3, 2, 4), NAN, np.float32)
    loss = quantile_loss(np.ones((2, 4), np.float32), 0.9)
    with tf.GradientTape() as tape:
        nothing = loss(tf.constant(y_true), forecasts)
    assert float(nothing) == 0.0
    assert not np.any(tape.gradient(nothing, forecasts).numpy())
    y_true[1, 1, 2] = 0.0
    with tf.GradientTape() as tape:
        one = loss(tf.constant(y_true), forecasts)
    gradient = tape.gradient(one, forecasts).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any(axis=(0, 4)).sum() == 1


def test_the_quantiles_are_what_the_loss_is_smallest_at() -> None:
    """Of a thousand values, the forecasts that cost least are their .05, .5 and .95 quantiles."""
    values = np.random.default_rng(0).exponential(size=(1_000, 1, 1)).astype(np.float32).repeat(4, axis=2)
    grid = np.linspace(0, 5, 101)

    def best(place: int) -> float:
        def cost(at: float) -> float:
            forecast = np.quantile(values, [0.05, 0.5, 0.95])
            forecast[place] = at
            return loss_of(values, np.broadcast_to(forecast, (1, 1_000, 1, 4, 3)), np.ones((1, 4)))

        return float(min(grid, key=cost))

    for place, share in enumerate((0.05, 0.5, 0.95)):
        assert best(place) == pytest.approx(np.quantile(values, share), abs=0.1)


# Intervals


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_stretched_intervals_hold_for_new_values(coverage: float) -> None:
    """With half of what lies outside on each side, though the values are skewed and the widths were a third and thrice of what they
    should be."""
    random = np.random.default_rng(3)
    forecasts = np.tile(np.array([-0.5, 0.0, 6.0], np.float32), (40_000, 1))
    stretch = np.ones(2, np.float32)
    stretch_of(forecasts, random.gumbel(size=40_000).astype(np.float32), coverage, stretch)
    new = random.gumbel(size=40_000)
    below, above = new < -0.5 * stretch[0], new > 6.0 * stretch[1]
    assert below.mean() == pytest.approx((1 - coverage) / 2, abs=0.01)
    assert above.mean() == pytest.approx((1 - coverage) / 2, abs=0.01)


def test_few_values_stretch_by_more_than_their_quantile() -> None:
    """A quantile of 40 values misses more than a twentieth of new ones, on average; the rank for finite samples does not."""
    random = np.random.default_rng(5)
    missed, plain_missed = [], []
    for _ in range(1_000):
        values = np.abs(random.normal(size=40)).astype(np.float32)
        stretch = np.ones(2, np.float32)
        stretch_of(np.tile(np.array([-1, 0, 1], np.float32), (40, 1)), values, 0.9, stretch)
        new = np.abs(random.normal(size=200))
        missed.append((new > stretch[1]).mean())
        plain_missed.append((new > np.quantile(values, 0.95)).mean())
    assert np.mean(missed) < 0.0515 < 0.06 < np.mean(plain_missed)


def test_few_known_values_leave_a_stretch_as_it_is() -> None:
    """One short of KNOWN_MIN is not enough, that many are; what is not measured does not count, and a forecast that is missing neither."""
    stretch = np.array([3.0, 4.0], np.float32)
    forecasts = np.tile(np.array([-1, 0, 1], np.float32), (50, 1))
    actual = np.full(50, NAN, np.float32)
    actual[:KNOWN_MIN] = 0.5
    missing = forecasts.copy()
    missing[0] = NAN
    stretch_of(missing, actual, 0.9, stretch)
    assert stretch.tolist() == [3.0, 4.0]
    stretch_of(forecasts, actual, 0.9, stretch)
    assert stretch.tolist() == [0.0, 0.5]


def test_a_stretch_is_bounded() -> None:
    """Widths of next to nothing are not stretched without end, and none becomes negative."""
    stretch = np.ones(2, np.float32)
    stretch_of(np.zeros((100, 3), np.float32), np.full(100, 5.0, np.float32), 0.9, stretch)
    assert stretch.tolist() == [0.0, STRETCH_MOST]


# What is taken of the network


def set_mean(forecasts: Floats, simple: Floats, actual: Floats, stretch: tuple[float, float] = (1.0, 1.0)) -> tuple[Floats, Floats]:
    skew, toward = np.full(2, 0.7, np.float32), np.full(simple.shape[1], 0.7, np.float32)
    mean_of(forecasts, simple, actual, np.array(stretch, np.float32), skew, toward)
    return skew, toward


def test_the_mean_of_a_skewed_target_lies_above_its_median() -> None:
    """Of exponential values: (1 - ln 2) / (ln 20 - ln 2) = .13 of the upper width, in steps of .1, less some of the lower one."""
    random = np.random.default_rng(1)
    size = random.uniform(1.0, 9.0, 20_000)
    actual = (size * random.exponential(size=20_000)).astype(np.float32)
    forecasts = (size[:, None] * -np.log(1.0 - np.array([0.05, 0.5, 0.95, 0.5]))).astype(np.float32)
    skew, _ = set_mean(forecasts, forecasts[:, 1:2], actual)
    above, below = np.log(10.0), np.log(2.0) + np.log(0.95)
    assert skew[1] * above - skew[0] * below == pytest.approx(1.0 - np.log(2.0), abs=0.07)
    half = forecasts.copy()
    half[:, 2] = 0.5 * (half[:, 1] + half[:, 2])
    np.testing.assert_array_equal(set_mean(half, forecasts[:, 1:2], actual, (1.0, 2.0))[0], skew), "shares are of the stretched widths"


def test_the_mean_of_rare_bursts_is_that_of_an_average() -> None:
    """Bursts in 3 % of the rows: median and both bounds are 0, and only an average that knows them has the mean."""
    random = np.random.default_rng(2)
    rate = np.where(np.arange(20_000) < 10_000, 0.01, 0.05)
    actual = (random.random(20_000) < rate).astype(np.float32)
    other = np.full(20_000, 0.5)
    _, toward = set_mean(np.zeros((20_000, 4), np.float32), np.stack([other, rate], axis=1).astype(np.float32), actual)
    assert toward[0] == 0.0
    assert toward[1] >= 0.8
    alike, _ = set_mean(np.zeros((20_000, 4), np.float32), np.full((20_000, 1), 0.5, np.float32), np.zeros(20_000, np.float32))
    np.testing.assert_array_equal(alike, 0.0)


def test_a_horizon_that_is_not_reached_is_as_wide_as_the_furthest_that_is() -> None:
    """Its own widths were never trained: 2 below and 1 above become the 6 and 5 of the horizon before it."""
    forecasts = np.zeros((10, 3, 4), np.float32)
    forecasts[:, 0, :3], forecasts[:, 1, :3], forecasts[:, 2, :3] = [-1, 0, 1], [-3, 0, 5], [-2, 0, 1]
    forecasts[3] = NAN
    stretch = np.array([[1, 1], [2, 1], [1, 1]], np.float32)
    _widen_unreached(forecasts, [True, True, False], stretch)
    assert stretch.tolist() == [[1, 1], [2, 1], [3, 5]]
    _widen_unreached(forecasts, [False, False, False], stretch)
    assert stretch.tolist() == [[1, 1], [2, 1], [3, 5]]


def test_the_mean_is_fitted_to_what_the_graph_computes() -> None:
    """Forecasts before their bounds, as the blend moves them; windows that the bounds hold back by more than a deviation are left out."""
    forecasts, bounded = np.zeros((3, 1, 1, 4), np.float32), np.zeros((3, 1, 1, 4), np.float32)
    forecasts[:, 0, 0, 0], forecasts[1, 0, 0, 1], forecasts[2, 0, 0, 1] = -5.0, -0.5, -1.5
    found = _usual(forecasts, bounded)[:, 0, 0]
    np.testing.assert_array_equal(found[:2], forecasts[:2, 0, 0])
    assert np.isnan(found[2]).all()


def test_the_mean_stays_where_little_is_known() -> None:
    actual = np.full(100, NAN, np.float32)
    actual[: KNOWN_MIN - 1] = 5.0
    skew, toward = set_mean(np.zeros((100, 4), np.float32), np.ones((100, 1), np.float32), actual)
    assert (skew.tolist(), toward.tolist()) == (pytest.approx([0.7, 0.7]), pytest.approx([0.7]))
    actual[KNOWN_MIN - 1] = 5.0
    np.testing.assert_array_equal(set_mean(np.zeros((100, 4), np.float32), np.ones((100, 1), np.float32), actual)[1], 1.0)


ONE = Relative(ahead=Ahead(horizons=(1,), units=(), members=1))


def started_with(bias: float) -> tuple[Dataset, keras.Model]:
    """A network that forecasts the level and so many usual distances above it."""
    dataset = prepared(Telemetry(jitter=True).table(), (1,))
    keras.utils.set_random_seed(1)
    model, _ = start(dataset, ONE)
    kernel, _ = model.get_layer("ahead_linear").get_weights()
    model.get_layer("ahead_linear").set_weights([kernel, np.full(4, bias, np.float32)])
    return dataset, model


def medians(model: keras.Model, data: TrainingData, name: str) -> Floats:
    """Return (M, H, 4) for the training and the validation windows."""
    part = keras.Model(model.inputs, model.get_layer(name).output)
    found = outputs_of(part, data, data.train.joined(data.validation))
    return (found.mean(axis=0) if found.ndim == 5 else found)[..., 1]


def test_a_network_that_is_right_is_taken_alone() -> None:
    """If it forecasts exactly what comes, its share is 1 and its gain all of the error."""
    dataset, model = started_with(2.0)
    data = dataset.data
    both = data.train.joined(data.validation)
    targets = data.targets.copy()
    targets[both.ahead[:, 0]] = medians(model, data, MEMBERS)[:, 0]
    blended = blend(model, replace(data, targets=targets), 0.9)
    np.testing.assert_array_equal(blended.share, 1.0)
    np.testing.assert_allclose(blended.gain, 1.0, atol=1e-3)


def test_a_network_that_is_wrong_is_left_out() -> None:
    """It is replaced by what forecasts best of the averages, the profile and the linear path, for each target."""
    dataset, model = started_with(300.0)
    data = dataset.data
    blended = blend(model, data, 0.9)
    np.testing.assert_array_equal(blended.share, 0.0)
    assert (blended.gain < -10).all()
    part = keras.Model(model.inputs, model.get_layer(RELATIVE).output)
    _, level, _, steady, _ = outputs_of(part, data, data.validation)
    actual = targets_at(data.targets, data.validation.ahead)[:, 0]
    made = medians(model, data, BLEND)[len(data.train) :, 0]
    for simple in (level, *np.moveaxis(steady, -1, 0)):
        assert (np.nanmean(np.abs(made - actual), axis=0) <= np.nanmean(np.abs(simple - actual), axis=0) * (1 + 1e-5)).all()


def test_intervals_hold_on_the_validation_windows() -> None:
    """Whatever the widths of the network were: what is measured lies within them as often as was asked for."""
    dataset, model = started_with(0.0)
    data = dataset.data
    blend(model, data, 0.8)
    found = outputs_of(keras.Model(model.inputs, model.get_layer(AHEAD).output), data, data.validation)
    actual = targets_at(data.targets, data.validation.ahead)
    inside = (actual >= found[..., 0] - 1e-5) & (actual <= found[..., 2] + 1e-5)
    coverage = [inside[np.isfinite(actual[:, 0, target]), 0, target].mean() for target in range(4)]
    assert np.mean(coverage) == pytest.approx(0.8, abs=0.08)
    assert min(coverage) > 0.7


def test_a_target_that_no_window_measures_keeps_what_it_had() -> None:
    """Its share, choice and widths stay, and its gain is not known; the others are chosen."""
    dataset, model = started_with(300.0)
    targets = dataset.data.targets.copy()
    targets[:, RTT] = NAN
    before = [weight[:, RTT].tolist() for weight in model.get_layer(BLEND).get_weights()]
    blended = blend(model, replace(dataset.data, targets=targets), 0.9)
    assert [weight[:, RTT].tolist() for weight in model.get_layer(BLEND).get_weights()] == before
    assert np.isnan(blended.gain).tolist() == [[False, True, False, False]]


def test_few_validation_windows_choose_nothing() -> None:
    """With fewer than KNOWN_MIN of a target the training windows choose: two lucky rows are no evidence."""
    dataset, model = started_with(300.0)
    data = dataset.data
    targets = data.targets.copy()
    rows = data.validation.ahead[:, 0]
    lucky = medians(model, data, MEMBERS)[len(data.train) :, 0]
    targets[rows] = lucky
    targets[rows[2:]] = NAN
    np.testing.assert_array_equal(blend(model, replace(data, targets=targets), 0.9).share, 0.0)


# Units


def usual_of(model: keras.Model) -> Floats:
    (usual,) = model.get_layer(MEMBERS).get_weights()
    return np.asarray(usual, np.float32)


def test_a_link_that_hardly_varies_does_not_set_the_units() -> None:
    """One link is constant for hours and then jumps: a million of its spreads, and a usual distance for the others all the same."""
    table = Telemetry(size=(1.0, 1.0, 1.0)).table()
    still = table.link == 0
    table.numeric[still, :3] = (100.0, 10.0, 0.0)
    table.numeric[np.flatnonzero(still)[150:], 0] = 100.1
    dataset = prepared(table)
    model, _ = start(dataset, TINY)
    usual = usual_of(model)
    assert np.isfinite(usual).all()
    assert (usual[:, :JITTER] > 0.3).all()
    assert (usual[:, :JITTER] < 10).all()
    np.testing.assert_array_equal(usual[:, JITTER], 1.0)


def test_a_recording_that_never_varies_has_units_all_the_same() -> None:
    """All links are constant: no unit is 0 or without end, and the forecast is the constant."""
    table = Telemetry().table()
    table.numeric[:, :3] = (100.0, 10.0, 0.0)
    dataset = prepared(table)
    model, _ = start(dataset, TINY)
    fit_usual(model, dataset.data)
    assert np.isfinite(usual_of(model)).all()
    blended = blend(model, dataset.data, 0.9)
    found = ahead_of(Fit(model, TINY, "linear", None, np.ones(4, np.float32), 0.0, None, blended), dataset, dataset.judged)  # type: ignore[arg-type]
    assert found is not None
    np.testing.assert_allclose(found[:, :, 0], 100.0, rtol=1e-3)
    np.testing.assert_allclose(found[:, :, LOSS], 0.0, atol=1e-6)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metadata, Dataset, keras.Model]:
    """A folder with the weights of a network that has never seen jitter, and its metadata."""
    folder = tmp_path_factory.mktemp("parent")
    dataset, fitted = trained()
    save_weights(fitted.model, folder)
    metadata = Metadata(
        PARENT, dataset.inputs, dataset.outputs, dataset.vocabulary, dataset.trained_until_s, measured=np.arange(4) < JITTER,
        extra={"architecture": plain(TINY)}, horizons=HORIZONS, coverage=0.9,
    )  # fmt: skip
    return folder, metadata, dataset, fitted.model


def continued(parent: tuple[Path, Metadata, Dataset, keras.Model], telemetry: Telemetry) -> tuple[Dataset, keras.Model, str]:
    """Return a fine-tuning before its first step."""
    from model.training.dataset import LastOfEachLink

    folder, metadata, _, _ = parent
    dataset = prepare(telemetry.table(), LastOfEachLink(), 5.0, metadata, HORIZONS)
    return (dataset, *start(dataset, TINY, metadata, folder))


def test_a_fine_tuning_keeps_its_parents_units(parent: tuple[Path, Metadata, Dataset, keras.Model]) -> None:
    """Columns, horizons and scales are the parent's, though the new links are ten times as large; what is new is fitted."""
    dataset, model, started_from = continued(parent, Telemetry(size=(10.0, 30.0), jitter=True, seed=9))
    assert started_from == PARENT
    (before,), (after,) = (each.get_layer(COLUMNS).get_weights() for each in (parent[3], model))
    known = before[1] != 0
    np.testing.assert_array_equal(after[:, known], before[:, known])
    assert (after[1, ~known] != 0).sum() > 20, "jitter's columns vary now"
    np.testing.assert_array_equal(usual_of(model)[:, :JITTER], usual_of(parent[3])[:, :JITTER])
    assert (usual_of(parent[3])[:, JITTER] == 1.0).all()
    assert (usual_of(model)[:, JITTER] != 1.0).all(), "jitter is measured now, and its distances are known"
    np.testing.assert_array_equal(dataset.outputs.mean[:JITTER], parent[1].outputs.mean[:JITTER])
    for name in ("ahead_linear", "ahead_dense_1", "ahead_median", "ahead_width", BLEND):
        for old, new in zip(parent[3].get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(new, old, err_msg=name)


def test_columns_that_come_alive_do_not_spoil_a_fine_tuning(parent: tuple[Path, Metadata, Dataset, keras.Model]) -> None:
    """Before its first step it forecasts the targets that its parent knows as the parent does: jitter and its columns are new, and have no
    weights yet."""
    dataset, model, _ = continued(parent, Telemetry(jitter=True))
    theirs = keras.Model.from_config(parent[3].get_config())
    theirs.set_weights(parent[3].get_weights())
    _, bias = theirs.get_layer("ahead_median").get_weights()
    kernel = np.random.default_rng(0).normal(size=theirs.get_layer("ahead_median").get_weights()[0].shape)
    found = []
    for each in (model, theirs):
        each.get_layer("ahead_median").set_weights([kernel, bias])  # as after a long training
        part = keras.Model(each.inputs, each.get_layer(MEMBERS).output)
        found.append(outputs_of(part, dataset.data, dataset.judged)[..., :JITTER, :])
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


# The training


def test_training_improves_on_the_start() -> None:
    """The validation loss falls, the epochs are logged, and the forecasts are those of a network with all its parts."""
    dataset, fitted = trained()
    assert fitted.ahead.best_epoch >= 1
    assert fitted.ahead.epochs[fitted.ahead.best_epoch - 1].validation_loss < fitted.ahead.start_validation_loss
    assert fitted.blended.share.shape == fitted.blended.gain.shape == (len(HORIZONS), 4)
    assert np.isnan(fitted.blended.gain).tolist() == [[False, False, False, True]] * len(HORIZONS)
    assert np.isfinite(forecasts_of(fitted, dataset, dataset.judged)["network"][:, :JITTER]).all()


def test_the_same_seed_gives_the_same_weights() -> None:
    """First weights, order, cut windows, forgotten contexts and dropout all follow from it."""
    first, again = trained(), trained.__wrapped__()
    for one, other in zip(first[1].model.get_weights(), again[1].model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_windows_are_cut_short_and_contexts_forgotten_in_training_alone() -> None:
    """Some begin later, with at least SHORT_ROWS rows, as the rows before a run look; validation sees all windows as they are."""
    dataset, fitted = trained()
    data = dataset.data
    task = ahead_task(fitted.model, data, TINY.ahead, QUICK, fine_tuned=False)
    (windows, context), targets = task.batch(data.train, True)
    whole, known = data.windows(data.train), data.context[data.train.end]
    changed = (windows != whole).any(axis=2)
    cut = changed.any(axis=1)
    assert 0.05 < cut.mean() < 0.3
    for window, shown in zip(windows[cut], whole[cut], strict=True):
        first = int(np.flatnonzero((window != data.empty).any(axis=1))[0])
        np.testing.assert_array_equal(window[first:], shown[first:])
        assert len(window) - first >= SHORT_ROWS
    forgotten = np.isnan(context).all(axis=1)
    assert 0.03 < forgotten.mean() < 0.25
    np.testing.assert_array_equal(context[~forgotten], known[~forgotten])
    np.testing.assert_array_equal(targets, targets_at(data.targets, data.train.ahead))
    (windows, context), _ = task.batch(data.validation, False)
    np.testing.assert_array_equal(windows, data.windows(data.validation))
    np.testing.assert_array_equal(context, data.context[data.validation.end])
    assert (data.train.ahead == NONE).any(), "so that missing targets are among them"


# Bounds


def test_bounds_leave_room_for_what_comes_further_ahead() -> None:
    """A link that is at 10 for a while and then at 100: the next row is hardly ever the other level, but the row 40 rows ahead often is.
    No more than a few of all targets may lie outside of what can be forecast, at any horizon; what was never seen stays out."""
    horizons = (1, 5, 40)
    table = Telemetry(rows=2_000, size=(1.0,)).table()
    level = np.where(np.arange(2_000) // 110 % 2 == 0, 10.0, 100.0)
    table.numeric[:, 0] = level
    table.numeric[:, LOSS] = np.where(level == 10.0, 0.0, 0.02)
    dataset = prepared(table, horizons)
    data, architecture = dataset.data, Relative(ahead=Ahead(horizons=horizons, units=(), members=1))
    model, _ = start(dataset, architecture)
    actual = dataset.targets[np.maximum(data.train.ahead, 0)]
    actual[data.train.ahead == NONE] = NAN
    windows = tf.constant(data.windows(data.train))
    shape = (len(data.train), len(horizons), 4, 4)
    lowest, highest = (
        unscaled_ahead(model.get_layer(AHEAD)(windows, tf.fill(shape, sign * np.float32(1e9))).numpy(), dataset.outputs)[..., 1]
        for sign in (-1, 1)
    )
    for target in (THROUGHPUT, LOSS):
        known = np.isfinite(actual[:, :, target])
        outside = (actual[:, :, target] < lowest[:, :, target] * (1 - 1e-4)) | (actual[:, :, target] > highest[:, :, target] * (1 + 1e-4))
        assert ((outside & known).sum(axis=0) / known.sum(axis=0) < 0.02).all()
    assert highest[:, :, THROUGHPUT].max() <= 3 * 100.0 * (1 + 1e-4)
    assert (lowest >= 0)[:, :, :JITTER].all()
