"""The bounds of what a network reads and forecasts: how they are learnt, what the layers do, and that every graph of a version has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as resized

from features.definition import FEATURES
from features.telemetry import NUMERIC, TARGETS, Doubles, Floats
from model.spec.architecture import Lstm, architecture_of
from model.training.graph.core import load_weights
from model.training.network.assembly import build, renewed
from model.training.network.bound_layers import OutputBounds, read_bounds, set_bounds, unbounded
from model.version.golden import check_golden
from model.version.metadata import Metadata
from model.version.possible import LARGEST, highest_scaled, lowest_scaled, possible
from model.version.predictor import Predictor
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows
from model.windows.bounds import MULTIPLE, UNBOUNDED, Bounds, edges, learnt, slack
from model.windows.index import WindowIndex
from model.windows.scaler import Scaler
from parts import bounded_rows, bounded_run, bounded_versions, version
from testkit.paths import STATES

OLDER = STATES / "unbounded-model.tar.xz"
OLDER_VERSION = "v20260101_000000"
SMALL = Lstm(lstm_units=(4,), lstm_dropout=(0.0,), recurrent_dropout=0.0, dense_units=(4,), dense_dropout=(0.0,), head_units=4)
QUEUE, HOUR, THROUGHPUT = FEATURES.index("queue_depth"), FEATURES.index("time_of_day"), 0
UNIT = Scaler(np.zeros(44, np.float32), np.ones(44, np.float32), np.ones(44, np.bool_))
OUT = Scaler(np.array([390, 18, 0.02, 1.7], np.float32), np.array([50, 5, 0.01, 1], np.float32), np.ones(4, np.bool_))
IN = Scaler(np.append(OUT.mean, np.zeros(40, np.float32)), np.append(OUT.scale, np.ones(40, np.float32)), np.ones(44, np.bool_))


def rows_of(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, 44)).astype(np.float32)


# How they are learnt.


def test_edges_are_those_of_training_and_a_margin() -> None:
    """A load is read a little beyond what training saw, a metric far beyond, and an hour whatever it is; 0 always lies between."""
    low, high = edges(rows_of(20_000), UNIT)
    assert 6 < high[QUEUE] < 14
    assert 2 * high[QUEUE] < high[THROUGHPUT] < 50
    assert high[HOUR] == -low[HOUR] == UNBOUNDED
    assert (low <= 0).all()
    assert (high >= 0).all()


@pytest.mark.parametrize("count", [300, 5_000, 50_000])
def test_one_absurd_row_is_no_range(count: int) -> None:
    """A counter that was sent once while training does not open the bounds for the next one."""
    raw = np.abs(rows_of(count)) * 7.0
    raw[count // 2, QUEUE] = 1e12
    scaler = Scaler.fit(raw)
    _, high = edges(scaler.transform(raw), scaler)
    again = scaler.transform(np.full((1, 44), 1e12, np.float32))[0, QUEUE]
    assert high[QUEUE] < max(40.0, again / 3)


def test_what_never_varied_is_not_read() -> None:
    """A column that was missing or constant is held to the 0 that training saw of it."""
    scaler = replace(UNIT, fitted=np.arange(44) != QUEUE)
    low, high = edges(rows_of(500), scaler)
    assert (low[QUEUE], high[QUEUE]) == (0.0, 0.0)


def test_the_slack_is_what_rises_out_of_nothing_in_training() -> None:
    """For links whose loss is mostly 0 it is the loss that follows a window of zeros; for a steady throughput it is 0."""
    random = np.random.default_rng(3)
    targets = np.full((4_000, 4), np.nan, np.float32)
    targets[:, 0] = 400.0 + random.normal(size=4_000)
    targets[:, 2] = np.where(np.arange(4_000) % 40 == 0, 0.004, 0.0)
    end = np.arange(29, 3_999)
    found = slack(targets, WindowIndex(end, end + 1), 30)
    assert found.tolist() == [0.0, 0.0, pytest.approx(0.004), 0.0]


def test_a_successor_reads_what_its_parent_read() -> None:
    """The wider of both edges, but for a feature that has its scale only now; a target that either has measured is forecast."""
    flags = np.array([True, True, False, False])
    parent = Bounds(np.full(44, -9, np.float32), np.full(44, 3, np.float32), np.full(4, 2, np.float32), np.full(4, 9, np.float32), flags)
    own = Bounds(np.full(44, -5, np.float32), np.full(44, 5, np.float32), np.full(4, 1, np.float32), np.full(4, 8, np.float32), flags[::-1])
    joined = own.joined(parent, np.arange(44) != QUEUE)
    assert (joined.low[0], joined.high[0], joined.low[QUEUE], joined.high[QUEUE]) == (-9, 5, -5, 5)
    assert joined.measured.all()
    assert joined.slack.tolist() == [2, 2, 1, 1]


@given(mean=st.floats(0, 2.0**30, width=32), share=st.floats(0, 1, width=32), scale=st.floats(2.0**-60, 2.0**40, width=32))
def test_scaled_limits_are_possible_once_they_are_scaled_back(mean: float, share: float, scale: float) -> None:
    """They are possible in float32 and in float64, whatever the rounding: no throughput of -3e-5, no loss of 1.0000001."""
    outputs = Scaler(np.array([mean, mean, share, mean], np.float32), np.full(4, scale, np.float32), np.ones(4, np.bool_))
    for limit in (lowest_scaled(outputs), highest_scaled(outputs)):
        for kind in (np.float32, np.float64):
            value = limit.astype(kind) * outputs.scale.astype(kind) + outputs.mean.astype(kind)
            assert (value >= 0).all()
            assert value[2] <= 1
            assert (value <= np.float32(LARGEST)).all()


# What the layers do.


def bounded(bounds: Bounds, inputs: Scaler = IN, outputs: Scaler = OUT) -> Callable[[Floats, Floats], Floats]:
    """The output layer as a function of values (T, 4) and a forecast (4,), both in the targets' units, that gives (4,)."""
    model = build(SMALL)
    set_bounds(model, bounds, inputs, outputs)
    layer = model.get_layer("output")
    assert isinstance(layer, OutputBounds)

    def call(values: Floats, forecast: Floats) -> Floats:
        window = np.full((1, len(values), 44), np.nan, np.float32)
        window[0, :, :4] = values
        scaled = np.asarray(layer(inputs.transform(window), outputs.standardise(forecast[None])))
        return outputs.inverse(scaled)[0]

    return call


def all_bounds(**changed: Any) -> Bounds:
    wide = Bounds(
        np.full(44, -50, np.float32), np.full(44, 50, np.float32), np.array([0, 0, 0.002, 0], np.float32),
        np.array([900, 90, 0.5, 9], np.float32), np.ones(4, np.bool_),
    )  # fmt: skip
    return replace(wide, **changed)


NOTHING = [np.nan] * 4
USUAL = [400.0, 20.0, 0.0, 2.0]
LARGE, DOWN = [95_000.0, 20.0, 0.0, 2.0], [0.0, 20.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("window", "forecast", "wanted"),
    [
        pytest.param([USUAL] * 3, [410, 21, 0.001, 2.1], [410, 21, 0.001, 2.1], id="an ordinary forecast passes"),
        pytest.param([USUAL] * 3, [1.4e9, -3e8, 5.6e5, 1e8], [1200, 20 / 3, 0.002, 6], id="three times the largest, a third of the least"),
        pytest.param([USUAL, [0, 0, 0.5, 0]], [-5, -5, -1, -5], [0, 0, 0, 0], id="what has been 0 may be 0 again, and no less"),
        pytest.param([USUAL, [0, 0, 0.5, 0]], [1e9, 1e9, 1e9, 1e9], [1200, 60, 1, 6], id="no loss over 1"),
        pytest.param([NOTHING] * 3, [1e9, 50, -1, 5], [900, 50, 0, 5], id="of what the window has not shown, the range of training"),
        pytest.param([[400, np.nan, 0, 2], NOTHING], [1e9, 1e9, 1e9, 1e9], [1200, 90, 0.002, 6], id="holes show nothing"),
        pytest.param([[95_000, 20, 0, 2]] * 3, [2_890, 20, 0, 2], [95_000, 20, 0, 2], id="a link of another size keeps its size"),
        pytest.param([[95_000, 20, 0, 2], USUAL], [2_890, 20, 0, 2], [2_890, 20, 0, 2], id="a spike is no other size"),
        pytest.param([USUAL] * 27 + [LARGE] * 3, [2_890, 20, 0, 2], [2_890, 20, 0, 2], id="nor are three"),
        pytest.param([USUAL] * 26 + [LARGE] * 4, [2_890, 20, 0, 2], [95_000, 20, 0, 2], id="four are: the link was upgraded"),
        pytest.param([LARGE] * 26 + [USUAL] * 4, [600, 20, 0, 2], [600, 20, 0, 2], id="or replaced by a small one"),
        pytest.param([LARGE] * 27 + [DOWN] * 3, [2_890, 20, 0, 2], [95_000, 20, 0, 2], id="an outage is no other size"),
        pytest.param([LARGE, NOTHING] * 12 + [DOWN, NOTHING] * 3, [2_890, 20, 0, 2], [95_000, 20, 0, 2], id="missing rows do not count"),
    ],
)
def test_forecasts_are_held_to_what_the_window_has_shown(window: list[list[float]], forecast: list[float], wanted: list[float]) -> None:
    """Hand-computed; MULTIPLE is 3, and the edge of what is read 50 standard deviations: 2,890 Mbps."""
    assert MULTIPLE == 3
    found = bounded(all_bounds())(np.array(window, np.float32), np.array(forecast, np.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_target_that_never_varied_keeps_its_value() -> None:
    """A loss of always 0 is 0 once scaled, as a missing one is: one lossy row among clean ones is no link of another size."""
    always = replace(OUT, mean=OUT.mean * [1, 1, 0, 1], scale=np.where(np.arange(4) == 2, 1, OUT.scale), fitted=np.arange(4) != 2)
    inputs = replace(IN, mean=np.append(always.mean, IN.mean[4:]), scale=np.append(always.scale, IN.scale[4:]))
    bounds = all_bounds(high=np.where(np.arange(44) == 2, 0, 50).astype(np.float32), slack=np.zeros(4), unshown=np.zeros(4))
    lossy = np.array([USUAL, USUAL, [400, 20, 0.3, 2], USUAL], np.float32)
    for window, forecast, wanted in ((lossy, 0.0, 0.0), (lossy, 5.0, 0.9), (lossy[:2], 5.0, 0.0)):
        found = bounded(bounds, inputs, always)(window, np.array([400, 20, forecast, 2], np.float32))
        np.testing.assert_allclose(found, [400, 20, wanted, 2], rtol=1e-4, atol=1e-4)


def test_a_target_that_was_never_measured_is_missing() -> None:
    """NaN and not 0, whatever the network says of it."""
    found = bounded(all_bounds(measured=np.array([True, False, True, False])))(np.array([USUAL], np.float32), np.array(USUAL, np.float32))
    assert np.isnan(found).tolist() == [False, True, False, True]


def test_a_new_network_has_bounds_that_let_everything_pass() -> None:
    """Before they are set, the network forecasts as it does without them."""
    keras.utils.set_random_seed(1)
    model = build(SMALL)
    windows = np.random.default_rng(1).normal(0, 1e3, (8, 30, 44)).astype(np.float32)
    windows[:, :, 2] = 0.0
    np.testing.assert_array_equal(model.predict_on_batch(windows), unbounded(model).predict_on_batch(windows))


def test_bounds_come_back_from_the_layers() -> None:
    """A fine-tuning continues from the bounds of its parent."""
    model, given_bounds = build(SMALL), all_bounds(measured=np.array([True, True, True, False]))
    set_bounds(model, given_bounds, IN, OUT)
    found = read_bounds(model, OUT)
    assert found is not None
    for name in ("low", "high", "slack", "unshown", "measured"):
        np.testing.assert_allclose(getattr(found, name), getattr(given_bounds, name), rtol=1e-4, atol=1e-5)


def test_possible_forecasts() -> None:
    """Older graphs are held from outside: to their ranges, and to NaN for what was never measured."""
    made = np.array([[-3.5, 1e9, 5.6e5, np.nan], [3e38, -1, -1, 2]], np.float32)
    np.testing.assert_array_equal(possible(made), np.array([[0, 1e9, 1, np.nan], [LARGEST, 0, 0, 2]], np.float32))
    assert np.isnan(possible(made, np.array([True, False, True, True]))[:, 1]).all()


# Every graph of every version.


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Four small versions: of a fleet, of a stream without RTT whose jitter is 0, fine-tuned from the first, and of absurd rows."""
    root = tmp_path_factory.mktemp("bounded")
    return root, bounded_versions.build(root, architecture_of(version.SMALL), rows=120)


@pytest.fixture(scope="module")
def loaded(versions: tuple[Path, list[str]]) -> list[Any]:
    root, names = versions
    return [bounded_run.Version.load(root / name) for name in names]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), which=st.integers(0, 3))
def test_whatever_valid_rows_come_forecasts_stay_possible(loaded: list[Any], seed: int, which: int) -> None:
    """Outages, spikes up to the largest accepted value, counters, holes, zeros and constants through the core, raw and quantised graphs:
    finite, possible, within the multiple of what the window has shown, and missing where the target was never measured."""
    parts = bounded_run
    windows = bounded_rows.sequences(64, np.random.default_rng(seed))
    limits = loaded[which].limits(windows)
    for graph in parts.GRAPHS:
        for kind, flags in parts.faults(loaded[which], graph, windows, *limits).items():
            assert not flags.any(), parts._shown(loaded[which], graph, kind, windows, flags, limits)


def test_the_predictors_say_what_the_graphs_say(versions: tuple[Path, list[str]]) -> None:
    """Python's predictors neither move nor lose anything of a bounded graph."""
    root, names = versions
    windows = bounded_rows.sequences(64, np.random.default_rng(1))
    for name in names:
        version = bounded_run.Version.load(root / name)
        made = RawPredictor.load(root / name).predict_windows(windows)
        np.testing.assert_array_equal(made, version.forecasts("raw", windows))
        assert np.isnan(made).all(axis=0).tolist() == (~version.metadata.measured).tolist()


@pytest.mark.parametrize("which", [0, 3])
def test_a_version_of_absurd_rows_forecasts_as_one_without(versions: tuple[Path, list[str]], which: int) -> None:
    """One throughput of 3e38 among its training rows does not take the digits of all others: what was usual, and an idle link's 0."""
    root, names = versions
    windows = steady(np.array([sized(times=1.0), sized(times=0.0)]))
    for int8 in (False, True):
        made = RawPredictor.load(root / names[which], int8).predict_windows(windows)
        assert made[0, :2] == pytest.approx([400.0, 20.0], rel=0.3)
        assert made[1, 0] <= 0.01


DISTURBED: dict[str, dict[str, float]] = {
    "a failed speed test while traffic goes on": {"throughput_mbps": 0.0},
    "an outage": {"throughput_mbps": 0.0, "packet_loss": 1.0, "bytes_tx": 1_200.0, "bytes_rx": 1_200.0},
    "a counter as queue depth": {"queue_depth": 1e12},
    "an RTT of 10 s": {"rtt_ms": 10_000.0},
    "the largest accepted numbers": {"rtt_ms": 3e38, "throughput_mbps": 3e38, "jitter_ms": 3e38},
}


@pytest.mark.parametrize("disturbed", DISTURBED)
def test_a_disturbed_link_is_forecast_like_a_link(versions: tuple[Path, list[str]], disturbed: str) -> None:
    """The metrics that nothing has disturbed stay within their multiple of a steady link's, in the middle of it and when it is over."""
    rows = bounded_rows
    windows = rows.sequences(2, np.random.default_rng(0))
    random = np.random.default_rng(7)
    level = dict(zip(NUMERIC, (400.0, 20.0, 0.001, 2.0, 60.0, 7.0, 2.0, 3e9, 3e9), strict=False))
    for column, value in enumerate(level.values()):
        windows.telemetry[:, :, column] = value * (1 + 0.03 * random.normal(size=windows.telemetry.shape[:2]))
    for at, span in enumerate((slice(-3, None), slice(-20, -15))):
        for name, value in DISTURBED[disturbed].items():
            windows.telemetry[at, span, NUMERIC.index(name)] = value
    root, names = versions
    for int8 in (False, True):
        made = RawPredictor.load(root / names[0], int8).predict_windows(windows)
        for target, name in enumerate(TARGETS):
            if name not in DISTURBED[disturbed]:
                assert (made[:, target] <= 1.2 * MULTIPLE * level[name] + 0.01).all(), (name, made)
                assert (made[:, target] >= 0.0).all()
        assert (made[:, 0] <= 1e5).all(), "an absurd number is no level"


def steady(levels: Doubles) -> RawWindows:
    """A window for each line of levels (B, 39): of a link whose throughput and bytes are so many times the usual, all else as usual."""
    windows = bounded_rows.sequences(len(levels), np.random.default_rng(0))
    noise = 1 + 0.03 * np.random.default_rng(7).normal(size=(len(levels), levels.shape[1], 9))
    windows.telemetry[:, :, :9] = noise * [400.0, 20.0, 0.001, 2.0, 60.0, 7.0, 2.0, 3e9, 3e9]
    windows.telemetry[:, :, [0, 7, 8]] *= levels[:, :, None]
    return windows


def sized(*, times: float, since: int = 39, low: slice = slice(0, 0), growth: float = 1.0) -> Doubles:
    """float64 (39,): `times` the usual in the newest `since` rows, 1 before; 0 in the rows `low`; `growth` more in each row."""
    at = np.arange(39)
    level = np.where(at >= 39 - since, times, 1.0) * growth ** (at - 38.0)
    level[low] = 0.0
    return level


SIZES: dict[str, tuple[Doubles, float, float]] = {
    **{f"{times} times larger, a failed test": (sized(times=times, low=slice(-3, -2)), times / 2, times * 2) for times in (10, 100, 1_000)},
    **{f"{times} times larger, long after": (sized(times=times, low=slice(-20, -17)), times / 2, times * 2) for times in (10, 100, 1_000)},
    "an upgrade four rows ago": (sized(times=100, since=4), 50, 150),
    "an upgrade ten rows ago": (sized(times=100, since=10), 50, 150),
    "growth of 5 % a row": (sized(times=100, growth=1.05), 65, 130),
    "a spike in three rows": (sized(times=1e6, since=3), 0, 1_000),
}
"""Levels, and the lowest and highest forecast, in multiples of the usual throughput."""


@pytest.mark.parametrize("size", SIZES)
def test_a_link_of_another_size_is_forecast_in_its_size(versions: tuple[Path, list[str]], size: str) -> None:
    """A level above all training values is followed once it lasts, and not forgotten for a few rows of another size."""
    levels, least, most = SIZES[size]
    windows, (root, names) = steady(levels[None]), versions
    for int8 in (False, True):
        made = RawPredictor.load(root / names[0], int8).predict_windows(windows)[0, 0]
        assert 400.0 * least <= made <= 400.0 * most


# Versions of releases before the bounds.


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A version by the release before: no bounds in its network and graphs, no list of what it forecasts; jitter was never measured."""
    shutil.unpack_archive(OLDER, tmp_path)
    return tmp_path / OLDER_VERSION


def test_an_older_version_is_sound_and_its_forecasts_possible(older: Path) -> None:
    """It proves itself by its golden samples; its forecasts are held to their ranges from outside, and jitter is missing."""
    metadata = Metadata.read(older)
    assert "forecast_targets" not in json.loads((older / f"model_metadata_{OLDER_VERSION}.json").read_text())
    assert metadata.forecast_targets == ("throughput_mbps", "rtt_ms", "packet_loss")
    assert check_golden(older, metadata) == []
    windows = bounded_rows.sequences(256, np.random.default_rng(4))
    found = bounded_run.Version(metadata, {"raw": RawPredictor.load(older)._session}).forecasts("raw", windows)
    assert (found[:, 0] < 0).any(), "the graph itself would have to be at fault, or nothing is shown"
    for int8 in (False, True):
        made = RawPredictor.load(older, int8).predict_windows(windows)
        finite = made[:, :3][np.isfinite(made[:, :3])]
        assert (finite >= 0).all()
        assert np.nanmax(made[:, 2]) <= 1
        assert np.isnan(made[:, 3]).all()
    usual = np.full((1, 30, 44), np.nan, np.float32)
    usual[:, :, :3] = 400.0, 30.0, 0.02
    assert np.isfinite(Predictor.load(older).predict(usual)).tolist() == [[True, True, True, False]]


def test_an_older_version_is_continued_with_bounds(older: Path) -> None:
    """Its weights go on in a network that has the bounds; what it forecasts stays the same until they are set."""
    before = load_weights(older)
    assert read_bounds(before, Metadata.read(older).outputs) is None
    network = resized(SMALL, lstm_units=(4,), recurrent_dropout=0.2)
    after = renewed(before, network)
    windows = np.random.default_rng(2).normal(size=(6, 30, 44)).astype(np.float32)
    np.testing.assert_allclose(after.predict_on_batch(windows), before.predict_on_batch(windows), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="is not one of this architecture"):
        renewed(before, resized(network, linear_path=False))


@pytest.mark.parametrize(
    ("changed", "forecast"),
    [
        ({}, False),
        ({"performance_metrics": None}, True),  # a report that is not there tells nothing
        ({"mean": 3.0}, True),  # constant, but measured
        ({"forecast_targets": list(TARGETS)}, True),
    ],
)
def test_what_an_older_version_forecasts_is_told_by_its_figures(older: Path, changed: dict[str, Any], forecast: bool) -> None:
    """A target without scale, with a mean of 0 and without a judged window was never measured; anything else stays as it was."""
    path = older / f"model_metadata_{OLDER_VERSION}.json"
    document = json.loads(path.read_text())
    if "mean" in changed:
        document["scaler_params"]["y_mean"][3] = changed.pop("mean")
    path.write_text(json.dumps(document | changed))
    assert Metadata.read(older).measured[3] == forecast


def test_learnt_bounds_are_those_of_the_training_windows() -> None:
    """Rows that no training window reads, before or after, count for nothing."""
    features, targets = rows_of(500), np.abs(rows_of(500, seed=1))[:, :4]
    features[:100], features[400:] = 1e5, -1e5
    targets[:, 3] = np.nan
    end = np.arange(130, 380)
    found = learnt(features, targets, WindowIndex(end, end + 1), UNIT, 30)
    assert found.high[THROUGHPUT] < 50
    assert found.low[THROUGHPUT] > -50
    assert found.measured.tolist() == [True, True, True, False]
