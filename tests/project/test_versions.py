"""Ranges of versions: each ends at the next untried version, and every place that names Python names the same versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from testkit.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
PYTHONS = ("3.11", "3.12", "3.13")
NOT_TRIED = ("3.10", "3.14", "3.15", "4.0")


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_a_requirement_has_both_ends(text: str) -> None:
    """And the locked version lies between them."""
    requirement = Requirement(text)
    assert {one.operator for one in requirement.specifier} == {">=", "<"}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for version in re.findall(rf"^{re.escape(requirement.name)}==(\S+)", lock, re.MULTILINE):
        assert version in requirement.specifier


def test_python_is_what_was_tried() -> None:
    """No later one: the pinned TensorFlow has no wheel for it."""
    accepted = SpecifierSet(PROJECT["requires-python"])
    assert [version for version in (*PYTHONS, *NOT_TRIED) if version in accepted] == list(PYTHONS)


@pytest.mark.parametrize("name", ["README.md", "systemd/README.md", "Makefile"])
def test_a_document_names_the_same_pythons(name: str) -> None:
    """A person with another one reads it before pip fails."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}" in text
    assert not re.search(r"3\.\d+ or (newer|later)", text)


@pytest.mark.parametrize("version", [*PYTHONS, *NOT_TRIED])
def test_the_set_up_refuses_other_pythons(version: str) -> None:
    """The check of the Makefile, with the version that it would see."""
    check = re.search(r"\$\(PYTHON\) -c '(.*)'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert check is not None
    numbers = (*map(int, version.split(".")), 1)
    program = check[1].replace("sys.version_info", str(numbers))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == (version not in PYTHONS)
    assert ("3.11, 3.12 or 3.13 is needed" in done.stderr) == (version not in PYTHONS)
