"""The network: its shape, its start at Ridge, and its clone for the export."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from msgspec.structs import replace as resized

from features.telemetry import Floats
from model.spec.architecture import Lstm, Mlp, architecture_of
from model.training.network.assembly import build, inference_clone, initialise_linear_path, silence_features

SMALL = Lstm(lstm_units=(8, 8, 8), dense_units=(8, 8), head_units=8)


def windows_of(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, 30, 44)).astype(np.float32)


def test_default_network_has_the_published_size() -> None:
    """The defaults are the layers of the published model, 0.9 M parameters, with the names that the ONNX graph carries on."""
    model = build(Lstm())
    lstms = [layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)]
    assert [(layer.units, layer.dropout, layer.recurrent_dropout) for layer in lstms] == [(256, 0.3, 0.2), (192, 0.3, 0.2), (128, 0.2, 0.2)]
    assert (model.input.name, model.output_names) == ("input", ["output"])
    assert (model.input_shape, model.output_shape) == ((None, 30, 44), (None, 4))
    # LSTM 4u(i + u + 1), dense o(i + 1), batch norm 4u; in the order of model.build
    lstm = 4 * 256 * (44 + 256 + 1) + 4 * 192 * (256 + 192 + 1) + 4 * 128 * (192 + 128 + 1)
    dense = 128 * 129 + 192 * 129 + 128 * 193 + 64 * 257 + 4 * 65 + 4 * 117
    calendar, bounds = 4, 2 * 44 + 11 * 4
    assert model.count_params() == lstm + dense + calendar + bounds + 4 * (256 + 192 + 128 + 192 + 128)


def test_outputs_are_linear() -> None:
    """A forecast is not bounded by an activation: both parts of the output are linear."""
    model = build(SMALL)
    for name in ("linear_path", "nonlinear_output"):
        assert model.get_layer(name).activation is keras.activations.linear


def test_attention_weighs_each_channel_over_time() -> None:
    """The weights of every channel are positive and add up to 1 over the 30 steps, and their weighted sum enters the skip connection."""
    model = build(SMALL)
    parts = keras.Model(
        model.input, [model.get_layer("lstm_3_norm").output, model.get_layer("attention_weight").output, model.get_layer("skip").output]
    )
    values, weights, skip = parts.predict_on_batch(windows_of(3))
    assert weights.shape == (3, 30, 8)
    assert weights.min() > 0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(skip[:, :8], (values * weights).sum(axis=1), rtol=1e-4, atol=1e-6)


def test_untrained_network_equals_the_linear_forecast() -> None:
    """After initialise_linear_path the whole network is linear inputs @ kernel + bias, whatever the LSTMs' random weights are; the last
    row stands first in them."""
    model = build(SMALL)
    random = np.random.default_rng(1)
    kernel, bias = random.normal(size=(116, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    initialise_linear_path(model, kernel, bias)
    windows = windows_of(16)
    rows = keras.Model(model.input, model.get_layer("linear_inputs").output).predict_on_batch(windows)
    np.testing.assert_array_equal(rows[:, :44], windows[:, -1])
    np.testing.assert_allclose(model.predict_on_batch(windows), rows @ kernel + bias, rtol=1e-5, atol=1e-5)


def test_without_a_linear_path_there_is_nothing_to_initialise() -> None:
    """The linear path can be switched off; then its initialisation is refused with the way out, and the output keeps its name."""
    model = build(resized(SMALL, linear_path=False))
    assert model.output_names == ["output"]
    with pytest.raises(ValueError, match="linear_path=True"):
        initialise_linear_path(model, np.zeros((116, 4), np.float32), np.zeros(4, np.float32))


def test_inference_clone_has_the_weights_and_no_dropout() -> None:
    """The clone forecasts what the model does, also when it is called in training mode, apart from batch normalisation."""
    model = build(SMALL)
    clone = inference_clone(model)
    windows = windows_of(8)
    np.testing.assert_array_equal(clone.predict_on_batch(windows), model.predict_on_batch(windows))
    for layer in clone.layers:
        config = layer.get_config()
        assert [config.get(key, 0.0) for key in ("dropout", "recurrent_dropout", "rate")] == [0.0, 0.0, 0.0]
    lstm = clone.get_layer("lstm_1")
    np.testing.assert_array_equal(np.asarray(lstm(windows, training=True)), np.asarray(lstm(windows, training=False)))


def test_inference_clone_leaves_the_model_as_it_was() -> None:
    """Training goes on with dropout after an export: the clone is another model, whose weights are copies."""
    model = build(SMALL)
    clone = inference_clone(model)
    before = [weight.copy() for weight in model.get_weights()]
    clone.set_weights([weight + 1.0 for weight in clone.get_weights()])
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
    assert model.get_layer("lstm_1").recurrent_dropout == 0.2


def test_silenced_features_no_longer_move_the_forecast() -> None:
    """Features that start to vary after the training change nothing once they are silenced; the others still do."""
    model = build(SMALL)
    columns = np.zeros(44, np.bool_)
    columns[[5, 9]] = True
    model.get_layer("linear_path").set_weights([np.ones((116, 4), np.float32), np.zeros(4, np.float32)])
    quiet = windows_of(4)
    quiet[:, :, columns] = 0.0
    before = model.predict_on_batch(quiet)
    silence_features(model, columns)
    np.testing.assert_allclose(model.predict_on_batch(windows_of(4)), before, atol=1e-6)
    quiet[:, -1, 6] += 1.0
    assert np.abs(model.predict_on_batch(quiet) - before).min() > 0.9


@pytest.mark.parametrize("rate", [1.0, -0.1, 2, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("kind", "name", "rates"),
    [
        (Lstm, "lstm_dropout", 3), (Lstm, "recurrent_dropout", None), (Lstm, "dense_dropout", 2), (Lstm, "head_dropout", None),
        (Mlp, "mlp_dropout", 2), (Mlp, "dense_dropout", 1), (Mlp, "head_dropout", None),
    ],
)  # fmt: skip
def test_rates_that_leave_nothing_are_refused(kind: type[Lstm | Mlp], name: str, rates: int | None, rate: float) -> None:
    """A dropout rate is at least 0 and less than 1; another one is named, in a job's document too."""
    assert kind(**{name: 0.0 if rates is None else (0.0,) * rates})
    value = rate if rates is None else (*(0.1,) * (rates - 1), rate)
    with pytest.raises(ValueError, match=f"{name} has the rate {rate}; use 0 to less than 1"):
        kind(**{name: value})
    with pytest.raises(ValueError, match=name):
        architecture_of({"encoder": kind().encoder, name: value})


@pytest.mark.parametrize("l2", [-1e-9, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(l2: float) -> None:
    with pytest.raises(ValueError, match=f"l2 is {l2}; use 0 or more"):
        Lstm(l2=l2)
    assert Lstm(l2=0.0).l2 == 0.0


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"lstm_units": (8, 8)}, "dropout rate"),
        ({"lstm_units": (), "lstm_dropout": ()}, "at least one LSTM"),
        ({"lstm_units": (8, 0, 8)}, "at least one unit"),
    ],
)
def test_impossible_architectures_are_refused(sizes: dict[str, tuple[int, ...]], problem: str) -> None:
    """An architecture that cannot be built is refused when it is stated, not deep inside Keras."""
    with pytest.raises(ValueError, match=problem):
        resized(SMALL, **sizes)
