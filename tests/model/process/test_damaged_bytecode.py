"""A child that meets a damaged .pyc: it removes it, starts anew in the same process, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.paths import ROOT

PROBE = """
import os, sys
from pathlib import Path
from model.process.bytecode import before_starting_again
from model.process.child import be_nicer_than, progress_output

def main(arguments):
    be_nicer_than(os.getppid(), 3)
    emit = progress_output()
    emit({"pid": os.getpid(), "nice": os.getpriority(os.PRIO_PROCESS, 0)})
    folder = Path(arguments[0])
    folder.mkdir()
    before_starting_again(folder.rmdir)
    print("a library's words", flush=True)
    from model import late
    emit({"status": late.STATUS})
    return 0
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of our packages, whose compiled files nobody else reads; one module starts like a training and imports another late."""
    for package in ("model", "features"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "model/probe.py").write_text(PROBE)
    (tmp_path / "model/late.py").write_text("STATUS = 'done'\n")
    return tmp_path


def damage(tree: Path, module: str) -> Path:
    compiled = Path(py_compile.compile(str(tree / f"{module}.py"), doraise=True))
    os.truncate(compiled, 20)
    return compiled


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "model.start", *arguments]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("child", ["model.job", "model.run"])
@pytest.mark.parametrize("module", ["model/buffer/segments", "features/telemetry", "child"])
def test_one_of_its_first_imports(tree: Path, child: str, module: str) -> None:
    """The damaged file is reported, and the child prints the same as without it."""
    compiled = damage(tree, child.replace(".", "/") if module == "child" else module)
    done = run(tree, child, str(tree / "none.json"), str(os.getpid()))
    assert done.returncode == 2
    assert f"{compiled} was damaged and has been removed; starting again" in done.stderr
    assert "none.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_is_imported_late(tree: Path) -> None:
    """Progress goes on where it was read, niceness is what it was, and what the first one has written is no hindrance."""
    damage(tree, "model/late")
    done = run(tree, "model.probe", str(tree / "made"))
    assert done.returncode == 0, done.stderr
    first, second, last = map(json.loads, done.stdout.splitlines())
    assert first == second
    assert first["nice"] == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    assert last == {"status": "done"}
    assert done.stderr.count("a library's words") == 2


def test_an_error_of_its_own_is_none(tree: Path) -> None:
    """A module that is not there, or an EOFError from elsewhere, starts nothing again."""
    (tree / "model/late.py").write_text("raise EOFError('of its own')\n")
    done = run(tree, "model.probe", str(tree / "made"))
    assert done.returncode == 1
    assert "EOFError: of its own" in done.stderr
    assert len(done.stdout.splitlines()) == 1
