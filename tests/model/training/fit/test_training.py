"""Training: missing targets, the start at Ridge, learning from there, repeatability, and when it ends."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from msgspec.structs import replace as resized

from features.telemetry import Floats
from model.judge.baselines import ridge
from model.spec.architecture import Architecture, Lstm
from model.spec.settings import TrainingSettings
from model.training.dataset import TrainingData
from model.training.fit.linear_path import correct_linear_path, forecast, start_linear_path, weigh_network
from model.training.fit.loop import History, masked_mae, next_row, shuffled_batches, train
from model.training.fit.progress import Progress
from model.training.network.assembly import build, inference_clone
from model.windows.index import WindowIndex, gather
from model.windows.scaler import Scaler

# One layer: tracing three costs 8 s a test, and nothing here depends on the depth.
SMALL = Lstm(
    lstm_units=(8,),
    lstm_dropout=(0.0,),
    recurrent_dropout=0.0,
    dense_units=(8,),
    dense_dropout=(0.0,),
    head_units=8,
    head_dropout=0.0,
)
UNSCALED = Scaler(np.zeros(44, np.float32), np.ones(44, np.float32), np.ones(44, np.bool_))
NONE_FRESH = np.zeros(4, np.bool_)
QUICK = TrainingSettings(epochs=2, batch_size=32)


def index_of(first_row: int, after_row: int) -> WindowIndex:
    """The windows whose targets are the rows first_row to after_row - 1."""
    target = np.arange(first_row, after_row)
    return WindowIndex(target - 1, target)


def toy(rows: int = 1_500) -> TrainingData:
    """Noise and a wave of 97 rows; the next throughput has the wave's square in it, which no linear path can see."""
    random = np.random.default_rng(5)
    features = np.zeros((rows, 44), np.float32)
    features[:, 0] = random.normal(size=rows)
    features[:, 1] = 1.4 * np.sin(2.0 * np.pi / 97.0 * np.arange(rows))
    targets = np.full((rows, 4), np.nan, np.float32)
    targets[1:, 0] = 0.5 * features[:-1, 0] + 2.0 * (features[:-1, 1] ** 2 - 1.0)
    targets[1:, 1] = features[:-1, 0]
    targets[::7, 1] = np.nan
    cut = rows * 4 // 5
    return TrainingData(features, targets, index_of(31, cut), index_of(cut + 30, rows))


def started(data: TrainingData, architecture: Architecture = SMALL, seed: int = 1) -> keras.Model:
    """A network that forecasts what its linear path does."""
    keras.utils.set_random_seed(seed)
    model = build(architecture)
    start_linear_path(model, data, UNSCALED, UNSCALED)
    return model


def ridge_mae(data: TrainingData) -> float:
    """Return the error of Ridge on the last row, on the validation windows."""
    kernel, bias = ridge(data.features[data.train.end], data.targets[data.train.target_row])
    errors = data.features[data.validation.end] @ kernel + bias - data.targets[data.validation.target_row]
    return float(np.nanmean(np.abs(errors)))


def validation_mae(model: keras.Model, data: TrainingData) -> float:
    return float(np.nanmean(np.abs(forecast(model, data, data.validation) - data.targets[data.validation.target_row])))


def trained(model: keras.Model, data: TrainingData, settings: TrainingSettings, learning_rate: float) -> History:
    """Train a network to forecast the next row."""
    return train(model, data, settings, silent, next_row(data, settings, learning_rate))


def silent(progress: Progress) -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize(
    ("targets", "forecasts", "loss"),
    [
        ([[1.0, 2.0]], [[0.0, 0.0]], 1.5),
        ([[1.0, np.nan]], [[0.0, 9.0]], 1.0),
        ([[np.nan, np.nan], [3.0, 1.0]], [[5.0, 5.0], [1.0, 1.0]], 1.0),
        ([[np.nan, np.nan]], [[5.0, 5.0]], 0.0),
    ],
)
def test_the_loss_is_the_mean_over_known_targets(targets: list[list[float]], forecasts: list[list[float]], loss: float) -> None:
    """A missing target counts neither in the sum nor in the number of targets."""
    assert float(masked_mae(tf.constant(targets), tf.constant(forecasts))) == pytest.approx(loss)


def test_a_missing_target_has_no_gradient() -> None:
    """The gradient of a missing target's forecast is exactly 0, and not NaN, beside targets that have one."""
    forecasts = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        loss = masked_mae(tf.constant([[0.0, np.nan], [np.nan, np.nan]]), forecasts)
    np.testing.assert_array_equal(tape.gradient(loss, forecasts), [[1.0, 0.0], [0.0, 0.0]])


def test_ridge_finds_a_linear_law_around_holes() -> None:
    """If the next row is a linear function of the last, the kernel is that function; a target never measured gets 0."""
    random = np.random.default_rng(2)
    features = random.normal(size=(4_000, 44)).astype(np.float32)
    features[:, 7] = 0.0  # constant, or never measured
    law = random.normal(size=(44, 4)).astype(np.float32)
    law[7] = 0.0
    targets = np.full((4_000, 4), np.nan, np.float32)
    targets[1:] = features[:-1] @ law + 0.5
    targets[random.random((4_000, 4)) < 0.3] = np.nan
    targets[:, 3] = np.nan
    kernel, bias = ridge(features[29:-1], targets[30:])
    np.testing.assert_allclose(kernel[:, :3], law[:, :3], atol=0.01)
    np.testing.assert_allclose(bias, [0.5, 0.5, 0.5, 0.0], atol=0.01)
    assert not kernel[:, 3].any()


def test_training_improves_on_the_linear_path() -> None:
    """The start is the linear path's validation error; what no linear path can express is learnt from there."""
    data = toy()
    model = started(data)
    linear = validation_mae(model, data)
    history = trained(model, data, msgspec.structs.replace(QUICK, epochs=4), 0.01)
    assert history.start_validation_loss == pytest.approx(linear, rel=1e-3)
    assert history.epochs[history.best_epoch - 1].validation_loss < 0.7 * history.start_validation_loss
    clone = inference_clone(model)  # a trained network, with its loss and optimiser, can be cloned for the export
    windows = gather(data.features, data.validation.end)
    np.testing.assert_allclose(clone.predict_on_batch(windows), model.predict_on_batch(windows), atol=1e-6)


def test_the_linear_path_is_not_trained() -> None:
    """Gradients leave the closed-form solution alone; the network learns what is left."""
    data = toy(400)
    model = started(data)
    before = model.get_layer("linear_path").get_weights()
    trained(model, data, msgspec.structs.replace(QUICK, patience=1), 0.01)
    for kept, now in zip(before, model.get_layer("linear_path").get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_a_changed_stream_is_followed_in_closed_form() -> None:
    """After a new level, scale and a target that is measured for the first time, one correction is as good as a fresh Ridge."""
    before = toy()
    before.targets[:, 2] = np.nan
    model = started(before)
    after = toy()
    after.targets[:, 1] = 3.0 - 0.5 * after.targets[:, 1]
    after.targets[1:, 2] = 2.0 * after.features[:-1, 1] + 1.0
    assert correct_linear_path(model, after, UNSCALED, UNSCALED, np.arange(4) == 2).tolist()[1:3] == [True, True]
    assert validation_mae(model, after) < 1.02 * ridge_mae(after)


def test_a_target_that_is_new_starts_as_in_a_first_version() -> None:
    """Even if the validation windows do not measure it yet, its forecast is a line through the training windows, and not their mean."""
    before = toy()
    before.targets[:, 2] = np.nan
    model = started(before)
    after = toy()
    after.targets[1:, 2] = 2.0 * after.features[:-1, 1] + 1.0
    wanted = after.targets[after.train.target_row, 2].copy()
    after.targets[after.validation.target_row, 2] = np.nan
    assert correct_linear_path(model, after, UNSCALED, UNSCALED, np.arange(4) == 2)[2]
    assert np.abs(forecast(model, after, after.train)[:, 2] - wanted).mean() < 0.2 * np.abs(wanted - np.median(wanted)).mean()


def test_a_correction_that_does_not_hold_later_is_left_out() -> None:
    """If the training windows mislead about the validation windows, that target keeps its parent's weights; another is corrected."""
    data = toy()
    model = started(data)
    old_kernel, _ = model.get_layer("linear_path").get_weights()
    misled = replace(data, targets=data.targets.copy())
    misled.targets[:1_200, 0] += 5.0
    misled.targets[:, 1] += 5.0
    assert correct_linear_path(model, misled, UNSCALED, UNSCALED, NONE_FRESH).tolist()[:2] == [False, True]
    kernel, bias = model.get_layer("linear_path").get_weights()
    np.testing.assert_array_equal(kernel[:, 0], old_kernel[:, 0])
    assert bias[1] == pytest.approx(5.0, abs=0.1)


def test_of_the_network_is_kept_what_helps_later() -> None:
    """Its addition is dropped for a target whose validation windows it makes worse or which they do not measure; the rest stays."""
    data = toy(600)
    data.targets[data.validation.target_row, 2] = np.nan
    model = started(data)
    layer = model.get_layer("nonlinear_output")
    layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.array([0.0, 5.0, 5.0, 0.0], np.float32)])
    data.targets[:, 0] += 2.0
    layer.set_weights([layer.get_weights()[0], np.array([2.0, 5.0, 5.0, 0.0], np.float32)])
    linear = validation_mae(started(data), data)
    assert weigh_network(model, data).tolist() == [1.0, 0.0, 0.0, 0.0]
    np.testing.assert_array_equal(layer.get_weights()[1], [2.0, 0.0, 0.0, 0.0])
    assert validation_mae(model, data) == pytest.approx(linear, rel=0.05)


def test_what_training_cannot_better_is_kept() -> None:
    """If every epoch makes it worse, the weights afterwards are the ones from before, batch normalisation included."""
    data = toy(400)
    model = started(data)
    before = [weight.copy() for weight in model.get_weights()]
    history = trained(model, data, QUICK, 10.0)
    assert history.best_epoch == 0
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_the_same_seed_gives_the_same_weights() -> None:
    """Initial weights, order of the windows and dropout all follow from the seed; another seed gives another network."""
    data = toy(400)
    dropping = resized(SMALL, lstm_dropout=(0.3,), recurrent_dropout=0.2, dense_dropout=(0.3,), head_dropout=0.2)

    def weights(seed: int) -> Floats:
        model = started(data, dropping, seed)
        trained(model, data, msgspec.structs.replace(QUICK, seed=seed), 0.001)
        return np.concatenate([weight.ravel() for weight in model.get_weights()])

    first = weights(3)
    np.testing.assert_array_equal(weights(3), first)
    assert np.abs(weights(4) - first).max() > 0


def test_a_target_that_was_never_measured_does_not_break_training() -> None:
    """Losses and weights stay finite with an empty target, an empty feature and one of which only a single value is known."""
    data = toy(400)
    data.targets[:, 2:] = np.nan
    data.targets[200, 2] = 1.0
    model = started(data)
    history = trained(model, data, QUICK, 0.001)
    assert all(np.isfinite([epoch.loss, epoch.validation_loss]).all() for epoch in history.epochs)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_validation_is_the_masked_error_over_all_windows() -> None:
    """The last batch is filled up for the compiler; the filling must not count. 7 windows of a batch of 32, and 33 of it."""
    data = toy(400)
    for windows in (7, 33):
        few = replace(data, validation=data.validation.select(np.arange(windows)))
        model = started(few)
        history = trained(model, few, msgspec.structs.replace(QUICK, epochs=1), 1e-9)
        assert history.start_validation_loss == pytest.approx(validation_mae(model, few), rel=1e-3)


def test_every_epoch_draws_windows_without_repeats() -> None:
    """Batches of one epoch hold different windows, epochs are ordered differently, and the seed decides both."""
    data = toy(400)
    data.features[:, 43] = np.arange(400)  # says which rows a window holds

    def epochs(seed: int) -> Floats:
        batches = shuffled_batches(data, next_row(data, QUICK, 0.001), 32, 4, seed)
        return np.array([[next(batches)[0][:, -1, 43] for _ in range(4)] for _ in range(2)]).reshape(2, 128)

    drawn = epochs(1)
    assert [len(set(epoch.tolist())) for epoch in drawn] == [128, 128]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], np.sort(drawn[0]))
    np.testing.assert_array_equal(epochs(1), drawn)
    assert not np.array_equal(epochs(2), drawn)


def test_a_batch_holds_the_rows_before_its_targets() -> None:
    """A window's last row is the one before its target: no window sees what it is to forecast."""
    data = toy(400)
    data.features[:, 43] = np.arange(400)
    data.targets[:, 3] = np.arange(400)
    windows, targets = next(shuffled_batches(data, next_row(data, QUICK, 0.001), 32, 4, 0))
    np.testing.assert_array_equal(windows[:, :, 43], targets[:, 3:4] + np.arange(-30, 0))


def test_early_stopping_after_patience() -> None:
    """Training ends once `patience` epochs in a row were no better."""
    history = trained(started(toy(400)), toy(400), msgspec.structs.replace(QUICK, epochs=50, patience=2), 10.0)
    assert (history.stopped, len(history.epochs), history.best_epoch) == ("no_better_epoch", 2, 0)


def test_a_loss_that_creeps_on_is_no_gain() -> None:
    """Improvements of millionths keep the better weights, and no training going."""
    history = trained(started(toy(400)), toy(400), msgspec.structs.replace(QUICK, epochs=50, patience=2), 1e-8)
    assert (history.stopped, len(history.epochs)) == ("no_better_epoch", 2)


def test_a_spent_time_budget_ends_the_training() -> None:
    """With no time left the first step is the last one; its weights are still validated, and kept or dropped."""
    history = trained(started(toy(400)), toy(400), msgspec.structs.replace(QUICK, epochs=50, time_budget_s=1e-9), 0.001)
    assert (history.stopped, len(history.epochs)) == ("time_budget", 1)
    assert np.isfinite(history.epochs[0].validation_loss)


def test_progress_and_log_tell_every_epoch(tmp_path: Path) -> None:
    """Progress starts before the first step, reaches the last one, and the CSV has a line for each epoch."""
    seen: list[Progress] = []
    data = toy(400)
    settings = msgspec.structs.replace(QUICK, epochs=3)
    history = train(started(data), data, settings, seen.append, next_row(data, settings, 0.001), log_path=tmp_path / "log.csv")
    assert (seen[0].step, seen[-1].step, seen[-1].epoch, seen[-1].left_s) == (0, seen[-1].steps, 3, 0.0)
    assert seen[-1].validation_loss == history.epochs[-1].validation_loss
    with (tmp_path / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert float(lines[2]["loss"]) == pytest.approx(history.epochs[2].loss, rel=1e-6)


def test_nothing_to_train_on_is_refused() -> None:
    """An empty part is named with its counts."""
    data = toy(400)
    empty = data.validation.select(np.arange(0))
    with pytest.raises(ValueError, match=r"0 validation windows"):
        trained(started(data), replace(data, validation=empty), QUICK, 0.001)
