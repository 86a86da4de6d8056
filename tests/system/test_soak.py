"""The soak of benchmarks/soak.py in short: a training leaves nothing open or running, and what the daemon keeps is bounded."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

import harness
import soak
from parts import soak_plan

POOL_THREADS = 1
"""Native threads that may begin late: the second one of the memory allocator, which has one for each core."""


@pytest.fixture(scope="module")
def soaked() -> tuple[Any, dict[str, Any]]:
    """Six simulated hours of 80 links with a live version: one training that publishes, then four that find too little data."""
    plan = soak_plan.Plan(links=80, interval_s=60.0, hours=6, training_every_h=1, rows_max=9_000, keep=1, refusing_h=(2, 24))
    with pytest.MonkeyPatch.context() as environment:
        for name in ("ARROW_IO_THREADS", "OMP_NUM_THREADS"):  # of eight and two, as many have begun as were needed at once
            environment.setenv(name, "1")
        return plan, harness.in_process("parts.soak_run", asdict(plan))


def test_every_hour_has_its_training(soaked: tuple[Any, dict[str, Any]]) -> None:
    """None fails and none stays as a process. The last may wait for rows after a drift until the stream ends."""
    plan, found = soaked
    assert found["trainings_due"] == plan.trainings
    assert found["events"]["training_finished"] >= plan.trainings - 1
    assert found["events"]["model_published"] >= 1
    assert found["problems"] == []
    assert [sample["children"] for sample in found["samples"]] == [0] * plan.trainings


def test_nothing_is_left_open_by_a_training(soaked: tuple[Any, dict[str, Any]]) -> None:
    """From the first publication on, files and threads are as many after each training as before.

    The memory allocator may begin its second thread at any time; one for each training would be more.
    """
    before, *later = soaked[1]["samples"][2:]
    assert len(later) > POOL_THREADS
    for sample in later:
        assert sample["files"] <= before["files"]
        assert sample["python_threads"] == before["python_threads"]
        assert native(sample) <= native(before) + POOL_THREADS


def native(sample: dict[str, Any]) -> int:
    return int(sample["threads"]) - len(sample["python_threads"])


def test_retention_holds(soaked: tuple[Any, dict[str, Any]]) -> None:
    """The buffer was full and is not larger, and of two versions the older one is gone."""
    plan, found = soaked
    last = found["samples"][-1]
    assert found["outcomes"]["accepted"] > 2 * plan.rows_max
    assert 0 < last["buffer_rows"] <= plan.rows_max
    assert last["segments"] <= soak.segments_max(plan)
    assert (last["versions"], last["model_leftovers"]) == (1, 0)
    assert last["checkpoints"] <= soak.KEPT


def test_every_record_has_an_outcome(soaked: tuple[Any, dict[str, Any]]) -> None:
    """A delivered record is accepted, a duplicate, late, or, if it was truncated, rejected."""
    found = soaked[1]
    assert sum(found["outcomes"].values()) == found["delivered"]
    assert found["outcomes"]["rejected"] > 0
    assert found["samples"][0]["links"] < found["samples"][-1]["links"]  # some come later


def test_the_bars_find_what_they_are_there_for(soaked: tuple[Any, dict[str, Any]]) -> None:
    """A file left open by every training, memory that grows and a record without an outcome do not hold; one outlier changes no slope."""
    plan, found = soaked
    plan, hours = replace(plan, hours=soak.WEEK_H), range(0, soak.WEEK_H, 4)
    leaking = [found["samples"][-1] | {"hour": hour, "files": 10 + hour // 24, "resident_bytes": 4e8 + 2e5 * hour} for hour in hours]
    worse = found | {"samples": leaking, "delivered": found["delivered"] + 1}
    failing = {bar.name for bar in soak.bars(plan, worse, soak.figures(plan, worse)) if not bar.holds}
    assert {"resident_slope_per_week", "files_slope_per_week", "records_without_outcome"} <= failing
    assert soak.theil_sen([0, 1, 2, 3, 4], [5, 5, 900, 5, 5]) == 0
    assert soak.theil_sen([0, 1, 2, 3], [1, 3, 5, 7]) == 2
