"""Messages to systemd on a real socket: states, and a watchdog that only progress feeds."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.operator.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end of the socket, and NOTIFY_SOCKET."""
    name = f"@dwcp-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.setblocking(False)
        yield listening, name


def heard(listening: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listening.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_the_states_of_a_service(manager: tuple[socket.socket, str]) -> None:
    """Each is one datagram in the words of sd_notify(3); a status is one line."""
    listening, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.status("7 links,\nmodel none")
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    ready, status, reloading, again, stopping = heard(listening)
    assert (ready, status, again, stopping) == ("READY=1", "STATUS=7 links, model none", "READY=1", "STOPPING=1")
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading), "systemd needs the time to tell it from an older READY"


def test_the_watchdog_is_fed_three_times_in_its_interval(manager: tuple[socket.socket, str]) -> None:
    """However often the loop goes round. Before READY there is no watchdog, but a time-out for the start, which is put off."""
    listening, name = manager
    now_s = 1000.0
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environment, lambda: now_s)
    assert notifier.watchdog_s == 30.0
    for _ in range(400):  # 40 s without a broker
        now_s += 0.1
        notifier.alive()
    assert heard(listening) == ["EXTEND_TIMEOUT_USEC=60000000"] * 3
    notifier.ready()
    heard(listening)
    for _ in range(600):
        now_s += 0.1
        notifier.alive()
    assert 5 <= heard(listening).count("WATCHDOG=1") <= 7
    now_s += 100.0
    assert heard(listening) == [], "a loop that stands still feeds nothing"


def test_a_manager_that_does_not_listen_holds_up_nobody(manager: tuple[socket.socket, str]) -> None:
    """Its socket holds some ten messages; what does not fit is left out, and would come again."""
    listening, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())})
    notifier.ready()
    for number in range(1000):
        notifier.status(str(number))
        notifier.alive()
    assert heard(listening)[:2] == ["READY=1", "STATUS=0"]


def test_a_change_of_state_is_sent_until_the_manager_takes_it(manager: tuple[socket.socket, str]) -> None:
    """A unit whose READY=1 is lost stays `activating` until systemd kills it: it comes again, in order, before the next status."""
    listening, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for number in range(1000):
        notifier.status(str(number))
    notifier.ready()
    notifier.reloading()
    assert not [one for one in heard(listening) if not one.startswith("STATUS=")], "the socket was full"
    notifier.status("listened to again")
    ready, reloading, status = heard(listening)
    assert (ready, reloading.partition("\n")[0], status) == ("READY=1", "RELOADING=1", "STATUS=listened to again")


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000"}],
    ids=["no systemd", "the watchdog is another process's", "a socket that is gone"],
)
def test_without_anybody_to_hear(environment: dict[str, str]) -> None:
    """Every call does nothing."""
    notifier = Notifier(environment)
    notifier.ready()
    notifier.alive()
    notifier.status("x")
    notifier.stopping()
    assert notifier.watchdog_s == (0.001 if environment.get("WATCHDOG_PID") is None and environment else 0.0)
