"""The network of several horizons: possible forecasts for every window, intervals that do not cross, and units that scale with the link."""

from __future__ import annotations

from typing import Any, cast

import keras
import numpy as np
import pytest

from features.definition import FEATURES
from features.offline import compute, empty_row
from features.telemetry import TARGETS, Floats
from model.spec.architecture import Ahead, Relative
from model.training.dataset import Dataset
from model.training.fit.ahead import inputs_of
from model.training.network.ahead import BLEND, MEMBERS, Anchored, Blend, Members
from model.training.network.assembly import build
from model.training.network.linear_inputs import RATES
from model.training.network.relative import COLUMNS, RELATIVE, STEADY, Columns, fit_columns, set_units, spreads_of
from model.version.contract import AHEAD
from model.version.possible import highest, unscaled_ahead
from model.windows.scaler import Scaler
from testkit.ahead import HORIZONS, TINY, Telemetry, trained

THROUGHPUT, RTT, LOSS, JITTER = range(len(TARGETS))
ROWS, H = 30, len(HORIZONS)
OF_LEVELS = (4 + H) * len(TARGETS)
"""The last columns: a logarithm of the level, level, slow level and profiles, which follow the link's size."""


@pytest.fixture(scope="module")
def network() -> tuple[Dataset, keras.Model]:
    """A network that has never seen jitter."""
    dataset, fitted = trained()
    return dataset, fitted.model


def forecast(network: tuple[Dataset, keras.Model], windows: Floats, context: Floats | None = None) -> Floats:
    """Return (B, H, 4, 4) for unscaled windows and a context (B, 3 + H, 4), in the targets' units."""
    dataset, model = network
    context = np.full((len(windows), 3 + H, 4), np.nan, np.float32) if context is None else context
    next_row, ahead = model.predict([dataset.inputs.transform(windows), context.reshape(len(windows), -1)], verbose=0)
    np.testing.assert_array_equal(next_row, ahead[:, 0, :, 1])
    return unscaled_ahead(ahead, dataset.outputs)


def real(network: tuple[Dataset, keras.Model]) -> tuple[Floats, Floats]:
    """Judged windows, unscaled, and their contexts."""
    dataset, _ = network
    index = dataset.judged
    rows = index.end[:, None] + np.arange(1 - ROWS, 1)
    return dataset.features.features[rows], dataset.features.context[index.end]


def require_possible(found: Floats) -> None:
    """Of a network that knows no jitter: that is missing, and all else a number, in order and possible."""
    assert np.isnan(found[:, :, JITTER]).all()
    known = found[:, :, :JITTER]
    assert np.isfinite(known).all()
    assert (known[..., 0] <= known[..., 1]).all()
    assert (known[..., 1] <= known[..., 2]).all()
    assert (known >= 0).all()
    assert (known <= highest()[:JITTER, None]).all()


def spiked(windows: Floats, value: float) -> Floats:
    windows = windows.copy()
    windows[:, -3, [FEATURES.index(name) for name in TARGETS]] = value
    return windows


def constant(windows: Floats, value: float) -> Floats:
    windows = windows.copy()
    windows[:, :, [FEATURES.index(name) for name in TARGETS]] = value
    return windows


def cut_short(windows: Floats, rows: int) -> Floats:
    windows = windows.copy()
    windows[:, : ROWS - rows] = empty_row()
    return windows


@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda windows: windows, id="as measured"),
        pytest.param(lambda windows: np.full_like(windows, np.nan), id="nothing measured"),
        pytest.param(lambda windows: np.broadcast_to(empty_row(), windows.shape).copy(), id="no row at all"),
        pytest.param(lambda windows: cut_short(windows, 3), id="three rows"),
        pytest.param(lambda windows: cut_short(windows, 1), id="one row"),
        pytest.param(lambda windows: spiked(windows, 1e30), id="a spike of 1e30"),
        pytest.param(lambda windows: spiked(windows, -1e30), id="a spike of -1e30"),
        pytest.param(lambda windows: spiked(windows, 3.4e38), id="a spike of the largest float32"),
        pytest.param(lambda windows: constant(windows, 1e30), id="a level of 1e30"),
        pytest.param(lambda windows: constant(windows, 0.0), id="zeros"),
        pytest.param(lambda windows: constant(windows, 0.5), id="constant"),
        pytest.param(lambda windows: np.full_like(windows, 1e9), id="all features 1e9"),
    ],
)
def test_forecasts_of_any_window_are_possible(network: tuple[Dataset, keras.Model], change: Any, with_context: bool) -> None:
    """Finite, not negative, no loss over 1, lower <= median <= upper; a target that was never measured is missing, and it alone."""
    windows, context = real(network)
    require_possible(forecast(network, change(windows), context if with_context else None))


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-30, 1e30, -1e30, 3.4e38, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 1, 2, 3, slice(None)])
def test_forecasts_of_any_context_are_possible(network: tuple[Dataset, keras.Model], value: float, row: int | slice) -> None:
    """Whatever a consumer says that a link remembers, of a level, a spread or a profile, for whole windows and for those without a row."""
    windows, context = real(network)
    context = context.copy()
    context[:, row] = value
    require_possible(forecast(network, windows, context))
    require_possible(forecast(network, np.full_like(windows, np.nan), context))


def test_a_context_matters_and_a_part_of_it_may_be_unknown(network: tuple[Dataset, keras.Model]) -> None:
    """Forecasts differ with and without it; with single lines unknown they stay possible."""
    windows, context = real(network)
    assert not np.isnan(context[:, :2, THROUGHPUT]).any()
    with_it, without = forecast(network, windows, context), forecast(network, windows)
    assert np.abs(with_it - without)[:, :, THROUGHPUT].max() > 0.1
    for row in range(3 + H):
        part = context.copy()
        part[:, row] = np.nan
        require_possible(forecast(network, windows, part))


def test_one_window_is_forecast_as_many_are(network: tuple[Dataset, keras.Model]) -> None:
    """A window's forecast does not depend on the others of its batch."""
    windows, context = real(network)
    together = forecast(network, windows, context)
    for window in (0, 7, 19):
        alone = forecast(network, windows[window : window + 1], context[window : window + 1])
        np.testing.assert_allclose(alone[0], together[window], rtol=1e-5)


def test_a_window_without_measurements_is_forecast_from_what_the_link_remembers(network: tuple[Dataset, keras.Model]) -> None:
    """After a pause the level of the link is known from before: the forecast is near it, and not the mean of all links."""
    dataset, model = network
    windows, context = real(network)
    size = context[:, 0, THROUGHPUT]
    found = relative(model, dataset, np.full_like(windows, np.nan), context)
    np.testing.assert_allclose(found["level"][:, THROUGHPUT], size, rtol=1e-4)
    assert np.ptp(size) > 100


# Relative units


def relative(model: keras.Model, dataset: Dataset, windows: Floats, context: Floats) -> dict[str, Floats]:
    """Return columns and what they are relative to, in the targets' units."""
    part = keras.Model(model.inputs, model.get_layer(RELATIVE).output)
    columns, level, spread, steady, by_profile = part.predict(
        [dataset.inputs.transform(windows), context.reshape(len(context), -1)], verbose=0
    )
    scale, mean = dataset.outputs.scale, dataset.outputs.mean
    return {
        "columns": columns,
        "level": level * scale + mean,
        "spread": spread * scale,
        "steady": steady * scale[:, None] + mean[:, None],
        "by_profile": by_profile * scale[:, None] + mean[:, None],
    }


def test_a_link_of_another_size_looks_the_same(network: tuple[Dataset, keras.Model]) -> None:
    """If all values are multiplied by 7, levels, spreads and simple forecasts are, and the relative columns stay."""
    dataset, model = network
    windows, context = real(network)
    context = context.copy()
    context[:, 2:] = context[:, :1] * np.linspace(0.8, 1.3, 1 + H, dtype=np.float32)[:, None]  # profiles that are known
    larger = windows.copy()
    larger[:, :, : len(TARGETS)] *= 7
    own, other = relative(model, dataset, windows, context), relative(model, dataset, larger, 7 * context)
    for name in ("level", "spread", "steady", "by_profile"):
        np.testing.assert_allclose(other[name][:, :JITTER], 7 * own[name][:, :JITTER], rtol=2e-3, err_msg=name)
    columns = own["columns"][:, :-OF_LEVELS].reshape(len(windows), -1, 4)[:, :, :JITTER]
    assert np.abs(columns).max() > 1
    np.testing.assert_allclose(other["columns"][:, :-OF_LEVELS].reshape(len(windows), -1, 4)[:, :, :JITTER], columns, atol=5e-3)


def test_forecasts_follow_the_size_of_a_link() -> None:
    """A network that does not look at absolute levels forecasts 7 times as much for a link 7 times as large, with 7 times the interval."""
    dataset, fitted = trained()
    model = keras.Model.from_config(fitted.model.get_config())
    model.set_weights(fitted.model.get_weights())
    layer = model.get_layer(COLUMNS)
    (unit,) = layer.get_weights()
    relative_columns = model.get_layer(RELATIVE).output[0].shape[-1] - OF_LEVELS
    unit[1, relative_columns:] = 0.0
    layer.set_weights([unit])
    windows, context = real((dataset, model))
    larger = windows.copy()
    larger[:, :, : len(TARGETS)] *= 7
    part = keras.Model(model.inputs, model.get_layer(MEMBERS).output)

    def found(windows: Floats, context: Floats) -> Floats:
        scaled = part.predict([dataset.inputs.transform(windows), context.reshape(len(context), -1)], verbose=0)
        return np.stack([unscaled_ahead(each, dataset.outputs) for each in scaled])[:, :, :, :JITTER]

    np.testing.assert_allclose(found(larger, 7 * context), 7 * found(windows, context), rtol=5e-3)


def test_relative_columns_by_hand() -> None:
    """One target of a link that rose from 10 to 12, with a slow level of 9, a spread of 2 and a profile that halves until the horizons."""
    model = build(TINY)
    inputs = Scaler(np.zeros(44, np.float32), np.ones(44, np.float32), np.ones(44, np.bool_))
    outputs = Scaler(np.array([4, 0, 0, 0], np.float32), np.array([2, 1, 1, 1], np.float32), np.ones(4, np.bool_))
    set_units(model, inputs, outputs)
    windows = np.zeros((1, ROWS, 44), np.float32)
    windows[0, -2:, 0] = [10.0, 12.0]
    context = np.full((1, 3 + H, 4), np.nan, np.float32)
    context[0, :, 0] = [9.0, 2.0, 8.0, 4.0, 4.0]
    part = keras.Model(model.inputs, model.get_layer(RELATIVE).output)
    columns, level, spread, steady, by_profile = part.predict([windows, context.reshape(1, -1)], verbose=0)
    by_column = columns.reshape(-1, 4)[:, 0]
    weight = 0.88
    average = (12.0 + weight * 10.0) / (1 + weight)
    assert level[0, 0] * 2 + 4 == pytest.approx(average, rel=1e-4)
    assert spread[0, 0] * 2 == pytest.approx(2.0, rel=1e-4)
    last, slow = steady[0, 0, 0] * 2 + 4, steady[0, 0, -1] * 2 + 4
    assert (last, slow) == (pytest.approx(12.0, rel=1e-4), pytest.approx(9.0, rel=1e-4))
    assert len(STEADY) == steady.shape[-1] == len(RATES) + 1
    np.testing.assert_allclose(by_profile[0, :, 0] * 2 + 4, [[average - 4.0, average / 2]] * H, rtol=1e-4)
    np.testing.assert_allclose(by_column[ROWS - 2 : ROWS], np.arcsinh(np.array([10.0 - average, 12.0 - average]) / 2 / 2), atol=1e-4)
    assert not by_column[: ROWS - 2].any()
    shown = ROWS + len(RATES) + 2 + H
    assert by_column[shown : 2 * shown].tolist() == [0] * (ROWS - 2) + [1] * (2 + len(RATES) + 2 + H)  # which of these are known


def test_a_spread_that_is_not_known_is_that_of_the_window(network: tuple[Dataset, keras.Model]) -> None:
    """A consumer without a context gets the mean deviation of the window; a link that never varies a small share of its level."""
    dataset, model = network
    windows, context = real(network)
    unknown = np.full_like(context, np.nan)
    found = relative(model, dataset, windows, unknown)
    values = windows[:, :, THROUGHPUT]
    expected = np.abs(values - found["level"][:, THROUGHPUT, None]).mean(axis=1)
    np.testing.assert_allclose(found["spread"][:, THROUGHPUT], expected, rtol=1e-3)
    still = relative(model, dataset, constant(windows, 200.0), unknown)
    np.testing.assert_allclose(still["spread"][:, THROUGHPUT], 0.2, rtol=1e-2)


# Layers


def test_members_are_dense_layers_of_their_own() -> None:
    """One product for all members is what each would compute by itself, first from the columns and then from its own layer before."""
    keras.utils.set_random_seed(1)
    first, second = Members(3, 5, activation="relu"), Members(3, 2)
    columns = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    found = np.array(second(first(columns)))
    assert found.shape == (3, 7, 2)
    for member in range(3):
        (kernel, bias), (kernel_2, bias_2) = ([weight[member] for weight in layer.get_weights()] for layer in (first, second))
        np.testing.assert_allclose(found[member], np.maximum(columns @ kernel + bias, 0) @ kernel_2 + bias_2, rtol=1e-5, atol=1e-6)
    one, other, _ = first.get_weights()[0]
    assert np.abs(one - other).max() > 0.1, "members that start alike stay alike"


@pytest.mark.parametrize("shared", [False, True])
def test_anchored_forecasts_by_hand(shared: bool) -> None:
    """level + (median -/+ width) * usual * spread, for medians of each member and for one that they share."""
    layer = Anchored()
    median = np.full((8,) if shared else (2, 1, 8), 0.5, np.float32).reshape((1, 8) if shared else (2, 1, 8))
    widths = np.concatenate([np.full((2, 1, 8), 0.25), np.full((2, 1, 8), 2.0)], axis=-1).astype(np.float32)
    level, spread = np.array([[10, 20, 30, 40]], np.float32), np.array([[1, 2, 3, 4]], np.float32)
    layer(median, widths, level, spread)
    layer.set_weights([np.array([[1, 1, 1, 1], [2, 2, 2, 2]], np.float32)])
    found = np.array(layer(median, widths, level, spread))
    assert found.shape == (2, 1, 2, 4, 3)
    np.testing.assert_allclose(found[0, 0, 0, 1], [20 + 0.25 * 2, 20 + 0.5 * 2, 20 + 2.5 * 2], rtol=1e-6)
    np.testing.assert_allclose(found[1, 0, 1, 3], [40 + 0.25 * 8, 40 + 0.5 * 8, 40 + 2.5 * 8], rtol=1e-6)


def test_blended_forecasts_by_hand() -> None:
    """A quarter of the members' average, the rest of a simple forecast; widths are the members' times the stretch of each side.

    The mean lies half of the upper width above the median, less a quarter of the lower one, and a tenth of the way to a simple forecast.
    """
    layer = Blend()
    members = np.array([[10.0, 12.0, 15.0], [12.0, 14.0, 19.0]], np.float32)  # means 11, 13, 17
    members = np.broadcast_to(members[:, None, None, None], (2, 1, 2, 4, 3))
    steady, by_profile = np.zeros((1, 4, 2), np.float32), np.zeros((1, 2, 4, 2), np.float32)
    steady[..., 1], by_profile[:, 1, :, 0] = 21.0, 33.0
    next_row = np.array([[53.0, 53.0, np.nan, 53.0]], np.float32)
    layer(members, steady, by_profile, next_row)
    share, choice, stretch, skew, toward = (np.zeros(weight.shape, np.float32) for weight in layer.weights)
    share[:] = 0.25
    choice[0, :, 1] = choice[1, :, 2] = 1.0
    choice[0, 3] = [0, 0, 0, 0, 1.0]
    stretch[..., 0], stretch[..., 1] = 2.0, 0.5
    skew[..., 0], skew[..., 1] = 0.25, 0.5
    toward[0, 0, 1] = toward[1, 0, 2] = 0.1
    layer.set_weights([share, choice, stretch, skew, toward])
    found = np.array(layer(members, steady, by_profile, next_row))
    medians = (0, 0, 0.25 * 13 + 0.75 * 21, 21.0), (1, 0, 0.25 * 13 + 0.75 * 33, 33.0), (0, 3, 0.25 * 13 + 0.75 * 53, None)
    for horizon, target, median, near in medians:
        mean = median + 0.5 * 0.5 * 4 - 0.25 * 2 * 2 + (0.0 if near is None else 0.1 * (near - median))
        np.testing.assert_allclose(found[0, horizon, target], [median - 2 * 2, median, median + 0.5 * 4, mean], rtol=1e-6)
    assert np.isfinite(found).all(), "a next row that is missing is chosen by nothing, and spoils nothing"


def test_columns_are_fitted_once_and_then_kept() -> None:
    """Mean and deviation of the first training that a column varies in; what varies no more, or never has, changes nothing."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Columns(name=COLUMNS)(inputs))
    fit_columns(model, np.array([[1, 5, 0], [3, 5, 0]], np.float32))
    np.testing.assert_allclose(model.predict(np.array([[5, 9, 7], [100, 0, 0]], np.float32), verbose=0), [[3, 0, 0], [8, 0, 0]])
    fit_columns(model, np.array([[10, 4, 0], [30, 8, 0]], np.float32))
    np.testing.assert_allclose(model.predict(np.array([[5, 9, 7]], np.float32), verbose=0), [[3, 1.5, 0]])


def test_a_network_of_one_horizon_and_one_without_hidden_layers() -> None:
    """The smallest ones are built, and forecast windows of any batch."""
    for sizes in (Ahead(horizons=(1,), units=(4,), members=1), Ahead(horizons=(1, 2), units=(), members=1)):
        model = build(Relative(ahead=sizes))
        width = 4 * (3 + len(sizes.horizons))
        found = model.predict([np.zeros((3, ROWS, 44), np.float32), np.full((3, width), np.nan, np.float32)], verbose=0)
        assert [each.shape for each in found] == [(3, 4), (3, len(sizes.horizons), 4, 4)]
        assert all(np.isfinite(each).all() for each in found)


def test_windows_of_a_training_are_those_of_the_stream(network: tuple[Dataset, keras.Model]) -> None:
    """The inputs of a judged window are its scaled features and its context in the targets' units, as `compute` returns them."""
    dataset, _ = network
    windows, context = inputs_of(dataset.data, dataset.judged)
    own, remembered = real(network)
    np.testing.assert_array_equal(windows, dataset.inputs.transform(own))
    np.testing.assert_array_equal(context, remembered.reshape(len(remembered), -1))
    again = compute(Telemetry().table(), dataset.vocabulary, 5.0, HORIZONS)
    np.testing.assert_array_equal(again.context[dataset.judged.end], remembered)
    assert cast(int, dataset.data.context.shape[1]) == 4 * (3 + H)
    assert {BLEND, AHEAD} <= {layer.name for layer in network[1].layers}


def test_a_window_that_shows_nothing_of_a_target_is_wide(network: tuple[Dataset, keras.Model]) -> None:
    """Without a context the spread is the usual one of training, for one value or for none. With a context it is the link's own."""
    _, model = network
    unknown, alone = spreads_of(model)
    assert (unknown[:JITTER] > 0.1).all()
    assert (alone[:JITTER] > 0.001).all()
    windows = np.full((2, ROWS, 44), 0.0, np.float32)
    windows[1, 7, :4] = 1.0
    context = np.full((2, 4 * (3 + H)), np.nan, np.float32)
    outputs = keras.Model(model.inputs, model.get_layer(RELATIVE).output)
    _, level, spread, *_ = (np.asarray(each) for each in outputs([windows, context]))
    np.testing.assert_allclose(spread[0, :JITTER], unknown[:JITTER], rtol=1e-5)
    unit = model.get_layer(RELATIVE).get_weights()[0]
    np.testing.assert_allclose(spread[1, :JITTER], (alone * np.abs(level[1] + unit[5] / unit[4]))[:JITTER], rtol=1e-4)
    context.reshape(2, 3 + H, 4)[:, 1] = 0.25 * unit[4]
    _, _, spread, *_ = (np.asarray(each) for each in outputs([windows, context]))
    np.testing.assert_allclose(spread[0, :JITTER], 0.25, rtol=1e-5)
