"""The seeded simulation of benchmarks/simulation.py in short, and the storm that it uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simulation
from testkit import killing, remains
from testkit.disk.storm import Forecast, Storm


@pytest.mark.parametrize("seed", [3, 7, 11])
def test_a_storm_changes_nothing(home: Path, uninterrupted: Any, seed: int) -> None:
    """Lives with refused calls, kills and power cuts, and then one without: the result is that of an undisturbed run."""
    codes, broken = simulation.survive(home, seed)
    assert not broken
    assert killing.KILLED in codes, "nothing has struck: choose another seed"
    remains.same(remains.outcome(home), uninterrupted)


def struck(root: Path, seed: int, work: Callable[[], None]) -> int:
    """Return the exit code of a process that works until its storm ends it with a power cut at the first call after the work."""

    def inside() -> None:
        storm = Storm(root, seed)
        storm.arm()
        storm.forecast = Forecast(calls=10**9, power_cut=True, refused=0.0, spell=1)
        work()
        storm.forecast = Forecast(calls=0, power_cut=True, refused=0.0, spell=1)
        (root / "end").rename(root / "never")

    return int(killing.in_child(inside, root.parent / "log"))


def test_a_power_cut_takes_what_was_not_made_durable(tmp_path: Path) -> None:
    """Bytes after the last fsync are lost or zeros, a rename without a synced folder is undone, and the rest stays."""
    lost_bytes, lost_names = 0, 0
    for seed in range(12):
        root = tmp_path / str(seed) / "state"
        root.mkdir(parents=True)

        def work(root: Path = root) -> None:
            with (root / "file").open("wb") as file:
                file.write(b"durable")
                file.flush()
                os.fsync(file.fileno())
                file.write(b"in the cache")
            (root / "kept.new").write_bytes(b"")
            (root / "kept.new").rename(root / "kept")
            folder = os.open(root, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            (root / "name.new").write_bytes(b"")
            (root / "name.new").rename(root / "name")

        assert struck(root, seed, work) == killing.KILLED
        content = (root / "file").read_bytes()
        assert content.startswith(b"durable")
        assert (root / "kept").exists()
        lost_bytes += content != b"durablein the cache"
        lost_names += not (root / "name").exists()
    assert lost_bytes > 3
    assert 0 < lost_names < 12
