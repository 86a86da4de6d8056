"""River's detectors come without what the rest of River would load."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = """
import drift.link.stage, drift.region.stage, sys
assert not {'pandas', 'sklearn', 'scipy.stats'} & set(sys.modules), sorted(sys.modules)
"""
RIVER_AFTER = "import drift.link.adwin as ours, river.drift as theirs; assert ours.ADWIN is theirs.ADWIN; theirs.KSWIN()"
RIVER_BEFORE = "import river.drift as theirs, drift.link.adwin as ours; assert ours.ADWIN is theirs.ADWIN"


@pytest.mark.parametrize("program", [LIGHT, RIVER_AFTER, RIVER_BEFORE], ids=["light", "river_after", "river_before"])
def test_the_detectors_are_rivers_own_and_load_nothing_else(program: str) -> None:
    """In a fresh interpreter no pandas, scikit-learn or SciPy is loaded; and `river.drift` works as ever, before and after."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
