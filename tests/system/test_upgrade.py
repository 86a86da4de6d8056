"""State of older releases: each schema version in tests/states is read, and the stream goes on from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.state.migration import migrated
from daemon.state.snapshot import SCHEMA_VERSION
from drift.link.stage import LinkDrift
from features.memory import BEGUN, COUNT, RECENT_ROWS
from testkit import remains, rig
from testkit.paths import STATES


def test_every_version_has_its_state() -> None:
    """A new schema version comes with a state directory of the one before it."""
    assert sorted(path.name for path in STATES.glob("version-*")) == [f"version-{version}.tar.xz" for version in range(1, SCHEMA_VERSION)]


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_state_is_taken_up(home: Path, uninterrupted: Any, version: int) -> None:
    """A run that an older release has stopped after two thousand records leaves what an undisturbed run of this one leaves.

    Results of forecasts are compared by their names, because the older half was computed on another machine by another graph.
    """
    shutil.unpack_archive(STATES / f"version-{version}.tar.xz", home)
    _, before = remains.newest(home / "state")
    assert before.schema_version == version
    assert 1000 < sum(part.offset for part in before.parts) < uninterrupted.rows, "nothing would be left to take"
    left = rig.outcome_after(home)
    for name in ("offsets", "rows", "buffer"):
        assert getattr(left, name) == getattr(uninterrupted, name), name
    # The forecasts of those releases were not bounded, and detectors had learnt from them: only what was planted is the same.
    reported = [json.loads(line)["data"] for line in left.alerts.values()]
    incidents = {alert["incident"] for alert in reported if alert.get("scope", "region") == "region" and alert["region"] == "eu"}
    assert len(incidents) == 1, "the incident goes on under the id that it was opened with"
    for partition, state in left.parts.items():
        wanted = uninterrupted.parts[partition]
        assert state.keys() == wanted.keys()
        recent = {name for name in state if name.startswith("store_")} | {"keys", "values", "watch_index", "epoch", "event_time_s"}
        if version < 5:  # how often a name had come before was not written down
            recent -= {"store_names"}
        # Links remember what came after the upgrade, which was within the running hour of some: not the same levels and profiles.
        recent -= {"store_profile", "store_folded", "store_recent"}
        remembered, wanted_too = (np.frombuffer(names["store_recent"]).reshape(-1, RECENT_ROWS, 4) for names in (state, wanted))
        np.testing.assert_array_equal(remembered[:, BEGUN], wanted_too[:, BEGUN])
        assert (remembered[:, COUNT] <= wanted_too[:, COUNT]).all()
        assert remembered[:, COUNT].any()
        assert not [name for name in recent if state[name] != wanted[name]]
        last, wanted_last = (np.frombuffer(names["store_names"], np.int64).reshape(-1, 2)[:, 0] for names in (state, wanted))
        assert all(one in (-1, offset) for one, offset in zip(last.tolist(), wanted_last.tolist(), strict=True))
    _, after = remains.newest(home / "state")
    assert after.schema_version == SCHEMA_VERSION
    assert not remains.reported(home, "checkpoint_unsound")


def test_links_that_no_detector_has_seen_yet_have_no_state() -> None:
    """Before the first version links are monitored and none is judged: all arrays of the detectors are of the same links afterwards."""
    before = LinkDrift()
    document = {"watch_regions": ["eu"] * 3, "drift": before.document()}
    _, arrays = migrated(6, document, before.arrays())
    lengths = {name: len(array) for name, array in arrays.items()}
    assert lengths.pop("sides") == lengths.pop("probation_forecast") == 3
    lengths = {name: length for name, length in lengths.items() if not name.startswith("probation_")}
    assert set(lengths.values()) == {0}
