"""The testkit is found by its name, beside tests and benchmarks, and hides no package of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.paths import PYTHONPATH, ROOT, TESTS

PACKAGES = ("daemon", "drift", "features", "model", "streams")
CODE = f"""
import testkit.waiting
{"; ".join(f"import {name}" for name in PACKAGES)}
for module in (testkit, {", ".join(PACKAGES)}):
    print(module.__file__)
"""


@pytest.mark.parametrize(("folder", "before"), [(Path("/"), ""), (ROOT / "benchmarks", "import parts\n")], ids=["a path", "benchmarks"])
def test_folders_of_tests_are_not_the_packages_of_their_names(folder: Path, before: str) -> None:
    """Checked in a separate process: tests/daemon is a folder of tests, and `daemon` the package."""
    environment = os.environ | {"PYTHONPATH": "" if before else PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", before + CODE], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [str(place / "__init__.py") for place in (TESTS / "testkit", *(ROOT / name for name in PACKAGES))]


def test_each_folder_of_tests_can_be_seen_at_once() -> None:
    """Each folder has at most 16 files, as in the packages."""
    folders = [TESTS, *(path for path in TESTS.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    assert {str(folder): count for folder in folders if (count := sum(path.is_file() for path in folder.iterdir())) > 16} == {}
