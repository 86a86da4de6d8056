"""Limits of files and folders: a package is read like a book with short chapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.paths import ROOT

PACKAGES = ("daemon", "drift", "features", "model", "streams")
FILES_MAX = 16
LINES_MAX = 300
FOLDERS = sorted({path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_folder_has_few_files(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= FILES_MAX


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_long_file_gives_its_reason(folder: Path) -> None:
    """In its first lines: Numba's cache, for example, sees one file only."""
    long = [path.name for path in folder.glob("*.py") if len(lines := path.read_text().splitlines()) > LINES_MAX and not _reason(lines)]
    assert long == []


def _reason(lines: list[str]) -> bool:
    return "This file is long because" in "\n".join(lines[:12])
