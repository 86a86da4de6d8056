"""The offline run: it learns, compares on the same rows, and knows nothing of the rows that it is judged on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.offline import RawTable
from features.telemetry import CATEGORIES, NUMERIC
from model.judge.baselines import BASELINES
from model.judge.performance import NETWORK
from model.spec.architecture import Lstm
from model.spec.settings import TrainingSettings
from model.training.dataset import Dataset, LastOfEachLink, TooLittleDataError, prepare
from model.training.fit.start import Fit, fit, prepare_tensorflow, start
from model.training.run import forecasts_of, metrics_of

SMALL = Lstm(lstm_units=(4,), lstm_dropout=(0.0,), recurrent_dropout=0.0, dense_units=(4,), dense_dropout=(0.0,), head_units=4)
SETTINGS = TrainingSettings(epochs=1, epoch_windows_max=128, seed=3)
ROWS = 900


def table() -> RawTable:
    """One link: throughput with holes and a long tail around a level that wanders, and an RTT that is never measured."""
    random = np.random.default_rng(4)
    numeric = np.full((ROWS, len(NUMERIC)), np.nan, np.float32)
    numeric[:, 0] = 100.0 + np.cumsum(random.normal(size=ROWS)) + 3.0 * random.exponential(size=ROWS)
    numeric[::3, 0] = np.nan
    numeric[::2, 2] = random.random(ROWS // 2)
    numeric[:, NUMERIC.index("time_of_day")] = np.arange(ROWS) / 60.0 % 24.0
    numeric[:, NUMERIC.index("day_of_week")] = 2.0
    codes = np.full((ROWS, len(CATEGORIES)), -1, np.int32)
    codes[:, 0] = np.arange(ROWS) >= 0.8 * ROWS
    values = (("seen", "later"), *(() for _ in CATEGORIES[1:]))
    return RawTable(("a|b|",), np.zeros(ROWS, np.int32), 60.0 * np.arange(ROWS), numeric, codes, values)


def run(rows: RawTable) -> tuple[Dataset, Fit]:
    dataset = prepare(rows, LastOfEachLink(), 5.0)
    prepare_tensorflow(SETTINGS)
    return dataset, fit(*start(dataset, SMALL), dataset, SMALL, SETTINGS, lambda _progress: None)


@pytest.fixture(scope="module")
def honest() -> tuple[Dataset, Fit]:
    return run(table())


def test_forecasts_are_of_the_same_windows(honest: tuple[Dataset, Fit]) -> None:
    """Network and baselines forecast every window of the test part; a target that is never measured has no forecast and no metric."""
    dataset, trained = honest
    forecasts = forecasts_of(trained, dataset, dataset.judged)
    assert set(forecasts) == {NETWORK, *BASELINES}
    assert {forecast.shape for forecast in forecasts.values()} == {(len(dataset.judged), 4)}
    assert np.isfinite(forecasts[NETWORK][:, [0, 2]]).all()
    assert np.isnan(forecasts[NETWORK][:, [1, 3]]).all()
    validation = metrics_of(trained, dataset, dataset.data.validation)
    network, ridge = (validation[name].targets[0].mae for name in (NETWORK, "ridge"))
    assert network is not None
    assert ridge is not None
    assert network <= ridge


def test_only_training_rows_are_fitted_on(honest: tuple[Dataset, Fit]) -> None:
    """A value that first appears after the training part is unknown to the vocabulary, and scalers are those of the first 70 %."""
    assert honest[0].vocabulary.values[0] == ("seen",)
    assert honest[0].outputs.mean[0] == pytest.approx(np.nanmean(table().numeric[: int(0.7 * ROWS), 0]), rel=1e-5)


def test_the_future_changes_no_forecast_before_it(honest: tuple[Dataset, Fit]) -> None:
    """If the second half of the test part has other measurements, every forecast of the first half stays the same number."""
    changed = table()
    later = int(0.925 * ROWS)
    changed.numeric[later:, :4] = 5_000.0
    (dataset, trained), (other, retrained) = honest, run(changed)
    judged = dataset.judged.target_row
    before = judged < later
    assert before.any()
    windows = np.isin(other.judged.target_row, judged[before])
    again = forecasts_of(retrained, other, other.judged)
    for name, forecast in forecasts_of(trained, dataset, dataset.judged).items():
        np.testing.assert_array_equal(again[name][windows], forecast[before], err_msg=name)


def test_too_short_a_table_is_refused_with_its_counts() -> None:
    """A part without a window is named before anything is trained."""
    short = table()
    short = replace(short, link=short.link[:150], time_s=short.time_s[:150], numeric=short.numeric[:150], codes=short.codes[:150])
    with pytest.raises(TooLittleDataError, match=r"0 validation windows.*31 rows of one link"):
        prepare(short, LastOfEachLink(), 5.0)
