"""Overload of benchmarks/overload.py in short: more records than a daemon can take, and a disk that refuses for a while."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def test_nothing_but_forecasts_is_shed(
    load: Callable[[str], ModuleType], kafka_broker: str, publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that runs for a twentieth of the time falls behind and shows by how much, sheds forecasts and counts them, pauses while the
    disk refuses, keeps its partitions, catches up, and has every record exactly once."""
    overload = load("overload")
    monkeypatch.setattr(overload, "LINKS", 200)
    publish(tmp_path, "v20260101_000000")
    rig = overload.Rig(kafka_broker, tmp_path / "models", tmp_path)
    figures = overload.overload(rig, overload.Plan(seconds=15.0, capacity_s=0.0, share=0.05), 2000.0, tmp_path)
    assert figures["records"] > 50_000
    assert figures["lag_peak"] > 10_000
    assert figures["forecasts_shed"] > 1000
    assert figures["times_shed"] == figures["times_resumed"] > 0
    assert figures["paused"] == figures["resumed"] > 0
    nothing = ("features_shed", "partitions_lost", "not_live", "lost", "duplicated", "exit_code")
    assert {name: figures[name] for name in nothing} == dict.fromkeys(nothing, 0)
