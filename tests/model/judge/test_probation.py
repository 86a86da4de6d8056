"""The comparison of a new version with the one before: the same result however rows come, and what it adds up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from features.changes import FeatureRows
from features.telemetry import TARGETS, Floats
from model.judge.probation import EACH, LINKS, Brought, Probation, Proof, together

VERSION, BEFORE = "v20260102_000000", "v20260101_000000"


@dataclass
class Constant:
    """What a probation asks of a predictor: it forecasts the mean of the window's last row."""

    shift: float = 0.0
    vocabulary: str = "codes"
    horizons: tuple[int, ...] = (1, 5)
    asked: list[int] = field(default_factory=list)

    def predict_both(self, windows: Floats, _context: Floats) -> tuple[Floats, None]:
        self.asked.append(len(windows))
        return windows[:, -1, : len(TARGETS)] + np.float32(self.shift), None


def rows_of(values: Floats, links: int) -> tuple[FeatureRows, Any, Any, Floats]:
    """Rows of links in turn, a minute between two of one link: features, watch indices, times and measurements."""
    count = len(values)
    index = np.arange(count) % links
    previous = np.where(np.arange(count) >= links, np.arange(count) - links, -1)
    windows = np.zeros((count, 30, 44), np.float32)
    windows[:, -1, : len(TARGETS)] = values[:, None]
    none = np.zeros(count, np.int64)
    context = np.ones((count, 5, len(TARGETS)), np.float32)
    flags = np.zeros(count, bool)
    rows = FeatureRows(
        np.arange(count), index.astype(np.int32), none, flags, 0, 0, np.arange(count), previous, ~flags, windows, windows[:, -1, :4],
        context, np.full(count, 60.0),
    )  # fmt: skip
    return rows, index.astype(np.int32), 60.0 * (np.arange(count) // links), np.repeat(values[:, None], len(TARGETS), axis=1)


def begun(links: int, **of: Any) -> tuple[Probation, Constant]:
    old = Constant(**of)
    probation = Probation()
    probation.extend(links)
    probation.begin(VERSION, Constant(), BEFORE, old)  # type: ignore[arg-type]
    return probation, old


@pytest.mark.parametrize(("shift", "failed"), [(0.0, True), (9.0, False)])
def test_which_version_is_better_is_found(shift: float, failed: bool) -> None:
    """A new version that is off by 3 fails against one that is right, and proves itself against one that is off by 9."""
    values = np.random.default_rng(1).normal(50.0, 1.0, 3_000).astype(np.float32)
    rows, index, time_s, actual = rows_of(values, 2)
    probation, old = begun(2, shift=shift)
    live = np.roll(actual, 2, axis=0) + np.float32(3.0)
    probation.follow(rows, index, time_s, actual, live)
    proof = probation.proof()
    assert proof is not None
    assert (proof.version, proof.before, proof.failed) == (VERSION, BEFORE, failed)
    assert {one.target for one in proof.brought} == set(TARGETS)
    assert (proof.worse > 0.0) is failed
    asked = len(old.asked)
    probation.follow(rows, index, time_s, actual, live)
    assert len(old.asked) == asked, "the old version is not needed any more"


@pytest.mark.parametrize("of", [{"vocabulary": "other codes"}, {"horizons": (1, 9)}, {"horizons": ()}])
def test_versions_that_cannot_be_compared_have_no_probation(of: dict[str, Any]) -> None:
    probation, _ = begun(1, **of)
    assert probation.version is None
    probation.begin(BEFORE, Constant(), VERSION, Constant())  # type: ignore[arg-type]
    assert probation.version is None, "an older version that has come back is not on probation"
    probation.begin(VERSION, Constant(), BEFORE, None)
    assert probation.proof() is None


def test_the_same_bits_whatever_the_batches_and_through_a_restart() -> None:
    """New links that a batch brings change nothing for the rows before theirs."""
    values = np.random.default_rng(2).normal(50.0, 1.0, 900).astype(np.float32)
    rows, index, time_s, actual = rows_of(values, 40)
    live = np.roll(actual, 40, axis=0)
    whole, old = begun(40)
    whole.follow(rows, index, time_s, actual, live)
    assert sum(old.asked) == np.count_nonzero((index < LINKS) | (index % EACH == 0))
    parted, _ = begun(0)
    for begin in range(0, 900, 20):
        parted.extend(max(0, min(begin + 20, 40) - len(parted.arrays()["probation_forecast"])))
        part = slice(begin, begin + 20)
        some = FeatureRows(
            rows.accepted[part], rows.slots[part], rows.codes[part], rows.restarted[part], 0, 0, np.arange(20), np.full(20, -1),
            rows.ready[part], rows.windows[part], rows.last_known[part], rows.context[part], rows.interval_s[part],  # type: ignore[index]
        )  # fmt: skip
        parted.follow(some, index[part], time_s[part], actual[part], live[part])
        arrays = {name: array.copy() for name, array in parted.arrays().items()}
        parted = Probation.restored(parted.state(), arrays, lambda _version: Constant())  # type: ignore[arg-type,return-value]
    for name, array in whole.arrays().items():
        assert array.tobytes() == parted.arrays()[name].tobytes(), name
    assert whole.state() == parted.state()


def test_proofs_of_several_partitions_are_one() -> None:
    one = Proof(VERSION, BEFORE, False, 0.0, (Brought("rtt_ms", 100, 9.0, 10.0, -2.0, 0.0),))
    other = Proof(VERSION, BEFORE, True, 0.4, (Brought("rtt_ms", 300, 13.0, 10.0, 2.0, 4.0), Brought("jitter_ms", 5, 1.0, 0.0, 0.0, 2.0)))
    both = together([one, other])
    assert (both.failed, both.brought[0]) == (True, Brought("rtt_ms", 400, 12.0, 10.0, 1.0, 3.0))
    assert both.worse == 0.4
    assert together([one]).worse == pytest.approx(-0.1)
