"""The state directory: no stranger looks in, and nobody else changes what is there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.clock import StreamClock
from daemon.errors import StateError
from daemon.operator.observer import Observer
from daemon.state.private_folder import make_private
from daemon.wiring import build
from streams.files.source import FileSource
from testkit import rig

NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    """Set the umask of a careless service: everything that is made is open to everybody, unless the code closes it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_new_folder_is_private(tmp_path: Path) -> None:
    """Whatever the umask is."""
    assert not make_private(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700


@pytest.mark.parametrize(
    ("before", "after"), [(0o755, 0o750), (0o777, 0o750), (0o770, 0o750), (0o2775, 0o2750), (0o711, 0o710), (0o750, 0o750), (0o700, 0o700)]
)
def test_a_folder_that_is_there_is_closed_to_strangers(tmp_path: Path, before: int, after: int) -> None:
    """Others may do nothing, the group change nothing; the group may look in where it could."""
    tmp_path.joinpath("state").mkdir()
    (tmp_path / "state").chmod(before)
    assert make_private(tmp_path / "state") is (before != after)
    assert mode(tmp_path / "state") == after


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another user's")
@pytest.mark.parametrize(("before", "refused"), [(0o777, True), (0o1777, True), (0o2775, False), (0o755, False)])
def test_a_folder_of_another_user(tmp_path: Path, before: int, refused: bool) -> None:
    """It is refused if everybody may write into it, with what to do; one of a group that was made for the daemon is used as it is."""
    tmp_path.joinpath("state").mkdir()
    (tmp_path / "state").chmod(before)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.name.startswith(("pytest", "popen", "test")):
            folder.chmod(0o755)
    child = os.fork()
    if child == 0:  # as a user who does not own it
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            make_private(tmp_path / "state")
        except StateError as error:
            os._exit(3 if "name a folder inside it as state.directory" in str(error) else 1)
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (3 if refused else 0)
    assert mode(tmp_path / "state") == before


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("there", [False, True], ids=["new", "there before"])
def test_a_daemon_leaves_nothing_that_strangers_can_read(tmp_path: Path, there: bool) -> None:
    """Each file of the state lies behind a folder that they cannot enter; a directory that had been open is reported."""
    state, reported = tmp_path / "state", []
    if there:
        state.mkdir(mode=0o777)
    (tmp_path / "telemetry.ndjson").write_text('{"timestamp": 1762232095, "node_id": "a", "peer_id": "b", "rtt_ms": 1}\n{}\n')
    source = FileSource(tmp_path / "telemetry.ndjson")
    build(rig.config(tmp_path), source, StreamClock(), Observer(lambda event, _fields: reported.append(event))).run()
    assert list(state.rglob("*.parquet"))
    assert mode(state) & 0o027 == 0
    assert {path.name: mode(path) & 0o077 for path in state.iterdir() if path.is_dir() and path.name != "events"}.keys() >= {"buffer"}
    assert reported.count("state_closed") == there
