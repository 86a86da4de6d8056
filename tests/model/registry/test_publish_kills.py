"""Publications that are killed: at each call that changes the disk a reader finds a whole version, and after a power cut too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.disk import syscalls
from testkit.paths import PYTHONPATH
from testkit.versions import make_version

WORKS = {"publish", "rollback", "refuse", "prune", "recover"}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_no_kill_shows_a_reader_anything_but_a_whole_version(tmp_path: Path, signed: bool) -> None:
    """Killed at any call that changes the disk, in all that is ever done to a registry, the next publisher goes on, nothing is left
    over, and a reader in a tight loop has seen verified versions only; nothing is visible, or deleted, before the fsync that it needs."""
    if (reason := syscalls.why_not()) is not None:
        pytest.skip(reason)
    source = make_version(tmp_path / "source", "v20250101_000000")
    (tmp_path / "run").mkdir()
    job = {"source": str(source), "folder": str(tmp_path / "run"), "signed": signed, "stops": "changing"}
    command = [sys.executable, "-m", "testkit.disk.publishing", json.dumps(job)]
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["wrong"], answer["reader"]["told"], answer["partial"]) == ([], [], 0)
    assert answer["kills"].keys() == WORKS
    assert min(answer["kills"].values()) >= 3, "of each work several calls change the disk"
    assert answer["at_once"] >= 8, "opened, written, fsynced, renamed: before and after each"
    assert answer["reader"]["reads"] > sum(answer["kills"].values())
    assert answer["reader"]["golden"] > 0
