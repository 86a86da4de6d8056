"""Fixtures of the whole test suite, and the order in which its files run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from hypothesis import settings

from testkit import go_client, remains, rig, scripted
from testkit.paths import ROOT
from testkit.running import Running, die_with_parent
from testkit.versions import publish

pytest_plugins = ["testkit.kafka.fixtures", "testkit.renewed"]
sys.path.append(str(ROOT / "benchmarks"))  # at the end: an installed package of the same name comes first

# No deadline for an example: the first one compiles kernels, and the machine may be busy.
settings.register_profile("dwcp", deadline=None)
settings.load_profile("dwcp")


LONGEST_FIRST: Final = (
    "test_broker_faults", "test_go_client", "test_train", "test_job", "test_never_silent", "test_recovery", "test_disk_faults",
    "test_systemd", "test_export", "test_end_to_end", "test_overload", "test_trainer", "test_kafka", "test_rebalance", "test_soak",
    "test_kafka_sink", "test_ahead",
)  # fmt: skip
"""Files that take half a minute and more. One that starts last leaves the other core without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort files by how long they take; the tests of a file stay in their order."""
    rank = {name: index for index, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """run(kafka, topic=..., more=..., faults=...): start a daemon, which is killed at the end of the test if it still runs."""
    started = []

    def start(kafka: str, **settings: Any) -> Running:
        started.append(Running(tmp_path, kafka, **settings))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """spawn(command, ...): a subprocess.Popen that is killed at the end of the test, and its training with it."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, preexec_fn=die_with_parent, **{"text": True, **options}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def home(tmp_path: Path, uninterrupted: Any) -> Path:  # noqa: ARG001 - warms up
    """A folder for runs of the rig, with a live version."""
    publish(tmp_path, rig.FIRST)
    return tmp_path


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> remains.Outcome:
    """What one undisturbed run of the rig leaves.

    It runs in this process. Processes that are forked from it find every import done and every kernel loaded: half of their time.
    """
    home = tmp_path_factory.mktemp("uninterrupted")
    publish(home, rig.FIRST)
    rig.daemon_over(scripted.ScriptedSource(seed=1, batch_max=100), rig.config(home)).run()
    left = remains.outcome(home)
    assert any("drift.opened" in line for line in left.alerts.values()), "the planted drift was not reported: nothing would be tested"
    return left


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """cli("models", "list", ...): run `dwcp-learner models list ...` in this process, in an empty folder.

    Returns the exit code, standard output and standard error. Logging and signal handlers are restored afterwards.
    """
    from daemon.cli import main

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COLUMNS", "140")
    for name in [name for name in os.environ if name.upper().startswith("DWCP_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dwcp-learner", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            root.handlers[:] = handlers
        return code, *capsys.readouterr()

    yield run
    root.setLevel(level)
    structlog.reset_defaults()
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def dwcp_predict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go client's command, built once. Skips if Go is missing; in CI that is a failure."""
    return go_client.build(tmp_path_factory.mktemp("go"))
