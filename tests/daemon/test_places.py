"""Folders, files and addresses that cannot be used: the message names the setting and what to do."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.clock import StreamClock
from daemon.errors import DaemonError, EventsError, StateError
from daemon.operator.http import HttpServer
from daemon.operator.observer import Observer
from daemon.wiring import build
from streams.files.source import FileSource
from testkit import rig


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """make(http={...}) builds a daemon over one record."""
    (tmp_path / "telemetry.ndjson").write_text('{"timestamp": 1767571200, "node_id": "a", "peer_id": "b", "rtt_ms": 1}\n')

    def over(**sections: dict[str, Any]) -> Any:
        return build(rig.config(tmp_path, **sections), FileSource(tmp_path / "telemetry.ndjson"), StreamClock(), Observer())

    return over


def message(make: Callable[..., Any], kind: type[DaemonError], **sections: dict[str, Any]) -> str:
    with pytest.raises(kind) as refused:
        make(**sections)
    assert type(refused.value) is kind
    return str(refused.value)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_the_http_port_is_in_use(make: Callable[..., Any], taken: int) -> None:
    """The message names the port, and the settings that help."""
    reported = message(make, DaemonError, http={"enabled": True, "port": taken})
    assert f"http.port {taken}: the daemon cannot listen there (Address already in use)" in reported
    assert "use a free http.port, 0 for any, or switch it off with http.enabled = false" in reported


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("no.such.host.invalid", "http.host 'no.such.host.invalid': there is no such host"),
        ("192.0.2.1", "use an address of this machine as http.host"),
    ],
)
def test_no_such_host(make: Callable[..., Any], host: str, problem: str) -> None:
    """An unknown name, and an address of another machine."""
    assert problem in message(make, DaemonError, http={"enabled": True, "host": host, "port": 0})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_hosts_that_work(host: str) -> None:
    """IPv6 as well, where the machine has it."""
    if host == "::1":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
    server = HttpServer(host, 0, Observer(), list, list, lambda: None)
    server.start()
    try:
        with urllib.request.urlopen(f"{server.address}/livez", timeout=30) as answer:
            assert answer.read() == b"ok\n"
    finally:
        server.close()


@pytest.mark.parametrize("below", ["", "x"])
def test_the_models_directory_is_a_file(make: Callable[..., Any], tmp_path: Path, below: str) -> None:
    """It, or the folder in which it should be made."""
    (tmp_path / "file").write_text("x")
    reported = message(make, DaemonError, models={"directory": tmp_path / "file" / below})
    assert f"models.directory {tmp_path / 'file' / below}: cannot be used as a folder" in reported
    assert "name another one" in reported


def test_the_events_folder_is_a_file(make: Callable[..., Any], tmp_path: Path) -> None:
    """The setting is named."""
    (tmp_path / "file").write_text("x")
    reported = message(make, EventsError, events={"folder": tmp_path / "file"})
    assert "events cannot be written there (File exists); name another folder as events.folder" in reported


def test_the_events_folder_holds_something_else(make: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing of it is overwritten."""
    (tmp_path / "events").mkdir()
    (tmp_path / "events/drift.ndjson").write_text("not an event")
    reported = message(make, EventsError, events={"folder": tmp_path / "events"})
    assert EventsError.exit_code == 5
    assert "does not hold events" in reported
    assert "events.folder" in reported
    assert (tmp_path / "events/drift.ndjson").read_text() == "not an event"


@pytest.mark.parametrize("name", ["journal-main.ndjson", "lock-main", "training-main", "checkpoints", "buffer"])
def test_a_part_of_the_state_is_of_the_wrong_kind(make: Callable[..., Any], tmp_path: Path, name: str) -> None:
    """A folder where a file should be, or the other way round: exit code 4, with its path and what to do."""
    path = tmp_path / "state" / name
    if "-" in name and not name.startswith("training"):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_text("x")
    reported = message(make, StateError)
    assert StateError.exit_code == 4
    assert str(tmp_path / "state") in reported
    assert ";" in reported, "and what to do"
