"""The fused LSTM layer: Keras's numbers without dropout, its regularisation with it, and a network that stays one of plain layers."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from msgspec.structs import replace as resized

from features.telemetry import Floats
from model.spec.architecture import Lstm
from model.spec.settings import TrainingSettings
from model.training.dataset import TrainingData
from model.training.fit.loop import next_row, train
from model.training.graph.core import export_core, load_weights, save_weights
from model.training.network.assembly import build
from model.training.network.fused_lstm import FusedLSTM, fits, fused_twin
from model.windows.index import WindowIndex

SMALL = Lstm(lstm_units=(6, 5), lstm_dropout=(0.3, 0.2), dense_units=(8,), dense_dropout=(0.3,), head_units=8)
STILL = resized(SMALL, lstm_dropout=(0.0, 0.0), recurrent_dropout=0.0, dense_dropout=(0.0,), head_dropout=0.0)


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pair(units: int, inputs: int, **dropout: float) -> tuple[keras.layers.LSTM, FusedLSTM]:
    """A Keras layer and a fused one with the same weights, none of them zero."""
    layers = (keras.layers.LSTM(units, return_sequences=True, **dropout), FusedLSTM(units, return_sequences=True, **dropout))
    for layer in layers:
        layer.build((None, 30, inputs))
    layers[1].set_weights([weight + 0.3 * normal(*weight.shape, seed=7) for weight in layers[0].get_weights()])
    layers[0].set_weights(layers[1].get_weights())
    return layers


def outputs_and_gradients(layer: keras.layers.Layer, x: Floats, weights: Floats) -> list[Floats]:
    """The forecast, and the gradients of its weighted sum by input, kernel, recurrent kernel and bias."""
    sequences = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(sequences)
        y = layer(sequences, training=True)
        loss = tf.reduce_sum(y * weights)
    return [y.numpy(), *(part.numpy() for part in tape.gradient(loss, [sequences, *(v.value for v in layer.trainable_weights)]))]


@pytest.mark.parametrize(("windows", "units", "inputs", "scale"), [(5, 6, 7, 1.0), (1, 1, 3, 1.0), (3, 8, 2, 20.0)])
def test_without_dropout_forecast_and_gradients_are_those_of_keras(windows: int, units: int, inputs: int, scale: float) -> None:
    """To 1e-5, relative where over 1; also with inputs so large that gates saturate and the cell state leaves -3 to 3."""
    ours, theirs = (
        outputs_and_gradients(layer, scale * normal(windows, 30, inputs), normal(windows, 30, units, seed=1))
        for layer in reversed(pair(units, inputs))
    )
    for got, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(wanted).max()))


def test_dropout_gradients_are_those_of_the_masks_that_were_drawn() -> None:
    """Finite differences confirm them: with the seed set back, each call draws the same masks, and the loss follows its gradient."""
    layer = FusedLSTM(4, return_sequences=True, dropout=0.3, recurrent_dropout=0.4)
    layer.build((None, 30, 3))
    drawn, x, weights = layer.cell.seed_generator.state.numpy(), normal(2, 30, 3), normal(2, 30, 4, seed=1)

    def loss(kernel: Floats) -> float:
        layer.cell.seed_generator.state.assign(drawn)
        layer.set_weights([kernel_in, kernel, bias])
        return float(tf.reduce_sum(tf.cast(layer(x, training=True), tf.float64) * weights))

    kernel_in, recurrent, bias = layer.get_weights()
    _, _, _, gradient, _ = outputs_and_gradients(layer, x, weights)
    direction = normal(*recurrent.shape, seed=2)
    step = 1e-2
    slope = (loss(recurrent + step * direction) - loss(recurrent - step * direction)) / (2 * step)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.02, abs=0.02)


def test_a_mask_holds_for_all_steps_of_a_window_and_keeps_the_expectation() -> None:
    """An input is dropped at every step or at none, by window; what is kept is scaled so that the mean stays."""
    layer = FusedLSTM(1, return_sequences=True, dropout=0.25)
    masks = layer._mask(4_000, 8, 0.25).numpy()
    assert set(np.unique(masks).round(4)) == {0.0, np.float32(1.3333)}
    assert masks.mean() == pytest.approx(1.0, abs=0.02)
    layer.build((None, 30, 1))
    layer.set_weights([np.array([[0.0, 0.0, 5.0, 0.0]], np.float32), np.zeros((1, 4), np.float32), np.zeros(4, np.float32)])
    moved = layer(np.ones((400, 30, 1), np.float32), training=True).numpy()[:, :, 0] != 0.0
    assert (moved.all(axis=1) | ~moved.any(axis=1)).all()
    assert 0.65 < moved[:, 0].mean() < 0.85


def test_inference_has_no_dropout() -> None:
    """The validation loss is that of the network which will be exported."""
    keras_layer, fused = pair(6, 7, dropout=0.3, recurrent_dropout=0.2)
    x = normal(5, 30, 7)
    np.testing.assert_allclose(fused(x, training=False), keras_layer(x, training=False), atol=1e-6)
    assert np.abs(fused(x, training=True).numpy() - fused(x, training=False).numpy()).max() > 0.01


def test_the_twin_takes_over_and_gives_back_every_weight() -> None:
    """Both networks forecast the same, and the order of the weights is one."""
    model = build(SMALL)
    model.set_weights([weight + 0.05 * np.abs(normal(*weight.shape)) for weight in model.get_weights()])
    twin = fused_twin(model)
    assert sum(isinstance(layer, FusedLSTM) for layer in twin.layers) == 2
    assert [weight.shape for weight in twin.trainable_weights] == [weight.shape for weight in model.trainable_weights]
    windows = normal(8, 30, 44)
    np.testing.assert_allclose(twin.predict_on_batch(windows), model.predict_on_batch(windows), atol=1e-5)


def test_a_step_of_the_twin_is_a_step_of_keras() -> None:
    """Without dropout, after one step of plain gradient descent, all weights agree to 1e-5: penalty and batch normalisation too."""
    model = build(STILL)
    twin = fused_twin(model)
    for network in (model, twin):
        network.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
        network.train_on_batch(normal(16, 30, 44), normal(16, 4, seed=1))
    for wanted, got in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_other_lstm_layers_are_left_as_they_are() -> None:
    """A layer that the fused cell cannot compute is left alone."""
    assert fits(keras.layers.LSTM(3, return_sequences=True).get_config())
    for other in ({"activation": "relu"}, {"use_bias": False}, {"return_sequences": False}, {"go_backwards": True}):
        assert not fits(keras.layers.LSTM(3, **({"return_sequences": True} | other)).get_config())
    inputs = keras.Input((30, 44))
    plain = keras.Model(inputs, keras.layers.LSTM(3)(inputs))
    assert not any(isinstance(layer, FusedLSTM) for layer in fused_twin(plain).layers)


def test_a_start_other_than_zero_is_refused() -> None:
    """The layer has no place for it, and says so."""
    layer = FusedLSTM(3, return_sequences=True)
    with pytest.raises(ValueError, match="initial state"):
        layer(normal(2, 30, 4), initial_state=[np.zeros((2, 3), np.float32)] * 2)


def test_a_trained_network_is_saved_and_exported_as_plain_keras(tmp_path: Path) -> None:
    """best_model.keras loads with keras.layers.LSTM, and the graph has one LSTM operator for each, with the trained numbers."""
    model, end = build(SMALL), np.arange(30, 200)
    index = WindowIndex(end, end + 1)
    data = TrainingData(normal(300, 44), normal(300, 4, seed=1), index, index)
    settings = TrainingSettings(epochs=1, batch_size=32)
    train(model, data, settings, lambda _: None, next_row(data, settings, 0.001))
    assert export_core(model, tmp_path, "v20260102_030405", normal(4, 30, 44)) <= 1e-5  # refuses a graph without the LSTM operators
    save_weights(model, tmp_path)
    loaded = load_weights(tmp_path)
    assert [type(layer) for layer in loaded.layers if isinstance(layer, keras.layers.LSTM)] == [keras.layers.LSTM] * 2
    np.testing.assert_array_equal(loaded.predict_on_batch(normal(4, 30, 44)), model.predict_on_batch(normal(4, 30, 44)))
