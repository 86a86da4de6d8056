"""The waits of the tests, and what they share: a wait in vain names its state, and nothing broken is passed on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit import waiting
from testkit.paths import PYTHONPATH
from testkit.waiting import wait_for


def test_a_wait_ends_with_the_state() -> None:
    """It returns the value, also if the process that reached the state has ended since."""
    values = iter([None, 0, [], "there"])
    assert wait_for(lambda: next(values), "a value") == "there"
    assert wait_for(lambda: "done", "the last words", alive=lambda: False) == "done"


def test_a_wait_in_vain_says_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at once if the state cannot come any more, else at the limit."""
    with pytest.raises(AssertionError, match="ended before: the log says why"):
        wait_for(lambda: False, lambda: "the log says why", alive=lambda: False)
    monkeypatch.setattr(waiting, "LIMIT_S", 0.0)
    with pytest.raises(AssertionError, match="not within 0 s: a broker"):
        wait_for(lambda: False, "a broker")


FAILING = """
import pytest

@pytest.fixture(scope="module")
def shared(renewed):
    from contextlib import contextmanager
    made = []

    @contextmanager
    def start():
        made.append({"open": True})
        yield made
        made[-1]["open"] = False

    with renewed(start) as it:
        yield it
    assert not any(one["open"] for one in made)

@pytest.fixture
def made(shared, request):
    with shared.of(request.node, lambda made: made[-1]["open"]) as made:
        yield made

@pytest.mark.parametrize(("fails", "number"), [(False, 1), (True, 1), (False, 2), (False, 2), (True, 2), (False, 3)])
def test_it(made, fails, number):
    assert [one["open"] for one in made] == [False] * (number - 1) + [True]
    assert not fails
"""


def test_after_a_failure_a_file_shares_something_new(tmp_path: Path) -> None:
    """Two of six tests fail, and none of the others. What was shared is closed each time, and at the end."""
    (tmp_path / "test_shared.py").write_text(FAILING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "testkit.renewed",
        "--import-mode=importlib",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": PYTHONPATH})
    assert "2 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert " error" not in done.stdout.splitlines()[-1], done.stdout
