"""Horizons and coverage as settings: what a training is asked for, and messages for what it cannot be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import ConfigError, load
from daemon.wiring import training_config
from model.spec.architecture import DEFAULT_HORIZONS, Ahead, Relative, forecasting


def written(folder: Path, text: str) -> Path:
    path = folder / "dwcp.toml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    """Five horizons up to an hour of a row a minute, and 90 %."""
    config = load(None)
    assert (config.forecast.horizons_rows, config.forecast.coverage) == (DEFAULT_HORIZONS, 0.9) == ((1, 5, 15, 30, 60), 0.9)
    assert training_config(config).architecture.ahead.horizons == DEFAULT_HORIZONS


@pytest.mark.parametrize("architecture", ["relative", "lstm", "linear", "mlp"])
def test_what_an_operator_sets_reaches_the_training(tmp_path: Path, architecture: str) -> None:
    """Of every architecture, whose own sizes stay."""
    text = f'[forecast]\nhorizons_rows = [1, 2, 24]\ncoverage = 0.8\n[training]\narchitecture = "{architecture}"\n'
    found = training_config(load(written(tmp_path, text))).architecture
    assert found.encoder == architecture
    assert (found.ahead.horizons, found.ahead.coverage) == ((1, 2, 24), 0.8)
    assert found.ahead.units == (() if architecture == "linear" else Ahead().units)


def test_a_variable_names_horizons(monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, like every list."""
    monkeypatch.setenv("DWCP_FORECAST__HORIZONS_ROWS", "[1, 12]")
    assert load(None).forecast.horizons_rows == (1, 12)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("horizons_rows = [1, 15, 5]", "ascend from 1"),
        ("horizons_rows = [1, 5, 5]", "ascend from 1"),
        ("horizons_rows = [5, 15]", "ascend from 1"),
        ("horizons_rows = [0, 1]", "ascend from 1"),
        ("horizons_rows = [-1, 1]", "ascend from 1"),
        ("horizons_rows = []", "horizons_rows"),
        ("horizons_rows = [1, 10001]", "none over 10,000 rows"),
        (f"horizons_rows = {list(range(1, 18))}", "at most 16 horizons"),
        ("horizons_rows = [1, 2.5]", "horizons_rows"),
        ('horizons_rows = "1,5"', "horizons_rows"),
        ("horizons_rows = 5", "horizons_rows"),
        ("coverage = 0.4", "coverage"),
        ("coverage = 0.995", "coverage"),
        ("coverage = 90", "coverage"),
        ("coverage = nan", "coverage"),
        ("horizon_rows = [1]", "horizon_rows"),
    ],
)
def test_impossible_settings_are_refused_with_their_name(tmp_path: Path, setting: str, problem: str) -> None:
    """With the file and what to do."""
    with pytest.raises(ConfigError, match=problem) as refused:
        load(written(tmp_path, f"[forecast]\n{setting}\n"))
    assert "forecast" in str(refused.value)
    assert "dwcp.toml" in str(refused.value)


@pytest.mark.parametrize("horizons", [(2,), (1, 1), (1, 3, 2), (1, 20_000), tuple(range(1, 18))])
def test_an_architecture_refuses_them_too(horizons: tuple[int, ...]) -> None:
    """Job files are written by other programs as well."""
    with pytest.raises(ValueError, match="horizons"):
        forecasting(Relative(), horizons)


@pytest.mark.parametrize("coverage", [0.0, 0.49, 1.0, float("nan")])
def test_an_architecture_refuses_an_impossible_coverage(coverage: float) -> None:
    """NaN among them, which is neither under nor over a limit."""
    with pytest.raises(ValueError, match=r"use 0\.5 to 0\.99"):
        forecasting(Relative(), (1,), coverage)
